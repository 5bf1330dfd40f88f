/** Whether a connection is idle: it can be closed, and its client loses no request. It may look so and still have bytes in the kernel. */

import type net from 'node:net'
import { native } from '../platform/native.js'
import { hasParser, readingRequests } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import type { Connection } from './connection.js'
import { holdsHalfRecord } from './tls-cargo.js'

export type SocketSet = Pick<ReadonlySet<net.Socket>, 'has'>

/**
 * The connections of this server on which a request is being read, or nothing was ever read. Node's list is read at the first question,
 * and holds for this turn of the loop. Without a list every connection counts as being read.
 */
export function readingOf(server: net.Server): SocketSet {
  let listed: ReadonlySet<net.Socket> | 'none' | undefined
  return {
    has(socket) {
      listed ??= readingRequests(server) ?? 'none'
      return listed === 'none' || listed.has(socket)
    }
  }
}

/** No request has begun, nor a record of TLS that may have one. A connection that never sent a byte is idle. */
export function isBetween(socket: net.Socket, { protocol, running, served, wire, bytesAnswered }: Connection, reading: SocketSet): boolean {
  if (served) return running.length === 0 && hasParser(served.socket) && wire.bytesRead === bytesAnswered
  if (protocol === 'http2' || protocol === 'other' || running.length > 0) return false
  // Where records are not counted: something has come since the drain began, or since the last answer in it.
  if (wire !== socket && (holdsHalfRecord(socket) ?? wire.bytesRead !== bytesAnswered)) return false
  return socket.bytesRead === 0 || (hasParser(socket) && !reading.has(socket))
}

/** Something waits in the kernel. */
export function hasUnread(socket: net.Socket): boolean {
  const fd = fdOf(socket)
  return fd !== undefined && native !== undefined && native.pollReadable(fd, 0) !== 0
}
