/**
 * The workers of an app, as those see them that act on several at once: a rolling reload, the search for workers of a former keeper, the
 * beginning of a stop. The keeper is one; these files know only this much of it, so that each can be read by itself.
 */

import type { ProcessStatus, Report } from '@handover/core/internal'
import type { CountStore } from './count-store.js'
import type { ListenerMembers } from './listener-members.js'
import type { Slot } from './slot.js'
import type { Worker } from './worker.js'

export interface Fleet {
  readonly options: { readonly name: string }
  readonly members: ListenerMembers
  readonly counts: CountStore
  /** How many workers there should be. */
  readonly count: number
  /** The slots below `count`. */
  readonly active: readonly Slot[]
  readonly workers: readonly Worker[]
  /** The workers that accept. */
  readonly servers: readonly Worker[]
  /** True while this keeper owns its workers and is not about to leave. */
  readonly isKeeping: boolean
  /** How paths of the last start differed from what was typed. */
  readonly startNotes: readonly string[]
  /** Makes it where there is none. */
  slot(index: number): Slot
  /** Who serves, for the second part of an error. */
  serves(): string
  setCount(count: number): void
  /** Closes listeners that no slot serves any more. */
  settleMembers(): void
  /** A slot whose build crashed is started at once again. */
  forgetTrouble(slot: Slot): void
  noteService(status: Partial<ProcessStatus>): void
  /** Answers a function that ends it. */
  onReport(hear: (report: Report) => void): () => void
}
