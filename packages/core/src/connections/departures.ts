/**
 * The connections of one drain that can move: which of them are looked at and when, and how one leaves. It is held still in the same turn
 * of the loop in which movability.ts said `now`. Then the successor takes it, or it goes on here as if nothing had happened.
 */

import type { ServerResponse } from 'node:http'
import type net from 'node:net'
import type { LoopBudget } from '../platform/loop-budget.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { rememberClient } from '../platform/node/tls-handle.js'
import type { ConnectionSender, OutgoingConnection } from './connection-sender.js'
import { kindOf, type Connection, type TrackedServer } from './connection.js'
import { hold, holdAfter, onRestOfRequest, release, watchAnswer } from './held-connections.js'
import { readingOf } from './idle.js'
import { idleTimes, stopIdle, type IdleTimes } from './keep-alive.js'
import { movabilityOf } from './movability.js'
import { SessionDeparture } from './session-departure.js'
import type { StayReason } from './stay-reasons.js'
import { cargoOf, recordsOf, type TlsCargo } from './tls-cargo.js'

/** Where connections can go. `http2`: sessions of HTTP/2, too. */
export interface Route {
  readonly http2: boolean
  readonly mover: ConnectionSender
  readonly listener: string
}

/** The drain. */
export interface DepartureSide {
  /** How often a connection was looked at. */
  looks: number
  /** How long it waits for a client that says nothing. */
  readonly lingerMs: number
  moved(kind: string): void
  /** Without `reason`: because nothing moves. */
  stay(socket: net.Socket, connection: Connection, reason?: StayReason): void
}

/**
 * A connection may become movable without any event: when the kernel takes the rest of an answer, or the rest of a head comes. It is
 * checked again after this time, and then after twice as long each time, up to `lookAgainAtMostMs`.
 */
const lookAgainMs = 50
const lookAgainAtMostMs = 800
/** A turn of the loop looks at so many at least, which takes half a millisecond: on a slow machine a turn costs more than that. */
const leastInTurn = 32

/** Its client is the successor's. A handler that goes on may still ask who it was. */
function letGo(this: net.Socket): net.Socket {
  rememberClient(this)
  return this.destroy()
}

/** A program may call `server.close()` at 'draining', which would close the idle connections that are about to move. */
function keepIdle(server: net.Server): () => void {
  const name = 'closeIdleConnections'
  if (!(name in server)) return () => undefined
  const own = Object.getOwnPropertyDescriptor(server, name)
  Object.defineProperty(server, name, { value: () => undefined, configurable: true, writable: true })
  return () => {
    Reflect.deleteProperty(server, name)
    if (own) Object.defineProperty(server, name, own)
  }
}

export class Departures {
  readonly #of: TrackedServer
  readonly #route: Route
  readonly #drain: DepartureSide
  /** To be looked at. */
  readonly #candidates: Set<net.Socket>
  readonly #sessions = new Map<net.Socket, SessionDeparture>()
  readonly #mayCloseIdle: () => void
  #over = false

  constructor(of: TrackedServer, route: Route, drain: DepartureSide) {
    this.#of = of
    this.#route = route
    this.#drain = drain
    this.#mayCloseIdle = keepIdle(of.server)
    this.#candidates = new Set(of.connections.keys())
    for (const [socket, connection] of of.connections) {
      if (!connection.byHand) for (const { response } of connection.running) this.#watch(socket, connection, response)
    }
    route.mover.add(this.#source)
  }

  /** The session of HTTP/2 on this connection, as far as it can move. `later`: half a record of TLS has come, or waits to be written. */
  #sessionOf(socket: net.Socket, { protocol, session, wire }: Connection): SessionDeparture | 'later' | undefined {
    const known = this.#sessions.get(socket)
    // Another server's connection may have been given to HTTP/2.
    if (known || protocol !== 'http2' || !session || session.session.destroyed) return known
    const records = wire === socket || session.continued || !this.#route.http2 ? undefined : recordsOf(session.session, socket)
    if (records === 'later') return 'later'
    if (records === 'never' || (wire !== socket && !this.#route.http2)) return undefined
    const departure = new SessionDeparture(session, socket, this.#drain.lingerMs, () => { this.added(socket) }, records)
    this.#sessions.set(socket, departure)
    return departure
  }

  /** Nothing moves any more. What is on its way may still come back. */
  end(): void {
    if (!this.#over) this.#mayCloseIdle()
    this.#over = true
    this.#candidates.clear()
    for (const socket of this.#sessions.keys()) if (this.#of.connections.get(socket)?.leaving === undefined) this.stayed(socket)
    this.#route.mover.remove(this.#source)
  }

  #moves(connection: Connection): boolean {
    return !this.#over && connection.stays === undefined && !connection.byHand
  }

  added(socket: net.Socket): void {
    if (this.#over) return
    this.#candidates.add(socket)
    this.#route.mover.wake()
  }

  streamsEnded(socket: net.Socket): void {
    this.#sessions.get(socket)?.rest()
    this.added(socket)
  }

  /** It does not move. */
  stayed(socket: net.Socket): void {
    this.#sessions.get(socket)?.end()
    this.#sessions.delete(socket)
  }

  ended(socket: net.Socket): void {
    this.#sessions.delete(socket)
    this.#candidates.delete(socket)
  }

  /** False where this connection does not move. */
  began(socket: net.Socket, connection: Connection, response: ServerResponse): boolean {
    connection.lookAgainMs = undefined
    if (!this.#moves(connection)) return false
    this.#watch(socket, connection, response)
    // The client pipelines, or the connection was held in the middle of what was read. Otherwise nothing can be decided before the answer.
    if (connection.running.length > 1 || connection.held === true) this.added(socket)
    return true
  }

  /** False where this connection does not move. */
  answered(socket: net.Socket, connection: Connection, response: ServerResponse): boolean {
    if (!this.#moves(connection)) return false
    holdAfter(socket, connection, response)
    stopIdle(socket, connection)
    onRestOfRequest(response, () => {
      if (!this.#moves(connection) || connection.running.length > 0) return
      hold(socket, connection)
      stopIdle(socket, connection)
      this.added(socket)
    })
    this.added(socket)
    return true
  }

  /** The next request after this answer is the successor's. */
  #watch(socket: net.Socket, connection: Connection, response: ServerResponse): void {
    watchAnswer(socket, connection, response, () => this.#moves(connection))
  }

  readonly #source = function* (this: Departures, budget: LoopBudget): Generator<OutgoingConnection> {
    const { server, connections, canMove } = this.#of
    const reading = readingOf(server)
    let looked = 0
    for (const socket of this.#candidates) {
      this.#candidates.delete(socket)
      looked++
      const connection = connections.get(socket)
      if (!connection || connection.stays !== undefined || connection.leaving !== undefined) continue
      this.#drain.looks++
      const session = this.#sessionOf(socket, connection)
      if (session === 'later') {
        this.#lookAgain(socket, connection)
        continue
      }
      const movability = session?.movability() ?? movabilityOf(socket, connection, reading)
      if (movability === 'now') {
        if (canMove?.(socket) === false) this.#drain.stay(socket, connection, 'vetoed')
        else {
          const cargo = connection.wire === socket ? undefined : cargoOf(socket, session?.records)
          if (cargo === 'never') this.#drain.stay(socket, connection, 'tls')
          else if (cargo === 'later') {
            if (session) session.goOn()
            else release(socket, connection)
            this.#lookAgain(socket, connection)
          } else yield this.#depart(socket, connection, session, cargo)
        }
      } else if (movability !== 'later') {
        this.#drain.stay(socket, connection, movability.stays)
      } else {
        // A request that has begun to come is answered here. A client that does not wait for answers would never let its connection be
        // idle.
        if (reading.has(socket)) release(socket, connection)
        else if (connection.running.length > 1) hold(socket, connection)
        if (connection.running.length === 0) this.#lookAgain(socket, connection)
      }
      if (looked >= leastInTurn && budget.isSpent) return
    }
  }.bind(this)

  #lookAgain(socket: net.Socket, connection: Connection): void {
    const ms = Math.min(connection.lookAgainMs === undefined ? lookAgainMs : connection.lookAgainMs * 2, lookAgainAtMostMs)
    connection.lookAgainMs = ms
    clearTimeout(connection.lookAgain)
    connection.lookAgain = setTimeout(() => { this.added(socket) }, ms).unref()
  }

  /** Holds the connection still. */
  #depart(socket: net.Socket, connection: Connection, session: SessionDeparture | undefined, tls?: TlsCargo): OutgoingConnection {
    const leaving = { kind: kindOf(socket, connection), sent: false }
    connection.leaving = leaving
    const rest = session ? { http2: session.leave() } : this.#holdIdle(socket, connection)
    return {
      fd: () => fdOf(socket),
      about: {
        kind: 'http',
        listener: this.#route.listener,
        ageMs: Math.round(performance.now() - connection.openedAt),
        requests: connection.requests,
        ...rest,
        ...(tls && { tls: tls.about })
      },
      tls,
      sent: () => { leaving.sent = true },
      left: () => {
        // At once: Node would send GOAWAY where the program ends the session or its server.
        session?.left()
        if (!this.#of.connections.delete(socket)) return
        if (connection.session) this.#of.sessions.delete(connection.session.session)
        this.#sessions.delete(socket)
        this.#drain.moved(leaving.kind)
        // The program may end it before it is closed: a FIN would reach the client.
        socket.end = letGo
      },
      close: () => { letGo.call(socket) },
      back: (refused) => {
        connection.leaving = undefined
        // The deadline may have counted it as moved already.
        if (!this.#of.connections.has(socket)) socket.destroy()
        session?.back()
        if (socket.destroyed) return
        if (!session) {
          socket.uncork()
          release(socket, connection)
        }
        if (this.#over) {
          session?.end()
          this.#drain.stay(socket, connection)
        } else if (refused === true) this.#drain.stay(socket, connection, 'givenBack')
        else this.#lookAgain(socket, connection)
      }
    }
  }

  /** Of HTTP/1.1. Answers what the successor must know of its keep-alive time. */
  #holdIdle(socket: net.Socket, connection: Connection): IdleTimes {
    hold(socket, connection, true)
    stopIdle(socket, connection)
    socket.cork()
    if (connection.requests === 0 && socket.bytesRead === 0) return {}
    return idleTimes(this.#of.server, connection)
  }
}
