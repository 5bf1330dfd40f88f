/** With which status the keeper exits, and what it says of an app that never served. Pure. */

import { constants } from 'node:os'
import { HandoverError, withoutStop, type LifecycleState, type ProcessEnd } from '@handover/core/internal'

/** The exit status that a shell would give. */
export const statusOf = ({ code, signal }: ProcessEnd): number => (signal === null ? (code ?? 0) : 128 + constants.signals[signal])

/** Of a worker that was stopped. Many programs clean up and send themselves the signal again: that ends as it was asked to. */
export const statusAfterStop = (state: LifecycleState, how: ProcessEnd): number =>
  state === 'ended' && (how.signal === 'SIGTERM' || how.signal === 'SIGINT') ? 0 : statusOf(how)

/** The first worker did not come to serve: says why, and answers the exit status. */
export function firstStartFailed(error: unknown, how: ProcessEnd | undefined, say: (line: string) => void): number {
  // It said that it cannot serve. If it stayed, the keeper has killed it.
  const saidSo = error instanceof HandoverError && error.code === 'HANDOVER_SUCCESSOR_FAILED'
  // A program that did its work and never listened.
  if (how?.code === 0 && !saidSo) return 0
  say(`${firstLine(error)}. Nobody serves. ${todoAfter(error, how)}`)
  return how && !(saidSo && (how.signal || how.code === 0)) ? statusOf(how) : 1
}

/** The error of the system, in the successor, is the cause of ours. */
const isPortTaken = (error: unknown): boolean =>
  error instanceof Error && ((error as NodeJS.ErrnoException).code === 'EADDRINUSE' || isPortTaken(error.cause))

/** Node itself ends with status 9 for an option that it does not know. An error of the system is the keeper's own: it started nothing. */
const todoAfter = (error: unknown, how: ProcessEnd | undefined): string =>
  isPortTaken(error) ? 'End the program that has the port (ss -ltnp shows it), or listen on another one.'
    : !how && !(error instanceof HandoverError) ? 'Check the limits of the keeper and of its container (ulimit -n, ulimit -u, memory), and start it again.'
    : (error as HandoverError).code === 'HANDOVER_SPAWN' ? 'See whether these paths are there and this user may use them, and start it again.'
    : `Repair the ${how?.code === 9 ? 'options before the script (handover run --help)' : 'program'}, and start it again.`

export const firstLine = (error: unknown): string => withoutStop((error instanceof Error ? error.message : String(error)).split('\n')[0]!)

/** Why a worker was not started, for the log and the status. An error of the system is no defect of the build. */
export const reasonOfStart = (error: unknown): string =>
  error instanceof HandoverError ? firstLine(error) : `${firstLine(error)} (see the limits of the keeper: ulimit -n, ulimit -u, memory)`
