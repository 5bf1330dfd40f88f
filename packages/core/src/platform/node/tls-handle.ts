/**
 * The handle of a TLS socket. Node's own: `_handle` is its TLSWrap, and `_handle._parent` what that reads from and writes to. A socket that
 * was moved here has no TLSWrap: in the place of its handle stands an object that passes on what concerns the TCP socket.
 */

import type net from 'node:net'
import type tls from 'node:tls'
import { connectionHandle, holdReading, releaseReading, rememberPeer, serverOf } from './connection-handle.js'
import { inside } from './inside.js'

interface TcpHandle {
  readonly fd: number
  readonly bytesRead: number
  readonly bytesWritten: number
  readonly writeQueueSize: number
}

/** What a connection has carried, encrypted. */
export interface Carried {
  /** What OpenSSL was given. */
  readonly bytesRead: number
  /** What OpenSSL has given. */
  readonly bytesWritten: number
  /** What of it the kernel has not taken. */
  readonly queued: number
}

/** Undefined where TLS goes over something that has no descriptor, where the socket is closed, or where this Node stores it elsewhere. */
export function carriedBy(socket: tls.TLSSocket): Carried | undefined {
  const handle = (socket as unknown as { _handle?: { _parent?: Partial<TcpHandle> | null } | null })._handle?._parent
  const { fd = -1, bytesRead, bytesWritten, writeQueueSize: queued } = handle ?? {}
  if (fd < 0 || bytesRead === undefined || bytesWritten === undefined || queued === undefined) return undefined
  return { bytesRead, bytesWritten, queued }
}

/** What Node's TLSSocket answers with null as soon as it is closed. */
const ofClient = ['getPeerCertificate', 'getPeerX509Certificate', 'getCipher', 'getProtocol'] as const

/** Before a socket is closed whose client is the successor's: a handler that goes on may still ask who that was. */
export function rememberClient(socket: net.Socket): void {
  rememberPeer(socket)
  const secure = socket as Partial<tls.TLSSocket>
  if (secure.encrypted !== true || connectionHandle(socket)?.standsIn === true) return
  for (const name of ofClient) {
    const answer: unknown = secure[name]?.(true)
    Object.defineProperty(socket, name, { value: () => answer, configurable: true, writable: true })
  }
}

/** Whether a server of TLS asks for the certificates of its clients, and refuses those that have none that is valid. */
export function asksForCertificates(server: object): { readonly asks: boolean; readonly insists: boolean } {
  const { requestCert, rejectUnauthorized } = server as { requestCert?: unknown; rejectUnauthorized?: unknown }
  return { asks: requestCert === true, insists: requestCert === true && rejectUnauthorized !== false }
}

/** What a moved connection has carried, decrypted. */
export interface MovedCounts {
  read: number
  written: number
}

/** Makes `raw` the socket under `socket`, which has no handle of its own. Node and Handover ask `_handle`, and `plainSocketOf` is `raw`. */
export function standOver(socket: net.Socket, raw: net.Socket, counts: MovedCounts, closing: () => void): void {
  const pass = (name: string) => (...args: unknown[]): unknown => {
    const handle = connectionHandle(raw) as unknown as Record<string, (...args: unknown[]) => unknown> | undefined
    return handle?.[name]?.(...args) ?? 0
  }
  const handle = {
    standsIn: true, reading: true,
    get fd() { return connectionHandle(raw)?.fd ?? -1 },
    get writeQueueSize() { return raw.writableLength + (connectionHandle(raw)?.writeQueueSize ?? 0) },
    get bytesRead() { return counts.read },
    get bytesWritten() { return counts.written },
    readStart() { raw.resume(); releaseReading(raw); return 0 },
    readStop() { holdReading(raw); return 0 },
    close(closed?: () => void) { closing(); raw.destroy(); if (closed) setImmediate(closed) },
    getpeername: pass('getpeername'), getsockname: pass('getsockname'), setNoDelay: pass('setNoDelay'),
    setKeepAlive: pass('setKeepAlive'), ref: pass('ref'), unref: pass('unref'), hasRef: () => true
  }
  Object.assign(inside(socket), { _parent: raw, server: serverOf(raw), _handle: handle })
  // After each chunk a stream reads on by itself, also where the chunk has led to a hold.
  const read = raw._read.bind(raw)
  raw._read = (size) => { if (handle.reading) read(size) }
}

/** The timeout of the socket begins anew: Node does that itself where its own handle reads or writes. */
export function noteUse(socket: net.Socket): void {
  (socket as unknown as { _unrefTimer?(): void })._unrefTimer?.()
}
