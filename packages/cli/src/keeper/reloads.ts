/**
 * Which reload of an app may run: one at a time, of the workers or of the keeper itself. Requests that come together, as from a terminal
 * that signals all of its processes, are one reload. How the workers are replaced: rolling-reload.ts.
 */

import {
  errorReport, HandoverError, reloadBegins, reloadOutcome, type ErrorReport, type ReloadOutcome, type ReloadRequest
} from '@handover/core/internal'
import type { Fleet, Memory } from './fleet.js'
import type { Lookout } from './lookout.js'
import { ReloadHistory } from './reload-history.js'
import { reload, type Progress } from './rolling-reload.js'
import type { Slot } from './slot.js'
import type { ReloadWish, Worker } from './worker.js'

/** Plain requests that come within this time of the beginning of a reload belong to it. */
const togetherMs = 500

const stoppedOutcome = (begun: ReturnType<typeof reloadBegins>): ReloadOutcome => reloadOutcome(begun, {
  serving: [],
  error: new HandoverError('HANDOVER_STOPPED', {
    what: 'a stop was asked while the reload ran', serving: 'The app answers what it has and ends', todo: 'Nothing is left to do', onLines: true
  })
})

interface ReloadingFleet extends Fleet {
  readonly lookout: Lookout
  readonly stopping: boolean
  readonly hasServed: boolean
  /** A reload is over: all workers are of one generation. */
  reloaded(): void
}

export class Reloads {
  last: ReloadOutcome | null
  readonly history: ReloadHistory
  /** How the starts of the reload that runs, or of the last one, differed from what was typed. */
  startNotes: string[] = []
  /** Each hears of every reload that is over, or was refused: how long it took, or the code of its error. */
  readonly heard = new Set<(end: { readonly code?: string; readonly ms?: number }) => void>()
  readonly #fleet: ReloadingFleet
  #running: { readonly outcome: Promise<ReloadOutcome>; readonly begunAt: number; readonly stop: () => void } | undefined

  /** `before`: of the keeper before this one. */
  constructor(fleet: ReloadingFleet, before?: Memory) {
    this.#fleet = fleet
    this.last = before?.lastReload ?? null
    this.history = new ReloadHistory(before?.reloads)
    fleet.reported.add((report) => {
      this.history.heard(report, fleet.workers.find(({ pid }) => pid === report.predecessor.pid)?.slot ?? 0)
    })
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  /** How long the one that runs has taken. */
  get runningMs(): number {
    return this.#running ? performance.now() - this.#running.begunAt : 0
  }

  /** Throws HANDOVER_RELOAD_RUNNING, HANDOVER_NOT_SERVING, HANDOVER_UNAVAILABLE or HANDOVER_OPTION: then nothing was begun. */
  async begin(request: ReloadRequest, progress: Progress = () => undefined, only?: Slot): Promise<ReloadOutcome> {
    const refusal = this.#refusal(request)
    if (refusal) {
      const error = await refusal
      for (const hear of this.heard) hear({ code: error.code })
      throw error
    }
    this.startNotes = []
    this.history.begins()
    this.#fleet.options.reloads(true)
    const over = (): void => {
      if (this.#running !== running) return
      this.#running = undefined
      this.#fleet.reloaded()
    }
    const begun = reloadBegins()
    let stop = (): void => undefined
    const stopped = new Promise<ReloadOutcome>((resolve) => { stop = () => { resolve(stoppedOutcome(begun)) } })
    const whole = request.keeper ? this.#reloadKeeper() : reload(this.#fleet, request, progress, over, only)
    const running = this.#running = { outcome: Promise.race([whole, stopped]), begunAt: performance.now(), stop }
    try {
      this.last = await running.outcome
      this.history.ended(this.last)
      const { error, ms } = this.last
      for (const hear of this.heard) hear(error ? { code: error.code } : { ms })
      return this.last
    } finally {
      over()
    }
  }

  /** The app is stopped: whoever waits for the reload that runs hears it now, since the keeper ends with its last worker. */
  stop(): void {
    this.#running?.stop()
  }

  /** For a request without options: one that comes just after another is the same reload. */
  async together(): Promise<ReloadOutcome> {
    const running = this.#running
    return running && performance.now() - running.begunAt < togetherMs ? await running.outcome : await this.begin({})
  }

  /** A worker asks for a reload, and hears what became of it. */
  async wanted(worker: Worker, { id, withoutState, allowDrop }: ReloadWish): Promise<void> {
    let error: ErrorReport | undefined
    try {
      error = (withoutState || allowDrop ? await this.begin({ withoutState, allowDrop }) : await this.together()).error
    } catch (cause) {
      error = errorReport(cause)
    }
    worker.say({ type: 'outcome', ...(id !== undefined && { id }), ok: error === undefined, ...(error ?? { code: '', message: '' }) })
  }

  /** Why no reload can begin now. */
  #refusal(request: ReloadRequest): HandoverError | Promise<HandoverError> | undefined {
    const serving = 'Nothing was changed'
    if (this.#fleet.stopping) return new HandoverError('HANDOVER_NOT_SERVING', { what: `the keeper (process ${process.pid}) is stopping`, serving, todo: 'Start it again' })
    if (this.#running) return new HandoverError('HANDOVER_RELOAD_RUNNING', {
      what: 'a reload already runs', serving: this.#fleet.serves(), todo: 'Wait for its report'
    })
    if (!this.#fleet.hasServed) return this.#notServed(serving)
    if (!request.keeper || Object.keys(request).length === 1) return undefined
    const what = '--keeper goes alone: it hands over the keeper, and no worker notices'
    return new HandoverError('HANDOVER_OPTION', { what, serving, todo: 'Reload the app with a command of its own' })
  }

  async #notServed(serving: string): Promise<HandoverError> {
    for (const worker of this.#fleet.workers) {
      const place = await this.#fleet.lookout.placeOf(worker)
      if (place) return new HandoverError('HANDOVER_UNAVAILABLE', { ...place, serving })
    }
    const todo = 'Wait until the first worker serves, or see its output for why it does not'
    return new HandoverError('HANDOVER_NOT_SERVING', { what: `nothing listens yet (keeper: process ${process.pid})`, serving, todo })
  }

  async #reloadKeeper(): Promise<ReloadOutcome> {
    const begun = reloadBegins()
    const result = (more: { readonly switched?: ReloadOutcome['switched']; readonly error?: HandoverError }): ReloadOutcome =>
      reloadOutcome(begun, { serving: this.#fleet.servers.map(({ peer }) => peer), notes: this.startNotes, ...more })
    try {
      // A worker that boots has no control socket yet: the next keeper would not find it.
      if (this.#fleet.slots.some(({ isStarting }) => isStarting)) {
        throw new HandoverError('HANDOVER_RELOAD_RUNNING', {
          what: 'a worker is being started', serving: this.#fleet.serves(), todo: 'Ask again when it serves'
        })
      }
      const to = await this.#fleet.options.handOver()
      return result({ switched: [{ slot: null, from: { pid: process.pid, generation: 0 }, to, version: null }] })
    } catch (error) {
      if (!(error instanceof HandoverError)) throw error
      return result({ error })
    }
  }
}
