/**
 * What a TLS connection takes along in a move: a public part in the message, and the bytes, which are secrets, in a sealed file whose
 * descriptor comes before those of the connections. They are overwritten here as soon as the file has them or they have been used.
 */

import { closeSync, fstatSync, readSync } from 'node:fs'
import type net from 'node:net'
import type tls from 'node:tls'
import { debug } from '../platform/debug.js'
import { sealedFile } from '../platform/memory-file.js'
import { MovedTlsSocket, type TlsBytes, type TlsIdentity } from '../platform/moved-tls-socket.js'
import { asksForCertificates } from '../platform/node/tls-handle.js'
import { isTlsSocket } from '../platform/on-demand.js'
import { checkTls } from '../platform/tls-check.js'
import { hasHalfRecord, snapshotTls, TlsRecordLayer, wipeSnapshot, type TlsSnapshot } from '../platform/tls-records.js'
import type { MovedTls } from '../protocol/moved-connection.js'

export interface TlsCargo {
  readonly about: MovedTls
  readonly secrets: readonly Buffer[]
}

const nothing = Buffer.alloc(0)
/** Not in the pool that Buffers share. */
const copyOf = (bytes: Buffer): Buffer => Buffer.from(new Uint8Array(bytes).buffer)
/** The self-test, which the first move waits for: why none moves, or undefined. */
let tested: { readonly obstacle: string | undefined } | undefined
let testing: Promise<void> | undefined
/** By session of HTTP/2. */
const reading = new WeakMap<object, TlsRecordLayer>()

/** Resolves when it is known whether connections under TLS can move from here. */
export function testTls(): Promise<void> {
  const done = (why?: string): void => {
    tested = { obstacle: why }
    if (why !== undefined) debug(() => `TLS connections do not move: ${why}`)
  }
  return testing ??= checkTls().then(done, (error: unknown) => { done(String(error)) })
}

export const isSecure = (socket: net.Socket): boolean => socket instanceof MovedTlsSocket || isTlsSocket(socket)

/** Whether a part of a record has come, and so maybe of a request. Undefined: unknown. */
export function holdsHalfRecord(socket: net.Socket): boolean | undefined {
  if (socket instanceof MovedTlsSocket) return !socket.layer.whole
  // All sockets of a TLS server are of this class.
  // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment
  return hasHalfRecord(socket as tls.TLSSocket)
}

function snapshotOf(socket: net.Socket): TlsSnapshot | 'later' | 'never' {
  if (!tested) void testTls()
  if (tested === undefined || tested.obstacle !== undefined) return tested ? 'never' : 'later'
  // All sockets of a TLS server are of this class.
  // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment
  const snapshot = snapshotTls(socket as tls.TLSSocket)
  if (!('stays' in snapshot)) return snapshot
  return snapshot.stays === 'half a record' || snapshot.stays === 'bytes to be written' || snapshot.stays === 'handshake' ? 'later' : 'never'
}

/** What reads for a session, from now on, in the place of OpenSSL: this process must see the frames of HTTP/2. */
export function recordsOf(session: object, socket: net.Socket): TlsRecordLayer | 'later' | 'never' {
  const known = reading.get(session)
  if (known) return known
  const snapshot = snapshotOf(socket)
  if (typeof snapshot === 'string') return snapshot
  try {
    const records = new TlsRecordLayer(snapshot)
    reading.set(session, records)
    return records
  } finally {
    wipeSnapshot(snapshot)
  }
}

/**
 * In the same turn of the loop in which the connection is held. `later`: not at this moment. `records`: what has read for a session; then
 * OpenSSL knows of what was written alone.
 */
export function cargoOf(socket: net.Socket, records?: TlsRecordLayer): TlsCargo | 'later' | 'never' {
  const moved = socket instanceof MovedTlsSocket ? socket : undefined
  if (moved?.whole === false || records?.whole === false) return 'later'
  const snapshot = moved ? moved.layer.snapshot() : records ? withReading(snapshotOf(socket), records) : snapshotOf(socket)
  if (typeof snapshot === 'string') return snapshot
  // All sockets of a TLS server are of this class.
  // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment
  const [identity, bytes] = moved ? [moved.identity, moved.bytes] : identityOf(socket as tls.TLSSocket)
  const { protocol, cipher, fragment, readSequence, writeSequence } = snapshot
  const secrets = [
    // A moved socket that comes back needs its session.
    snapshot.read, snapshot.write, snapshot.exporter, moved && bytes.session ? copyOf(bytes.session) : bytes.session,
    bytes.finished, bytes.peerFinished, bytes.certificate
  ].map((part) => part ?? nothing)
  const { alpn, servername, authorized, authorizationError, reused, cipher: { name, standardName, version } } = identity
  return {
    about: {
      protocol, cipher, readSequence: Number(readSequence), writeSequence: Number(writeSequence),
      ...(fragment !== undefined && { fragment }),
      lengths: secrets.map(({ length }) => length),
      ...(alpn !== false && { alpn }), ...(servername !== false && { servername }),
      authorized, ...(authorizationError !== undefined && { authorizationError }), reused, names: [name, standardName, version]
    },
    secrets
  }
}

function withReading(snapshot: TlsSnapshot | 'later' | 'never', records: TlsRecordLayer): TlsSnapshot | 'later' | 'never' {
  if (typeof snapshot === 'string') return snapshot
  const { read, readSequence, write, exporter } = records.snapshot()
  for (const secret of [snapshot.read, write, exporter]) secret?.fill(0)
  return { ...snapshot, read, readSequence }
}

function identityOf(socket: tls.TLSSocket): [TlsIdentity, TlsBytes] {
  const { authorizationError, alpnProtocol, servername } = socket as tls.TLSSocket & { servername?: string | false | null }
  const error = authorizationError as unknown as string | null | undefined
  return [
    {
      alpn: alpnProtocol ?? false, servername: servername ?? false, authorized: socket.authorized,
      ...(typeof error === 'string' && { authorizationError: error }), reused: socket.isSessionReused(), cipher: socket.getCipher()
    },
    {
      session: socket.getSession(), finished: socket.getFinished() ?? undefined, peerFinished: socket.getPeerFinished() ?? undefined,
      certificate: socket.getPeerX509Certificate()?.raw
    }
  ]
}

/** Keys and session; Finished and certificate are no secrets, and a moved socket still needs them. */
export function wipeSecrets(secrets: readonly Buffer[] = []): void {
  for (const secret of secrets.slice(0, 4)) secret.fill(0)
}

/** The sealed file of all these, in order. Throws the error of the system. */
export function secretsFile(cargoes: readonly TlsCargo[]): number {
  const size = cargoes.flatMap(({ secrets }) => secrets).reduce((sum, { length }) => sum + length, 0)
  const all = Buffer.from(new Uint8Array(size).buffer)
  let at = 0
  for (const { secrets } of cargoes) for (const secret of secrets) at += secret.copy(all, at)
  try {
    return sealedFile(all)
  } finally {
    all.fill(0)
  }
}

/** The bytes of each connection that has any, in the order of the message. Closes the file. Throws where it does not fit the message. */
export function readSecrets(fd: number, abouts: readonly (MovedTls | undefined)[]): Map<MovedTls, Buffer[]> {
  try {
    const expected = abouts.reduce((sum, about) => sum + (about?.lengths.reduce((all, length) => all + length, 0) ?? 0), 0)
    const status = fstatSync(fd)
    if (!status.isFile() || status.size !== expected) throw new Error(`the file of keys has ${status.size} bytes, expected ${expected}`)
    let at = 0
    return new Map(abouts.filter((about) => about !== undefined).map((about) => [about, about.lengths.map((length) => {
      // Not in the pool that Buffers share.
      const part = Buffer.from(new Uint8Array(length).buffer)
      for (let had = 0; had < length;) {
        const read = readSync(fd, part, had, length - had, at + had)
        if (read === 0) throw new Error('the file of keys is shorter than it was')
        had += read
      }
      at += length
      return part
    })]))
  } finally {
    closeSync(fd)
  }
}

/**
 * Throws where the server asks for certificates, and this client was never asked for one, or has none that is valid and would be refused:
 * only a new handshake can settle that.
 */
export function checkCertificate(server: object, { authorized, authorizationError }: MovedTls): void {
  const { asks, insists } = asksForCertificates(server)
  if (authorized || !(insists || (asks && authorizationError === undefined))) return
  throw new Error('the server asks for certificates, and the client of this connection has shown none that is valid')
}

/** Goes on with the connection, over a socket that nothing has been read of, and whose bytes go to `arrived`. Wipes the keys. */
export function goOnWith(raw: net.Socket, about: MovedTls, secrets: readonly Buffer[] = []): MovedTlsSocket {
  const [read, write, exporter, session, finished, peerFinished, certificate] = secrets.map((part) => (part.length > 0 ? part : undefined))
  if (!read || !write) throw new Error('the keys of a TLS connection are missing')
  const { protocol, cipher, readSequence, writeSequence, fragment, names: [name = '', standardName = '', version = ''] } = about
  const snapshot: TlsSnapshot = {
    protocol, cipher, read, write, readSequence: BigInt(readSequence),
    writeSequence: BigInt(writeSequence), ...(exporter && { exporter }), ...(fragment !== undefined && { fragment })
  }
  try {
    return new MovedTlsSocket(raw, snapshot, {
      alpn: about.alpn ?? false, servername: about.servername ?? false, authorized: about.authorized,
      authorizationError: about.authorizationError, reused: about.reused, cipher: { name, standardName, version }
    }, { session, finished, peerFinished, certificate })
  } finally {
    wipeSnapshot(snapshot)
  }
}
