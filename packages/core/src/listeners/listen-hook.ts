/**
 * The door through which every listen() of an adopted server goes: inherit or bind.
 *
 * Node publishes `tracing:net.server.listen` before it binds, and listens on the handle that the server has by then. So one subscription serves
 * http, https, http2 and net with all that listen() accepts, Fastify's hidden second server for `localhost`, and servers that a user made for an
 * Express app. For UDP there is no such channel: bind() of the instance is replaced.
 */

import type dgram from 'node:dgram'
import { subscribe } from 'node:diagnostics_channel'
import { errorMonitor, type EventEmitter } from 'node:events'
import type net from 'node:net'
import { activation, type Opened } from './socket-activation.js'
import { HandoverError } from '../errors.js'
import { bindUnix, type Offered } from './listener-registry.js'
import type { Asked } from './listener-match.js'
import { check, native } from '../platform/native.js'
import * as inside from '../platform/node/listen-handle.js'

/** What the generation decides. */
export interface Doorkeeper {
  /** `asked`: of a UDP socket, of which many belong to clients. */
  isOurs(owner: net.Server | dgram.Socket, asked?: Asked): boolean
  /** Nothing may be accepted yet: what is bound now listens at the commit. */
  isQuiet(): boolean
  /** A TCP listener of this process that does not listen yet is bound there. */
  isBoundQuietly(address: string, port: number): boolean
  /**
   * Before an adopted server listens. An offered listener: listen on that one. An error: the listen() must fail with it.
   * Undefined: bind.
   */
  before(owner: net.Server | dgram.Socket, asked: Asked | undefined): Offered | HandoverError | undefined
  after(owner: net.Server | dgram.Socket, asked: Asked | undefined, claimed: Offered | undefined, backlog: number): void
  /** Without an error: the program closed it before it listened. */
  failed(owner: net.Server | dgram.Socket, asked: Asked | undefined, claimed: Offered | undefined, error: Error | undefined): void
}

const withoutDoor = new WeakSet<net.Server>()

/** For servers of Handover's own: whatever else is adopted, these are none of the program's listeners. */
export function passDoor<T extends net.Server>(server: T): T {
  withoutDoor.add(server)
  return server
}

interface ListenOptions {
  readonly fd?: unknown
  readonly port?: unknown
  readonly host?: unknown
  readonly path?: unknown
  readonly backlog?: unknown
  readonly ipv6Only?: unknown
  readonly readableAll?: unknown
  readonly writableAll?: unknown
  readonly _handle?: unknown
  readonly handle?: unknown
}

/** A listen() that has begun: with a host name it waits for the name to be resolved. */
interface Call {
  /** Undefined for a handle: the program opened it, and nothing can be claimed in its place. */
  readonly asked: Asked | undefined
  readonly claimed: Offered | undefined
  readonly error: HandoverError | undefined
  /** By systemd. */
  readonly opened: Opened | undefined
  readonly backlog: number
  /** It only binds. */
  readonly isQuiet: boolean
}

const isPort = (port: unknown): boolean =>
  (typeof port === 'number' || (typeof port === 'string' && port.trim() !== '')) && Number.isInteger(Number(port)) && Number(port) >= 0 && Number(port) <= 65_535

/** Node takes a handle or another server in the place of the options. */
const isHandle = (options: ListenOptions): boolean =>
  options._handle !== undefined || options.handle !== undefined || typeof (options as { listen?: unknown }).listen === 'function'

/** What a listen() call asks for, read as Node reads it; undefined for arguments that Node will refuse. */
function askedOf(options: ListenOptions): Asked | undefined {
  const { fd, host, path } = options
  if (typeof fd === 'number' && fd >= 0) return { kind: 'tcp', fd }
  const nothing = Object.keys(options).length === 0 || typeof options.port === 'function'
  const port = nothing || ('port' in options && (options.port ?? undefined) === undefined) ? 0 : options.port
  if (typeof port === 'number' || typeof port === 'string') {
    if (!isPort(port)) return undefined
    return { kind: 'tcp', port: Number(port), host: typeof host === 'string' && host !== '' ? host : undefined, ipv6Only: options.ipv6Only === true }
  }
  return typeof path === 'string' && path !== '' ? { kind: 'unix', path } : undefined
}

// The types of servers know their own events only.
const emitter = (owner: EventEmitter): EventEmitter => owner

export function openDoor(keeper: Doorkeeper): void {
  const calls = new WeakMap<net.Server, Call>()

  const start = (server: net.Server, options: ListenOptions): Call | undefined => {
    const handle = isHandle(options)
    const asked = handle ? undefined : askedOf(options)
    if (!asked && !handle) return undefined
    const answer = keeper.before(server, asked)
    const refused = answer instanceof HandoverError
    // A handle, or a descriptor of the program's own, may listen already.
    const opened = answer || !asked ? undefined : activation().open(asked)
    const isQuiet = !refused && !answer && asked !== undefined && (asked.fd === undefined || opened !== undefined) && keeper.isQuiet()
    const backlog = Math.max(typeof options.backlog === 'number' ? options.backlog : 0, opened?.backlog ?? 0)
    const call = { asked, claimed: refused ? undefined : answer, error: refused ? answer : undefined, opened, backlog, isQuiet }
    inside.listenAsUsual(server)
    if (refused) {
      inside.refuseToListen(server)
    } else if (answer) {
      inside.listenQuietly(server, answer.fd)
    } else if (opened) {
      inside.listenQuietly(server, opened.fd)
    } else if (asked?.path !== undefined && !asked.path.includes('\0')) {
      // One with a zero byte is in the abstract namespace, or for Node to refuse.
      // Node says that it is in use, where another server of this process is about to listen there.
      const fd = keeper.isBoundQuietly(asked.path, 0) ? undefined : bindUnix(asked.path, !isQuiet)
      if (fd !== undefined) inside.listenQuietly(server, fd)
    } else if (isQuiet) {
      inside.putListenOff(server, (address, port) => keeper.isBoundQuietly(address, port))
    }
    return call
  }

  subscribe('tracing:net.server.listen:asyncStart', (message) => {
    const { server, options } = message as { server: net.Server; options: ListenOptions }
    if (withoutDoor.has(server) || !keeper.isOurs(server)) return
    const call = start(server, options)
    if (!call) return
    calls.set(server, call)
    // A host name that cannot be resolved is told by the event alone.
    emitter(server).once(errorMonitor, onError).once('close', onClose)
  })

  subscribe('tracing:net.server.listen:asyncEnd', (message) => {
    const { server } = message as { server: net.Server }
    const call = calls.get(server)
    if (!call) return
    calls.delete(server)
    emitter(server).off(errorMonitor, onError).off('close', onClose)
    const { asked, claimed, opened } = call
    if (asked?.fd !== undefined && claimed?.about.kind === 'unix') inside.setPipeName(server, claimed.about.address)
    if (opened?.path !== undefined) inside.setPipeName(server, opened.path)
    const backlog = Math.max(inside.quietBacklog(server) ?? 0, call.backlog)
    if (!claimed && !(call.isQuiet && keeper.isQuiet())) inside.accept(server, backlog)
    keeper.after(server, asked, claimed, backlog)
  })

  const failed = (server: net.Server, error: Error): void => {
    const call = calls.get(server)
    if (!call) return
    calls.delete(server)
    emitter(server).off(errorMonitor, onError).off('close', onClose)
    // The 'error' event comes in the next tick with this object: let it say what really happened.
    if (call.error) becomeHandoverError(error, call.error)
    // The server owns what it claimed; the offer gets a copy back.
    const claimed = call.claimed && native ? { ...call.claimed, fd: check(native.duplicate(call.claimed.fd), 'fcntl') } : undefined
    if (call.claimed) inside.dropListener(server)
    inside.listenAsUsual(server)
    keeper.failed(server, call.asked, claimed, error)
  }

  function onError(this: net.Server, error: Error): void {
    failed(this, error)
  }

  /** While its host name was looked up. What it had claimed is closed with it. */
  function onClose(this: net.Server): void {
    if (!calls.delete(this)) return
    inside.listenAsUsual(this)
    emitter(this).off(errorMonitor, onError)
    keeper.failed(this, undefined, undefined, undefined)
  }

  subscribe('tracing:net.server.listen:error', (message) => {
    const { server, error } = message as { server: net.Server; error: Error }
    failed(server, error)
  })
}

function becomeHandoverError(error: Error, is: HandoverError): void {
  for (const key of Reflect.ownKeys(error)) if (key !== 'stack') Reflect.deleteProperty(error, key)
  for (const key of Reflect.ownKeys(is)) Object.defineProperty(error, key, Object.getOwnPropertyDescriptor(is, key) ?? {})
  Object.setPrototypeOf(error, HandoverError.prototype)
}

/** The same for every UDP socket that is made from now on; Node tells of each before its maker can bind it. */
export function openDatagramDoors(keeper: Doorkeeper): void {
  subscribe('udp.socket', (message) => { openDatagramDoor(keeper, (message as { socket: dgram.Socket }).socket) })
}

const withDatagramDoor = new WeakSet<dgram.Socket>()

/** The same for a UDP socket. */
export function openDatagramDoor(keeper: Doorkeeper, socket: dgram.Socket): void {
  if (withDatagramDoor.has(socket)) return
  withDatagramDoor.add(socket)
  const bind = socket.bind.bind(socket) as (...args: unknown[]) => dgram.Socket
  const kind = 'udp'
  socket.bind = ((...args: unknown[]): dgram.Socket => {
    const [first, second] = args
    const options = typeof first === 'object' && first !== null ? (first as { port?: number; address?: string; fd?: number }) : undefined
    const address = options ? options.address : typeof second === 'string' ? second : undefined
    const any = socketType(socket) === 'udp6' ? '::' : '0.0.0.0'
    const asked: Asked = typeof options?.fd === 'number'
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
    const opened = answer ? undefined : activation().open(asked)
    const isQuiet = !answer && (asked.fd === undefined || opened !== undefined) && keeper.isQuiet()
    const failed = (error: Error): void => {
      if (isQuiet) inside.bindAsUsual(socket)
      keeper.failed(socket, asked, answer, error)
    }
    const bound = (): void => {
      emitter(socket).off(errorMonitor, failed)
      if (isQuiet && !keeper.isQuiet()) inside.receive(socket)
      keeper.after(socket, asked, answer, 0)
    }
    const listening = args.findLast((argument) => typeof argument === 'function') as (() => void) | undefined
    try {
      if (answer) {
        inside.bindQuietly(socket)
        // bind({ fd }) emits 'listening' before it returns; every other bind() emits it later.
        withheld(socket, 'listening', () => bind({ fd: answer.fd }, listening))
        bound()
      } else if (opened) {
        if (isQuiet) inside.bindQuietly(socket)
        withheld(socket, 'listening', () => bind({ fd: opened.fd }, listening))
        bound()
      } else {
        if (isQuiet) inside.bindQuietly(socket)
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
