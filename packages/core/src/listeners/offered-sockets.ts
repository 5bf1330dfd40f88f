/**
 * What was offered to this process and is not claimed yet; later, also copies of what the program has closed and may open again.
 *
 * Which of them a listen() means is in listener-match.ts; here each is found, taken or closed.
 */

import { closeSync } from 'node:fs'
import path from 'node:path'
import { HandoverError } from '../errors.js'
import { fileId } from '../platform/file-id.js'
import { addon, systemError } from '../platform/native.js'
import { socketsOf, type OfferedListener, type OfferedSocket } from '../protocol/handover-messages.js'
import { find, mismatch, type AskedAddress } from './listener-match.js'
import { meaningOf } from './socket-activation.js'
import { addName, locate } from './socket-file-hold.js'

/** Its path leads to another socket, or nowhere. */
const leadsElsewhere = ({ about: { kind, file, address } }: OfferedSocket): boolean =>
  kind === 'unix' && file !== undefined && file !== fileId(address)

export class OfferedSockets {
  readonly #sockets = new Set<OfferedSocket>()

  get all(): readonly OfferedSocket[] {
    return [...this.#sockets]
  }

  /** Takes an offer. Throws HANDOVER_LISTENER_MISMATCH; the descriptors are closed then. */
  take(listeners: readonly OfferedListener[], fds: readonly number[]): void {
    const sockets = socketsOf(listeners, fds)
    try {
      for (const { about, fd } of sockets) {
        const found = addon().describe(fd)
        const difference = typeof found === 'number' ? `not a socket (${systemError(found, 'getsockopt').code ?? ''})` : mismatch(about, found)
        if (difference === undefined) continue
        const what = `the descriptor for "${about.name}" is ${difference}`
        throw new HandoverError('HANDOVER_LISTENER_MISMATCH', {
          what, serving: 'The predecessor goes on serving', todo: 'Nothing was taken over'
        })
      }
    } catch (error) {
      fds.forEach((fd) => { closeSync(fd) })
      throw error
    }
    for (const socket of sockets) this.#sockets.add(socket)
  }

  /** The one that a listen() call means; undefined where there is none. `waits`: this process does not serve yet. */
  claim(asked: AskedAddress, waits: boolean): OfferedSocket | undefined {
    const usable = [...this.#sockets]
    // Of two on one path, the one that the path leads to goes first.
    if (asked.kind === 'unix') usable.sort((a, b) => Number(leadsElsewhere(a)) - Number(leadsElsewhere(b)))
    const about = find(meaningOf(asked), usable.map((offered) => offered.about))
    const offered = usable.find((candidate) => candidate.about === about)
    if (!offered) return undefined
    this.#sockets.delete(offered)
    // The program has removed or renamed the path: it finds its socket there again.
    if (about?.kind === 'unix' && about.file !== undefined && leadsElsewhere(offered)) {
      const where = about.path ?? locate(path.resolve(about.address), about.file)
      if (where !== undefined && where !== path.resolve(about.address)) addName(where, about.address)
      // Nothing puts the path back in a process that serves: a new socket is bound.
      if (!waits && leadsElsewhere(offered)) {
        closeSync(offered.fd)
        return undefined
      }
    }
    return offered
  }

  /** Takes out the first of these. */
  takeOne(isMeant: (about: OfferedListener) => boolean): OfferedSocket | undefined {
    const offered = [...this.#sockets].find(({ about }) => isMeant(about))
    if (offered) this.#sockets.delete(offered)
    return offered
  }

  giveBack(offered: OfferedSocket): void {
    this.#sockets.add(offered)
  }

  withdraw(offered: OfferedSocket): boolean {
    return this.#sockets.delete(offered)
  }

  /** Closes all of these, and returns their names. */
  drop(which: (about: OfferedListener) => boolean = () => true): string[] {
    const dropped = [...this.#sockets].filter(({ about }) => which(about))
    for (const each of dropped) {
      this.#sockets.delete(each)
      closeSync(each.fd)
    }
    return dropped.map(({ about }) => about.name)
  }
}
