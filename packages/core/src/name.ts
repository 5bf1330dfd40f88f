/**
 * The name of this process, where it was given one: the control socket by which another process finds it. It is taken where nobody has it, inherited with
 * the listeners, and left to the successor or to nobody.
 */

import { controlPath, ControlServer, findOrBecome, type ControlSide } from './control.js'
import type { FirstContact } from './channel.js'
import { withoutStop } from './errors.js'
import { fileId, type Inventory } from './inventory.js'
import type { OfferedListener } from './messages.js'

export class Name {
  readonly #given: () => string | undefined
  readonly #side: ControlSide
  #control: ControlServer | undefined

  constructor(given: () => string | undefined, side: ControlSide) {
    this.#given = given
    this.#side = side
  }

  /** A process that serves under the name, or (undefined) nobody, and then the name is ours. Throws HANDOVER_CONTROL_SOCKET. */
  find(): FirstContact | undefined {
    const name = this.#given()
    if (name === undefined) return undefined
    const file = controlPath(name)
    const found = findOrBecome(file)
    if ('predecessor' in found) return found.predecessor
    this.#control = new ControlServer(file, found.listening, this.#side)
    this.#control.listen()
    return undefined
  }

  /** Takes the control socket out of the offer, where this program still goes by the same name. It is quiet until `serve()`. */
  inherit(inventory: Inventory): void {
    const name = this.#given()
    if (name === undefined) return
    const file = controlPath(name)
    const fd = inventory.takeControl(file)
    if (fd !== undefined) this.#control = new ControlServer(file, fd, this.#side)
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
      this.#side.warn(`the control socket cannot be used: ${withoutStop((error as Error).message)}. This process serves, and cannot be found by its name.`)
    }
  }

  take(): void {
    if (this.#control) return
    try {
      const contact = this.find()
      if (!contact) return
      contact.close()
      this.#side.warn(`another process serves under the name ${this.#given()}. This one cannot be found by it. Choose another name.`)
    } catch (error) {
      this.#side.warn(`${withoutStop((error as Error).message)}. This process serves, and cannot be found by its name.`)
    }
  }

  /** Cannot be found until `serve()`. */
  pause(): void {
    this.#control?.pause()
  }

  /** For good. `last`: nobody else has the name. */
  leave(last: boolean): void {
    this.#control?.close(last)
    this.#control = undefined
  }

  /** What a successor is offered. */
  get offered(): { readonly about: OfferedListener; readonly fd: number } | undefined {
    if (!this.#control) return undefined
    const { file: address, fd } = this.#control
    const id = fileId(address)
    return { about: { name: 'control', kind: 'control', asked: 'control', address, port: 0, ipv6: false, ipv6Only: false, backlog: 128, ...(id !== undefined && { file: id }) }, fd }
  }
}
