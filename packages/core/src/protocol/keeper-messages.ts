/**
 * What a keeper and a worker say to each other, on a channel that the worker inherits beside that of the handover. The handover itself goes
 * from worker to worker as without a keeper; where no predecessor lives, the keeper makes the offer in its place. Pure.
 */

import { boolean, count, list, one, optional, shape, string, vocabulary, type Descriptors, type Shapes } from './json-lines.js'
import { listener, type OfferedListener } from './handover-messages.js'
import { reportShape, type Report } from './report.js'
import { type LifecycleState } from './lifecycle.js'
import { processStatusShape, type ProcessStatus } from './control-messages.js'

export const keeperProtocol = 1

export type ServerProtocol = 'http' | 'https' | 'http2' | 'http2-tls' | 'other'

/** A listener and what is spoken on it, for a probe. */
export interface Spoken {
  readonly listener: string
  readonly protocol: ServerProtocol
}

/** Whose counts a file holds. The keeper never looks into it. */
export interface CountedBy {
  /** Of a process, unique over all generations. */
  readonly id: string
  /** Processes that are gone, whose counts are in it: nobody else's copy of those may be added. */
  readonly includes: readonly string[]
}

/** How a program wants to be reloaded. */
export interface Wishes {
  readonly withoutState: boolean
  readonly allowDrop: boolean
}

/** Worker → keeper. */
export type WorkerMessage =
  /** First, before any code of the application runs. */
  | { readonly type: 'hello'; readonly protocol: number; readonly pid: number }
  | { readonly type: 'state'; readonly state: LifecycleState; readonly generation: number }
  /** It would say `ready` to its predecessor now. Waits for `proceed` or `veto`. */
  | { readonly type: 'booted'; readonly kept: readonly string[]; readonly added: readonly string[]; readonly dropped: readonly string[]; readonly speaks: readonly Spoken[] }
  /** It accepts on exactly these, after their descriptors. Said again whenever that changes. */
  | { readonly type: 'serves'; readonly listeners: readonly OfferedListener[] }
  /** Of a handover or a drain of this process. */
  | { readonly type: 'report'; readonly report: Report }
  /** A handover to process `successor` failed, or was undone: this process serves. */
  | { readonly type: 'failed'; readonly successor: number; readonly code: string; readonly message: string; readonly what?: string; readonly serving?: string; readonly todo?: string; readonly stderr: string }
  /** Somebody asked this process for a reload (its signal, or the program). Waits for `outcome`. */
  | { readonly type: 'wants'; readonly withoutState?: boolean; readonly allowDrop?: boolean }
  | { readonly type: 'status'; readonly id: number; readonly status: ProcessStatus }
  /** After one descriptor: a file of this section (section-file.ts), to be offered to the next process of this slot where this one dies. */
  | { readonly type: 'checkpoint'; readonly name: string; readonly bytes: number }
  /** What do all others count? After one descriptor, a file with what this process counts. Waits for `gathered`. */
  | { readonly type: 'gather'; readonly id: number; readonly topic: string; readonly snapshot: CountedBy }
  /** The answer to `tell`, after one descriptor. */
  | { readonly type: 'told'; readonly id: number; readonly topic: string; readonly snapshot: CountedBy }
  /** What this process has counted at last, after one descriptor: it ends without a successor. */
  | { readonly type: 'tally'; readonly topic: string; readonly snapshot: CountedBy }

/** Keeper → worker. */
export type KeeperMessage =
  | { readonly type: 'proceed' }
  | { readonly type: 'veto'; readonly reason: string }
  /** After one descriptor: a connection whose request must be answered, although nothing is accepted yet. */
  | { readonly type: 'probe'; readonly listener: string }
  /**
   * Hand over to process `pid`; `withoutState`: listeners and connections alone; `allowDrop`: that it listens on less is meant. After the
   * two descriptors of its channel, and those of `listeners`, which are offered as well.
   */
  | { readonly type: 'reload'; readonly pid: number; readonly listeners: readonly OfferedListener[]; readonly withoutState?: boolean; readonly allowDrop?: boolean }
  /** Serve again: the successor is not good enough. It lives, and is told to leave. */
  | { readonly type: 'recall'; readonly reason: string }
  /** The reload is done: to a predecessor, that it need not come back; to a successor, that standard error is its own. */
  | { readonly type: 'settle' }
  /** Accept from these as well, after their descriptors, and from no others: members whose own worker does not live. */
  | { readonly type: 'cover'; readonly listeners: readonly OfferedListener[] }
  /**
   * `last`: nobody serves after this, so paths of Unix sockets go. `signal`: what the keeper itself was stopped with (SIGTERM or SIGINT).
   */
  | { readonly type: 'stop'; readonly last: boolean; readonly signal?: string }
  | { readonly type: 'ask'; readonly id: number }
  /** What does this process count? Waits for `told`. */
  | { readonly type: 'tell'; readonly id: number; readonly topic: string }
  /** The answer to `gather`, after a descriptor for each: of all others that live, and of those that are gone and nobody has inherited. */
  | { readonly type: 'gathered'; readonly id: number; readonly ids: readonly string[] }
  /** After one descriptor: what a process counted that is gone. It is this process's from now on. */
  | { readonly type: 'inherit'; readonly topic: string; readonly of: string }
  /** Another keeper comes: the end of this line means nothing. */
  | { readonly type: 'leave' }
  /** The answer to `wants`. */
  | { readonly type: 'outcome'; readonly ok: boolean; readonly code: string; readonly message: string }

const countedBy = shape({ id: string, includes: list(string) })

export const workerShapes: Shapes<WorkerMessage> = {
  hello: { protocol: count, pid: count },
  state: { state: string, generation: count },
  booted: { kept: list(string), added: list(string), dropped: list(string), speaks: list(shape({ listener: string, protocol: string })) },
  serves: { listeners: list(listener) },
  report: { report: reportShape },
  failed: { successor: count, code: string, message: string, what: optional(string), serving: optional(string), todo: optional(string), stderr: string },
  wants: { withoutState: optional(boolean), allowDrop: optional(boolean) },
  status: { id: count, status: processStatusShape },
  checkpoint: { name: string, bytes: count },
  gather: { id: count, topic: string, snapshot: countedBy },
  told: { id: count, topic: string, snapshot: countedBy },
  tally: { topic: string, snapshot: countedBy }
}

export const keeperShapes: Shapes<KeeperMessage> = {
  proceed: {},
  veto: { reason: string },
  probe: { listener: string },
  reload: { pid: count, listeners: list(listener), withoutState: optional(boolean), allowDrop: optional(boolean) },
  recall: { reason: string },
  settle: {},
  cover: { listeners: list(listener) },
  stop: { last: boolean, signal: optional(string) },
  ask: { id: count },
  tell: { id: count, topic: string },
  gathered: { id: count, ids: list(string) },
  inherit: { topic: string, of: string },
  leave: {},
  outcome: { ok: boolean, code: string, message: string }
}

const workerDescriptors: Descriptors<WorkerMessage> = {
  serves: ({ listeners }) => listeners.length,
  checkpoint: one,
  gather: one,
  told: one,
  tally: one
}

const keeperDescriptors: Descriptors<KeeperMessage> = {
  probe: one,
  reload: ({ listeners }) => 2 + listeners.length,
  cover: ({ listeners }) => listeners.length,
  gathered: ({ ids }) => ids.length,
  inherit: one
}

export const workerMessages = vocabulary<WorkerMessage>('worker', workerShapes, workerDescriptors)
export const keeperMessages = vocabulary<KeeperMessage>('keeper', keeperShapes, keeperDescriptors)
