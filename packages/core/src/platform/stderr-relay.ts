/**
 * Standard error of a successor leads through the predecessor until it serves. The predecessor passes it on, and keeps the last lines for
 * the error of a failed reload. Nothing that is written is lost, whichever process dies.
 */

import { closeSync } from 'node:fs'
import net from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import { native } from './native.js'

/** Node writes 20 lines for an uncaught system error; the lines before it are kept as well. */
const stderrLinesKept = 40

/** Ignores that the terminal or the reader is gone: the 'error' event must not end a server that drains. */
export function writeStderr(text: string | Uint8Array): void {
  process.stderr.write(text, (error) => {
    if (error) process.stderr.once('error', () => undefined)
  })
}

/** The predecessor's end. */
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

/** Something waits for room in the pipe. Node makes `process.stderr` when it is asked for, so that is asked only where anything waits. */
const isWriting = (): boolean =>
  process.getActiveResourcesInfo().some((name) => name.endsWith('WriteWrap')) && process.stderr.writableLength > 0

/** The successor's end: the real standard error, and the reading end of the relay. */
export class InheritedStderr {
  #original: number | undefined
  #relay: number | undefined
  #isWaiting = false
  /** What was read from the relay before this process wrote to the real standard error. */
  #unsent: Uint8Array[] = []

  constructor(original: number, relay: number) {
    this.#original = original
    this.#relay = relay
  }

  /** The successor serves: from now on it writes to the real standard error. */
  restore(): void {
    if (this.#original === undefined || this.#isWaiting || !native) return
    // libuv would wait for room in the pipe, and never hear of the file that is at descriptor 2 by then.
    if (isWriting()) {
      this.#isWaiting = true
      process.stderr.write('', () => {
        this.#isWaiting = false
        this.restore()
      })
      return
    }
    native.duplicateTo(this.#original, 2)
    closeSync(this.#original)
    this.#original = undefined
    for (const chunk of this.#unsent.splice(0)) writeStderr(chunk)
  }

  /** The predecessor has ended: this process passes on what it left, and what children still write. */
  passOn(): void {
    this.restore()
    const relay = this.#relay
    this.#relay = undefined
    if (relay === undefined) return
    const socket = new net.Socket({ fd: relay, writable: false })
    socket.on('data', (chunk) => {
      if (this.#original === undefined) writeStderr(chunk)
      else this.#unsent.push(chunk)
    })
    socket.on('error', () => undefined)
    socket.unref()
  }
}
