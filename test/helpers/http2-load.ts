/**
 * A strict HTTP/2 load: users who ask again and again, all as streams of one session, and never retry.
 *
 * A session that was told to go (GOAWAY) gets no new streams; the next one is opened for them. A stream that ends without its whole
 * answer is lost. One that crossed the GOAWAY is refused, which promises that it was not begun (RFC 9113, 8.7): it is kept apart, so that
 * the test can see whether that is true.
 */

import http2 from 'node:http2'
import { setTimeout as wait } from 'node:timers/promises'

export interface Http2Result {
  readonly answers: number
  readonly lost: readonly string[]
  /** The paths of the streams that were refused after a GOAWAY. */
  readonly told: readonly string[]
  readonly sessions: number
  readonly goaways: number
  /** Sessions that ended without a GOAWAY before. */
  readonly untold: number
  readonly versions: ReadonlySet<string>
  readonly pids: ReadonlySet<number>
}

export class Http2Load {
  answers = 0
  readonly lost: string[] = []
  readonly told: string[] = []
  sessions = 0
  goaways = 0
  untold = 0
  readonly versions = new Set<string>()
  readonly pids = new Set<number>()
  readonly #url: string
  readonly #users: Promise<void>[]
  readonly #going = new WeakSet<http2.ClientHttp2Session>()
  #session: http2.ClientHttp2Session | undefined
  #stopping = false

  constructor(url: string, users: number, thinkMs: number) {
    this.#url = url
    this.#users = Array.from({ length: users }, (_, index) => this.#user(index, thinkMs))
  }

  #open(): http2.ClientHttp2Session {
    const session = http2.connect(this.#url, { rejectUnauthorized: false })
    this.sessions++
    session.on('goaway', (code) => {
      this.goaways++
      this.#going.add(session)
      if (code !== http2.constants.NGHTTP2_NO_ERROR) this.lost.push(`GOAWAY with code ${code}`)
      if (this.#session === session) this.#session = undefined
    })
    session.on('error', (error) => { this.lost.push(`session: ${error.message}`) })
    session.on('close', () => {
      if (!this.#going.has(session) && !this.#stopping) this.untold++
      if (this.#session === session) this.#session = undefined
    })
    return session
  }

  async #user(index: number, thinkMs: number): Promise<void> {
    for (let count = 0; !this.#stopping; count++) {
      this.#session ??= this.#open()
      const session = this.#session
      const path = `/?ms=${(index % 4) * 100}&id=${index}-${count}`
      const stream = session.request({ ':path': path })
      try {
        let status = 0
        stream.on('response', (headers) => { status = Number(headers[':status']) })
        const body = (await stream.setEncoding('utf8').toArray()).join('')
        const found = /^(\d+) (\d+)$/.exec(body)
        if (status !== 200 || !found) this.lost.push(`status ${status}, ${JSON.stringify(body)}`)
        else {
          this.answers++
          this.versions.add(found[1]!)
          this.pids.add(Number(found[2]))
        }
      } catch (error) {
        if (stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM && this.#going.has(session)) this.told.push(path)
        else this.lost.push(`stream: ${(error as Error).message}`)
      }
      await wait(thinkMs)
    }
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.lost.length > 0) throw new Error(this.lost[0])
      await wait(10)
    }
  }

  async stop(): Promise<Http2Result> {
    this.#stopping = true
    await Promise.all(this.#users)
    this.#session?.close()
    return this
  }
}
