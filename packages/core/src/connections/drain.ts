/**
 * The drain of one server: every connection leaves. Where there is a successor that takes them they are moved, as soon as movability.ts
 * allows; what cannot move is drained politely: every client is told that its connection ends with the next answer, requests that run are
 * waited for, and what stays idle for `linger` is closed. What is left at the deadline is cut by name.
 *
 * It never calls server.close() or closeIdleConnections(): both cut clients that are just writing and responses that are not flushed, and
 * stop the header and body timeouts of the rest.
 */

import type { ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import type net from 'node:net'
import type { LoopBudget } from '../platform/loop-budget.js'
import { native } from '../platform/native.js'
import { hasParser, readingRequests } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { isEncoded, isEventStream } from '../platform/node/response.js'
import { left, type Deadline } from '../protocol/deadline.js'
import { pathOf } from '../protocol/report.js'
import type { Leaving, ConnectionSender } from './connection-sender.js'
import { inactivityMs, keepAliveMs, kindOf, type CanMove, type Connection, type Request, type Session } from './connection.js'
import { noCounts, nothingDrained, type Counts } from './drain-result.js'
import { farewellMs, retryMs, sayGoaway, sayLast, unsayLast } from './farewell.js'
import { letClientCloseFirst } from './hand-served.js'
import { hold, holdAfter, onRestOfRequest, release, watchAnswer } from './held-connections.js'
import { standingOf, unmovable } from './movability.js'

export interface DrainOptions {
  /** How long an idle connection that cannot move may stay. */
  readonly lingerMs: number
  readonly deadline: Deadline
  /** Where connections can go; absent where the successor takes none of this server's. */
  readonly route?: { readonly mover: ConnectionSender; readonly listener: string } | undefined
  /** Why there is no route although there is a successor. */
  readonly stays?: string | undefined
}

/** The connections of one server, as connection-tracker.ts keeps them. */
export interface Drainable {
  readonly server: net.Server
  readonly connections: Map<net.Socket, Connection>
  readonly sessions: Map<http2.ServerHttp2Session, Session>
  readonly canMove: CanMove | undefined
}

/**
 * A connection that cannot move yet, and that no event is known to make movable (the kernel has not taken all of an answer, half a head has
 * come), is looked at again: after the first of these, then after twice as long each time.
 */
const lookAgainMs = 50
const lookAgainAtMostMs = 800
/** How often a drain looks at most for connections that have been idle for `linger`. */
const lookIdleMs = 100
/** How many connections one turn of the loop closes: some milliseconds' worth of idle ones, and of those whose requests are cut. */
const closedAtOnce = 250
const cutAtOnce = 64
/** How long the cut may go on in turns: the deadline has passed. */
const cutMs = 1_000

export class Drain {
  readonly result = nothingDrained()
  readonly #of: Drainable
  readonly #lingerMs: number
  #route: DrainOptions['route']
  /** Why nothing moves, where that is so although there is a successor. */
  #stays: string | undefined
  readonly #forget: () => void
  readonly #closedByUs = new Set<net.Socket>()
  /** To be looked at, whether they can move. */
  readonly #candidates: Set<net.Socket>
  /** Those that are left alone for that many milliseconds before they are candidates again. */
  readonly #later = new Map<number, Set<net.Socket>>()
  /** Drained politely, and between two requests as far as is known: those that `linger` is for. */
  readonly #resting = new Set<net.Socket>()
  /** How often a connection was looked at. */
  looks = 0
  #cutting = false
  #whenEmpty: (() => void)[] = []
  #forced = false
  #undone = false
  #timer: NodeJS.Timeout
  readonly #farewell: NodeJS.Timeout

  constructor(of: Drainable, { lingerMs, deadline, route, stays }: DrainOptions, forget: () => void) {
    this.#of = of
    this.#lingerMs = lingerMs
    this.#route = route
    this.#stays = stays
    this.#forget = forget
    this.#candidates = new Set(route ? of.connections.keys() : [])
    this.result.open = of.connections.size
    for (const [socket, connection] of of.connections) {
      connection.bytesRead = connection.wire.bytesRead
      if (!route) this.#stay(socket, connection, this.#whyNot(socket, connection))
      else if (!connection.byHand) for (const response of connection.running.keys()) this.#watch(socket, connection, response)
    }
    this.#timer = setTimeout(() => { this.#closeIdle() }, lingerMs)
    const window = farewellMs(deadline)
    this.#farewell = setTimeout(() => { this.#endStreams(window) }, left(deadline) - window)
    // In a stop there is no successor to wait for, and whoever stops a process does not wait long.
    if (!route && stays === undefined) this.#endStreams(Math.min(window, 2_000))
    this.#farewell.unref()
    route?.mover.add(this.#leaving)
    // The connections that the kernel already gave to this process, and the streams that have arrived, appear within one turn of the loop.
    setImmediate(() => setImmediate(() => {
      if (this.#undone) return
      for (const session of of.sessions.keys()) sayGoaway(session)
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
    if (!this.isEmpty) return
    for (const resolve of this.#whenEmpty.splice(0)) resolve()
  }

  #count(kind: string): Counts {
    return (this.result.kinds[kind] ??= noCounts())
  }

  // ---- what the connections do ----

  /** A session that begins in the drain gets what it came for, its first streams, before it is told to go. */
  greet(session: http2.ServerHttp2Session): void {
    const tell = (): void => {
      if (!this.#undone) sayGoaway(session)
    }
    session.once('stream', () => setImmediate(tell))
    setTimeout(tell, this.#lingerMs).unref()
  }

  added(socket: net.Socket): void {
    this.result.open++
    const connection = this.#of.connections.get(socket)
    if (this.#route) this.#candidate(socket)
    // However long it has been idle where it comes from: only here does its client hear that it ends.
    else if (connection) this.#stay(socket, connection, this.#whyNot(socket, connection))
  }

  began(socket: net.Socket, connection: Connection, response: ServerResponse): void {
    connection.lookAgainMs = undefined
    if (!this.#moves(connection)) {
      this.#resting.delete(socket)
      this.#sayLast(socket, connection)
      return
    }
    this.#watch(socket, connection, response)
    // It pipelines, or was held in the middle of what was read. Else there is nothing to look at before the answer.
    if (connection.running.size > 1 || connection.held === true) this.#candidate(socket)
  }

  answered(socket: net.Socket, connection: Connection, response: ServerResponse): void {
    if (connection.running.size > 0) return
    if (!this.#moves(connection)) {
      this.#rest(socket, connection)
      return
    }
    holdAfter(socket, connection, response)
    onRestOfRequest(response, () => {
      if (!this.#moves(connection) || connection.running.size > 0) return
      hold(socket, connection)
      this.#candidate(socket)
    })
    this.#candidate(socket)
  }

  /** Its next request is not for this process. */
  #watch(socket: net.Socket, connection: Connection, response: ServerResponse): void {
    watchAnswer(socket, connection, response, () => this.#moves(connection))
  }

  #rest(socket: net.Socket, connection: Connection): void {
    if (connection.running.size > 0) return
    if (connection.served !== undefined || (connection.protocol !== 'http2' && connection.protocol !== 'other')) this.#resting.add(socket)
  }

  /** There is a secure connection over one that was here. */
  secured(socket: net.Socket, connection: Connection): void {
    if (connection.stays === undefined) return
    connection.quietSince = performance.now()
    this.#rest(socket, connection)
  }

  ended(socket: net.Socket, connection: Connection): void {
    this.#resting.delete(socket)
    this.#candidates.delete(socket)
    if (!this.#closedByUs.delete(socket)) this.#tally(socket, connection, 'drained')
    this.#look()
  }

  #tally(socket: net.Socket, connection: Connection, as: 'drained' | 'closedIdle' | 'cut'): void {
    this.result[as]++
    this.#count(kindOf(socket, connection))[as]++
    const { stays = '' } = connection
    if (stays !== '') this.result.stayed[stays] = (this.result.stayed[stays] ?? 0) + 1
  }

  /** The application has moved one. */
  moved(kind: string): void {
    this.result.moved++
    this.#count(kind).moved++
    this.#look()
  }

  // ---- moving ----

  /** Where there is no route. */
  #whyNot(socket: net.Socket, connection: Connection): string | undefined {
    return this.#stays && (unmovable(socket, connection) ?? this.#stays)
  }

  #moves(connection: Connection): boolean {
    return this.#route !== undefined && !this.#undone && connection.stays === undefined && !connection.byHand
  }

  #candidate(socket: net.Socket): void {
    if (!this.#route) return
    this.#candidates.add(socket)
    this.#route.mover.wake()
  }

  #lookAgain(socket: net.Socket, connection: Connection): void {
    const ms = Math.min(connection.lookAgainMs === undefined ? lookAgainMs : connection.lookAgainMs * 2, lookAgainAtMostMs)
    connection.lookAgainMs = ms
    let sockets = this.#later.get(ms)
    if (!sockets) {
      sockets = new Set()
      this.#later.set(ms, sockets)
      setTimeout(() => {
        const due = this.#later.get(ms) ?? []
        this.#later.delete(ms)
        for (const each of due) this.#candidate(each)
      }, ms).unref()
    }
    sockets.add(socket)
  }

  readonly #leaving = function* (this: Drain, budget: LoopBudget): Generator<Leaving> {
    const { server, connections } = this.#of
    const reading = readingOf(server)
    for (const socket of this.#candidates) {
      if (!this.#route) return
      this.#candidates.delete(socket)
      const connection = connections.get(socket)
      if (!connection || connection.stays !== undefined || connection.leaving !== undefined) continue
      this.looks++
      const standing = standingOf(socket, connection, reading)
      if (standing === 'now') {
        if (this.#of.canMove?.(socket) === false) this.#stay(socket, connection, 'vetoed by canMove')
        else yield this.#leave(socket, connection, this.#route)
      } else if (standing !== 'later') {
        this.#stay(socket, connection, standing.stays)
      } else {
        // What has begun to come is answered here. A client that does not wait for answers would never let its connection be idle.
        if (reading.has(socket)) release(socket, connection)
        else if (connection.running.size > 1) hold(socket, connection)
        if (connection.running.size === 0) this.#lookAgain(socket, connection)
      }
      if (budget.isSpent) return
    }
  }.bind(this)

  /** Holds it still, in the same turn of the loop in which the rule was asked. */
  #leave(socket: net.Socket, connection: Connection, { listener }: NonNullable<DrainOptions['route']>): Leaving {
    const now = performance.now()
    const { server } = this.#of
    const leaving = { kind: 'http', sent: false }
    hold(socket, connection, true)
    connection.leaving = leaving
    socket.setTimeout(0)
    socket.cork()
    const fresh = connection.requests === 0 && socket.bytesRead === 0
    return {
      fd: () => fdOf(socket),
      about: {
        kind: 'http',
        listener,
        ageMs: Math.round(now - connection.openedAt),
        ...(!fresh && { idleMs: Math.max(0, Math.round(now - connection.quietSince)) }),
        requests: connection.requests
      },
      sent: () => { leaving.sent = true },
      left: () => {
        if (!this.#of.connections.delete(socket)) return
        this.moved('http')
        socket.destroy()
      },
      back: (refused) => {
        connection.leaving = undefined
        if (socket.destroyed) return
        // Counted at the deadline already, as one on its way.
        if (!this.#of.connections.has(socket)) {
          socket.destroy()
          return
        }
        socket.uncork()
        const idleMs = fresh ? undefined : keepAliveMs(server)
        connection.timerInherited = idleMs !== undefined
        socket.setTimeout(idleMs === undefined ? inactivityMs(server) : Math.max(1, idleMs - (performance.now() - connection.quietSince)))
        release(socket, connection)
        // Others have ended the move meanwhile.
        if (!this.#route && !this.#undone) this.#stay(socket, connection, this.#whyNot(socket, connection))
        else if (refused === true && !this.#undone) this.#stay(socket, connection, 'given back by the successor')
        else if (!this.#undone) this.#lookAgain(socket, connection)
      }
    }
  }

  /** It does not move: from now on it is drained politely. */
  #stay(socket: net.Socket, connection: Connection, reason: string | undefined): void {
    connection.stays = reason ?? ''
    release(socket, connection)
    connection.quietSince = performance.now()
    this.#sayLast(socket, connection)
    this.#rest(socket, connection)
  }

  #sayLast(socket: net.Socket, connection: Connection): void {
    if (connection.byHand) letClientCloseFirst(connection.served?.socket ?? socket)
    sayLast(connection)
  }

  /** Nothing moves any more: those that are left are drained politely. */
  stopMoving(reason: string): void {
    if (!this.#route) return
    this.#route.mover.remove(this.#leaving)
    this.#route = undefined
    this.#stays = reason
    this.#candidates.clear()
    for (const [socket, connection] of this.#of.connections) {
      if (connection.stays === undefined && connection.leaving === undefined) this.#stay(socket, connection, reason)
    }
  }

  // ---- the polite way, and the end ----

  /** Closes what has been idle for `linger`, and comes again when the next may have been. */
  #closeIdle(): void {
    // The check phase comes right after the poll phase: what had arrived has been read by now.
    setImmediate(() => {
      if (this.#undone) return
      const now = performance.now()
      const reading = readingOf(this.#of.server)
      let next = now + this.#lingerMs
      let closed = 0
      for (const socket of this.#resting) {
        if (closed === closedAtOnce) break
        const connection = this.#of.connections.get(socket)
        if (!connection || socket.destroyed) {
          this.#resting.delete(socket)
          continue
        }
        if (connection.leaving !== undefined) continue
        const due = connection.quietSince + this.#lingerMs
        if (due > now) {
          next = Math.min(next, due)
          continue
        }
        this.looks++
        const { bytesRead } = connection.wire
        if (bytesRead !== connection.bytesRead) Object.assign(connection, { bytesRead, quietSince: now })
        // An upgraded one never is idle; one that a request is coming on is in nobody's way, and rests again after its answer.
        else if (!isBetween(socket, connection, reading)) this.#resting.delete(socket)
        else if (hasUnread(socket)) next = now
        else {
          this.#close(socket, connection, 'closedIdle')
          closed++
        }
      }
      // Also where there are none: some may still come from a generation before.
      if (!this.#forced) this.#timer = setTimeout(() => { this.#closeIdle() }, closed === closedAtOnce ? 1 : Math.max(lookIdleMs, next - now))
    })
  }

  #close(socket: net.Socket, connection: Connection, as: 'closedIdle' | 'cut'): void {
    this.#closedByUs.add(socket)
    this.#tally(socket, connection, as)
    connection.served?.socket.destroy()
    socket.destroy()
  }

  /** Server-sent events end as their clients expect an end, with a hint when to come back. */
  #endStreams(windowMs: number): void {
    if (this.#undone) return
    for (const { running } of this.#of.connections.values()) {
      for (const response of running.keys()) {
        if (!isEventStream(response)) continue
        setTimeout(() => {
          if (this.#undone || response.writableEnded || response.destroyed) return
          // Compressed, it would be no part of the stream.
          if (!isEncoded(response)) response.write(`retry: ${retryMs}\n\n`)
          response.end()
        }, Math.random() * windowMs * 0.8).unref()
      }
    }
  }

  /**
   * At the deadline: closes what is idle and cuts the rest, naming the requests; some in each turn of the loop, in which the others are
   * still answered.
   */
  cut(): void {
    if (this.#cutting) return
    this.#cutting = true
    this.#cutSome([...this.#of.connections.keys()], performance.now() + cutMs)
  }

  #cutSome(sockets: readonly net.Socket[], until: number): void {
    if (this.#undone) return
    const now = performance.now()
    const count = now < until ? cutAtOnce : sockets.length
    const reading = readingOf(this.#of.server)
    for (const socket of sockets.slice(0, count)) this.#cutOne(socket, reading, now)
    const rest = sockets.length > count ? sockets.slice(count) : [...this.#of.connections.keys()].filter((socket) => !socket.destroyed)
    if (rest.length > 0) {
      setImmediate(() => { this.#cutSome(rest, until) })
      return
    }
    for (const [session, { streams }] of this.#of.sessions) {
      for (const request of streams.values()) this.#nameCut(request, now)
      session.destroy()
    }
    this.#forced = true
    this.#cutting = false
    // Whatever a destroyed socket still waits for.
    setImmediate(() => { this.#look() })
  }

  #cutOne(socket: net.Socket, reading: Reading, now: number): void {
    const connection = this.#of.connections.get(socket)
    if (!connection || socket.destroyed) return
    // On its way at this moment: the successor has it, or takes it as soon as it can.
    if (connection.leaving?.sent === true) {
      this.#of.connections.delete(socket)
      this.moved(connection.leaving.kind)
      return
    }
    // Held until the kernel takes what was written to it before.
    if (connection.leaving) connection.stays = 'its client does not read'
    for (const request of connection.running.values()) this.#nameCut(request, now)
    this.#close(socket, connection, isBetween(socket, connection, reading) && !hasUnread(socket) ? 'closedIdle' : 'cut')
  }

  #nameCut({ method, target, since }: Request, now: number): void {
    this.result.requestsCut.push({ method, path: pathOf(target), ms: Math.round(now - since) })
  }

  /** Nothing comes any more: it keeps nothing alive. */
  end(): void {
    this.#forced = true
    clearTimeout(this.#timer)
    clearTimeout(this.#farewell)
  }

  /** The process serves again: answers stop saying that they are the last. */
  undo(): void {
    this.#undone = true
    clearTimeout(this.#timer)
    clearTimeout(this.#farewell)
    this.#route?.mover.remove(this.#leaving)
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

type Reading = Pick<ReadonlySet<net.Socket>, 'has'>

/** Node's list is read when the first one is asked for, and holds for this turn of the loop. Where there is none, all may be reading. */
function readingOf(server: net.Server): Reading {
  let listed: ReadonlySet<net.Socket> | 'none' | undefined
  return {
    has(socket) {
      listed ??= readingRequests(server) ?? 'none'
      return listed === 'none' || listed.has(socket)
    }
  }
}

/** No request has begun. A connection that never sent a byte is idle. */
function isBetween(socket: net.Socket, { protocol, running, served, wire, bytesAnswered }: Connection, reading: Reading): boolean {
  if (served) return running.size === 0 && hasParser(served.socket) && wire.bytesRead === bytesAnswered
  if (protocol === 'http2' || protocol === 'other' || running.size > 0) return false
  return socket.bytesRead === 0 || (hasParser(socket) && !reading.has(socket))
}

/** Something waits in the kernel. */
function hasUnread(socket: net.Socket): boolean {
  const fd = fdOf(socket)
  return fd !== undefined && native !== undefined && native.pollReadable(fd, 0) !== 0
}

/** Resolves when none of them has a connection left; at the deadline it cuts what is left. */
export async function drainAll(drains: readonly Drain[], deadline: Deadline): Promise<void> {
  const timer = deadline.clock.setTimeout(() => { for (const drain of drains) drain.cut() }, left(deadline))
  do await Promise.all(drains.map((drain) => drain.empty()))
  while (!drains.every((drain) => drain.isEmpty))
  deadline.clock.clear(timer)
}
