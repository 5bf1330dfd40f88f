/**
 * Whether a signal to stop is a second one, or the same stop once more: a terminal or a supervisor signals all processes of a program, and
 * npm passes the signal on to a process that has it already. Somebody who wants a process to end at once sends the signal twice himself.
 */

import { constants } from 'node:os'
import { native } from './native.js'

type StopSignal = 'SIGTERM' | 'SIGINT'

/** How long a process may take to pass the signal on. */
const passedOnMs = 2_000

export class StopSenders {
  readonly #take: (signal: StopSignal) => readonly number[]
  readonly #now: () => number
  readonly #untold: Record<StopSignal, number[]> = { SIGTERM: [], SIGINT: [] }
  #first: { readonly sender: number | undefined; readonly at: number } | undefined

  constructor(
    take = (signal: StopSignal): readonly number[] => native?.takeSenders(constants.signals[signal]) ?? [],
    now = (): number => performance.now()
  ) {
    this.#take = take
    this.#now = now
  }

  /** Requires a listener for both signals. */
  watch(): void {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) native?.watchSenders(constants.signals[signal])
  }

  /** Of a signal that has just come. Call it for each. False where the sender is not known. */
  isSameStop(signal: StopSignal): boolean {
    const senders = this.#untold[signal]
    senders.push(...this.#take(signal))
    const sender = senders.shift()
    const { sender: first, at = -Infinity } = this.#first ?? {}
    if (first !== undefined && sender !== undefined && sender !== first && this.#now() - at < passedOnMs) return true
    this.#first ??= { sender, at: this.#now() }
    return false
  }
}
