/** What moving WebSockets needs of the package ws 8: described here, so that its types are not a dependency. */

import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

/** A WebSocket of ws 8. Each member is as the documentation of ws has it. */
export interface MovableWebSocket extends EventEmitter {
  /** 1: open. */
  readonly readyState: number
  /** In bytes. */
  readonly bufferedAmount: number
  /** What was negotiated; empty for none. */
  readonly extensions: string
  /** The subprotocol; empty for none. */
  readonly protocol: string
  /** Of ws 8.2 and later. */
  readonly isPaused?: boolean
  /** Sends one message. */
  send(data: string): void
  /** Reads no more. */
  pause(): void
  /** Reads again. */
  resume(): void
  /** Begins the closing handshake. */
  close(code?: number, reason?: string): void
  /** Destroys the connection. */
  terminate(): void
}

/** A WebSocketServer of ws 8. */
export interface MovableWebSocketServer<W extends MovableWebSocket> extends EventEmitter {
  /** What it was made with. */
  options: object
  /** Absent with `clientTracking: false`. */
  readonly clients: Set<W> | undefined
  /** Makes a WebSocket of an upgraded connection. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, callback: (ws: W, request: IncomingMessage) => void): void
}
