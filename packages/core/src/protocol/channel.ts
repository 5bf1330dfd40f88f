/**
 * The channel between predecessor and successor: messages on one socket, descriptors on a second one.
 *
 * Descriptors first, then the word: when a message that counts descriptors is read, a non-blocking recvmsg(2) must find them.
 * So nothing ever waits on the second socket. The end of the other process is learned here, as the end of the stream.
 */

import { closeSync } from 'node:fs'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { HandoverError } from '../errors.js'
import { addon, check, maxFdsPerMessage, systemError } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { DeadlinePassed, withDeadline, type Deadline } from './deadline.js'
import type { Message } from './handover-messages.js'
import { LineReader, maxLineBytes } from './json-lines.js'

export const isGone = (error: unknown): boolean => ['EPIPE', 'ECONNRESET'].includes((error as NodeJS.ErrnoException).code ?? '')

/** Of the socket, or of what the kernel lets one user have on the way. */
const isFull = (error: unknown): boolean => ['EAGAIN', 'ENOBUFS', 'ETOOMANYREFS'].includes((error as NodeJS.ErrnoException).code ?? '')
/** Nobody tells when a raw descriptor can be written to again. */
const fullMs = 10

/** `Hears`: what the other side says; of the roles as long as nothing else is said. */
export class Channel<Hears extends { readonly type: string } = Message, Says extends { readonly type: string } = Message> {
  readonly #socket: net.Socket
  readonly #descriptors: number
  readonly #closeDescriptors: () => void
  readonly #parse: (line: string) => Hears
  readonly #queue: (Hears | HandoverError)[] = []
  readonly #lines = new LineReader(maxLineBytes)
  #ended = false
  #closed = false
  #wake: () => void = () => undefined

  /** `descriptors` is a raw descriptor of the second socket; `closeDescriptors` closes it. */
  constructor(socket: net.Socket, descriptors: number, closeDescriptors: () => void, parse: (line: string) => Hears, alreadyRead = '') {
    this.#socket = socket
    this.#descriptors = descriptors
    this.#closeDescriptors = closeDescriptors
    this.#parse = parse
    socket.on('data', (bytes: Buffer) => { this.#read(bytes) })
    // An error (ECONNRESET) is followed by 'close', which says the same: the other side is gone.
    socket.on('error', () => undefined)
    socket.on('close', () => { this.#end() })
    if (alreadyRead !== '') this.#read(alreadyRead)
  }

  #read(bytes: Buffer | string): void {
    this.#lines.add(bytes)
    try {
      for (let line = this.#lines.next(); line !== undefined; line = this.#lines.next()) this.#queue.push(this.#parsed(line))
    } catch (error) {
      // Too long: where the next one begins is not known.
      this.#queue.push(error as HandoverError)
      this.#socket.destroy()
    }
    this.#wake()
  }

  #parsed(line: string): Hears | HandoverError {
    try {
      return this.#parse(line)
    } catch (error) {
      return error as HandoverError
    }
  }

  #end(): void {
    this.#ended = true
    this.#wake()
  }

  /** Where the other side is gone, `receive` says so when all that it said before has been read: Node would throw that away with a failed write. */
  send(message: Says): void {
    if (this.#socket.destroyed) return
    const line = Buffer.from(`${JSON.stringify(message)}\n`)
    const fd = this.#socket.writableLength === 0 ? fdOf(this.#socket) : undefined
    const sent = fd === undefined ? 0 : addon().sendMessage(fd, line, [])
    if (sent < 0 && isGone(systemError(sent, 'sendmsg'))) return
    if (sent < line.length) this.#socket.write(line.subarray(Math.max(0, sent)))
  }

  /** Descriptors that a following message counts; they stay open here. Where the other side is gone, `receive` says so. */
  sendDescriptors(fds: readonly number[]): void {
    // Its number may be another file's by now.
    if (this.#closed) return
    for (let at = 0; at < fds.length; at += maxFdsPerMessage) {
      const sent = addon().sendMessage(this.#descriptors, new Uint8Array(1), fds.slice(at, at + maxFdsPerMessage))
      if (sent < 0 && isGone(systemError(sent, 'sendmsg'))) return
      check(sent, 'sendmsg')
    }
  }

  /** A descriptor, and the word that counts it: where the other side does not read and has too much before it, this waits until it does. Throws signal.reason. */
  async sendWithDescriptor(message: Says, fd: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      try {
        this.sendDescriptors([fd])
        // At once: the descriptor of another word must not come between.
        this.send(message)
        return
      } catch (error) {
        if (!isFull(error)) throw error
      }
      await wait(fullMs)
    }
  }

  /** False where this side has closed it, or the other one has. */
  get isOpen(): boolean {
    return !this.#closed && !this.#ended
  }

  /**
   * The descriptors of one message of `sendDescriptors`, at most 252, which a word that was just received counts: fewer where this process may open no
   * more. None where the other side sent none.
   */
  takeDescriptors(): number[] {
    if (this.#closed) return []
    const received = addon().receiveMessage(this.#descriptors, new Uint8Array(1))
    return typeof received === 'number' ? [] : received.fds
  }

  /** All descriptors that a word counts; where fewer arrived they are closed, and only how many is answered. */
  takeAll(count: number): number[] | number {
    const fds: number[] = []
    // As many messages as were sent, however few arrived: what comes after belongs to the next word.
    for (let at = 0; at < count; at += maxFdsPerMessage) fds.push(...this.takeDescriptors())
    if (fds.length === count) return fds
    for (const fd of fds) closeSync(fd)
    return fds.length
  }

  /**
   * Calls back for each message. What is none is complained of, and passed over: a newer process may say more than this version knows. So is what `heard`
   * throws: the other side must not end this process. Resolves when the other side is gone.
   */
  async hearAll(heard: (message: Hears) => void, complain: (what: string) => void): Promise<void> {
    for (;;) {
      let message: Hears | undefined
      try {
        message = await this.receive()
      } catch (error) {
        complain(`something unknown: ${(error as Error).message}`)
        continue
      }
      if (message === undefined) return
      try {
        heard(message)
      } catch (error) {
        complain(`"${message.type}", which cannot be done: ${(error as Error).message}`)
      }
    }
  }

  /**
   * The next message; undefined when the other side is gone, or `stopped` is aborted. One caller at a time.
   * Throws DeadlinePassed, or HANDOVER_PROTOCOL for a line that is no message.
   */
  async receive(deadline?: Deadline, stopped?: AbortSignal): Promise<Hears | undefined> {
    for (;;) {
      if (stopped?.aborted) return undefined
      const next = this.#queue.shift()
      if (next instanceof HandoverError) throw next
      if (next !== undefined) return next
      if (this.#ended) return undefined
      const woken = new Promise<true>((resolve) => { this.#wake = () => { resolve(true) } })
      if (await withDeadline(woken, deadline, stopped) === undefined && !stopped?.aborted) throw new DeadlinePassed()
    }
  }

  /** Lets the process end although the channel is open. */
  unref(): void {
    this.#socket.unref()
  }

  /** Keeps the process from its end again. */
  ref(): void {
    this.#socket.ref()
  }

  /** Sends what is still to be sent, then closes. `receive` answers undefined afterwards. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.end(() => this.#socket.destroy())
    this.#closeDescriptors()
  }

  /** Resolves when the other side has closed, or at the deadline. */
  async closed(deadline: Deadline): Promise<void> {
    if (this.#socket.destroyed) return
    await withDeadline(new Promise<void>((resolve) => { this.#socket.once('close', () => { resolve() }) }), deadline)
  }
}

/** A channel of two descriptors, which it owns from now on. */
export function openChannel<Hears extends { readonly type: string }, Says extends { readonly type: string }>(messages: number, descriptors: number, parse: (line: string) => Hears, alreadyRead = ''): Channel<Hears, Says> {
  return new Channel(new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) }, parse, alreadyRead)
}
