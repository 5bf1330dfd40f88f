/**
 * When the program of a successor counts as ready: as soon as it listens on everything that was offered, or says so itself.
 *
 * A new version may have dropped a listener, and nothing tells that from a listen() that is still to come. So the program counts as ready
 * after some time without it; what this process waits for is logged before.
 */

import type { Clock, Timer } from '../platform/clock.js'
import { deadlineIn, left, type Deadline } from '../protocol/deadline.js'
import type { Peer } from '../protocol/handover-messages.js'
import type { Lifecycle } from '../protocol/lifecycle.js'
import { listed } from '../protocol/report.js'
import type { ListenerRegistry } from './listener-registry.js'

/** What it reads of the process. */
interface ReadinessContext {
  readonly host: { readonly clock: Clock }
  readonly self: Peer
  readonly lifecycle: Lifecycle
  readonly registry: ListenerRegistry
  readonly settings: { readonly readyWhen: 'listening' | 'manual' }
  readonly keeper: object | undefined
  readonly log: (level: 'info', line: string) => void
}

export class Readiness {
  readonly #context: ReadinessContext
  readonly #booted: () => void
  #saidReady = false
  #saidAwaited = false
  /** Calls of listen() that have not succeeded or failed yet. */
  #listening = 0
  #timers: Timer[] = []
  #readyMs = Infinity
  #mayDrop = false
  #mustKeep = false
  /** When what was offered and is not claimed counts as dropped. */
  #lastCall: Deadline | undefined

  /** `booted`: the program counts as ready. It may be called more than once. */
  constructor(context: ReadinessContext, booted: () => void) {
    this.#context = context
    this.#booted = () => {
      this.#clear()
      booted()
    }
  }

  /**
   * An offer was taken. `readyMs`: how long the boot may take. `mayDrop`: the version that starts listens on less on purpose. `mustKeep`: a
   * version that listens on less is refused, as under a keeper, but where that makes the offer itself.
   */
  begin(readyMs: number, mayDrop: boolean, mustKeep: boolean): void {
    this.#readyMs = readyMs
    this.#mayDrop = mayDrop
    this.#mustKeep = mustKeep
    this.#lastCall = deadlineIn(readyMs - Math.min(5_000, readyMs / 4), this.#context.host.clock)
  }

  /** How long it may still take until this process is ready. */
  get leftMs(): number {
    return this.#lastCall ? left(this.#lastCall) : Infinity
  }

  /** A listen() begins. */
  listens(): void {
    this.#listening++
    this.#clear()
  }

  /** It has succeeded or failed; `settle` follows. */
  listened(): void {
    this.#listening--
  }

  /** The program says that it is ready, whatever it listens on. */
  ready(): void {
    this.#saidReady = true
    this.settle()
  }

  /** Ready now, or after some time without another listen(). */
  settle(): void {
    const { lifecycle, registry, settings: { readyWhen } } = this.#context
    if (lifecycle.state.is !== 'preparing' || this.#listening > 0 || registry.listeners.length === 0) return
    this.#clear()
    if (this.#saidReady || (readyWhen === 'listening' && registry.unclaimed.length === 0)) this.#booted()
    else if (readyWhen === 'listening') this.#awaitMore(left(this.#lastCall!))
  }

  /** Nothing is awaited any more. */
  end(): void {
    this.#clear()
  }

  #awaitMore(lastCallMs: number): void {
    const awaited = this.#context.registry.awaited.map(({ name }) => name)
    const mayComeAndGo = awaited.length === 0 || this.#mayDrop
    this.#after(mayComeAndGo ? Math.min(10_000, this.#readyMs / 4, lastCallMs) : lastCallMs, this.#booted)
    if (!mayComeAndGo && !this.#saidAwaited) this.#after(Math.min(5_000, this.#readyMs / 8), () => { this.#sayAwaited(awaited) })
  }

  #sayAwaited(awaited: readonly string[]): void {
    const { keeper, self, log } = this.#context
    this.#saidAwaited = true
    const end = this.#mustKeep ? 'the reload fails' : 'it counts as dropped'
    const todo = keeper ? 'reload with --allow-drop' : 'call ready() when it listens on all that it needs'
    log('info', `generation ${self.generation} (process ${self.pid}) is not ready: it waits for its listen() on ${listed(awaited)}, which the version before listens on. ` +
      `Without that in ${Math.ceil(left(this.#lastCall!) / 1_000)} s ${end}. Where the new version does without it, ${todo}.`)
  }

  #after(ms: number, act: () => void): void {
    this.#timers.push(this.#context.host.clock.setTimeout(act, ms))
  }

  #clear(): void {
    for (const timer of this.#timers.splice(0)) this.#context.host.clock.clear(timer)
  }
}
