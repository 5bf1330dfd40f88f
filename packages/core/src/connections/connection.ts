/** What is known of one connection, of what kind it is, and how long its server lets it be idle. It decides nothing. */

import type { ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import type net from 'node:net'
import { hasParser } from '../platform/node/connection-handle.js'
import type { ServedByHand } from './hand-served.js'

export interface Request {
  readonly method: string
  readonly target: string
  readonly since: number
}

/** `handshake`: under TLS, before there is a secure connection. Only in HTTP/1 and there can idle be told from busy. */
export type Protocol = 'http1' | 'http2' | 'handshake' | 'other'

export interface Session {
  readonly streams: Map<http2.ServerHttp2Stream, Request>
}

export interface Connection {
  /** Requests whose response is not flushed, in order of arrival. */
  readonly running: Map<ServerResponse, Request>
  readonly protocol: Protocol
  /** The socket that touches the network: under TLS, bytes arrive before anything can be read from them. */
  readonly wire: net.Socket
  /** As performance.now(); before the start of this process where it was moved here. */
  readonly openedAt: number
  /** The requests that it carried before it was moved here. */
  readonly requestsBefore: number
  requests: number
  bytesRead: number
  /** When the last response was out, or bytes were last seen to have come in a drain. */
  quietSince: number
  /** Its keep-alive timer was set when it was moved here, so Node does not know that the next request must end it. */
  timerInherited: boolean
  /** In a drain that moves connections: why this one does not move. It is then drained politely. */
  stays?: string | undefined
  /** In a drain: held for a move of this kind, and whether it is on its way already. */
  leaving?: { readonly kind: string; sent: boolean } | undefined
  /** The program read of it, wrapped it or gave it to a server itself: it is not ours to move (hand-served.ts). */
  byHand: boolean
  /** The HTTP server that the program gave it to. */
  served?: ServedByHand
  /** What had been read of it when its last answer was out: an HTTP server that never listened keeps no list of who sends a request. */
  bytesAnswered?: number
  /**
   * In a drain: nothing is read from it, since its answer ends, or its client sends requests before it has the answers
   * (held-connections.ts).
   */
  held?: boolean
  /** Stops reading again where Node went on with it. */
  holdAgain?: (() => void) | undefined
  /** In a drain: how long it was left alone before it was looked at again without an event, in milliseconds. */
  lookAgainMs?: number | undefined
}

/** What a connection is called in reports. Node frees the parser of a connection that ends only after our own listener for its 'close'. */
export function kindOf(socket: net.Socket, { protocol, wire, served }: Connection): string {
  if (served) return served.socket === socket ? 'http' : 'https'
  if (protocol === 'http1') return wire !== socket ? 'https' : hasParser(socket) ? 'http' : 'upgraded'
  return protocol === 'other' ? 'socket' : protocol === 'handshake' ? 'https' : 'http2'
}

/** Asked once for each connection that could move. */
export type CanMove = (socket: net.Socket) => boolean

/** What an HTTP server is asked about its connections. A server of another protocol has none of it. */
interface HttpLimits {
  /** All in milliseconds. */
  readonly headersTimeout?: number
  readonly timeout?: number
  readonly keepAliveTimeout?: number
  /** Node gives a second more than it promises; since 22 an option says how much. */
  readonly keepAliveTimeoutBuffer?: number
  readonly maxRequestsPerSocket?: number | null
}

export const limitsOf = (server: net.Server & HttpLimits): HttpLimits => server

/** `server.timeout`: how long nothing may happen on a connection; 0: for ever. */
export const inactivityMs = (server: net.Server): number => limitsOf(server).timeout ?? 0

/** How long an idle connection may stay, as Node counts it; undefined: for ever. */
export function keepAliveMs(server: net.Server): number | undefined {
  const { keepAliveTimeout = 0, keepAliveTimeoutBuffer = 1_000 } = limitsOf(server)
  return keepAliveTimeout > 0 ? keepAliveTimeout + keepAliveTimeoutBuffer : undefined
}
