/**
 * Every bind() of a UDP socket goes through here: inherit or bind, as listen-hook.ts does for servers.
 *
 * Node has no channel for bind(), so the method of each instance is replaced. Sockets of clients are left alone (`ListenHook.adopts`).
 */

import type dgram from 'node:dgram'
import { errorMonitor } from 'node:events'
import { HandoverError } from '../errors.js'
import { bindAsUsual, bindQuietly, isIPv6, joinAgain, receive } from '../platform/node/datagram-handle.js'
import { subscribe } from '../platform/subscriptions.js'
import { emitter, type ListenHook } from './listen-hook.js'
import type { AskedAddress } from './listener-match.js'
import { openActivated } from './socket-activation.js'

const hooked = new WeakSet<dgram.Socket>()

/** Runs `act`. If it emits an event of this name, the event comes in the next tick. */
function postponing(emitter: NodeJS.EventEmitter, name: string, act: () => void): void {
  const own = Object.getOwnPropertyDescriptor(emitter, 'emit')
  const emit = emitter.emit.bind(emitter)
  emitter.emit = (event: string | symbol, ...args: unknown[]): boolean => {
    if (event !== name) return emit(event, ...args)
    process.nextTick(() => emitter.emit(event, ...args))
    return true
  }
  try {
    act()
  } finally {
    if (own) Object.defineProperty(emitter, 'emit', own)
    else Reflect.deleteProperty(emitter, 'emit')
  }
}

function askedOf(socket: dgram.Socket, [first, second]: readonly unknown[]): AskedAddress {
  const kind = 'udp'
  const options = typeof first === 'object' && first !== null ? (first as { port?: number; address?: string; fd?: number }) : undefined
  if (typeof options?.fd === 'number') return { kind, fd: options.fd }
  const port = options ? options.port : typeof first === 'function' ? 0 : first
  const address = options ? options.address : typeof second === 'string' ? second : ''
  const any = isIPv6(socket) ? '::' : '0.0.0.0'
  return { kind, port: Number(port ?? 0), host: address === undefined || address === '' ? any : address }
}

/** From now on bind() of this socket goes through `hook`. */
export function hookBind(hook: ListenHook, socket: dgram.Socket): void {
  if (hooked.has(socket)) return
  hooked.add(socket)
  const bind = socket.bind.bind(socket) as (...args: unknown[]) => dgram.Socket
  socket.bind = ((...args: unknown[]): dgram.Socket => {
    const asked = askedOf(socket, args)
    if (!hook.adopts(socket, asked)) return bind(...args)

    const answer = hook.before(socket, asked)
    if (answer instanceof HandoverError) {
      process.nextTick(() => {
        hook.failed(socket, asked, undefined, answer)
        socket.emit('error', answer)
      })
      return socket
    }
    const opened = answer ? undefined : openActivated(asked)
    const isQuiet = !answer && (asked.fd === undefined || opened !== undefined) && hook.isQuiet()
    const failed = (error: Error): void => {
      if (isQuiet) bindAsUsual(socket)
      hook.failed(socket, asked, answer, error)
    }
    const bound = (): void => {
      emitter(socket).off(errorMonitor, failed)
      if (isQuiet && !hook.isQuiet()) receive(socket)
      hook.after(socket, asked, answer, 0)
    }
    const listening = args.findLast((argument) => typeof argument === 'function') as (() => void) | undefined
    try {
      if (answer || isQuiet) bindQuietly(socket)
      if (answer) joinAgain(socket)
      const inherited = answer ?? opened
      if (inherited) {
        // bind({ fd }) emits 'listening' before it returns; every other bind() emits it later.
        postponing(socket, 'listening', () => bind({ fd: inherited.fd }, listening))
        bound()
      } else {
        emitter(socket).once(errorMonitor, failed)
        socket.prependOnceListener('listening', bound)
        bind(...args)
      }
    } catch (error) {
      emitter(socket).off(errorMonitor, failed).off('listening', bound)
      failed(error as Error)
      throw error
    }
    return socket
  })
}

/** The same for every UDP socket that is created from now on. Node publishes each before the program can bind it. */
export function installBindHook(hook: ListenHook): void {
  subscribe('udp.socket', (message) => { hookBind(hook, (message as { socket: dgram.Socket }).socket) })
}
