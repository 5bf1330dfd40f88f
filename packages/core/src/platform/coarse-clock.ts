/**
 * The time for what happens at every request. To read the clock costs as much as all else that is done there, so it is read once and serves
 * for some milliseconds, as libuv's time serves for a turn of the loop. Where little happens it is read each time, and nothing ticks.
 */

const staleMs = 20

let nowMs = 0
let isTicking = false
let isUsed = false
let timer: NodeJS.Timeout | undefined

/** performance.now(), at most `staleMs` old, or as old as the turn of the event loop. */
export function coarseNow(): number {
  isUsed = true
  if (isTicking) return nowMs
  isTicking = true
  timer = timer?.refresh() ?? setTimeout(tick, staleMs).unref()
  return nowMs = performance.now()
}

function tick(): void {
  isTicking = isUsed
  isUsed = false
  if (!isTicking) return
  nowMs = performance.now()
  timer!.refresh()
}
