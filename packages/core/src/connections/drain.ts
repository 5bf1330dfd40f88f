/**
 * The drain of one server: every connection leaves. Connections that can move go to the successor (departures.ts). The others are drained
 * politely: every client is told that its connection ends with the next answer, running requests are waited for, and what stays idle for
 * `linger` is closed. What is left at the deadline is cut, and its requests are named.
 *
 * It never calls server.close() or closeIdleConnections(): both cut clients that are just writing and responses that are not flushed, and
 * stop the header and body timeouts of the rest.
 */

import type { ServerResponse } from 'node:http'
import type net from 'node:net'
import { left, type Deadline } from '../protocol/deadline.js'
import { pathOf } from '../protocol/report.js'
import { kindOf, type Connection, type Request, type Session, type TrackedServer } from './connection.js'
import { Departures, type Route } from './departures.js'
import { cutInTurns } from './cut-in-turns.js'
import { noCounts, nothingDrained } from './drain-result.js'
import { endingsOf, farewellMs, sayGoaway, sayLast, unsayLast } from './farewell.js'
import { letClientCloseFirst } from './hand-served.js'
import { release } from './held-connections.js'
import { hasUnread, isBetween, readingOf, type SocketSet } from './idle.js'
import { areLeft, isLeft, type ProgramsEnd } from './left-to-program.js'
import { keepHere, unmovable } from './movability.js'
import { stayText, type StayReason } from './stay-reasons.js'

export interface DrainOptions extends ProgramsEnd {
  /** How long an idle connection that cannot move may stay. */
  readonly lingerMs: number
  readonly deadline: Deadline
  readonly route?: Route | undefined
  /** Why there is no route: `noSuccessor` by default, which is a stop. */
  readonly stays?: StayReason
}

/** A drain looks for connections that have been idle for `linger` this often at most. */
const lookIdleMs = 100
/** How many connections one turn of the loop closes. */
const closedAtOnce = 250
/** Event streams end within this time in a stop: a stop should not take long. */
const stopFarewellMs = 2_000

export class Drain {
  readonly result = nothingDrained()
  /** How often a connection was looked at. */
  looks = 0
  /** What the program itself is to end. */
  readonly left = new Set<net.Socket>()
  readonly #of: TrackedServer
  readonly lingerMs: number
  readonly #forget: () => void
  /** Undefined where nothing moves, or nothing any more. */
  #departures: Departures | undefined
  /** Why connections stay that could move otherwise. */
  #stays: StayReason
  readonly #closedByUs = new Set<net.Socket>()
  /** Drained politely, and between two requests as far as is known: `linger` is for these. */
  readonly #resting = new Set<net.Socket>()
  #whenEmpty: (() => void)[] = []
  /** Sessions that stay are told to go at once. */
  #goodbyes = false
  #cutting = false
  /** In a stop: what is for the program alone is left to it as soon as nothing else is here. */
  #leaves = false
  #forced = false
  #undone = false
  #timer: NodeJS.Timeout
  readonly #farewell: NodeJS.Timeout
  readonly #stopping: NodeJS.Timeout | undefined
  readonly #options: DrainOptions

  constructor(of: TrackedServer, options: DrainOptions, forget: () => void) {
    const { lingerMs, deadline, route, stays = 'noSuccessor' } = this.#options = options
    this.#of = of
    this.lingerMs = lingerMs
    this.#stays = stays
    this.#forget = forget
    this.result.open = of.connections.size
    this.#timer = setTimeout(() => { this.#closeIdle() }, lingerMs)
    const windowMs = farewellMs(deadline)
    this.#farewell = setTimeout(() => {
      this.#endStreams(windowMs)
      this.#endSessions()
    }, left(deadline) - windowMs).unref()
    for (const [socket, connection] of of.connections) {
      this.#noteTls(socket, connection)
      if (!route) this.stay(socket, connection)
    }
    if (route) this.#departures = new Departures(of, route, this)
    else if (stays === 'noSuccessor') {
      const stopMs = Math.min(windowMs, stopFarewellMs)
      this.#endStreams(stopMs)
      this.#stopping = setInterval(() => {
        this.#endStreams(stopMs) // a client may come back on the connection that it has
        this.#leaves = true
        this.#look()
      }, stopFarewellMs).unref()
    }
    // The connections that the kernel already gave to this process, and the streams that have arrived, appear within one turn of the loop.
    setImmediate(() => setImmediate(() => {
      if (this.#undone) return
      this.#goodbyes = true
      for (const known of of.sessions.values()) if (!known.connection || !this.#mayMove(known.connection)) sayGoaway(known)
      this.#look()
    }))
  }

  get isEmpty(): boolean {
    return this.#forced || this.#undone || this.#of.connections.size === 0
  }

  /** Resolves when no connection is left; more may come later from a generation before. */
  async empty(): Promise<void> {
    // What the kernel already gave to this process appears within one turn of the loop.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    if (!this.isEmpty) await new Promise<void>((resolve) => { this.#whenEmpty.push(resolve) })
  }

  #look(): void {
    const { connections } = this.#of
    if (this.#leaves && areLeft(connections, this.#options)) for (const each of connections) this.#leave(...each)
    if (this.isEmpty) for (const resolve of this.#whenEmpty.splice(0)) resolve()
  }

  /** Not where nothing moves, and once it is known to stay. */
  #mayMove(connection: Connection): boolean {
    if (this.#departures === undefined || connection.stays !== undefined || connection.protocol !== 'http2') return false
    return connection.session?.session.encrypted !== true || connection.tlsMoves === true
  }

  #noteTls(socket: net.Socket, connection: Connection): void {
    if (!connection.served && connection.wire !== socket) connection.bytesAnswered = connection.wire.bytesRead
    const { route } = this.#options
    connection.tlsMoves = route !== undefined && (connection.protocol !== 'http2' || route.http2)
  }

  // ---- what the connections do ----

  /** A session that begins in the drain gets its first streams, which it came for, before it is told to go. */
  greet(known: Session): void {
    const { session, connection } = known
    if (connection && this.#mayMove(connection)) return
    const tell = (): void => { if (!this.#undone) sayGoaway(known) }
    session.once('stream', () => setImmediate(tell))
    setTimeout(tell, this.lingerMs).unref()
  }

  added(socket: net.Socket): void {
    this.result.open++
    const connection = this.#of.connections.get(socket)
    if (connection) this.#noteTls(socket, connection)
    if (this.#departures) this.#departures.added(socket)
    // It may have been idle for long where it comes from, but only now does its client hear that it ends.
    else if (connection) this.stay(socket, connection)
  }

  /** The last stream of a session of HTTP/2 has ended. */
  streamsEnded(socket: net.Socket): void {
    this.#departures?.streamsEnded(socket)
  }

  began(socket: net.Socket, connection: Connection, response: ServerResponse): void {
    if (this.#departures?.began(socket, connection, response)) return
    this.#resting.delete(socket)
    this.#sayLast(socket, connection)
  }

  answered(socket: net.Socket, connection: Connection, response: ServerResponse): void {
    if (connection.running.length > 0 || this.#departures?.answered(socket, connection, response)) return
    this.#rest(socket, connection)
  }

  /** A handshake is over: the secure connection takes the place of the plain one. */
  secured(socket: net.Socket, connection: Connection): void {
    this.#noteTls(socket, connection)
    if (connection.stays === undefined) return this.#departures?.added(socket)
    connection.quietSince = performance.now()
    this.#rest(socket, connection)
  }

  ended(socket: net.Socket, connection: Connection): void {
    this.#resting.delete(socket)
    this.#departures?.ended(socket)
    if (!this.#closedByUs.delete(socket)) this.#count(socket, connection, 'drained')
    this.#look()
  }

  /** The drain or the application has moved a connection. */
  moved(kind: string): void {
    this.result.moved++
    ;(this.result.kinds[kind] ??= noCounts()).moved++
    this.#look()
  }

  #count(socket: net.Socket, connection: Connection, as: 'drained' | 'closedIdle' | 'cut'): void {
    this.result[as]++
    ;(this.result.kinds[kindOf(socket, connection)] ??= noCounts())[as]++
    if (connection.stays === undefined || connection.stays === 'noSuccessor') return
    const reason = stayText(connection.stays)
    this.result.stayed[reason] = (this.result.stayed[reason] ?? 0) + 1
  }

  // ---- what stays ----

  /** The connection does not move: from now on it is drained politely. Without `reason`: because nothing moves. */
  stay(socket: net.Socket, connection: Connection, reason?: StayReason): void {
    // A connection may come back from the successor when the process serves again.
    if (this.#undone) return
    const always = this.#stays === 'noSuccessor' ? undefined : unmovable(socket, connection)
    keepHere(socket, connection, reason ?? always ?? this.#stays)
    release(socket, connection)
    this.#departures?.stayed(socket)
    this.#sayGoodbye(connection)
    connection.quietSince = performance.now()
    connection.bytesRead = connection.wire.bytesRead
    this.#sayLast(socket, connection)
    this.#rest(socket, connection)
  }

  /** Not in this turn: where the successor has ended, this process serves again at its end. */
  #sayGoodbye(connection: Connection): void {
    const { session } = connection
    if (!session || !this.#goodbyes) return
    setImmediate(() => setImmediate(() => { if (!this.#undone && connection.stays !== undefined) sayGoaway(session) }))
  }

  #sayLast(socket: net.Socket, connection: Connection): void {
    if (connection.byHand) letClientCloseFirst(connection.served?.socket ?? socket)
    sayLast(connection)
  }

  #rest(socket: net.Socket, connection: Connection): void {
    if (connection.running.length > 0) return
    if (connection.served !== undefined || (connection.protocol !== 'http2' && connection.protocol !== 'other')) this.#resting.add(socket)
  }

  /** Nothing moves any more: the connections that are left are drained politely. */
  stopMoving(reason: StayReason): void {
    if (!this.#departures) return
    this.#departures.end()
    this.#departures = undefined
    this.#stays = reason
    for (const [socket, connection] of this.#of.connections) {
      if (connection.stays === undefined && connection.leaving === undefined) this.stay(socket, connection, reason)
    }
  }

  /** Closes what has been idle for `linger`, and comes again when the next may have been. */
  #closeIdle(): void {
    // The check phase comes right after the poll phase: what had arrived has been read by now.
    setImmediate(() => {
      if (this.#undone) return
      const now = performance.now()
      const reading = readingOf(this.#of.server)
      let next = now + this.lingerMs
      let closed = 0
      for (const socket of this.#resting) {
        if (closed === closedAtOnce) break
        const connection = this.#of.connections.get(socket)
        if (!connection || socket.destroyed) {
          this.#resting.delete(socket)
          continue
        }
        if (connection.leaving !== undefined) continue
        const due = connection.quietSince + this.lingerMs
        if (due > now) {
          next = Math.min(next, due)
          continue
        }
        this.looks++
        const { bytesRead } = connection.wire
        if (bytesRead !== connection.bytesRead) Object.assign(connection, { bytesRead, quietSince: now })
        // An upgraded connection never is idle. One on which a request is coming rests again after its answer.
        else if (!isBetween(socket, connection, reading)) this.#resting.delete(socket)
        else if (hasUnread(socket)) next = now
        else {
          this.#close(socket, connection, 'closedIdle')
          closed++
        }
      }
      // Also where there are none: some may still come from a generation before.
      if (this.#forced) return
      this.#timer = setTimeout(() => { this.#closeIdle() }, closed === closedAtOnce ? 1 : Math.max(lookIdleMs, next - now))
    })
  }

  #close(socket: net.Socket, connection: Connection, as: 'closedIdle' | 'cut'): void {
    this.#closedByUs.add(socket)
    this.#count(socket, connection, as)
    connection.served?.socket.destroy()
    socket.destroy()
  }

  /** Server-sent events end, at moments of their own. */
  #endStreams(windowMs: number): void {
    if (this.#undone) return
    for (const end of endingsOf(this.#of)) setTimeout(() => { if (!this.#undone) end() }, Math.random() * windowMs * 0.8).unref()
  }

  /** Sessions of HTTP/2 that always had a stream. */
  #endSessions(): void {
    if (this.#undone) return
    for (const [socket, connection] of this.#of.connections) {
      if (this.#mayMove(connection) && connection.leaving === undefined) this.stay(socket, connection, 'neverAtRest')
    }
  }

  /** Its end is the program's business, which hears the signal now. */
  #leave(socket: net.Socket, connection: Connection): void {
    keepHere(socket, connection, 'leftToProgram')
    this.#count(socket, connection, 'drained')
    if (this.#of.connections.delete(socket)) this.left.add(socket)
  }

  // ---- the end ----

  /**
   * At the deadline: closes what is idle and cuts the rest, naming the requests; some in each turn of the loop, in which the others are
   * still answered.
   */
  cut(): void {
    if (this.#cutting) return
    this.#cutting = true
    cutInTurns(() => [...this.#of.connections.keys()].filter((socket) => !socket.destroyed), (batch) => {
      if (this.#undone) return false
      const [now, reading] = [performance.now(), readingOf(this.#of.server)]
      for (const socket of batch) this.#cutOne(socket, reading, now)
      return true
    }, () => {
      for (const known of this.#of.sessions.values()) {
        this.#nameStreams(known, performance.now())
        known.session.destroy()
      }
      this.#forced = true
      this.#cutting = false
      // The sockets that were destroyed emit 'close' first.
      setImmediate(() => { this.#look() })
    })
  }

  #cutOne(socket: net.Socket, reading: SocketSet, now: number): void {
    const connection = this.#of.connections.get(socket)
    if (!connection || socket.destroyed) return
    if (connection.leaving === undefined && isLeft(socket, connection, this.#options)) return this.#leave(socket, connection)
    // On its way at this moment: the successor has it, or takes it as soon as it can.
    if (connection.leaving?.sent === true) {
      this.#of.connections.delete(socket)
      if (connection.session) this.#of.sessions.delete(connection.session.session)
      return this.moved(connection.leaving.kind)
    }
    // Held until the kernel takes what was written to it before.
    if (connection.leaving) keepHere(socket, connection, 'clientDoesNotRead')
    for (const request of connection.running) this.#nameCut(request, now)
    if (connection.session) this.#nameStreams(connection.session, now)
    this.#close(socket, connection, isBetween(socket, connection, reading) && !hasUnread(socket) ? 'closedIdle' : 'cut')
  }

  /** Now: the session ends with its socket, before the next turn of the loop. */
  #nameStreams({ streams }: Session, now: number): void {
    for (const request of streams.values()) this.#nameCut(request, now)
    streams.clear()
  }

  #nameCut({ method, target, since }: Request, now: number): void {
    this.result.requestsCut.push({ method, path: pathOf(target), ms: Math.round(now - since) })
  }

  /** Nothing comes any more: it keeps nothing alive. */
  end(): void {
    this.#forced = true
    clearTimeout(this.#timer)
    clearTimeout(this.#farewell)
    clearInterval(this.#stopping)
  }

  /** The process serves again: answers stop saying that they are the last. */
  undo(): void {
    this.#undone = true
    clearTimeout(this.#timer)
    clearTimeout(this.#farewell)
    clearInterval(this.#stopping)
    this.#departures?.end()
    for (const [socket, connection] of this.#of.connections) {
      unsayLast(connection)
      // What is on its way stays held until the successor has answered.
      if (connection.leaving === undefined) release(socket, connection)
      connection.stays = undefined
    }
    this.#forget()
    this.#look()
  }
}

/** Resolves when none of the drains has a connection left; at the deadline it cuts what is left. */
export async function drainAll(drains: readonly Drain[], deadline: Deadline): Promise<void> {
  const timer = deadline.clock.setTimeout(() => { for (const drain of drains) drain.cut() }, left(deadline))
  do await Promise.all(drains.map((drain) => drain.empty()))
  while (!drains.every((drain) => drain.isEmpty))
  deadline.clock.clear(timer)
}
