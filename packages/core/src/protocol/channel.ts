/**
 * The channel between two processes: messages on one socket, descriptors on a second. A message and its descriptors are sent together or
 * not at all, and received together.
 *
 * The descriptors are sent first: when their message is read, a non-blocking recvmsg(2) must find them, so that nothing waits on the second
 * socket. The end of the stream is the end of the other process.
 */

import { closeSync } from 'node:fs'
import net from 'node:net'
import { constants } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { HandoverError } from '../errors.js'
import { debug } from '../platform/debug.js'
import { addon, check, isTransient, systemError } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { DeadlinePassed, withDeadline, type Deadline } from './deadline.js'
import { closeAll, described, sendBatch, takeDescriptors, type Received } from './descriptors.js'
import type { Message } from './handover-messages.js'
import { LineReader, maxLineBytes, type Vocabulary } from './json-lines.js'

export const isGone = (error: unknown): boolean => ['EPIPE', 'ECONNRESET'].includes((error as NodeJS.ErrnoException).code ?? '')

/** How long until the next try on a full socket, at most: there is no event for a raw descriptor. */
const fullMs = 10

export class Channel<Hears extends { readonly type: string } = Message, Says extends { readonly type: string } = Message> {
  readonly #socket: net.Socket
  readonly #descriptors: number
  readonly #closeDescriptors: () => void
  readonly #vocabulary: Vocabulary<Hears>
  readonly #queue: (Hears | HandoverError)[] = []
  readonly #lines = new LineReader(maxLineBytes)
  #ended = false
  #closed = false
  #wake: () => void = () => undefined
  /** Copies of the remaining descriptors of a message, then that message and those after it. */
  #unsent: { readonly fds: number[]; readonly lines: Buffer[] } | undefined

  /** `descriptors` is a raw descriptor of the second socket; `closeDescriptors` closes it. */
  constructor(socket: net.Socket, descriptors: number, closeDescriptors: () => void, vocabulary: Vocabulary<Hears>, alreadyRead = '') {
    this.#socket = socket
    this.#descriptors = descriptors
    this.#closeDescriptors = closeDescriptors
    this.#vocabulary = vocabulary
    socket.on('data', (bytes: Buffer) => { this.#read(bytes) })
    // 'close' follows an error (ECONNRESET).
    socket.on('error', () => undefined)
    socket.on('close', () => { this.#end() })
    if (alreadyRead !== '') this.#read(alreadyRead)
  }

  #read(bytes: Buffer | string): void {
    this.#lines.add(bytes)
    try {
      for (let line = this.#lines.next(); line !== undefined; line = this.#lines.next()) this.#queue.push(this.#parsed(line))
    } catch (error) {
      // The line is too long, so that the next one cannot be found.
      this.#queue.push(error as HandoverError)
      this.#socket.destroy()
    }
    this.#wake()
  }

  #parsed(line: string): Hears | HandoverError {
    try {
      return this.#vocabulary.parse(line)
    } catch (error) {
      return error as HandoverError
    }
  }

  #end(): void {
    this.#ended = true
    this.#dropUnsent()
    this.#wake()
  }

  /**
   * Sends the descriptors, which stay open here, then the message. If no descriptor could be sent (EAGAIN: the other side does not read),
   * it throws the error of the system and sends nothing. If only some could be, the rest and the message follow before anything else.
   *
   * If the other side is gone, `receive` reports it after its last message, which Node would discard after a failed write.
   */
  send(message: Says, fds: readonly number[] = []): void {
    if (this.#socket.destroyed) return
    // The number of the second socket may be reused by now.
    if (this.#closed && fds.length > 0) return
    const line = Buffer.from(`${JSON.stringify(message)}\n`)
    if (this.#unsent && fds.length > 0) throw systemError(-constants.errno.EAGAIN, 'sendmsg')
    debug(() => `to the ${this.#vocabulary.speaker}: ${described({ message, fds })}`)
    if (this.#unsent) this.#unsent.lines.push(line)
    else if (this.#sendDescriptors(fds, line)) this.#write(line)
  }

  #write(line: Buffer): void {
    const fd = this.#socket.writableLength === 0 ? fdOf(this.#socket) : undefined
    const sent = fd === undefined ? 0 : addon().sendMessage(fd, line, [])
    if (sent < 0 && isGone(systemError(sent, 'sendmsg'))) return
    if (sent < line.length) this.#socket.write(line.subarray(Math.max(0, sent)))
  }

  /** False where the rest of them, and the line, are sent later. */
  #sendDescriptors(fds: readonly number[], line: Buffer): boolean {
    for (let at = 0; at < fds.length;) {
      try {
        at += sendBatch(this.#descriptors, at === 0 ? fds : fds.slice(at))
      } catch (error) {
        if (isGone(error)) return true
        if (at > 0) this.#sendLater(fds.slice(at), line, error)
        else throw error
        return false
      }
    }
    return true
  }

  /** No later message may overtake the rest: it would get these descriptors. Closes the channel and throws where that cannot be kept. */
  #sendLater(fds: readonly number[], line: Buffer, error: unknown): void {
    this.#unsent = { fds: [], lines: [line] }
    try {
      if (!isTransient(error)) throw error
      // The caller may close its descriptors.
      for (const fd of fds) this.#unsent.fds.push(check(addon().duplicate(fd), 'fcntl'))
    } catch (cause) {
      this.#socket.destroy()
      this.#dropUnsent()
      throw cause
    }
    this.#retry()
  }

  #retry(): void {
    setTimeout(() => { this.#sendUnsent() }, fullMs).unref()
  }

  #sendUnsent(): void {
    const unsent = this.#unsent
    if (!unsent) return
    try {
      while (unsent.fds.length > 0) closeAll(unsent.fds.splice(0, sendBatch(this.#descriptors, unsent.fds)))
    } catch (error) {
      if (isTransient(error)) {
        this.#retry()
        return
      }
      this.#dropUnsent()
      if (!isGone(error)) this.#socket.destroy()
      return
    }
    this.#unsent = undefined
    for (const line of unsent.lines) this.#write(line)
  }

  #dropUnsent(): void {
    closeAll(this.#unsent?.fds ?? [])
    this.#unsent = undefined
  }

  /** As `send`, but waits for room where the other side does not read. Throws signal.reason. */
  async sendWhenRoom(message: Says, fds: readonly number[], signal: AbortSignal): Promise<void> {
    for (let waitMs = 1; ; waitMs = Math.min(fullMs, waitMs * 2)) {
      signal.throwIfAborted()
      try {
        this.send(message, fds)
        return
      } catch (error) {
        if (!isTransient(error)) throw error
      }
      await wait(waitMs)
    }
  }

  get isOpen(): boolean {
    return !this.#closed && !this.#ended
  }

  /**
   * Calls back for each message, until the other side is gone. Complains of unknown lines, which a newer process may send, and of what
   * `heard` throws: the other side must not end this process.
   */
  async hearAll(heard: (received: Received<Hears>) => void, complain: (what: string) => void): Promise<void> {
    for (;;) {
      let received: Received<Hears> | undefined
      try {
        received = await this.receive()
      } catch (error) {
        complain(`something unknown: ${(error as Error).message}`)
        continue
      }
      if (received === undefined) return
      try {
        heard(received)
      } catch (error) {
        complain(`"${received.message.type}", which cannot be done: ${(error as Error).message}`)
      }
    }
  }

  /** The next message, for one caller; undefined: the other side is gone, or `stopped`. Throws DeadlinePassed or HANDOVER_PROTOCOL. */
  async receive(deadline?: Deadline, stopped?: AbortSignal): Promise<Received<Hears> | undefined> {
    for (;;) {
      if (stopped?.aborted) return undefined
      const next = this.#queue.shift()
      if (next instanceof HandoverError) throw next
      if (next !== undefined) {
        const received = takeDescriptors(this.#closed ? undefined : this.#descriptors, next, this.#vocabulary)
        debug(() => `from the ${this.#vocabulary.speaker}: ${described(received)}`)
        return received
      }
      if (this.#ended) return undefined
      const woken = new Promise<true>((resolve) => { this.#wake = () => { resolve(true) } })
      if (await withDeadline(woken, deadline, stopped) === undefined && !stopped?.aborted) throw new DeadlinePassed()
    }
  }

  /** Lets the process end although the channel is open. */
  unref(): void { this.#socket.unref() }

  ref(): void { this.#socket.ref() }

  /** Writes the pending messages, then closes. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#dropUnsent()
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
export function openChannel<Hears extends { readonly type: string }, Says extends { readonly type: string }>(
  messages: number, descriptors: number, vocabulary: Vocabulary<Hears>, alreadyRead = ''
): Channel<Hears, Says> {
  return new Channel(new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) }, vocabulary, alreadyRead)
}
