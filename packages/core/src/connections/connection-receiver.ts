/**
 * The successor's side of a move: makes connections of the descriptors, and says which it has. Connections that nothing here can refuse are
 * acknowledged at once, and made when their clients want something, or behind all else (waiting-arrivals.ts).
 *
 * The others of a message are made before its answer and in one turn of the loop, so that nothing is read of a connection before the
 * predecessor hears who has it.
 *
 * What it has acknowledged is its own: a process that ends must `refuse()`, and await `idle()`, before it goes.
 */

import type net from 'node:net'
import type { Channel } from '../protocol/channel.js'
import { closeAll } from '../protocol/descriptors.js'
import type { MovedConnection } from '../protocol/handover-messages.js'
import type { MovedTls } from '../protocol/moved-connection.js'
import { LoopBudget } from '../platform/loop-budget.js'
import { native } from '../platform/native.js'
import { inOwnContext } from '../platform/node/own-context.js'
import { readSecrets, wipeSecrets } from './tls-cargo.js'
import { WaitingArrivals } from './waiting-arrivals.js'

/**
 * How many descriptors stay free. A process without any cannot accept (libuv closes such clients), log or reload. The room that was
 * promised to the predecessor leaves twice as many, but the limit, or what else is open, may have changed since.
 */
const mostSpared = 32

/** What becomes of the connections. */
export interface Arrivals {
  /**
   * Makes a connection of a descriptor, which belongs to it from then on. Answers false where it cannot: it has closed this copy, and said
   * why; the predecessor goes on with the connection, unless it was `acknowledged` before. `keys`: of one under TLS.
   */
  receive(fd: number, about: MovedConnection, acknowledged: boolean, keys?: readonly Buffer[]): unknown
  /** Where a connection like this is counted while it has no socket yet. Undefined: it must be received before it is acknowledged. */
  waitsAt?(about: MovedConnection): { arriving: number } | undefined
}

/** A connection cannot be given back: its client has heard from this process. */
export class GiveBackError extends Error {}

/** Closes this copy. Answers the error to throw. */
export function giveBack(socket: net.Socket, error: unknown): unknown {
  const { bytesWritten } = socket
  socket.destroy()
  return bytesWritten > 0 ? new GiveBackError(error instanceof Error ? error.message : String(error), { cause: error }) : error
}

export class ConnectionReceiver {
  readonly #channel: Channel
  readonly #arrivals: Arrivals
  readonly #waiting = new WaitingArrivals()
  readonly #spared: number
  #refusing = false
  /** The last message in hand. */
  #busy: Promise<void> | undefined
  readonly #budget = new LoopBudget()

  constructor(channel: Channel, arrivals: Arrivals, spared = mostSpared) {
    this.#channel = channel
    this.#arrivals = arrivals
    this.#spared = spared
  }

  /** Resolves when nothing is in hand. */
  async idle(): Promise<void> {
    await this.#busy
    await this.#waiting.empty()
  }

  /** From now on everything is given back: this process ends. */
  refuse(): void {
    this.#refusing = true
  }

  /** Takes the connections of one message; with fewer descriptors, the first ones. Resolves when they are acknowledged. */
  take(connections: readonly MovedConnection[], fds: readonly number[]): Promise<void> {
    const take = (): Promise<void> => this.#take(connections, [...fds])
    const taken = this.#busy ? this.#busy.then(take) : take()
    this.#busy = taken
    return taken.finally(() => { if (this.#busy === taken) this.#busy = undefined })
  }

  /** How many of these are kept. */
  #keeps(fds: readonly number[]): number {
    if (this.#refusing) return 0
    // open(2): a new descriptor is the lowest that is free. All below it are in use.
    const end = (native?.openFilesLimit() ?? Infinity) - this.#spared
    const over = fds.findIndex((fd) => fd >= end)
    return over < 0 ? fds.length : over
  }

  async #take(connections: readonly MovedConnection[], fds: number[]): Promise<void> {
    const keys = this.#keysOf(connections, fds)
    closeAll(fds.splice(keys ? this.#keeps(fds) : 0))
    for (const { tls } of connections.slice(fds.length)) wipeSecrets(tls && keys?.get(tls))
    const waits = this.#letWait(connections, fds)
    const back: number[] = []
    for (const [index, fd] of fds.entries()) {
      if (waits.has(fd)) continue
      const about = connections[index]!
      const secrets = about.tls && keys?.get(about.tls)
      if (inOwnContext(() => this.#arrivals.receive(fd, about, false, secrets)) === false) {
        back.push(index)
        wipeSecrets(secrets)
      }
    }
    this.#channel.send({ type: 'taken', count: fds.length, ...(back.length > 0 && { back }) })
    // Not before the answer: another turn would read.
    await this.#budget.nextTurn()
  }

  /** Takes the file of keys out of the descriptors. Undefined: it cannot be used, and nothing is taken. */
  #keysOf(connections: readonly MovedConnection[], fds: number[]): ReadonlyMap<MovedTls, readonly Buffer[]> | undefined {
    if (!connections.some(({ tls }) => tls)) return new Map()
    const file = fds.shift()
    try {
      return file === undefined ? undefined : readSecrets(file, connections.map(({ tls }) => tls))
    } catch {
      return undefined
    }
  }

  /** Those that are acknowledged at once. They are built in later turns of the loop. */
  #letWait(connections: readonly MovedConnection[], fds: readonly number[]): ReadonlySet<number> {
    const places = connections.map((about) => this.#arrivals.waitsAt?.(about))
    const waits = new Set(fds.filter((_, index) => places[index]))
    for (const fd of this.#waiting.watch([...waits])) waits.delete(fd)
    for (const [index, fd] of fds.entries()) {
      const place = places[index]
      if (!place || !waits.has(fd)) continue
      place.arriving++
      this.#waiting.add(fd, connections[index]!, (about) => {
        place.arriving--
        this.#arrivals.receive(fd, about, true)
      })
    }
    return waits
  }
}
