/**
 * One WebSocket of a server that moves its WebSockets: what is counted of it, why it cannot move now, and how it is held still while it is
 * on its way.
 *
 * ws exposes no message boundaries, and its private fields are not touched. So the frames of the client are counted on the raw bytes, and
 * compared with what ws has delivered.
 */

import type net from 'node:net'
import type { Duplex } from 'node:stream'
import { log } from '../adapters.js'
import { textOf } from '../errors.js'
import type { FrameCounter } from './frame-counter.js'
import type { SavedRequest } from './websocket-arrival.js'
import type { MovableWebSocket, MovableWebSocketServer } from './websocket.js'

const texts = {
  closing: 'closing',
  halfReceived: 'a message is half received',
  notDelivered: 'a message is not delivered yet',
  halfSent: 'a message is half sent',
  paused: 'paused',
  clientDoesNotRead: 'its client does not read',
  saveThrows: 'save() throws',
  saveSaysNothing: 'save() says nothing',
  saveIsAsync: 'save() is async',
  stateNotSent: 'its state cannot be sent',
  notTaken: 'not taken by the successor',
  tls: 'TLS',
  notSeen: 'not seen from the beginning',
  late: 'came too late'
} as const

/** `extension`: ws reads its frames with permessage-deflate, whose state cannot move. */
export type StayReason = keyof typeof texts | 'extension'

/** For the log and the report. */
export const stayText = (
  reason: StayReason, { extensions }: MovableWebSocket
): string => (reason === 'extension' ? extensions : texts[reason])

export interface TrackedWebSocket<W> {
  readonly ws: W
  readonly socket: net.Socket
  readonly request: SavedRequest
  /** It came through a route of @fastify/websocket. */
  readonly routed: boolean
  readonly came: FrameCounter
  /** What ws has given to the application. */
  readonly delivered: { messages: number; pings: number; pongs: number }
  /** The application has sent the first part of a message, and not the last. */
  sendsParts: boolean
  held: HeldCalls | undefined
  /** `bufferedAmount` of what was sent while it was held. */
  refusedBytes: number
  /** It is not looked at before, as performance.now(). */
  notBefore: number
  /** Why it could not move when it was last looked at. */
  stays: StayReason | undefined
}

/** The WebSockets of one server. */
export interface TrackedWebSockets<W extends MovableWebSocket> {
  readonly wss: MovableWebSocketServer<W>
  readonly kind: string
  readonly save: (ws: W) => unknown
  readonly counted: Map<W, TrackedWebSocket<W>>
  /** Their messages cannot be counted. */
  readonly uncounted: WeakMap<W, { readonly socket: Duplex; readonly stays: StayReason }>
  /** How many are held still. */
  held: number
}

/** WebSocket.OPEN and WebSocket.CLOSED. */
const open = 1
const closed = 3

export const isOpen = ({ readyState }: MovableWebSocket): boolean => readyState === open

/** Must be asked when nothing that has come is still on its way through ws to the application. */
export function obstacleOf({ ws, came, delivered, sendsParts, refusedBytes }: TrackedWebSocket<MovableWebSocket>): StayReason | undefined {
  if (ws.extensions !== '') return 'extension'
  if (came.closed) return 'closing'
  if (!came.isBetween) return 'halfReceived'
  if (came.messages !== delivered.messages || came.pings !== delivered.pings || came.pongs !== delivered.pongs) return 'notDelivered'
  if (ws.isPaused === true) return 'paused'
  if (sendsParts) return 'halfSent'
  return ws.bufferedAmount > refusedBytes ? 'clientDoesNotRead' : undefined
}

/** A WebSocket that is held can be asked for these. It does them later if it stays after all. */
const putOff = ['pause', 'resume', 'close', 'terminate'] as const

interface HeldCalls {
  readonly calls: { readonly name: (typeof putOff)[number]; readonly args: readonly unknown[] }[]
  /** What the application itself had put over the functions of ws. */
  readonly own: readonly (readonly [name: string, own: PropertyDescriptor])[]
}

/** For the application the WebSocket is closed from here on: what it sends fails, and ws tells that to its callback. */
export function hold<W extends MovableWebSocket>(of: TrackedWebSockets<W>, connection: TrackedWebSocket<W>): void {
  const { ws } = connection
  const calls: HeldCalls['calls'] = []
  const own = putOff.flatMap((name) => {
    const descriptor = Object.getOwnPropertyDescriptor(ws, name)
    return descriptor ? [[name, descriptor] as const] : []
  })
  of.held++
  connection.held = { calls, own }
  Object.defineProperty(ws, 'readyState', { value: closed, configurable: true, enumerable: true })
  for (const name of putOff) {
    Object.defineProperty(ws, name, { value: (...args: unknown[]) => { calls.push({ name, args }) }, configurable: true, writable: true })
  }
  of.wss.clients?.delete(ws)
}

export function release<W extends MovableWebSocket>(of: TrackedWebSockets<W>, connection: TrackedWebSocket<W>): void {
  const { ws, socket, held } = connection
  of.held--
  connection.held = undefined
  for (const name of ['readyState', ...putOff]) Reflect.deleteProperty(ws, name)
  for (const [name, descriptor] of held?.own ?? []) Object.defineProperty(ws, name, descriptor)
  connection.refusedBytes = ws.bufferedAmount - socket.writableLength
  if (ws.readyState !== closed) of.wss.clients?.add(ws)
  for (const { name, args } of held?.calls ?? []) {
    try {
      ws[name](...args as [])
    } catch (error) {
      log('error', `${name}() failed, which a WebSocket was asked while it was on its way to the successor: ${textOf(error)}`)
    }
  }
}
