/**
 * What lets a TLS connection go on in another process: a snapshot of its keys and sequence numbers, and the record layer that goes on from
 * one. The addon watches Node's own OpenSSL and does the cryptography (native/tls-watch.cc, tls-records.cc); what records mean is decided
 * here: alerts, KeyUpdate, and that nothing is negotiated again.
 *
 * A snapshot exists only at a border of records: all bytes that the descriptor has given and taken are whole records that OpenSSL has
 * handled. Secrets are never logged; `wipeSnapshot` and `dispose` overwrite them.
 */

import type tls from 'node:tls'
import { addon, check, native, nativeMissing, type TlsRecords } from './native.js'
import { carriedBy, type Carried } from './node/tls-handle.js'
import { exportKeyingMaterial } from './tls-exporter.js'

/** All that a record layer needs. Its Buffers are secrets: `wipeSnapshot` after use. */
export interface TlsSnapshot {
  readonly protocol: 'TLSv1.3' | 'TLSv1.2'
  /** The name of the IANA registry, such as TLS_AES_256_GCM_SHA384. */
  readonly cipher: string
  /** TLS 1.3: the traffic secret of each direction. TLS 1.2: key and implicit nonce. */
  readonly read: Buffer
  readonly write: Buffer
  readonly readSequence: bigint
  readonly writeSequence: bigint
  /** For exportKeyingMaterial. TLS 1.3: the exporter secret. TLS 1.2: the master secret and both randoms, the client's first. */
  readonly exporter?: Buffer
  /** The most bytes of content that the client takes in a record, where that is not 16,384 (max_fragment_length, RFC 6066). */
  readonly fragment?: number
}

/** Why a connection has no snapshot now. 'unknown': its context was made before watchTls, or something else watches it (enableTrace). */
export type NoSnapshot =
  'TLS cannot be watched' | 'unknown' | 'handshake' | 'renegotiated' | 'cipher' | 'closing' | 'half a record' | 'bytes to be written'

let watching: string | undefined

/** Counts the records of all connections whose SecureContext is made from now on. Call it before the program's first one. Loads nothing. */
export function watchTls(): void {
  watching ??= native ? native.watchTls() : nativeMissing ?? 'the addon is not loaded'
}

/** Why TLS connections cannot move from this process, as far as is known without a test (checkTls); undefined: they can. */
export function tlsUnavailable(): string | undefined {
  if (watching === undefined) return 'TLS is not watched'
  return watching === '' ? undefined : `TLS cannot be watched: ${watching}`
}

const protocols: Readonly<Record<number, TlsSnapshot['protocol']>> = { 0x0303: 'TLSv1.2', 0x0304: 'TLSv1.3' }
const versions = { 'TLSv1.2': 0x0303, 'TLSv1.3': 0x0304 } as const

/** Whether a part of a record has come whose rest has not. Of all suites. Undefined: unknown. */
export function hasHalfRecord(socket: tls.TLSSocket): boolean | undefined {
  const finished = tlsUnavailable() === undefined ? socket.getFinished() : undefined
  const about = finished && native!.describeTls(finished)
  if (typeof about !== 'object') return undefined
  wipe(about.read, about.write, about.exporter)
  return about.half || about.readBytes !== carriedBy(socket)?.bytesRead
}

/** The snapshot of a connection of a server, or why it has none now. The TLSSocket must not read or write after it. */
export function snapshotTls(socket: tls.TLSSocket): TlsSnapshot | { readonly stays: NoSnapshot } {
  const carried = carriedBy(socket)
  return carried ? snapshotAt(socket, carried) : { stays: 'unknown' }
}

/** For a connection over something else than a descriptor. */
export function snapshotAt(
  socket: tls.TLSSocket, { bytesRead, bytesWritten, queued }: Carried
): TlsSnapshot | { readonly stays: NoSnapshot } {
  if (queued > 0) return { stays: 'bytes to be written' }
  if (tlsUnavailable() !== undefined) return { stays: 'TLS cannot be watched' }
  const finished = socket.getFinished()
  if (!finished) return { stays: 'handshake' }
  const about = native!.describeTls(finished)
  if (typeof about === 'number') return { stays: 'unknown' }
  const stays = whyNot()
  const { read, write, exporter } = about
  if (stays !== undefined) {
    wipe(read, write, exporter)
    return { stays }
  }
  return {
    protocol: protocols[about.version]!, cipher: about.cipher, read, write,
    readSequence: BigInt(about.readSequence), writeSequence: BigInt(about.writeSequence),
    ...(exporter.length > 0 && { exporter }), ...(about.fragment > 0 && { fragment: 256 << about.fragment })
  }

  function whyNot(): NoSnapshot | undefined {
    if (typeof about === 'number' || !about.open) return 'handshake'
    if (about.renegotiated) return 'renegotiated'
    if (about.closing) return 'closing'
    if (!about.known || protocols[about.version] === undefined) return 'cipher'
    if (about.half || about.readBytes !== bytesRead) return 'half a record'
    return about.writeBytes === bytesWritten ? undefined : 'bytes to be written'
  }
}

const wipe = (...secrets: readonly (Buffer | undefined)[]): void => {
  for (const secret of secrets) secret?.fill(0)
}

export function wipeSnapshot({ read, write, exporter }: TlsSnapshot): void {
  wipe(read, write, exporter)
}

/** Content types of a record, and the message and alert that a record layer knows by itself. */
const alert = 21
const handshake = 22
const applicationData = 23
const keyUpdate = 24
const closeNotify = Buffer.from([1, 0])
const clientHello = 1
const noRenegotiation = Buffer.from([1, 100])
const userCanceled = 90
const warning = 1

const mostContent = 16_384
const headerLength = 5
/** Header, explicit nonce and tag of TLS 1.2, the longest. */
const overhead = 29
const nothing = Buffer.alloc(0)
/** As OpenSSL: so many KeyUpdates without data between them are an attack. */
const mostUpdates = 32

/** What came out of `read`. */
export interface TlsRead {
  readonly data?: Buffer
  /** Must be written before anything else. */
  readonly reply?: Buffer
  /** close_notify has come: nothing more will be read. */
  readonly ended?: boolean
}

/** The record layer of a connection whose handshake was made by another process. Wipe the snapshot after it was constructed. */
export class TlsRecordLayer {
  readonly #records: TlsRecords
  readonly #about: Pick<TlsSnapshot, 'protocol' | 'cipher' | 'fragment'>
  readonly #exporter: Buffer | undefined
  readonly #opened = new Int32Array(5)
  /** The beginning of a record, or of a handshake message, whose rest has not come. */
  #rest: Buffer = nothing
  #message: Buffer = nothing
  #updates = 0
  #ended = false

  /** Throws a TypeError for a suite or a secret that does not fit. */
  constructor({ protocol, cipher, read, write, readSequence, writeSequence, exporter, fragment }: TlsSnapshot) {
    this.#records = new (addon().TlsRecords)(versions[protocol], cipher, read, write, Number(readSequence), Number(writeSequence))
    this.#about = { protocol, cipher, ...(fragment !== undefined && { fragment }) }
    this.#exporter = exporter && Buffer.from(new Uint8Array(exporter).buffer) // not in the pool that Buffers share
  }

  /**
   * Bytes of the socket, whole records or not. It decrypts in place: the chunk is the layer's from now on, and `data` may be a part of it.
   * Throws for a wrong MAC, a fatal alert, or a client that wants to negotiate: destroy the connection then.
   */
  read(chunk: Buffer): TlsRead {
    const pieces: Buffer[] = []
    const replies: Buffer[] = []
    let left = this.#ended ? nothing : this.#joined(chunk)
    while (left.length >= headerLength && !this.#ended) {
      check(this.#records.open(left, this.#opened), 'open')
      const [consumed, data, type, place, length] = this.#opened as unknown as [number, number, number, number, number]
      if (data > 0) {
        this.#updates = 0
        pieces.push(left.subarray(0, data))
      }
      if (type === 0) {
        left = left.subarray(consumed)
        break
      }
      this.#control(type, left.subarray(place, place + length), replies)
      left = left.subarray(consumed)
    }
    // Copied, since a beginning of a few bytes would keep the whole chunk.
    this.#rest = this.#ended || left.length === 0 ? nothing : Buffer.from(left)
    return {
      ...(pieces.length > 0 && { data: pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces) }),
      ...(replies.length > 0 && { reply: Buffer.concat(replies) }),
      ...(this.#ended && { ended: true })
    }
  }

  #joined(chunk: Buffer): Buffer {
    return this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
  }

  #control(type: number, content: Buffer, replies: Buffer[]): void {
    if (type === alert && content.length === 2) {
      if (content[1] === 0) this.#ended = true
      else if (content[0] !== warning && content[1] !== userCanceled) throw new Error(`the client sent the fatal alert ${content[1]}`)
      return
    }
    // The client may go on without (RFC 5246, 7.2.2).
    if (type === handshake && this.#about.protocol === 'TLSv1.2' && content[0] === clientHello && ++this.#updates <= mostUpdates) {
      replies.push(this.#seal(alert, noRenegotiation))
      return
    }
    if (type !== handshake || this.#about.protocol !== 'TLSv1.3') throw new Error(`a record of type ${type} is refused: nothing is negotiated again`)
    this.#message = Buffer.concat([this.#message, content])
    while (this.#message.length >= 4) {
      const length = this.#message.readUIntBE(1, 3)
      if (this.#message[0] !== keyUpdate || length !== 1) throw new Error(`the handshake message ${this.#message[0]} is refused`)
      if (this.#message.length < 5) return
      const wanted = this.#message[4]!
      // New keys begin with a new record: RFC 8446, 5.1.
      if (this.#message.length > 5 || wanted > 1) throw new Error('a KeyUpdate is malformed')
      if (++this.#updates > mostUpdates) throw new Error(`${mostUpdates} KeyUpdates came without data`)
      this.#message = nothing
      check(this.#records.update(false), 'KeyUpdate')
      if (wanted === 1) {
        replies.push(this.#seal(handshake, Buffer.from([keyUpdate, 0, 0, 1, 0])))
        check(this.#records.update(true), 'KeyUpdate')
      }
    }
  }

  #seal(type: number, content: Buffer): Buffer {
    const most = this.#about.fragment ?? mostContent
    const into = Buffer.allocUnsafe(content.length + Math.ceil(content.length / most) * overhead)
    return into.subarray(0, check(this.#records.seal(type, content, into, most), 'seal'))
  }

  /** Records for these bytes, in one Buffer. */
  write(plaintext: Buffer): Buffer {
    return this.#seal(applicationData, plaintext)
  }

  /** The record of a close_notify. */
  end(): Buffer {
    return this.#seal(alert, closeNotify)
  }

  /** False while a part of a record, or of a message over several records, waits for its rest. */
  get whole(): boolean {
    return this.#rest.length === 0 && this.#message.length === 0
  }

  /** At a border of records (`whole`). */
  snapshot(): TlsSnapshot {
    const { read, write, readSequence, writeSequence } = check(this.#records.state(), 'state')
    return {
      ...this.#about, read, write, readSequence: BigInt(readSequence), writeSequence: BigInt(writeSequence),
      ...(this.#exporter && { exporter: Buffer.from(new Uint8Array(this.#exporter).buffer) })
    }
  }

  /** As `tlsSocket.exportKeyingMaterial`; undefined where the predecessor did not know the secret. */
  exportKeyingMaterial(length: number, label: string, context?: Buffer): Buffer | undefined {
    return this.#exporter && exportKeyingMaterial({ ...this.#about, exporter: this.#exporter }, length, label, context)
  }

  /** Wipes the keys. The layer throws EBADF from now on. */
  dispose(): void {
    this.#records.dispose()
    wipe(this.#exporter)
  }
}
