/**
 * Every listen() of an adopted server goes through here: inherit or bind.
 *
 * Node publishes `tracing:net.server.listen` before it binds, and listens on the handle that the server has by then. So one subscription
 * serves http, https, http2 and net with every form of listen(), Fastify's hidden second server for `localhost`, and servers that a user
 * made for an Express app. UDP has no such channel: see bind-hook.ts.
 */

import type dgram from 'node:dgram'
import { errorMonitor, type EventEmitter } from 'node:events'
import { closeSync } from 'node:fs'
import type net from 'node:net'
import { HandoverError } from '../errors.js'
import { native } from '../platform/native.js'
import * as inside from '../platform/node/listen-handle.js'
import { unhooked } from '../platform/own-servers.js'
import { subscribe } from '../platform/subscriptions.js'
import type { OfferedSocket } from '../protocol/handover-messages.js'
import type { AskedAddress } from './listener-match.js'
import { openActivated, type OpenedSocket } from './socket-activation.js'
import { bindUnix } from './unix-path.js'

type Owner = net.Server | dgram.Socket

/** What the generation decides. */
export interface ListenHook {
  /** Whether this listen() or bind() goes through the hook. `asked`: of a UDP socket, since many of these belong to clients. */
  adopts(owner: Owner, asked?: AskedAddress): boolean
  /** Nothing may be accepted yet: a socket that is bound now listens at the commit. */
  isQuiet(): boolean
  /** Whether a server can be given a handle. Ask it after `before`. */
  knowsHandles(): boolean
  isBoundQuietly(address: string, port: number, asked?: AskedAddress): boolean
  /** Binds where the process that serves is in the way, or what this one has closed; undefined where nothing is. */
  bindBeside(asked: AskedAddress): number | undefined
  /** Before an adopted server listens: the offered listener to use, or the error its listen() must fail with. Undefined: bind. */
  before(owner: Owner, asked: AskedAddress | undefined): OfferedSocket | HandoverError | undefined
  after(owner: Owner, asked: AskedAddress | undefined, claimed: OfferedSocket | undefined, backlog: number): void
  /** Without an error: the program closed it before it listened, or listens elsewhere. */
  failed(owner: Owner, asked: AskedAddress | undefined, claimed: OfferedSocket | undefined, error: Error | undefined): void
}

interface ListenOptions {
  readonly fd?: unknown
  readonly port?: unknown
  readonly host?: unknown
  readonly path?: unknown
  readonly backlog?: unknown
  readonly ipv6Only?: unknown
  readonly reusePort?: unknown
}

/** A listen() that has begun. With a host name it waits for the name to be resolved. */
interface ListenCall {
  /** Undefined for a handle: the program opened it, so nothing is claimed instead. */
  readonly asked: AskedAddress | undefined
  readonly claimed: OfferedSocket | undefined
  /** A copy of what it claimed, which the server owns and may close. */
  readonly copy: OfferedSocket | undefined
  readonly error: HandoverError | undefined
  /** systemd opened it. */
  readonly opened: OpenedSocket | undefined
  readonly backlog: number
  /** The server only binds. */
  readonly isQuiet: boolean
  /** Of the server: close() changes it. */
  readonly listeningId: number
}

function isPort(port: number | string): boolean {
  const number = typeof port === 'string' && port.trim() === '' ? NaN : Number(port)
  return Number.isInteger(number) && number >= 0 && number <= 65_535
}

/** What a listen() call asks for, read as Node reads it; undefined for arguments that Node will refuse. */
function askedOf(options: ListenOptions): AskedAddress | undefined {
  const { fd, host, path } = options
  if (typeof fd === 'number' && fd >= 0) return { kind: 'tcp', fd }
  const nothing = Object.keys(options).length === 0 || typeof options.port === 'function'
  const port = nothing || ('port' in options && (options.port ?? undefined) === undefined) ? 0 : options.port
  if (typeof port === 'number' || typeof port === 'string') {
    if (!isPort(port)) return undefined
    const name = typeof host === 'string' && host !== '' ? host : undefined
    return { kind: 'tcp', port: Number(port), host: name, ipv6Only: options.ipv6Only === true, reusePort: options.reusePort === true }
  }
  return typeof path === 'string' && path !== '' ? { kind: 'unix', path } : undefined
}

// The types of servers know their own events only.
export const emitter = (owner: EventEmitter): EventEmitter => owner

/** Decides where the server listens, and prepares it for that. Undefined for arguments that Node will refuse. */
function begin(hook: ListenHook, server: net.Server, options: ListenOptions): ListenCall | undefined {
  const handle = inside.isHandle(options)
  const asked = handle ? undefined : askedOf(options)
  if (!asked && !handle) return undefined
  const answer = hook.before(server, asked)
  const refused = answer instanceof HandoverError
  // A handle, or a descriptor of the program's own, may listen already.
  const byHandle = hook.knowsHandles()
  const opened = answer || !asked || !byHandle ? undefined : openActivated(asked)
  // Nobody but the program knows a port that the system is about to choose: it may be asking itself as it boots.
  const isPublic = asked !== undefined && (asked.fd === undefined ? asked.port !== 0 : opened !== undefined)
  const isQuiet = !answer && isPublic && hook.isQuiet()
  const backlog = Math.max(typeof options.backlog === 'number' ? options.backlog : 0, opened?.backlog ?? 0)
  inside.listenAsUsual(server)
  const claimed = refused ? undefined : answer
  const fd = claimed && native ? native.duplicate(claimed.fd) : -1
  const copy = claimed && fd >= 0 ? { ...claimed, fd } : undefined
  if (refused) {
    inside.refuseToListen(server)
  } else if (answer) {
    inside.listenQuietly(server, answer.fd, answer.about.kind === 'unix' ? 'unix' : 'tcp')
  } else if (opened) {
    inside.listenQuietly(server, opened.fd, opened.path === undefined ? 'tcp' : 'unix')
  } else if (byHandle && asked?.path !== undefined && !asked.path.includes('\0')) {
    // Not the abstract namespace. Where another server of this process is about to listen at this path, Node reports EADDRINUSE.
    const fd = hook.isBoundQuietly(asked.path, 0) ? undefined : bindUnix(asked.path, !isQuiet)
    if (fd !== undefined) inside.listenQuietly(server, fd, 'unix')
  } else if (asked && asked.fd === undefined) {
    const fd = hook.bindBeside(asked)
    if (fd !== undefined) inside.listenQuietly(server, fd, 'tcp')
    else if (isQuiet) inside.putListenOff(server, (address, port) => hook.isBoundQuietly(address, port, asked))
  }
  const listeningId = inside.listeningId(server) + 1
  return { asked, claimed, copy, error: refused ? answer : undefined, opened, backlog, isQuiet, listeningId }
}

/** From now on every listen() of an adopted server goes through `hook`. */
export function installListenHook(hook: ListenHook): void {
  const calls = new WeakMap<net.Server, ListenCall>()
  /** Undefined where none has begun. */
  const endOf = (server: net.Server): ListenCall | undefined => {
    const call = calls.get(server)
    if (calls.delete(server)) emitter(server).off(errorMonitor, onError).off('close', onClose)
    return call
  }

  subscribe('tracing:net.server.listen:asyncStart', (message) => {
    const { server, options } = message as { server: net.Server; options: ListenOptions }
    if (unhooked.has(server) || !hook.adopts(server)) return
    failed(server, undefined)
    const call = begin(hook, server, options)
    if (!call) return
    calls.set(server, call)
    // Only the event reports a host name that cannot be resolved.
    emitter(server).once(errorMonitor, onError).on('close', onClose)
  })

  subscribe('tracing:net.server.listen:asyncEnd', (message) => {
    const { server } = message as { server: net.Server }
    const call = endOf(server)
    if (!call) return
    const { asked, claimed, copy, opened } = call
    if (copy) closeSync(copy.fd)
    if (asked?.fd !== undefined && claimed?.about.kind === 'unix') inside.setPipeName(server, claimed.about.address)
    if (opened?.path !== undefined) inside.setPipeName(server, opened.path)
    const backlog = Math.max(inside.quietBacklog(server) ?? 0, call.backlog)
    if (!claimed && !(call.isQuiet && hook.isQuiet())) inside.accept(server, backlog)
    hook.after(server, asked, claimed, backlog)
  })

  /** Without an error: the program has closed the server, or listens elsewhere, while its host name was looked up. */
  const failed = (server: net.Server, error: Error | undefined): void => {
    const call = endOf(server)
    if (!call) return
    // Node emits this object as 'error' in the next tick.
    if (error && call.error) becomeHandoverError(error, call.error)
    if (error && call.claimed) inside.dropListener(server)
    inside.listenAsUsual(server)
    hook.failed(server, call.asked, call.copy, error)
  }

  function onError(this: net.Server, error: Error): void { failed(this, error) }

  function onClose(this: net.Server): void {
    // The event may belong to a close() before this listen().
    if (calls.get(this)?.listeningId !== inside.listeningId(this)) failed(this, undefined)
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
