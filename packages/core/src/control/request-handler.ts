/**
 * What a process without a keeper answers on its control sockets: its status, a reload of itself, a stop.
 *
 * A reload counts as done only when the successor has lived for a while; until then the predecessor can still come back.
 */

import { watchBoots, type Boot } from './boot-watch.js'
import type { Client } from './control-connections.js'
import type { HandoverError } from '../errors.js'
import type { Peer } from '../protocol/handover-messages.js'
import type { Report } from '../protocol/report.js'
import type { AppStatus, ControlRequest, ProcessStatus, ReloadEvent, ReloadOutcome, ReloadRequest } from '../protocol/control-messages.js'
import { reloadBegins, reloadOutcome, type ReloadBegin } from '../protocol/reload-outcome.js'

const bakeMs = 3_000
/** How often it is told how long a drain may still take. */
const drainsMs = 1_000

export interface RequestHandlerSide {
  name(): string | undefined
  undoWindowMs(): number
  status(): ProcessStatus
  /** The successor that boots, while a reload runs. */
  booting(): readonly Boot[]
  /** The processes that serve, as far as this one knows. */
  serving(): Peer[]
  reload(options: { withoutState: boolean; allowDrop: boolean }): Promise<Report>
  stop(): Promise<void>
  /** It has had a keeper, which is gone: then it starts no successor, with whatever option. */
  lostKeeper(): boolean
}

/** What became of a successor that took over: it lives, or this process serves again, or has ended its drain. */
type Fate =
  | { readonly is: 'lives' }
  | { readonly is: 'undone'; readonly error: HandoverError }
  | { readonly is: 'drained'; readonly report: Report }

export const needsKeeper = ['canary', 'probe', 'parallel', 'workers', 'keeper'] as const satisfies readonly (keyof ReloadRequest)[]

export class RequestHandler {
  readonly #side: RequestHandlerSide
  #lastReload: ReloadOutcome | null = null
  #begun: ReloadBegin | undefined
  /** Each waits for the fate of a successor. */
  readonly #waiting = new Set<(fate: Fate) => void>()

  constructor(side: RequestHandlerSide) {
    this.#side = side
  }

  answer(request: ControlRequest, client: Client): void {
    switch (request.verb) {
      case 'status':
        client.answer({ type: 'status', app: this.#app() })
        client.end()
        return
      case 'reload':
        void this.#reload(request.options, client).then((outcome) => {
          if (outcome) client.answer({ type: 'reload', outcome })
          client.end()
        })
        return
      case 'stop':
        client.answer({ type: 'stopping', pids: [process.pid] })
        // The connection closes with the process.
        void this.#side.stop()
    }
  }

  /** Every reload that begins, whatever triggered it: the status shows the last one. */
  record(reload: Promise<Report>): Promise<Report> {
    const begun = this.#begun = reloadBegins()
    reload.then(
      (report) => { this.#lastReload = this.#done(begun, report) },
      (error: unknown) => { this.#lastReload = this.#failed(begun, error) }
    )
    return reload
  }

  /** The successor died, and this process serves again. */
  undone(error: HandoverError): void {
    this.#lastReload = this.#failed(this.#begun ?? reloadBegins(), error)
    this.#tell({ is: 'undone', error })
  }

  /** A report that this process made or received. */
  reported(report: Report): void {
    if (report.result !== 'drained') return
    if (report.successor?.pid === process.pid) this.#lastReload = this.#received(report)
    else this.#tell({ is: 'drained', report })
  }

  #tell(fate: Fate): void {
    for (const resolve of this.#waiting) resolve(fate)
    this.#waiting.clear()
  }

  #app(): AppStatus {
    const status = this.#side.status()
    const { generation, service: { startedAt, requests } } = status
    const service = { startedAt, generation, requests }
    return { name: this.#side.name() ?? null, keeper: null, service, processes: [status], lastReload: this.#lastReload }
  }

  // ---- a reload ----

  /** Undefined where it was refused already. */
  async #reload(options: ReloadRequest, client: Client): Promise<ReloadOutcome | undefined> {
    const asked = needsKeeper.find((option) => options[option] !== undefined && options[option] !== false)
    if (asked && !this.#side.lostKeeper()) {
      client.answer({ type: 'refused', code: 'HANDOVER_OPTION', reason: `process ${process.pid} runs without a keeper, so --${asked} means nothing to it. Nothing was changed. Start it with \`handover run\` for that.` })
      return undefined
    }
    const begun = reloadBegins()
    const progress = (text: string, about: Omit<ReloadEvent, 'ms'>): void => {
      client.answer({ type: 'progress', text, event: { ...about, ms: Math.round(performance.now() - begun.since) } })
    }
    progress(`process ${process.pid} starts a successor`, { event: 'starts' })
    const endWatch = watchBoots(() => this.#side.booting(), (event) => { progress('', event) })
    let report: Report
    try {
      report = await this.#side.reload({ withoutState: options.withoutState ?? false, allowDrop: options.allowDrop ?? false })
    } catch (error) {
      return this.#failed(begun, error)
    } finally {
      endWatch()
    }
    const outcome = this.#done(begun, report)
    const watchedMs = Math.min(options.bakeMs ?? bakeMs, this.#side.undoWindowMs())
    progress(`${named(report.successor)} serves${watchedMs > 0 ? `, and is watched for ${watchedMs / 1_000} s` : ''}`, { event: 'serves', ...report.successor })
    if (watchedMs > 0) progress('', { event: 'bakes', forMs: watchedMs })
    let fate = await this.#fate(watchedMs)
    if (fate.is === 'lives' && options.wait === true) {
      const drains = (text = ''): void => {
        const { endsInMs } = this.#side.status()
        progress(text, { event: 'drains', ...report.predecessor, ...(endsInMs !== null && { forMs: endsInMs }) })
      }
      drains(`${named(report.predecessor)} drains`)
      const timer = setInterval(() => { drains() }, drainsMs).unref()
      fate = await this.#fate()
      clearInterval(timer)
    }
    switch (fate.is) {
      case 'undone': return this.#failed(begun, fate.error)
      case 'drained': return { ...outcome, reports: [fate.report] }
      case 'lives': return outcome
    }
  }

  /** `lives` where nothing has happened after this time; without a time it waits for the end of the drain, or the undo. */
  async #fate(livesAfterMs?: number): Promise<Fate> {
    return await new Promise((resolve) => {
      this.#waiting.add(resolve)
      if (livesAfterMs === undefined) return
      setTimeout(() => {
        this.#waiting.delete(resolve)
        resolve({ is: 'lives' })
      }, livesAfterMs).unref()
    })
  }

  #done(begun: ReloadBegin, report: Report, version: string | null = null): ReloadOutcome {
    const { predecessor: from, successor: to } = report
    return reloadOutcome(begun, { switched: to ? [{ slot: null, from, to, version }] : [], reports: [report], serving: to ? [to] : [] })
  }

  #failed(begun: ReloadBegin, error: unknown): ReloadOutcome {
    return reloadOutcome(begun, { serving: this.#side.serving(), error })
  }

  /** The reload by which this process came to serve, from the report that its predecessor sent at its end. */
  #received(report: Report): ReloadOutcome {
    const { launch, prepare, commit, drain } = report.durations
    const ms = Math.round((launch ?? 0) + (prepare ?? 0) + (commit ?? 0))
    const begun = { at: Date.now() - Math.round(drain ?? 0) - ms, since: performance.now() - ms }
    return this.#done(begun, report, this.#side.status().version)
  }
}

const named = (peer: Peer | null): string => (peer ? `generation ${peer.generation} (process ${peer.pid})` : 'the successor')
