/**
 * The messages between a keeper and a worker, on a channel that the worker inherits. The handover itself goes from worker to worker, as
 * without a keeper; where no predecessor lives, the keeper makes the offer. Pure.
 */

import {
  boolean, count, list, one, optional, shape, string, vocabulary, type Check, type Checked, type Descriptors, type MessagesOf, type Shapes,
  type WithFields
} from './json-lines.js'
import { listenerShape } from './handover-messages.js'
import { reportShape } from './report.js'
import { errorFields, lifecycleState, processStatusShape } from './control-messages.js'

export const keeperProtocol = 1

export type ServerProtocol = 'http' | 'https' | 'http2' | 'http2-tls' | 'other'

/** A listener and its protocol, for a probe. */
const spokenShape = shape({ listener: string, protocol: string as Check<ServerProtocol> })
export type Spoken = Checked<typeof spokenShape>

/** Whose counts a file holds. The keeper never reads the file. */
export const countedByShape = shape({
  /** The id of a process, unique over all generations. */
  id: string,
  /** The ids of ended processes whose counts are included: no other copy of these may be added. */
  includes: list(string)
})
export type CountedBy = Checked<typeof countedByShape>

/** What another process counts, as a file. The descriptor belongs to the receiver. `of`: the id of the process. */
export interface CountFile {
  readonly of: string
  readonly fd: number
}

const wishes = { withoutState: boolean, allowDrop: boolean }
export type Wishes = WithFields<typeof wishes>

/** Worker → keeper. */
export const workerShapes = {
  /** First, before any code of the application runs. */
  hello: { protocol: count, pid: count },
  state: { state: lifecycleState, generation: count },
  /** It is about to say `ready` to its predecessor. Waits for `proceed` or `veto`. */
  booted: { kept: list(string), added: list(string), dropped: list(string), speaks: list(spokenShape) },
  /** It accepts on exactly these, after their descriptors. Sent again whenever that changes. */
  serves: { listeners: list(listenerShape) },
  /** Of a handover or a drain of this process. */
  report: { report: reportShape },
  /** A handover to process `successor` failed, or was undone: this process serves. */
  failed: { successor: count, ...errorFields },
  /** Its signal, or its program, asks for a reload. Waits for the `outcome` with this `id`. */
  wants: { id: optional(count), ...wishes },
  status: { id: count, status: processStatusShape },
  /** After one descriptor: a file of this section (section-file.ts). The next process of this slot gets it if this one dies. */
  checkpoint: { name: string, bytes: count },
  /** Asks what all others count, after the descriptor of a file with its own counts. Waits for `gathered`. */
  gather: { id: count, topic: string, snapshot: countedByShape },
  /** The answer to `tell`, after one descriptor. */
  told: { id: count, topic: string, snapshot: countedByShape },
  /** The last counts of a process that ends without a successor, after one descriptor. */
  tally: { topic: string, snapshot: countedByShape }
} satisfies Shapes
export type WorkerMessage = MessagesOf<typeof workerShapes>

/** Keeper → worker. */
export const keeperShapes = {
  proceed: {},
  veto: { reason: string },
  /** After one descriptor: a connection to be answered, although nothing is accepted yet. */
  probe: { listener: string },
  /**
   * Hand over to process `pid`, without state if `withoutState`; if `allowDrop`, it may listen on less. After the two descriptors of its
   * channel, and those of `listeners`, which are offered as well.
   */
  reload: { pid: count, listeners: list(listenerShape), ...wishes },
  /** Serve again: the successor, which lives, is rejected and told to end. */
  recall: { reason: string },
  /** The reload is done: a predecessor need not come back, and a successor gets the real standard error. */
  settle: {},
  /** Accept also from these members, whose own worker does not live, and from no others. After their descriptors. */
  cover: { listeners: list(listenerShape) },
  /** `last`: no process serves after this, so paths of Unix sockets are removed. `signal`: what stopped the keeper (SIGTERM, SIGINT). */
  stop: { last: boolean, signal: optional(string) },
  ask: { id: count },
  /** Asks what this process counts. Waits for `told`. */
  tell: { id: count, topic: string },
  /** The answer to `gather`, after a descriptor for each: of all others that live, and of ended ones that were not inherited. */
  gathered: { id: count, ids: list(string) },
  /** After one descriptor: the counts of an ended process, which this one owns from now on. */
  inherit: { topic: string, of: string },
  /** Another keeper takes over, so the end of this channel is no failure. */
  leave: {},
  /** The answer to `wants`. Older keepers send no `id`, and the code and the whole text of an error alone. */
  outcome: { id: optional(count), ok: boolean, ...errorFields, stderr: optional(string) }
} satisfies Shapes
export type KeeperMessage = MessagesOf<typeof keeperShapes>

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
