/**
 * The program's own listeners for SIGTERM and SIGINT. They close what the drain still needs, so they hear the signal when the drain is over, and then as
 * Node would have called them: all of them, with Node's arguments, `once` listeners used up, and what they throw uncaught. Nothing of ours listens beside
 * them then, so a program that sends itself the signal again ends by it.
 */

import { constants } from 'node:os'

export type StopSignal = 'SIGTERM' | 'SIGINT'

const stopSignals: readonly StopSignal[] = ['SIGTERM', 'SIGINT']
const isStopSignal = (event: unknown): event is StopSignal => stopSignals.includes(event as StopSignal)

/** Whether the word of a keeper says the signal; a keeper of before did not. */
export const stopSignalOf = (word: string | undefined): StopSignal | undefined => (isStopSignal(word) ? word : undefined)

export class HeldListeners {
  readonly #hear: (signal: StopSignal) => boolean
  #held = false
  /** Our own call of the listeners. */
  #telling = false

  /** `hear`: the process got a signal. False: the listeners of the program are to hear it now. */
  constructor(hear: (signal: StopSignal) => boolean) {
    this.#hear = hear
  }

  get held(): boolean {
    return this.#held
  }

  /** From now on a signal of the system goes to `hear` first. */
  hold(): void {
    if (this.#held) return
    this.#held = true
    const emit = process.emit.bind(process) as (...args: unknown[]) => boolean
    const value = (event: unknown, ...args: unknown[]): boolean => (isStopSignal(event) && !this.#telling && this.#hear(event)) || emit(event, ...args)
    Object.defineProperty(process, 'emit', { value, configurable: true, writable: true, enumerable: false })
    // Node binds process.emit when it begins to listen for a signal: with the first listener.
    for (const signal of stopSignals) {
      const listeners = process.rawListeners(signal) as NodeJS.SignalsListener[]
      process.removeAllListeners(signal)
      for (const listener of listeners) process.on(signal, listener)
    }
  }

  /** Calls them. For `echoMs` the same signal, where it comes from outside, is not the next one. */
  tell(signal: StopSignal, echoMs: number): void {
    const until = performance.now() + echoMs
    this.#echoes = () => performance.now() < until
    this.#telling = true
    try {
      ;(process.emit as (...args: unknown[]) => boolean)(signal, signal, constants.signals[signal])
    } finally {
      this.#telling = false
      if (echoMs > 0) this.#guard(signal, echoMs)
    }
  }

  #echoes = (): boolean => false

  /** Whether this signal is the one that the listeners have heard. */
  get isEcho(): boolean {
    return this.#echoes()
  }

  /** Where nothing listens any more, the default action of the same signal would cut the cleanup. What the program sends itself is meant. */
  #guard(signal: StopSignal, echoMs: number): void {
    const guard = (): void => undefined
    const { kill } = process
    const end = (): void => {
      this.#echoes = () => false
      process.off(signal, guard)
      if (process.kill === toSelf) process.kill = kill
    }
    const toSelf: typeof process.kill = (pid, sent) => {
      if (pid === process.pid && sent !== 0) end()
      return kill.call(process, pid, sent)
    }
    process.on(signal, guard)
    process.kill = toSelf
    setTimeout(end, echoMs).unref()
  }
}
