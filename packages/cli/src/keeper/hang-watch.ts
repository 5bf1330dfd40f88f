/**
 * Finds workers whose event loop does not turn, because the program loops, waits without end, or was stopped by a signal. A process in
 * which somebody debugs does not count as blocked, and neither does one that slept along with the whole machine.
 */

import { isTraced } from '@handover/core/internal'
import type { Worker } from './worker.js'

/** How long it is asked once more: perhaps this process itself was late, or the machine. */
const onceMoreMs = 2_000

/**
 * Asks all serving workers again and again, and calls `hangs` for one that does not answer for `timeoutMs`. Answers a function that ends
 * the watch.
 */
export function watchHangs(timeoutMs: number, servers: () => readonly Worker[], hangs: (worker: Worker) => void): () => void {
  const asked = new Set<Worker>()
  const look = async (worker: Worker): Promise<void> => {
    if (asked.has(worker)) return
    asked.add(worker)
    if (await isBlocked(worker, timeoutMs)) hangs(worker)
    asked.delete(worker)
  }
  const timer = setInterval(() => { for (const worker of servers()) void look(worker) }, Math.max(100, timeoutMs / 2))
  return () => { clearInterval(timer) }
}

/** False as soon as it answers. */
async function isBlocked(worker: Worker, timeoutMs: number): Promise<boolean> {
  const answers = async (ms: number): Promise<boolean> =>
    (await worker.ask(ms)) !== undefined || worker.how !== undefined || worker.hungUp || worker.retiring
  if (await answers(timeoutMs)) return false
  if (worker.isDebugged || isTraced(worker.pid)) return false
  return !(await answers(Math.min(timeoutMs, onceMoreMs)))
}
