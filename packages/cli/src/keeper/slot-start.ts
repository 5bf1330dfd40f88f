/**
 * A start in a slot where no worker can hand over: the keeper itself plays the predecessor, and offers the members and the checkpoints that
 * it holds. Ends with a worker that serves, or with the process gone.
 */

import {
  channelTo, deadlineIn, HandoverError, handOver, Lifecycle, withDeadline, type ProcessEnd, type Wishes
} from '@handover/core/internal'
import { answerMs, type SlotContext } from './slot-context.js'
import type { Start } from './slot-state.js'
import type { LaunchedWorker, Worker } from './worker.js'

/**
 * Resolves when the worker serves. Throws a HandoverError. `first`: the first worker of the app, which may take as long as it likes to
 * begin; `wishes`: of the reload that starts it.
 */
export async function startWithoutPredecessor(context: SlotContext, start: Start, first: boolean, wishes?: Wishes): Promise<Worker> {
  const begun = performance.now()
  const release = context.side.files.hold()
  try {
    const launched = await context.launch(true)
    const { worker } = launched
    start.worker = worker
    if (start.givenUp || context.isStopping) worker.kill()
    const served = offerTo(context, start, launched, { begun, first, wishes })
    if (first) return await served
    return await Promise.race([served, new Promise<never>((_, reject) => { start.left = () => { reject(leftError(worker)) } })])
  } finally {
    release()
  }
}

/** The worker drains. */
function leftError(worker: Worker): HandoverError {
  const [code, who] = worker.retiring ? ['HANDOVER_STOPPED', 'stopped'] as const : ['HANDOVER_SUCCESSOR_EXIT', 'stopped by somebody else'] as const
  worker.retiring = true
  return new HandoverError(code, { what: `${worker.who} was ${who} before it was ready` })
}

/** Ends what is being started, in order where it may have accepted. Resolves when the start is over: its worker may drain, or serve. */
export async function giveUp(start: Start, inOrder = start.accepts === true && start.worker?.state === 'preparing'): Promise<void> {
  const { worker } = start
  const over = start.over?.then(() => true, () => true) ?? Promise.resolve(true)
  start.givenUp = true
  if (worker && inOrder) {
    worker.stop(false)
    if (await withDeadline(over, deadlineIn(answerMs))) return
  }
  if (worker && worker.state !== 'ready' && worker.state !== 'serving') worker.kill()
  await over
}

interface StartOptions {
  /** As performance.now(). */
  readonly begun: number
  readonly first: boolean
  readonly wishes: Wishes | undefined
}

async function offerTo(
  context: SlotContext, start: Start, { worker, started }: LaunchedWorker, { begun, first, wishes }: StartOptions
): Promise<Worker> {
  const { index, side } = context
  const channel = channelTo(started)
  let drains: (end: ProcessEnd) => void = () => undefined
  const ended = Promise.race([started.child.ended, new Promise<ProcessEnd>((resolve) => { drains = resolve })])
  const kill = (): void => {
    // It may have accepted: the next one begins while it drains. With state to restore it may not have come that far.
    if (start.accepts && sections.names.length === 0 && worker.state === 'preparing' && !worker.isEnding && !worker.how) {
      fate.isLate = true
      start.left = () => { drains({ code: null, signal: null }) }
      worker.stop(false)
    }
    worker.abandon()
  }
  const sections = side.checkpoints.offerFor(index, wishes?.withoutState ?? false)
  const offered = sections.names.length > 0 ? ` The one that failed was started${side.checkpoints.nextStart(index)}: handover reload --without-state starts one without.` : ''
  let gotOffer = false
  const fate = { isLate: false }
  try {
    const nobodyServed = await side.nobodyServes()
    await handOver({
      // At the offer: a worker whose last answer was on its way may have ended meanwhile.
      get alone() {
        start.accepts = nobodyServed || !side.hasServer()
        return start.accepts
      },
      lifecycle: launchingLifecycle(),
      self: { pid: process.pid, generation: context.generation },
      readyTimeoutMs: side.readyTimeoutMs(first),
      offer: () => {
        gotOffer = true
        return side.members.offerFor(index)
      },
      sections,
      since: side.since(),
      mayDrop: wishes?.allowDrop ?? false,
      mayDropAll: true,
      serves: () => `${side.serves()}${offered}`,
      stopAccepting: () => []
    }, { channel, pid: worker.pid, child: { ...started.child, ended, kill } }, begun)
    channel.send({ type: 'end' })
    worker.say({ type: 'settle' })
    side.checkpoints.startServed(index, sections)
    return worker
  } catch (error) {
    // A process that was stopped says nothing about what it was offered.
    if (!start.givenUp && !context.isStopping && (fate.isLate || !worker.isEnding)) side.checkpoints.startFailed(index, sections, gotOffer)
    worker.abandon()
    throw error
  } finally {
    channel.close()
  }
}

/** Of a predecessor that has just started its successor. */
function launchingLifecycle(): Lifecycle {
  const lifecycle = new Lifecycle(() => undefined)
  lifecycle.move('idle', { is: 'serving' })
  lifecycle.move('serving', { is: 'launching' })
  return lifecycle
}
