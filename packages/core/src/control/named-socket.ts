/**
 * The name of this process, where it was given one: the control socket by which another process finds it. It is taken where nobody has
 * it, inherited with the listeners, and left to the successor or to nobody.
 *
 * Where no directory can be used, or another process has the name, this process serves without it, says so, and tries again now and
 * then.
 */

import path from 'node:path'
import { HandoverError } from '../errors.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import type { OfferedListener } from '../protocol/handover-messages.js'
import { findOrBecome, takeName, type TakenName } from './control-client.js'
import { PlaceProblem, places } from './control-places.js'
import { standingAt } from './path-healer.js'
import { ControlServer, type ControlSide } from './control-server.js'

const againMs = 10_000

/** The control socket as a part of an offer. */
export interface OfferedControlSocket {
  readonly about: OfferedListener
  readonly fd: number
}

export class NamedSocket {
  readonly #given: () => string | undefined
  readonly #side: ControlSide
  #control: ControlServer | undefined
  #again: NodeJS.Timeout | undefined
  #said = ''

  constructor(given: () => string | undefined, side: ControlSide) {
    this.#given = given
    this.#side = side
  }

  /**
   * A process that serves under the name, or (undefined) nobody, and then the name is ours where a directory can be used. Throws
   * HANDOVER_CONTROL_SOCKET for a relative HANDOVER_DIR, and HANDOVER_PREDECESSOR_SILENT.
   */
  find(): BlockingChannel | undefined {
    const name = this.#given()
    if (name === undefined) return undefined
    try {
      const found = findOrBecome(name)
      if ('predecessor' in found) return found.predecessor
      this.#has(name, found)
    } catch (error) {
      // The directory decides about being found, not about serving.
      if (error instanceof HandoverError && error.code !== 'HANDOVER_PEER_UID') throw error
      this.#goWithout(error)
    }
    return undefined
  }

  #has(name: string, { file, listening, insteadOf, hidden }: TakenName): void {
    if (insteadOf !== undefined) this.#side.note?.(`${insteadOf}: the control socket of ${name} is ${file} instead`)
    if (hidden !== undefined) this.#side.warn(`process ${hidden} has the name ${name} as well, and its control socket is gone: it hangs, or is stopped. From now on the name leads to process ${process.pid}`)
    this.#control = new ControlServer(file, listening, this.#side)
    this.#control.listen()
  }

  #goWithout(error: unknown): void {
    const todo = error instanceof PlaceProblem ? ` ${error.todo}` : ''
    this.#say(`${(error as Error).message.replace(/\.$/, '')}. This process serves without its name: no other process takes over from it by that, and the commands do not find it.${todo}`)
    this.#tryAgain()
  }

  #tryAgain(): void {
    this.#again ??= setInterval(() => {
      if (this.#side.mayHeal?.() ?? true) this.take()
    }, againMs).unref()
  }

  #say(line: string): void {
    if (line !== this.#said) this.#side.warn(line)
    this.#said = line
  }

  /**
   * Takes the control socket out of the offer, where this program still goes by the same name. It is quiet until `serve()`.
   * `take`: takes out of the offer the control socket that is meant.
   */
  inherit(take: (isMeant: (about: OfferedListener) => boolean) => OfferedControlSocket | undefined): void {
    const name = this.#given()
    if (name === undefined) return
    try {
      const { given, folders } = places()
      const own = given ? path.join(folders[0] ?? '', `${name}.sock`) : undefined
      // Two containers may write the path of one directory differently.
      const offered = take(({ address, file: id }) =>
        path.basename(address) === `${name}.sock` && (own === undefined || own === address || (id !== undefined && standingAt(own, -1).id === id)))
      if (offered) this.#control = new ControlServer(own ?? offered.about.address, offered.fd, this.#side, offered.about.file)
    } catch (error) {
      this.#goWithout(error)
    }
  }

  /** Can be found from now on, or again. A program that has a name since this version, or another one, takes it. */
  serve(): void {
    if (!this.#control) {
      this.take()
      return
    }
    try {
      this.#control.listen()
    } catch (error) {
      this.#side.warn(`the control socket cannot be used: ${(error as Error).message}. This process serves, and cannot be found by its name.`)
    }
  }

  /** Makes the path of the control socket again, where it is gone. */
  heal(): void {
    this.#control?.heal()
  }

  take(): void {
    const name = this.#given()
    if (this.#control || name === undefined) return
    try {
      const found = takeName(name)
      if ('takenBy' in found) {
        this.#say(`process ${found.takenBy} serves under the name ${name}. This one cannot be found by it. Choose another name.`)
        this.#tryAgain()
        return
      }
      this.#stopTrying()
      this.#has(name, found)
    } catch (error) {
      this.#goWithout(error)
    }
  }

  #stopTrying(): void {
    clearInterval(this.#again)
    this.#again = undefined
  }

  /** Cannot be found until `serve()`. */
  pause(): void {
    this.#control?.pause()
  }

  /** For good. `last`: nobody else has the name. */
  leave(last: boolean): void {
    this.#stopTrying()
    this.#control?.close(last)
    this.#control = undefined
  }

  /** What a successor is offered. */
  get offered(): OfferedControlSocket | undefined {
    if (!this.#control) return undefined
    const { file: address, fd, id } = this.#control
    return { about: { name: 'control', kind: 'control', asked: 'control', address, port: 0, ipv6: false, ipv6Only: false, backlog: 128, ...(id !== undefined && { file: id }) }, fd }
  }
}
