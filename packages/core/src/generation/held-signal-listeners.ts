/**
 * The program's own listeners for SIGTERM and SIGINT. They close what the drain still needs, so they hear the signal when the drain is
 * over, and then as Node would have called them: all of them, with Node's arguments, `once` listeners used up, and what they throw
 * uncaught. Nothing of ours listens beside them then, so a program that sends itself the signal again ends by it.
 */

import { constants } from 'node:os'
import type { Host } from '../handover/host.js'
import type { StopSignal } from '../protocol/report.js'

const stopSignals: readonly StopSignal[] = ['SIGTERM', 'SIGINT']
const isStopSignal = (event: unknown): event is StopSignal => stopSignals.includes(event as StopSignal)

/** The stop signal that a keeper's message names; undefined where it names none, as those of older keepers do. */
export const stopSignalOf = (word: string | undefined): StopSignal | undefined => (isStopSignal(word) ? word : undefined)

export class HeldListeners {
  readonly #host: Pick<Host, 'signals' | 'clock' | 'pid'>
  readonly #hear: (signal: StopSignal) => boolean
  #emit: ((...args: unknown[]) => boolean) | undefined
  /** Our own call of the listeners. */
  #telling = false
  #echoesUntil = -Infinity
  readonly #guard = (): void => undefined

  /** `hear`: the process got a signal. Where it answers false, the listeners of the program hear it now. */
  constructor(host: Pick<Host, 'signals' | 'clock' | 'pid'>, hear: (signal: StopSignal) => boolean) {
    this.#host = host
    this.#hear = hear
  }

  get held(): boolean {
    return this.#emit !== undefined
  }

  /** From now on a signal of the system goes to `hear` first. */
  hold(): void {
    if (this.#emit) return
    const { signals } = this.#host
    const emit = signals.emit.bind(signals) as (...args: unknown[]) => boolean
    this.#emit = emit
    const value = (event: unknown, ...args: unknown[]): boolean => {
      if (isStopSignal(event) && !this.#telling && this.#hear(event)) return true
      return (event === 'removeListener' && args[1] === this.#guard) || emit(event, ...args)
    }
    Object.defineProperty(signals, 'emit', { value, configurable: true, writable: true, enumerable: false })
    // Node binds process.emit when it begins to listen for a signal: with the first listener.
    for (const signal of stopSignals) {
      const listeners = signals.rawListeners(signal) as NodeJS.SignalsListener[]
      signals.removeAllListeners(signal)
      for (const listener of listeners) signals.on(signal, listener)
    }
  }

  /** Calls them. For `echoMs` the same signal from outside counts as this one. */
  tell(signal: StopSignal, echoMs: number): void {
    this.#echoesUntil = this.#host.clock.now() + echoMs
    if (echoMs > 0) this.#watchOwn(signal, echoMs)
    this.#telling = true
    try {
      this.#host.signals.emit(signal, signal, constants.signals[signal])
    } finally {
      this.#telling = false
      if (this.isEcho) this.#host.signals.on(signal, this.#guard).off(signal, this.#guard)
    }
  }

  /** Whether a signal that comes now is the one that the listeners have heard. */
  get isEcho(): boolean {
    return this.#host.clock.now() < this.#echoesUntil
  }

  /**
   * A signal that the program sends to itself is no echo, and must end it. Where nothing listens any more, the default action of an echo
   * would cut the cleanup: Node listens for a signal until it hears 'removeListener' of its last listener, so that event is withheld.
   */
  #watchOwn(signal: StopSignal, echoMs: number): void {
    const own = Object.getOwnPropertyDescriptor(process, 'kill') ?? {}
    const kill = process.kill.bind(process)
    const end = (): void => {
      if (process.kill === toSelf) Object.defineProperty(process, 'kill', own)
      if (this.#echoesUntil === -Infinity) return
      this.#echoesUntil = -Infinity
      this.#emit?.('removeListener', signal, this.#guard)
    }
    const toSelf: typeof process.kill = (pid, sent) => {
      if (pid === this.#host.pid && sent !== 0) end()
      return kill(pid, sent)
    }
    process.kill = toSelf
    this.#host.clock.setTimeout(end, echoMs).unref()
  }
}
