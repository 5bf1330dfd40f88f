/**
 * How long a connection that was moved here, or held still for a while, may be silent. Node's own timer begins anew at each part of a head:
 * one that was set to what is left would leave the rest of a head no more than that. So a moved connection has a timer of its own.
 *
 * The program may have given a socket another time than its server has. Then that one counts.
 */

import type net from 'node:net'
import { serverOf } from '../platform/node/connection-handle.js'
import type { MovedConnection } from '../protocol/handover-messages.js'
import { inactivityMs, keepAliveMs, limitsOf, type Connection } from './connection.js'
import { hasUnread } from './idle.js'

export type IdleTimes = Pick<MovedConnection, 'idleMs' | 'keepMs' | 'timeoutMs'>

/** Of a connection that is held between two requests. */
export function idleTimes(server: net.Server, { limitMs, quietSince }: Connection): IdleTimes {
  const isPrograms = limitMs !== undefined && keepAliveMs(server) === undefined && limitMs !== inactivityMs(server)
  return {
    idleMs: Math.max(0, Math.round(performance.now() - quietSince)),
    ...(limitMs !== undefined && { keepMs: Math.round(limitMs) }),
    ...(isPrograms && { timeoutMs: Math.round(limitMs) })
  }
}

/** It has sent nothing: Node counts from now, its client from when it connected. */
export function goOnFresh(server: net.Server, socket: net.Socket, connection: Connection): void {
  const { headersTimeout = 0, requestTimeout = 0 } = limitsOf(server)
  // The HTTP server answers this error with 408, or with the application's 'clientError'.
  endSilent(socket, connection, headersTimeout > 0 ? headersTimeout : requestTimeout, connection.openedAt, () => {
    socket.emit('error', Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }))
  })
  endAsNode(socket, connection, connection.openedAt)
}

/**
 * It is between two requests. `keepMs`: how long the predecessor kept it. A new version may give less, but its client has not heard of
 * that before its next answer. Without a keep-alive time, what the program gave to the socket holds for the requests to come, too.
 */
export function goOnIdle(server: net.Server, socket: net.Socket, connection: Connection, { keepMs = 0, timeoutMs }: IdleTimes): void {
  const ownMs = keepAliveMs(server)
  if (ownMs !== undefined) {
    connection.inheritedMs = Math.max(ownMs, keepMs)
    socket.setTimeout(connection.inheritedMs)
  } else if (timeoutMs !== undefined) socket.setTimeout(timeoutMs)
  endAsNode(socket, connection, connection.quietSince)
}

/** The server closes the connection, or its program decides. */
function endAsNode(socket: net.Socket, connection: Connection, since: number): void {
  const { timeout } = socket
  endSilent(socket, connection, timeout, since, () => { if (socket.timeout === timeout) socket.emit('timeout') })
}

/** Where it has sent nothing to this process by then. */
function endSilent(socket: net.Socket, connection: Connection, limitMs = 0, since: number, end: () => void): void {
  if (!(limitMs > 0)) return
  const timer = setTimeout(() => {
    // What waits in the kernel came in time.
    if (connection.wire.bytesRead === 0 && !socket.destroyed && connection.leaving === undefined && !hasUnread(socket)) end()
  }, Math.max(1, limitMs - (performance.now() - since))).unref()
  socket.once('close', () => { clearTimeout(timer) })
}

/** A connection that is held is not closed for being idle: its client may have asked already. */
export function stopIdle(socket: net.Socket, connection: Connection): void {
  if (connection.held !== true || connection.running.length > 0) return
  connection.limitMs = limitOf(socket, connection)
  socket.setTimeout(0)
}

/** After a hold the idle time begins anew. */
export function restartIdle(socket: net.Socket, connection: Connection): void {
  const server = serverOf(socket)
  if (!server || connection.running.length > 0) return
  const limitMs = limitOf(socket, connection)
  const wasAsked = connection.requests > 0 || socket.bytesRead > 0
  connection.inheritedMs = wasAsked && keepAliveMs(server) !== undefined ? limitMs : undefined
  connection.limitMs = undefined
  socket.setTimeout(limitMs ?? 0)
}

/** Of now, or of before it was held. */
const limitOf = ({ timeout = 0 }: net.Socket, { limitMs }: Connection): number | undefined => (timeout > 0 ? timeout : limitMs)
