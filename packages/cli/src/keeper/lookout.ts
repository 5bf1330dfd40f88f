/** Finds out whether a worker serves where Handover cannot hand over (served-elsewhere.ts): at its start for the log, and when asked. */

import { accepts, deadlineIn, withDeadline, type ProcessStatus } from '@handover/core/internal'
import { listensElsewhere, whatItLaunched, whereItServes, type Place, type WorkerFacts } from './served-elsewhere.js'
import { statusMs, type Worker } from './worker.js'

const firstLookMs = 250
/** A program may open its listeners late. */
const laterLookMs = 5_000
/** A launcher takes a while until what it starts has a port. */
const looksWhileItServes = 4

export class Lookout {
  readonly #args: () => readonly string[]
  readonly #warn: (line: string) => void

  /** `args`: of the command line of the workers. */
  constructor(args: () => readonly string[], warn: (line: string) => void) {
    this.#args = args
    this.#warn = warn
  }

  /** Watches the first worker from its start until it serves as it should, or has ended. Says once what is found. */
  watch(first: () => Worker | undefined): void {
    let servedLooks = 0
    const next = (afterMs: number): void => {
      setTimeout(() => {
        const worker = first()
        if (!worker || worker.how || worker.retiring || (accepts(worker.state) && ++servedLooks > looksWhileItServes)) return
        void this.placeOf(worker).then((place) => {
          if (place) this.#warn(`${place.what}. ${place.todo}.`)
          else next(Math.min(afterMs * 2, laterLookMs))
        })
      }, afterMs).unref()
    }
    next(firstLookMs)
  }

  /** Undefined if the worker serves itself, or nothing is found that serves in its place. */
  async placeOf(worker: Worker): Promise<Place | undefined> {
    if (worker.how) return undefined
    if (worker.state === 'idle') return await this.#placeOfIdle(worker)
    if (!accepts(worker.state)) return undefined
    const status = await worker.ask()
    // Most workers listen on a port: nothing needs to be read, which takes long with many connections.
    if (!status || status.listeners.some((name) => !name.startsWith('unix '))) return undefined
    return whatItLaunched(this.#factsOf(worker, status), status.listeners, listensElsewhere(worker.pid))
  }

  async #placeOfIdle(worker: Worker): Promise<Place | undefined> {
    // Looks before it asks: by the time it answers, the worker has told of everything that is seen here.
    const found = listensElsewhere(worker.pid)
    if (found.itself.length === 0 && found.others.length === 0) return undefined
    const heard = await withDeadline(worker.greeted, deadlineIn(statusMs)) ?? false
    const status = heard ? await worker.ask() : undefined
    return worker.state === 'idle' ? whereItServes(this.#factsOf(worker, status, heard), found) : undefined
  }

  #factsOf({ pid }: Worker, status: ProcessStatus | undefined, speaks = true): WorkerFacts {
    return { pid, speaks, plain: status?.plain, args: this.#args() }
  }
}
