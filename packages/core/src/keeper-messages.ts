/**
 * What a keeper and a worker say to each other, on a channel that the worker inherits beside that of the handover. The handover itself goes from
 * worker to worker as without a keeper; where no predecessor lives, the keeper makes the offer in its place. Pure.
 */

import { boolean, count, list, object, reader, shape, string, type Shapes } from './lines.js'
import { listener, type OfferedListener } from './messages.js'
import type { Report } from './report.js'
import { type StateName } from './states.js'
import type { ProcessStatus } from './status.js'

export const keeperProtocol = 1

export type ServerProtocol = 'http' | 'https' | 'http2' | 'http2-tls' | 'other'

/** A listener and what is spoken on it, for a probe. */
export interface Spoken {
  readonly listener: string
  readonly protocol: ServerProtocol
}

/** Worker → keeper. */
export type WorkerMessage =
  /** First, before any code of the application runs. */
  | { readonly type: 'hello'; readonly protocol: number; readonly pid: number }
  | { readonly type: 'state'; readonly state: StateName; readonly generation: number }
  /** It would say `ready` to its predecessor now. Waits for `proceed` or `veto`. */
  | { readonly type: 'booted'; readonly kept: readonly string[]; readonly added: readonly string[]; readonly dropped: readonly string[]; readonly speaks: readonly Spoken[] }
  /** It accepts on exactly these, after their descriptors. Said again whenever that changes. */
  | { readonly type: 'serves'; readonly listeners: readonly OfferedListener[] }
  /** Of a handover or a drain of this process. */
  | { readonly type: 'report'; readonly report: Report }
  /** A handover to process `successor` failed, or was undone: this process serves. */
  | { readonly type: 'failed'; readonly successor: number; readonly code: string; readonly message: string; readonly stderr: string }
  /** Somebody asked this process for a reload (its signal, or the program). Waits for `outcome`. */
  | { readonly type: 'wants' }
  | { readonly type: 'status'; readonly id: number; readonly status: ProcessStatus }

/** Keeper → worker. */
export type KeeperMessage =
  | { readonly type: 'proceed' }
  | { readonly type: 'veto'; readonly reason: string }
  /** After one descriptor: a connection whose request must be answered, although nothing is accepted yet. */
  | { readonly type: 'probe'; readonly listener: string }
  /** Hand over to process `pid`. After the two descriptors of its channel, and those of `listeners`, which are offered as well. */
  | { readonly type: 'reload'; readonly pid: number; readonly listeners: readonly OfferedListener[] }
  /** Serve again: the successor is not good enough. It lives, and is told to leave. */
  | { readonly type: 'recall'; readonly reason: string }
  /** The reload is done: to a predecessor, that it need not come back; to a successor, that standard error is its own. */
  | { readonly type: 'settle' }
  /** Accept from these as well, after their descriptors, and from no others: members whose own worker does not live. */
  | { readonly type: 'cover'; readonly listeners: readonly OfferedListener[] }
  /** `last`: nobody serves after this, so paths of Unix sockets go. */
  | { readonly type: 'stop'; readonly last: boolean }
  | { readonly type: 'ask'; readonly id: number }
  /** Another keeper comes: the end of this line means nothing. */
  | { readonly type: 'leave' }
  /** The answer to `wants`. */
  | { readonly type: 'outcome'; readonly ok: boolean; readonly code: string; readonly message: string }

/** The fields that each message must have. */
export const workerShapes: Shapes<WorkerMessage> = {
  hello: { protocol: count, pid: count },
  state: { state: string, generation: count },
  booted: { kept: list(string), added: list(string), dropped: list(string), speaks: list(shape({ listener: string, protocol: string })) },
  serves: { listeners: list(listener) },
  report: { report: object },
  failed: { successor: count, code: string, message: string, stderr: string },
  wants: {},
  status: { id: count, status: object }
}

export const keeperShapes: Shapes<KeeperMessage> = {
  proceed: {},
  veto: { reason: string },
  probe: { listener: string },
  reload: { pid: count, listeners: list(listener) },
  recall: { reason: string },
  settle: {},
  cover: { listeners: list(listener) },
  stop: { last: boolean },
  ask: { id: count },
  leave: {},
  outcome: { ok: boolean, code: string, message: string }
}

export const parseWorkerMessage = reader<WorkerMessage>(workerShapes)
export const parseKeeperMessage = reader<KeeperMessage>(keeperShapes)
