/**
 * A WebSocket client whose messages are numbered, and that checks everything that comes: each of its messages comes back once, whole and
 * in order, pushes and pongs follow each other, and nobody closes the connection. Counterpart of test/programs/ws.mjs.
 */

import { setTimeout as wait } from 'node:timers/promises'
import WebSocket, { type ClientOptions } from 'ws'
import type { Program } from './program.js'

export interface ConnectOptions extends ClientOptions {
  readonly protocols?: string[]
  readonly path?: string
}

/** Where test/programs/ws.mjs listens. */
export async function addressOf(program: Program): Promise<string> {
  const { address } = await program.event('listening')
  return `ws://127.0.0.1:${(address as { port: number }).port}`
}

export class NumberedClient implements Disposable {
  readonly ws: WebSocket
  /** What was not as it must be. */
  readonly errors: string[] = []
  sent = 0
  came = 0
  pushed = 0
  pinged = 0
  ponged = 0
  /** The code of the close frame, once it is closed. */
  closed: number | undefined
  /** Of the server that pushed last. */
  pid = 0
  /** Messages that are no echo and no push. */
  readonly others: string[] = []
  readonly #waiting: { readonly text: string; readonly isBinary: boolean }[] = []
  readonly #watchers = new Set<() => void>()
  #stopping = false
  /** In the middle of a message. */
  #inParts = false

  private constructor(ws: WebSocket) {
    this.ws = ws
    ws.on('message', (data, isBinary) => { this.#message((data as Buffer).toString('latin1'), isBinary) })
    ws.on('pong', (data) => {
      if (Number(data) !== this.ponged + 1) this.errors.push(`pong ${String(data)} after ${this.ponged}`)
      this.ponged = Number(data)
      this.#changed()
    })
    ws.on('close', (code) => {
      this.closed = code
      this.#changed()
    })
    ws.on('error', (error) => { this.errors.push(error.message) })
  }

  static async connect(address: string, { protocols = [], path = '/ws', ...options }: ConnectOptions = {}): Promise<NumberedClient> {
    const ws = new WebSocket(address + path, protocols, { perMessageDeflate: false, ...options })
    const client = new NumberedClient(ws)
    await new Promise((resolve, reject) => { ws.once('open', resolve).once('error', reject) })
    return client
  }

  #message(text: string, isBinary: boolean): void {
    const push = /^push (\d+) (\d+)$/.exec(text)
    const [expected] = this.#waiting
    if (push) {
      if (Number(push[1]) !== this.pushed + 1) this.errors.push(`push ${push[1]} after ${this.pushed}`)
      this.pushed = Number(push[1])
      this.pid = Number(push[2])
    } else if (expected && /^\d+ /.test(text)) {
      this.#waiting.shift()
      this.came++
      if (text !== expected.text || isBinary !== expected.isBinary) this.errors.push(`${isBinary ? 'binary' : 'text'} ${text.slice(0, 20)} (${text.length}) instead of ${expected.isBinary ? 'binary' : 'text'} ${expected.text.slice(0, 20)} (${expected.text.length})`)
    } else this.others.push(text)
    this.#changed()
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher()
  }

  /** Resolves when it holds. Rejects where the connection ends before, unless that is what is awaited. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      if (this.closed !== undefined) throw new Error(`closed with ${this.closed}`)
      await new Promise<void>((resolve) => {
        const watcher = (): void => {
          this.#watchers.delete(watcher)
          resolve()
        }
        this.#watchers.add(watcher)
      })
    }
  }

  /**
   * One message: text or binary, of a length that needs each of the three forms of a frame's head. None where the last one is not whole.
   */
  send(): void {
    if (this.#inParts) return
    const text = this.#next()
    this.ws.send(this.sent % 3 === 0 ? Buffer.from(text) : text)
  }

  #next(): string {
    const number = ++this.sent
    const length = number % 50 === 0 ? 70_000 : number % 7 === 0 ? 300 : number % 5
    const text = `${number} ${'abcdefghij'.repeat(length / 10 + 1).slice(0, length)}`
    this.#waiting.push({ text, isBinary: number % 3 === 0 })
    return text
  }

  /** A message in three frames, a ping between them, and time for a move in the middle of it. */
  async sendInParts(): Promise<void> {
    const text = this.#next()
    const binary = this.sent % 3 === 0
    const part = (from: number, to: number, fin: boolean): void => { this.ws.send(Buffer.from(text.slice(from, to)), { fin, binary }) }
    this.#inParts = true
    part(0, 1, false)
    await wait(Math.random() * 20)
    this.ping()
    part(1, 1, false)
    await wait(Math.random() * 20)
    part(1, text.length, true)
    this.#inParts = false
  }

  ping(): void {
    this.ws.ping(String(++this.pinged))
  }

  /** Talks until `stop()`, with pauses of `thinkMs` at most; resolves when the last answer has come. */
  async talk(thinkMs: number): Promise<void> {
    while (!this.#stopping && this.closed === undefined) {
      const choice = Math.random()
      if (choice < 0.1) await this.sendInParts()
      else if (choice < 0.2) this.ping()
      else if (choice < 0.3) for (let index = 0; index < 5; index++) this.send()
      else this.send()
      // Some do not wait for the answer.
      if (choice < 0.8) await this.until(() => this.came === this.sent)
      await wait(Math.random() * thinkMs)
    }
    await this.settled()
  }

  stop(): void {
    this.#stopping = true
  }

  /** Everything that it sent has come back. */
  async settled(): Promise<void> {
    await this.until(() => this.came === this.sent && this.ponged === this.pinged)
  }

  async over(): Promise<number> {
    await this.until(() => this.closed !== undefined)
    return this.closed!
  }

  [Symbol.dispose](): void {
    this.ws.terminate()
  }
}
