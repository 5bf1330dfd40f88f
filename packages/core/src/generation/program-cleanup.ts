/**
 * What the program itself does at the end, after the drain: its close hooks, then its own listeners for SIGTERM and SIGINT. What takes too
 * long is cut, and the log says so.
 */

import { textOf } from '../errors.js'
import { withDeadline, type Deadline } from '../protocol/deadline.js'
import type { StopSignal } from '../protocol/report.js'
import type { GenerationContext } from './generation-context.js'

/** What the program's own listeners have at least, where the drain left less of `drainTimeout`; never more than that. */
const leastFarewellMs = 5_000

/** False where they were cut. */
export async function runCloseHooks({ closeHooks, log }: GenerationContext, deadline: Deadline): Promise<boolean> {
  const hooks = Promise.all([...closeHooks].map(async (hook) => {
    try {
      await hook()
    } catch (error) {
      log('error', `a close hook failed: ${textOf(error)}`)
    }
  }))
  const ended = await withDeadline(hooks, deadline) !== undefined
  if (!ended) log('warn', 'the close hooks did not end within drainTimeout; the process ends without them')
  return ended
}

/**
 * A program that does not use this package cleans up in listeners of its own. It ends the process when it is done, or releases all that
 * keeps it alive; where it does neither, this resolves after `leftMs` with the signal that the listeners got. Undefined: there are none.
 */
export async function farewell(context: GenerationContext, leftMs: number): Promise<StopSignal | undefined> {
  const { settings: { drainTimeout }, signals, self, host: { clock }, log } = context
  const signal = signals.awaited
  if (signal === undefined) return undefined
  const begun = clock.now()
  // In a turn of its own: what a listener throws is the program's, as without us.
  clock.setImmediate(() => { signals.tell(signal) })
  await new Promise<void>((resolve) => { clock.setTimeout(resolve, Math.max(leftMs, Math.min(leastFarewellMs, drainTimeout))).unref() })
  log('warn', `the program's own listeners for ${signal} have not ended process ${self.pid} (generation ${self.generation}) within ${Math.round(clock.now() - begun)} ms: it is ended now, whatever they still had to do. Raise drainTimeout (HANDOVER_DRAIN_TIMEOUT) where they need longer; where they were done, let the last one call process.exit(): the server kept the process alive.`)
  return signal
}
