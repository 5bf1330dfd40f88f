/**
 * The time and the timers of a process, as one object: a test puts its own clock in the place of the system's, and hours pass in no
 * time.
 *
 * Everything that decides by order or by time takes its clock from the host of the generation. What only measures, or only slices work
 * into turns of the event loop, may ask Node.
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

export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (act, ms) => setTimeout(act, ms),
  setInterval: (act, ms) => setInterval(act, ms),
  clear: (timer) => { clearTimeout(timer as NodeJS.Timeout | undefined) },
  setImmediate: (act) => { setImmediate(act) }
}
