/**
 * The time and the timers of a process as one object, so that a test can use its own clock.
 *
 * Code that decides by time takes the clock of its generation's host. Code that only measures, or slices work, may ask Node.
 */

export interface Timer {
  /** Lets the process end although the timer runs. */
  unref(): Timer
}

export interface Clock {
  /** In milliseconds, as performance.now(). */
  now(): number
  setTimeout(act: () => void, ms: number): Timer
  setInterval(act: () => void, ms: number): Timer
  /** Ends a timer of either kind. */
  clear(timer: Timer | undefined): void
  setImmediate(act: () => void): void
}

/** A test of an app may replace the global one, and close a server meanwhile: what is done for that must not wait for ever. */
const immediately = setImmediate

export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (act, ms) => setTimeout(act, ms),
  setInterval: (act, ms) => setInterval(act, ms),
  clear: (timer) => { clearTimeout(timer as NodeJS.Timeout | undefined) },
  setImmediate: (act) => { immediately(act) }
}
