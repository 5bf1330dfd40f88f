/**
 * A start in a slot where no worker can hand over: the keeper itself plays the predecessor, and offers the members and the checkpoints that
 * it holds. Ends with a worker that serves, or with the process gone.
 */

import { channelTo, handOver, Lifecycle } from '@handover/core/internal'
import type { SlotContext } from './slot-context.js'
import type { Start } from './slot-state.js'
import type { Worker } from './worker.js'

/**
 * Resolves when the worker serves. Throws a HandoverError. `first`: the first worker of the app, which may take as long as it likes to
 * begin; `withoutState`: the checkpoints are not offered.
 */
export async function startWithoutPredecessor(context: SlotContext, start: Start, first: boolean, withoutState: boolean): Promise<Worker> {
  const { index, side } = context
  const begun = performance.now()
  const release = side.files.hold()
  const { worker, started } = await context.launch(true).catch((error: unknown) => {
    release()
    throw error
  })
  start.worker = worker
  if (start.givenUp) worker.kill()
  const channel = channelTo(started)
  const sections = side.checkpoints.offerFor(index, withoutState)
  const offered = sections.names.length > 0 ? ` The one that failed was started${side.checkpoints.nextStart(index)}: handover reload --without-state starts one without.` : ''
  let gotOffer = false
  try {
    const nobodyServed = await side.nobodyServes()
    await handOver({
      // At the offer: a worker whose last answer was on its way may have ended meanwhile.
      get alone() { return nobodyServed || !side.hasServer() },
      machine: launchingLifecycle(),
      self: { pid: process.pid, generation: context.generation },
      readyTimeoutMs: side.readyTimeoutMs(first),
      stopped: context.starts.signal,
      offer: () => {
        gotOffer = true
        return side.members.offerFor(index)
      },
      sections,
      since: side.since(),
      mayDropAll: true,
      serves: () => `${side.serves()}${offered}`,
      stopAccepting: () => []
    }, { channel, pid: worker.pid, child: started.child }, begun)
    channel.send({ type: 'end' })
    worker.say({ type: 'settle' })
    side.checkpoints.startServed(index, sections)
    return worker
  } catch (error) {
    // A process that the keeper ended itself says nothing about what it was offered.
    if (!start.givenUp && !context.isStopping) side.checkpoints.startFailed(index, sections, gotOffer)
    worker.retiring = true
    worker.kill()
    throw error
  } finally {
    channel.close()
    release()
  }
}

/** Of a predecessor that has just started its successor. */
function launchingLifecycle(): Lifecycle {
  const lifecycle = new Lifecycle(() => undefined)
  lifecycle.move('idle', { is: 'serving' })
  lifecycle.move('serving', { is: 'launching' })
  return lifecycle
}
