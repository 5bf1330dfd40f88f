/**
 * Every wait takes a deadline, a point in time, and never a duration: so several waits in a row can share one.
 *
 * A deadline knows the clock that it goes by, so that whoever waits needs no clock of its own.
 */

import { systemClock, type Clock } from '../platform/clock.js'

export interface Deadline {
  /** As `clock.now()`. */
  readonly at: number
  /** How long it was, from when it was set. */
  readonly ms: number
  readonly clock: Clock
}

export const deadlineIn = (ms: number, clock: Clock = systemClock): Deadline => ({ at: clock.now() + ms, ms, clock })

/** In milliseconds. */
export const left = ({ at, clock }: Deadline): number => Math.max(0, at - clock.now())

/** Thrown by `receive` where the deadline passed; the role gives it its meaning. */
export class DeadlinePassed extends Error {}
