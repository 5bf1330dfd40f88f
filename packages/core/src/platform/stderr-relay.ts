/**
 * Standard error of a successor: until it serves it leads through the predecessor, which passes it on and keeps the last lines for the
 * error of a failed reload. Nothing that is written is lost, whoever dies.
 */

import { closeSync } from 'node:fs'
import net from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import { native } from './native.js'

/** What Node writes of an uncaught system error takes 20 lines; what the program said before it is kept as well. */
const stderrLinesKept = 40

/** To standard error. Its terminal or its reader may be gone: the 'error' event of that must not end a server that drains. */
export function writeStderr(text: string | Uint8Array): void {
  process.stderr.write(text, (error) => {
    if (error) process.stderr.once('error', () => undefined)
  })
}

/** Standard error of a successor that is not ready: passed on, and its last lines kept. */
export class StderrRelay {
  readonly read: number
  readonly write: number
  #lines = ''
  #socket: net.Socket | undefined

  constructor([read, write]: readonly [number, number]) {
    this.read = read
    this.write = write
  }

  start(): void {
    closeSync(this.write)
    this.#socket = new net.Socket({ fd: this.read, writable: false })
    this.#socket.on('error', () => undefined)
    const text = new StringDecoder()
    this.#socket.on('data', (chunk) => {
      writeStderr(chunk)
      this.#lines = `${this.#lines}${text.write(chunk)}`.slice(-16_384)
    })
  }

  unref(): void {
    this.#socket?.unref()
  }

  stop(): void {
    this.#socket?.destroy()
  }

  lines(): string {
    return this.#lines.trimEnd().split('\n').slice(-stderrLinesKept).join('\n')
  }
}

/** The successor's end: where standard error really goes, and the reading end of what leads through the predecessor. */
export class InheritedStderr {
  #original: number | undefined
  #relay: number | undefined

  constructor(original: number, relay: number) {
    this.#original = original
    this.#relay = relay
  }

  /** It serves: from here on standard error is its own. */
  restore(): void {
    if (this.#original === undefined || !native) return
    native.duplicateTo(this.#original, 2)
    closeSync(this.#original)
    this.#original = undefined
  }

  /** The predecessor reads no more: what it left, and what children still write there, is passed on from here. */
  passOn(): void {
    this.restore()
    const relay = this.#relay
    this.#relay = undefined
    if (relay === undefined) return
    const socket = new net.Socket({ fd: relay, writable: false })
    socket.on('data', writeStderr)
    socket.on('error', () => undefined)
    socket.unref()
  }
}
