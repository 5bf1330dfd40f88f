/** What a predecessor says of the connections that it moves, and a successor of those that it can take. Pure: imports no Node module. */

import { boolean, count, list, oneOf, optional, shape, string } from './json-lines.js'

/** The connections that a successor can take. */
export interface Takes {
  /** The names of its listeners whose plain HTTP/1.1 connections it serves. */
  readonly listeners: readonly string[]
  /** The kinds that the application knows (onMoved). */
  readonly kinds: readonly string[]
  /** How many descriptors it can still open. */
  readonly room: number
  /** The names of its listeners whose sessions of HTTP/2 it goes on with. */
  readonly http2?: readonly string[]
  /** The names of its listeners under TLS. Absent: it goes on with no connection under TLS. */
  readonly tls?: readonly string[]
  /** It makes connections after its answer, so that a message may have many of them. */
  readonly atOnce?: boolean
}

/** For a predecessor that moves no connections under TLS. */
export function withoutTls({ tls: _tls, ...others }: Takes): Takes {
  return others
}

/** A live connection on its way. */
export interface MovedConnection {
  /** `http`, or what the application named in move(). */
  readonly kind: string
  /** The name of the listener that it came through; '' where Handover has no such listener. */
  readonly listener: string
  /** How long it has been open, in milliseconds. */
  readonly ageMs: number
  /** How long it has been idle between two requests, in milliseconds. Absent: nothing was ever read from it, or it is not HTTP. */
  readonly idleMs?: number
  /** How long it is kept idle, in milliseconds, as its client may have been told. Absent: for any time, or it is not idle. */
  readonly keepMs?: number
  /** How many requests it has carried. */
  readonly requests: number
  /** The state that the application gave to move(), as text of the package devalue. */
  readonly state?: string
  /** Bytes that were read and are not used yet, in base64. */
  readonly unread?: string
  /** A session of HTTP/2. */
  readonly http2?: MovedSession
  readonly tls?: MovedTls
}

/** What is known of a session of HTTP/2 between two streams. The client's table of headers (HPACK) is empty. */
export interface MovedSession {
  /** The settings that are in force, of each side: identifiers (RFC 9113, section 6.5.2) and values by turns. */
  readonly client: readonly number[]
  readonly server: readonly number[]
  /** The highest stream that the client began; 0: none. */
  readonly lastStream: number
  /** Bytes that this side may still send, on all streams together. */
  readonly sendWindow: number
  /** Bytes that the client may still send, and how many it may when it is told that all were read. */
  readonly receiveWindow: number
  readonly receiveLimit: number
  /** The client was not told to do without its table. Absent: it was, and has acknowledged that. */
  readonly tableStays?: boolean
}

/** What a `move` says of a TLS connection. Its keys are not in it: they are in the file whose descriptor comes first. */
export interface MovedTls {
  readonly protocol: string
  readonly cipher: string
  readonly readSequence: number
  readonly writeSequence: number
  readonly fragment?: number
  /** Bytes in the file: both keys, exporter secret, session, both Finished messages, the client's certificate. */
  readonly lengths: readonly number[]
  readonly alpn?: string
  readonly servername?: string
  readonly authorized: boolean
  readonly authorizationError?: string
  readonly reused: boolean
  /** As getCipher() answers: name, standardName, version. */
  readonly names: readonly string[]
}

const movedTlsShape = shape({
  protocol: oneOf('TLSv1.3', 'TLSv1.2'), cipher: string, readSequence: count, writeSequence: count, fragment: optional(count),
  lengths: list(count), alpn: optional(string), servername: optional(string), authorized: boolean, authorizationError: optional(string),
  reused: boolean, names: list(string)
})

export const takesShape = shape({
  listeners: list(string), kinds: list(string), room: count, http2: optional(list(string)), tls: optional(list(string)),
  atOnce: optional(boolean)
})
const session = shape({
  client: list(count), server: list(count), lastStream: count, sendWindow: count, receiveWindow: count, receiveLimit: count,
  tableStays: optional(boolean)
})
export const movedConnectionShape = shape({
  kind: string, listener: string, ageMs: count, idleMs: optional(count), keepMs: optional(count), requests: count, state: optional(string),
  unread: optional(string), http2: optional(session), tls: optional(movedTlsShape)
})
