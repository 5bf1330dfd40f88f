/**
 * When a slot without a worker is tried again: at once after a crash, later after each failure, and every 15 s for a build that does not
 * start. A worker that has served for a second ends the row of failures.
 */

import type { CheckpointStore } from './checkpoint-store.js'
import type { Fleet } from './fleet.js'
import type { Slot } from './slot.js'
import type { Worker } from './worker.js'

const backoffMs = (failures: number): number => (failures === 0 ? 0 : Math.min(100 * 2 ** (failures - 1), 10_000))
/** A build that has served does start: it is not kept waiting for longer. */
const mostAfterServingMs = 1_000
/** After so many failed starts in a row the log says that this build does not start, and it is tried slowly. */
const manyStarts = 5
const slowMs = 15_000
const stableMs = 1_000

interface Trouble {
  /** Crashes and failed starts. */
  failures: number
  /** Failed starts since a worker served. */
  starts: number
  reason: string
  /** As performance.now(). */
  nextAt: number
  timer: NodeJS.Timeout | undefined
}

interface RestartingFleet extends Fleet {
  readonly checkpoints: CheckpointStore
  /** Starts a worker, if the slot should have one and has none. */
  startSlot(slot: Slot): Promise<void>
}

export class Restarts {
  readonly #fleet: RestartingFleet
  readonly #troubles = new Map<Slot, Trouble>()
  readonly #watched = new WeakSet<Worker>()

  constructor(fleet: RestartingFleet) {
    this.#fleet = fleet
  }

  /** `served`: the worker had started, and ended later. */
  retry(slot: Slot, reason: string, served: boolean): void {
    const { checkpoints, options } = this.#fleet
    const trouble = this.#troubles.get(slot) ?? { failures: 0, starts: 0, reason, nextAt: 0, timer: undefined }
    this.#troubles.set(slot, trouble)
    clearTimeout(trouble.timer)
    trouble.starts = served ? 0 : trouble.starts + 1
    const many = trouble.starts >= manyStarts
    const waitMs = many ? slowMs : Math.min(backoffMs(trouble.failures), served ? mostAfterServingMs : Infinity)
    trouble.failures++
    trouble.reason = reason
    trouble.nextAt = performance.now() + waitMs
    trouble.timer = setTimeout(() => { void this.#fleet.startSlot(slot) }, waitMs)
    const next = checkpoints.nextStart(slot.index)
    if (!many) {
      const when = waitMs === 0 ? `the next one is started${next}` : `the next try is in ${waitMs / 1_000} s${next && `,${next}`}`
      options.log('warn', `${reason}; ${when}. ${this.#fleet.serves()}`)
    } else if (trouble.starts === manyStarts) {
      const tries = `${trouble.starts} tries in a row failed${checkpoints.failedWith(slot.index)}`
      const todo = `The keeper goes on trying every ${slowMs / 1_000} s; repair the build, and handover reload tries at once.`
      options.log('error', `${reason}. It does not start: ${tries}. ${this.#fleet.serves()} ${todo}`)
    }
  }

  /** No try of ours is due any more: something else starts this slot now. */
  cancel(slot: Slot): void {
    const trouble = this.#troubles.get(slot)
    clearTimeout(trouble?.timer)
    if (trouble) trouble.timer = undefined
  }

  /** The slot goes away. */
  forget(slot: Slot): void {
    this.cancel(slot)
    this.#troubles.delete(slot)
  }

  /** The keeper leaves. */
  close(): void {
    for (const { timer } of this.#troubles.values()) clearTimeout(timer)
  }

  /** The slot has this worker now. */
  serves(slot: Slot, server: Worker): void {
    if (this.#watched.has(server)) return
    this.#watched.add(server)
    setTimeout(() => { if (slot.server === server) this.#troubles.delete(slot) }, stableMs).unref()
  }

  isDue(slot: Slot): boolean {
    return this.#troubles.get(slot)?.timer !== undefined
  }

  /** Why the slot has no worker, for the status. */
  describe(slot: Slot): { readonly reason: string; readonly nextTryInMs: number; readonly starting?: boolean } {
    const trouble = this.#troubles.get(slot)
    if (!trouble) return { reason: 'it is being started', nextTryInMs: 0, starting: true }
    return { reason: trouble.reason, nextTryInMs: Math.round(Math.max(0, trouble.nextAt - performance.now())) }
  }
}
