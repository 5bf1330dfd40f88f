/**
 * The polite drain of one server: tells every client that its connection ends with the next answer, waits for the requests that run,
 * and closes what stays idle for `linger`. What is left at the deadline is cut by name.
 *
 * It never calls server.close() or closeIdleConnections(): both cut clients that are just writing, and stop the header and body timeouts of
 * the rest.
 */

import type { ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import type net from 'node:net'
import { left, type Deadline } from './channel.js'
import type { Connection, Request, Session } from './connections.js'
import { native } from './native.js'
import { betweenRequests, fdOf } from './private.js'
import type { CutRequest } from './report.js'

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

const withoutQuery = (target: string): string => target.split('?', 1)[0] ?? target

/** Says on the newest answer, and only there, that the connection ends with it: pipelined requests before it must all be answered. */
export function sayLast(connection: Connection): void {
  const newest = [...connection.running.keys()].at(-1)
  for (const response of connection.running.keys()) if (response !== newest) unmark(response)
  if (!newest || newest.headersSent || newest.getHeader('connection') === 'close') return
  newest.setHeader('Connection', 'close')
  marked.add(newest)
}

/** The answers on which the drain, and not the application, said so. */
const marked = new WeakSet<ServerResponse>()

function unmark(response: ServerResponse): void {
  if (marked.delete(response) && !response.headersSent) response.removeHeader('Connection')
}

function unsayLast(connection: Connection): void {
  for (const response of connection.running.keys()) unmark(response)
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
  #undone = false
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
      if (this.#undone) return
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
    const tell = (): void => {
      if (!this.#undone) sayGoaway(session)
    }
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
      if (this.#undone) return
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
    // Whatever a destroyed socket still waits for.
    setImmediate(() => { this.#resolve() })
  }

  /** The process serves again: answers stop saying that they are the last. */
  undo(): void {
    this.#undone = true
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

/** Resolves when all are over; at the deadline it cuts what is left. */
export async function drainAll(drains: readonly Drain[], deadline: Deadline): Promise<void> {
  const timer = setTimeout(() => { for (const drain of drains) drain.cut() }, left(deadline))
  await Promise.all(drains.map((drain) => drain.over))
  clearTimeout(timer)
}

export function sum(results: readonly Drained[]): Drained {
  const total: Drained = { open: 0, drained: 0, closedIdle: 0, cut: 0, requestsCut: [] }
  for (const result of results) {
    for (const key of ['open', 'drained', 'closedIdle', 'cut'] as const) total[key] += result[key]
    total.requestsCut.push(...result.requestsCut)
  }
  return total
}
