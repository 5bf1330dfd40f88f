/**
 * The rule that carries every move of an HTTP connection: it moves only when nothing of it is in this process. No byte of a request that
 * the parser has read, no byte of a response that the kernel has not taken, no user of the raw socket.
 *
 * Node's own notion of idle, which closeIdleConnections() goes by, is not that: it holds for a response that is finished and not sent, for
 * a handler that has not answered yet, for a socket that the application took away. It is asked by nothing here.
 */

import type net from 'node:net'
import { hasParser, isAnswering, isParsed, isReadByNodeAlone, unsentBytes } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import type { Connection } from './connection.js'
import { byHand } from './hand-served.js'

/** `now`, `later` (something of it is here; look again), or why it stays for the whole drain. */
export type Standing = 'now' | 'later' | { readonly stays: string }

/** Why a connection stays where the application has not moved it itself. */
export const upgraded = 'upgraded'
export const foreign = 'protocol of the application'

/** Why a connection can never be moved, whatever it does: what it speaks, or that the program had it in its own hands. */
export function unmovable(socket: net.Socket, connection: Connection): string | undefined {
  const { protocol, wire } = connection
  if (protocol === 'http2') return 'HTTP/2'
  if (protocol === 'handshake' || wire !== socket) return 'TLS'
  return connection.byHand ? byHand : undefined
}

/**
 * `reading`: the connections of the server of which a request is being read, or nothing was ever read, as `readingRequests` says in the
 * same turn of the loop. Not for calls from within the parser.
 */
export function standingOf(socket: net.Socket, connection: Connection, reading: Pick<ReadonlySet<net.Socket>, 'has'>): Standing {
  const never = unmovable(socket, connection)
  if (never !== undefined) return { stays: never }
  if (connection.protocol === 'other') return { stays: foreign }
  if (connection.running.size > 0 || isAnswering(socket)) return 'later'
  // It ends by itself.
  if (socket.destroyed || !socket.readable || !socket.writable || fdOf(socket) === undefined) return 'later'
  if (!hasParser(socket)) return { stays: upgraded }
  if (!isParsed(socket) || !isReadByNodeAlone(socket)) return { stays: 'read by the application' }
  if (socket.readableLength > 0 || unsentBytes(socket) > 0) return 'later'
  return socket.bytesRead === 0 || !reading.has(socket) ? 'now' : 'later'
}
