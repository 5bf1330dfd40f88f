/**
 * The messages between a keeper and a worker, on a channel that the worker inherits. The handover itself goes from worker to worker, as
 * without a keeper; where no predecessor lives, the keeper makes the offer. Pure.
 */

import { boolean, count, list, one, optional, shape, string, vocabulary, type Descriptors, type Shapes } from './json-lines.js'
import { listenerShape, type OfferedListener } from './handover-messages.js'
import { reportShape, type Report } from './report.js'
import { type LifecycleState } from './lifecycle.js'
import { processStatusShape, type ErrorReport, type ProcessStatus } from './control-messages.js'

export const keeperProtocol = 1

export type ServerProtocol = 'http' | 'https' | 'http2' | 'http2-tls' | 'other'

/** A listener and its protocol, for a probe. */
export interface Spoken {
  readonly listener: string
  readonly protocol: ServerProtocol
}

/** Whose counts a file holds. The keeper never reads the file. */
export interface CountedBy {
  /** The id of a process, unique over all generations. */
  readonly id: string
  /** The ids of ended processes whose counts are included: no other copy of these may be added. */
  readonly includes: readonly string[]
}

export interface Wishes {
  readonly withoutState: boolean
  readonly allowDrop: boolean
}

/** Worker → keeper. */
export type WorkerMessage =
  /** First, before any code of the application runs. */
  | { readonly type: 'hello'; readonly protocol: number; readonly pid: number }
  | { readonly type: 'state'; readonly state: LifecycleState; readonly generation: number }
  /** It is about to say `ready` to its predecessor. Waits for `proceed` or `veto`. */
  | {
    readonly type: 'booted'
    readonly kept: readonly string[]; readonly added: readonly string[]; readonly dropped: readonly string[]
    readonly speaks: readonly Spoken[]
  }
  /** It accepts on exactly these, after their descriptors. Sent again whenever that changes. */
  | { readonly type: 'serves'; readonly listeners: readonly OfferedListener[] }
  /** Of a handover or a drain of this process. */
  | { readonly type: 'report'; readonly report: Report }
  /** A handover to process `successor` failed, or was undone: this process serves. */
  | ({ readonly type: 'failed'; readonly successor: number } & ErrorReport)
  /** Its signal, or its program, asks for a reload. Waits for `outcome`. */
  | ({ readonly type: 'wants' } & Wishes)
  | { readonly type: 'status'; readonly id: number; readonly status: ProcessStatus }
  /** After one descriptor: a file of this section (section-file.ts). The next process of this slot gets it if this one dies. */
  | { readonly type: 'checkpoint'; readonly name: string; readonly bytes: number }
  /** Asks what all others count, after the descriptor of a file with its own counts. Waits for `gathered`. */
  | { readonly type: 'gather'; readonly id: number; readonly topic: string; readonly snapshot: CountedBy }
  /** The answer to `tell`, after one descriptor. */
  | { readonly type: 'told'; readonly id: number; readonly topic: string; readonly snapshot: CountedBy }
  /** The last counts of a process that ends without a successor, after one descriptor. */
  | { readonly type: 'tally'; readonly topic: string; readonly snapshot: CountedBy }

/** Keeper → worker. */
export type KeeperMessage =
  | { readonly type: 'proceed' }
  | { readonly type: 'veto'; readonly reason: string }
  /** After one descriptor: a connection to be answered, although nothing is accepted yet. */
  | { readonly type: 'probe'; readonly listener: string }
  /**
   * Hand over to process `pid`, without state if `withoutState`; if `allowDrop`, it may listen on less. After the two descriptors of its
   * channel, and those of `listeners`, which are offered as well.
   */
  | ({ readonly type: 'reload'; readonly pid: number; readonly listeners: readonly OfferedListener[] } & Wishes)
  /** Serve again: the successor, which lives, is rejected and told to end. */
  | { readonly type: 'recall'; readonly reason: string }
  /** The reload is done: a predecessor need not come back, and a successor gets the real standard error. */
  | { readonly type: 'settle' }
  /** Accept also from these members, whose own worker does not live, and from no others. After their descriptors. */
  | { readonly type: 'cover'; readonly listeners: readonly OfferedListener[] }
  /** `last`: no process serves after this, so paths of Unix sockets are removed. `signal`: what stopped the keeper (SIGTERM, SIGINT). */
  | { readonly type: 'stop'; readonly last: boolean; readonly signal?: string }
  | { readonly type: 'ask'; readonly id: number }
  /** Asks what this process counts. Waits for `told`. */
  | { readonly type: 'tell'; readonly id: number; readonly topic: string }
  /** The answer to `gather`, after a descriptor for each: of all others that live, and of ended ones that were not inherited. */
  | { readonly type: 'gathered'; readonly id: number; readonly ids: readonly string[] }
  /** After one descriptor: the counts of an ended process, which this one owns from now on. */
  | { readonly type: 'inherit'; readonly topic: string; readonly of: string }
  /** Another keeper takes over, so the end of this channel is no failure. */
  | { readonly type: 'leave' }
  /** The answer to `wants`. */
  | { readonly type: 'outcome'; readonly ok: boolean; readonly code: string; readonly message: string }

export const countedByShape = shape({ id: string, includes: list(string) })

export const workerShapes: Shapes<WorkerMessage> = {
  hello: { protocol: count, pid: count },
  state: { state: string, generation: count },
  booted: { kept: list(string), added: list(string), dropped: list(string), speaks: list(shape({ listener: string, protocol: string })) },
  serves: { listeners: list(listenerShape) },
  report: { report: reportShape },
  failed: {
    successor: count, code: string, message: string,
    what: optional(string), serving: optional(string), todo: optional(string), stderr: string
  },
  wants: { withoutState: boolean, allowDrop: boolean },
  status: { id: count, status: processStatusShape },
  checkpoint: { name: string, bytes: count },
  gather: { id: count, topic: string, snapshot: countedByShape },
  told: { id: count, topic: string, snapshot: countedByShape },
  tally: { topic: string, snapshot: countedByShape }
}

export const keeperShapes: Shapes<KeeperMessage> = {
  proceed: {},
  veto: { reason: string },
  probe: { listener: string },
  reload: { pid: count, listeners: list(listenerShape), withoutState: boolean, allowDrop: boolean },
  recall: { reason: string },
  settle: {},
  cover: { listeners: list(listenerShape) },
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
