/**
 * The successor's side of a move: takes the descriptors, says how many it has, and only then makes connections of them, a few milliseconds at a time.
 *
 * What it has acknowledged is its own: a process that ends must answer `busy` with no before it goes, and refuse what comes later.
 */

import { closeSync } from 'node:fs'
import type { Channel } from './channel.js'
import type { MovedConnection } from './messages.js'

/** How long one turn of the loop may go on with this. */
const turnMs = 10

export interface AdoptingSide {
  /** Makes a connection of a descriptor, which belongs to it from then on. */
  adopt(fd: number, about: MovedConnection): void
}

export class Adopter {
  readonly #channel: Channel
  readonly #side: AdoptingSide
  readonly #batches: (readonly MovedConnection[])[] = []
  #running = false
  #refusing = false
  #idle: (() => void)[] = []

  constructor(channel: Channel, side: AdoptingSide) {
    this.#channel = channel
    this.#side = side
  }

  /** Connections were acknowledged and are not served yet. */
  get busy(): boolean {
    return this.#running
  }

  /** Resolves when nothing is in hand. */
  async idle(): Promise<void> {
    if (this.#running) await new Promise<void>((resolve) => { this.#idle.push(resolve) })
  }

  /** From now on everything is given back: this process ends. */
  refuse(): void {
    this.#refusing = true
  }

  take(batch: readonly MovedConnection[]): void {
    this.#batches.push(batch)
    if (!this.#running) void this.#run()
  }

  async #run(): Promise<void> {
    this.#running = true
    for (let batch = this.#batches.shift(); batch; batch = this.#batches.shift()) {
      const fds = this.#channel.takeDescriptors()
      if (this.#refusing) {
        for (const fd of fds.splice(0)) closeSync(fd)
      }
      this.#channel.send({ type: 'taken', count: fds.length })
      let until = performance.now() + turnMs
      for (const [index, fd] of fds.entries()) {
        const about = batch[index]
        if (about) this.#side.adopt(fd, about)
        else closeSync(fd)
        if (performance.now() < until) continue
        await new Promise((resolve) => setImmediate(resolve))
        until = performance.now() + turnMs
      }
    }
    this.#running = false
    for (const resolve of this.#idle.splice(0)) resolve()
  }
}
