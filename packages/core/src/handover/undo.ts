/**
 * The way back: while the undo window is open, a predecessor that drains can serve again.
 *
 * The window ends early when the successor is lost or recalled (then `undo` takes over again), or when no undo is needed any more. After it
 * nothing leads back. Under a keeper the keeper decides when it ends.
 */

import type { ConnectionSender } from '../connections/connection-sender.js'
import { countsOf, sum } from '../connections/drain-result.js'
import type { Drain } from '../connections/drain.js'
import { HandoverError, withoutStop } from '../errors.js'
import type { Timer } from '../platform/clock.js'
import { mostSilentMs, Pulse } from '../platform/pulse.js'
import { notifySystemd } from '../platform/systemd-notify.js'
import { deadlineIn, left, type Deadline } from '../protocol/deadline.js'
import type { Peer } from '../protocol/handover-messages.js'
import { describeProcess, listed, plural, processFirst, type Report } from '../protocol/report.js'
import { acceptOnAll } from './announcements.js'
import type { LaunchedSuccessor } from './launch.js'
import { watchSuccessor, type SwitchResult } from './predecessor.js'
import type { ProcessContext } from './process-context.js'

/** How long a successor that is recalled may take to say which connections it has. */
const answerMs = 1_000
const silence = `it has not answered for ${mostSilentMs} ms`

/** How the successor was lost. `garbage`: it cannot be trusted, and may live. `hangs`: its event loop is blocked. `recalled`: it lives. */
export type Lost = 'gone' | 'garbage' | 'hangs' | { readonly recalled: string }

/** A successor that serves, and the report of the switch to it. */
export interface ServingSuccessor extends Pick<SwitchResult, 'serving' | 'dropsName'> {
  readonly launched: LaunchedSuccessor
  readonly report: Report
}

export interface UndoWindow {
  /** Resolves at its end: how the successor was lost, where this process must serve again. */
  readonly lost: Promise<Lost | undefined>
  /** Undefined: no undo is needed any more. */
  end(lost: Lost | undefined): void
}

/** Opens the window, and hears the successor for as long as its channel is open. */
export function openUndoWindow(
  context: ProcessContext, served: ServingSuccessor, mover: ConnectionSender | undefined, deadline: Deadline
): UndoWindow {
  const { launched: { channel, pid }, serving: { pongs } } = served
  const { clock } = context.host
  let pulse: Pulse | undefined
  let timer: Timer | undefined
  let end: UndoWindow['end'] = () => undefined
  const over = new Promise<Lost | undefined>((resolve) => { end = resolve })
  const died = watchSuccessor(channel, {
    settled: () => { end(undefined) },
    taken: (count, back) => { mover?.taken(count, back) },
    peer: (message, fd) => { context.state.peers.heard('successor', message, fd) },
    pong: (debugged) => { pulse?.heard(debugged) }
  }).then((how) => {
    mover?.end(how === 'gone' ? 'successorEnded' : 'successorSentGarbage', how === 'gone')
    return how
  })
  if (!context.keeper) {
    const windowMs = Math.min(context.settings.undoWindow, left(deadline))
    if (pongs && windowMs > 0) {
      pulse = new Pulse({ pid, clock, ask: () => { channel.send({ type: 'ping' }) }, hangs: () => { end('hangs') } })
    }
    timer = clock.setTimeout(() => {
      if (!pulse) end(undefined)
      // A successor that hangs as the window ends is found out by this last question.
      pulse?.afterAnswer(() => { end(undefined) })
      // A debugger may hold it for any time.
      timer = clock.setTimeout(() => { end(undefined) }, Math.max(2 * mostSilentMs, left(deadline)))
    }, windowMs)
  }
  if (context.stopRequested) end(undefined)
  const lost = Promise.race([died, over]).then((how) => {
    clock.clear(timer)
    pulse?.stop()
    return context.stopRequested ? undefined : how
  })
  return { lost, end }
}

/** Serves again. Answers what to say of it: the error of the reload that was undone, and its report. */
export async function undo(
  context: ProcessContext, served: ServingSuccessor, lost: Lost, mover: ConnectionSender | undefined, drains: readonly Drain[]
): Promise<{ error: HandoverError; report: Report }> {
  const { registry: { names }, controlSockets, lifecycle, host } = context
  const { launched: { channel, pid, child } } = served
  const recalled = typeof lost === 'object'
  let killed = false
  if (recalled) {
    await mover?.halt('successorRecalled', deadlineIn(answerMs, host.clock))
  } else {
    // It may live, and only have broken the channel; one that hangs must not accept beside this process when it goes on.
    child?.kill()
    killed = child !== undefined || (lost === 'hangs' && host.kill(pid))
    mover?.end('successorEnded', lost === 'gone' || killed)
  }
  const connections = countsOf(sum(drains.map((drain) => drain.result)))
  acceptOnAll(context)
  controlSockets.serve()
  for (const drain of drains) drain.undo()
  lifecycle.move('draining', { is: 'serving' })
  // Only now: for a moment both accept, and at no moment neither.
  if (recalled || lost === 'hangs') channel.send({ type: 'withdraw', reason: recalled ? lost.recalled : silence })
  channel.close()
  notifySystemd({ MAINPID: host.pid, READY: 1 })
  const error = undoneError(context.self, served, lost, killed, listed(names), connections.moved)
  return { error, report: { ...served.report, result: 'undone', connections } }
}

function undoneError(
  self: Peer, { launched: { child }, report: { successor } }: ServingSuccessor, lost: Lost, killed: boolean, names: string, moved: number
): HandoverError {
  const [what, fate] = typeof lost === 'object'
    ? [`was recalled: ${withoutStop(lost.recalled)}`, `the successor answers what it has${moved > 0 ? `, also on ${plural(moved, 'connection')} that had moved to it,` : ''} and ends`]
    : [
        lost === 'hangs' ? `hangs within the undo window: ${silence}, and it was ${killed ? 'killed' : 'told to end'}` : 'died within the undo window',
        `the connections that the successor had accepted${moved > 0 ? `, and ${moved} that had moved to it,` : ''} are gone`
      ]
  return new HandoverError('HANDOVER_UNDONE', {
    what: `${describeProcess(successor ?? { pid: 0, generation: self.generation + 1 })} ${what}`,
    serving: `${processFirst(self)} serves again ${names}; ${fate}`,
    todo: lost === 'gone' ? 'Repair the build, or find out what killed it, and reload again' : 'Repair the build and reload again', onLines: true
  }, { role: 'predecessor', state: 'serving', generation: self.generation, stderr: child?.stderr() ?? '' })
}
