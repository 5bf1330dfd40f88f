/**
 * The keeper: it holds copies of the listeners, keeps a worker alive in every slot, and hands over from one generation to the next. It
 * never runs code of the application. What a reload is careful about stands in reload.ts; signals, the name and the end of the process in
 * run.ts.
 */

import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { accepts, HandoverError, isStarting, listed, reloadBegins, reloadOutcome, type AppStatus, type LifecycleState, type Peer, type ProcessEnd, type ProcessStatus, type ReloadOutcome, type ReloadRequest, type Report, type Wishes } from '@handover/core/internal'
import { newestGeneration } from '../service.js'
import { byWhat } from '../text.js'
import { isBlocked } from './blocked-worker.js'
import { CheckpointStore } from './checkpoint-store.js'
import { CountStore } from './count-store.js'
import type { Fleet } from './fleet.js'
import { adoptWorkers } from './find-workers.js'
import type { ListenerMembers } from './listener-members.js'
import { Lookout } from './lookout.js'
import { refuseConnects } from './refuse-connects.js'
import { backoffMs, manyStarts, slowMs, stableMs, type Trouble } from './restart-policy.js'
import { reload } from './rolling-reload.js'
import { ServedFiles } from './served-files.js'
import { Slot, type SlotSide } from './slot.js'
import type { StartCommand } from './start-paths.js'
import type { Worker } from './worker.js'

export interface KeeperOptions {
  readonly name: string
  readonly version: string
  readonly workers: number
  /** How long a worker's event loop may be blocked, in milliseconds; 0: for ever. */
  readonly hangTimeoutMs: number
  readonly readyTimeoutMs: number
  readonly env: NodeJS.ProcessEnv
  /** How a worker is started now. `inPlace`: also where the working directory is gone. */
  command(inPlace: boolean): StartCommand
  log(level: 'info' | 'warn' | 'error', line: string): void
  /** Hands the keeper's job to a new process. Throws a HandoverError: then this one goes on. */
  handOver(): Promise<Peer>
  /** Something serves, for the first time. */
  served(): void
  /** A reload begins, or is over. */
  reloads(running: boolean): void
  /** Nothing is left to do: the status of what was run. */
  ended(status: number): void
}
/** One that served at all starts: it is not waited for longer than this. */
const servedMs = 1_000
/** How long a worker may take to answer, where nothing depends on it. */
const statusMs = 1_000
/** While it stops: a worker that does not answer for that long is killed. */
const deafMs = 10_000
const heldLookMs = 10

/** Within it several requests for a reload without any wishes are one. */
const togetherMs = 500

/** What a keeper that follows must know, beside the members. */
export interface Memory {
  readonly name: string
  readonly startedAt: number
  readonly crashes: number
  readonly count: number
  readonly lastReload: ReloadOutcome | null
  /** When the service began, as Date.now(). */
  readonly since?: number | undefined
}

export class Keeper implements Fleet {
  readonly options: KeeperOptions
  readonly members: ListenerMembers
  readonly files: ServedFiles
  readonly slots: Slot[] = []
  readonly checkpoints = new CheckpointStore((line) => { this.options.log('warn', line) })
  readonly counts: CountStore = new CountStore({
    workers: () => this.workers,
    heirs: (index) => [...this.servers].sort((a, b) => Number(b.slot === index) - Number(a.slot === index)),
    warn: (line) => { this.options.log('warn', line) }
  })
  /** When the first generation of the service began to listen. */
  #since: number | undefined
  #count: number
  #crashes = 0
  readonly #startedAt: number
  #served = false
  #stopping: { status: number } | undefined
  #leaving = false
  #reloading: Promise<ReloadOutcome> | undefined
  #reloadBegunAt = 0
  #stopWanted = false
  lastReload: ReloadOutcome | null
  /** Of the reload that runs, or ran last. */
  startNotes: string[] = []
  readonly #noted = new Set<string>()
  /** Whether it hangs. */
  readonly #asked = new Set<Worker>()
  readonly #trouble = new Map<Slot, Trouble>()
  readonly #stable = new Map<Worker, NodeJS.Timeout>()
  readonly #covered = new WeakMap<Worker, string>()
  readonly #reports: ((report: Report) => void)[] = []
  readonly #lookout = new Lookout(() => this.options.command(true).args, (line) => { this.options.log('warn', line) })
  #watch: NodeJS.Timeout | undefined

  /** `before`: of the keeper that this one follows. */
  constructor(options: KeeperOptions, members: ListenerMembers, before?: Memory) {
    this.options = options
    this.members = members
    this.files = new ServedFiles(members, (line) => { options.log('warn', line) })
    this.#count = before?.count ?? options.workers
    this.#startedAt = before?.startedAt ?? Date.now()
    this.#crashes = before?.crashes ?? 0
    this.lastReload = before?.lastReload ?? null
    this.#since = before?.since
  }

  /** Those that should have a worker. */
  get active(): readonly Slot[] {
    return this.slots.slice(0, this.#count)
  }

  get servers(): Worker[] {
    return this.slots.flatMap(({ server }) => (server ? [server] : []))
  }

  get workers(): Worker[] {
    return this.slots.flatMap((slot) => [...slot.workers])
  }

  get count(): number {
    return this.#count
  }

  get stopping(): boolean {
    return this.#stopping !== undefined
  }

  readonly #slotSide = (): SlotSide => ({
    name: this.options.name,
    members: this.members,
    files: this.files,
    checkpoints: this.checkpoints,
    counts: this.counts,
    since: () => this.#since,
    env: this.options.env,
    command: (inPlace) => {
      const command = this.options.command(inPlace)
      this.noteStart(command.notes)
      return command
    },
    readyTimeoutMs: (first) => (first ? Infinity : this.options.readyTimeoutMs),
    nobodyServes: async () => (await Promise.all(this.servers.map((worker) => worker.ask(statusMs)))).every((status) => status === undefined),
    serves: () => this.serves(),
    changed: (slot) => {
      // It may have closed them meanwhile, in a handover that was undone.
      if (slot.server) this.#covered.delete(slot.server)
      if (!this.#reloading && this.isKeeping) this.members.closePassed()
      this.#changed()
      if (slot.server) this.counts.settle()
    },
    crashed: (slot, worker, how) => { this.#crashed(slot, worker, how) },
    diedHandingOver: (from, how, to) => {
      this.#crashes++
      this.options.log('warn', `${from.who} ended ${byWhat(how)} while it handed over to ${to.who}, which serves with what had arrived by then. ${this.serves()}`)
    },
    // A signal of the terminal goes to all processes at once, and ours is heard in this turn of the loop or the next.
    left: (slot, worker) => { setImmediate(() => { setImmediate(() => { this.#left(slot, worker) }) }) },
    leaving: () => this.#leaving,
    wants: (worker, wishes) => { void this.#wanted(worker, wishes) },
    report: (report) => { for (const hear of this.#reports) hear(report) },
    warn: (line) => { this.options.log('warn', line) }
  })

  slot(index: number): Slot {
    while (this.slots.length <= index) this.slots.push(new Slot(this.slots.length, this.#slotSide()))
    return this.slots[index]!
  }

  /** Who serves now, as the second part of an error. */
  serves(): string {
    this.files.check()
    const { unreachable } = this.members
    const names = this.members.names.filter((name) => !unreachable.includes(name))
    const servers = this.servers
    const lost = unreachable.length > 0 ? ` NOT served, because nobody can connect to it: ${listed(unreachable)}.` : ''
    if (names.length === 0) return `Nobody serves.${lost}`
    return (servers.length === 0
      ? `Nobody serves: the keeper (process ${process.pid}) keeps ${listed(names)}, and connects wait.`
      : `${listed(servers.map(({ who }) => who))} serve${servers.length === 1 ? 's' : ''} ${listed(names)}.`.replace(/^p/, 'P')) + lost
  }

  /** What is not as it was typed: said once in the log, and in the outcome of the reload that runs. */
  noteStart(notes: readonly string[]): void {
    for (const note of notes) {
      if (!this.#noted.has(note)) this.options.log('warn', `${note}.`)
      this.#noted.add(note)
      if (!this.startNotes.includes(note)) this.startNotes.push(note)
    }
  }

  // ---- the first start ----

  /** Starts the first worker, and the others when that serves: it is the one that binds. */
  async run(): Promise<void> {
    const first = this.slot(0)
    this.#watchHangs()
    try {
      const serving = first.start(true)
      this.#lookout.watch(() => (this.#stopping ? undefined : this.workers[0]))
      await serving
    } catch (error) {
      if (this.#stopping) return
      const how = first.lastEnd
      // A program that did its work and never listened.
      if (how?.code === 0) this.options.ended(0)
      else {
        this.options.log('error', `${firstLine(error)}. Nobody serves. ${todoAfter(error)}`)
        // One that said that it cannot serve, and stayed, was killed by us.
        this.options.ended(how?.signal && isFailed(error) ? 1 : statusOf(how))
      }
      return
    }
    // The first worker knows when it began to listen; all others are told.
    this.noteService((await first.server?.ask(statusMs)) ?? {})
    this.#since ??= Date.now()
    await this.#fill()
  }

  /** Takes over when the service began, from the status of a process. The earliest time that any of them knows counts. */
  noteService({ service }: Partial<ProcessStatus>): void {
    if (service && service.startedAt > 0) this.#since = Math.min(this.#since ?? Infinity, service.startedAt)
  }

  /** The same with workers that another keeper had: those that are missing are started. */
  async goOn(): Promise<void> {
    this.#watchHangs()
    await this.#held(deafMs)
    this.setCount(this.#count)
    this.#changed()
    await this.#fill()
  }

  /** Workers that were had from another keeper say soon what they listen on. */
  async #held(timeoutMs: number): Promise<void> {
    const until = Date.now() + timeoutMs
    while (this.servers.some(({ holds }) => !holds) && Date.now() < until) await sleep(heldLookMs)
  }

  async #fill(): Promise<void> {
    await Promise.all(Array.from({ length: this.#count }, (_, index) => this.#startSlot(this.slot(index))))
  }

  // ---- another keeper ----

  /** It has its workers, and means to. */
  get isKeeping(): boolean {
    return !this.#leaving && !this.#stopping
  }

  /** A stop was asked while the workers were another keeper's, or nearly. */
  get stopWanted(): boolean {
    return this.#stopWanted
  }

  /** What the next keeper must know, beside the members. */
  get memory(): Memory {
    return { name: this.options.name, startedAt: this.#startedAt, crashes: this.#crashes, count: this.#count, lastReload: this.lastReload, since: this.#since }
  }

  /** From now on the workers are another keeper's. */
  leave(): void {
    this.#leaving = true
    this.counts.hold()
    clearInterval(this.#watch)
    for (const { timer } of this.#trouble.values()) clearTimeout(timer)
    for (const worker of this.workers) worker.say({ type: 'leave' })
  }

  /** The other keeper could not: finds the workers again. */
  async comeBack(): Promise<void> {
    await adoptWorkers(this, (line) => { this.options.log('warn', line) })
    this.#leaving = false
    for (const slot of this.slots) slot.forgetGone()
    if (this.#stopWanted) void this.stop()
    else await this.goOn()
  }

  /** Starts a worker in an empty slot; where that fails, tries again later. */
  async #startSlot(slot: Slot): Promise<void> {
    if (this.#stopping || slot.server || slot.isStarting || slot.index >= this.#count) return
    this.forgetTrouble(slot)
    try {
      await slot.start()
    } catch (error) {
      // Whoever gave it up starts the next one.
      if (this.stopping || (error as HandoverError).code === 'HANDOVER_STOPPED') return
      this.#retry(slot, firstLine(error), false)
    }
  }

  // ---- crashes ----

  #crashed(slot: Slot, worker: Worker, how: ProcessEnd): void {
    if (slot.index >= this.#count) this.checkpoints.drop(slot.index)
    if (this.#stopping || this.#leaving || slot.index >= this.#count || worker.retiring) return
    this.#crashes++
    this.#retry(slot, `${worker.who} ended ${byWhat(how)}`)
  }

  #left(slot: Slot, worker: Worker): void {
    if (this.#stopping || slot.index >= this.#count || slot.server) return
    this.#retry(slot, `${worker.who} was stopped by somebody else`)
  }

  /** `served`: it started, and ended later. */
  #retry(slot: Slot, reason: string, served = true): void {
    if (this.#leaving) return
    const trouble = this.#trouble.get(slot) ?? { failures: 0, starts: 0, reason, nextAt: 0, timer: undefined }
    this.#trouble.set(slot, trouble)
    clearTimeout(trouble.timer)
    trouble.starts = served ? 0 : trouble.starts + 1
    const many = trouble.starts >= manyStarts
    const waitMs = many ? slowMs : served ? Math.min(backoffMs(trouble.failures), servedMs) : backoffMs(trouble.failures)
    trouble.failures++
    trouble.reason = reason
    trouble.nextAt = Date.now() + waitMs
    const next = this.checkpoints.nextStart(slot.index)
    const when = waitMs === 0 ? `the next one is started${next}` : `the next try is in ${waitMs / 1_000} s${next && `,${next}`}`
    if (!many) this.options.log('warn', `${reason}; ${when}. ${this.serves()}`)
    else if (trouble.starts === manyStarts) this.options.log('error', `${reason}. It does not start: ${trouble.starts} tries in a row failed${this.checkpoints.failedWith(slot.index)}. ${this.serves()} The keeper goes on trying every ${slowMs / 1_000} s; repair the build, and handover reload tries at once.`)
    trouble.timer = setTimeout(() => { void this.#startSlot(slot) }, waitMs)
  }

  /** Something tries this slot now: no try of ours is due. */
  forgetTrouble(slot: Slot): void {
    const trouble = this.#trouble.get(slot)
    if (!trouble) return
    clearTimeout(trouble.timer)
    trouble.timer = undefined
  }

  /** Who serves what has changed. */
  #changed(): void {
    if (!this.#served && this.servers.length > 0) {
      this.#served = true
      this.options.served()
    }
    for (const slot of this.slots) {
      const { server } = slot
      if (!server || this.#stable.has(server)) continue
      const timer = setTimeout(() => { if (slot.server === server) this.#trouble.delete(slot) }, stableMs)
      timer.unref()
      this.#stable.set(server, timer)
      void server.ended.then(() => {
        clearTimeout(timer)
        this.#stable.delete(server)
      })
    }
    this.#cover()
  }

  /** Connections that wait for a worker that does not live are accepted by the others. */
  #cover(): void {
    if (this.#stopping) return
    const orphans = this.members.orphans(this.slots.filter(({ server }) => server).map(({ index }) => index))
    for (const { index, server } of this.slots) {
      if (!server) continue
      const mine = orphans.filter(({ by }) => by.includes(index))
      const key = mine.map(({ socket }) => socket).join(',')
      if ((this.#covered.get(server) ?? '') === key) continue
      this.#covered.set(server, key)
      server.say({ type: 'cover', listeners: mine.map(({ listener }) => listener) }, mine.map(({ fd }) => fd))
    }
  }

  #watchHangs(): void {
    const { hangTimeoutMs } = this.options
    if (hangTimeoutMs === 0) return
    this.#watch = setInterval(() => {
      for (const worker of this.servers) void this.#checkHang(worker)
    }, Math.max(100, hangTimeoutMs / 2))
  }

  async #checkHang(worker: Worker): Promise<void> {
    const { hangTimeoutMs } = this.options
    if (this.#asked.has(worker)) return
    this.#asked.add(worker)
    const blocked = await isBlocked(worker, hangTimeoutMs)
    this.#asked.delete(worker)
    // A reload replaces one that is blocked itself.
    if (!blocked || this.#reloading || this.#stopping) return
    this.options.log('error', `${worker.who} has not answered for ${hangTimeoutMs} ms: its event loop is blocked, or it was stopped. It is killed, its connections are lost, and the next one is started. Connects wait meanwhile.`)
    worker.kill()
  }

  // ---- reload ----

  /** One at a time. Throws HANDOVER_RELOAD_RUNNING or HANDOVER_NOT_SERVING. */
  async reload(request: ReloadRequest, progress: (text: string) => void = () => undefined): Promise<ReloadOutcome> {
    if (this.#stopping) throw new HandoverError('HANDOVER_NOT_SERVING', `the keeper (process ${process.pid}) is stopping. Nothing was changed. Start it again.`)
    if (this.#reloading) throw new HandoverError('HANDOVER_RELOAD_RUNNING', `a reload already runs. ${this.serves()} Wait for its report.`)
    if (!this.#served) throw await this.#notServed()
    if (request.keeper && Object.keys(request).length > 1) throw new HandoverError('HANDOVER_OPTION', '--keeper goes alone: it hands over the keeper, and no worker notices. Nothing was changed. Reload the app with a command of its own.')
    this.#reloadBegunAt = performance.now()
    this.startNotes = []
    this.options.reloads(true)
    const over = (): void => {
      if (this.#reloading !== work) return
      this.#reloading = undefined
      this.options.reloads(false)
      // Where a reload could not fill an empty slot either, the keeper goes on trying.
      for (const slot of this.active) if (!this.stopping && !slot.server && !slot.isStarting && !this.#trouble.get(slot)?.timer) this.#retry(slot, `the reload started no worker in slot ${slot.index}`, false)
    }
    const work = request.keeper ? this.#reloadKeeper() : reload(this, request, progress, over)
    this.#reloading = work
    try {
      this.lastReload = await work
      return this.lastReload
    } finally {
      over()
    }
  }

  async #notServed(): Promise<HandoverError> {
    for (const worker of this.workers) {
      const place = await this.#lookout.placeOf(worker)
      if (place) return new HandoverError('HANDOVER_UNAVAILABLE', `${place.what}. Nothing was changed. ${place.todo}.`)
    }
    return new HandoverError('HANDOVER_NOT_SERVING', `nothing listens yet (keeper: process ${process.pid}). Nothing was changed. Wait until the first worker serves, or see its output for why it does not.`)
  }

  async #reloadKeeper(): Promise<ReloadOutcome> {
    const begun = reloadBegins()
    try {
      // One that boots has no control socket yet: the next keeper would not find it.
      if (this.slots.some(({ isStarting }) => isStarting)) throw new HandoverError('HANDOVER_RELOAD_RUNNING', `a worker is being started. ${this.serves()} Ask again when it serves.`)
      const to = await this.options.handOver()
      const switched = [{ slot: null, from: { pid: process.pid, generation: 0 }, to, version: null }]
      return reloadOutcome(begun, { switched, serving: this.#serving, notes: this.startNotes })
    } catch (error) {
      if (!(error instanceof HandoverError)) throw error
      return reloadOutcome(begun, { serving: this.#serving, notes: this.startNotes, error })
    }
  }

  get #serving(): Peer[] {
    return this.servers.map(({ peer }) => peer)
  }

  /** By a signal, or on a worker's word. What a terminal tells all of its processes comes here from each of them, and is one reload. */
  async reloadTogether(): Promise<ReloadOutcome> {
    return this.#reloading && performance.now() - this.#reloadBegunAt < togetherMs ? await this.#reloading : await this.reload({})
  }

  /** From now on. The workers above it are stopped; what waits for them is accepted by the others. */
  setCount(count: number): void {
    this.#count = count
    for (const slot of this.slots.slice(count)) {
      this.forgetTrouble(slot)
      this.#trouble.delete(slot)
      this.checkpoints.forgetLeft(slot.index)
      void slot.giveUpStart().then(() => { slot.server?.stop(false) })
    }
  }

  /** A reload is over: what no worker serves any more is closed. */
  settleMembers(): void {
    this.members.settle(this.active.map(({ index }) => index))
    this.#cover()
  }

  /** Calls back for each report of a worker until the function that is answered is called. */
  onReport(hear: (report: Report) => void): () => void {
    this.#reports.push(hear)
    return () => { this.#reports.splice(this.#reports.indexOf(hear), 1) }
  }

  async #wanted(worker: Worker, wishes: Wishes): Promise<void> {
    let outcome: ReloadOutcome | undefined
    let error: { code: string; message: string } | undefined
    try {
      outcome = wishes.withoutState || wishes.allowDrop ? await this.reload(wishes) : await this.reloadTogether()
      error = outcome.error
    } catch (cause) {
      error = cause as HandoverError
    }
    worker.say({ type: 'outcome', ok: error === undefined, code: error?.code ?? '', message: error?.message ?? '' })
  }

  // ---- status ----

  async status(): Promise<AppStatus> {
    const { name, version } = this.options
    const requests = this.counts.requests()
    const processes = await Promise.all(this.workers.map(async (worker) => (await worker.ask(statusMs)) ?? silent(worker, name, this.#since)))
    // A process that has not begun to serve does not know when the service did.
    for (const status of processes) if (accepts(status.state)) this.noteService(status)
    const places = await Promise.all(this.workers.map(async (worker) => ({ worker, place: await this.#lookout.placeOf(worker) })))
    const elsewhere = places.flatMap(({ place }) => (place ? [`${place.what}. ${place.todo}`] : []))
    const servesElsewhere = (slot: Slot): boolean => places.some(({ worker, place }) => place !== undefined && worker.slot === slot.index)
    const rank = (state: LifecycleState): number => accepts(state) ? 0 : state === 'draining' || state === 'closing' ? 2 : 1
    return {
      name,
      keeper: {
        pid: process.pid,
        version,
        node: process.versions.node,
        ageMs: Date.now() - this.#startedAt,
        workers: this.#count,
        listeners: this.members.names,
        crashes: this.#crashes,
        ...(elsewhere.length > 0 && { elsewhere }),
        ...(this.members.sharing.length > 0 && { shared: this.members.sharing }),
        down: this.active.filter((slot) => !slot.server && !servesElsewhere(slot)).map((slot) => {
          const trouble = this.#trouble.get(slot)
          return { slot: slot.index, reason: trouble?.reason ?? 'it is being started', nextTryInMs: Math.max(0, (trouble?.nextAt ?? 0) - Date.now()) }
        }),
        checkpoints: this.checkpoints.status
      },
      service: this.#since === undefined ? null : { startedAt: this.#since, generation: newestGeneration(processes), requests: await requests },
      processes: processes.map((status) => ({ ...status, name })).sort((a, b) => rank(a.state) - rank(b.state) || (a.slot ?? 0) - (b.slot ?? 0) || a.generation - b.generation),
      lastReload: this.lastReload
    }
  }

  // ---- the end ----

  /** Drains and ends all workers, whose programs hear this signal. Resolves when all have ended. */
  async stop(signal?: NodeJS.Signals): Promise<void> {
    if (this.#leaving) {
      this.#stopWanted = true
      return
    }
    if (!this.#stopping) {
      this.#stopping = { status: 0 }
      clearInterval(this.#watch)
      for (const slot of this.slots) {
        this.forgetTrouble(slot)
        slot.abort()
        slot.settle()
      }
      for (const worker of this.workers) {
        // How a worker ends that has never served tells nothing of an app that has.
        const counts = !this.#served || !isStarting(worker.state)
        void worker.ended.then((how) => { if (this.#stopping && counts) this.#stopping.status ||= statusAfterStop(worker, how) })
      }
      await refuseConnects(this)
      for (const worker of this.workers) worker.stop(true, signal)
      const deaf = setInterval(() => { for (const worker of this.workers) void this.#killDeaf(worker) }, deafMs)
      await this.#allEnded()
      clearInterval(deaf)
      this.options.ended(this.#stopping.status)
      return
    }
    await this.#allEnded()
  }

  /** At once. */
  end(signal: NodeJS.Signals): void {
    if (this.#stopping) this.#stopping.status = 128 + constants.signals[signal]
    for (const worker of this.workers) worker.signal(signal)
    setTimeout(() => { for (const worker of this.workers) worker.kill() }, statusMs)
  }

  async #killDeaf(worker: Worker): Promise<void> {
    if ((await worker.ask(deafMs)) === undefined && !worker.how) worker.kill()
  }

  async #allEnded(): Promise<void> {
    while (this.workers.length > 0) await Promise.all(this.workers.map(({ ended }) => ended))
  }
}

/** The exit status that a shell would give. */
export function statusOf(how: ProcessEnd | undefined): number {
  if (!how) return 1
  return how.signal === null ? (how.code ?? 0) : 128 + constants.signals[how.signal]
}

/** A program that sends itself the signal again when it has cleaned up, as many do, has ended as it was asked to. */
const statusAfterStop = ({ state }: Worker, how: ProcessEnd): number =>
  state === 'ended' && (how.signal === 'SIGTERM' || how.signal === 'SIGINT') ? 0 : statusOf(how)

const isFailed = (error: unknown): boolean => error instanceof HandoverError && error.code === 'HANDOVER_SUCCESSOR_FAILED'

const todoAfter = (error: unknown): string =>
  String(error).includes('EADDRINUSE') ? 'End the program that has the port (ss -ltnp shows it), or listen on another one.'
    // Of Node itself: an argument that it does not know.
    : String(error).includes('with status 9 ') ? 'Repair the options before the script (handover run --help), and start it again.' : 'Repair the program, and start it again.'

const firstLine = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split('\n')[0]!.replace(/\.$/, '')

/** What the keeper itself knows of a process that does not answer. */
const silent = (worker: Worker, name: string, since = 0): ProcessStatus => ({
  pid: worker.pid, generation: worker.generation, state: worker.state, name, keeper: process.pid, slot: worker.slot, version: null, node: '', ageMs: Date.now() - worker.startedAt, listeners: [], connections: {},
  requests: { inFlight: 0, total: 0, failed: 0 }, waitsFor: ['it does not answer'], endsInMs: null, memory: 0, loopDelayMs: null, lastReport: null,
  service: { id: '', startedAt: since, requests: 0, includes: [] }, sections: []
})
