/**
 * The outcome of a reload: of a process without a keeper, of the workers of a keeper, or of a keeper that replaces itself.
 *
 * An error travels with its parts (what happened, who serves now, what to do) beside the whole text, for programs that read `--json`. Older
 * versions send the text alone.
 */

import { HandoverError, isErrorCode, partsOf } from '../errors.js'
import type { ErrorReport, ReloadOutcome } from './control-messages.js'
import { shortenedTogether } from './report.js'

export interface ReloadBegin {
  /** As Date.now(). */
  readonly at: number
  /** As performance.now(). */
  readonly since: number
}

export const reloadBegins = (): ReloadBegin => ({ at: Date.now(), since: performance.now() })

/** `error`: what was thrown; undefined where the reload succeeded. An absent list is empty. */
export interface ReloadResult extends Pick<ReloadOutcome, 'serving'>, Partial<Pick<ReloadOutcome, 'switched' | 'reports'>> {
  readonly notes?: readonly string[]
  readonly error?: unknown
}

/** Call it at the end of the reload, which takes its length from the time. */
export function reloadOutcome({ at, since }: ReloadBegin, result: ReloadResult): ReloadOutcome {
  const { switched = [], reports = [], serving, notes = [], error } = result
  return {
    ok: error === undefined,
    at,
    ms: Math.round(performance.now() - since),
    switched,
    reports: shortenedTogether(reports),
    serving,
    ...(notes.length > 0 && { notes }),
    ...(error !== undefined && { error: errorReport(error) })
  }
}

export function errorReport(error: unknown): ErrorReport {
  if (!(error instanceof HandoverError)) {
    const message = error instanceof Error ? error.message : String(error)
    return { code: 'HANDOVER_PROTOCOL', message, what: message, stderr: '' }
  }
  const { text: message, ...parts } = partsOf(error)
  return { code: error.code, message, ...parts, stderr: error.stderr ?? '' }
}

/** The error that another process reported. */
export function errorOf({ code, message, what = message, serving, todo, stderr }: ErrorReport): HandoverError {
  const parts = { text: message, what, ...(serving !== undefined && { serving }), ...(todo !== undefined && { todo }) }
  return new HandoverError(isErrorCode(code) ? code : 'HANDOVER_SUCCESSOR_FAILED', parts, stderr === '' ? {} : { stderr })
}
