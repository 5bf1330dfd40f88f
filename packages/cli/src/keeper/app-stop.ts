/**
 * The end of an app under its keeper: connects are refused, all workers drain and end, and one that does not answer is killed. The exit
 * status is that of the first worker that did not end well.
 */

import { isStarting, type ProcessEnd } from '@handover/core/internal'
import { statusAfterStop, statusOf } from './exit-status.js'
import type { Fleet } from './fleet.js'
import { refuseConnects } from './refuse-connects.js'
import type { Worker } from './worker.js'

/** A worker that does not answer for that long is killed. */
const deafMs = 10_000
const killMs = 1_000

export class AppStop {
  readonly #fleet: Fleet
  #status = 0
  #over: Promise<number> | undefined

  /**
   * `hasServed`: something of the app has served. Else the end of a worker that starts counts as the end of the app. `last`: how a worker
   * has ended already, maybe by the signal that stops the app: a terminal sends it to both.
   */
  constructor(fleet: Fleet, hasServed: boolean, last: ProcessEnd | undefined) {
    this.#fleet = fleet
    if (!hasServed && last && fleet.workers.length === 0) this.#status = statusOf(last)
    for (const worker of fleet.workers) {
      const isSuccessor = isStarting(worker.state) && fleet.slots[worker.slot]?.server !== undefined
      void worker.ended.then((how) => {
        const counts = !hasServed || (!isSuccessor && !isStarting(worker.state))
        if (counts) this.#status ||= statusAfterStop(worker.state, how)
      })
    }
  }

  /** The programs hear `signal`. Resolves when all workers have ended, with the exit status. A second call only waits. */
  run(signal: NodeJS.Signals | undefined): Promise<number> {
    return this.#over ??= this.#run(signal)
  }

  async #run(signal: NodeJS.Signals | undefined): Promise<number> {
    const fleet = this.#fleet
    await refuseConnects(fleet)
    const told = new Set<Worker>()
    const tell = (): void => {
      const untold = fleet.workers.filter((worker) => !told.has(worker))
      // A successor first: its predecessor takes its offer back when it hears this.
      for (const worker of untold.sort((a, b) => Number(isStarting(b.state)) - Number(isStarting(a.state)))) {
        told.add(worker)
        worker.stop(true, signal)
      }
    }
    const killDeaf = async (worker: Worker): Promise<void> => {
      if ((await worker.ask(deafMs)) === undefined && !worker.how) worker.kill()
    }
    const deaf = setInterval(() => { for (const worker of fleet.workers) void killDeaf(worker) }, deafMs)
    // Another keeper's workers may be found meanwhile.
    while (fleet.workers.length > 0) {
      tell()
      await Promise.all(fleet.workers.map(({ ended }) => ended))
    }
    clearInterval(deaf)
    return this.#status
  }

  /** A second signal: passes it on, and kills a moment later. */
  hurry(signal: NodeJS.Signals): void {
    this.#status = statusOf({ code: null, signal })
    for (const worker of this.#fleet.workers) worker.signal(signal)
    setTimeout(() => { for (const worker of this.#fleet.workers) worker.kill() }, killMs)
  }
}
