/**
 * The successor's side of a WebSocket that moves: its upgrade is played again, so that ws and the application treat it like every other.
 * The client had its answer long ago and hears nothing of this.
 *
 * Only the public API of ws is used. The checks of ws do not run again where the connection goes straight to the application's 'connection'
 * handler.
 */

import { IncomingMessage } from 'node:http'
import type net from 'node:net'
import { log } from '../adapters.js'
import { serverOf } from '../platform/node/connection-handle.js'
import type { MovableWebSocket, MovableWebSocketServer } from './websocket.js'

/** The request that began the WebSocket. */
export interface SavedRequest {
  readonly method: string
  readonly url: string
  readonly httpVersion: string
  readonly headers: Record<string, string | string[] | undefined>
  readonly rawHeaders: string[]
}

/** The state for move(). */
export interface SavedWebSocket {
  readonly state: unknown
  readonly request: SavedRequest
  /** The subprotocol; '' for none. */
  readonly protocol: string
  /** It came through a route of @fastify/websocket. */
  readonly routed: boolean
}

/** RFC 6455, section 7.4.1, and the registry of IANA: service restart. */
export const serviceRestart = 1012

/** How long a client that was told to go may take to close its side. */
const farewellMs = 2_000

/** `came`: called with the request before anyone sees it. */
export function arrive<W extends MovableWebSocket>(
  wss: MovableWebSocketServer<W>, socket: net.Socket, saved: SavedWebSocket, came: (request: IncomingMessage) => void
): void {
  const request = rebuild(socket, saved.request)
  came(request)
  // Between two owners there is no other listener for 'error'; 'close' follows.
  socket.on('error', () => undefined)
  const refuse = swallowAnswer(socket, (found) => {
    log('warn', `closing a WebSocket that was moved here (${saved.request.url}) with code ${serviceRestart}, service restart: the application did not take it again: ${found}`)
  })
  if (!saved.routed && wss.listenerCount('connection') > 1) {
    connectAgain(wss, socket, request, saved)
    return
  }
  const server = serverOf(socket)
  if (server && server.listenerCount('upgrade') > 0) upgradeAgain(server, socket, request, saved)
  else refuse("there is no listener for 'upgrade'")
}

function rebuild(socket: net.Socket, { method, url, httpVersion, headers, rawHeaders }: SavedRequest): IncomingMessage {
  const [httpVersionMajor = 1, httpVersionMinor = 1] = httpVersion.split('.').map(Number)
  const head = { method, url, httpVersion, httpVersionMajor, httpVersionMinor, headers, rawHeaders }
  const request = Object.assign(new IncomingMessage(socket), head, { complete: true })
  request.push(null)
  return request
}

/** Straight to the 'connection' handlers: whether the client may connect was decided when it connected. */
function connectAgain<W extends MovableWebSocket>(
  wss: MovableWebSocketServer<W>, socket: net.Socket, request: IncomingMessage, { protocol }: SavedWebSocket
): void {
  const { options } = wss
  wss.options = { ...options, verifyClient: null, path: null, perMessageDeflate: false, handleProtocols: () => protocol }
  try {
    wss.handleUpgrade(request, socket, Buffer.alloc(0), (ws) => {
      wss.options = options
      wss.emit('connection', ws, request)
    })
  } finally {
    wss.options = options
  }
}

/** Through the HTTP server, as a client's request would come, to whatever answers upgrades there. */
function upgradeAgain(server: net.Server, socket: net.Socket, request: IncomingMessage, { protocol }: SavedWebSocket): void {
  // The application chooses from what the client offers, and must choose what the client has.
  const { 'sec-websocket-extensions': _extensions, 'sec-websocket-protocol': _protocols, ...others } = request.headers
  request.headers = protocol === '' ? others : { ...others, 'sec-websocket-protocol': protocol }
  server.emit('upgrade', request, socket, Buffer.alloc(0))
}

/**
 * Keeps the answer to an upgrade that is played again from the client, who speaks WebSocket already. After any other answer than 101 the
 * client is told to come back. Returns a function that tells it so without an answer.
 */
function swallowAnswer(socket: net.Socket, refused: (found: string) => void): (found: string) => void {
  const uncover = (): void => {
    for (const name of ['write', 'end', 'destroy']) Reflect.deleteProperty(socket, name)
  }
  const cover = (hear: (found: string) => void): void => {
    const hearing = (otherwise: string) => (...args: unknown[]): boolean => {
      const done = args.find((arg) => typeof arg === 'function')
      if (done) process.nextTick(done)
      const [chunk] = args
      hear(typeof chunk === 'string' || Buffer.isBuffer(chunk) ? firstLine(chunk) : otherwise)
      return true
    }
    const destroy = (error?: Error): net.Socket => {
      // Node gives the reason where the client has gone.
      if (!error) hear('it destroyed the connection')
      else {
        uncover()
        socket.destroy(error)
      }
      return socket
    }
    Object.assign(socket, { write: hearing('an empty answer'), end: hearing('it ended the connection'), destroy })
  }
  const refuse = (found: string): void => {
    uncover()
    socket.end(closeFrame(serviceRestart))
    socket.resume()
    const timer = setTimeout(() => {
      uncover()
      socket.destroy()
    }, farewellMs).unref()
    socket.once('close', () => { clearTimeout(timer) })
    // The rest of the answer is not for the client either.
    cover(() => undefined)
    refused(found)
  }
  cover((found) => {
    if (found.startsWith('HTTP/1.1 101 ')) uncover()
    else refuse(found)
  })
  return refuse
}

const firstLine = (chunk: string | Buffer): string => String(chunk).split('\r\n', 1)[0]!.slice(0, 200)

const closeFrame = (code: number): Buffer => Buffer.from([0x88, 2, code >> 8, code & 0xff])
