/**
 * Sees that a successor hangs: it is asked again and again, and its event loop must answer. Only while the predecessor could still take
 * over again.
 *
 * A machine that slept, and a predecessor that was busy itself, say nothing about the successor. One in which somebody debugs may stand
 * still.
 */

import { systemClock, type Clock, type Timer } from './clock.js'
import { isTraced } from './processes.js'

const askEachMs = 500
/** How long it may be silent. */
export const mostSilentMs = 3_000
/** A look that comes so late was held up here. */
const lateMs = 2 * askEachMs

export interface PulseSide {
  readonly pid: number
  /** The system's where it is absent. */
  readonly clock?: Clock
  ask(): void
  /** It has not answered for `mostSilentMs`. Called once, and nothing after it. */
  hangs(): void
}

export class Pulse {
  readonly #side: PulseSide
  readonly #clock: Clock
  readonly #timer: Timer
  #lookedAt: number
  /** Of the first question without an answer. */
  #askedAt: number | undefined
  #debugged = false
  #answered: (() => void) | undefined

  constructor(side: PulseSide) {
    this.#side = side
    this.#clock = side.clock ?? systemClock
    this.#lookedAt = this.#clock.now()
    this.#timer = this.#clock.setInterval(() => { this.#look() }, askEachMs)
    this.#timer.unref()
    this.#ask()
  }

  /** `debugged`: somebody can hold it at a breakpoint. */
  heard(debugged: boolean): void {
    this.#askedAt = undefined
    this.#debugged = debugged
    this.#answered?.()
  }

  /** Calls back with its next answer; not where it hangs. */
  afterAnswer(then: () => void): void {
    this.#answered = then
    this.#ask()
  }

  stop(): void {
    this.#clock.clear(this.#timer)
    this.#answered = undefined
  }

  #ask(): void {
    this.#askedAt ??= this.#clock.now()
    this.#side.ask()
  }

  #look(): void {
    const now = this.#clock.now()
    const isLate = now - this.#lookedAt > lateMs
    this.#lookedAt = now
    if (this.#askedAt === undefined || isLate || this.#debugged || isTraced(this.#side.pid)) {
      // It counts from here.
      this.#askedAt = undefined
      this.#ask()
    } else if (now - this.#askedAt > mostSilentMs) {
      this.stop()
      this.#side.hangs()
    }
  }
}
