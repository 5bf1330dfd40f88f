/**
 * The checkpoints that systemd held of a process that crashed, as an offer: this process makes it to itself, as a successor without a
 * predecessor, so that a start after a crash restores state as a reload does, before it accepts anything.
 *
 * It offers no listeners: for those that systemd passes see platform/activated-sockets.ts.
 */

import { closeSync, fstatSync, writeSync } from 'node:fs'
import { reasonOf } from '../../errors.js'
import { closeLater } from '../../platform/memory-file.js'
import { addon, check } from '../../platform/native.js'
import { openPairs } from '../../platform/socket-pairs.js'
import { BlockingChannel } from '../../protocol/blocking-channel.js'
import { protocol, type Message } from '../../protocol/handover-messages.js'

/** All of it is written before anything is read: more than a socket holds would block for ever. */
const mostStored = 200

/** Owns the descriptors, also where it throws. Throws system errors. */
export function offerStored(all: readonly { readonly name: string; readonly fd: number }[], warn: (line: string) => void): BlockingChannel {
  const stored = all.slice(0, mostStored)
  if (stored.length < all.length) warn(`systemd holds ${all.length} checkpoints, of which ${mostStored} are restored: share fewer sections with checkpoint`)
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  const offer: Message[] = []
  try {
    for (const { name, fd } of stored) {
      try {
        const bytes = fstatSync(fd).size
        check(addon().sendMessage(theirDescriptors, new Uint8Array(1), [fd]), 'sendmsg')
        offer.push({ type: 'section', name, phase: 'checkpoint', bytes })
      } catch (error) {
        // The process serves without it.
        offer.push({ type: 'unsaved', name, phase: 'checkpoint', reason: reasonOf(error) })
      }
    }
    // Its pid is this process's: no other process serves.
    offer.unshift({
      type: 'offer', protocol, pid: process.pid, generation: 0, listeners: [], sections: stored.map(({ name }) => name), alone: true
    })
    offer.push({ type: 'end' })
    writeSync(theirMessages, offer.map((message) => `${JSON.stringify(message)}\n`).join(''))
    return new BlockingChannel(messages, descriptors)
  } finally {
    for (const { fd } of all) void closeLater(fd)
    closeSync(theirMessages)
    closeSync(theirDescriptors)
  }
}
