/**
 * Clients of HTTP/2 who check all that they get, and never retry or connect anew: each has one session, with settings and windows of its
 * own, and asks again and again, several streams at a time.
 */

import { createHash } from 'node:crypto'
import http2 from 'node:http2'
import { setTimeout as wait } from 'node:timers/promises'
import { nowMs } from './clock.js'

const hashOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
const below = (count: number): number => Math.floor(Math.random() * count)

/** Settings and connection windows that clients are known to have. */
const kinds: readonly { readonly settings: http2.Settings; readonly window?: number }[] = [
  { settings: {} },
  { settings: { headerTableSize: 65_536, initialWindowSize: 6_291_456, enablePush: false }, window: 15_728_640 },
  { settings: { initialWindowSize: 1_000 } },
  { settings: { headerTableSize: 0, maxConcurrentStreams: 1 } },
  { settings: { maxFrameSize: 65_536, initialWindowSize: 200_000 }, window: 300_000 },
  { settings: { maxHeaderListSize: 8_192, headerTableSize: 200 } }
]

export interface SessionLoadOptions {
  readonly sessions: number
  /** Between two rounds, by turns. */
  readonly thinkMs: readonly number[]
  readonly mostBytes?: number
}

interface Served {
  /** Of the first answer. */
  readonly pid: number
  /** When it came, on the clock of nowMs(). */
  readonly firstAt: number
  readonly sessions: Set<number>
}

export class SessionLoad {
  answers = 0
  pings = 0
  readonly lost: string[] = []
  readonly goaways: string[] = []
  closed = 0
  readonly sessions: http2.ClientHttp2Session[]
  readonly #versions = new Map<string, Served>()
  readonly #users: Promise<void>[]
  readonly #mostBytes: number
  #stopping = false

  constructor(url: string, { sessions, thinkMs, mostBytes = 200_000 }: SessionLoadOptions) {
    this.#mostBytes = mostBytes
    this.sessions = Array.from({ length: sessions }, (_, index) => this.#open(url, index))
    this.#users = this.sessions.map((session, index) => this.#user(session, index, thinkMs[index % thinkMs.length]!))
  }

  /** How many sessions this version has answered. */
  served(version: number | string): number {
    return this.#versions.get(String(version))?.sessions.size ?? 0
  }

  /** The versions that have answered, by their first answer. */
  stats(): { versions: (Omit<Served, 'sessions'> & { readonly version: string })[] } {
    return { versions: [...this.#versions].map(([version, { pid, firstAt }]) => ({ version, pid, firstAt })) }
  }

  #open(url: string, index: number): http2.ClientHttp2Session {
    const { settings, window } = kinds[index % kinds.length]!
    const session = http2.connect(url, { rejectUnauthorized: false, settings })
    if (window !== undefined) session.once('connect', () => { session.setLocalWindowSize(window) })
    session.on('goaway', (code) => { this.goaways.push(`session ${index}, code ${code}`) })
    session.on('error', (error: Error) => { this.lost.push(`session ${index}: ${error.message}`) })
    session.on('close', () => { if (!this.#stopping) this.closed++ })
    return session
  }

  #goesOn(session: http2.ClientHttp2Session): boolean {
    return !this.#stopping && !session.destroyed
  }

  async #user(session: http2.ClientHttp2Session, index: number, thinkMs: number): Promise<void> {
    const isSmall = index % kinds.length === 2
    while (this.#goesOn(session)) {
      const count = 1 + below(3)
      const most = (): number => (isSmall ? 2_000 : below(3) === 0 ? this.#mostBytes : 300)
      await Promise.all(Array.from({ length: count }, () => this.#ask(session, index, most())))
      if (below(4) === 0 && this.#goesOn(session)) session.ping((error) => { if (!error) this.pings++ })
      await wait(thinkMs)
    }
  }

  async #ask(session: http2.ClientHttp2Session, index: number, most: number): Promise<void> {
    const [bytes, seed, thing] = [below(most), below(2 ** 32), `value-${below(20)}`]
    const body = Buffer.alloc(below(most), `${seed} `)
    const path = `/?bytes=${bytes}&seed=${seed}&ms=${below(4) * 3}`
    try {
      const agent = `client ${index} `.repeat(below(10))
      const stream = session.request({ ':method': 'POST', ':path': path, 'x-thing': thing, 'user-agent': agent })
      let head: http2.IncomingHttpHeaders = {}
      stream.on('response', (headers) => { head = headers })
      stream.end(body)
      const answer = Buffer.concat(await stream.toArray() as Buffer[])
      const expected = Buffer.alloc(bytes, 'body')
      if (bytes >= 4) expected.writeUInt32BE(seed)
      if (head['x-hash'] !== hashOf(body) || head['x-echo'] !== thing || !answer.equals(expected)) {
        this.lost.push(`session ${index}: ${path} with ${body.length} bytes was answered with ${answer.length} bytes and ${JSON.stringify(head)}`)
        return
      }
      this.answers++
      const version = String(head['x-version'])
      const served = this.#versions.get(version) ?? { pid: Number(head['x-pid']), firstAt: nowMs(), sessions: new Set() }
      this.#versions.set(version, served)
      served.sessions.add(index)
    } catch (error) {
      this.lost.push(`session ${index}: ${path}: ${(error as Error).message}`)
    }
  }

  /** Throws what went wrong meanwhile. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.lost.length > 0) throw new Error(this.lost.slice(0, 3).join('; '))
      await wait(10)
    }
  }

  /** Resolves when every stream has its answer. */
  async stop(): Promise<void> {
    this.#stopping = true
    await Promise.all(this.#users)
    for (const session of this.sessions) session.destroy()
  }
}
