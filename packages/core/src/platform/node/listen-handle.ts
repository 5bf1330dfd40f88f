/**
 * The listening handle of a server, which Node does not document: how one server is given a handle, goes silent, accepts again.
 *
 * This folder is the only place that touches private parts of Node. Each has its reason, is looked for before it is relied on
 * (support-check.ts), and has a fallback: where one is missing, the process cannot be reloaded and says so; it still listens and drains.
 * The same on Node 20, 22, 24 and 26.
 */

import net from 'node:net'
import { constants } from 'node:os'
import type tls from 'node:tls'
import { addon, native, systemError } from '../native.js'
import { ClosedListener } from './closed-listener.js'
import { inside, type ListenHandle } from './inside.js'

/**
 * Sets what `server.address()` answers on a Unix socket: Node answers null for an adopted one, and Fastify then throws while
 * it logs the address.
 */
export function setPipeName(server: net.Server, path: string): void {
  inside(server)._pipeName = path
}

/** Whether listen() got a handle, or another server, in the place of options: Node then listens on that. */
export function isHandle(options: object): boolean {
  const { _handle, handle, listen } = options as { _handle?: unknown; handle?: unknown; listen?: unknown }
  return _handle !== undefined || handle !== undefined || typeof listen === 'function'
}

/** Keys of session tickets that the program gave itself: `options.ticketKeys`, which may be shared with other machines. */
export function hasOwnTicketKeys(server: tls.Server): boolean {
  return (server as unknown as { ticketKeys?: unknown }).ticketKeys !== undefined
}

/** The backlogs that Node would have listened with, of the handles that are quiet. */
const putOff = new WeakMap<ListenHandle, number>()

/**
 * A handle for `fd`, which it owns from now on; it accepts nothing until `accept()`. Node has no way to open a listening descriptor without
 * accepting from it at once, and a successor must claim its listeners before it may accept: listen(2) and the watching of the descriptor
 * happen in `handle.listen`, so that is put off.
 */
export function quietHandle(fd: number): ListenHandle {
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
 * Before `server.listen()` looks for a descriptor of its own: gives it `fd`. Whatever its arguments say, Node then listens on the handle
 * that the server has, and this one accepts when `accept(server)` is called.
 */
export function listenQuietly(server: net.Server, fd: number): void {
  inside(server)._handle = quietHandle(fd)
}

/**
 * Before `server.listen()` makes a handle: that one binds, and listens when `accept(server)` is called. `isTaken` says whether another
 * server of this process is bound there in the same way, which the kernel allows to those that do not listen yet (socket(7), SO_REUSEADDR).
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
 * Stops accepting at once: closes this handle of the listener (never shuts it down) and puts a quiet one for `duplicate` in its place, so
 * that the server keeps its address, its 'close' comes when it would have come, and `accept()` undoes it.
 */
export function stopAccepting(server: net.Server, duplicate: number): void {
  putQuietHandle(server, duplicate).close()
}

/**
 * Puts a quiet handle for `fd` in the place of the one that the server has, which is answered, and accepts as before until it is closed.
 */
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
 * The server listens on `fd`, which it owns from now on, and no more on what it had: that one accepts what waits in its queue, and is
 * closed. Where the server is quiet it stays so, and nothing is accepted.
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
 * Accepts for `server` from one more listening descriptor, which it owns from now on, until the function that is answered is called. Throws
 * where the server has no handle, or listen(2) fails. The function takes whether nobody may accept after it: then what is queued is
 * accepted first.
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
 * Accepts what the kernel has queued on a listener that is about to be closed: the last close would reset it. By Node's own `onconnection`,
 * so that the connections are counted, limited and set up as any other.
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
 * Closes the listening handle alone: `server.close()` would also cut idle connections and stop the timeouts of the others, and the program
 * may have its own use for it. What is queued is accepted first. What stands in its place listens for the program, and for nobody else.
 */
export function closeListener(server: net.Server): void {
  const handle = inside(server)._handle
  if (!handle || handle instanceof ClosedListener) return
  acceptQueued(handle)
  inside(server)._handle = new ClosedListener(handle)
  handle.close()
}

/**
 * Closes the handle of a server that does not listen, or is to listen anew. False where it has none: the program closed it, or it never
 * listened.
 */
export function dropListener(server: net.Server): boolean {
  const handle = inside(server)._handle
  inside(server)._handle = null
  handle?.close()
  return handle != null
}
