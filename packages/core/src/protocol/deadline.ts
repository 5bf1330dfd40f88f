/**
 * Every wait takes a deadline, a point in time, and never a duration: so several waits in a row can share one.
 *
 * A deadline knows the clock that it goes by, so that a wait needs no clock of its own.
 */

import { systemClock, type Clock, type Timer } from '../platform/clock.js'

export interface Deadline {
  /** As `clock.now()`. */
  readonly at: number
  /** How long it was when it was set. */
  readonly ms: number
  readonly clock: Clock
}

export const deadlineIn = (ms: number, clock: Clock = systemClock): Deadline => ({ at: clock.now() + ms, ms, clock })

/** In milliseconds. */
export const left = ({ at, clock }: Deadline): number => Math.max(0, at - clock.now())

/**
 * The result of `promise`; undefined where the deadline passes first, or `stopped` is aborted. Without a deadline, or with an infinite one,
 * it waits without end. Each wait adds a callback to the promise, so a promise must not outlive many.
 */
export async function withDeadline<T>(promise: Promise<T>, deadline?: Deadline, stopped?: AbortSignal): Promise<T | undefined> {
  if (stopped?.aborted) return undefined
  let timer: Timer | undefined
  let end = (): void => undefined
  const over = new Promise<undefined>((resolve) => { end = () => { resolve(undefined) } })
  if (deadline && Number.isFinite(deadline.at)) timer = deadline.clock.setTimeout(end, left(deadline))
  stopped?.addEventListener('abort', end, { once: true })
  try {
    return await Promise.race([promise, over])
  } finally {
    deadline?.clock.clear(timer)
    stopped?.removeEventListener('abort', end)
  }
}

/** Thrown by `receive` where the deadline passed; the role gives it its meaning. */
export class DeadlinePassed extends Error {}
