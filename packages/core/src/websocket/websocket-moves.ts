/**
 * @handover/core/ws: WebSockets of the package `ws` move to the successor with the application's state, between two messages. Their clients
 * see nothing. What cannot move is told 1012, service restart.
 *
 * This file checks what moveWebSockets() is given, and follows the WebSockets of a server from their beginning.
 */

import type { IncomingMessage } from 'node:http'
import net from 'node:net'
import { inspect } from 'node:util'
import { log, movesTls } from '../adapters.js'
import { HandoverError, type Draining } from '../index.js'
import { textOf } from '../errors.js'
import { FrameCounter } from './frame-counter.js'
import type { TrackedWebSocket, TrackedWebSockets } from './tracked-websocket.js'
import { arrive, type SavedWebSocket } from './websocket-arrival.js'
import { WebSocketDrain } from './websocket-drain.js'
import { register, unregister, type WebSocketReceiver } from './websocket-servers.js'
import type { MovableWebSocket, MovableWebSocketServer } from './websocket.js'
import { isTlsSocket } from '../platform/on-demand.js'

/** What moveWebSockets() takes. `W`: the WebSocket of ws. `State`: plain data. */
export interface MoveWebSocketsOptions<W, State> {
  /**
   * What the successor must know of this WebSocket: plain data, at most 256 KiB; null or undefined: not now. Asked in a drain, between two
   * messages, again and again until the WebSocket has moved, so it only looks and changes nothing. In the same step `ws` stops sending: it
   * must not be async.
   */
  save(ws: W): State | null | undefined
  /**
   * Puts into a WebSocket what `save` answered, before the application's 'connection' handler runs with it. It must not be async either.
   */
  restore(ws: W, state: State): void
  /** The name in the report, the same in both processes. Each WebSocketServer of a process needs one of its own. Default: `websocket`. */
  readonly kind?: string | undefined
}

const moving = new WeakSet<object>()

const wrong = (what: string, todo: string, cause?: unknown): HandoverError =>
  new HandoverError(
    'HANDOVER_OPTION', { what: `moveWebSockets() was ${what}`, serving: 'Nothing was changed', todo }, cause === undefined ? {} : { cause }
  )

/**
 * Moves the WebSockets of `wss` in every reload. Call it before listen(). `wss`: made with `noServer` or `server`, or the `websocketServer`
 * of @fastify/websocket; with `noServer` the program must emit 'connection', as ws's documentation shows.
 *
 * In the successor `restore` runs first, then the application's 'connection' handler, with a request like the one that the client sent.
 * Without a listener for 'connection', and for routes of @fastify/websocket, the upgrade goes through the HTTP server again, hooks and all.
 * Throws HANDOVER_OPTION.
 */
export function moveWebSockets<W extends MovableWebSocket, State>(
  wss: MovableWebSocketServer<W>, options: MoveWebSocketsOptions<W, State>
): void {
  const given = wss as { [Key in keyof MovableWebSocketServer<W>]?: MovableWebSocketServer<W>[Key] | null } | null | undefined
  if (typeof given?.handleUpgrade !== 'function' || typeof given.prependListener !== 'function' || typeof given.options !== 'object' ||
    given.options === null) {
    throw wrong('given something else than a WebSocketServer of the package ws', 'Give new WebSocketServer({ noServer: true }) or ({ server }), or the websocketServer of @fastify/websocket')
  }
  if ((given.options as { port?: number | null }).port != null) {
    throw wrong('given a WebSocketServer with a port of its own', 'Give handover() an http server, and new WebSocketServer({ server }) that one')
  }
  const { save, restore, kind = 'websocket', ...unknown } = (options as Partial<typeof options> | null | undefined) ?? {}
  if (typeof save !== 'function' || typeof restore !== 'function') throw wrong('given no save or no restore', 'Give { save: (ws) => …, restore: (ws, state) => … }')
  for (const key of Object.keys(unknown)) throw wrong(`given the option ${inspect(key)}, which does not exist`, 'Known options: save, restore, kind')
  if (typeof kind !== 'string' || kind === '' || kind === 'http') {
    throw wrong(`given the kind ${inspect(kind)}`, 'Give a name of your own, not "http"')
  }
  if (moving.has(wss)) throw wrong('called twice with one WebSocketServer', 'Call it once')
  const sockets = new WebSockets(wss, options, kind)
  // What is refused must leave no listener behind.
  try {
    register(kind, sockets)
  } catch (cause) {
    if (!(cause instanceof HandoverError)) throw cause
    throw wrong(`given the kind ${inspect(kind)}, which another call of moveWebSockets() or onMoved() in this process has`, 'Give each WebSocketServer a kind of its own', cause)
  }
  moving.add(wss)
  sockets.listen()
}

class WebSockets<W extends MovableWebSocket, State> implements WebSocketReceiver {
  readonly #options: MoveWebSocketsOptions<W, State>
  readonly #of: TrackedWebSockets<W>
  /** What had been read of a socket when ws began to read it. */
  readonly #begun = new WeakMap<net.Socket, number>()
  /** The requests that are played again. */
  readonly #arriving = new WeakMap<IncomingMessage, SavedWebSocket>()
  #isClosed = false
  #drain: WebSocketDrain<W> | undefined

  constructor(wss: MovableWebSocketServer<W>, options: MoveWebSocketsOptions<W, State>, kind: string) {
    this.#options = options
    this.#of = { wss, kind, save: (ws) => options.save(ws), counted: new Map(), uncounted: new WeakMap(), held: 0 }
  }

  listen(): void {
    const { wss } = this.#of
    wss.prependListener('headers', (_headers: string[], { socket }: IncomingMessage) => {
      if (socket instanceof net.Socket) this.#begun.set(socket, socket.bytesRead)
    })
    wss.prependListener('connection', (ws: W, request?: IncomingMessage) => {
      if (request) this.#connected(ws, request)
    })
    wss.once('close', () => {
      this.#isClosed = true
      this.#leaveWhenEmpty()
    })
  }

  /** Its last WebSockets may outlive a server that does not track them. */
  #leaveWhenEmpty(): void {
    if (!this.#isClosed || this.#of.counted.size > 0) return
    this.#drain?.end()
    this.#drain = undefined
    unregister(this.#of.kind, this)
  }

  drain(draining: Draining): void {
    this.#drain?.end()
    this.#drain = new WebSocketDrain(this.#of, () => { this.#leaveWhenEmpty() }, draining)
  }

  undo(): void {
    this.#drain?.undo()
    this.#drain = undefined
  }

  /** A WebSocket of the predecessor. */
  arrive(socket: net.Socket, state: unknown): void {
    const saved = state as SavedWebSocket
    arrive(this.#of.wss, socket, saved, (request) => { this.#arriving.set(request, saved) })
  }

  #connected(ws: W, request: IncomingMessage): void {
    const { socket } = request
    const saved = this.#arriving.get(request)
    if (saved) request.headers = saved.request.headers
    // Without its first bytes, the messages of a WebSocket cannot be counted any more.
    if (isTlsSocket(socket) && !movesTls()) this.#of.uncounted.set(ws, { socket, stays: 'tls' })
    else if (!(socket instanceof net.Socket) ||
      this.#begun.get(socket) !== socket.bytesRead) this.#of.uncounted.set(ws, { socket, stays: 'notSeen' })
    else this.#track(ws, socket, request, saved)
    if (saved) this.#restore(ws, saved.state as State)
  }

  #track(ws: W, socket: net.Socket, request: IncomingMessage, saved: SavedWebSocket | undefined): void {
    const { method = 'GET', url = '/', httpVersion, headers, rawHeaders } = request
    const routed = saved?.routed ?? isRouted(request)
    const { originalUrl = url } = request as { originalUrl?: string }
    const came = new FrameCounter()
    const delivered = { messages: 0, pings: 0, pongs: 0 }
    const connection: TrackedWebSocket<W> = {
      ws, socket, request: saved?.request ?? { method, url: routed ? originalUrl : url, httpVersion, headers, rawHeaders }, routed,
      came, delivered, sendsParts: false, held: undefined, refusedBytes: 0, notBefore: 0, stays: undefined
    }
    this.#of.counted.set(ws, connection)
    // Before ws hears them: a listener of the application that throws must not hide bytes from the counter.
    socket.prependListener('data', (chunk: Buffer) => {
      came.add(chunk)
      if (this.#drain && came.isBetween) this.#drain.candidate(connection)
    })
    ws.prependListener('message', () => { delivered.messages++ })
    ws.prependListener('ping', () => { delivered.pings++ })
    ws.prependListener('pong', () => { delivered.pongs++ })
    ws.once('close', () => {
      this.#of.counted.delete(ws)
      this.#leaveWhenEmpty()
    })
    const send = ws.send.bind(ws) as (...args: unknown[]) => void
    const sendWatched = (...args: unknown[]): void => {
      const [, options] = args
      connection.sendsParts = typeof options === 'object' && options !== null && 'fin' in options && !options.fin
      send(...args)
    }
    Object.defineProperty(ws, 'send', { value: sendWatched, configurable: true, writable: true })
  }

  #restore(ws: W, state: State): void {
    const failed = (error: unknown): void => {
      log('error', `restore() failed for a WebSocket that was moved here; closing it with code 1011: ${textOf(error)}`)
      ws.close(1011, 'state could not be restored')
    }
    try {
      const result: unknown = this.#options.restore(ws, state)
      if (result instanceof Promise) result.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
}

/** @fastify/websocket leaves this mark on a request whose route serves the WebSocket, even if there is a listener for 'connection'. */
const isRouted = (request: IncomingMessage): boolean =>
  Object.getOwnPropertySymbols(request).some(({ description }) => description === 'ws-socket')
