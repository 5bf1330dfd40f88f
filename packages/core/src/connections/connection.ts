/** What is known of one connection, of what kind it is, and how long its server lets it be idle. It decides nothing. */

import type { ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import type net from 'node:net'
import { hasParser } from '../platform/node/connection-handle.js'
import type { ContinuedSession } from './continued-session.js'
import type { AnsweringServer } from './hand-served.js'
import type { StayReason } from './stay-reasons.js'

export interface Request {
  readonly method: string
  readonly target: string
  /** As coarseNow(). */
  readonly since: number
}

/** A request of HTTP/1. */
export interface RunningRequest extends Request {
  readonly response: ServerResponse
  /** In a drain: its response has a listener for 'close'. */
  isWatched: boolean
}

/** `handshake`: under TLS, before there is a secure connection. Only with HTTP/1 and in a handshake can idle be told from busy. */
export type Protocol = 'http1' | 'http2' | 'handshake' | 'other'

/** The requests of a session of HTTP/2. */
export type Streams = Map<http2.ServerHttp2Stream, Request>

export interface Session {
  readonly session: http2.ServerHttp2Session
  readonly streams: Streams
  /** Undefined where the program gave the socket to HTTP itself. */
  readonly connection: Connection | undefined
  /** Where it was moved here. */
  readonly continued?: ContinuedSession | undefined
}

/** What is known of one connection. Times as performance.now(). */
export interface Connection {
  /** Requests whose response is not flushed, in order of arrival. */
  running: readonly RunningRequest[]
  readonly protocol: Protocol
  /** With HTTP/2, as soon as there is one. */
  session?: Session
  /** The socket that touches the network: under TLS, bytes arrive before anything can be read from them. */
  readonly wire: net.Socket
  /** Before the start of this process where it was moved here. */
  readonly openedAt: number
  /** The requests that it carried before it was moved here. */
  readonly requestsBefore: number
  requests: number
  bytesRead: number
  /** When the last response was out, or bytes were last seen to have come in a drain. */
  quietSince: number
  /** How long it is kept, where its keep-alive timer is not Node's own (keep-alive.ts): the next request must end that. */
  inheritedMs?: number | undefined
  /** How long its socket could be silent before it was held. */
  limitMs?: number | undefined
  /** In a drain: why it does not move. It is then drained politely. */
  stays?: StayReason | undefined
  /** In a drain: held for a move of this kind, and whether it is on its way already. */
  leaving?: { readonly kind: string; sent: boolean } | undefined
  /** The program read of it, wrapped it or gave it to a server itself: Handover must not move it (hand-served.ts). */
  byHand: boolean
  /** In a drain: under TLS, connections like this one can move. */
  tlsMoves?: boolean
  served?: AnsweringServer
  /** What had been read of it when its last answer was out, or the drain began: for an HTTP server that never listened, and under TLS. */
  bytesAnswered?: number
  /** In a drain: nothing is read from it, since its answer ends, or its client sends requests before it has the answers. */
  held?: boolean
  /** Stops reading again where Node went on with it. */
  holdAgain?: (() => void) | undefined
  /** In a drain: the timer of the next look without an event, and its time in milliseconds. */
  lookAgain?: NodeJS.Timeout
  lookAgainMs?: number | undefined
}

/** A server with its connections, as connection-tracker.ts keeps them. */
export interface TrackedServer {
  readonly server: net.Server
  readonly connections: Map<net.Socket, Connection>
  readonly sessions: Map<http2.ServerHttp2Session, Session>
  readonly canMove: CanMove | undefined
}

/** What a connection is called in reports. Node frees the parser of a connection that ends only after our own listener for its 'close'. */
export function kindOf(socket: net.Socket, { protocol, wire, served }: Connection): string {
  if (served) return served.socket === socket ? 'http' : 'https'
  if (protocol === 'http1') return wire !== socket ? 'https' : hasParser(socket) ? 'http' : 'upgraded'
  return protocol === 'other' ? 'socket' : protocol === 'handshake' ? 'https' : 'http2'
}

/** Asked once for each connection that could move. */
export type CanMove = (socket: net.Socket) => boolean

/** What an HTTP server says about its connections, in milliseconds. A server of another protocol has none of it. */
interface HttpLimits {
  readonly headersTimeout?: number
  readonly requestTimeout?: number
  readonly timeout?: number
  readonly keepAliveTimeout?: number
  /** Node waits a second longer than it promises; since Node 22 an option says how much longer. */
  readonly keepAliveTimeoutBuffer?: number
  readonly maxRequestsPerSocket?: number | null
}

export const limitsOf = (server: net.Server & HttpLimits): HttpLimits => server

// http2 exports no class of its servers.
export const speaksHttp2 = (server: net.Server): boolean => 'updateSettings' in server

/** How long nothing may happen on a connection; 0: any time. */
export const inactivityMs = (server: net.Server): number => limitsOf(server).timeout ?? 0

/** Of a timer (setTimeout). */
const mostMs = 2 ** 31 - 1

/** How long an idle connection may stay, as Node counts it; undefined: any time. */
export function keepAliveMs(server: net.Server): number | undefined {
  const { keepAliveTimeout = 0, keepAliveTimeoutBuffer = 1_000 } = limitsOf(server)
  return keepAliveTimeout > 0 ? Math.min(mostMs, Math.round(keepAliveTimeout + keepAliveTimeoutBuffer)) : undefined
}
