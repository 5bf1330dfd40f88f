/**
 * The messages between predecessor and successor: all that both sides import.
 *
 * One JSON object a line. Descriptors travel on a second socket, always before the message that counts them. PROTOCOL.md has the table.
 * Pure: imports no Node module.
 */

import { boolean, count, list, one, oneOf, optional, shape, string, vocabulary, type Descriptors, type Shapes } from './json-lines.js'
import { movedConnectionShape as connection, takesShape as takes, type MovedConnection, type Takes } from './moved-connection.js'
import { reportShape, stateReportShape, type Report, type StateReport } from './report.js'

export type { MovedConnection, MovedSession, Takes } from './moved-connection.js'

export const protocol = 1

export interface Peer {
  readonly pid: number
  readonly generation: number
}

/** A listener in an offer: what it is, and what the program asked for when it was created. */
export interface OfferedListener {
  /** `tcp 0.0.0.0:3000`, `tcp [::1]:3000`, `unix /run/app.sock`, `udp 0.0.0.0:53`; `control` for the control socket. */
  readonly name: string
  readonly kind: 'tcp' | 'unix' | 'udp' | 'control'
  /** The key of the listen() call: port 0, a host name and an inherited descriptor match by it. */
  readonly asked: string
  /** The program asked for port 0, and the system chose one. */
  readonly ephemeral?: boolean
  readonly address: string
  readonly port: number
  readonly ipv6: boolean
  readonly ipv6Only: boolean
  readonly backlog: number
  /** Device and inode of a Unix socket's file: shows whether the file was replaced. */
  readonly file?: string
  /** The keys of a TLS server's session tickets in base64, so that a client that reconnects resumes its session. */
  readonly ticketKeys?: string
  /** It is bound, and listens only when the successor accepts on it. TCP only. */
  readonly bound?: boolean
  /** The absolute path of a Unix socket's file, which a program may have renamed. */
  readonly path?: string
  /** From a keeper: the program has closed it, and may listen on it again, now or later. */
  readonly spare?: boolean
}

/** `offer`: when the reload began. `final`: after the predecessor's last request. `checkpoint`: of a process that has crashed. */
export type SectionPhase = 'offer' | 'final' | 'checkpoint'

export type Message =
  /** S → P, first. `v8`: the version of its V8, whose format of values S reads. */
  | { readonly type: 'hello'; readonly protocol: number; readonly pid: number; readonly v8?: string }
  /**
   * P → S, after `listeners.length` descriptors in the same order. `sections`: the names of the state that follows, each in a `section` or
   * an `unsaved`. `since`: when the first generation began, in milliseconds since the epoch. `readyMs`: how long S may take until `ready`.
   * `mayDrop`: S is meant to drop listeners. `alone`: no process serves meanwhile. `lacks`: with what errors listen() failed in P.
   */
  | {
    readonly type: 'offer'; readonly protocol: number; readonly pid: number; readonly generation: number
    readonly listeners: readonly OfferedListener[]; readonly sections?: readonly string[]
    readonly since?: number; readonly readyMs?: number; readonly mayDrop?: boolean; readonly alone?: boolean
    readonly lacks?: readonly string[]
  }
  /** P → S, after its descriptor (section-file.ts). Before `ready`; as `final` before `end`. `listed`: small ones (section-list.ts). */
  | { readonly type: 'section'; readonly name: string; readonly phase: SectionPhase; readonly bytes: number
    readonly listed?: readonly { readonly name: string; readonly bytes: number }[] }
  /** P → S instead of a section. */
  | { readonly type: 'unsaved'; readonly name: string; readonly phase: SectionPhase; readonly reason: string }
  /** S → P, now and then before `ready`: how many bytes of the section are read. */
  | { readonly type: 'restoring'; readonly name: string; readonly bytes: number }
  /** Between neighbours, from `serving` to `end`. `text`: of the package devalue; where it is absent, after one descriptor of its file. */
  | { readonly type: 'peer'; readonly name: string; readonly text?: string }
  /** P → S instead of an offer. */
  | { readonly type: 'refused'; readonly code: string; readonly reason: string }
  /** S → P: booted, every claim is made, the state is restored; accepts nothing. */
  | { readonly type: 'ready'; readonly kept: readonly string[]; readonly added: readonly string[]; readonly dropped: readonly string[]
    readonly state?: StateReport }
  /** S → P instead of ready: it cannot serve. `code`: HANDOVER_STATE where state is the reason. */
  | { readonly type: 'failed'; readonly reason: string; readonly code?: string }
  /** P → S: accept from now on. */
  | { readonly type: 'commit' }
  /** S → P: it accepts. The point of no return. Without `takes` nothing can be moved to it. `pongs`: it answers `ping`. */
  | { readonly type: 'serving'; readonly takes?: Takes; readonly pongs?: boolean }
  /** P → S after `serving`, while P could still take over again: does the event loop of S turn? */
  | { readonly type: 'ping' }
  /** S → P, at once. `debugged`: its inspector is open, so that it may stand at a breakpoint. */
  | { readonly type: 'pong'; readonly debugged?: boolean }
  /** P → S before `serving`: the offer is taken back; the successor must end. */
  | { readonly type: 'withdraw'; readonly reason: string }
  /** S → P after `serving`: no undo any more (the successor was stopped on purpose, or has a successor). */
  | { readonly type: 'settled' }
  /** P → S after `serving`: connections, after their descriptors in the same order; before these the file of keys, where one has `tls`. */
  | { readonly type: 'move'; readonly connections: readonly MovedConnection[] }
  /** S → P, one for each `move`: S will serve the first `count`, but for the numbers (from 0) in `back`. All others stay with P. */
  | { readonly type: 'taken'; readonly count: number; readonly back?: readonly number[] }
  /** P → S: the drain is over and P ends. Without a report: a keeper acted as predecessor. */
  | { readonly type: 'end'; readonly report?: Report }

export type MessageType = Message['type']
export type MessageOf<T extends MessageType> = Extract<Message, { type: T }>

export const listenerShape = shape({
  name: string, kind: oneOf('tcp', 'unix', 'udp', 'control'), asked: string, ephemeral: optional(boolean), address: string, port: count,
  backlog: count, ticketKeys: optional(string), bound: optional(boolean), path: optional(string), spare: optional(boolean)
})
export const sectionPhase = oneOf('offer', 'final', 'checkpoint')
export const shapes: Shapes<Message> = {
  hello: { protocol: count, pid: count, v8: optional(string) },
  offer: {
    protocol: count, pid: count, generation: count, listeners: list(listenerShape), sections: optional(list(string)),
    since: optional(count), readyMs: optional(count), mayDrop: optional(boolean), alone: optional(boolean), lacks: optional(list(string))
  },
  section: { name: string, phase: sectionPhase, bytes: count, listed: optional(list(shape({ name: string, bytes: count }))) },
  unsaved: { name: string, phase: sectionPhase, reason: string },
  restoring: { name: string, bytes: count },
  peer: { name: string, text: optional(string) },
  refused: { code: string, reason: string },
  ready: { kept: list(string), added: list(string), dropped: list(string), state: optional(stateReportShape) },
  failed: { reason: string, code: optional(string) },
  commit: {},
  serving: { takes: optional(takes), pongs: optional(boolean) },
  ping: {},
  pong: { debugged: optional(boolean) },
  withdraw: { reason: string },
  settled: {},
  move: { connections: list(connection) },
  taken: { count, back: optional(list(count)) },
  end: { report: optional(reportShape) }
}

const descriptors: Descriptors<Message> = {
  offer: ({ listeners }) => listeners.length,
  section: one,
  peer: ({ text }) => (text === undefined ? 1 : 0),
  move: ({ connections }) => connections.length + (connections.some(({ tls }) => tls) ? 1 : 0)
}

export const handoverMessages = vocabulary<Message>('neighbour', shapes, descriptors, ['move'])

/** N talks to N±1. */
export function speaks(theirs: number): boolean {
  return Math.abs(theirs - protocol) <= 1
}
