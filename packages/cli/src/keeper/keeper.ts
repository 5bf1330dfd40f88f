/**
 * The keeper: it holds copies of the listeners, keeps a worker alive in every slot, and hands over from one generation to the next. It
 * never runs code of the application.
 *
 * Here are the slots, the first start, and what follows a crash. Which reload may run: reloads.ts. The process around the keeper, with
 * its signals and its name: keeper-process.ts.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { listed, type HandoverError, type ProcessEnd, type ProcessStatus, type Report } from '@handover/core/internal'
import { byWhat } from '../text.js'
import { Age } from './age.js'
import { AppStop } from './app-stop.js'
import { CheckpointStore } from './checkpoint-store.js'
import { CountStore } from './count-store.js'
import { firstStartFailed, reasonOfStart } from './exit-status.js'
import type { Fleet, KeeperOptions, LastCounts, Memory, SavedMetrics } from './fleet.js'
import { findWorkers } from './find-workers.js'
import { watchHangs } from './hang-watch.js'
import type { ListenerMembers } from './listener-members.js'
import { Lookout } from './lookout.js'
import type { Metrics } from './metrics.js'
import { Reloads } from './reloads.js'
import { Restarts } from './restarts.js'
import { ServedFiles } from './served-files.js'
import { Slot, type SlotSide } from './slot.js'
import { Spare } from './spare.js'
import type { Worker } from './worker.js'

/** How long workers that another keeper had may take to say what they listen on. */
const listenersMs = 10_000
const lookMs = 10

export class Keeper implements Fleet {
  readonly options: KeeperOptions
  readonly members: ListenerMembers
  readonly files: ServedFiles
  readonly slots: Slot[] = []
  readonly #warn = (line: string): void => { this.options.log('warn', line) }
  readonly checkpoints = new CheckpointStore(this.#warn)
  readonly counts: CountStore = new CountStore({
    workers: () => this.workers,
    heirs: (index) => [...this.servers].sort((a, b) => Number(b.slot === index) - Number(a.slot === index)),
    warn: this.#warn
  })
  readonly lookout = new Lookout(() => this.options.command(true).args, this.#warn)
  readonly restarts = new Restarts(this)
  readonly spare: Spare
  /** When the first generation of the service began to listen. */
  #since: number | undefined
  count: number
  #crashes = 0
  readonly #startedAt: number
  /** With the keepers before this one. */
  readonly age: Age
  hasServed = false
  #stop: AppStop | undefined
  #leaving = false
  /** A stop was asked while the workers were going to another keeper. */
  stopWanted = false
  readonly reloads: Reloads
  readonly #noted = new Set<string>()
  readonly #covered = new WeakMap<Worker, string>()
  readonly reported = new Set<(report: Report) => void>()
  readonly #watches: (() => void)[] = []
  #metrics: Metrics | undefined

  /** `before`: of the keeper before this one. */
  constructor(options: KeeperOptions, members: ListenerMembers, before?: Memory) {
    this.options = options
    this.members = members
    this.files = new ServedFiles(members, this.#warn)
    this.count = before?.count ?? options.workers
    this.#startedAt = before?.startedAt ?? Date.now()
    this.age = new Age(Date.now() - this.#startedAt)
    this.#crashes = before?.crashes ?? 0
    this.#since = before?.since
    this.reloads = new Reloads(this, before)
    this.spare = new Spare(this)
  }

  /** The slots that should have a worker. */
  get active(): readonly Slot[] {
    return this.slots.slice(0, this.count)
  }

  get servers(): Worker[] {
    return this.slots.flatMap(({ server }) => (server ? [server] : []))
  }

  get workers(): Worker[] {
    return this.slots.flatMap((slot) => [...slot.workers])
  }

  /** All workers serve, and nothing else is to do. */
  get isQuiet(): boolean {
    return this.isKeeping && !this.reloads.isRunning && this.active.every(({ server, isStarting }) => server && !isStarting)
  }

  get stopping(): boolean {
    return this.#stop !== undefined
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
    nobodyServes: async () =>
      (await Promise.all(this.servers.map((worker) => worker.ask()))).every((status) => status === undefined),
    hasServer: () => this.servers.some(({ how }) => how === undefined),
    serves: () => this.serves(),
    changed: (server) => {
      // It may have closed the orphans meanwhile, in a handover that was undone; or there are none any more.
      if (server && this.#covered.get(server)) this.#covered.set(server, 'told again')
      if (!this.reloads.isRunning && this.isKeeping) this.members.closePassed()
      this.#changed()
      if (server) this.counts.settle()
    },
    crashed: (worker, how) => { this.#crashed(this.slot(worker.slot), worker, how) },
    diedHandingOver: (from, how, to) => {
      this.#crashes++
      const what = `${from.who} ended ${byWhat(how)} while it handed over to ${to.who}, which serves with what had arrived by then`
      this.#warn(`${what}. ${this.serves()}`)
    },
    // A signal of the terminal goes to all processes at once: the keeper hears it in this turn of the loop or the next.
    left: (worker) => { setImmediate(() => { setImmediate(() => { this.#left(this.slot(worker.slot), worker) }) }) },
    leaving: () => this.#leaving,
    wants: (worker, wish) => { void this.reloads.wanted(worker, wish) },
    report: (report) => { for (const hear of this.reported) hear(report) },
    warn: this.#warn
  })

  slot(index: number): Slot {
    while (this.slots.length <= index) this.slots.push(new Slot(this.slots.length, this.#slotSide(), this.spare.startWorker))
    return this.slots[index]!
  }

  /** Who serves now, as the second part of an error. */
  serves(): string {
    this.files.check()
    const { unreachable } = this.members
    const names = this.members.names.filter((name) => !unreachable.includes(name))
    // The end of one may not be dealt with yet.
    const servers = this.servers.filter(({ how }) => how === undefined)
    const lost = unreachable.length > 0 ? ` NOT served, because nobody can connect to it: ${listed(unreachable)}.` : ''
    if (names.length === 0) return `Nobody serves.${lost}`
    return (servers.length === 0
      ? `Nobody serves: the keeper (process ${process.pid}) keeps ${listed(names)}, and connects wait.`
      : `${listed(servers.map(({ who }) => who))} serve${servers.length === 1 ? 's' : ''} ${listed(names)}.`.replace(/^p/, 'P')) + lost
  }

  /** Differences between a start and what was typed: each is said once in the log, and in the outcome of the reload that runs. */
  noteStart(notes: readonly string[]): void {
    for (const note of notes) {
      if (!this.#noted.has(note)) this.#warn(`${note}.`)
      this.#noted.add(note)
      if (!this.startNotes.includes(note)) this.reloads.startNotes.push(note)
    }
  }

  // ---- the first start ----

  /** Starts the first worker, which binds, and the others when it serves. */
  async run(): Promise<void> {
    const first = this.slot(0)
    this.#watch()
    try {
      const serving = first.start(true)
      this.lookout.watch(() => (this.stopping ? undefined : this.workers[0]))
      await serving
    } catch (error) {
      if (!this.stopping) this.options.ended(firstStartFailed(error, first.lastEnd, (line) => { this.options.log('error', line) }))
      return
    }
    // The first worker knows when it began to listen; all others are told.
    this.noteService((await first.server?.ask()) ?? {})
    this.#since ??= Date.now()
    await this.#fill()
  }

  noteService({ service }: Partial<ProcessStatus>): void {
    if (service && service.startedAt > 0) this.#since = Math.min(this.#since ?? Infinity, service.startedAt)
  }

  /** Goes on with the workers of another keeper, and starts those that are missing. */
  async goOn(): Promise<void> {
    this.#watch()
    const until = performance.now() + listenersMs
    while (this.servers.some(({ holds }) => !holds) && performance.now() < until) await sleep(lookMs)
    this.setCount(this.count)
    this.#changed()
    await this.#fill()
  }

  async #fill(): Promise<void> {
    await Promise.all(Array.from({ length: this.count }, (_, index) => this.startSlot(this.slot(index))))
  }

  // ---- another keeper ----

  get isKeeping(): boolean {
    return !this.#leaving && !this.stopping
  }

  get memory(): Memory {
    const { options: { name }, count, reloads: { last: lastReload, history: { records: reloads } } } = this
    return { name, startedAt: this.#startedAt, crashes: this.#crashes, count, lastReload, since: this.#since, reloads }
  }

  /** From now on the workers are another keeper's, which goes on from these counts. */
  leave(): LastCounts {
    this.#leaving = true
    this.counts.hold()
    this.#endWatch()
    this.spare.close()
    this.restarts.close()
    for (const worker of this.workers) worker.say({ type: 'leave' })
    return { crashes: this.#crashes, ...(this.#metrics && { metrics: this.#metrics.saved(this.reloads.runningMs) }) }
  }

  /** Before it has the workers. */
  async countOn({ crashes, metrics }: LastCounts): Promise<void> {
    this.#crashes = crashes
    await this.#count(metrics)
  }

  /** The other keeper could not take over: finds the workers again. */
  async comeBack(): Promise<void> {
    await findWorkers(this, this.#warn)
    this.#leaving = false
    for (const slot of this.slots) slot.forgetGone()
    if (this.stopWanted) void this.stop()
    else await this.goOn()
  }

  async startSlot(slot: Slot): Promise<void> {
    if (this.stopping || slot.server || slot.isStarting || slot.index >= this.count) return
    this.restarts.cancel(slot)
    try {
      await slot.start()
    } catch (error) {
      // What gave it up starts the next one.
      if (!this.isKeeping || (error as HandoverError).code === 'HANDOVER_STOPPED') return
      this.#retry(slot, reasonOfStart(error), false)
    }
  }

  // ---- crashes ----

  #crashed(slot: Slot, worker: Worker, how: ProcessEnd): void {
    if (slot.index >= this.count) this.checkpoints.drop(slot.index)
    if (!this.isKeeping || slot.index >= this.count || worker.retiring) return
    this.#crashes++
    this.#retry(slot, `${worker.who} ended ${byWhat(how)}`)
  }

  #left(slot: Slot, worker: Worker): void {
    if (this.stopping || slot.index >= this.count || slot.server) return
    this.#retry(slot, `${worker.who} was stopped by somebody else`)
  }

  #retry(slot: Slot, reason: string, served = true): void {
    if (!this.#leaving) this.restarts.retry(slot, reason, served)
  }

  forgetTrouble(slot: Slot): void {
    this.restarts.cancel(slot)
  }

  /** Who serves what has changed. */
  #changed(): void {
    if (!this.hasServed && this.servers.length > 0) {
      this.hasServed = true
      this.options.served()
    }
    for (const slot of this.slots) if (slot.server) this.restarts.serves(slot, slot.server)
    this.#cover()
  }

  /** Connections that wait in a slot without a worker are accepted by the others; what a worker opens late is open to the others. */
  #cover(): void {
    if (this.stopping) return
    const orphans = this.members.orphans(this.slots.filter(({ server }) => server).map(({ index }) => index))
    for (const { index, server } of this.slots) {
      if (!server) continue
      const mine = [...orphans.filter(({ by }) => by.includes(index)), ...this.members.lateFor(index)]
      const key = mine.map(({ socket }) => socket).join(',')
      if ((this.#covered.get(server) ?? '') === key) continue
      this.#covered.set(server, key)
      server.say({ type: 'cover', listeners: mine.map(({ listener }) => listener) }, mine.map(({ fd }) => fd))
    }
  }

  #watch(): void {
    const { hangTimeoutMs, spare } = this.options
    if (spare) this.spare.begin()
    void this.#watchMore()
    if (hangTimeoutMs === 0) return
    this.#watches.push(watchHangs(hangTimeoutMs, () => this.servers, (worker) => {
      // A reload replaces a blocked worker itself.
      if (this.reloads.isRunning || this.stopping) return
      const what = `${worker.who} has not answered for ${hangTimeoutMs} ms: its event loop is blocked, or it was stopped`
      this.options.log('error', `${what}. It is killed, its connections are lost, and the next one is started. Connects wait meanwhile.`)
      worker.kill()
    }))
  }

  async #count(before?: SavedMetrics): Promise<Metrics | undefined> {
    if (!this.options.metrics) return undefined
    const loaded = await import('./metrics.js')
    return this.#metrics ??= new loaded.Metrics(this, before)
  }

  /** Loaded only where it is asked for. */
  async #watchMore(): Promise<void> {
    const { maxMemoryBytes, metrics: address } = this.options
    const metrics = await this.#count()
    if (metrics && address && this.isKeeping) this.#watches.push(metrics.serve(address))
    if (maxMemoryBytes === undefined) return
    const { watchMemory } = await import('./memory-watch.js')
    if (!this.isKeeping) return
    this.#watches.push(watchMemory(maxMemoryBytes, {
      servers: () => this.servers,
      isQuiet: () => this.isKeeping && !this.reloads.isRunning,
      reload: async ({ slot }) => (await this.reloads.begin({}, () => undefined, this.slot(slot))).ok,
      warn: this.#warn
    }))
  }

  #endWatch(): void {
    for (const end of this.#watches.splice(0)) end()
  }

  get startNotes(): readonly string[] {
    return this.reloads.startNotes
  }

  reloaded(): void {
    this.options.reloads(false)
    // If the reload could not fill an empty slot either, the keeper goes on trying.
    for (const slot of this.active) {
      const isIdle = !this.stopping && !slot.server && !slot.isStarting && !this.restarts.isDue(slot)
      if (isIdle) this.#retry(slot, `the reload started no worker in slot ${slot.index}`, false)
    }
  }

  /** The workers above this number are stopped; the others accept what waits for them. */
  setCount(count: number): void {
    this.count = count
    for (const slot of this.slots.slice(count)) {
      this.restarts.forget(slot)
      this.checkpoints.forgetLeft(slot.index)
      void slot.retire()
    }
  }

  settleMembers(): void {
    this.members.settle(this.active.map(({ index }) => index))
    this.#cover()
  }

  // ---- the end ----

  /** Drains and ends all workers, whose programs hear this signal. Resolves when all have ended. */
  async stop(signal?: NodeJS.Signals): Promise<void> {
    if (this.#leaving) {
      this.stopWanted = true
      return
    }
    const isFirst = !this.#stop
    this.#stop ??= new AppStop(this, this.hasServed, this.slot(0).lastEnd)
    if (isFirst) {
      this.reloads.stop()
      this.#endWatch()
      this.spare.close()
      for (const slot of this.slots) {
        this.restarts.cancel(slot)
        slot.abort()
        slot.settle()
      }
    }
    const status = await this.#stop.run(signal)
    if (isFirst) this.options.ended(status)
  }

  /** At once: a second signal came while it stops. */
  end(signal: NodeJS.Signals): void {
    this.#stop?.hurry(signal)
  }
}
