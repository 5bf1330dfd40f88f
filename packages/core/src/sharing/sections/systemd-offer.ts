/**
 * What systemd held of a process that crashed, as an offer: this process is then the successor of nobody, and restores the checkpoints
 * before it accepts anything. It takes no listener over: for those that systemd passes see platform/activated-sockets.ts.
 */

import { closeSync, fstatSync, writeSync } from 'node:fs'
import { reasonOf } from '../../errors.js'
import { closeLater } from '../../platform/memory-file.js'
import { addon, check } from '../../platform/native.js'
import { openPairs } from '../../platform/socket-pairs.js'
import { BlockingChannel } from '../../protocol/blocking-channel.js'
import { protocol, type Message } from '../../protocol/handover-messages.js'

/** Nobody reads while this is written: what is more than a socket holds would never leave. */
const mostStored = 200

interface Stored {
  readonly name: string
  readonly fd: number
}

/** The descriptors are taken, whatever happens. Throws the error of the system. */
export function offerStored(all: readonly Stored[], warn: (line: string) => void): BlockingChannel {
  const stored = all.slice(0, mostStored)
  if (stored.length < all.length) warn(`systemd holds ${all.length} checkpoints, of which ${mostStored} are restored: share fewer sections with checkpoint`)
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  const words: Message[] = []
  try {
    for (const { name, fd } of stored) {
      try {
        const bytes = fstatSync(fd).size
        check(addon().sendMessage(theirDescriptors, new Uint8Array(1), [fd]), 'sendmsg')
        words.push({ type: 'section', name, phase: 'checkpoint', bytes })
      } catch (error) {
        // The process serves without it.
        words.push({ type: 'unsaved', name, phase: 'checkpoint', reason: reasonOf(error) })
      }
    }
    // From ourselves: nobody else would serve.
    words.unshift({ type: 'offer', protocol, pid: process.pid, generation: 0, listeners: [], sections: stored.map(({ name }) => name), alone: true })
    words.push({ type: 'end' })
    writeSync(theirMessages, words.map((word) => `${JSON.stringify(word)}\n`).join(''))
    return new BlockingChannel(messages, descriptors)
  } finally {
    for (const { fd } of all) void closeLater(fd)
    closeSync(theirMessages)
    closeSync(theirDescriptors)
  }
}
