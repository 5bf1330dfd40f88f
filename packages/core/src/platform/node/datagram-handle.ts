/** The handle of a UDP socket: binds without reading, and reads again. Node publishes no event before it binds one. */

import type dgram from 'node:dgram'
import { behindSymbol } from './inside.js'

/** Membership belongs to the socket, not to a process that has it. */
const leaves = ['dropMembership', 'dropSourceSpecificMembership'] as const

interface DatagramHandle {
  readonly fd: number
  recvStart(): number
  recvStop(): number
}

interface DatagramState {
  readonly handle?: DatagramHandle | null
  readonly reuseAddr?: boolean
  readonly reusePort?: boolean
}

const datagramState = (owner: object): DatagramState | undefined => behindSymbol(owner, 'state symbol') as DatagramState | undefined

export const datagramHandle = (owner: object): DatagramHandle | undefined => datagramState(owner)?.handle ?? undefined

/** Whether another process may bind the same UDP port, as multicast asks for; a joined group cannot be joined again. */
export function sharesPort(socket: dgram.Socket): boolean {
  const { reuseAddr, reusePort } = datagramState(socket) ?? {}
  return reuseAddr === true || reusePort === true
}

export const isIPv6 = (socket: dgram.Socket): boolean => (socket as unknown as { type: string }).type === 'udp6'

/** Lets the next bind() only bind: the socket does not read until `receive`. */
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
  for (const leave of leaves) Reflect.deleteProperty(socket, leave)
  if (Object.hasOwn(handle, 'recvStart')) Reflect.deleteProperty(handle, 'recvStart')
  return handle.recvStart()
}

/** Another process may receive on the same socket from now on, also what is sent to multicast groups: the program leaves none of them. */
export function stopReceiving(socket: dgram.Socket): void {
  datagramHandle(socket)?.recvStop()
  for (const leave of leaves) Object.defineProperty(socket, leave, { value: () => undefined, configurable: true, writable: true })
}

/** A claimed socket is in the multicast groups of the process before: joining one of them succeeds as on a new socket. ip(7) */
export function joinAgain(socket: dgram.Socket): void {
  for (const name of ['addMembership', 'addSourceSpecificMembership'] as const) {
    const join: (...args: [string, string]) => void = socket[name].bind(socket)
    socket[name] = (...args: [string, string]): void => {
      try {
        join(...args)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
      }
    }
  }
}
