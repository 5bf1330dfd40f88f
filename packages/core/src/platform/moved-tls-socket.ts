/**
 * The server's side of a TLS connection whose handshake was made by a predecessor: a socket over the TCP socket, with the record layer in
 * between. It answers what a tls.TLSSocket answers about the connection, from what came along with it. It is an instance of tls.TLSSocket,
 * since programs ask that before they trust a client (`request.socket instanceof TLSSocket`), but never ran its constructor, which would
 * begin a handshake: no method of it is left that is not replaced here.
 */

import type { X509Certificate } from 'node:crypto'
import net from 'node:net'
import type { CipherNameAndProtocol, PeerCertificate } from 'node:tls'
import { isReading } from './node/connection-handle.js'
import { noteUse, standOver } from './node/tls-handle.js'
import { TlsRecordLayer, wipeSnapshot, type TlsSnapshot } from './tls-records.js'

/** What a connection takes along besides its keys. `session` is a secret, too. */
export interface TlsIdentity {
  readonly alpn: string | false
  readonly servername: string | false
  readonly authorized: boolean
  readonly authorizationError?: string | undefined
  readonly reused: boolean
  readonly cipher: CipherNameAndProtocol
}

/** In this order they travel. */
export interface TlsBytes {
  readonly session?: Buffer | undefined
  readonly finished?: Buffer | undefined
  readonly peerFinished?: Buffer | undefined
  /** The client's certificate, DER. */
  readonly certificate?: Buffer | undefined
}

type Done = (error?: Error | null) => void

const unsupported = (method: string): Error => Object.assign(
  new Error(`${method}() is not possible on a TLS connection that was moved from another process`), { code: 'ERR_FEATURE_UNAVAILABLE_ON_PLATFORM' }
)
function refuse(method: string): never {
  throw unsupported(method)
}

export class MovedTlsSocket extends net.Socket {
  readonly encrypted = true
  readonly authorized: boolean
  readonly authorizationError: Error
  readonly alpnProtocol: string | false
  readonly servername: string | false
  readonly secureConnecting = false
  readonly raw: net.Socket
  readonly identity: TlsIdentity
  // Private, so that no log of a socket shows the session, which is a secret.
  readonly #bytes: TlsBytes
  readonly #layer: TlsRecordLayer
  readonly #counts = { read: 0, written: 0 }
  #ended = false

  /** Wipes the snapshot. `raw`: what is read of it goes to `arrived`, so that it reads no more as soon as it is held. */
  constructor(raw: net.Socket, snapshot: TlsSnapshot, identity: TlsIdentity, bytes: TlsBytes) {
    inherit()
    super({ allowHalfOpen: raw.allowHalfOpen, readable: true, writable: true })
    this.#layer = new TlsRecordLayer(snapshot)
    wipeSnapshot(snapshot)
    this.raw = raw
    this.identity = identity
    this.#bytes = bytes
    this.authorized = identity.authorized
    // Node's types say Error; it is the code.
    this.authorizationError = (identity.authorizationError ?? null) as never
    this.alpnProtocol = identity.alpn
    this.servername = identity.servername
    standOver(this, raw, this.#counts, () => {
      this.#layer.dispose()
      this.#bytes.session?.fill(0)
    })
    raw.on('end', () => { this.#end() })
    raw.on('error', (error) => { this.destroy(error) })
    // What has come before an end is not lost when both sides have ended.
    raw.on('close', () => { if (!raw.readableEnded || !raw.writableFinished) this.destroy() })
    // When the client has ended, this socket decides whether it ends, too.
    raw.allowHalfOpen = true
    // As an accepted socket does: it reads until its buffer is full, also where nobody listens yet.
    this.read(0)
  }

  /** The connection was read. The bytes are copied: they are decrypted in place. */
  arrived(bytes: Buffer): void {
    noteUse(this)
    try {
      const { data, reply, ended } = this.#layer.read(Buffer.from(bytes))
      if (reply && !this.raw.writableEnded) this.raw.write(reply)
      this.#counts.read += data?.length ?? 0
      if (data && !this.push(data)) this.raw.pause()
      if (ended === true) this.#end()
    } catch (error) {
      this.destroy(error as Error)
    }
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    this.push(null)
    // Without a reader nobody would see the end.
    if (this.readableLength === 0) this.read(0)
  }

  override _read(): void {
    // Not while the connection is held for a move.
    if (isReading(this) === true) this.raw.resume()
  }

  override _write(chunk: Buffer | string, encoding: BufferEncoding, done: Done): void {
    this.#send(typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk, done)
  }

  override _writev(chunks: { chunk: Buffer | string; encoding: BufferEncoding }[], done: Done): void {
    this.#send(Buffer.concat(chunks.map(({ chunk, encoding }) => (typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk))), done)
  }

  #send(plain: Buffer, done: Done): void {
    noteUse(this)
    if (this.raw.destroyed) return done(new Error('the connection is closed'))
    this.#counts.written += plain.length
    this.raw.write(plain.length === 0 ? plain : this.#layer.write(plain), done)
  }

  override _final(done: Done): void {
    if (this.raw.destroyed) return done()
    this.raw.end(this.#layer.end(), () => { done() })
  }

  get layer(): TlsRecordLayer {
    return this.#layer
  }

  get bytes(): TlsBytes {
    return this.#bytes
  }

  /** Nothing of a record is in this process, in either direction. */
  get whole(): boolean {
    return this.#layer.whole && this.raw.writableLength === 0 && !this.#ended
  }

  // ---- what a TLSSocket answers ----

  getProtocol(): string {
    return this.identity.cipher.version
  }

  getCipher(): CipherNameAndProtocol {
    return this.identity.cipher
  }

  getSession(): Buffer | undefined {
    return this.#bytes.session && Buffer.from(this.#bytes.session)
  }

  getFinished(): Buffer | undefined {
    return this.#bytes.finished
  }

  getPeerFinished(): Buffer | undefined {
    return this.#bytes.peerFinished
  }

  isSessionReused(): boolean {
    return this.identity.reused
  }

  getPeerX509Certificate(): X509Certificate | undefined {
    const { certificate } = this.#bytes
    return certificate && new (process.getBuiltinModule('node:crypto').X509Certificate)(certificate)
  }

  getPeerCertificate(): PeerCertificate | object {
    return this.getPeerX509Certificate()?.toLegacyObject() ?? {}
  }

  getEphemeralKeyInfo(): null {
    return null
  }

  getTLSTicket(): undefined {
    return undefined
  }

  exportKeyingMaterial(length: number, label: string, context?: Buffer): Buffer {
    return this.layer.exportKeyingMaterial(length, label, context) ?? refuse('exportKeyingMaterial')
  }

  renegotiate(_options: unknown, callback?: (error: Error) => void): boolean {
    if (callback) process.nextTick(callback, unsupported('renegotiate'))
    return false
  }

  disableRenegotiation(): void { /* it is */ }

  setMaxSendFragment(): boolean {
    return false
  }

  enableTrace(): void { /* OpenSSL has no part in it */ }

  // Of the handshake alone, and of this side's certificate.
  getCertificate(): never { return refuse('getCertificate') }
  getX509Certificate(): never { return refuse('getX509Certificate') }
  getSharedSigalgs(): never { return refuse('getSharedSigalgs') }
  setKeyCert(): never { return refuse('setKeyCert') }
  setServername(): never { return refuse('setServername') }
  setSession(): never { return refuse('setSession') }
}

let inherits = false

/** At the first one: a program without TLS does not load it. */
function inherit(): void {
  if (inherits) return
  inherits = true
  Object.setPrototypeOf(MovedTlsSocket.prototype, process.getBuiltinModule('node:tls').TLSSocket.prototype)
}
