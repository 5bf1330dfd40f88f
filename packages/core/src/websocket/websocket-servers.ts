/**
 * The WebSocketServers of this process that moveWebSockets() was given. One listener for the events of the process serves all of them, and
 * keeps none of them alive. A server that was closed, or was garbage collected, is forgotten, and its kind is free again.
 */

import type net from 'node:net'
import { forgetMoved } from '../adapters.js'
import { HandoverError, handover, type Draining } from '../index.js'

/** What a WebSocketServer hears. */
export interface WebSocketReceiver {
  /** A WebSocket of the predecessor. */
  arrive(socket: net.Socket, state: unknown): void
  drain(draining: Draining): void
  /** The process serves again. */
  undo(): void
}

const servers = new Map<string, WeakRef<WebSocketReceiver>>()
let listening = false

/** Throws HANDOVER_OPTION where this kind is taken. */
export function register(kind: string, server: WebSocketReceiver): void {
  if (servers.has(kind) && servers.get(kind)?.deref() === undefined) forget(kind)
  const reference = new WeakRef(server)
  handover.onMoved(kind, (socket, state) => {
    const found = reference.deref()
    if (!found) throw new HandoverError('HANDOVER_UNAVAILABLE', { what: `the WebSocketServer of kind "${kind}" is gone` })
    found.arrive(socket, state)
  })
  servers.set(kind, reference)
  listen()
}

function listen(): void {
  if (listening) return
  listening = true
  handover.events.on('draining', (draining) => { each((server) => { server.drain(draining) }) })
  handover.events.on('state', ({ to }) => { if (to === 'serving') each((server) => { server.undo() }) })
}

function each(tell: (server: WebSocketReceiver) => void): void {
  for (const [kind, reference] of [...servers]) {
    const server = reference.deref()
    if (server) tell(server)
    else forget(kind)
  }
}

/** The server was closed. */
export function unregister(kind: string, server: WebSocketReceiver): void {
  if (servers.get(kind)?.deref() === server) forget(kind)
}

function forget(kind: string): void {
  servers.delete(kind)
  forgetMoved(kind)
}
