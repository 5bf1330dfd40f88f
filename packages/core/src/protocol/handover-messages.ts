/**
 * The messages between predecessor and successor: all that both sides import.
 *
 * One JSON object a line. Descriptors travel on a second socket, always before the message that counts them. PROTOCOL.md has the table.
 * Pure: imports no Node module.
 */

import {
  boolean, count, list, one, oneOf, optional, shape, string, vocabulary, type Checked, type Descriptors, type MessagesOf, type Shapes
} from './json-lines.js'
import { movedConnectionShape, takesShape } from './moved-connection.js'
import { reportShape, stateReportShape } from './report.js'

export type { MovedConnection, MovedSession, Takes } from './moved-connection.js'

export const protocol = 1

export interface Peer {
  readonly pid: number
  readonly generation: number
}

/** A listener in an offer: what it is, and what the program asked for when it was created. */
export const listenerShape = shape({
  /** `tcp 0.0.0.0:3000`, `tcp [::1]:3000`, `unix /run/app.sock`, `udp 0.0.0.0:53`; `control` for the control socket. */
  name: string,
  kind: oneOf('tcp', 'unix', 'udp', 'control'),
  /** The key of the listen() call: port 0, a host name and an inherited descriptor match by it. */
  asked: string,
  /** The program asked for port 0, and the system chose one. */
  ephemeral: optional(boolean),
  address: string,
  port: count,
  ipv6: boolean,
  ipv6Only: boolean,
  backlog: count,
  /** Device and inode of a Unix socket's file: shows whether the file was replaced. */
  file: optional(string),
  /** The keys of a TLS server's session tickets in base64, so that a client that reconnects resumes its session. */
  ticketKeys: optional(string),
  /** The name under which a TLS server keeps its sessions apart from others. */
  sessionContext: optional(string),
  /** It is bound, and listens only when the successor accepts on it. TCP only. */
  bound: optional(boolean),
  /** The absolute path of a Unix socket's file, which a program may have renamed. */
  path: optional(string),
  /** From a keeper: the program has closed it, and may listen on it again, now or later. */
  spare: optional(boolean)
})
export type OfferedListener = Checked<typeof listenerShape>

/** A listener with its descriptor, on its way to another process. The receiver closes it. */
export interface OfferedSocket {
  readonly about: OfferedListener
  readonly fd: number
}

/** The descriptors are in the order of the listeners. */
export const socketsOf = (listeners: readonly OfferedListener[], fds: readonly number[]): OfferedSocket[] =>
  listeners.map((about, index) => ({ about, fd: fds[index]! }))

/** `offer`: when the reload began. `final`: after the predecessor's last request. `checkpoint`: of a process that has crashed. */
export const sectionPhase = oneOf('offer', 'final', 'checkpoint')
export type SectionPhase = Checked<typeof sectionPhase>

export const shapes = {
  /** S → P, first. `v8`: its version, where S reads sections in V8's own format. */
  hello: { protocol: count, pid: count, v8: optional(string) },
  /**
   * P → S, after `listeners.length` descriptors in the same order. `sections`: the names of the state that follows, each in a `section` or
   * an `unsaved`. `since`: when the first generation began, in milliseconds since the epoch. `readyMs`: how long S may take until `ready`.
   * `mayDrop`: S is meant to drop listeners. `alone`: no process serves meanwhile. `lacks`: with what errors listen() failed in P.
   */
  offer: {
    protocol: count, pid: count, generation: count, listeners: list(listenerShape), sections: optional(list(string)),
    since: optional(count), readyMs: optional(count), mayDrop: optional(boolean), alone: optional(boolean), lacks: optional(list(string))
  },
  /** P → S, after its descriptor (section-file.ts). Before `ready`; as `final` before `end`. `listed`: small ones (section-list.ts). */
  section: { name: string, phase: sectionPhase, bytes: count, listed: optional(list(shape({ name: string, bytes: count }))) },
  /** P → S instead of a section. */
  unsaved: { name: string, phase: sectionPhase, reason: string },
  /** S → P, now and then before `ready`: how many bytes of the section are read. */
  restoring: { name: string, bytes: count },
  /** Between neighbours, from `serving` to `end`. `text`: of the package devalue; where it is absent, after one descriptor of its file. */
  peer: { name: string, text: optional(string) },
  /** P → S instead of an offer. */
  refused: { code: string, reason: string },
  /** S → P: booted, every claim is made, the state is restored; accepts nothing. */
  ready: { kept: list(string), added: list(string), dropped: list(string), state: optional(stateReportShape) },
  /** S → P instead of ready: it cannot serve. `code`: HANDOVER_STATE where state is the reason. */
  failed: { reason: string, code: optional(string) },
  /** P → S: accept from now on. */
  commit: {},
  /** S → P: it accepts. The point of no return. Without `takes` nothing can be moved to it. `pongs`: it answers `ping`. */
  serving: { takes: optional(takesShape), pongs: optional(boolean) },
  /** P → S after `serving`, while P could still take over again: does the event loop of S turn? */
  ping: {},
  /** S → P, at once. `debugged`: its inspector is open, so that it may stand at a breakpoint. */
  pong: { debugged: optional(boolean) },
  /** P → S before `serving`: the offer is taken back; the successor must end. */
  withdraw: { reason: string },
  /** S → P after `serving`: no undo any more (the successor was stopped on purpose, or has a successor). */
  settled: {},
  /** P → S after `serving`: connections, after their descriptors in the same order; before these the file of keys, where one has `tls`. */
  move: { connections: list(movedConnectionShape) },
  /** S → P, one for each `move`: S will serve the first `count`, but for the numbers (from 0) in `back`. All others stay with P. */
  taken: { count, back: optional(list(count)) },
  /** P → S: the drain is over and P ends. Without a report: a keeper acted as predecessor. */
  end: { report: optional(reportShape) }
} satisfies Shapes

export type Message = MessagesOf<typeof shapes>
export type MessageType = Message['type']
export type MessageOf<T extends MessageType> = Extract<Message, { type: T }>

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
