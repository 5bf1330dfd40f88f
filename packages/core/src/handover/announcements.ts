/**
 * What a process says of itself in errors, in the log and in reports: who serves now, what cannot be served, what has happened.
 */

import { withoutStop } from '../errors.js'
import { accepts, isStarting } from '../protocol/lifecycle.js'
import { describeReport, listed, processFirst, type Report } from '../protocol/report.js'
import type { ProcessContext } from './process-context.js'

/** The part of an error that says who serves, where this process does. Restores Unix paths that were removed. */
export function keepsServing({ paths, registry, self }: ProcessContext): string {
  const restored = paths.mend()
  const { served, lost } = registry.look()
  const who = processFirst(self)
  const names = served.length > 0 ? ` ${listed(served)}` : ''
  if (lost.length > 0) return `${who} ${served.length > 0 ? `serves${names}` : 'serves nothing'}; NOT served: ${listed(lost)}`
  return `${who} keeps serving${names}; ${restored.length > 0 ? `${listed(restored)} had been removed and is in place again: connects in between failed` : 'no connection was lost'}`
}

/** Who serves, as far as this process knows; a sentence without its full stop. */
export function whoServes(context: ProcessContext): string {
  const { lifecycle: { state } } = context
  if (accepts(state.is)) return keepsServing(context)
  if (isStarting(state.is)) return 'This process serves as soon as it is ready'
  return state.is === 'draining' && state.successor ? `${processFirst(state.successor)} serves` : 'This process answers what it has and ends'
}

/** Accepts on all listeners: at a commit, and at an undo. Logs what cannot be listened on again. */
export function acceptOnAll({ registry, log }: ProcessContext): void {
  registry.accept(({ about: { name } }, error) => {
    log('error', `${name} cannot be listened on again: ${withoutStop(error.message)}. The other listeners are served. Restart to get it back.`)
  })
}

/** Logs and publishes. */
export function announce(context: ProcessContext, report: Report): void {
  context.log(report.result === 'undone' || report.requestsCut.length > 0 ? 'warn' : 'info', describeReport(report))
  context.publish(report)
}
