/**
 * Puts back the paths of the Unix sockets that the workers serve, whatever a program that starts does to them. The keeper does it: its
 * event loop is never blocked, and no worker may be alive.
 */

import { SocketFileHold } from '@handover/core/internal'
import type { ListenerMembers } from './listener-members.js'

export class ServedFiles {
  readonly #members: ListenerMembers
  readonly #warn: (line: string) => void
  #holders = 0
  #hold: SocketFileHold | undefined

  constructor(members: ListenerMembers, warn: (line: string) => void) {
    this.#members = members
    this.#warn = warn
  }

  /** Absolute paths. */
  get paths(): string[] {
    return this.#members.socketFiles.map(({ file }) => file)
  }

  /** Holds until the function that is answered is called. */
  hold(): () => void {
    this.#holders++
    this.#hold ??= new SocketFileHold({
      files: () => this.#members.socketFiles,
      changed: ({ name, file }, isBack) => {
        this.#warn(isBack ? `${file} was removed or replaced while it is served, and is in its place again` : `${file} was removed or replaced, and cannot be put back: nobody can connect to ${name}`)
      }
    })
    return () => {
      this.check()
      if (--this.#holders > 0) return
      this.#hold?.release()
      this.#hold = undefined
    }
  }

  /** Puts back what is not in its place. */
  check(): void {
    this.#hold?.check()
  }
}
