/** The connections of one server, and the requests that run on each. drain.ts has what a drain does with them. */

import { EventEmitter } from 'node:events'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import type net from 'node:net'
import type tls from 'node:tls'
import {
  acceptorOf, adoptDescriptor, countConnections, isSentAway, plainSocketOf, primeParser
} from '../platform/node/connection-handle.js'
import { coarseNow } from '../platform/coarse-clock.js'
import { isHttpsServer, isTlsServer, nodesTlsListener } from '../platform/on-demand.js'
import { answersHttp1, isSessionMaker, settingsOfServer, socketOfSession } from '../platform/node/http2-session.js'
import type { MovedTlsSocket } from '../platform/moved-tls-socket.js'
import { subscribe } from '../platform/subscriptions.js'
import type { MovedConnection } from '../protocol/handover-messages.js'
import type { MovedTls } from '../protocol/moved-connection.js'
import { giveBack } from './connection-receiver.js'
import {
  inactivityMs, limitsOf, speaksHttp2, type CanMove, type Connection, type Protocol, type RunningRequest,
  type Session, type Streams, type TrackedServer
} from './connection.js'
import { ContinuedSession } from './continued-session.js'
import { Drain, type DrainOptions } from './drain.js'
import { acceptedSocket, isNodesOwn, isUntouched, type AnsweringServer } from './hand-served.js'
import { goOnFresh, goOnIdle } from './keep-alive.js'
import { keepHere } from './movability.js'
import { requestCounts } from './request-counts.js'
import { isApplications, type StayReason } from './stay-reasons.js'
import { checkCertificate, goOnWith } from './tls-cargo.js'

/** What Node's HTTP server does with a connection. */
const [nodesListener] = new http.Server().listeners('connection')

const trackers = new WeakMap<object, ConnectionTracker>()

/** The connections of the server that accepted this socket. */
function trackerOf(accepted: net.Socket): ConnectionTracker | undefined {
  const server = acceptorOf(accepted)
  return server && trackers.get(server)
}

let watching = false

/** One subscription for the process. Node publishes every HTTP/1 request there, also with `Expect`. */
function watchRequests(): void {
  if (watching) return
  watching = true
  subscribe('http.server.request.start', (message) => {
    const { server, request, response, socket } = message as
      { server: net.Server; request: IncomingMessage; response: ServerResponse; socket: net.Socket }
    if (trackers.get(server)?.began(socket, request, response)) return
    const accepted = acceptedSocket(socket)
    trackerOf(accepted)?.beganByHand(accepted, { server, socket }, request, response)
  })
  // As 'finish' of the response, without a listener on each.
  subscribe('http.server.response.finish', (message) => {
    const { server, response, socket } = message as { server: net.Server; response: ServerResponse; socket: net.Socket }
    trackers.get(server)?.finished(socket, response)
  })
}

function beneath(server: net.Server): Protocol {
  if (isTlsServer(server)) return 'handshake'
  return server instanceof http.Server ? 'http1' : speaksHttp2(server) ? 'http2' : 'other'
}

function above(server: net.Server, socket: tls.TLSSocket): Protocol {
  if (speaksHttp2(server)) return socket.alpnProtocol === 'h2' ? 'http2' : 'http1'
  return isHttpsServer(server) ? 'http1' : 'other'
}

/** Gets what is read of a connection, instead of 'data'. */
interface Reader {
  arrived(bytes: Buffer): void
}

const none: readonly RunningRequest[] = []
/** How often a drain looks for connections that the program has sent to another process. */
const lookMs = 250

export class ConnectionTracker {
  readonly #connections = new Map<net.Socket, Connection>()
  readonly #sessions = new Map<http2.ServerHttp2Session, Session>()
  readonly #server: net.Server
  readonly #of: TrackedServer
  readonly #connected: (socket: net.Socket) => void
  #arriving = 0
  /** At how many connections those that the program has sent to another process are looked for. */
  #lookAt = 64
  #drain: Drain | undefined
  /** The connection that is being received, whose 'connection' event comes from here. */
  #receiving: MovedConnection | undefined
  /** Below the session of HTTP/2 that is being received. */
  #continuing: ContinuedSession | undefined

  constructor(server: net.Server, canMove?: CanMove) {
    this.#server = server
    this.#of = { server, connections: this.#connections, sessions: this.#sessions, canMove }
    trackers.set(server, this)
    const connected = (socket: net.Socket): void => {
      // The program gave it to this server; it is among the connections of the server that accepted it.
      if (this.#isOfAnother(socket)) return
      const connection = this.#add(socket, beneath(server))
      if (connection.protocol === 'http1') this.#noteWhoReads(socket, connection)
      // It was in the queue when the drain began, or comes from a generation before.
      this.#drain?.added(socket)
    }
    this.#connected = connected
    server.prependListener('connection', connected)
    server.prependListener('secureConnection', (socket: tls.TLSSocket) => {
      const below = plainSocketOf(socket)
      if (below && this.#isOfAnother(acceptedSocket(below))) return
      const stays = below && this.#connections.get(below)?.stays
      if (below) this.#connections.delete(below)
      const connection = this.#add(socket, above(server, socket), below, stays)
      this.#drain?.secured(socket, connection)
    })
    if (speaksHttp2(server)) {
      server.prependListener('session', (session: http2.ServerHttp2Session) => {
        const accepted = acceptedSocket(session.socket)
        ;(this.#isOfAnother(accepted) ? trackerOf(accepted) ?? this : this).#addSession(session, this.#continuing)
      })
    }
    watchRequests()
  }

  #isOfAnother(socket: net.Socket): boolean {
    const tracker = trackerOf(socket)
    return tracker !== undefined && tracker !== this && tracker.get(socket) !== undefined
  }

  #noteWhoReads(socket: net.Socket, connection: Connection): void {
    connection.byHand = !isUntouched(this.#server, socket)
    if (connection.byHand) return
    // By then all listeners have run, and nothing more has been read.
    process.nextTick(() => { if (!socket.destroyed && !isNodesOwn(this.#server, socket)) connection.byHand = true })
  }

  get open(): number {
    this.#forgetSentAway()
    return this.#connections.size + this.#arriving
  }

  /** Connections that are moved here and have no socket yet. The server counts them too. */
  get arriving(): number {
    return this.#arriving
  }

  set arriving(count: number) {
    countConnections(this.#server, count - this.#arriving)
    this.#arriving = count
  }

  /** No function of the program runs when a connection comes, so that receive() cannot throw. */
  get takesAll(): boolean {
    const listeners = this.#server.listeners('connection')
    const isOurs = listeners.length === 2 && listeners[0] === this.#connected && listeners[1] === nodesListener
    return isOurs && this.#server.emit === EventEmitter.prototype.emit
  }

  get all(): IterableIterator<[net.Socket, Connection]> {
    return this.#connections.entries()
  }

  get sessions(): IterableIterator<Session> {
    return this.#sessions.values()
  }

  get(socket: net.Socket): Connection | undefined {
    return this.#connections.get(socket)
  }

  #add(socket: net.Socket, protocol: Protocol, wire = socket, stays?: StayReason): Connection {
    const { ageMs = 0, idleMs = 0, requests = 0 } = this.#receiving ?? {}
    const now = performance.now()
    const connection: Connection = {
      running: none, protocol, wire, openedAt: now - ageMs, requestsBefore: requests, requests, bytesRead: 0, quietSince: now - idleMs,
      byHand: false, stays
    }
    this.#connections.set(socket, connection)
    if (this.#connections.size >= this.#lookAt) this.#forgetSentAway()
    socket.once('close', () => {
      for (const request of connection.running) if (!request.isWatched) countFailed(request)
      if (this.#connections.get(socket) === connection && this.#connections.delete(socket)) this.#drain?.ended(socket, connection)
    })
    return connection
  }

  /** Those of another process are its own. Nothing of Node reports them. */
  #forgetSentAway(): void {
    for (const [socket, connection] of this.#connections) {
      if (isSentAway(socket) && this.#connections.delete(socket)) this.#drain?.ended(socket, connection)
    }
    this.#lookAt = 64 + 2 * this.#connections.size
  }

  // ---- moves ----

  /**
   * A connection that a predecessor moved here, as if it had always been here. An HTTP server serves it; of another server the application
   * gets the socket. Throws where the descriptor cannot be used, where something else than Node's own HTTP server takes the socket, and
   * what a listener for 'connection' throws; this copy of it is closed then.
   */
  receive(fd: number, about: MovedConnection, keys?: readonly Buffer[]): net.Socket {
    const server = this.#server
    const { http2: moved, tls: secure } = about
    let reader: Reader | undefined
    let socket = adoptDescriptor(fd, server, moved ?? secure ? (bytes) => { reader?.arrived(bytes) } : undefined)
    this.#receiving = about
    try {
      if (secure) checkCertificate(server, secure)
      if (about.kind !== 'http') {
        const below = socket
        if (secure) reader = socket = goOnWith(below, secure, keys)
        this.#add(socket, 'other', below)
        this.#drain?.added(socket)
      } else if (moved) {
        if (secure) reader = socket = this.#goOnSecure(socket, secure, keys)
        const continuing = new ContinuedSession(socket, moved)
        reader ??= continuing
        this.#continueSession(socket, continuing, secure ? 'secureConnection' : 'connection')
      } else {
        if (!answersHttp1(server)) throw new Error('the server speaks HTTP/2 alone')
        if (secure) reader = socket = this.#goOnSecure(socket, secure, keys)
        server.emit(secure ? 'secureConnection' : 'connection', socket)
        if (socket.destroyed) throw new Error("a listener for 'connection' closed it")
        if (!isNodesOwn(server, socket)) throw new Error('the program reads connections itself before it gives them to HTTP')
        this.#goOn(socket, about)
      }
      return socket
    } catch (error) {
      throw giveBack(socket, error)
    } finally {
      this.#receiving = undefined
    }
  }

  /** The program's own listeners get the socket below, as at an accept. Answers the secure one, as after a handshake. */
  #goOnSecure(below: net.Socket, moved: MovedTls, keys: readonly Buffer[] | undefined): MovedTlsSocket {
    const server = this.#server
    for (const listener of server.rawListeners('connection')) {
      if (listener !== this.#connected && listener !== nodesTlsListener()) listener.call(server, below)
    }
    if (below.destroyed) throw new Error("a listener for 'connection' closed it")
    return goOnWith(below, moved, keys)
  }

  /** The program's own listeners get the socket, and Node's the stream on which the session goes on. */
  #continueSession(socket: net.Socket, continuing: ContinuedSession, event: 'connection' | 'secureConnection'): void {
    if (event === 'secureConnection') socket.on('data', (bytes: Buffer) => { continuing.arrived(bytes) })
    this.#continuing = continuing
    try {
      for (const listener of this.#server.listeners(event)) {
        listener.call(this.#server, isSessionMaker(listener, this.#server) ? continuing : socket)
      }
    } finally {
      this.#continuing = undefined
    }
    if (socket.destroyed) throw new Error("a listener for 'connection' closed it")
    if (this.#connections.get(socket)?.session === undefined) throw new Error('the program reads connections itself before it gives them to HTTP/2')
  }

  /** Its timers have run for a while already. */
  #goOn(socket: net.Socket, about: MovedConnection): void {
    const isFresh = about.idleMs === undefined
    if (!isFresh) primeParser(socket)
    const connection = this.#connections.get(socket)
    if (!connection) return
    if (isFresh) goOnFresh(this.#server, socket, connection)
    else goOnIdle(this.#server, socket, connection, about)
  }

  /** The application has moved the socket: this process no longer owns it. */
  moved(socket: net.Socket, kind: string): void {
    if (this.#connections.delete(socket)) this.#drain?.moved(kind)
  }

  /** Says more of why a connection stays than the drain can know. */
  noteStay(socket: net.Socket, reason: string): void {
    const connection = this.#connections.get(socket)
    if (connection && isApplications(connection.stays)) keepHere(socket, connection, { text: reason })
  }

  /** Begins the drain; `cut()` ends it before all connections have left, `undo()` gives it up. */
  drain(options: DrainOptions): Drain {
    this.#drain?.undo()
    this.#forgetSentAway()
    for (const [socket, connection] of this.#connections) for (const request of connection.running) this.#watch(socket, connection, request)
    const drain = new Drain(this.#of, options, () => { this.#drain = undefined })
    const looking = setInterval(() => {
      if (this.#drain === drain) this.#forgetSentAway()
      else clearInterval(looking)
    }, lookMs).unref()
    return this.#drain = drain
  }

  // ---- requests ----

  #addSession(session: http2.ServerHttp2Session, continued: ContinuedSession | undefined): void {
    const streams: Streams = new Map()
    const socket = continued?.socket ?? socketOfSession(session)
    const connection = socket && this.#connections.get(socket)
    const known: Session = { session, streams, connection, continued }
    this.#sessions.set(session, known)
    if (connection) connection.session = known
    continued?.begin(session, settingsOfServer(this.#server))
    session.once('close', () => { this.#sessions.delete(session) })
    session.on('stream', (stream, headers) => {
      streams.set(stream, { method: String(headers[':method']), target: String(headers[':path']), since: performance.now() })
      requestCounts.total++
      if (connection) connection.requests++
      stream.once('close', () => {
        streams.delete(stream)
        if (socket && streams.size === 0) this.#drain?.streamsEnded(socket)
        // Node has none where nothing was answered.
        if (Number((stream.sentHeaders as typeof stream.sentHeaders | undefined)?.[':status']) >= 500) requestCounts.failed++
      })
    })
    this.#drain?.greet(known)
  }

  /** False where this server does not have the connection. */
  began(socket: net.Socket, request: IncomingMessage, response: ServerResponse): boolean {
    const connection = this.#connections.get(socket)
    if (!connection) return false
    if (connection.inheritedMs !== undefined) {
      connection.inheritedMs = undefined
      socket.setTimeout(inactivityMs(this.#server))
    }
    // Node counts the requests of a connection from when it came into this process.
    const most = limitsOf(this.#server).maxRequestsPerSocket ?? 0
    if (most > 0 && connection.requestsBefore > 0 && connection.requests + 1 >= most) response.shouldKeepAlive = false
    this.#run(socket, connection, request, response)
    return true
  }

  /** A request on a connection that the program gave to an HTTP server itself. */
  beganByHand(accepted: net.Socket, served: AnsweringServer, request: IncomingMessage, response: ServerResponse): void {
    let connection = this.#connections.get(accepted)
    if (!connection) {
      // The program has taken our listener for 'connection' away.
      connection = this.#add(accepted, beneath(this.#server))
      connection.byHand = true
      this.#drain?.added(accepted)
    }
    connection.byHand = true
    connection.served = served
    this.#run(accepted, connection, request, response)
  }

  #run(socket: net.Socket, connection: Connection, incoming: IncomingMessage, response: ServerResponse): void {
    const request = { method: incoming.method ?? '', target: incoming.url ?? '', since: coarseNow(), response, isWatched: false }
    connection.running = connection.running.length === 0 ? [request] : [...connection.running, request]
    connection.requests++
    requestCounts.total++
    if (this.#drain || connection.byHand) this.#watch(socket, connection, request)
    this.#drain?.began(socket, connection, response)
  }

  /** The answer is out. Where it is watched, its 'close' follows. */
  finished(socket: net.Socket, response: ServerResponse): void {
    const connection = this.#connections.get(socket)
    if (!connection) return
    for (const request of connection.running) if (request.response === response && !request.isWatched) this.#over(connection, request)
  }

  #watch(socket: net.Socket, connection: Connection, request: RunningRequest): void {
    if (request.isWatched) return
    request.isWatched = true
    const { response } = request
    response.once('close', () => {
      this.#over(connection, request)
      this.#drain?.answered(socket, connection, response)
    })
  }

  #over(connection: Connection, request: RunningRequest): void {
    connection.running = connection.running.length === 1 ? none : connection.running.filter((other) => other !== request)
    countFailed(request)
    connection.quietSince = coarseNow()
    if (connection.served || this.#drain) connection.bytesAnswered = connection.wire.bytesRead
  }
}

function countFailed({ response }: RunningRequest): void {
  if (response.headersSent && response.statusCode >= 500) requestCounts.failed++
}
