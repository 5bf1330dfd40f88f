/**
 * Reads for a session of Node's own in a drain, on a copy of its descriptor: so this process sees where frames end, and reads no byte more
 * once the last stream has ended. All is passed on at once, and nothing is kept: a session that Node lets read again for a moment (after a
 * write that took long) gets what comes next by itself, and no byte is lost or comes twice. That shows in its count of bytes.
 *
 * Under TLS the records are opened here, and OpenSSL reads none any more: it would not know their numbers. So the session never reads by
 * itself again, and a reader stays for as long as its session.
 */

import type http2 from 'node:http2'
import type net from 'node:net'
import { native } from '../platform/native.js'
import { adoptDescriptor, holdReading, releaseReading } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { feedOf } from '../platform/node/http2-session.js'
import type { TlsRecordLayer } from '../platform/tls-records.js'

/** Who reads for a session, and can be told to wait. */
export interface Reading {
  hold(): void
  goOn(): void
  /** Whether every byte must come this way. */
  alone(isAlone: boolean): void
  /** Passes on what was kept back. */
  pass(bytes: Buffer): void
  /** The session reads by itself again. */
  end(): void
}

const secureReaders = new WeakMap<http2.ServerHttp2Session, SessionReader>()

export class SessionReader implements Reading {
  readonly #socket: net.Socket
  readonly #copy: net.Socket
  #bytesRead: number
  #isAlone = false
  #isWaiting = false
  #ended = false
  /** What was read goes through it on its way to the session. */
  #arrived: (bytes: Buffer) => Buffer
  readonly #isSecure: boolean
  readonly #onClose = (): void => { this.#finish() }
  readonly pass: (bytes: Buffer) => void

  private constructor(
    socket: net.Socket, copy: net.Socket, arrived: (bytes: Buffer) => Buffer, pass: (bytes: Buffer) => void, isSecure: boolean
  ) {
    this.#arrived = arrived
    this.pass = pass
    this.#isSecure = isSecure
    this.#socket = socket
    this.#copy = copy
    this.#bytesRead = socket.bytesRead
    holdReading(socket)
  }

  /** `arrived` gets what was read, and answers what is passed on. Undefined: this Node, or this connection, has no such way. */
  static of(
    session: http2.ServerHttp2Session, socket: net.Socket, arrived: (bytes: Buffer) => Buffer, records?: TlsRecordLayer
  ): SessionReader | undefined {
    const known = secureReaders.get(session)
    if (known) {
      known.#arrived = arrived
      return known
    }
    const feed = feedOf(session)
    const fd = fdOf(socket)
    const copied = feed && fd !== undefined ? native?.duplicate(fd) : undefined
    if (!feed || copied === undefined || copied < 0) return undefined
    const copy = adoptDescriptor(copied, undefined, (bytes) => {
      const plain = records ? open(records, bytes, session, socket) : bytes
      if (plain) reader.pass(reader.#arrived(plain))
      if (!reader.#ended) holdReading(socket)
    })
    const reader = new SessionReader(socket, copy, arrived, (bytes) => { if (!session.destroyed) feed(bytes) }, records !== undefined)
    // The session finds the same on its own descriptor.
    for (const event of ['end', 'error', 'close']) copy.on(event, () => { reader.#finish() })
    socket.once('close', reader.#onClose)
    if (records) {
      socket.once('close', () => { records.dispose() })
      secureReaders.set(session, reader)
      reader.alone(true)
    }
    return reader
  }

  /** Node let the session read by itself: where frames end is not known any more. Answers so once. */
  lostCount(): boolean {
    if (this.#socket.bytesRead === this.#bytesRead) return false
    this.#bytesRead = this.#socket.bytesRead
    holdReading(this.#socket)
    return true
  }

  /**
   * Node lets the session read in the poll phase, after a write. This hears of it in the check phase that follows, before anything can be
   * read. The loop does not turn for it: an immediate that is unreferenced waits for the next turn.
   */
  alone(isAlone: boolean): void {
    this.#isAlone = isAlone || this.#isSecure
    if (!this.#isAlone || this.#ended) return
    holdReading(this.#socket)
    if (this.#isWaiting) return
    this.#isWaiting = true
    setImmediate(() => {
      this.#isWaiting = false
      if (this.#isAlone) this.alone(true)
    }).unref()
  }

  hold(): void {
    this.#copy.pause()
    holdReading(this.#socket)
  }

  goOn(): void {
    if (!this.#ended) this.#copy.resume()
  }

  end(): void {
    if (!this.#isSecure) return this.#finish()
    this.#arrived = (bytes) => bytes
    this.goOn()
  }

  #finish(): void {
    if (this.#ended) return
    this.#ended = true
    this.#socket.off('close', this.#onClose)
    this.#copy.destroy()
    // A session that has closed leaves its socket to wait for the client's end.
    if (!this.#socket.destroyed) releaseReading(this.#socket)
  }
}

/** What the client said. It may be nothing, or the end. */
function open(records: TlsRecordLayer, bytes: Buffer, session: http2.ServerHttp2Session, socket: net.Socket): Buffer | undefined {
  try {
    // The answer to a KeyUpdate would be OpenSSL's to write. No client waits for it.
    const { data, ended } = records.read(bytes)
    if (ended === true) session.close()
    return data
  } catch (error) {
    socket.destroy(error as Error)
    return undefined
  }
}
