/**
 * The time for what happens at every request. To read the clock costs as much as all else that is done there, so where much happens it is
 * read once and serves for some milliseconds, as libuv's time serves for a turn of the loop. Where less happens it is read each time, and
 * nothing ticks: a timer that wakes the loop costs as much as many reads.
 */

/** Node's own: a test of a program puts another in its place, which may never fire. */
const { setTimeout } = globalThis
const staleMs = 20
/** Reads within staleMs from which on a timer is cheaper. */
const manyReads = 64

let nowMs = 0
let isTicking = false
/** Since the last tick, or since `countedFrom`. */
let reads = 0
let countedFrom = 0
let timer: NodeJS.Timeout | undefined

/** performance.now(), at most `staleMs` old, or as old as the turn of the event loop. */
export function coarseNow(): number {
  reads++
  if (isTicking) return nowMs
  nowMs = performance.now()
  if (nowMs - countedFrom > staleMs) {
    countedFrom = nowMs
    reads = 1
  } else if (reads >= manyReads) {
    isTicking = true
    reads = 0
    timer = timer?.refresh() ?? setTimeout(tick, staleMs).unref()
  }
  return nowMs
}

function tick(): void {
  isTicking = reads >= manyReads
  reads = 0
  if (!isTicking) return
  nowMs = performance.now()
  timer!.refresh()
}
