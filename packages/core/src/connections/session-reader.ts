/**
 * Reads for a session of Node's own in a drain, on a copy of its descriptor: so this process sees where frames end, and reads no byte more
 * once the last stream has ended. All is passed on at once, and nothing is kept: a session that Node lets read again for a moment (after a
 * write that took long) gets what comes next by itself, and no byte is lost or comes twice. That shows in its count of bytes.
 */

import type http2 from 'node:http2'
import type net from 'node:net'
import { native } from '../platform/native.js'
import { adoptDescriptor, holdReading, releaseReading } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { feedOf } from '../platform/node/http2-session.js'

/** Who reads for a session, and can be told to wait. */
export interface Reading {
  hold(): void
  goOn(): void
  /** Whether every byte must come this way. */
  alone(isAlone: boolean): void
  /** The session reads by itself again. */
  end(): void
}

export class SessionReader implements Reading {
  readonly #session: http2.ServerHttp2Session
  readonly #socket: net.Socket
  readonly #copy: net.Socket
  #bytesRead: number
  #isAlone = false
  #ended = false

  private constructor(session: http2.ServerHttp2Session, socket: net.Socket, copy: net.Socket) {
    this.#session = session
    this.#socket = socket
    this.#copy = copy
    this.#bytesRead = socket.bytesRead
    holdReading(socket)
  }

  /** `arrived` gets what was read, and answers what is passed on. Undefined: this Node, or this connection, has no such way. */
  static of(session: http2.ServerHttp2Session, socket: net.Socket, arrived: (bytes: Buffer) => Buffer): SessionReader | undefined {
    const feed = feedOf(session)
    const fd = fdOf(socket)
    const copied = feed && fd !== undefined ? native?.duplicate(fd) : undefined
    if (!feed || copied === undefined || copied < 0) return undefined
    const copy = adoptDescriptor(copied, undefined, (bytes) => {
      const passed = arrived(bytes)
      if (!session.destroyed) feed(passed)
      if (!reader.#ended) holdReading(socket)
    })
    const reader = new SessionReader(session, socket, copy)
    // The session finds the same on its own descriptor.
    for (const event of ['end', 'error', 'close']) copy.on(event, () => { reader.end() })
    socket.once('close', () => { reader.end() })
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
    this.#isAlone = isAlone
    if (!isAlone || this.#ended) return
    holdReading(this.#socket)
    setImmediate(() => { if (this.#isAlone) this.alone(true) }).unref()
  }

  hold(): void {
    this.#copy.pause()
    holdReading(this.#socket)
  }

  goOn(): void {
    if (!this.#ended) this.#copy.resume()
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#copy.destroy()
    if (!this.#session.destroyed && !this.#socket.destroyed) releaseReading(this.#socket)
  }
}
