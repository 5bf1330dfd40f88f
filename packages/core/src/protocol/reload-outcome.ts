/**
 * What became of a reload, made in one place: by a process without a keeper, by a keeper for its workers, and by a keeper that is replaced
 * itself.
 *
 * An error goes from process to process with its parts (what happened, who serves now, what to do) beside the whole text, so that a program
 * that reads `--json` has them apart. Processes of older versions send the text alone.
 */

import { HandoverError, isErrorCode, partsOf } from '../errors.js'
import type { ErrorReport, ReloadOutcome } from './control-messages.js'

export interface ReloadBegin {
  /** As Date.now(). */
  readonly at: number
  /** As performance.now(). */
  readonly since: number
}

export const reloadBegins = (): ReloadBegin => ({ at: Date.now(), since: performance.now() })

/** `error`: whatever was thrown; undefined where the reload succeeded. What is absent of the lists is empty. */
export interface ReloadResult extends Pick<ReloadOutcome, 'serving'>, Partial<Pick<ReloadOutcome, 'switched' | 'reports'>> {
  readonly notes?: readonly string[]
  readonly error?: unknown
}

/** Made at the end of the reload: its length is the time from `begun` until now. */
export function reloadOutcome({ at, since }: ReloadBegin, { switched = [], reports = [], serving, notes = [], error }: ReloadResult): ReloadOutcome {
  return {
    ok: error === undefined,
    at,
    ms: Math.round(performance.now() - since),
    switched,
    reports,
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

/** The error that another process has told of. */
export function errorOf({ code, message, what = message, serving, todo, stderr }: ErrorReport): HandoverError {
  const parts = { text: message, what, ...(serving !== undefined && { serving }), ...(todo !== undefined && { todo }) }
  return new HandoverError(isErrorCode(code) ? code : 'HANDOVER_SUCCESSOR_FAILED', parts, { stderr })
}
