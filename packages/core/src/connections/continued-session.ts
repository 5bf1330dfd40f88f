/**
 * The successor's side of a session of HTTP/2 that moved: the stream on which a new session of Node goes on with a client whose session
 * began in another process. It plays the client's beginning to the new session (http2-frames.ts) and swallows the answers to it; all other
 * frames pass.
 *
 * The two windows of the connection are exact from the beginning. What the client may send goes by the methods of the session. What the new
 * session may send less than it believes (`owed`) is kept back here, and is paid by the first updates of the client.
 */

import type http2 from 'node:http2'
import type net from 'node:net'
import { Duplex } from 'node:stream'
import { holdReading, releaseReading } from '../platform/node/connection-handle.js'
import { lendAddresses, makeSecure } from '../platform/node/http2-session.js'
import type { MovedSession } from '../protocol/moved-connection.js'
import {
  beginningOf, changesFrom, endOrAck, firstWindow, flagsOf, FrameSplitter, frameOf, frameTypes, headBytes, lengthOf, mostBytesOf, padded,
  passesBefore, settingsOf, streamOf, TableWatch, typeOf, updateOf, windowUpdate
} from './http2-frames.js'
import type { Reading } from './session-reader.js'

/** These may overtake what is kept back: none belongs to a stream's data. */
const overtaking: ReadonlySet<number> = new Set([frameTypes.settings, frameTypes.ping, frameTypes.windowUpdate])
/** Far more than the answers that a client waits for. One that goes on asking, and lets nothing be sent, has its connection closed. */
const mostKept = 1_048_576

export class ContinuedSession extends Duplex {
  readonly socket: net.Socket
  readonly #moved: MovedSession
  readonly #fromClient: FrameSplitter
  readonly #toClient = new FrameSplitter()
  /** Answers of the new session to its beginning that are to come, by type. */
  readonly #swallowed: { settings: number; acks: number; resets: number }
  /** How much of the next update of the client's window it has already. */
  #known: number
  #owed: number
  /** What the client lets this side send; counted while something is owed. */
  #credit: number
  /** What is owed, and the frames that come behind it, in their order. */
  readonly #kept: Buffer[] = []
  #keptBytes = 0
  /** Of the client, whose table is empty: until it is known to be so for the client, too. */
  #table: TableWatch | undefined
  /** The first stream whose head cannot be read. */
  #refusedFrom = Infinity
  /** Nothing is read: the session moves on. */
  #held = false
  #session: http2.ServerHttp2Session | undefined
  #watcher: ((bytes: Buffer) => Buffer) | undefined

  /** Nothing is read or written before the next turn of the loop. */
  constructor(socket: net.Socket, moved: MovedSession) {
    super({ allowHalfOpen: true })
    this.socket = socket
    this.#moved = moved
    this.#table = new TableWatch(moved.tableStays === true)
    this.#fromClient = new FrameSplitter(mostBytesOf(moved.server))
    this.#owed = Math.max(0, firstWindow - moved.sendWindow)
    this.#credit = moved.sendWindow
    this.#known = Math.max(0, moved.receiveLimit - firstWindow)
    this.#swallowed = { settings: 2, acks: 2, resets: moved.lastStream > 0 ? 1 : 0 }
    this.push(beginningOf(moved))
    socket.pause()
    socket.on('end', () => { this.push(null) })
    socket.on('error', (error) => { this.destroy(error) })
    socket.on('close', () => { this.destroy() })
  }

  /** Call it before anything else is done with the new session. `own`: the settings of its server. */
  begin(session: http2.ServerHttp2Session, own: http2.Settings): void {
    const { server, receiveLimit, receiveWindow } = this.#moved
    this.#session = session
    lendAddresses(session, this.socket)
    if (this.#isSecure) makeSecure(session, this.socket)
    session.settings(settingsOf(server))
    session.settings(changesFrom(server, own))
    if (receiveLimit > firstWindow) session.setLocalWindowSize(receiveLimit)
    const more = Math.max(receiveLimit, firstWindow) - receiveWindow
    if (more > 0) this.#keep(windowUpdate(more))
  }

  get #isSecure(): boolean {
    return 'encrypted' in this.socket
  }

  /** What the new session believes that it may send, and may not. */
  get owed(): number {
    return this.#owed
  }

  /** Nothing is on its way through here. */
  get isAtRest(): boolean {
    const { settings, acks, resets } = this.#swallowed
    return settings + acks + resets + this.#known === 0 && this.#kept.length === 0 &&
      this.readableLength === 0 && this.writableLength === 0 && this.socket.readableLength === 0 &&
      this.#fromClient.rest.length === 0 && this.#toClient.rest.length === 0
  }

  /** `arrived` gets what was read, and answers what goes on to the session. */
  watch(arrived: (bytes: Buffer) => Buffer): Reading {
    this.#watcher = arrived
    return {
      hold: () => {
        this.#held = true
        this.socket.pause()
        // There pausing alone does not stop the connection below.
        if (this.#isSecure) holdReading(this.socket)
      },
      goOn: () => {
        this.#held = false
        if (this.#isSecure) releaseReading(this.socket)
        this.socket.resume()
      },
      alone: () => undefined,
      pass: (bytes) => { this.#passesOn(bytes) },
      end: () => { this.#watcher = undefined }
    }
  }

  /** The connection was read. */
  arrived(bytes: Buffer): void {
    const passed = this.#watcher?.(bytes) ?? bytes
    if (!this.#passesOn(Buffer.from(passed))) this.socket.pause()
  }

  /** False: read no more for now. */
  #passesOn(bytes: Buffer): boolean {
    if (!this.#seesFrames && this.#fromClient.rest.length === 0) return this.push(bytes)
    const passed: Buffer[] = []
    for (const frame of this.#fromClient.take(bytes)) {
      if (this.#refuses(frame)) continue
      const update = this.#owed > 0 ? updateOf(frame) : undefined
      if (update === undefined) {
        passed.push(frame)
        continue
      }
      const paid = Math.min(this.#owed, update)
      this.#owed -= paid
      this.#credit += update
      if (update > paid) passed.push(windowUpdate(update - paid))
    }
    // Where frames end is of no interest any more.
    if (!this.#seesFrames) passed.push(this.#fromClient.takeRest())
    this.#send(this.#released())
    const all = Buffer.concat(passed)
    return all.length === 0 || this.push(all)
  }

  get #seesFrames(): boolean {
    return this.#owed > 0 || this.#table !== undefined || this.#refusedFrom < Infinity
  }

  /** The session never hears of a head that it cannot read, and of what comes behind it. So GOAWAY says that it may be sent again. */
  #refuses(frame: Buffer): boolean {
    if (this.#table && typeOf(frame) === frameTypes.headers) {
      if (this.#table.isUnreadable(frame)) {
        this.#refusedFrom = streamOf(frame)
        setImmediate(() => { this.#session?.close() })
      }
      if (this.#table.isOver || this.#refusedFrom < Infinity) this.#table = undefined
    }
    return !passesBefore(this.#refusedFrom)(frame)
  }

  override _read(): void {
    if (!this.#held) this.socket.resume()
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, written: () => void): void {
    const { settings, acks, resets } = this.#swallowed
    if (settings + acks + resets + this.#known + this.#owed === 0 && this.#kept.length === 0 && this.#toClient.rest.length === 0) {
      this.socket.write(bytes, written)
      return
    }
    const sent = this.#released()
    for (const given of this.#toClient.take(bytes)) {
      const frame = this.#unknown(given)
      if (!frame) continue
      if (this.#kept.length > 0 && !overtaking.has(typeOf(frame))) this.#keep(frame)
      else {
        const [part, rest] = this.#divided(frame)
        if (part) sent.push(part)
        if (rest) this.#keep(rest)
      }
    }
    // Without an error: a program that does not listen for those of its streams would end.
    if (this.#keptBytes > mostKept) this.destroy()
    // A session that waits for a write reads nothing: not the update either that what is kept back waits for.
    this.#send(sent, written)
  }

  /** As much of the frame as the client does not know; nothing of an answer to what it never said. */
  #unknown(frame: Buffer): Buffer | undefined {
    const counts = this.#swallowed
    const unless = (name: keyof typeof counts): Buffer | undefined => (counts[name] > 0 && counts[name]-- > 0 ? undefined : frame)
    switch (typeOf(frame)) {
      case frameTypes.settings: return unless((flagsOf(frame) & endOrAck) === 0 ? 'settings' : 'acks')
      case frameTypes.reset: return streamOf(frame) === this.#moved.lastStream ? unless('resets') : frame
      case frameTypes.windowUpdate: {
        const update = updateOf(frame)
        if (update === undefined || this.#known === 0) return frame
        const known = Math.min(this.#known, update)
        this.#known -= known
        return update > known ? windowUpdate(update - known) : undefined
      }
    }
    return frame
  }

  #keep(frame: Buffer): void {
    this.#kept.push(frame)
    this.#keptBytes += frame.length
  }

  /** Of what is kept: as much as the client lets this side send. */
  #released(): Buffer[] {
    const sent: Buffer[] = []
    let count = 0
    for (; count < this.#kept.length; count++) {
      const frame = this.#kept[count]!
      const [part, rest] = this.#divided(frame)
      if (part) sent.push(part)
      this.#keptBytes -= frame.length - (rest?.length ?? 0)
      if (!rest) continue
      this.#kept[count] = rest
      break
    }
    this.#kept.splice(0, count)
    return sent
  }

  #send(frames: readonly Buffer[], written: () => void = () => undefined): void {
    if (frames.length > 0) this.socket.write(Buffer.concat(frames), written)
    else written()
  }

  /** What of this frame the client lets this side send, and what not. */
  #divided(frame: Buffer): readonly [sent: Buffer | undefined, rest?: Buffer] {
    if (typeOf(frame) !== frameTypes.data || this.#owed === 0) return [frame]
    const length = lengthOf(frame)
    if (length <= this.#credit) {
      this.#credit -= length
      return [frame]
    }
    const flags = flagsOf(frame)
    const part = (flags & padded) === 0 ? this.#credit : 0
    if (part === 0) return [undefined, frame]
    this.#credit -= part
    const [first, rest] = [frame.subarray(headBytes, headBytes + part), frame.subarray(headBytes + part)]
    return [frameOf(frameTypes.data, 0, streamOf(frame), first), frameOf(frameTypes.data, flags, streamOf(frame), rest)]
  }

  override _final(ended: () => void): void {
    // The client may have ended first: then it is no error that this side has, too.
    this.socket.end(() => { ended() })
  }

  override _destroy(error: Error | null, destroyed: (error: Error | null) => void): void {
    this.socket.destroy()
    destroyed(error)
  }
}
