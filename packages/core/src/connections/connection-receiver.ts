/**
 * The successor's side of a move: takes the descriptors, makes connections of them, and says which it has. All of that is one turn of the loop for each
 * message, so that nothing is read of a connection before the predecessor hears whose it is. A predecessor that knows nothing of `back` is answered first.
 *
 * What it has acknowledged is its own: a process that ends must `refuse()`, and await `idle()`, before it goes.
 */

import { closeSync } from 'node:fs'
import type { Channel } from '../protocol/channel.js'
import type { MovedConnection } from '../protocol/handover-messages.js'
import { native } from '../platform/native.js'

/** How long one turn of the loop may go on with this. */
const turnMs = 5
/**
 * How many descriptors stay free. A process without any closes the clients that it accepts (libuv does), and has no log, no reload and no way back. What
 * it promised the predecessor leaves twice as many; the limit, or what else it has open, may have changed since.
 */
const mostSpared = 32

export interface ConnectionReceiverSide {
  /**
   * Makes a connection of a descriptor, which belongs to it from then on. Answers false where it cannot: it has closed this copy, and said why. `refusable`: then
   * the predecessor goes on with the connection.
   */
  adopt(fd: number, about: MovedConnection, refusable: boolean): unknown
}

interface Batch {
  readonly connections: readonly MovedConnection[]
  readonly refusable: boolean
}

/** A connection cannot be given back: its client has heard from this process. */
export class HasSpoken extends Error {}

export class ConnectionReceiver {
  readonly #channel: Channel
  readonly #side: ConnectionReceiverSide
  readonly #spared: number
  readonly #batches: (Batch | (() => void))[] = []
  #running = false
  #refusing = false
  #idle: (() => void)[] = []

  constructor(channel: Channel, side: ConnectionReceiverSide, spared = mostSpared) {
    this.#channel = channel
    this.#side = side
    this.#spared = spared
  }

  /** Resolves when nothing is in hand. */
  async idle(): Promise<void> {
    if (this.#running) await new Promise<void>((resolve) => { this.#idle.push(resolve) })
  }

  /** From now on everything is given back: this process ends. */
  refuse(): void {
    this.#refusing = true
  }

  take(connections: readonly MovedConnection[], refusable = false): void {
    this.#next({ connections, refusable })
  }

  /** Calls back when it is the turn of a word that came now: the descriptors of those before it have been taken. */
  inTurn(job: () => void): void {
    this.#next(job)
  }

  #next(batch: Batch | (() => void)): void {
    this.#batches.push(batch)
    if (!this.#running) void this.#run()
  }

  /** How many of these are kept, of which `named` were announced. */
  #keeps(fds: readonly number[], named: number): number {
    if (this.#refusing) return 0
    // open(2): a new descriptor is the lowest that is free. All below it are in use.
    const end = (native?.openFilesLimit() ?? Infinity) - this.#spared
    const over = fds.findIndex((fd, index) => fd >= end || index >= named)
    return over < 0 ? fds.length : over
  }

  async #run(): Promise<void> {
    this.#running = true
    let until = performance.now() + turnMs
    for (let batch = this.#batches.shift(); batch; batch = this.#batches.shift()) {
      if (typeof batch === 'function') {
        batch()
        continue
      }
      const { connections, refusable } = batch
      const fds = this.#channel.takeDescriptors()
      for (const fd of fds.splice(this.#keeps(fds, connections.length))) closeSync(fd)
      if (!refusable) this.#channel.send({ type: 'taken', count: fds.length })
      const back: number[] = []
      for (const [index, fd] of fds.entries()) {
        if (this.#side.adopt(fd, connections[index]!, refusable) === false) back.push(index)
        if (refusable || performance.now() < until) continue
        await new Promise((resolve) => setImmediate(resolve))
        until = performance.now() + turnMs
      }
      if (!refusable) continue
      this.#channel.send({ type: 'taken', count: fds.length, ...(back.length > 0 && { back }) })
      if (performance.now() < until || this.#batches.length === 0) continue
      await new Promise((resolve) => setImmediate(resolve))
      until = performance.now() + turnMs
    }
    this.#running = false
    for (const resolve of this.#idle.splice(0)) resolve()
  }
}
