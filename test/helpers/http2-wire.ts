/**
 * A client of HTTP/2 that writes and reads frames itself, so that a test decides over every byte: windows, settings, stream numbers, frames
 * that come in parts. It answers SETTINGS and PING as a client must, and nothing else by itself.
 */

import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import { expect } from 'vitest'
import { FrameSplitter, frameOf } from './internals.js'

export const types = { data: 0, headers: 1, priority: 2, reset: 3, settings: 4, ping: 6, goaway: 7, windowUpdate: 8 } as const
export const settingIds = { headerTableSize: 1, enablePush: 2, maxConcurrentStreams: 3, initialWindowSize: 4, maxFrameSize: 5 } as const
const [endStream, ack, endHeaders] = [1, 1, 4]
export const firstWindow = 65_535

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

export function settingsFrame(settings: Readonly<Record<number, number>>): Buffer {
  const payload = Buffer.concat(Object.entries(settings).map(([id, value]) => {
    const pair = Buffer.alloc(6)
    pair.writeUInt16BE(Number(id))
    pair.writeUInt32BE(value, 2)
    return pair
  }))
  return frameOf(types.settings, 0, 0, payload)
}

export function windowUpdate(stream: number, bytes: number): Buffer {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(bytes)
  return frameOf(types.windowUpdate, 0, stream, payload)
}

export const reset = (stream: number): Buffer => frameOf(types.reset, 0, stream, Buffer.from([0, 0, 0, 8]))

const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)])

/** `indexed`: the headers go into the table of the client, which it never looks into, as nginx does. */
export function headersFrame(stream: number, path: string, { end = true, indexed = false, first = Buffer.alloc(0) } = {}): Buffer {
  const mark = indexed ? 0x40 : 0
  const block = [first, Buffer.from([0x82, 0x86, 4 | mark]), text(path), Buffer.from([1 | mark]), text('localhost')]
  return frameOf(types.headers, endHeaders | (end ? endStream : 0), stream, Buffer.concat(block))
}

/** The path and authority of the client's first request, which was `indexed`, looked up in its table. */
export const sameAgain = (stream: number): Buffer => frameOf(types.headers, endHeaders, stream, Buffer.from([0x83, 0x86, 0xbf, 0xbe]))

export class WireClient {
  readonly frames: Frame[] = []
  /** What the server lets this client send on the connection. */
  credit = firstWindow
  /** What this client lets the server send on the connection. */
  allowed = firstWindow
  /** `end` or the error, once the server has closed. */
  closed: string | undefined
  nextStream = 1
  /** Where it does not answer SETTINGS and PING. */
  silent = false
  /** Answers that wait for the end of a frame that is cut. */
  #later: Buffer[] | undefined
  readonly #socket: net.Socket
  readonly #splitter = new FrameSplitter()
  readonly #watchers = new Set<() => void>()

  private constructor(socket: net.Socket) {
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on('data', (bytes: Buffer) => {
      for (const frame of this.#splitter.take(bytes)) {
        this.#arrived({ type: frame[3]!, flags: frame[4]!, stream: frame.readUInt32BE(5), payload: Buffer.from(frame.subarray(9)) })
      }
      this.#changed()
    })
    const close = (how: string) => () => {
      this.closed ??= how
      this.#changed()
    }
    socket.on('end', close('end')).on('close', close('close')).on('error', (error) => { close(error.message)() })
  }

  /** `window`: of the connection, at least 65,535. */
  static async connect(port: number, settings: Readonly<Record<number, number>> = {}, window = firstWindow): Promise<WireClient> {
    const socket = net.connect(port, '127.0.0.1')
    await once(socket, 'connect')
    return WireClient.#begin(socket, settings, window)
  }

  static async connectSecurely(port: number): Promise<WireClient> {
    const socket = tls.connect({ port, host: '127.0.0.1', ALPNProtocols: ['h2'], rejectUnauthorized: false })
    await once(socket, 'secureConnect')
    return WireClient.#begin(socket)
  }

  static #begin(socket: net.Socket, settings: Readonly<Record<number, number>> = {}, window = firstWindow): WireClient {
    const client = new WireClient(socket)
    client.write(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), settingsFrame(settings))
    if (window > firstWindow) client.allow(0, window - firstWindow)
    return client
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher()
  }

  #arrived(frame: Frame): void {
    this.frames.push(frame)
    const { type, flags, stream, payload } = frame
    if (type === types.data) this.allowed -= payload.length
    if (type === types.windowUpdate && stream === 0) this.credit += payload.readUInt32BE()
    if (this.silent || (flags & ack) !== 0) return
    if (type === types.settings) this.#answer(frameOf(types.settings, ack, 0))
    if (type === types.ping) this.#answer(frameOf(types.ping, ack, 0, payload))
  }

  #answer(frame: Buffer): void {
    if (this.#later) this.#later.push(frame)
    else this.write(frame)
  }

  /** Writes a frame in two parts, with a pause behind its first `at` bytes: so many milliseconds, or until the promise resolves. */
  async writeCut(frame: Buffer, at: number, pause: number | Promise<unknown>): Promise<void> {
    this.#later = []
    this.write(frame.subarray(0, at))
    await (typeof pause === 'number' ? new Promise((resolve) => setTimeout(resolve, pause)) : pause)
    this.write(frame.subarray(at), ...this.#later)
    this.#later = undefined
  }

  write(...frames: readonly Buffer[]): void {
    this.#socket.write(Buffer.concat(frames))
  }

  /** Lets the server send more on a stream, or on the connection (0). */
  allow(stream: number, bytes: number): void {
    if (stream === 0) this.allowed += bytes
    this.write(windowUpdate(stream, bytes))
  }

  /** Begins a stream; answers its number. */
  request(path: string, options: Parameters<typeof headersFrame>[2] = {}): number {
    const stream = this.nextStream
    this.nextStream += 2
    this.write(headersFrame(stream, path, options))
    return stream
  }

  data(stream: number, bytes: number, end = false): void {
    this.credit -= bytes
    const frames: Buffer[] = []
    for (let at = 0; at < bytes || (at === 0 && end); at += 16_384) {
      const length = Math.min(16_384, bytes - at)
      frames.push(frameOf(types.data, end && at + length >= bytes ? endStream : 0, stream, Buffer.alloc(length, 'x')))
      if (length === 0) break
    }
    this.write(...frames)
  }

  /** Throws where the server has closed, or has said that something is wrong. */
  async until<T>(look: () => T | undefined | false): Promise<T> {
    return await this.look(() => {
      const found = look()
      const goaway = this.frames.find(({ type }) => type === types.goaway)
      if ((found === undefined || found === false) && goaway) {
        throw new Error(`GOAWAY, code ${goaway.payload.readUInt32BE(4)}: ${goaway.payload.subarray(8).toString()}`)
      }
      return found
    })
  }

  /** As until(), also behind a GOAWAY. */
  async look<T>(look: () => T | undefined | false): Promise<T> {
    for (;;) {
      const found = look()
      if (found !== undefined && found !== false) return found
      if (this.closed !== undefined) throw new Error(`the server has closed: ${this.closed}`)
      await new Promise<void>((resolve) => {
        const watcher = (): void => {
          this.#watchers.delete(watcher)
          resolve()
        }
        this.#watchers.add(watcher)
      })
    }
  }

  /** Resolves when the server has answered a ping; `times`: so many, one after the other. */
  async ping(times = 1): Promise<void> {
    for (let count = 0; count < times; count++) {
      const payload = Buffer.from(String(Math.random()).padEnd(10).slice(2, 10))
      this.write(frameOf(types.ping, 0, 0, payload))
      const answer = frameOf(types.ping, ack, 0, payload)
      await this.until(() => this.frames.some(({ type, flags, payload: found }) => frameOf(type, flags, 0, found).equals(answer)))
    }
  }

  /** All settings of the server so far: identifiers and values. */
  get settings(): (readonly [number, number])[] {
    return this.frames.filter(({ type }) => type === types.settings).flatMap(({ payload }) =>
      Array.from({ length: payload.length / 6 }, (_, at) => [payload.readUInt16BE(at * 6), payload.readUInt32BE(at * 6 + 2)] as const))
  }

  #of(stream: number): Frame[] {
    return this.frames.filter((frame) => frame.stream === stream)
  }

  /** How many bytes have come on a stream. */
  received(stream: number): number {
    return this.#of(stream).filter(({ type }) => type === types.data).reduce((sum, { payload }) => sum + payload.length, 0)
  }

  resetOf(stream: number): number | undefined {
    return this.#of(stream).find(({ type }) => type === types.reset)?.payload.readUInt32BE()
  }

  /** Resolves with the bytes of the whole answer; rejects where the stream is reset. */
  async answer(stream: number): Promise<number> {
    await this.until(() => {
      const code = this.resetOf(stream)
      if (code !== undefined) throw new Error(`stream ${stream} was reset, code ${code}`)
      return this.#of(stream).some(({ type, flags }) => (type === types.data || type === types.headers) && (flags & endStream) !== 0)
    })
    return this.received(stream)
  }

  /** The server sends exactly so much on this stream, and then waits. */
  async sendsExactly(stream: number, bytes: number): Promise<void> {
    await this.until(() => this.received(stream) >= bytes)
    await this.ping(3)
    expect(this.received(stream)).toBe(bytes)
  }

  get goaways(): number {
    return this.frames.filter(({ type }) => type === types.goaway).length
  }

  destroy(): void {
    this.#socket.destroy()
  }
}
