/**
 * The messages between startLoadProcess() and the worker that it forks, and the word before a report on the stderr of a server.
 */

import type { LoadOptions } from './client.js'
import type { LoadResult, LoadStats } from './tally.js'
import type { Target } from './target.js'

export type ToWorker =
  | { readonly type: 'start'; readonly target: Target; readonly options: LoadOptions }
  | { readonly type: 'mark'; readonly id: number; readonly name: string }
  | { readonly type: 'stop' }

export type FromWorker =
  | { readonly type: 'stats'; readonly stats: LoadStats }
  | { readonly type: 'marked'; readonly id: number }
  | { readonly type: 'stopped'; readonly result: LoadResult }

/** What a report of a server begins with, on its stderr. */
export const reportMarker = 'handover report '
