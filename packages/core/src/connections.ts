/**
 * The connections of one server, and what each is doing. What is done about them in a drain stands in drain.ts.
 */

import { subscribe } from 'node:diagnostics_channel'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import https from 'node:https'
import type net from 'node:net'
import tls from 'node:tls'
import { Drain, sayLast } from './drain.js'
import { plainSocketOf } from './private.js'

export interface Request {
  readonly method: string
  readonly target: string
  readonly since: number
}

/** `handshake`: under TLS, before there is a secure connection. Only in HTTP/1 and there can idle be told from busy. */
export type Protocol = 'http1' | 'http2' | 'handshake' | 'other'

export interface Connection {
  /** Requests whose response is not flushed, in order of arrival. */
  readonly running: Map<ServerResponse, Request>
  readonly protocol: Protocol
  /** The socket that touches the network: under TLS, bytes arrive before anything can be read from them. */
  readonly wire: net.Socket
  bytesRead: number
  /** When the last response was out, or bytes were last seen to have come in a drain. */
  quietSince: number
}

export interface Session {
  readonly streams: Map<http2.ServerHttp2Stream, Request>
}

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
   * Begins the drain. `lingerMs`: how long an idle connection may stay. Its `over` resolves when no connection is left; `cut()` ends it before,
   * `undo()` gives it up.
   */
  drain(lingerMs: number): Drain {
    this.#drain?.undo()
    const drain = new Drain(this.#server, this.#connections, this.#sessions, lingerMs, () => { this.#drain = undefined })
    this.#drain = drain
    return drain
  }
}
