/**
 * The predecessor's side of a session of HTTP/2 that moves. It leaves between two streams, when neither process needs to know what the
 * other's library remembers: the client has emptied its table of headers (SETTINGS_HEADER_TABLE_SIZE 0, and its acknowledgement), no
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
import type { MovedSession } from '../protocol/moved-connection.js'
import type { Session } from './connection.js'
import { FrameEnds, pairsOf } from './http2-frames.js'
import type { Movability } from './movability.js'
import { SessionReader, type Reading } from './session-reader.js'

/** How long nothing is read until what was to be sent is with the kernel. */
const mostHeldMs = 50
/** What a session must not do while it is on its way: the client would see it. */
const says = ['close', 'destroy', 'goaway', 'ping', 'settings', 'setLocalWindowSize', 'altsvc', 'origin'] as const

export class SessionDeparture {
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
  #tableIsEmpty = false
  /** Pings without an answer. */
  #pings = 0
  #heldSince: number | undefined
  /** When a client that has not answered yet is no longer waited for. */
  readonly #silentFrom: number
  /** Called while it is on its way. */
  #unsaid: (() => void)[] = []

  /** `changed`: it may be able to leave now. */
  constructor(of: Session, socket: net.Socket, lingerMs: number, changed: () => void) {
    this.#of = of
    this.#silentFrom = performance.now() + lingerMs
    this.#session = of.session
    this.#socket = socket
    this.#changed = changed
    this.#tableBytes = of.session.localSettings.headerTableSize ?? 4_096
    const arrived = (bytes: Buffer): void => { this.#ends.add(bytes) }
    this.#ends = new FrameEnds(Buffer.alloc(8))
    this.#reading = of.continued ? of.continued.watch(arrived) : SessionReader.of(of.session, socket, arrived)
    if (!this.#reading) return
    this.#countPings()
    this.#session.settings({ headerTableSize: 0 }, (error: Error | null) => {
      this.#tableIsEmpty = error === null
      changed()
    })
    this.#findEnds()
  }

  #findEnds(): void {
    const payload = Buffer.from(secretWord(), 'hex').subarray(0, 8)
    this.#ends = new FrameEnds(payload)
    this.#asked = this.#session.ping(payload, this.#changed)
  }

  /** Those of the program before were answered before ours is. */
  #countPings(): void {
    const ping = this.#session.ping.bind(this.#session) as (...args: unknown[]) => boolean
    this.#session.ping = (...args: unknown[]): boolean => {
      const callback = args.findLast((arg) => typeof arg === 'function') as ((...answer: unknown[]) => void) | undefined
      const sent = ping(...args.filter((arg) => typeof arg !== 'function'), (...answer: unknown[]) => {
        this.#pings--
        callback?.(...answer)
      })
      if (sent) this.#pings++
      return sent
    }
  }

  /** Its last stream has ended: the next one is the successor's, if it can be. */
  rest(): void {
    const isQuiet = this.#of.streams.size === 0 && this.#pings === 0 && !this.#session.pendingSettingsAck
    if (!this.#tableIsEmpty || !this.#ends.isEnd || !isQuiet || this.#heldSince !== undefined) return
    this.#heldSince = performance.now()
    this.#reading?.hold()
  }

  /** Must be called in the check phase. Where it answers `later`, it reads on, or will soon. */
  movability(): Movability {
    const socket = this.#socket
    if (!this.#reading) return { stays: 'http2' }
    if (this.#session.destroyed || this.#session.closed || socket.destroyed || fdOf(socket) === undefined) return 'later'
    // The client's stream numbers could not meet those of a push.
    if ((this.#session.state.nextStreamID ?? 2) > 2) return { stays: 'http2' }
    if (!this.#tableIsEmpty && performance.now() > this.#silentFrom) return { stays: 'silent' }
    if (!this.#asked || (this.#reading instanceof SessionReader && this.#reading.lostCount())) this.#findEnds()
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
    if (!this.#session.destroyed) this.#reading?.goOn()
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
      receiveLimit: effectiveLocalWindowSize
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

  /** The process serves again, or the session stays: it is as it was. */
  end(): void {
    this.goOn()
    this.#reading?.end()
    if (!this.#session.destroyed && !this.#session.closed) this.#session.settings({ headerTableSize: this.#tableBytes }, () => undefined)
  }
}
