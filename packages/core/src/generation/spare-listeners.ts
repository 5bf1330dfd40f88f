/**
 * Copies of listeners that a program may close and listen on again. While a predecessor or a keeper has a copy of such a listener, its
 * port is in use: the next listen() on it gets the spare copy.
 */

import type dgram from 'node:dgram'
import { closeSync } from 'node:fs'
import type net from 'node:net'
import type { ListenerRegistry } from '../listeners/listener-registry.js'
import { onceListensNoMore } from '../listeners/listening-end.js'
import { native } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import type { OfferedListener, OfferedSocket } from '../protocol/handover-messages.js'
import { accepts, type Lifecycle } from '../protocol/lifecycle.js'

export class SpareListeners {
  readonly #registry: ListenerRegistry
  readonly #lifecycle: Lifecycle
  readonly #spares = new Set<OfferedSocket>()

  constructor(registry: ListenerRegistry, lifecycle: Lifecycle) {
    this.#registry = registry
    this.#lifecycle = lifecycle
  }

  /**
   * Keeps a copy of what this server or socket listens on. When the program has closed that, its next listen() there can claim the copy.
   * `claimed`: the predecessor has the listener, too, so its port stays in use. A new listener that is closed before this process serves
   * leaves its port free, and needs no copy: the keeper has none yet.
   */
  keep(owner: net.Server | dgram.Socket, about: OfferedListener, claimed: boolean): void {
    const fd = fdOf(owner)
    const copy = native && fd !== undefined ? native.duplicate(fd) : -1
    if (copy < 0) return
    const spare = { about, fd: copy }
    this.#spares.add(spare)
    onceListensNoMore(owner, () => {
      if (!this.#spares.delete(spare)) return
      if (claimed || accepts(this.#lifecycle.state.is)) this.#registry.giveBack(spare)
      else closeSync(copy)
    })
  }

  /** Closes all, also those that can be claimed by now. */
  close(): void {
    for (const { fd } of this.#spares) closeSync(fd)
    this.#spares.clear()
    // While it prepares, the rest of the offer is there as well.
    if (this.#lifecycle.state.is !== 'preparing') this.#registry.drop()
  }
}
