/**
 * The rule for moving an HTTP connection: it moves only when nothing of it is in this process. No byte of a request that the parser has
 * read, no byte of a response that the kernel has not taken, no user of the raw socket.
 *
 * Node's own notion of idle, which closeIdleConnections() goes by, is a weaker one: it holds for a response that is finished and not sent,
 * for a handler that has not answered yet, and for a socket that the application took away. It is never asked here.
 */

import type net from 'node:net'
import { debug } from '../platform/debug.js'
import { MovedTlsSocket } from '../platform/moved-tls-socket.js'
import { hasParser, isAnswering, isParsed, isReadByNodeAlone, unsentBytes } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { kindOf, type Connection } from './connection.js'
import type { SocketSet } from './idle.js'
import { isApplications, stayText, type StayReason } from './stay-reasons.js'

/** `now`, `later` (something of it is here; look again), or why it stays for the whole drain. */
export type Movability = 'now' | 'later' | { readonly stays: StayReason }

/** Why a connection never moves: what it speaks, or that the program had it in its own hands. */
export function unmovable(socket: net.Socket, { protocol, wire, byHand, tlsMoves }: Connection): StayReason | undefined {
  if ((protocol === 'handshake' || wire !== socket) && tlsMoves !== true) return protocol === 'http2' ? 'http2' : 'tls'
  return byHand ? 'byHand' : undefined
}

/** `reading`: as `readingOf` answers in the same turn of the loop. Must not be called from within the parser. */
export function movabilityOf(socket: net.Socket, connection: Connection, reading: SocketSet): Movability {
  const never = unmovable(socket, connection)
  if (never !== undefined) return { stays: never }
  if (connection.protocol === 'other') return { stays: 'otherProtocol' }
  if (connection.protocol === 'handshake' || connection.running.length > 0 || isAnswering(socket)) return 'later'
  // It ends by itself.
  if (socket.destroyed || !socket.readable || !socket.writable || fdOf(socket) === undefined) return 'later'
  if (!hasParser(socket)) return { stays: 'upgraded' }
  if ((!isParsed(socket) && !(socket instanceof MovedTlsSocket)) || !isReadByNodeAlone(socket)) return { stays: 'readByApplication' }
  if (socket.readableLength > 0 || unsentBytes(socket) > 0) return 'later'
  return socket.bytesRead === 0 || !reading.has(socket) ? 'now' : 'later'
}

/** From here on the drain does not move this connection. */
export function keepHere(socket: net.Socket, connection: Connection, reason: StayReason): void {
  connection.stays = reason
  debug(() => `connection stays (${kindOf(socket, connection)}): ${stayText(reason)}${isApplications(reason) ? ', unless the application moves it' : ''}`)
}
