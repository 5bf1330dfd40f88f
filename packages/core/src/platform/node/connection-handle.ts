/** What Node does not show of one connection: its handle, its parser, whether it is being read. Each function says why it is needed. */

import { closeSync, readSync } from 'node:fs'
import net from 'node:net'
import type tls from 'node:tls'
import { fdOf } from './descriptor-of.js'
import { inside } from './inside.js'

/**
 * Whether Node reads from the socket: descriptors that come with bytes which Node reads are closed by the kernel. `isPaused()`
 * is no answer: a socket that is paused after it connected still waits for its first bytes. Undefined: not known.
 */
export function isReading(socket: net.Socket): boolean | undefined {
  const reading = (inside(socket)._handle as { reading?: unknown } | null | undefined)?.reading
  return typeof reading === 'boolean' ? reading : undefined
}

/** The plain socket under a TLS socket that a server accepted, so that the two count as one connection. */
export function plainSocketOf(socket: tls.TLSSocket): net.Socket | undefined {
  return inside(socket)._parent
}

/** `bufferSize` of old: bytes that were written and that the kernel has not taken yet, in the stream and in the queue of libuv. */
export function unsentBytes(socket: net.Socket): number {
  return socket.writableLength + (connectionHandle(socket)?.writeQueueSize ?? 0)
}

interface Parser {
  socket: net.Socket | null
  _consumed?: boolean
  execute(data: Buffer): unknown
  resume?(): void
  [slot: number]: unknown
}

/** What Node keeps in `socket._handle` of a connection. */
interface ConnectionHandle {
  readonly fd: number
  readonly writeQueueSize: number
  reading: boolean
  readStart(): number
  readStop(): number
}

/** What Node and its HTTP server put on a socket. `_paused` is HTTP's own word for a socket that it must not resume by itself. */
interface SocketInside {
  _handle?: ConnectionHandle | null
  parser?: Parser | null
  _httpMessage?: object | null
  _paused?: boolean
  server?: net.Server
  _server?: net.Server
  _readableState?: { decoder?: { lastNeed?: number } | null }
}

const socketInside = (socket: net.Socket): SocketInside => socket as unknown as SocketInside
export const connectionHandle = (socket: net.Socket): ConnectionHandle | undefined => socketInside(socket)._handle ?? undefined

/** Whether an HTTP parser, and nobody else, reads from the socket. False after an upgrade, and where somebody listens for 'data'. */
export function isParsed(socket: net.Socket): boolean {
  const { parser } = socketInside(socket)
  return parser?.socket === socket && parser._consumed === true
}

/** Whether the parser is still there: an upgraded socket has none. */
export function hasParser(socket: net.Socket): boolean {
  return socketInside(socket).parser?.socket === socket
}

/** Whether a response is attached to the socket. */
export function isAnswering(socket: net.Socket): boolean {
  return socketInside(socket)._httpMessage != null
}

/** A client that never stops sending is not waited for. */
const mostDiscarded = 1_048_576

/**
 * Reads away what waits in the kernel for a connection that is held and will be closed: to close with something unread makes the kernel
 * throw away what it has not sent yet (RFC 2525, section 2.17).
 */
export function discardUnread(socket: net.Socket): void {
  const fd = fdOf(socket)
  if (fd === undefined) return
  const chunk = Buffer.allocUnsafe(65_536)
  try {
    for (let bytes = 0, read = 1; read > 0 && bytes < mostDiscarded; bytes += read) read = readSync(fd, chunk)
  } catch { /* EAGAIN: that was all */ }
}

/** Part of a character that setEncoding() has read and cannot give away yet. */
export function holdsHalfCharacter(socket: net.Socket): boolean {
  return (socketInside(socket)._readableState?.decoder?.lastNeed ?? 0) > 0
}

/**
 * The server whose listener accepted the connection, whatever the program did with it since. Node sets `_server` there and nowhere else.
 */
export function acceptorOf(socket: net.Socket): net.Server | undefined {
  return socketInside(socket)._server ?? undefined
}

/**
 * Whether what comes goes to Node's HTTP server alone: nobody listens for it beside, decodes it, or has put a function of his own over
 * those that it goes through. Who listened before Node did hears nothing yet, and would as soon as Node gives the socket back.
 */
export function isReadByNodeAlone(socket: net.Socket): boolean {
  return socket.listenerCount('data') <= 1 && socket.listenerCount('readable') === 0 && socket.readableEncoding === null && !['emit', 'push', 'read'].some((name) => Object.hasOwn(socket, name))
}

/** The server that a connection came through: Node keeps it for HTTP servers, `adoptDescriptor` for the others. */
export function serverOf(socket: net.Socket): net.Server | undefined {
  return socketInside(socket).server
}

interface ConnectionsList {
  active(): { socket: net.Socket }[]
}

/** Node's own list of the connections of an HTTP/1 server; it comes to be when the server listens. */
function connectionsList(server: net.Server): ConnectionsList | undefined {
  const symbol = Object.getOwnPropertySymbols(server).find((candidate) => candidate.description === 'http.server.connections')
  const list = symbol && (server as unknown as Record<symbol, ConnectionsList | null>)[symbol]
  return typeof list?.active === 'function' ? list : undefined
}

/**
 * The connections of an HTTP/1 server on which a request is being read: from its first byte to its last. Those that have sent nothing at
 * all are among them too, those that were upgraded are not. Counting bytes is no answer: what came with the end of a request may be half of
 * another. Node's own `idle()` lists connections that have sent nothing in one version and not in another. Undefined where there is no such
 * list.
 */
export function readingRequests(server: net.Server): Set<net.Socket> | undefined {
  const list = connectionsList(server)
  return list && new Set(list.active().map((parser) => parser.socket))
}

/**
 * Stops reading at once; the bytes stay in the kernel. pause() would leave a handle that a parser reads from, and HTTP resumes a socket
 * when an answer is out, unless `_paused` says that it must not.
 */
export function holdReading(socket: net.Socket): void {
  const handle = connectionHandle(socket)
  if (!handle) return
  socketInside(socket)._paused = true
  handle.reading = false
  handle.readStop()
}

/**
 * Undoes `holdReading`. In the middle of what was read last, HTTP takes `_paused` for its own and pauses the parser: then every byte that
 * comes would be an error.
 */
export function releaseReading(socket: net.Socket): void {
  const handle = connectionHandle(socket)
  if (!handle) return
  socketInside(socket)._paused = false
  socketInside(socket).parser?.resume?.()
  handle.reading = true
  handle.readStart()
}

/**
 * A socket for the descriptor of a connection, counted by `server` as if that had accepted it; no event is emitted. Throws where the
 * descriptor is not a stream socket, and closes it.
 */
export function adoptDescriptor(fd: number, server: net.Server | undefined): net.Socket {
  const { allowHalfOpen, highWaterMark } = (server ?? {}) as { allowHalfOpen?: boolean; highWaterMark?: number }
  let socket: net.Socket
  try {
    socket = new net.Socket({ fd, readable: true, writable: true, ...(allowHalfOpen !== undefined && { allowHalfOpen }), ...(highWaterMark !== undefined && { highWaterMark }) })
  } catch (error) {
    closeSync(fd)
    throw error
  }
  if (server) {
    Object.assign(socketInside(socket), { server, _server: server })
    const counted = server as unknown as { _connections?: number }
    if (typeof counted._connections === 'number') counted._connections++
  }
  return socket
}

/**
 * A server whose listener is closed emits 'close' with its last connection. This one may still get some that were moved: it counts as
 * having one more until the function that is answered is called.
 */
export function holdOpen(server: net.Server): () => void {
  const counted = server as unknown as { _connections?: number; _emitCloseIfDrained?: () => void }
  if (typeof counted._connections !== 'number' || typeof counted._emitCloseIfDrained !== 'function') return () => undefined
  counted._connections++
  return () => {
    counted._connections!--
    counted._emitCloseIfDrained?.()
  }
}

const dummyRequest = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
/** kOnMessageBegin to kOnMessageComplete of Node's parser. */
const callbackSlots = [0, 1, 2, 3, 4]

/**
 * Brings the parser of an adopted connection to where it is between two requests, by a request that nobody hears of: else Node counts the
 * time since it was adopted as the time of a request that is slow to come, and answers 408 into an idle connection.
 */
export function primeParser(socket: net.Socket): void {
  const { parser } = socketInside(socket)
  if (!parser) throw new Error('a socket under an HTTP server has no parser')
  const callbacks = callbackSlots.map((slot) => parser[slot])
  for (const slot of callbackSlots) parser[slot] = undefined
  try {
    parser.execute(dummyRequest)
  } finally {
    for (const [index, slot] of callbackSlots.entries()) parser[slot] = callbacks[index]
  }
}
