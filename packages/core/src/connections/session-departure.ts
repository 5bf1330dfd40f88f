/**
 * The predecessor's side of a session of HTTP/2 that moves. It leaves between two streams, when neither process needs to know what the
 * other's library remembers: the client's table of headers is empty, if need be by SETTINGS_HEADER_TABLE_SIZE 0 and its acknowledgement, no
 * stream is open, all that was to be sent is with the kernel, and no half frame has been read.
 *
 * From the beginning of the drain on this process sees where frames end (http2-frames.ts). When the last stream ends, it reads no more:
 * what the client sends next is the successor's.
 */

import type http2 from 'node:http2'
import type net from 'node:net'
import { unsentBytes } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { secretWord } from '../platform/on-demand.js'
import type { TlsRecordLayer } from '../platform/tls-records.js'
import type { MovedSession } from '../protocol/moved-connection.js'
import type { Session } from './connection.js'
import { emptyTable, FrameEnds, firstTableBytes, FrameSplitter, pairsOf, passesBefore, streamOf } from './http2-frames.js'
import type { Movability } from './movability.js'
import { SessionReader, type Reading } from './session-reader.js'

/** How long nothing is read until what was to be sent is with the kernel. */
const mostHeldMs = 50
/** What a session must not do while it is on its way: the client would see it. */
const says = ['close', 'destroy', 'goaway', 'ping', 'settings', 'setLocalWindowSize', 'altsvc', 'origin'] as const

/** Departures that were given up before their client had acknowledged that its table is gone. They end when it does. */
const unanswered = new WeakMap<http2.ServerHttp2Session, SessionDeparture>()

export class SessionDeparture {
  readonly records: TlsRecordLayer | undefined
  readonly #session: http2.ServerHttp2Session
  readonly #of: Session
  readonly #changed: () => void
  readonly #socket: net.Socket
  readonly #tableBytes: number
  /** Undefined: this Node, or this connection, has no way to read for it. */
  readonly #reading: Reading | undefined
  #ends: FrameEnds
  /** The ping was sent. */
  #asked = false
  /** The client was told to do without its table of headers, and has said yes. */
  #isTold = false
  #tableIsEmpty = false
  /** Pings without an answer. */
  #pings = 0
  /** What the session's own method was replaced with. */
  #counting: http2.ServerHttp2Session['ping'] | undefined
  #heldSince: number | undefined
  readonly #lingerMs: number
  /** When a client that has not answered yet is no longer waited for. */
  #silentFrom: number
  /** What the session gets behind the acknowledgement. */
  #behindAck: Buffer | undefined
  /** Of a head that may be one that nobody can read: its rest is to come. */
  #kept: Buffer = Buffer.alloc(0)
  /** The client's table is not what it says, so new streams are refused: the first of them, and what cuts the frames from there on. */
  #refused: { readonly from: number; readonly frames: FrameSplitter } | undefined
  /** What the program told the session while it was on its way: done where it comes back. */
  #unsaid: (() => void)[] = []

  /** `changed`: it may be able to leave now. `records`: under TLS, what reads in the place of OpenSSL. */
  constructor(of: Session, socket: net.Socket, lingerMs: number, changed: () => void, records?: TlsRecordLayer) {
    this.records = records
    const before = unanswered.get(of.session)
    if (before) before.#finish()
    this.#of = of
    this.#lingerMs = lingerMs
    this.#silentFrom = performance.now() + lingerMs
    this.#session = of.session
    this.#socket = socket
    this.#changed = changed
    this.#tableBytes = of.session.localSettings.headerTableSize ?? firstTableBytes
    const arrived = (bytes: Buffer): Buffer => this.#arrived(bytes)
    this.#ends = new FrameEnds(Buffer.alloc(8))
    this.#reading = of.continued ? of.continued.watch(arrived) : SessionReader.of(of.session, socket, arrived, records)
    if (!this.#reading) return
    this.#countPings()
    this.#findEnds()
  }

  /** What the client never used is not taken from it. A table larger than the first may be in force without being said again. */
  get #hasEmptyTable(): boolean {
    const neverUsed = !this.#isTold && this.#tableBytes === firstTableBytes && this.#session.state.inflateDynamicTableSize === 0
    return neverUsed || this.#tableIsEmpty
  }

  /**
   * Clients must say in their next head that the table has become smaller, and not all do (nginx never looks into its table). So the
   * session hears it right behind the acknowledgement, in a head on a stream that is closed, of which nobody hears.
   */
  #tell(): void {
    const { pendingSettingsAck, state: { lastProcStreamID = 0 } } = this.#session
    const open = new Set([...this.#of.streams.keys()].map(({ id }) => id))
    let closed = 1
    while (open.has(closed)) closed += 2
    if (this.#isTold || pendingSettingsAck || closed > lastProcStreamID || !this.#ends.isFound) return
    this.#isTold = true
    this.#silentFrom = performance.now() + this.#lingerMs
    this.#behindAck = emptyTable(closed)
    this.#ends.emptiesTable()
    this.#reading?.alone(true)
    this.#session.settings({ headerTableSize: 0 }, (error: Error | null) => {
      this.#tableIsEmpty = error === null
      if (unanswered.get(this.#session) !== this) return this.#changed()
      // The session is in the middle of what it reads.
      setImmediate(() => { if (unanswered.get(this.#session) === this) this.#finish() })
    })
  }

  /** Answers what the session gets instead. */
  #arrived(bytes: Buffer): Buffer {
    if (this.#refused) return this.#before(bytes)
    const all = this.#kept.length === 0 ? bytes : Buffer.concat([this.#kept, bytes])
    const { ackEnd, unreadableAt, keptFrom = all.length } = this.#ends.add(all)
    const end = unreadableAt ?? keptFrom
    this.#kept = Buffer.from(all.subarray(unreadableAt === undefined ? keptFrom : all.length))
    if (this.#isTold) this.#reading?.alone(this.#ends.looksAtHeads)
    const more = this.#behindAck
    const parts: Buffer[] = [all.subarray(0, end)]
    if (more !== undefined && ackEnd !== undefined) {
      this.#behindAck = undefined
      parts.splice(0, 1, all.subarray(0, ackEnd), more, all.subarray(ackEnd, end))
    }
    if (unreadableAt !== undefined) parts.push(this.#refuse(all.subarray(unreadableAt)))
    return Buffer.concat(parts)
  }

  /** The session never hears of the head that it cannot read, and of what comes behind it. So GOAWAY says that it may be sent again. */
  #refuse(bytes: Buffer): Buffer {
    this.#refused = { from: streamOf(bytes), frames: new FrameSplitter() }
    this.#reading?.alone(true)
    setImmediate(() => { this.#session.close() })
    return this.#before(bytes)
  }

  #before(bytes: Buffer): Buffer {
    const { from, frames } = this.#refused!
    return Buffer.concat(frames.take(bytes).filter(passesBefore(from)))
  }

  #findEnds(): void {
    const payload = Buffer.from(secretWord(), 'hex').subarray(0, 8)
    this.#ends = new FrameEnds(payload)
    this.#asked = this.#session.ping(payload, this.#changed)
  }

  /** Counts the program's pings from now on. Its earlier ones are answered before ours is. */
  #countPings(): void {
    const ping = this.#session.ping.bind(this.#session) as (...args: unknown[]) => boolean
    this.#counting = (...args: unknown[]): boolean => {
      const callback = args.findLast((arg) => typeof arg === 'function') as ((...answer: unknown[]) => void) | undefined
      const sent = ping(...args.filter((arg) => typeof arg !== 'function'), (...answer: unknown[]) => {
        this.#pings--
        callback?.(...answer)
      })
      if (sent) this.#pings++
      return sent
    }
    this.#session.ping = this.#counting
  }

  /** Its client is told to go, or will be in this turn of the loop. It reads on to see the client's end. */
  get #isClosing(): boolean {
    return this.#refused !== undefined || this.#session.closed || this.#session.destroyed
  }

  /** Its last stream has ended: the next one is the successor's, if it can be. */
  rest(): void {
    const isQuiet = this.#of.streams.size === 0 && this.#pings === 0 && !this.#session.pendingSettingsAck
    if (this.#heldSince !== undefined || this.#isClosing || !this.#ends.isEnd || !isQuiet || !this.#hasEmptyTable) return
    this.#heldSince = performance.now()
    this.#reading?.hold()
  }

  /** Must be called in the check phase. Where it answers `later`, it reads on, or will soon. */
  movability(): Movability {
    const socket = this.#socket
    if (!this.#reading) return { stays: 'http2' }
    if (this.#isClosing || socket.destroyed || fdOf(socket) === undefined) {
      this.goOn()
      return 'later'
    }
    // The client's stream numbers could not meet those of a push.
    if ((this.#session.state.nextStreamID ?? 2) > 2) return { stays: 'http2' }
    const isAwaited = !this.#ends.isFound || (this.#isTold && !this.#tableIsEmpty)
    if (isAwaited && performance.now() > this.#silentFrom) return { stays: 'silent' }
    if (!this.#asked || (this.#reading instanceof SessionReader && this.#reading.lostCount())) this.#findEnds()
    if (!this.#hasEmptyTable) this.#tell()
    this.rest()
    if (this.#heldSince === undefined) return 'later'
    if (this.#isSent()) return 'now'
    if (performance.now() - this.#heldSince < mostHeldMs) setImmediate(this.#changed)
    else this.goOn()
    return 'later'
  }

  /** Nothing was begun since it is held, and all that was said is with the kernel. */
  #isSent(): boolean {
    const { outboundQueueSize } = this.#session.state
    return this.#of.streams.size === 0 && this.#pings === 0 && !this.#session.pendingSettingsAck && this.#ends.isEnd &&
      outboundQueueSize === 0 && unsentBytes(this.#socket) === 0 && this.#socket.readable && this.#socket.writable &&
      (this.#of.continued?.isAtRest ?? true)
  }

  /** Reads on. */
  goOn(): void {
    if (this.#heldSince === undefined) return
    this.#heldSince = undefined
    this.#reading?.goOn()
  }

  /** What the successor must know. From now on the session says nothing. */
  leave(): MovedSession {
    const { remoteWindowSize = 0, effectiveLocalWindowSize = 0, effectiveRecvDataLength = 0, lastProcStreamID = 0 } = this.#session.state
    const session = this.#session as unknown as Record<string, (...args: unknown[]) => unknown>
    for (const name of says) {
      session[name] = (...args) => {
        this.#unsaid.push(() => session[name]?.(...args))
        return true
      }
    }
    return {
      client: pairsOf(this.#session.remoteSettings),
      server: pairsOf(this.#session.localSettings),
      lastStream: lastProcStreamID,
      sendWindow: remoteWindowSize - (this.#of.continued?.owed ?? 0),
      receiveWindow: effectiveLocalWindowSize - effectiveRecvDataLength,
      receiveLimit: effectiveLocalWindowSize,
      ...(!this.#isTold && { tableStays: true })
    }
  }

  /** It has left: closes this copy. */
  left(): void {
    this.#say()
    this.#socket.destroy()
  }

  #say(): void {
    for (const name of says) Reflect.deleteProperty(this.#session, name)
  }

  /** It has not left. */
  back(): void {
    this.#say()
    this.#countPings()
    for (const say of this.#unsaid.splice(0)) say()
    this.goOn()
  }

  /** The process serves again, or the session stays: it is as it was, as soon as the client has answered. */
  end(): void {
    this.goOn()
    if (this.#isTold && !this.#tableIsEmpty) unanswered.set(this.#session, this)
    else this.#finish()
  }

  #finish(): void {
    unanswered.delete(this.#session)
    if (this.#session.ping === this.#counting) Reflect.deleteProperty(this.#session, 'ping')
    if (this.#kept.length > 0) this.#reading?.pass(this.#kept)
    this.#kept = Buffer.alloc(0)
    this.#reading?.end()
    if (!this.#isTold || this.#isClosing) return
    this.#session.settings({ headerTableSize: this.#tableBytes }, () => undefined)
  }
}
