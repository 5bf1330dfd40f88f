import type dgram from 'node:dgram'
import { subscribe } from 'node:diagnostics_channel'
import { errorMonitor } from 'node:events'
import { HandoverError } from '../errors.js'
import { bindAsUsual, bindQuietly, receive } from '../platform/node/datagram-handle.js'
import { emitter, type ListenHook } from './listen-hook.js'
import type { AskedAddress } from './listener-match.js'
import { openActivated } from './socket-activation.js'

const withDatagramDoor = new WeakSet<dgram.Socket>()

const socketType = (socket: dgram.Socket): string => (socket as unknown as { type: string }).type

/** Runs `act`; an event of this name that is emitted meanwhile comes in the next tick. */
function withheld(emitter: NodeJS.EventEmitter, name: string, act: () => void): void {
  const own = Object.getOwnPropertyDescriptor(emitter, 'emit')
  const emit = emitter.emit.bind(emitter)
  const put = (): void => {
    if (own) Object.defineProperty(emitter, 'emit', own)
    else Reflect.deleteProperty(emitter, 'emit')
  }
  emitter.emit = (event: string | symbol, ...args: unknown[]): boolean => {
    if (event !== name) return emit(event, ...args)
    process.nextTick(() => emitter.emit(event, ...args))
    return true
  }
  try {
    act()
  } finally {
    put()
  }
}

/** The same for a UDP socket. */
export function hookBind(keeper: ListenHook, socket: dgram.Socket): void {
  if (withDatagramDoor.has(socket)) return
  withDatagramDoor.add(socket)
  const bind = socket.bind.bind(socket) as (...args: unknown[]) => dgram.Socket
  const kind = 'udp'
  socket.bind = ((...args: unknown[]): dgram.Socket => {
    const [first, second] = args
    const options = typeof first === 'object' && first !== null ? (first as { port?: number; address?: string; fd?: number }) : undefined
    const address = options ? options.address : typeof second === 'string' ? second : undefined
    const any = socketType(socket) === 'udp6' ? '::' : '0.0.0.0'
    const asked: AskedAddress = typeof options?.fd === 'number'
      ? { kind, fd: options.fd }
      : { kind, port: Number((options ? options.port : typeof first === 'function' ? 0 : first) ?? 0), host: address === undefined || address === '' ? any : address }
    if (!keeper.isOurs(socket, asked)) return bind(...args)

    const answer = keeper.before(socket, asked)
    if (answer instanceof HandoverError) {
      process.nextTick(() => {
        keeper.failed(socket, asked, undefined, answer)
        socket.emit('error', answer)
      })
      return socket
    }
    const opened = answer ? undefined : openActivated(asked)
    const isQuiet = !answer && (asked.fd === undefined || opened !== undefined) && keeper.isQuiet()
    const failed = (error: Error): void => {
      if (isQuiet) bindAsUsual(socket)
      keeper.failed(socket, asked, answer, error)
    }
    const bound = (): void => {
      emitter(socket).off(errorMonitor, failed)
      if (isQuiet && !keeper.isQuiet()) receive(socket)
      keeper.after(socket, asked, answer, 0)
    }
    const listening = args.findLast((argument) => typeof argument === 'function') as (() => void) | undefined
    try {
      if (answer) {
        bindQuietly(socket)
        // bind({ fd }) emits 'listening' before it returns; every other bind() emits it later.
        withheld(socket, 'listening', () => bind({ fd: answer.fd }, listening))
        bound()
      } else if (opened) {
        if (isQuiet) bindQuietly(socket)
        withheld(socket, 'listening', () => bind({ fd: opened.fd }, listening))
        bound()
      } else {
        if (isQuiet) bindQuietly(socket)
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

/** The same for every UDP socket that is made from now on; Node tells of each before its maker can bind it. */
export function installBindHook(keeper: ListenHook): void {
  subscribe('udp.socket', (message) => { hookBind(keeper, (message as { socket: dgram.Socket }).socket) })
}
