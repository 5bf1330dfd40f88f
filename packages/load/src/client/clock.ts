/**
 * The one clock of this package: milliseconds, with fractions, of the machine's monotonic clock.
 *
 * It is comparable between processes of one machine (unlike performance.now()) and never jumps (unlike Date.now()), so that
 * a signal sent by one process and an answer read by another can be put on one line.
 */

const originMs = Number(process.hrtime.bigint()) / 1e6 - performance.now()

export function nowMs(): number {
  return originMs + performance.now()
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
