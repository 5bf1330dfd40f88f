/**
 * The private parts of a session of HTTP/2: its socket, and how bytes come to it. Node publishes neither, and without them a session ends
 * with its process. Where one is missing, the answer is undefined, and the session is told to go.
 */

import type http2 from 'node:http2'
import type net from 'node:net'
import { connectionHandle, serverOf } from './connection-handle.js'
import { behindSymbol } from './inside.js'

type AddressedHandle = Partial<Record<'getpeername' | 'getsockname', (out: object) => number>>

/** What a program reads of a TLSSocket beside its methods. */
const tlsValues = ['encrypted', 'authorized', 'authorizationError', 'alpnProtocol', 'servername']

/** The socket below a session; `session.socket` is a substitute that refuses most. */
export const socketOfSession = (session: http2.Http2Session): net.Socket | undefined =>
  behindSymbol(session, 'socket') as net.Socket | undefined

const optionsOf = (server: net.Server): { readonly settings?: http2.Settings; readonly allowHTTP1?: boolean } | undefined =>
  behindSymbol(server, 'options') as ReturnType<typeof optionsOf>

/** The settings that a server begins its sessions with. */
export const settingsOfServer = (server: net.Server): http2.Settings => optionsOf(server)?.settings ?? {}

/** A server of HTTP/2 alone answers 403 to a connection of HTTP/1, before anything was asked. */
export function answersHttp1(server: net.Server): boolean {
  const options = optionsOf(server)
  return !('updateSettings' in server) || options === undefined || options.allowHTTP1 === true
}

/** What `http2.createServer()` does with a connection. */
export const isSessionMaker = (listener: unknown, server: net.Server): boolean =>
  listener === process.getBuiltinModule('node:http2').createServer().listeners('connection')[0] && 'updateSettings' in server

/** Passes bytes to a session as if they came from its socket. Undefined: this Node has no such way. */
export function feedOf(session: http2.Http2Session): ((bytes: Buffer) => void) | undefined {
  const handle = (): { receive?: unknown } => behindSymbol(session, 'kHandle') ?? {}
  if (typeof handle().receive !== 'function') return undefined
  return (bytes) => { (handle() as { receive?(bytes: Buffer): void }).receive?.(bytes) }
}

/** Makes a session over a stream, and its socket, answer what they would answer over this TLS connection. Call it when it has begun. */
export function makeSecure(session: http2.Http2Session, connection: net.Socket): void {
  for (const [name, value] of [['encrypted', true], ['alpnProtocol', 'h2']] as const) {
    const symbol = Object.getOwnPropertySymbols(session).find(({ description }) => description === name)
    if (symbol) Object.assign(session, { [symbol]: value })
  }
  const socket = socketOfSession(session)
  if (!socket) return
  const { prototype } = process.getBuiltinModule('node:tls').TLSSocket
  Object.setPrototypeOf(socket, placedUnder(prototype, Object.getPrototypeOf(socket) as object))
  const methods = Object.getOwnPropertyNames(prototype).filter((name) => !name.startsWith('_') && name !== 'constructor')
  for (const name of [...tlsValues, ...methods]) {
    const value: unknown = Reflect.get(connection, name)
    const own: unknown = typeof value === 'function' ? value.bind(connection) : value
    Object.defineProperty(socket, name, { value: own, configurable: true })
  }
}

let underTls: object | undefined

/** The class of such a socket as one of TLSSocket's: programs ask that before they trust a client (`getAuthContext()` of grpc-js). */
function placedUnder(prototype: object, own: object): object {
  if (underTls) return underTls
  const { constructor: _, ...descriptors } = Object.getOwnPropertyDescriptors(own)
  return underTls = Object.create(prototype, descriptors) as object
}

/** Lets the socket of a session over a stream say whose it is, as the connection below does. */
export function lendAddresses(session: http2.Http2Session, connection: net.Socket): void {
  const socket = socketOfSession(session)
  if (socket) Object.assign(socket, { server: serverOf(connection) })
  const handle = (socket as unknown as { _handle?: AddressedHandle | null } | undefined)?._handle
  const below = connectionHandle(connection) as unknown as AddressedHandle | undefined
  if (!handle || !below) return
  handle.getpeername ??= (out) => below.getpeername?.(out) ?? -1
  handle.getsockname ??= (out) => below.getsockname?.(out) ?? -1
}
