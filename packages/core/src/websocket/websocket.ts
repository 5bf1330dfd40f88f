/** What moving WebSockets needs of the package ws 8: described here, so that its types are not a dependency. */

import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

export interface MovableWebSocket extends EventEmitter {
  readonly readyState: number
  readonly bufferedAmount: number
  readonly extensions: string
  readonly protocol: string
  readonly isPaused?: boolean
  send(data: string): void
  pause(): void
  resume(): void
  close(code?: number, reason?: string): void
  terminate(): void
}

export interface MovableWebSocketServer<W extends MovableWebSocket> extends EventEmitter {
  options: object
  /** Absent with `clientTracking: false`. */
  readonly clients: Set<W> | undefined
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, callback: (ws: W, request: IncomingMessage) => void): void
}
