import { closeSync, readSync, writeSync } from 'node:fs'
import { HandoverError } from '../errors.js'
import { addon, check } from '../platform/native.js'
import { Channel, isGone, openChannel } from './channel.js'
import { DeadlinePassed, left, type Deadline } from './deadline.js'
import { parseMessage, type Message } from './handover-messages.js'
import { LineReader, maxLineBytes } from './json-lines.js'

/**
 * The successor's side before its event loop turns: it must know the offer within its first listen(), which is synchronous.
 * Owns the two descriptors until `open` hands them to a Channel.
 */
export class BlockingChannel {
  readonly #messages: number
  readonly #descriptors: number
  readonly #lines = new LineReader(maxLineBytes)

  constructor(messages: number, descriptors: number) {
    this.#messages = messages
    this.#descriptors = descriptors
  }

  /** Where the other side is gone, `hear` says so: its last word may still be there to be read. */
  say(message: Message): void {
    const line = Buffer.from(`${JSON.stringify(message)}\n`)
    try {
      for (let at = 0; at < line.length;) at += writeSync(this.#messages, line, at)
    } catch (error) {
      if (!isGone(error)) throw error
    }
  }

  /** Blocks this thread. Undefined when the other side is gone; throws DeadlinePassed or HANDOVER_PROTOCOL. */
  hear(deadline: Deadline): Message | undefined {
    const chunk = Buffer.alloc(65_536)
    for (;;) {
      const line = this.#lines.next()
      if (line !== undefined) return parseMessage(line)
      if (check(addon().pollReadable(this.#messages, Math.ceil(left(deadline))), 'poll') === 0) throw new DeadlinePassed()
      let bytes: number
      try {
        bytes = readSync(this.#messages, chunk)
      } catch (error) {
        if (isGone(error)) return undefined
        throw error
      }
      if (bytes === 0) return undefined
      this.#lines.add(chunk.subarray(0, bytes))
    }
  }

  /** The descriptors that the message just heard counts. Throws HANDOVER_FD_TRUNCATED or HANDOVER_PROTOCOL, and then holds none. */
  takeDescriptors(count: number): number[] {
    const fds: number[] = []
    const one = new Uint8Array(1)
    while (fds.length < count) {
      const received = addon().receiveMessage(this.#descriptors, one)
      const failed = typeof received === 'number' || received.bytes === 0
      if (typeof received !== 'number') fds.push(...received.fds)
      if (failed || received.truncated || fds.length > count) {
        fds.forEach((fd) => { closeSync(fd) })
        if (!failed && received.truncated) {
          throw new HandoverError('HANDOVER_FD_TRUNCATED', `only ${fds.length} of ${count} descriptors arrived. The predecessor goes on. Raise the limit of open files (ulimit -n).`)
        }
        throw new HandoverError('HANDOVER_PROTOCOL', `expected ${count} descriptors, found ${fds.length}.`)
      }
    }
    return fds
  }

  open(): Channel {
    return openChannel(this.#messages, this.#descriptors, parseMessage, this.#lines.rest)
  }

  close(): void {
    closeSync(this.#messages)
    closeSync(this.#descriptors)
  }
}
