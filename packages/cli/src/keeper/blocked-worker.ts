/**
 * Whether a worker is blocked: its event loop does not turn, because the program loops, waits without end, or was stopped by a signal. One
 * in which somebody debugs is not, and one that slept along with the whole machine is not either.
 */

import { isTraced } from '@handover/core/internal'
import type { Worker } from './worker.js'

/** How long it is asked once more: what was late was perhaps this process itself, or the machine. */
const onceMoreMs = 2_000

/** False as soon as it answers. `timeoutMs`: how long it may be silent. */
export async function isBlocked(worker: Worker, timeoutMs: number): Promise<boolean> {
  const answers = async (ms: number): Promise<boolean> => (await worker.ask(ms)) !== undefined || worker.how !== undefined || worker.hungUp || worker.retiring
  if (await answers(timeoutMs)) return false
  if (worker.isDebugged || isTraced(worker.pid)) return false
  return !(await answers(Math.min(timeoutMs, onceMoreMs)))
}
