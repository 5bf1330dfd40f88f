/** The private parts of one connection: its handle, its parser, whether Node reads it. Each function says why it is needed. */

import { closeSync, readSync, writeSync } from 'node:fs'
import net from 'node:net'
import type tls from 'node:tls'
import { native, systemError } from '../native.js'
import { fdOf } from './descriptor-of.js'
import { behindSymbol, inside, type ListenHandle } from './inside.js'

/**
 * Whether Node reads from the socket: then the kernel closes descriptors that come with the bytes. `isPaused()` does not tell: a socket
 * that was paused after it connected still reads its first bytes. Undefined: unknown.
 */
export function isReading(socket: net.Socket): boolean | undefined {
  const reading = (inside(socket)._handle as { reading?: unknown } | null | undefined)?.reading
  return typeof reading === 'boolean' ? reading : undefined
}

/**
 * `send(message, socket)` of child_process has given it to another process: it has no handle any more, is not destroyed, and never emits
 * 'close'.
 */
export const isSentAway = (socket: net.Socket): boolean => inside(socket)._handle === null && !socket.destroyed

/** The plain socket under a TLS socket that a server accepted, so that the two count as one connection. */
export function plainSocketOf(socket: tls.TLSSocket): net.Socket | undefined {
  return inside(socket)._parent
}

/** The former `bufferSize`: bytes that the kernel has not taken yet, in the stream and in the queue of libuv. */
export function unsentBytes(socket: net.Socket): number {
  return socket.writableLength + (connectionHandle(socket)?.writeQueueSize ?? 0)
}

interface Parser {
  socket: net.Socket | null
  _consumed?: boolean
  execute(data: Buffer): unknown
  pause?(): void
  resume?(): void
  [slot: number]: unknown
}

/** `socket._handle` of a connection. */
interface ConnectionHandle {
  readonly fd: number
  readonly writeQueueSize: number
  /** As in standOver(): an object in the place of a handle. */
  readonly standsIn?: boolean
  reading: boolean
  readStart(): number
  readStop(): number
}

/** What Node and its HTTP server put on a socket. `_paused`: HTTP must not resume it. */
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

/** Whether an HTTP parser alone reads the socket: not after an upgrade, nor where a program listens for 'data'. */
export function isParsed(socket: net.Socket): boolean {
  const { parser } = socketInside(socket)
  return parser?.socket === socket && parser._consumed === true
}

/** An upgraded socket has no parser. */
export function hasParser(socket: net.Socket): boolean {
  return socketInside(socket).parser?.socket === socket
}

/** Of a socket that is closed Node knows whom it was connected to, if that was asked before: a program may ask later. */
export function rememberPeer(socket: net.Socket): boolean {
  return socket.remoteAddress !== undefined
}

/** Whether a response is attached to the socket. */
export function isAnswering(socket: net.Socket): boolean {
  return socketInside(socket)._httpMessage != null
}

/** Not more, since a client may never stop sending. */
const mostDiscarded = 1_048_576

/** Discards what waits in the kernel before a close: else the kernel drops what it has not sent (RFC 2525, section 2.17). */
export function discardUnread(socket: net.Socket): void {
  const fd = fdOf(socket)
  if (fd === undefined) return
  const chunk = Buffer.allocUnsafe(65_536)
  try {
    for (let bytes = 0, read = 1; read > 0 && bytes < mostDiscarded; bytes += read) read = readSync(fd, chunk)
  } catch { /* EAGAIN: all is read */ }
}

/** How long the rest of a few bytes is tried, of which the kernel has taken a part. */
const restMs = 50

/**
 * Writes a few bytes behind all that was sent, past the session of HTTP/2 that has the connection. Where something waits to be sent, or the
 * session has not begun to write, it writes nothing, and answers false.
 */
export function writePast(socket: net.Socket, bytes: Uint8Array): boolean {
  const fd = fdOf(socket)
  if (fd === undefined || unsentBytes(socket) > 0 || socket.bytesWritten === 0) return false
  let written = 0
  for (const until = performance.now() + restMs; written < bytes.length && performance.now() < until;) {
    try {
      written += writeSync(fd, bytes, written)
    } catch {
      if (written === 0) return false
    }
  }
  if (written < bytes.length) socket.destroy()
  return true
}

/** Whether setEncoding() holds back a part of a character. */
export function holdsHalfCharacter(socket: net.Socket): boolean {
  return (socketInside(socket)._readableState?.decoder?.lastNeed ?? 0) > 0
}

/** The server whose listener accepted the connection, whatever the program did with it since: only Node sets `_server`. */
export function acceptorOf(socket: net.Socket): net.Server | undefined {
  return socketInside(socket)._server ?? undefined
}

/**
 * Whether Node's HTTP server alone gets what arrives: the program has no listener, no decoder, and no function of its own on the way. A
 * listener that is older than Node's hears nothing yet, but would as soon as Node gives the socket back.
 */
export function isReadByNodeAlone(socket: net.Socket): boolean {
  const isPlain = !['emit', 'push', 'read'].some((name) => Object.hasOwn(socket, name))
  return isPlain && socket.listenerCount('data') <= 1 && socket.listenerCount('readable') === 0 && socket.readableEncoding === null
}

/** The server of a connection: Node sets it for HTTP servers, `adoptDescriptor` for the others. */
export function serverOf(socket: net.Socket): net.Server | undefined {
  return socketInside(socket).server
}

interface ConnectionsList {
  active(): { socket: net.Socket }[]
}

/** Node's own list of the connections of an HTTP/1 server, which it creates when the server listens. */
function connectionsList(server: net.Server): ConnectionsList | undefined {
  const list = behindSymbol(server, 'http.server.connections') as ConnectionsList | null | undefined
  return typeof list?.active === 'function' ? list : undefined
}

/**
 * The connections of an HTTP/1 server on which a request is being read, or that have sent nothing yet; without upgraded ones. Counting
 * bytes would not do: half of the next request may come with the end of one. Node's own `idle()` differs between versions. Undefined: no
 * list.
 */
export function readingRequests(server: net.Server): Set<net.Socket> | undefined {
  const list = connectionsList(server)
  return list && new Set(list.active().map((parser) => parser.socket))
}

/** Sockets under TLS that are held. */
const held = new WeakSet<net.Socket>()

/**
 * HTTP pauses a parser whose socket has `_paused`, and such a parser takes every byte for an error. Under TLS more may come behind a hold:
 * what is decrypted already.
 */
function keepFromPausing(parser: Parser): void {
  const pause = parser.pause?.bind(parser)
  if (!pause || Object.hasOwn(parser, 'pause')) return
  parser.pause = () => { if (parser.socket === null || !held.has(parser.socket)) pause() }
}

/**
 * Stops reading at once; the bytes stay in the kernel. pause() does not stop a parser that reads from the handle, and HTTP resumes a socket
 * after each answer unless `_paused` is set.
 */
export function holdReading(socket: net.Socket): void {
  const handle = connectionHandle(socket)
  if (!handle) return
  // Where `_paused` is set, HTTP asserts that nothing comes. What a moved TLS socket has decrypted may still come.
  if (handle.standsIn !== true) socketInside(socket)._paused = true
  if ('encrypted' in socket) {
    held.add(socket)
    const { parser } = socketInside(socket)
    if (parser) keepFromPausing(parser)
  }
  handle.reading = false
  handle.readStop()
}

/** Undoes `holdReading`. HTTP takes `_paused` for its own in the middle of a read and pauses the parser, which then rejects every byte. */
export function releaseReading(socket: net.Socket): void {
  const handle = connectionHandle(socket)
  if (!handle) return
  held.delete(socket)
  socketInside(socket)._paused = false
  socketInside(socket).parser?.resume?.()
  handle.reading = true
  handle.readStart()
}

interface TcpHandle {
  open(fd: number): number
  getpeername(out: object): number
  close(): void
}

/** `SOCKET` of the constants of tcp_wrap: not a handle that listens. */
const socketType = 0

/**
 * A TCP handle by the constructor of the listener's: for a descriptor alone, Node first finds out by four system calls what it is. Where
 * the server has another handle, Node does that. Closes the descriptor and throws if it is no stream socket, which libuv would abort at.
 */
function tcpHandle(fd: number, server: net.Server | undefined): object | undefined {
  const own: object | null | undefined = server && inside(server)._handle
  if (!own || !('open' in own) || !('getpeername' in own)) return undefined
  const handle = new (own.constructor as new (type: number) => TcpHandle)(socketType)
  const opened = handle.open(fd)
  if (opened < 0) throw systemError(opened, 'open')
  if (handle.getpeername({}) === 0) return handle
  // Its client may have gone.
  const about = native?.describe(fd)
  if (typeof about === 'object' && about.type === 'stream') return handle
  handle.close()
  throw new Error(`descriptor ${fd} is no stream socket`)
}

/** What is read goes here, and not through the stream: only then does pause() stop reading at once. */
const sharedBuffer = Buffer.allocUnsafeSlow(65_536)
const onread = (arrived: (bytes: Buffer) => void): net.OnReadOpts => ({
  buffer: sharedBuffer,
  callback(count, buffer) {
    arrived((buffer as Buffer).subarray(0, count))
    return true
  }
})

/**
 * A socket for a received connection, counted by `server`; emits nothing. Closes the descriptor and throws if it is no stream socket.
 * `arrived` gets what is read, instead of 'data'; the bytes are gone when it returns.
 */
export function adoptDescriptor(fd: number, server: net.Server | undefined, arrived?: (bytes: Buffer) => void): net.Socket {
  const { allowHalfOpen, highWaterMark } = (server ?? {}) as { allowHalfOpen?: boolean; highWaterMark?: number }
  const options = {
    ...(allowHalfOpen !== undefined && { allowHalfOpen }), ...(highWaterMark !== undefined && { highWaterMark }),
    ...(arrived && { onread: onread(arrived) })
  }
  const handle = tcpHandle(fd, server)
  let socket: net.Socket
  try {
    socket = new net.Socket({ ...(handle ? { handle } : { fd }), readable: true, writable: true, ...options })
  } catch (error) {
    closeSync(fd)
    throw error
  }
  goOnWithFlags(socket, server)
  if (server) {
    Object.assign(socketInside(socket), { server, _server: server })
    countConnections(server, 1)
  }
  return socket
}

/** What Node remembers to have set on a socket, and does not set again. */
const flagNames: ReadonlySet<string | undefined> = new Set(['kSetNoDelay', 'kSetKeepAlive'])
let flags: readonly symbol[] | undefined

/** What the process before has set is with the kernel. The new version may ask for the probes of `keepAlive`, which are off by default. */
function goOnWithFlags(socket: net.Socket, server: net.Server | undefined): void {
  flags ??= Object.getOwnPropertySymbols(socket).filter(({ description }) => flagNames.has(description))
  for (const flag of flags) (socket as unknown as Record<symbol, unknown>)[flag] = undefined
  // In seconds.
  const { keepAlive, keepAliveInitialDelay = 0 } = (server ?? {}) as { keepAlive?: boolean; keepAliveInitialDelay?: number }
  if (keepAlive === true) socket.setKeepAlive(true, keepAliveInitialDelay * 1_000)
}

/** What `server.getConnections()` counts, and a closed server waits for before it emits 'close'. */
export function countConnections(server: net.Server, more: number): void {
  const counted = server as unknown as { _connections?: number }
  if (typeof counted._connections === 'number') counted._connections += more
}

/** A server whose listener is closed emits 'close' only after the result is called: moved connections may still come. */
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
 * Brings the parser of a received connection between two requests, by a request that is not reported: else Node takes the idle connection
 * for a slow request, and answers 408.
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

/** `process._tickCallback`: what is due between two callbacks of the event loop, where that does not run yet. Throws without it. */
export function runTicks(): void {
  (process as unknown as { _tickCallback(): void })._tickCallback()
}

/**
 * The server listens for all that Node knows, and nobody can connect: its handle of TCP is bound only. Connections come by acceptAsIf().
 * Throws where Node has no such handle.
 */
export function listenToNobody(server: net.Server): void {
  const maker = net as unknown as { _createServerHandle: (address: string, port: number, family: 4) => ListenHandle | number }
  const handle = maker._createServerHandle('127.0.0.1', 0, 4)
  if (typeof handle === 'number') throw systemError(handle, 'bind')
  handle.listen = () => 0
  server.listen(handle)
}

/** As if the listener had accepted this connection. */
export function acceptAsIf(server: net.Server, fd: number): void {
  const { _handle: listener } = inside(server)
  const handle = tcpHandle(fd, server)
  if (handle) listener?.onconnection?.(0, handle)
  else server.emit('connection', adoptDescriptor(fd, server))
}
