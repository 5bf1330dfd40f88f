/**
 * Moved connections that this process has acknowledged, and of which it has not made sockets yet. Their descriptors are in an epoll of
 * their own: those whose clients wait come first, in the order in which they began to wait, and the rest as the event loop has time.
 *
 * It watches nothing where the addon has no epoll (macOS).
 */

import { LoopBudget } from '../platform/loop-budget.js'
import { native } from '../platform/native.js'
import type { MovedConnection } from '../protocol/handover-messages.js'

/** Makes a connection of a descriptor, which belongs to it from then on. */
type Build = (about: MovedConnection) => void

export class WaitingArrivals {
  readonly #waiting = new Map<number, { readonly about: MovedConnection; readonly since: number; readonly build: Build }>()
  #epoll = -1
  #emptied: (() => void)[] = []

  /** Watches these descriptors from now on. Returns those that cannot be watched. */
  watch(fds: readonly number[]): ReadonlySet<number> {
    if (fds.length === 0) return new Set()
    if (this.#epoll < 0) this.#epoll = native?.epoll?.() ?? -1
    return new Set(this.#epoll < 0 ? fds : native!.epollAdd!(this.#epoll, fds))
  }

  /** `build` gets what is known of the connection, as if it arrived only then. */
  add(fd: number, about: MovedConnection, build: Build): void {
    if (this.#waiting.size === 0) setImmediate(() => { this.#buildSome() })
    this.#waiting.set(fd, { about, since: performance.now(), build })
  }

  /** Resolves when none waits. */
  async empty(): Promise<void> {
    if (this.#waiting.size > 0) await new Promise<void>((resolve) => { this.#emptied.push(resolve) })
  }

  #buildSome(): void {
    const budget = new LoopBudget()
    let found = false
    // Their sockets read in the next turn of the loop, so this one ends soon. An event may be of a connection that was built before, or of
    // an earlier socket with the same number.
    for (const fd of native!.epollReady!(this.#epoll)) found = this.#build(fd) || found
    if (!found) for (const fd of this.#waiting.keys()) {
      this.#build(fd)
      if (budget.isSpent) break
    }
    if (this.#waiting.size > 0) {
      setImmediate(() => { this.#buildSome() })
      return
    }
    native!.close([this.#epoll])
    this.#epoll = -1
    for (const resolve of this.#emptied.splice(0)) resolve()
  }

  #build(fd: number): boolean {
    const waiting = this.#waiting.get(fd)
    if (!waiting) return false
    this.#waiting.delete(fd)
    const { about, since, build } = waiting
    const ms = Math.round(performance.now() - since)
    build({ ...about, ageMs: about.ageMs + ms, ...(about.idleMs !== undefined && { idleMs: about.idleMs + ms }) })
    return true
  }
}
