/** What a predecessor says of the connections that it moves, and a successor of those that it can take. Pure: imports no Node module. */

import { boolean, count, list, oneOf, optional, shape, string, type Checked } from './json-lines.js'

/** The connections that a successor can take. */
export const takesShape = shape({
  /** The names of its listeners whose plain HTTP/1.1 connections it serves. */
  listeners: list(string),
  /** The kinds that the application knows (onMoved). */
  kinds: list(string),
  /** How many descriptors it can still open. */
  room: count,
  /** The names of its listeners whose sessions of HTTP/2 it goes on with. */
  http2: optional(list(string)),
  /** The names of its listeners under TLS. Absent: it goes on with no connection under TLS. */
  tls: optional(list(string)),
  /** It makes connections after its answer, so that a message may have many of them. */
  atOnce: optional(boolean)
})
export type Takes = Checked<typeof takesShape>

/** For a predecessor that moves no connections under TLS. */
export function withoutTls({ tls: _tls, ...others }: Takes): Takes {
  return others
}

/** What is known of a session of HTTP/2 between two streams. The client's table of headers (HPACK) is empty. */
const sessionShape = shape({
  /** The settings that are in force, of each side: identifiers (RFC 9113, section 6.5.2) and values by turns. */
  client: list(count),
  server: list(count),
  /** The highest stream that the client began; 0: none. */
  lastStream: count,
  /** Bytes that this side may still send, on all streams together. */
  sendWindow: count,
  /** Bytes that the client may still send, and how many it may when it is told that all were read. */
  receiveWindow: count,
  receiveLimit: count,
  /** The client was not told to do without its table. Absent: it was, and has acknowledged that. */
  tableStays: optional(boolean)
})
export type MovedSession = Checked<typeof sessionShape>

/** What a `move` says of a TLS connection. Its keys are not in it: they are in the file whose descriptor comes first. */
const movedTlsShape = shape({
  protocol: oneOf('TLSv1.3', 'TLSv1.2'),
  cipher: string,
  readSequence: count,
  writeSequence: count,
  fragment: optional(count),
  /** Bytes in the file: both keys, exporter secret, session, both Finished messages, the client's certificate. */
  lengths: list(count),
  alpn: optional(string),
  servername: optional(string),
  authorized: boolean,
  authorizationError: optional(string),
  reused: boolean,
  /** As getCipher() answers: name, standardName, version. */
  names: list(string)
})
export type MovedTls = Checked<typeof movedTlsShape>

/** A live connection on its way. */
export const movedConnectionShape = shape({
  /** `http`, or what the application named in move(). */
  kind: string,
  /** The name of the listener that it came through; '' where Handover has no such listener. */
  listener: string,
  /** How long it has been open, in milliseconds. */
  ageMs: count,
  /** How long it has been idle between two requests, in milliseconds. Absent: nothing was ever read from it, or it is not HTTP. */
  idleMs: optional(count),
  /** How long it is kept idle, in milliseconds, as its client may have been told. Absent: for any time, or it is not idle. */
  keepMs: optional(count),
  /** The program gave it this time, in milliseconds, and its server has no keep-alive time that would end it with a request. */
  timeoutMs: optional(count),
  /** How many requests it has carried. */
  requests: count,
  /** The state that the application gave to move(), as text of the package devalue. */
  state: optional(string),
  /** Bytes that were read and are not used yet, in base64. */
  unread: optional(string),
  /** A session of HTTP/2. */
  http2: optional(sessionShape),
  tls: optional(movedTlsShape)
})
export type MovedConnection = Checked<typeof movedConnectionShape>
