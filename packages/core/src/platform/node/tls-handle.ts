/** The TCP handle under a TLS socket: `_handle` is Node's TLSWrap, and `_handle._parent` what it reads from and writes to. */

import type tls from 'node:tls'

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
