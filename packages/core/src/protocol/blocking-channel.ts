/**
 * The successor's side of the channel before its event loop runs: it needs the offer within its first listen(), which is synchronous. Each
 * call blocks this thread. It sends no descriptors, and owns the two of the channel until `open` gives them to a Channel.
 */

import { closeSync, readSync, writeSync } from 'node:fs'
import { debug } from '../platform/debug.js'
import { addon, check } from '../platform/native.js'
import { Channel, isGone, openChannel } from './channel.js'
import { DeadlinePassed, left, type Deadline } from './deadline.js'
import { described, takeDescriptors, type Received } from './descriptors.js'
import { handoverMessages, type Message } from './handover-messages.js'
import { LineReader, maxLineBytes } from './json-lines.js'

export class BlockingChannel {
  readonly #messages: number
  readonly #descriptors: number
  readonly #lines = new LineReader(maxLineBytes)
  /** What can be done while the other side works: once, before the first wait. */
  meanwhile = (): void => undefined

  constructor(messages: number, descriptors: number) {
    this.#messages = messages
    this.#descriptors = descriptors
  }

  /** Does not fail where the other side is gone: `hear` reports that after its last message. */
  say(message: Message): void {
    debug(() => `to the ${handoverMessages.speaker}: ${message.type}`)
    const line = Buffer.from(`${JSON.stringify(message)}\n`)
    try {
      for (let at = 0; at < line.length;) at += writeSync(this.#messages, line, at)
    } catch (error) {
      if (!isGone(error)) throw error
    }
  }

  /** The next message. Blocks this thread. Undefined: the other side is gone. Throws DeadlinePassed or HANDOVER_PROTOCOL. */
  hear(deadline: Deadline): Received<Message> | undefined {
    const chunk = Buffer.allocUnsafe(65_536)
    this.meanwhile()
    this.meanwhile = () => undefined
    for (;;) {
      const line = this.#lines.next()
      if (line !== undefined) {
        const received = takeDescriptors(this.#descriptors, handoverMessages.parse(line), handoverMessages, true)
        debug(() => `from the ${handoverMessages.speaker}: ${described(received)}`)
        return received
      }
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

  open(): Channel {
    return openChannel(this.#messages, this.#descriptors, handoverMessages, this.#lines.rest)
  }

  close(): void {
    closeSync(this.#messages)
    closeSync(this.#descriptors)
  }
}
