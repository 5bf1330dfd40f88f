/**
 * The keep-alive time of an idle connection that was moved here, or held still for a while. Node's own timer begins anew at each part of a
 * head: one that was set to what is left would leave the rest of a head no more than that. So a moved connection has a timer of its own.
 */

import type net from 'node:net'
import { serverOf } from '../platform/node/connection-handle.js'
import { inactivityMs, keepAliveMs, type Connection } from './connection.js'
import { hasUnread } from './idle.js'

/**
 * Goes on where it was. `promisedMs`: how long the predecessor kept it. A new version may give less, but its client has not heard of that
 * before its next answer.
 */
export function goOnIdle(server: net.Server, socket: net.Socket, connection: Connection, promisedMs = 0): void {
  const ownMs = keepAliveMs(server)
  if (ownMs === undefined) return
  const limitMs = Math.max(ownMs, promisedMs)
  connection.inheritedMs = limitMs
  socket.setTimeout(limitMs)
  const { wire, quietSince } = connection
  const timer = setTimeout(() => {
    // What waits in the kernel came in time.
    if (wire.bytesRead > 0 || socket.destroyed || connection.leaving !== undefined || hasUnread(socket)) return
    // As Node's timer does: the server closes the connection, or its program decides.
    socket.emit('timeout')
  }, Math.max(1, limitMs - (performance.now() - quietSince))).unref()
  socket.once('close', () => { clearTimeout(timer) })
}

/** After a hold the idle time begins anew. */
export function restartIdle(socket: net.Socket, connection: Connection): void {
  const server = serverOf(socket)
  if (!server || connection.running.length > 0) return
  const wasAsked = connection.requests > 0 || socket.bytesRead > 0
  connection.inheritedMs = wasAsked ? keepAliveMs(server) : undefined
  socket.setTimeout(connection.inheritedMs ?? inactivityMs(server))
}
