/**
 * Detects a successor that hangs, as long as the predecessor could take over again: its event loop must answer regular questions.
 *
 * Time in which the machine slept or the predecessor was busy does not count, and a successor that is being debugged may stand still.
 */

import { systemClock, type Clock, type Timer } from './clock.js'
import { isTraced } from './processes.js'

const askEachMs = 500
/** How long the successor may be silent. */
export const mostSilentMs = 3_000
/** If a look is so late, this process was held up. */
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
  /** When the first question without an answer was asked. */
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

  /** `debugged`: it may stand at a breakpoint. */
  heard(debugged: boolean): void {
    this.#askedAt = undefined
    this.#debugged = debugged
    this.#answered?.()
  }

  /** Calls back when it next answers. */
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
      // Its silence counts from now.
      this.#askedAt = undefined
      this.#ask()
    } else if (now - this.#askedAt > mostSilentMs) {
      this.stop()
      this.#side.hangs()
    }
  }
}
