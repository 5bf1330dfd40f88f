/**
 * @handover/core/ws: WebSockets of the package `ws` move to the successor with the application's state, between two messages. Their clients
 * see nothing.
 *
 * What cannot move stays until shortly before the drain deadline, in a stop at once, and is then told 1012, service restart. Where a
 * message ends is counted on the raw bytes and compared with what ws has delivered: its public face says nothing about that, and its
 * insides are nobody's business.
 */

import type { IncomingMessage } from 'node:http'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import { inspect } from 'node:util'
import { handover, HandoverError, log, noteStay, type Draining } from '../index.js'
import { LoopBudget } from '../platform/loop-budget.js'
import { FrameCounter } from './frame-counter.js'
import { arrive, serviceRestart, type Saved, type SavedRequest } from './websocket-arrival.js'
import { register, unregister, type WebSocketReceiver } from './websocket-servers.js'
import type { MovableWebSocket, MovableWebSocketServer } from './websocket.js'

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
  /** The name in the report, the same in both processes. Each WebSocketServer of a process needs one of its own. `websocket` */
  readonly kind?: string
}

/** WebSocket.OPEN and WebSocket.CLOSED. */
const open = 1
const closed = 3
const lookMs = 50
/** After one could not leave although nothing was in its way: the channel is full for a moment, or it is not taken at all. */
const againMs = 1_000
/** How many are held still at a time. */
const mostHeld = 256
/**
 * Those that stay are told one after the other, so that they do not come back at the same moment: before the deadline, and in a stop from
 * its beginning.
 */
const farewellMs = (endsInMs: number): number => Math.min(5_000, endsInMs / 5)
const stopFarewellMs = (endsInMs: number): number => Math.min(2_000, endsInMs / 5)
/** What a WebSocket that is held can be asked, and does later if it stays after all. */
const putOff = ['pause', 'resume', 'close', 'terminate'] as const

interface Connection<W> {
  readonly ws: W
  readonly socket: net.Socket
  readonly request: SavedRequest
  readonly routed: boolean
  readonly came: FrameCounter
  /** What ws has given to the application. */
  readonly delivered: { messages: number; pings: number; pongs: number }
  /** The application has sent the first part of a message, and not the last. */
  sendsParts: boolean
  /** While it is on its way: what it was asked meanwhile. */
  held: HeldWebSocket | undefined
  /** `bufferedAmount` of what was sent while it was held. */
  refusedBytes: number
  /** As performance.now(). */
  notBefore: number
  stays: string
}

interface HeldWebSocket {
  readonly calls: { readonly name: (typeof putOff)[number]; readonly args: readonly unknown[] }[]
  /** What the application itself had put over the functions of ws. */
  readonly own: readonly (readonly [name: string, own: PropertyDescriptor])[]
}

/** One whose messages cannot be counted. */
interface UncountedWebSocket {
  readonly socket: Duplex
  readonly stays: string
}

/** The drain that runs. Times as performance.now(). */
interface DepartingWebSocket<W> {
  readonly moves: boolean
  readonly farewellAt: number
  /** The rest of the time is for the answers of the clients. */
  readonly farewellUntil: number
  readonly looking: NodeJS.Timeout
  readonly farewells: Map<W, NodeJS.Timeout>
  readonly complaints: Set<string>
  /** To be looked at, whether they can move. */
  candidates: Set<Connection<W>>
  pumping: boolean
  saidGoodbye: boolean
}

const moving = new WeakSet<object>()

const wrong = (what: string, todo: string, cause?: unknown): HandoverError => new HandoverError('HANDOVER_OPTION', `${what}. Nothing was changed. ${todo}.`, cause === undefined ? {} : { cause })

/**
 * Moves the WebSockets of `wss` in every reload. Call it before listen(). `wss`: made with `noServer` or `server`, or the `websocketServer`
 * of
 * @fastify/websocket; with `noServer` the program must emit 'connection', as ws's documentation shows.
 *
 * In the successor `restore` runs first, then the application's 'connection' handler, with a request like the one that the client sent.
 * Where nobody listens for 'connection', and for routes of @fastify/websocket, the upgrade goes through the HTTP server again, hooks and
 * all. Throws HANDOVER_OPTION.
 */
export function moveWebSockets<W extends MovableWebSocket, State>(wss: MovableWebSocketServer<W>, options: MoveWebSocketsOptions<W, State>): void {
  const given = wss as { [Key in keyof MovableWebSocketServer<W>]?: MovableWebSocketServer<W>[Key] | null } | null | undefined
  if (typeof given?.handleUpgrade !== 'function' || typeof given.prependListener !== 'function' || typeof given.options !== 'object' || given.options === null) {
    throw wrong('moveWebSockets() was given something else than a WebSocketServer of the package ws', 'Give new WebSocketServer({ noServer: true }) or ({ server }), or the websocketServer of @fastify/websocket')
  }
  if ((given.options as { port?: number | null }).port != null) {
    throw wrong('moveWebSockets() was given a WebSocketServer with a port of its own', 'Give handover() an http server, and new WebSocketServer({ server }) that one')
  }
  const { save, restore, kind = 'websocket', ...unknown } = (options as Partial<typeof options> | null | undefined) ?? {}
  if (typeof save !== 'function' || typeof restore !== 'function') throw wrong('moveWebSockets() was given no save or no restore', 'Give { save: (ws) => …, restore: (ws, state) => … }')
  for (const key of Object.keys(unknown)) throw wrong(`moveWebSockets() was given the option ${inspect(key)}, which does not exist`, 'Known options: save, restore, kind')
  if (typeof kind !== 'string' || kind === '' || kind === 'http') throw wrong(`moveWebSockets() was given the kind ${inspect(kind)}`, 'Give a name of your own, not "http"')
  if (moving.has(wss)) throw wrong('moveWebSockets() was called twice with one WebSocketServer', 'Call it once')
  const sockets = new WebSockets(wss, options, kind)
  // What is refused must leave no listener behind.
  try {
    register(kind, sockets)
  } catch (cause) {
    if (!(cause instanceof HandoverError)) throw cause
    throw wrong(`moveWebSockets() was given the kind ${inspect(kind)}, which another call of moveWebSockets() or onMoved() in this process has`, 'Give each WebSocketServer a kind of its own', cause)
  }
  moving.add(wss)
  sockets.listen()
}

class WebSockets<W extends MovableWebSocket, State> implements WebSocketReceiver {
  readonly #wss: MovableWebSocketServer<W>
  readonly #options: MoveWebSocketsOptions<W, State>
  readonly #kind: string
  readonly #connections = new Map<W, Connection<W>>()
  readonly #uncounted = new WeakMap<W, UncountedWebSocket>()
  /** What had been read of a socket when ws began to read it. */
  readonly #begun = new WeakMap<net.Socket, number>()
  /** The requests that are played again. */
  readonly #arriving = new WeakMap<IncomingMessage, Saved>()
  #held = 0
  #isClosed = false
  #leaving: DepartingWebSocket<W> | undefined

  constructor(wss: MovableWebSocketServer<W>, options: MoveWebSocketsOptions<W, State>, kind: string) {
    this.#wss = wss
    this.#options = options
    this.#kind = kind
  }

  listen(): void {
    const wss = this.#wss
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
    if (!this.#isClosed || this.#connections.size > 0) return
    this.undo()
    unregister(this.#kind, this)
  }

  // ---- what comes ----

  /** A WebSocket of the predecessor. */
  arrive(socket: net.Socket, state: unknown): void {
    const saved = state as Saved
    arrive(this.#wss, socket, saved, (request) => { this.#arriving.set(request, saved) })
  }

  #connected(ws: W, request: IncomingMessage): void {
    const { socket } = request
    const saved = this.#arriving.get(request)
    if (saved) request.headers = saved.request.headers
    // TLS keeps its keys to itself. What came before cannot be counted any more, so that one stays.
    if (socket instanceof tls.TLSSocket) this.#uncounted.set(ws, { socket, stays: 'TLS' })
    else if (!(socket instanceof net.Socket) || this.#begun.get(socket) !== socket.bytesRead) this.#uncounted.set(ws, { socket, stays: notSeen })
    else this.#watch(ws, socket, request, saved)
    if (saved) this.#restore(ws, saved.state as State)
  }

  #watch(ws: W, socket: net.Socket, request: IncomingMessage, saved: Saved | undefined): void {
    const { method = 'GET', url = '/', httpVersion, headers, rawHeaders } = request
    const routed = saved?.routed ?? isRouted(request)
    const { originalUrl = url } = request as { originalUrl?: string }
    const delivered = { messages: 0, pings: 0, pongs: 0 }
    const connection: Connection<W> = {
      ws,
      socket,
      request: saved?.request ?? { method, url: routed ? originalUrl : url, httpVersion, headers, rawHeaders },
      routed,
      came: new FrameCounter(),
      delivered,
      sendsParts: false,
      held: undefined,
      refusedBytes: 0,
      notBefore: 0,
      stays: ''
    }
    this.#connections.set(ws, connection)
    // Before ws hears them: a listener of the application that throws must not hide bytes from the counter.
    socket.prependListener('data', (chunk: Buffer) => {
      connection.came.add(chunk)
      if (this.#leaving && connection.came.isBetween) this.#candidate(connection)
    })
    ws.prependListener('message', () => { delivered.messages++ })
    ws.prependListener('ping', () => { delivered.pings++ })
    ws.prependListener('pong', () => { delivered.pongs++ })
    ws.once('close', () => {
      this.#connections.delete(ws)
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
      log('error', `restore() failed for a WebSocket that was moved here; it is told 1011: ${textOf(error)}`)
      ws.close(1011, 'state could not be restored')
    }
    try {
      const result: unknown = this.#options.restore(ws, state)
      if (result instanceof Promise) result.catch(failed)
    } catch (error) {
      failed(error)
    }
  }

  // ---- what leaves ----

  drain({ successor, endsInMs }: Draining): void {
    this.undo()
    const now = performance.now()
    for (const connection of this.#connections.values()) connection.notBefore = 0
    const looking = setInterval(() => { this.#look() }, lookMs)
    looking.unref()
    const moves = successor !== null
    // In a stop nobody is waited for, and whoever stops a process does not wait long.
    const farewellAt = moves ? now + endsInMs - farewellMs(endsInMs) : now
    this.#leaving = {
      moves,
      farewellAt,
      farewellUntil: farewellAt + (moves ? farewellMs(endsInMs) * 0.6 : stopFarewellMs(endsInMs)),
      looking,
      farewells: new Map(),
      complaints: new Set(),
      candidates: new Set(),
      pumping: false,
      saidGoodbye: false
    }
    this.#look()
  }

  /** The process serves again. */
  undo(): void {
    if (!this.#leaving) return
    clearInterval(this.#leaving.looking)
    for (const timer of this.#leaving.farewells.values()) clearTimeout(timer)
    this.#leaving = undefined
  }

  #look(): void {
    const leaving = this.#leaving
    if (!leaving) return
    if (leaving.moves) {
      for (const connection of this.#connections.values()) leaving.candidates.add(connection)
      this.#wake(leaving)
    }
    if (performance.now() >= leaving.farewellAt) this.#sayGoodbye(leaving)
  }

  #candidate(connection: Connection<W>): void {
    if (!this.#leaving?.moves) return
    this.#leaving.candidates.add(connection)
    this.#wake(this.#leaving)
  }

  /** Looks in the check phase: what had arrived has been read by then, and what ws and the application do at once with it is done. */
  #wake(leaving: DepartingWebSocket<W>): void {
    if (leaving.pumping || leaving.candidates.size === 0 || this.#held >= mostHeld) return
    leaving.pumping = true
    setImmediate(() => {
      leaving.pumping = false
      if (this.#leaving !== leaving) return
      const budget = new LoopBudget()
      for (const connection of leaving.candidates) {
        leaving.candidates.delete(connection)
        this.#tryToLeave(connection, leaving)
        if (this.#held >= mostHeld || budget.isSpent) break
      }
      this.#wake(leaving)
    })
  }

  #tryToLeave(connection: Connection<W>, leaving: DepartingWebSocket<W>): void {
    const { ws } = connection
    if (connection.held !== undefined || !isOpen(ws) || performance.now() < connection.notBefore) return
    const obstacle = obstacleOf(connection)
    if (obstacle !== undefined) {
      connection.stays = obstacle
      return
    }
    let state: State | null | undefined
    try {
      state = this.#options.save(ws)
    } catch (error) {
      connection.stays = 'save() throws'
      this.#complain(leaving, 'save', `save() threw, so a WebSocket stays for now (others are not logged): ${textOf(error)}`)
      return
    }
    if (state === null || state === undefined) connection.stays = 'save() says nothing'
    else if (isPromise(state)) {
      connection.stays = 'save() is async'
      connection.notBefore = Infinity
      this.#complain(leaving, 'save', 'save() answered a promise, so a WebSocket stays (others are not logged): it must not be async, since messages would come while it works')
      // Its failure must not end the process as well.
      state.then(undefined, () => undefined)
    } else if (isOpen(ws)) this.#leave(connection, state, leaving)
  }

  #leave(connection: Connection<W>, state: State, leaving: DepartingWebSocket<W>): void {
    const { ws, socket, request, routed } = connection
    const { protocol } = ws
    this.#hold(connection)
    const saved: Saved = { state, request, protocol, routed }
    handover.move(socket, { kind: this.#kind, state: saved }).then((moved) => {
      if (moved) {
        this.#held--
        this.#connections.delete(ws)
        this.#leaveWhenEmpty()
      } else {
        this.#release(connection)
        connection.stays = 'not taken by the successor'
        connection.notBefore = performance.now() + againMs
      }
      this.#wake(leaving)
    }, (error: unknown) => {
      this.#release(connection)
      connection.stays = 'its state cannot be sent'
      connection.notBefore = Infinity
      this.#complain(leaving, 'state', `a WebSocket stays (others are not logged): ${String(error)}`)
      this.#wake(leaving)
    })
  }

  /** For the application it is closed from here on: nothing can be sent, and what is tried is reported to its callback, as ws does then. */
  #hold(connection: Connection<W>): void {
    const { ws } = connection
    const calls: HeldWebSocket['calls'] = []
    const own = putOff.flatMap((name) => {
      const descriptor = Object.getOwnPropertyDescriptor(ws, name)
      return descriptor ? [[name, descriptor] as const] : []
    })
    this.#held++
    connection.held = { calls, own }
    Object.defineProperty(ws, 'readyState', { value: closed, configurable: true, enumerable: true })
    for (const name of putOff) Object.defineProperty(ws, name, { value: (...args: unknown[]) => { calls.push({ name, args }) }, configurable: true, writable: true })
    this.#wss.clients?.delete(ws)
  }

  #release(connection: Connection<W>): void {
    const { ws, socket, held } = connection
    this.#held--
    connection.held = undefined
    for (const name of ['readyState', ...putOff]) Reflect.deleteProperty(ws, name)
    for (const [name, descriptor] of held?.own ?? []) Object.defineProperty(ws, name, descriptor)
    connection.refusedBytes = ws.bufferedAmount - socket.writableLength
    if (ws.readyState !== closed) this.#wss.clients?.add(ws)
    for (const { name, args } of held?.calls ?? []) {
      try {
        ws[name](...args as [])
      } catch (error) {
        log('error', `${name}() failed, which a WebSocket was asked while it was on its way to the successor: ${textOf(error)}`)
      }
    }
  }

  #complain(leaving: DepartingWebSocket<W>, about: 'save' | 'state', line: string): void {
    if (leaving.complaints.has(about)) return
    leaving.complaints.add(about)
    log('error', line)
  }

  // ---- what stays ----

  #sayGoodbye(leaving: DepartingWebSocket<W>): void {
    const all = new Set([...(this.#wss.clients ?? []), ...this.#connections.keys()])
    const reasons = new Map<string, number>()
    for (const ws of all) {
      if (!isOpen(ws) || leaving.farewells.has(ws)) continue
      const { socket, stays } = this.#connections.get(ws) ?? this.#uncounted.get(ws) ?? { socket: undefined, stays: notSeen }
      const reason = stays === '' ? 'came too late' : stays
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
      if (leaving.moves && socket instanceof net.Socket) noteStay(socket, reason)
      const timer = setTimeout(() => {
        // It is on its way just now; if it comes back, it is told then.
        if (!isOpen(ws)) leaving.farewells.delete(ws)
        else ws.close(serviceRestart, 'service restart')
      }, Math.random() * Math.max(0, leaving.farewellUntil - performance.now()))
      timer.unref()
      leaving.farewells.set(ws, timer)
    }
    if (leaving.saidGoodbye || reasons.size === 0) return
    leaving.saidGoodbye = true
    const count = [...reasons.values()].reduce((sum, each) => sum + each)
    const why = leaving.moves ? `: ${[...reasons].map(([reason, times]) => `${times} ${reason}`).join(', ')}` : ''
    log('info', `${count} WebSocket${count === 1 ? ' is' : 's are'} told ${serviceRestart}, service restart${why}`)
  }
}

const notSeen = 'not seen from the beginning'

const isPromise = (state: unknown): state is PromiseLike<unknown> => typeof (state as Partial<PromiseLike<unknown>>).then === 'function'

const isOpen = ({ readyState }: MovableWebSocket): boolean => readyState === open

/** Why it cannot move now. Asked when nothing of what has come is on its way through ws to the application any more. */
function obstacleOf<W extends MovableWebSocket>({ ws, came, delivered, sendsParts, refusedBytes }: Connection<W>): string | undefined {
  if (ws.extensions !== '') return ws.extensions
  if (came.closed) return 'closing'
  if (!came.isBetween) return 'a message is half received'
  if (came.messages !== delivered.messages || came.pings !== delivered.pings || came.pongs !== delivered.pongs) return 'a message is not delivered yet'
  if (ws.isPaused === true) return 'paused'
  if (sendsParts) return 'a message is half sent'
  return ws.bufferedAmount > refusedBytes ? 'its client does not read' : undefined
}

/** Routes of @fastify/websocket do the work, whoever listens for 'connection' besides: it leaves this mark on the request. */
const isRouted = (request: IncomingMessage): boolean => Object.getOwnPropertySymbols(request).some(({ description }) => description === 'ws-socket')

const textOf = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))
