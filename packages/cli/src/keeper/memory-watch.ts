/**
 * Reloads a worker whose memory is above `--max-memory`: one at a time, and not for a single peak. Where the next one is soon above the
 * limit as well, or does not start, it waits longer each time.
 */

import { memoryOf } from '@handover/core/internal'
import { megabytes } from '../text.js'
import type { Worker } from './worker.js'

export interface MemorySide {
  servers(): readonly Worker[]
  /** Nothing else reloads, starts or stops. */
  isQuiet(): boolean
  /** Rejects where it cannot begin. Answers whether the next worker serves. */
  reload(worker: Worker): Promise<boolean>
  warn(line: string): void
  /** Resident set of a worker, in bytes; undefined where it is not known. */
  memoryOf?(worker: Worker): Promise<number | undefined>
}

const lookMs = 1_000
/** So many looks in a row. */
const looks = 3
const firstWaitMs = 60_000
const longestWaitMs = 3_600_000

/** Answers a function that ends the watch. */
export function watchMemory(mostBytes: number, side: MemorySide): () => void {
  const memoryOfWorker = side.memoryOf?.bind(side) ?? residentSet
  const above = new WeakMap<Worker, number>()
  const waits = new Map<number, { readonly at: number; readonly ms: number }>()
  let isLooking = false
  const look = async (): Promise<void> => {
    for (const worker of side.servers()) {
      const bytes = await memoryOfWorker(worker) ?? 0
      const times = bytes > mostBytes ? (above.get(worker) ?? 0) + 1 : 0
      above.set(worker, times)
      const last = waits.get(worker.slot)
      const sinceMs = last ? performance.now() - last.at : Infinity
      if (times < looks || !side.isQuiet() || (last && sinceMs < last.ms)) continue
      const ms = last && sinceMs < 2 * last.ms ? Math.min(2 * last.ms, longestWaitMs) : firstWaitMs
      side.warn(`${worker.who} has ${megabytes(bytes)} of memory, more than --max-memory (${megabytes(mostBytes)}): its slot is reloaded`)
      const serves = await side.reload(worker).catch(() => false)
      waits.set(worker.slot, { at: performance.now(), ms })
      if (!serves) side.warn(`slot ${worker.slot} could not be reloaded for its memory, and goes on as before; the next try is in ${ms / 1_000} s at the earliest`)
    }
  }
  const timer = setInterval(() => {
    if (isLooking) return
    isLooking = true
    void look().finally(() => { isLooking = false })
  }, lookMs)
  return () => { clearInterval(timer) }
}

/** Where there is no /proc the worker is asked. */
const residentSet = async (worker: Worker): Promise<number | undefined> => memoryOf(worker.pid) ?? (await worker.ask())?.memory
