/**
 * The connections of one server: what each is doing, and the polite drain.
 *
 * The drain tells every client that the connection ends with the next answer, waits for the requests that run, and closes what
 * stays idle for `linger`. It never calls server.close() or closeIdleConnections(): both cut clients that are just writing, and stop
 * the header and body timeouts of the rest. What is left at the deadline is cut by name.
 */

import { subscribe } from 'node:diagnostics_channel'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import https from 'node:https'
import type net from 'node:net'
import tls from 'node:tls'
import { native } from './native.js'
import { betweenRequests, fdOf, plainSocketOf } from './private.js'
import type { CutRequest } from './report.js'

interface Request {
  readonly method: string
  readonly target: string
  readonly since: number
}

/** `handshake`: under TLS, before there is a secure connection. Only in HTTP/1 and there can idle be told from busy. */
type Protocol = 'http1' | 'http2' | 'handshake' | 'other'

interface Connection {
  /** Requests whose response is not flushed, in order of arrival. */
  readonly running: Map<ServerResponse, Request>
  readonly protocol: Protocol
  /** The socket that touches the network: under TLS, bytes arrive before anything can be read from them. */
  readonly wire: net.Socket
  bytesRead: number
  /** When the last response was out, or bytes were last seen to have come in a drain. */
  quietSince: number
}

interface Session {
  readonly streams: Map<http2.ServerHttp2Stream, Request>
}

/** What became of the connections of a drain. */
export interface Drained {
  open: number
  drained: number
  closedIdle: number
  cut: number
  readonly requestsCut: CutRequest[]
}

/** How often a drain looks for connections that have been idle for `linger`. */
const lookMs = 100

const trackers = new WeakMap<object, Connections>()
let watching = false

/** One subscription for the process. The channel is published for every HTTP/1 request, also those that Expect. */
function watchRequests(): void {
  if (watching) return
  watching = true
  subscribe('http.server.request.start', (message) => {
    const { server, request, response, socket } = message as { server: object; request: IncomingMessage; response: ServerResponse; socket: net.Socket }
    trackers.get(server)?.began(socket, request, response)
  })
}

// http2 exports no class of its servers.
const speaksHttp2 = (server: net.Server): boolean => 'updateSettings' in server

function beneath(server: net.Server): Protocol {
  if (server instanceof tls.Server) return 'handshake'
  return server instanceof http.Server ? 'http1' : speaksHttp2(server) ? 'http2' : 'other'
}

function above(server: net.Server, socket: tls.TLSSocket): Protocol {
  if (speaksHttp2(server)) return socket.alpnProtocol === 'h2' ? 'http2' : 'http1'
  return server instanceof https.Server ? 'http1' : 'other'
}

const withoutQuery = (target: string): string => target.split('?', 1)[0] ?? target

export class Connections {
  readonly #connections = new Map<net.Socket, Connection>()
  readonly #sessions = new Map<http2.ServerHttp2Session, Session>()
  readonly #server: net.Server
  #drain: Drain | undefined

  constructor(server: net.Server) {
    this.#server = server
    trackers.set(server, this)
    server.prependListener('connection', (socket: net.Socket) => {
      this.#add(socket, beneath(server), socket)
      // A connection that was in the queue when the drain began.
      if (this.#drain) this.#drain.result.open++
    })
    server.prependListener('secureConnection', (socket: tls.TLSSocket) => {
      const below = plainSocketOf(socket)
      if (below) this.#connections.delete(below)
      this.#add(socket, above(server, socket), below ?? socket)
    })
    if (speaksHttp2(server)) server.prependListener('session', (session: http2.ServerHttp2Session) => { this.#addSession(session) })
    watchRequests()
  }

  get open(): number {
    return this.#connections.size
  }

  /** Requests whose answer is not out. */
  get running(): number {
    let count = 0
    for (const connection of this.#connections.values()) count += connection.running.size
    for (const session of this.#sessions.values()) count += session.streams.size
    return count
  }

  #add(socket: net.Socket, protocol: Protocol, wire: net.Socket): void {
    this.#connections.set(socket, { running: new Map(), protocol, wire, bytesRead: 0, quietSince: 0 })
    socket.once('close', () => {
      if (this.#connections.delete(socket)) this.#drain?.ended(socket)
    })
  }

  #addSession(session: http2.ServerHttp2Session): void {
    const streams: Session['streams'] = new Map()
    this.#sessions.set(session, { streams })
    session.once('close', () => { this.#sessions.delete(session) })
    session.on('stream', (stream, headers) => {
      streams.set(stream, { method: String(headers[':method']), target: String(headers[':path']), since: performance.now() })
      stream.once('close', () => streams.delete(stream))
    })
    this.#drain?.greet(session)
  }

  began(socket: net.Socket, request: IncomingMessage, response: ServerResponse): void {
    const connection = this.#connections.get(socket)
    if (!connection) return
    connection.running.set(response, { method: request.method ?? '', target: request.url ?? '', since: performance.now() })
    if (this.#drain) sayLast(connection)
    response.once('close', () => {
      connection.running.delete(response)
      connection.quietSince = performance.now()
    })
  }

  /**
   * Begins the drain. `lingerMs`: how long an idle connection may stay. Resolves when no connection is left;
   * `cut()` ends it before, `undo()` gives it up.
   */
  drain(lingerMs: number): Drain {
    this.#drain?.undo()
    const drain = new Drain(this.#server, this.#connections, this.#sessions, lingerMs, () => { this.#drain = undefined })
    this.#drain = drain
    return drain
  }
}

/** Says on the newest answer, and only there, that the connection ends with it: pipelined requests before it must all be answered. */
function sayLast(connection: Connection): void {
  const responses = [...connection.running.keys()].filter((response) => !response.headersSent)
  const newest = responses.pop()
  newest?.setHeader('Connection', 'close')
  for (const earlier of responses) if (earlier.getHeader('connection') === 'close') earlier.removeHeader('Connection')
}

function unsayLast(connection: Connection): void {
  for (const response of connection.running.keys()) {
    if (!response.headersSent && response.getHeader('connection') === 'close') response.removeHeader('Connection')
  }
}

/**
 * Two GOAWAYs (RFC 9113, section 6.8). The first names no last stream, since streams may begin until it is on its way, which is in the next turn of
 * the loop; the second names it. A stream that crosses the first is refused by the second, and its client may send it again (section 8.7).
 * No ping stands between: after any GOAWAY nghttp2 ignores new streams, and where there are none it reads nothing more, no answer to a ping either.
 */
function sayGoaway(session: http2.ServerHttp2Session): void {
  if (session.destroyed || session.closed) return
  session.goaway(0, 2 ** 31 - 1)
  setImmediate(() => {
    if (!session.destroyed && !session.closed) session.close()
  })
}

export class Drain {
  readonly result: Drained
  readonly over: Promise<void>
  readonly #server: net.Server
  readonly #connections: Map<net.Socket, Connection>
  readonly #sessions: Map<http2.ServerHttp2Session, Session>
  readonly #lingerMs: number
  readonly #forget: () => void
  readonly #closedByUs = new Set<net.Socket>()
  #resolve: () => void = () => undefined
  #timer: NodeJS.Timeout

  constructor(server: net.Server, connections: Map<net.Socket, Connection>, sessions: Map<http2.ServerHttp2Session, Session>, lingerMs: number, forget: () => void) {
    this.#server = server
    this.#connections = connections
    this.#sessions = sessions
    this.#lingerMs = lingerMs
    this.#forget = forget
    this.result = { open: connections.size, drained: 0, closedIdle: 0, cut: 0, requestsCut: [] }
    this.over = new Promise((resolve) => { this.#resolve = resolve })
    const now = performance.now()
    for (const connection of connections.values()) {
      sayLast(connection)
      connection.bytesRead = connection.wire.bytesRead
      connection.quietSince = now
    }
    this.#timer = setTimeout(() => { this.#closeIdle() }, lingerMs)
    // The connections that the kernel already gave to this process, and the streams that have arrived, appear within one turn of the loop.
    setImmediate(() => setImmediate(() => {
      for (const session of sessions.keys()) sayGoaway(session)
      this.#look()
    }))
  }

  #look(): void {
    if (this.#connections.size === 0) {
      clearTimeout(this.#timer)
      this.#resolve()
    }
  }

  /** A session that begins in the drain gets what it came for, its first streams, before it is told to go. */
  greet(session: http2.ServerHttp2Session): void {
    const tell = (): void => { sayGoaway(session) }
    session.once('stream', () => setImmediate(tell))
    setTimeout(tell, this.#lingerMs).unref()
  }

  ended(socket: net.Socket): void {
    if (!this.#closedByUs.delete(socket)) this.result.drained++
    this.#look()
  }

  /** Closes what has been idle for `linger`; looks again and again, since others become idle. */
  #closeIdle(): void {
    // The check phase comes right after the poll phase: what had arrived has been read by now.
    setImmediate(() => {
      const now = performance.now()
      const between = betweenRequests(this.#server)
      for (const [socket, connection] of this.#connections) {
        const { bytesRead } = connection.wire
        if (bytesRead !== connection.bytesRead) Object.assign(connection, { bytesRead, quietSince: now })
        else if (now - connection.quietSince >= this.#lingerMs && isIdle(socket, connection, between)) this.#close(socket, 'closedIdle')
      }
      if (this.#connections.size > 0) this.#timer = setTimeout(() => { this.#closeIdle() }, lookMs)
    })
  }

  #close(socket: net.Socket, as: 'closedIdle' | 'cut'): void {
    this.#closedByUs.add(socket)
    this.result[as]++
    socket.destroy()
  }

  /** At the deadline: closes what is idle and cuts the rest, naming the requests. */
  cut(): void {
    const now = performance.now()
    const between = betweenRequests(this.#server)
    const name = (request: Request): void => {
      this.result.requestsCut.push({ method: request.method, path: withoutQuery(request.target), ms: Math.round(now - request.since) })
    }
    for (const [socket, connection] of this.#connections) {
      for (const request of connection.running.values()) name(request)
      this.#close(socket, isIdle(socket, connection, between) ? 'closedIdle' : 'cut')
    }
    for (const [session, { streams }] of this.#sessions) {
      for (const request of streams.values()) name(request)
      session.destroy()
    }
  }

  /** The process serves again: answers stop saying that they are the last. */
  undo(): void {
    clearTimeout(this.#timer)
    for (const connection of this.#connections.values()) unsayLast(connection)
    this.#forget()
    this.#resolve()
  }
}

/** No request has begun and nothing is unread. A connection that never sent a byte is idle. */
function isIdle(socket: net.Socket, connection: Connection, between: ReadonlySet<net.Socket>): boolean {
  if (connection.protocol === 'http2' || connection.protocol === 'other') return false
  if (connection.running.size > 0 || !(between.has(socket) || socket.bytesRead === 0)) return false
  const fd = fdOf(socket)
  return fd === undefined || !native || native.pollReadable(fd, 0) === 0
}
