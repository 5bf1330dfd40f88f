/**
 * The door through which every listen() of an adopted server goes: inherit or bind.
 *
 * Node publishes `tracing:net.server.listen` before it binds, with options that may be changed; a descriptor put there is listened on instead. So
 * one subscription serves http, https, http2 and net, Fastify's hidden second server for `localhost`, and servers that a user made for an Express app.
 * For UDP there is no such channel: bind() of the instance is replaced.
 */

import type dgram from 'node:dgram'
import { subscribe } from 'node:diagnostics_channel'
import { chmodSync } from 'node:fs'
import type net from 'node:net'
import { HandoverError } from './errors.js'
import { bindUnix, defaultBacklog, type Offered } from './inventory.js'
import type { Asked } from './listeners.js'
import { check, native } from './native.js'
import * as inside from './private.js'

/** What the generation decides. */
export interface Doorkeeper {
  isOurs(owner: net.Server | dgram.Socket): boolean
  /**
   * Before an adopted server listens. An offered listener: listen on that one. An error: the listen() must fail with it.
   * Undefined: bind.
   */
  before(owner: net.Server | dgram.Socket, asked: Asked): Offered | HandoverError | undefined
  after(owner: net.Server | dgram.Socket, asked: Asked, claimed: Offered | undefined, backlog: number): void
  failed(owner: net.Server | dgram.Socket, claimed: Offered | undefined, error: Error): void
}

interface ListenOptions {
  fd?: number | undefined
  port?: unknown
  host?: unknown
  path?: unknown
  backlog?: unknown
  ipv6Only?: unknown
  readableAll?: unknown
  writableAll?: unknown
  _handle?: unknown
  handle?: unknown
}

/** Not a descriptor of any process: listen() on it fails in Node's usual way, with an 'error' event. */
const noDescriptor = 0x7fff_ffff

interface Call {
  readonly asked: Asked
  readonly claimed: Offered | undefined
  readonly error: HandoverError | undefined
  readonly backlog: number
  /** Puts the user's options back as they were. */
  readonly restore: () => void
}

/** What a listen() call asks for; undefined for a handle or arguments that Node will refuse. */
function askedOf(options: ListenOptions): Asked | undefined {
  if (options._handle !== undefined || options.handle !== undefined || typeof (options as { listen?: unknown }).listen === 'function') return undefined
  if (typeof options.fd === 'number' && options.fd >= 0) return { kind: 'tcp', fd: options.fd }
  const { port, host, path } = options
  if (typeof path === 'string' && port === undefined) return { kind: 'unix', path }
  if (typeof port !== 'number' && typeof port !== 'string' && port !== undefined && port !== null) return undefined
  return {
    kind: 'tcp',
    port: Number(port ?? 0),
    host: typeof host === 'string' && host !== '' ? host : undefined,
    ipv6Only: options.ipv6Only === true
  }
}

export function openDoor(keeper: Doorkeeper): void {
  const calls = new WeakMap<net.Server, Call>()

  const useFd = (options: ListenOptions, fd: number): (() => void) => {
    const before = Object.getOwnPropertyDescriptor(options, 'fd')
    options.fd = fd
    return () => {
      if (before) Object.defineProperty(options, 'fd', before)
      else Reflect.deleteProperty(options, 'fd')
    }
  }

  const start = (server: net.Server, options: ListenOptions): Call | undefined => {
    const asked = askedOf(options)
    if (!asked) return undefined
    const backlog = typeof options.backlog === 'number' ? options.backlog : 0
    const answer = keeper.before(server, asked)
    const nothing = { asked, claimed: undefined, error: undefined, backlog, restore: () => undefined }
    if (answer instanceof HandoverError) return { ...nothing, error: answer, restore: useFd(options, noDescriptor) }
    if (answer) {
      inside.listenQuietly(answer.fd, check(native?.duplicate(answer.fd) ?? -1, 'fcntl'))
      return { ...nothing, claimed: answer, restore: useFd(options, answer.fd) }
    }
    if (asked.kind !== 'unix' || asked.path === undefined || asked.path.startsWith('\0') || !native) return nothing
    const fd = bindUnix(asked.path, backlog || defaultBacklog)
    if (fd === undefined) return nothing
    const mode = 0o755 | (options.readableAll === true ? 0o444 : 0) | (options.writableAll === true ? 0o222 : 0)
    if (mode !== 0o755) chmodSync(asked.path, mode)
    // Quiet for a moment, only to learn the backlog that Node makes of its arguments.
    inside.listenQuietly(fd, check(native.duplicate(fd), 'fcntl'))
    return { ...nothing, restore: useFd(options, fd) }
  }

  subscribe('tracing:net.server.listen:asyncStart', (message) => {
    const { server, options } = message as { server: net.Server; options: ListenOptions }
    if (!keeper.isOurs(server)) return
    const call = start(server, options)
    if (call) calls.set(server, call)
  })

  subscribe('tracing:net.server.listen:asyncEnd', (message) => {
    const { server } = message as { server: net.Server }
    const call = calls.get(server)
    if (!call) return
    calls.delete(server)
    call.restore()
    if (call.asked.kind === 'unix' && call.asked.path !== undefined) inside.setPipeName(server, call.asked.path)
    else if (call.claimed?.about.kind === 'unix') inside.setPipeName(server, call.claimed.about.address)
    const backlog = Math.max(call.backlog, inside.quietBacklog(server) ?? 0)
    if (!call.claimed) inside.accept(server, backlog)
    keeper.after(server, call.asked, call.claimed, backlog || defaultBacklog)
  })

  subscribe('tracing:net.server.listen:error', (message) => {
    const { server, error } = message as { server: net.Server; error: Error }
    const call = calls.get(server)
    if (!call) return
    calls.delete(server)
    call.restore()
    // The 'error' event comes in the next tick with this object: let it say what really happened.
    if (call.error) becomeHandoverError(error, call.error)
    keeper.failed(server, call.claimed, error)
  })
}

function becomeHandoverError(error: Error, is: HandoverError): void {
  for (const key of Reflect.ownKeys(error)) if (key !== 'stack') Reflect.deleteProperty(error, key)
  for (const key of Reflect.ownKeys(is)) Object.defineProperty(error, key, Object.getOwnPropertyDescriptor(is, key) ?? {})
  Object.setPrototypeOf(error, HandoverError.prototype)
}

/** The same for a UDP socket. */
export function openDatagramDoor(keeper: Doorkeeper, socket: dgram.Socket): void {
  const bind = socket.bind.bind(socket) as (...args: unknown[]) => dgram.Socket
  const kind = 'udp'
  socket.bind = ((...args: unknown[]): dgram.Socket => {
    if (!keeper.isOurs(socket)) return bind(...args)
    const [first, second] = args
    const options = typeof first === 'object' && first !== null ? (first as { port?: number; address?: string; fd?: number }) : undefined
    const address = options ? options.address : typeof second === 'string' ? second : undefined
    const any = socketType(socket) === 'udp6' ? '::' : '0.0.0.0'
    const asked: Asked = typeof options?.fd === 'number'
      ? { kind, fd: options.fd }
      : { kind, port: Number((options ? options.port : typeof first === 'function' ? 0 : first) ?? 0), host: address === undefined || address === '' ? any : address }

    const answer = keeper.before(socket, asked)
    if (answer instanceof HandoverError) {
      process.nextTick(() => {
        keeper.failed(socket, undefined, answer)
        socket.emit('error', answer)
      })
      return socket
    }
    const failed = (error: Error): void => { keeper.failed(socket, answer, error) }
    socket.once('error', failed)
    socket.once('listening', () => { socket.off('error', failed) })
    if (!answer) {
      socket.once('listening', () => { keeper.after(socket, asked, undefined, 0) })
      return bind(...args)
    }
    inside.bindQuietly(socket)
    const listening = args.findLast((argument) => typeof argument === 'function') as (() => void) | undefined
    // bind({ fd }) emits 'listening' before it returns; every other bind() emits it later.
    withheld(socket, 'listening', () => bind({ fd: answer.fd }, listening))
    keeper.after(socket, asked, answer, 0)
    return socket
  })
}

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
