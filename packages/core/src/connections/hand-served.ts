/**
 * Connections that the program took into its own hands: it looked at their first bytes and gave them to an HTTP server then (the PROXY
 * protocol, two protocols on one port), wrapped them in TLS itself, or gave those of one server to another. They must not move: the next
 * process would need their first bytes, and those are gone. So they stay, and hear `Connection: close` as every other client does.
 *
 * This file knows which server accepted such a connection, and which one serves it.
 */

import type net from 'node:net'
import { acceptorOf, hasParser, plainSocketOf, serverOf } from '../platform/node/connection-handle.js'
import { isTlsSocket } from '../platform/on-demand.js'

/** The HTTP server that answers on a connection which another server accepted, and the socket that it knows. */
export interface AnsweringServer {
  readonly server: net.Server
  readonly socket: net.Socket
}

/** How many layers of TLS are looked through. */
const mostLayers = 4

/** The socket that a server accepted, below what the program made of it. */
export function acceptedSocket(socket: net.Socket): net.Socket {
  let below = socket
  for (let layer = 0; layer < mostLayers && isTlsSocket(below); layer++) below = plainSocketOf(below) ?? below
  return below
}

/** Nothing has been read of it, and it came to this server from its own listener. Asked in its 'connection' event. */
export const isUntouched = (server: net.Server, socket: net.Socket): boolean =>
  socket.bytesRead === 0 && socket.readableLength === 0 && acceptorOf(socket) === server

/** Whether Node's own HTTP server took an untouched connection. Asked after its 'connection' event, before anything can have been read. */
export const isNodesOwn = (server: net.Server, socket: net.Socket): boolean => serverOf(socket) === server && hasParser(socket)

/** How long a client that was told may take to close its connection first. */
const closeFirstMs = 250

/**
 * After an answer with `Connection: close` the client closes first, or Node does a moment later. A program that passes the bytes on itself
 * may see the end of the connection before the answer, so Node waits longer here.
 */
export function letClientCloseFirst(socket: net.Socket): void {
  if (Object.hasOwn(socket, 'destroySoon')) return
  const destroySoon = socket.destroySoon.bind(socket)
  socket.destroySoon = (): void => {
    const timer = setTimeout(destroySoon, closeFirstMs)
    socket.once('close', () => { clearTimeout(timer) })
  }
}
