/**
 * The workers of an app, as the files see them that act on several at once: a rolling reload, the search for the workers of a former
 * keeper, a stop. They know only this much of the keeper, so that each can be read by itself. With what a keeper is made of.
 */

import type { Peer, ProcessStatus, ReloadOutcome, ReloadRecord, Report } from '@handover/core/internal'
import type { CountStore } from './count-store.js'
import type { ListenerMembers } from './listener-members.js'
import type { Slot } from './slot.js'
import type { StartCommand } from './start-paths.js'
import type { Worker } from './worker.js'

export interface Address {
  readonly host: string
  readonly port: number
}

export interface KeeperOptions {
  readonly name: string
  readonly version: string
  readonly workers: number
  /** How long a worker's event loop may be blocked, in milliseconds. 0: without a limit. */
  readonly hangTimeoutMs: number
  readonly readyTimeoutMs: number
  /** A worker with more memory is reloaded. */
  readonly maxMemoryBytes?: number | undefined
  /** Where the keeper's own metrics are served. */
  readonly metrics?: Address | undefined
  /** Keep a worker that waits for its turn. */
  readonly spare: boolean
  readonly env: NodeJS.ProcessEnv
  /** How a worker is started now. `inPlace`: also where the working directory is gone. */
  command(inPlace: boolean): StartCommand
  log(level: 'info' | 'warn' | 'error', line: string): void
  /** Hands the keeper's job to a new process. Throws a HandoverError if that failed; then this keeper goes on. */
  handOver(): Promise<Peer>
  /** A worker serves, for the first time. */
  served(): void
  /** A reload begins, or is over. */
  reloads(running: boolean): void
  /** Nothing is left to do. `status`: of what was run. */
  ended(status: number): void
}

/** What the next keeper must know, beside the members. */
export interface Memory {
  readonly name: string
  readonly startedAt: number
  readonly crashes: number
  readonly count: number
  readonly lastReload: ReloadOutcome | null
  /** When the service began, as Date.now(); absent before it did. */
  readonly since?: number | undefined
  /** Oldest first. */
  readonly reloads: readonly ReloadRecord[]
}

export interface SavedHistogram {
  /** How many took at most so many seconds. */
  readonly below: Readonly<Record<string, number>>
  readonly count: number
  readonly sum: number
}

/** The counts of --metrics. */
export interface SavedMetrics {
  readonly reloads: number
  readonly requestsCut: number
  readonly failures: Readonly<Record<string, number>>
  readonly fates: Readonly<Record<string, number>>
  /** Of each phase, and of `reload`. */
  readonly durations: Readonly<Record<string, SavedHistogram>>
}

/** What goes on in the next keeper. */
export interface LastCounts {
  readonly crashes: number
  /** Absent without --metrics. */
  readonly metrics?: SavedMetrics
}

export interface Fleet {
  readonly options: KeeperOptions
  readonly members: ListenerMembers
  readonly counts: CountStore
  /** How many workers there should be. */
  readonly count: number
  readonly slots: readonly Slot[]
  /** The slots below `count`. */
  readonly active: readonly Slot[]
  readonly workers: readonly Worker[]
  /** The workers that accept. */
  readonly servers: readonly Worker[]
  /** Each hears of every report of a worker. */
  readonly reported: Set<(report: Report) => void>
  /** True while this keeper owns its workers and is not about to leave. */
  readonly isKeeping: boolean
  /** How the starts of the reload that runs, or of the last one, differed from what was typed. */
  readonly startNotes: readonly string[]
  /** Makes the slot if there is none. */
  slot(index: number): Slot
  /** Who serves, for the second part of an error. */
  serves(): string
  setCount(count: number): void
  /** Closes listeners that no slot serves any more. */
  settleMembers(): void
  /** Something else starts this slot now: no try of the keeper is due. */
  forgetTrouble(slot: Slot): void
  /** Takes over when the service began, from the status of a process. The earliest time that any process knows counts. */
  noteService(status: Partial<ProcessStatus>): void
}
