/**
 * A reload of one slot: the worker that serves hands over to a new one. The keeper brings the two together, judges what the new one listens
 * on, probes it, and notices where one of them blocks or dies. In the end the new worker serves, or the old one as before.
 */

import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  addon, check, deadlineIn, HandoverError, isEphemeral, listed, withDeadline, withoutStop, type OfferedListener, type ProcessEnd,
  type Wishes
} from '@handover/core/internal'
import { byWhat } from '../text.js'
import { answerMs, diedTodo, noticeMs, withStderr, workerGone, type SlotContext } from './slot-context.js'
import { handoverOf, serverOf, type Claims, type Handover, type Undo } from './slot-state.js'
import type { LaunchedWorker, Worker } from './worker.js'

/** How often a predecessor that hands over is asked whether its event loop turns. */
const lookMs = 1_000
const probeMs = 10_000
/** A probe ends so long before readyTimeout does, so that the successor is told why it is refused. */
const probeReserveMs = 500

/** What a new generation must be before it may serve. */
export interface Demands extends Wishes {
  /** The path of the probe. */
  readonly probe: string | undefined
}

export interface Replacement {
  /** Null where no worker served in the slot. */
  readonly from: Worker | null
  readonly to: Worker
  /** How the predecessor ended, where it did so before all was handed over. */
  readonly died?: ProcessEnd
  /** Undefined while nothing went wrong: then why the old generation serves again, or none. */
  failure(): HandoverError | undefined
}

/** Resolves when the new worker serves; with undefined where `from` does not answer. Throws a HandoverError: then all is as before. */
export async function replaceServer(context: SlotContext, from: Worker, demands: Demands): Promise<Replacement | undefined> {
  const { side } = context
  const launched = await context.launch(false)
  const { worker: to } = launched
  try {
    const undo = await handOver(context, from, launched, demands)
    const { died } = undo
    if (died) side.diedHandingOver(from, died, to)
    return { from, to, ...(died && { died }), failure: () => undo.failure && withStderr(undo.failure(), to) }
  } catch (error) {
    to.retiring = true
    const isBlocked = error instanceof HandoverError && error.code === 'HANDOVER_PREDECESSOR_SILENT' &&
      serverOf(context.lifecycle.state) === from
    const known = error instanceof HandoverError && !isBlocked ? withStderr(await witnessed(context, error, from, to), to) : error
    to.abandon()
    if (!isBlocked) throw known
    await to.ended
    return undefined
  }
}

/** Resolves when the new worker serves, and the slot is `undoable`. Throws a HandoverError; then it is `serving` as before, or `empty`. */
async function handOver(context: SlotContext, from: Worker, { worker: to, started }: LaunchedWorker, demands: Demands): Promise<Undo> {
  const { index, side, lifecycle } = context
  const channel = [started.messages, started.descriptors]
  let over: Promise<Undo>
  try {
    const { state } = lifecycle
    if (state.is !== 'serving' || state.server !== from) throw workerGone(side, from, `${from.how ? 'ended' : 'was stopped'} while its successor was started`, diedTodo)
    const { listeners, fds } = side.members.extrasFor(index)
    over = begin(context, from, to, demands)
    const { withoutState, allowDrop } = demands
    from.say({ type: 'reload', pid: to.pid, listeners, withoutState, allowDrop }, [...channel, ...fds])
  } finally {
    for (const fd of channel) closeSync(fd)
  }
  return await over
}

/** The slot is `handing-over` when this returns. */
function begin(context: SlotContext, from: Worker, to: Worker, demands: Demands): Promise<Undo> {
  const { index, side, lifecycle } = context
  const served = side.members.of(index)
  return new Promise((resolve, reject) => {
    // The predecessor must show that it heard: where its event loop is blocked, it never would.
    const waitMs = Math.min(answerMs, side.readyTimeoutMs(false))
    const timer = setTimeout(() => { handover.end(silent(from, waitMs)) }, waitMs)
    const handover: Handover = {
      from,
      to,
      began: () => {
        clearTimeout(timer)
        void watch(context, handover)
      },
      booted: (claims) => {
        void judge(context, to, claims, served, demands).then((reason) => {
          to.say(reason === undefined ? { type: 'proceed' } : { type: 'veto', reason })
          if (reason !== undefined) veto(context, handover, reason)
        })
      },
      end: (error) => {
        clearTimeout(timer)
        const { state } = lifecycle
        if (handoverOf(state) !== handover || (state.is !== 'handing-over' && state.is !== 'alone')) return
        if (!error) {
          const undo: Undo = { from, to, died: from.how }
          from.retiring = true
          lifecycle.move(state.is, { is: 'undoable', undo })
          context.serverChanged(to)
          resolve(undo)
          return
        }
        if (from.how) {
          lifecycle.move(state.is, { is: 'empty' })
          side.changed(undefined)
          side.crashed(from, from.how)
        } else lifecycle.move('handing-over', { is: 'serving', server: from })
        reject(error)
      }
    }
    lifecycle.move('serving', { is: 'handing-over', handover })
  })
}

/** A predecessor that has begun may block later, and then notices no deadline itself. Where the successor serves, its answer can wait. */
async function watch({ lifecycle }: SlotContext, handover: Handover): Promise<void> {
  const { from, to } = handover
  const matters = (): boolean => {
    const { state } = lifecycle
    return state.is === 'handing-over' && state.handover === handover && to.state !== 'serving'
  }
  while (matters()) {
    const answered = (await from.ask(answerMs)) !== undefined
    // A closed line means that it is gone, not that it blocks: its end is about to be heard.
    if (!answered && !from.hungUp && matters()) handover.end(silent(from, answerMs))
    await sleep(lookMs, undefined, { ref: false })
  }
}

function silent(from: Worker, waitMs: number): HandoverError {
  return new HandoverError('HANDOVER_PREDECESSOR_SILENT', {
    what: `${from.who} did not answer within ${waitMs} ms: its event loop is blocked`,
    serving: 'It still holds its connections, and the keeper its port',
    todo: `Kill it (kill -9 ${from.pid}): another one is started at once, from the new build`,
    onLines: true
  })
}

/** A successor that is refused tells its predecessor why. Where that died, only the keeper hears it: the handover ends here. */
function veto({ side, lifecycle }: SlotContext, handover: Handover, reason: string): void {
  handover.vetoed = reason
  if (lifecycle.state.is !== 'alone') return
  const what = `${handover.to.who} cannot serve: ${withoutStop(reason)}`
  handover.end(
    new HandoverError('HANDOVER_SUCCESSOR_FAILED', { what, serving: side.serves(), todo: 'Repair it and reload again', onLines: true })
  )
}

/** One of the two workers of the handover that runs has ended. */
export function handoverLost(context: SlotContext, handover: Handover, worker: Worker): void {
  const { side, lifecycle } = context
  const { from, to } = handover
  if (worker === to) {
    const end = (beside = ''): void => { handover.end(workerGone(side, to, 'ended before it served', undefined, beside)) }
    if (from.how) end(`; ${from.who}, which handed over to it, had ended ${byWhat(from.how)}`)
    // The predecessor sees this too and reports it in more detail.
    else setTimeout(end, noticeMs)
  } else if (to.how || !['preparing', 'ready', 'serving'].includes(to.state)) {
    handover.end(workerGone(side, from, 'ended while it handed over', diedTodo))
  } else if (to.state === 'serving') handover.end()
  else {
    lifecycle.move('handing-over', { is: 'alone', handover })
    side.changed(undefined)
    leaveAlone(context, handover)
  }
}

/** The successor has its offer, and serves by itself. Only the keeper waits for it now. */
function leaveAlone(context: SlotContext, handover: Handover): void {
  const { side } = context
  const { to, vetoed } = handover
  if (vetoed !== undefined) veto(context, handover, vetoed)
  const timer = setTimeout(() => {
    const what = `${to.who} did not become ready after its predecessor had ended, and is killed`
    handover.end(new HandoverError('HANDOVER_SUCCESSOR_TIMEOUT', {
      what, serving: side.serves(), todo: 'Repair the build and reload again', onLines: true
    }))
  }, side.readyTimeoutMs(false))
  void to.ended.then(() => { clearTimeout(timer) })
  timer.unref()
}

/** The predecessor saw its successor end; only the keeper, which started it, knows how. */
async function witnessed({ side }: SlotContext, error: HandoverError, from: Worker, to: Worker): Promise<HandoverError> {
  if (error.code !== 'HANDOVER_SUCCESSOR_EXIT' || from.how) return error
  await withDeadline(to.ended, deadlineIn(noticeMs))
  // What it wrote last is still on its way.
  await new Promise((resolve) => setImmediate(resolve))
  return to.how ? workerGone(side, to, `ended before it ${to.state === 'ready' || to.state === 'serving' ? 'served' : 'was ready'}`) : error
}

/** Why a successor that has booted must not serve. `served`: what its predecessor listens on. */
async function judge(
  context: SlotContext, to: Worker, claims: Claims, served: readonly OfferedListener[], demands: Demands
): Promise<string | undefined> {
  const { kept, added } = claims
  // A port that the system chose, beside others, may come and go: a test server, a passive connection of FTP.
  const isPassing = (listener: OfferedListener): boolean => kept.length > 0 && isEphemeral(listener)
  const dropped = served.filter((listener) => claims.dropped.includes(listener.name) && !isPassing(listener)).map(({ name }) => name)
  if (dropped.length > 0 && !demands.allowDrop) {
    return `it listens on ${added.length > 0 ? listed(added) : 'nothing new'} and no more on ${listed(dropped)}, which is served now. If that is meant, reload with --allow-drop`
  }
  return demands.probe === undefined ? undefined : await probeWorker(context, to, demands.probe)
}

/** Why the worker does not answer as it should; undefined where it does. It may, but need not, serve already. */
export async function probeWorker({ side, lifecycle }: SlotContext, worker: Worker, path: string): Promise<string | undefined> {
  const spoken = worker.speaks.find(({ protocol }) => protocol !== 'other')
  if (!spoken || spoken.protocol === 'other') return `the probe GET ${path} has nowhere to go: no listener speaks HTTP`
  let ours: number, theirs: number
  try {
    [ours, theirs] = check(addon().socketPair(), 'socketpair')
  } catch (error) {
    return `the probe GET ${path} could not be sent: ${(error as Error).message}`
  }
  worker.say({ type: 'probe', listener: spoken.listener }, [theirs])
  closeSync(theirs)
  const bootedForMs = worker === serverOf(lifecycle.state) ? 0 : performance.now() - worker.since
  const leftMs = side.readyTimeoutMs(false) - bootedForMs - probeReserveMs
  const deadlineMs = Math.round(Math.max(probeReserveMs, Math.min(probeMs, leftMs)))
  // http, http2 and tls are 5 MB, which a keeper without probes need not have.
  const { probe } = await import('./http-probe.js')
  const problem = await probe(ours, { protocol: spoken.protocol, path, deadlineMs })
  return problem && `the probe GET ${path} ${problem}`
}
