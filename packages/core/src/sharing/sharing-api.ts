/**
 * The types of share(), peer and service, as programs use them.
 */

import type { SectionPhase } from '../protocol/handover-messages.js'

/** What save() gets. */
export interface SaveInfo {
  /** `offer`: a reload begins. `final`: after the last request. `checkpoint`: for the case of a crash. */
  readonly phase: SectionPhase
  /** Aborted at the deadline, and when the reload is given up. */
  readonly signal: AbortSignal
}

/** What restore() and merge() get beside the value. */
export interface RestoreInfo {
  /**
   * `offer`: as it was when the reload began. `final`: after the predecessor's last request. `checkpoint`: of a process that has crashed;
   * what changed since is lost.
   */
  readonly phase: SectionPhase
  /** Of the program that saved it: HANDOVER_VERSION, or that of its package.json. Null where it has none. */
  readonly version: string | null
  /** Of the section in the program that saved it; null where that gave none. */
  readonly schema: number | null
  /** Of the process that saved it. */
  readonly generation: number
  /** Of Node, in the process that saved it, without the v. */
  readonly node: string
  /** When save() was called, on the clock of that process. */
  readonly savedAt: Date
  /** Aborted at the deadline, and when the reload is given up. */
  readonly signal: AbortSignal
}

type RestoredItems<V> = V extends AsyncIterable<infer Item> | Iterator<infer Item> ? AsyncIterable<Item> : V
/**
 * What `restore` gets of what `save` answers: of a stream (an iterator, an async iterable) an async iterable of the same items, else the
 * same.
 */
export type Restored<S> = 0 extends 1 & S ? S : RestoredItems<Awaited<S>>

/**
 * A part of the state of an application, which goes along at a reload. `S`: what `save` answers. `T`: what `restore` gets, which an older
 * version may have saved.
 */
export interface Section<S = unknown, T = Restored<S>> {
  /**
   * In the predecessor, while it serves: what the successor is to know. Plain data: objects, arrays, Map, Set, Date, RegExp, Error, BigInt,
   * Buffer, typed arrays, with cycles. An iterator or an async iterable (a generator, a Readable) is a stream of items, for what is large:
   * each is sent by itself.
   */
  readonly save?: ((info: SaveInfo) => S | Promise<S>) | undefined
  /**
   * In the successor, before it is ready. A stream arrives as an async iterable of the same items. What it throws refuses the reload, and
   * the predecessor serves on; where that is gone, or the section is optional, the program goes on without.
   */
  readonly restore?: ((value: T, info: RestoreInfo) => unknown) | undefined
  /** In the successor, for a final section: takes what the predecessor has added since. Without it `restore` is called again. */
  readonly merge?: ((value: T, info: RestoreInfo) => unknown) | undefined
  /** Number of the form that `save` writes. Default: 0. */
  readonly schema?: number | undefined
  /** Older forms that `restore` reads as well; 0 stands for a version without a schema. Any other refuses the reload. */
  readonly accepts?: readonly number[] | undefined
  /** The program can do without: what goes wrong is reported and refuses nothing. */
  readonly optional?: boolean | undefined
  /** Save it again after the predecessor's last request. */
  readonly final?: boolean | undefined
  /**
   * Save it every so many milliseconds, for the next process where this one crashes. Only under a keeper, or with systemd's store of
   * descriptors.
   */
  readonly checkpoint?: number | undefined
  /** How long save and restore may take, each, in milliseconds. Default: 10,000. */
  readonly timeout?: number | undefined
  /** The most bytes that the saved section may have. Default: 1 GiB. */
  readonly maxBytes?: number | undefined
}

/** The generation before or after this one, while both live. */
export type Neighbour = 'predecessor' | 'successor'

/** Who sent a message on the peer channel. */
export interface PeerMessageInfo {
  /** On which side of this process the sender stands. */
  readonly from: Neighbour
  /** The generation of the sender. */
  readonly generation: number
  /** The process id of the sender. */
  readonly pid: number
}

/** The live channel between two generations: from the switch until the predecessor ends. */
export interface PeerChannel {
  /**
   * Sends to the predecessor and the successor, or only to one. False where there is none. Throws HANDOVER_STATE for what is no plain data.
   */
  send(name: string, value: unknown, to?: Neighbour): boolean
  /** What comes before the first listener of a name is kept for it. Answers a function that removes the listener. */
  on(name: string, listener: (value: unknown, info: PeerMessageInfo) => void): () => void
}

/** The service, over all its processes and generations. */
export interface Service {
  /** When its first generation began to listen. */
  readonly startedAt: Date
  /** In milliseconds. */
  readonly uptime: number
  /** The generation of this process. */
  readonly generation: number
  /** Requests that were begun in any generation. Of other processes that live as it was a second ago or less, where this is read often. */
  readonly requests: number
}
