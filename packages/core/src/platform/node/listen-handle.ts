/**
 * The one file that touches fields of Node which are not documented. Each has its reason, is looked for before it is
 * relied on, and has a fallback: where one is missing, the process cannot be reloaded and says so; it still listens and drains.
 * The same on Node 20, 22, 24 and 26.
 */

import type dgram from 'node:dgram'
import { closeSync, readSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { constants } from 'node:os'
import type tls from 'node:tls'
import { ClosedListener } from './closed-listener.js'
import { addon, check, native, systemError } from '../native.js'

/** What Node keeps in `server._handle`: a TCP or Pipe wrap of libuv. */
interface ListenHandle {
  readonly fd: number
  listen(backlog: number): number
  /** Set by Node on the handle of a server. */
  onconnection?(status: number, client: unknown): void
  close(callback?: () => void): void
  getsockname?(out: { address?: string; port?: number }): number
  hasRef?(): boolean
  unref?(): void
}

interface DatagramHandle {
  readonly fd: number
  recvStart(): number
  recvStop(): number
}

type Inside = { _handle?: ListenHandle | null; _pipeName?: string; _parent?: net.Socket }

const inside = (owner: object): Inside => owner

/**
 * The descriptor of a server, a socket or a UDP socket. `_handle.fd` has no public counterpart; for dgram the handle stands behind a
 * symbol (`_handle` warns in 20 to 24 and is gone in 26). Undefined when there is none (closed, or in a cluster worker).
 */
export function fdOf(owner: net.Server | net.Socket | dgram.Socket): number | undefined {
  const fd = owner instanceof net.Server || owner instanceof net.Socket ? inside(owner)._handle?.fd : datagramHandle(owner)?.fd
  return typeof fd === 'number' && fd >= 0 ? fd : undefined
}

interface DatagramState {
  readonly handle?: DatagramHandle | null
  readonly reuseAddr?: boolean
  readonly reusePort?: boolean
}

function datagramState(owner: object): DatagramState | undefined {
  const symbol = Object.getOwnPropertySymbols(owner).find((candidate) => candidate.description === 'state symbol')
  return symbol && (owner as Record<symbol, DatagramState | undefined>)[symbol]
}

const datagramHandle = (owner: object): DatagramHandle | undefined => datagramState(owner)?.handle ?? undefined

/** Whether another process may bind the same UDP port: what multicast asks for, where a group that is joined already cannot be joined again. */
export function sharesPort(socket: dgram.Socket): boolean {
  const { reuseAddr, reusePort } = datagramState(socket) ?? {}
  return reuseAddr === true || reusePort === true
}

/**
 * Sets what `server.address()` answers on a Unix socket: Node answers null for an adopted one, and Fastify then throws while
 * it logs the address.
 */
export function setPipeName(server: net.Server, path: string): void {
  inside(server)._pipeName = path
}

/**
 * Whether Node reads from the socket: descriptors that come with bytes which Node reads are closed by the kernel. `isPaused()`
 * is no answer: a socket that is paused after it connected still waits for its first bytes. Undefined: not known.
 */
export function isReading(socket: net.Socket): boolean | undefined {
  const reading = (inside(socket)._handle as { reading?: unknown } | null | undefined)?.reading
  return typeof reading === 'boolean' ? reading : undefined
}

/** Keys of session tickets that the program gave itself: `options.ticketKeys`, which may be shared with other machines. */
export function hasOwnTicketKeys(server: tls.Server): boolean {
  return (server as unknown as { ticketKeys?: unknown }).ticketKeys !== undefined
}

/** The plain socket under a TLS socket that a server accepted, so that the two count as one connection. */
export function plainSocketOf(socket: tls.TLSSocket): net.Socket | undefined {
  return inside(socket)._parent
}

/** `bufferSize` of old: bytes that were written and that the kernel has not taken yet, in the stream and in the queue of libuv. */
export function unsentBytes(socket: net.Socket): number {
  return socket.writableLength + (connectionHandle(socket)?.writeQueueSize ?? 0)
}

/** What Node keeps in `socket._handle` of a connection. */
interface ConnectionHandle {
  readonly fd: number
  readonly writeQueueSize: number
  reading: boolean
  readStart(): number
  readStop(): number
}

interface Parser {
  socket: net.Socket | null
  _consumed?: boolean
  execute(data: Buffer): unknown
  resume?(): void
  [slot: number]: unknown
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
const connectionHandle = (socket: net.Socket): ConnectionHandle | undefined => socketInside(socket)._handle ?? undefined

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

/** Whether this response is one of server-sent events that has begun. `getHeader` does not know what went to writeHead(); `_header` does. */
export function isEventStream(response: http.ServerResponse): boolean {
  if (!response.headersSent) return false
  const { _header: head } = response as unknown as { _header?: string | null }
  return /^content-type:[ \t]*text\/event-stream/im.test(head ?? '')
}

/** Whether the answer, whose head is written, says how long it is: then its client has it before the application calls end(), maybe. */
export function hasLength(response: http.ServerResponse): boolean {
  return /^content-length:/im.test((response as unknown as { _header?: string | null })._header ?? '')
}

/** Whether the answer, whose head is out, has a content-encoding. */
export function isEncoded(response: http.ServerResponse): boolean {
  return /^content-encoding:/im.test((response as unknown as { _header?: string | null })._header ?? '')
}

/** Whether the connection ends with this answer, as far as its head is written: `shouldKeepAlive` does not know what the application's head says. */
export function endsConnection(response: http.ServerResponse): boolean {
  return (response as unknown as { _last?: boolean })._last === true
}

/** A client that never stops sending is not waited for. */
const mostDiscarded = 1_048_576

/**
 * Reads away what waits in the kernel for a connection that is held and will be closed: to close with something unread makes the kernel throw away what it
 * has not sent yet (RFC 2525, section 2.17).
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

/** The server whose listener accepted the connection, whatever the program did with it since. Node sets `_server` there and nowhere else. */
export function acceptorOf(socket: net.Socket): net.Server | undefined {
  return socketInside(socket)._server ?? undefined
}

/**
 * Whether what comes goes to Node's HTTP server alone: nobody listens for it beside, decodes it, or has put a function of his own over those that it goes
 * through. Who listened before Node did hears nothing yet, and would as soon as Node gives the socket back.
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
 * The connections of an HTTP/1 server on which a request is being read: from its first byte to its last. Those that have sent nothing at all are
 * among them too, those that were upgraded are not. Counting bytes is no answer: what came with the end of a request may be half of another. Node's own
 * `idle()` lists connections that have sent nothing in one version and not in another. Undefined where there is no such list.
 */
export function readingRequests(server: net.Server): Set<net.Socket> | undefined {
  const list = connectionsList(server)
  return list && new Set(list.active().map((parser) => parser.socket))
}

/**
 * Stops reading at once; the bytes stay in the kernel. pause() would leave a handle that a parser reads from, and HTTP resumes a socket when an answer
 * is out, unless `_paused` says that it must not.
 */
export function holdReading(socket: net.Socket): void {
  const handle = connectionHandle(socket)
  if (!handle) return
  socketInside(socket)._paused = true
  handle.reading = false
  handle.readStop()
}

/** Undoes `holdReading`. In the middle of what was read last, HTTP takes `_paused` for its own and pauses the parser: then every byte that comes would be an error. */
export function releaseReading(socket: net.Socket): void {
  const handle = connectionHandle(socket)
  if (!handle) return
  socketInside(socket)._paused = false
  socketInside(socket).parser?.resume?.()
  handle.reading = true
  handle.readStart()
}

/**
 * A socket for the descriptor of a connection, counted by `server` as if that had accepted it; no event is emitted. Throws where the descriptor is not
 * a stream socket, and closes it.
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
 * A server whose listener is closed emits 'close' with its last connection. This one may still get some that were moved: it counts as having one more until the
 * function that is answered is called.
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
 * Brings the parser of an adopted connection to where it is between two requests, by a request that nobody hears of: else Node counts the time since it was
 * adopted as the time of a request that is slow to come, and answers 408 into an idle connection.
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

/** The backlogs that Node would have listened with, of the handles that are quiet. */
const putOff = new WeakMap<ListenHandle, number>()

/**
 * A handle for `fd`, which it owns from now on; it accepts nothing until `accept()`. Node has no way to open a listening descriptor without
 * accepting from it at once, and a successor must claim its listeners before it may accept: listen(2) and the watching of the descriptor
 * happen in `handle.listen`, so that is put off.
 */
function quietHandle(fd: number): ListenHandle {
  // A socket is the public way to a handle that does not listen yet.
  const socket = new net.Socket({ fd, readable: false, writable: false })
  const handle = inside(socket)._handle
  if (!handle) throw new Error('a socket has no _handle')
  inside(socket)._handle = null
  if (typeof handle.listen !== 'function') throw new Error('a handle has no listen()')
  putOff.set(handle, 0)
  handle.listen = (backlog) => {
    putOff.set(handle, backlog)
    return 0
  }
  return handle
}

/**
 * Before `server.listen()` looks for a descriptor of its own: gives it `fd`. Whatever its arguments say, Node then listens on the handle that
 * the server has, and this one accepts when `accept(server)` is called.
 */
export function listenQuietly(server: net.Server, fd: number): void {
  inside(server)._handle = quietHandle(fd)
}

/**
 * Before `server.listen()` makes a handle: that one binds, and listens when `accept(server)` is called. `isTaken` says whether another server of this process
 * is bound there in the same way, which the kernel allows to those that do not listen yet (socket(7), SO_REUSEADDR).
 */
export function putListenOff(server: net.Server, isTaken: (address: string, port: number) => boolean): void {
  Object.defineProperty(server, '_handle', {
    configurable: true,
    enumerable: true,
    get: () => null,
    set(handle: ListenHandle | null) {
      if (!handle) return
      Object.defineProperty(server, '_handle', { value: handle, configurable: true, enumerable: true, writable: true })
      handle.listen = (backlog) => {
        const bound: { address?: string; port?: number } = {}
        // libuv keeps EADDRINUSE of bind(2) for the next call that can tell of it: uv_tcp_bind.
        const error = handle.getsockname?.(bound) ?? 0
        if (error < 0) return error
        if (isTaken(bound.address ?? '', bound.port ?? 0)) return -constants.errno.EADDRINUSE
        putOff.set(handle, backlog)
        return 0
      }
    }
  })
}

/** Undoes `putListenOff` where no handle came to be: the next listen() is one as any other. */
export function listenAsUsual(server: net.Server): void {
  if (Object.getOwnPropertyDescriptor(server, '_handle')?.get) Object.defineProperty(server, '_handle', { value: null, configurable: true, enumerable: true, writable: true })
}

/** Lets the `server.listen()` that has begun fail, in Node's own way and time. */
export function refuseToListen(server: net.Server): void {
  const refusing: ListenHandle = { fd: -1, listen: () => -constants.errno.EPERM, close: () => undefined }
  inside(server)._handle = refusing
}

/** The backlog that Node would have listened with, where `listenQuietly` put it off. */
export function quietBacklog(server: net.Server): number | undefined {
  const handle = inside(server)._handle
  return handle ? putOff.get(handle) : undefined
}

/** Begins to accept, with a backlog of at least `backlog`: after `listenQuietly`, or again after `stopAccepting`. Undefined: not quiet. */
export function accept(server: net.Server, backlog: number): number | undefined {
  const handle = inside(server)._handle
  const asked = handle ? putOff.get(handle) : undefined
  if (!handle || asked === undefined) return undefined
  putOff.delete(handle)
  Reflect.deleteProperty(handle, 'listen')
  return handle.listen(Math.max(asked, backlog))
}

/**
 * Stops accepting at once: closes this handle of the listener (never shuts it down) and puts a quiet one for `duplicate` in its place, so that the
 * server keeps its address, its 'close' comes when it would have come, and `accept()` undoes it.
 */
export function stopAccepting(server: net.Server, duplicate: number): void {
  putQuietHandle(server, duplicate).close()
}

/** Puts a quiet handle for `fd` in the place of the one that the server has, which is answered, and accepts as before until it is closed. */
function putQuietHandle(server: net.Server, fd: number): ListenHandle {
  const before = inside(server)._handle
  if (!before) throw new Error('the server has no _handle')
  const after = quietHandle(fd)
  // 'onconnection' and the symbol of the owner: all that Node puts on the handle of a server.
  for (const key of Reflect.ownKeys(before)) if (key !== 'listen') Reflect.set(after, key, Reflect.get(before, key))
  if (before.hasRef?.() === false) after.unref?.()
  putOff.set(after, putOff.get(before) ?? 0)
  inside(server)._handle = after
  return before
}

/**
 * The server listens on `fd`, which it owns from now on, and no more on what it had: that one accepts what waits in its queue, and is closed. Where the server is
 * quiet it stays so, and nothing is accepted.
 */
export function replaceListener(server: net.Server, fd: number, backlog: number): void {
  const wasQuiet = quietBacklog(server) !== undefined
  const before = putQuietHandle(server, fd)
  if (wasQuiet) {
    before.close()
    return
  }
  accept(server, backlog)
  const closeWhenEmpty = (): void => {
    if (addon().pollReadable(before.fd, 0) === 1) setImmediate(closeWhenEmpty)
    else before.close()
  }
  setImmediate(closeWhenEmpty)
}

/**
 * Accepts for `server` from one more listening descriptor, which it owns from now on, until the function that is answered is called. Throws where the
 * server has no handle, or listen(2) fails. The function takes whether nobody may accept after it: then what is queued is accepted first.
 */
export function acceptAlso(server: net.Server, fd: number, backlog: number): (stops: boolean) => void {
  const handle = quietHandle(fd)
  const own = inside(server)._handle
  if (!own || own instanceof ClosedListener) {
    handle.close()
    throw new Error('the server has no _handle')
  }
  for (const key of Reflect.ownKeys(own)) if (key !== 'listen') Reflect.set(handle, key, Reflect.get(own, key))
  Reflect.deleteProperty(handle, 'listen')
  handle.unref?.()
  const answer = handle.listen(backlog)
  if (answer < 0) {
    handle.close()
    throw systemError(answer, 'listen')
  }
  return (stops) => {
    if (stops) acceptQueued(handle)
    handle.close()
  }
}

/** More than any queue holds: a client that connects without end is not waited for. */
const mostQueued = 65_536

/**
 * Accepts what the kernel has queued on a listener that is about to be closed: the last close would reset it. By Node's own `onconnection`, so that the
 * connections are counted, limited and set up as any other.
 */
function acceptQueued(handle: ListenHandle): void {
  // A quiet one belongs to somebody who accepts.
  if (!native?.accept || typeof handle.onconnection !== 'function' || putOff.has(handle)) return
  for (let count = 0; count < mostQueued; count++) {
    const fd = native.accept(handle.fd)
    if (fd < 0) return
    const socket = new net.Socket({ fd, readable: false, writable: false })
    const client = inside(socket)._handle
    inside(socket)._handle = null
    try {
      handle.onconnection(0, client)
    } catch (error) {
      // As where Node itself had called.
      setImmediate(() => { throw error })
    }
  }
}

/**
 * Closes the listening handle alone: `server.close()` would also cut idle connections and stop the timeouts of the others, and the program may have its own
 * use for it. What is queued is accepted first. What stands in its place listens for the program, and for nobody else.
 */
export function closeListener(server: net.Server): void {
  const handle = inside(server)._handle
  if (!handle || handle instanceof ClosedListener) return
  acceptQueued(handle)
  inside(server)._handle = new ClosedListener(handle)
  handle.close()
}

/** Closes the handle of a server that does not listen, or is to listen anew. False where it has none: the program closed it, or it never listened. */
export function dropListener(server: net.Server): boolean {
  const handle = inside(server)._handle
  inside(server)._handle = null
  handle?.close()
  return handle != null
}

/** The same three for UDP: a socket that is bound but does not read. */
export function bindQuietly(socket: dgram.Socket): void {
  const handle = datagramHandle(socket)
  if (typeof handle?.recvStart !== 'function') throw new Error('a dgram socket has no handle with recvStart')
  handle.recvStart = () => 0
}

/** Undoes `bindQuietly` where the socket was not bound. */
export function bindAsUsual(socket: dgram.Socket): void {
  const handle = datagramHandle(socket)
  if (handle && Object.hasOwn(handle, 'recvStart')) Reflect.deleteProperty(handle, 'recvStart')
}

export function receive(socket: dgram.Socket): number | undefined {
  const handle = datagramHandle(socket)
  if (!handle) return undefined
  if (Object.hasOwn(handle, 'recvStart')) Reflect.deleteProperty(handle, 'recvStart')
  return handle.recvStart()
}

export function stopReceiving(socket: dgram.Socket): void {
  datagramHandle(socket)?.recvStop()
}

/** Undefined when this Node has all that a handover needs; else what is missing. Makes one quiet handle and throws it away. */
export function missing(): string | undefined {
  if (!('_handle' in net.createServer())) return 'net.Server has no _handle'
  const [fd, other] = check(addon().socketPair(), 'socketpair')
  closeSync(other)
  try {
    const handle = quietHandle(fd)
    const works = handle.fd === fd
    handle.close()
    return works ? undefined : 'a handle has no fd'
  } catch (error) {
    return (error as Error).message
  }
}

/** Undefined where this Node keeps connections as moving them needs; else what is different. Tries it on a connection of its own. */
export function cannotMove(): string | undefined {
  const server = http.createServer()
  let socket: net.Socket | undefined
  let other: number | undefined
  try {
    const pair = check(addon().socketPair(), 'socketpair')
    const [fd] = pair
    other = pair[1]
    server.emit('listening') // it makes the list of connections then
    socket = adoptDescriptor(fd, server)
    server.emit('connection', socket)
    const handle = connectionHandle(socket)
    if (handle?.fd !== fd || typeof handle.writeQueueSize !== 'number' || typeof handle.reading !== 'boolean') return 'a connection has no fd, writeQueueSize or reading'
    if (!isParsed(socket)) return 'a connection has no parser that reads it'
    if (readingRequests(server)?.has(socket) !== true) return 'a connection that has sent nothing is not listed'
    primeParser(socket)
    if (readingRequests(server)?.has(socket) !== false) return 'a parser cannot be brought between two requests'
    const response = new http.ServerResponse(new http.IncomingMessage(socket))
    response.assignSocket(socket)
    const answering = isAnswering(socket)
    response.detachSocket(socket)
    if (!answering || isAnswering(socket)) return 'a response cannot be seen on its connection'
    holdReading(socket)
    // That reading stops cannot be seen within one turn of the loop; that the handle knows how to stop, and answers 0 as uv_read_stop does, can.
    if (handle.readStop() !== 0) return 'reading cannot be stopped'
    releaseReading(socket)
    return undefined
  } catch (error) {
    return (error as Error).message
  } finally {
    socket?.destroy()
    if (other !== undefined) closeSync(other)
    server.close()
  }
}
