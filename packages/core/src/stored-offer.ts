/**
 * What systemd held of a process that crashed, as an offer: this process is then the successor of nobody, and restores the checkpoints before it accepts
 * anything. It takes no listener over: those that systemd passes are the program's business.
 */

import { closeSync, fstatSync, writeSync } from 'node:fs'
import { FirstContact } from './channel.js'
import { openPairs } from './launch.js'
import { protocol, type Message } from './messages.js'
import { addon, check } from './native.js'

/** The descriptors are taken, whatever happens. Throws the error of the system. */
export function offerStored(stored: readonly { readonly name: string; readonly fd: number }[]): FirstContact {
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  const say = (message: Message): void => { writeSync(theirMessages, `${JSON.stringify(message)}\n`) }
  try {
    // From ourselves: nobody else would serve.
    say({ type: 'offer', protocol, pid: process.pid, generation: 0, listeners: [], sections: stored.map(({ name }) => name) })
    for (const { name, fd } of stored) {
      check(addon().sendMessage(theirDescriptors, new Uint8Array(1), [fd]), 'sendmsg')
      say({ type: 'section', name, phase: 'checkpoint', bytes: fstatSync(fd).size })
    }
    say({ type: 'end' })
    return new FirstContact(messages, descriptors)
  } finally {
    for (const { fd } of stored) closeSync(fd)
    closeSync(theirMessages)
    closeSync(theirDescriptors)
  }
}
