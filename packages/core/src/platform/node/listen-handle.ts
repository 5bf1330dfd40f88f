/**
 * The listening handle of a server, which Node does not document: gives a server a handle, silences it, and lets it accept again.
 *
 * Only this folder touches private parts of Node. Each has its reason, is checked before it is used (support-check.ts), and has a fallback:
 * where one is missing, the process says that it cannot be reloaded; it still listens and drains. The same on Node 20, 22, 24 and 26.
 */

import { closeSync } from 'node:fs'
import net from 'node:net'
import { constants } from 'node:os'
import { addon, native, systemError } from '../native.js'
import { ClosedListener } from './closed-listener.js'
import { inside, type ListenHandle } from './inside.js'
import { inOwnContext } from './own-context.js'

/** What `server.address()` answers on a Unix socket: for an adopted one Node answers null, and Fastify throws when it logs it. */
export function setPipeName(server: net.Server, path: string): void {
  inside(server)._pipeName = path
}

/** The number of the last listen() or close(): while Node looks a host name up, it shows that the program has closed the server. */
export const listeningId = (server: net.Server): number => (server as unknown as { _listeningId?: number })._listeningId ?? NaN

/** Whether listen() got a handle, or another server, in the place of options: Node then listens on that. */
export function isHandle(options: object): boolean {
  const { _handle, handle, listen } = options as { _handle?: unknown; handle?: unknown; listen?: unknown }
  return _handle !== undefined || handle !== undefined || typeof listen === 'function'
}

/** The quiet handles, with the backlogs that Node asked for. */
const putOff = new WeakMap<ListenHandle, number>()

interface Maker {
  new (type: number): ListenHandle & { open(fd: number): number }
  readonly prototype: object
}
/** TCP and Pipe of Node: a `net.Socket` finds out which of them a descriptor needs, and is thrown away, which takes most of the time. */
const makers = new Map<'tcp' | 'unix', Maker>()
/** TCPConstants.SERVER, PipeConstants.SERVER: what Node makes its listening handles with. */
const serverType = 1

function openHandle(fd: number, make: Maker | undefined): ListenHandle | undefined {
  if (!make || !('open' in make.prototype)) return undefined
  const handle = new make(serverType)
  if (handle.open(fd) === 0) return handle
  handle.close()
  return undefined
}

/**
 * A handle that owns `fd` and accepts nothing until `accept()`. A successor claims its listeners before it may accept, but Node accepts
 * from a listening descriptor at once: `handle.listen`, which calls listen(2) and watches the descriptor, is put off. `make`: of a handle
 * for the same kind of socket.
 */
export function quietHandle(fd: number, make?: Maker): ListenHandle {
  const handle = openHandle(fd, make) ?? handleOfSocket(fd)
  if (typeof handle.listen !== 'function') throw new Error('a handle has no listen()')
  putOff.set(handle, 0)
  handle.listen = (backlog) => {
    putOff.set(handle, backlog)
    return 0
  }
  return handle
}

/** A socket is the public way to a handle that does not listen yet. */
function handleOfSocket(fd: number): ListenHandle {
  const socket = new net.Socket({ fd, readable: false, writable: false })
  const handle = inside(socket)._handle
  if (!handle) throw new Error('a socket has no _handle')
  inside(socket)._handle = null
  return handle
}

const makerOf = (handle: ListenHandle): Maker => handle.constructor as Maker

/** Call it as `server.listen()` begins: Node then listens on this handle for `fd`, which accepts at `accept(server)`. */
export function listenQuietly(server: net.Server, fd: number, kind: 'tcp' | 'unix'): void {
  const handle = quietHandle(fd, makers.get(kind))
  makers.set(kind, makerOf(handle))
  inside(server)._handle = handle
}

/**
 * Call it as `server.listen()` begins: its handle binds, and listens at `accept(server)`. `isTaken`: another server of this process is
 * bound there in this way, which the kernel allows as long as none listens (socket(7), SO_REUSEADDR).
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
        // libuv delays EADDRINUSE of bind(2) until the next call. uv_tcp_bind
        const error = handle.getsockname?.(bound) ?? 0
        if (error < 0) return error
        if (isTaken(bound.address ?? '', bound.port ?? 0)) return -constants.errno.EADDRINUSE
        putOff.set(handle, backlog)
        return 0
      }
    }
  })
}

/** Undoes `putListenOff` where no handle was created. */
export function listenAsUsual(server: net.Server): void {
  if (!Object.getOwnPropertyDescriptor(server, '_handle')?.get) return
  Object.defineProperty(server, '_handle', { value: null, configurable: true, enumerable: true, writable: true })
}

/** Lets the `server.listen()` that has begun fail, in Node's own way and time. */
export function refuseToListen(server: net.Server): void {
  inside(server)._handle = { fd: -1, listen: () => -constants.errno.EPERM, close: () => undefined }
}

/** The backlog that Node asked for, of a server that is quiet. */
export function quietBacklog(server: net.Server): number | undefined {
  const handle = inside(server)._handle
  return handle ? putOff.get(handle) : undefined
}

/** Lets a quiet server accept, with a backlog of at least `backlog`. Undefined: it is not quiet. */
export function accept(server: net.Server, backlog: number): number | undefined {
  const handle = inside(server)._handle
  const asked = handle ? putOff.get(handle) : undefined
  if (!handle || asked === undefined) return undefined
  putOff.delete(handle)
  Reflect.deleteProperty(handle, 'listen')
  return handle.listen(Math.max(asked, backlog))
}

/**
 * Stops accepting at once: closes the handle (never shuts it down) and puts a quiet one for `duplicate` in its place. The server keeps its
 * address, emits 'close' when it would have, and accepts again by `accept()`.
 */
export function stopAccepting(server: net.Server, duplicate: number): void {
  putQuietHandle(server, duplicate).close()
}

/** Puts a quiet handle for `fd` in the place of the server's own, which is returned, and accepts until it is closed. */
function putQuietHandle(server: net.Server, fd: number): ListenHandle {
  const before = inside(server)._handle
  if (!before) throw new Error('the server has no _handle')
  const after = quietHandle(fd, makerOf(before))
  // Node puts 'onconnection' and the symbol of the owner on a handle.
  for (const key of Reflect.ownKeys(before)) if (key !== 'listen') Reflect.set(after, key, Reflect.get(before, key))
  if (before.hasRef?.() === false) after.unref?.()
  putOff.set(after, putOff.get(before) ?? 0)
  inside(server)._handle = after
  return before
}

/** The server listens on `fd`, and owns it. Its former handle accepts what it has queued, and is closed. A quiet server stays quiet. */
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
 * Accepts for `server`, which owns it, from one more listening descriptor, until the result is called. Throws where the server has no
 * handle, or listen(2) fails. `stops`: no process accepts after that, so that what is queued is accepted first.
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
  return (stops) => { closeHandle(handle, stops) }
}

/** More than any queue holds, since clients may connect without end. */
const mostQueued = 65_536

/**
 * Closes a listening handle. `acceptsQueued`: it may be the last of its socket, and the kernel resets what is queued then. So that is
 * accepted first. Node's `onconnection` sets the connections up.
 */
function closeHandle(handle: ListenHandle, acceptsQueued: boolean): void {
  // Another process accepts from a quiet one.
  const accepts = acceptsQueued && native && typeof handle.onconnection === 'function' && !putOff.has(handle)
  // The copy is closed in the same system step that finds its queue empty.
  const fd = accepts ? addon().duplicate(handle.fd) : -1
  handle.close()
  if (fd < 0) return
  for (let count = 0; count < mostQueued; count++) {
    const connection = addon().accept(fd, true)
    if (connection < 0) return
    const client = handleOfSocket(connection)
    try {
      inOwnContext(() => { handle.onconnection!(0, client) })
    } catch (error) {
      // As if Node had called it.
      setImmediate(() => { throw error })
    }
  }
  closeSync(fd)
}

/**
 * Accepts what is queued, and closes the listening handle alone: `server.close()` would also cut idle connections and stop the timeouts of
 * others, and the program may have replaced it. For the program the server still listens (closed-listener.ts).
 */
export function closeListener(server: net.Server): void {
  const handle = inside(server)._handle
  if (!handle || handle instanceof ClosedListener) return
  inside(server)._handle = new ClosedListener(handle)
  closeHandle(handle, true)
}

/** Closes the handle of a server that does not listen, or is to listen anew. False: it has none (closed, or never listened). */
export function dropListener(server: net.Server): boolean {
  const handle = inside(server)._handle
  inside(server)._handle = null
  handle?.close()
  return handle != null
}
