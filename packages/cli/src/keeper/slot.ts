/**
 * One worker's place: the generation that serves in it, those before it that drain, the one that is being started. It starts, hands over,
 * takes back and notices crashes; when to do what is the keeper's business.
 */

import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { channelTo, handOver, HandoverError, errorOf, isLeaving, listed, partsOf, pathsMark, Lifecycle, withoutStop, type CommandLine, type ProcessEnd, type OfferedListener, type ProcessStatus, type Report, type LifecycleState, type Wishes } from '@handover/core/internal'
import type { CheckpointStore } from './checkpoint-store.js'
import type { CountStore } from './count-store.js'
import type { ServedFiles } from './served-files.js'
import type { ListenerMembers } from './listener-members.js'
import { probe } from './http-probe.js'
import { byWhat } from '../text.js'
import { socketPair, startWorker, Worker, type Fresh, type Line, type WorkerSide } from './worker.js'

/** How long a predecessor may take to begin, and an undo to end. */
const answerMs = 10_000
/** How long the end of a worker may take to be noticed by the other one of its slot. */
const noticeMs = 2_000
/** How often a predecessor that hands over is asked whether it lives. */
const lookMs = 1_000
const probeMs = 10_000
/** What is left of readyTimeout for the end of a successor whose probe hangs: so it is told why. */
const probeReserveMs = 500

const buildTodo = 'Repair the build and reload again'
/** Of a predecessor that is gone before anything was handed over. */
const diedTodo = 'Another one is started at once, from the new build: see handover status, and the log for why it ended'

type Claims = Parameters<WorkerSide['booted']>[1]

export interface SlotSide {
  readonly name: string
  readonly members: ListenerMembers
  readonly files: ServedFiles
  readonly checkpoints: CheckpointStore
  readonly counts: CountStore
  /** When the service began, as Date.now(); undefined before it did. */
  since(): number | undefined
  readonly env: NodeJS.ProcessEnv
  /** `inPlace`: where nobody serves, a worker is better than none, even where the working directory is gone. Throws HANDOVER_SPAWN. */
  command(inPlace: boolean): CommandLine
  readyTimeoutMs(first: boolean): number
  /** No worker serves, in no slot: one that was just killed may not be known to be gone, so they are asked. */
  nobodyServes(): Promise<boolean>
  /** Who serves while this slot does not, for the second part of an error. */
  serves(): string
  /** What serves in this slot, or what it listens on, has changed. */
  changed(slot: Slot): void
  /** The worker that served is gone, and nobody took over. */
  crashed(slot: Slot, worker: Worker, how: ProcessEnd): void
  /** The worker that served died while it handed over, and the other one serves. */
  diedHandingOver(from: Worker, how: ProcessEnd, to: Worker): void
  /** The worker that served was told to stop, and not by the keeper: it drains. */
  left(slot: Slot, worker: Worker): void
  /** Another keeper has the workers, or will. */
  leaving(): boolean
  wants(worker: Worker, wishes: Wishes): void
  report(report: Report): void
  warn(line: string): void
}

/** What a new generation must be before it may serve. */
export interface Demands {
  readonly allowDrop: boolean
  /** It begins without the shared state of its predecessor. */
  readonly withoutState: boolean
  readonly probe: string | undefined
}

export interface Replacement {
  readonly slot: Slot
  /** Null where nobody served in the slot. */
  readonly from: Worker | null
  readonly to: Worker
  /** How the predecessor ended, where it did so before all was handed over. */
  readonly died?: ProcessEnd
  /** Undefined while nothing went wrong: then why the old generation serves again, or nobody. */
  failure(): HandoverError | undefined
}

/** Of a worker where nobody serves. */
interface Starting {
  readonly over: Promise<Worker>
  givenUp: boolean
}

/** One generation hands over to the next. Ends once. */
interface Handover {
  readonly from: Worker
  readonly to: Worker
  /** The predecessor died with the offer made: the successor serves by itself, or not at all. */
  alone: boolean
  /** Why the successor was told that it must not serve. */
  vetoed?: string
  began(): void
  end(error?: HandoverError): void
}

/** A handover that is not settled: who could serve again. */
interface Undo {
  readonly from: Worker
  readonly to: Worker
  /** How the predecessor ended, where it did so before all was handed over: what its slot had left is of use then. */
  readonly died: ProcessEnd | undefined
  /** Why it must be undone, or was; made when it is asked for, since who serves changes meanwhile. */
  failure: (() => HandoverError) | undefined
  /** Called when it serves again, or never can. */
  over?: () => void
}

export class Slot {
  readonly index: number
  readonly #side: SlotSide
  readonly workers = new Set<Worker>()
  /** Who accepts. */
  server: Worker | undefined
  /** How the last worker that ended did so. */
  lastEnd: ProcessEnd | undefined
  #starting: Starting | undefined
  #booting: { readonly worker: Worker; decide(claims: Claims): void } | undefined
  #handover: Handover | undefined
  #undo: Undo | undefined
  #generation = 0
  readonly #stopped = new AbortController()
  #aborted = false

  constructor(index: number, side: SlotSide) {
    this.index = index
    this.#side = side
  }

  /** The keeper stops: what is being started is given up. */
  abort(): void {
    this.#aborted = true
    // What has not listened yet may be a job that never will: it hears the signal, and ends in its own way.
    if (this.#booting?.worker.state !== 'idle') this.#stopped.abort()
  }

  // ---- starting where nobody serves ----

  get isStarting(): boolean {
    return this.#starting !== undefined
  }

  /** Starts a worker to which the keeper itself offers what it holds. Resolves when it serves. Throws a HandoverError; then it is gone. */
  async start(first = false, withoutState = false): Promise<Worker> {
    const over = this.#start(first, withoutState)
    const starting: Starting = { over, givenUp: false }
    this.#starting = starting
    try {
      return await over
    } catch (error) {
      throw starting.givenUp ? new HandoverError('HANDOVER_STOPPED', 'the start was given up', { cause: error }) : error
    } finally {
      if (this.#starting === starting) this.#starting = undefined
    }
  }

  /** What is being started is of a build that nobody wants any more. Resolves when it is gone, or serves: it may have accepted already. */
  async giveUpStart(): Promise<void> {
    const starting = this.#starting
    if (!starting) return
    starting.givenUp = true
    const worker = this.#booting?.worker
    if (worker && !['ready', 'serving'].includes(worker.state)) worker.kill()
    await starting.over.catch(() => undefined)
    // Those who wait for the start itself hear of it first.
    await new Promise((resolve) => setImmediate(resolve))
  }

  async #start(first: boolean, withoutState: boolean): Promise<Worker> {
    const begun = performance.now()
    const { members, checkpoints } = this.#side
    const release = this.#side.files.hold()
    const { worker, started } = await this.#launch(true).catch((error: unknown) => {
      release()
      throw error
    })
    const alone = await this.#side.nobodyServes()
    if (this.#starting?.givenUp) worker.kill()
    this.#booting = { worker, decide: () => { worker.say(this.#aborted ? { type: 'veto', reason: 'the keeper stops' } : { type: 'proceed' }) } }
    const machine = new Lifecycle(() => undefined)
    machine.move('idle', { is: 'serving' })
    machine.move('serving', { is: 'launching' })
    const channel = channelTo(started)
    const sections = checkpoints.offerFor(this.index, withoutState)
    const offered = sections.names.length > 0 ? ` The one that failed was started${checkpoints.nextStart(this.index)}: handover reload --without-state starts one without.` : ''
    let gotOffer = false
    try {
      await handOver({
        machine,
        self: { pid: process.pid, generation: this.#generation },
        readyTimeoutMs: this.#side.readyTimeoutMs(first),
        stopped: this.#stopped.signal,
        offer: () => {
          gotOffer = true
          return members.offerFor(this.index)
        },
        sections,
        since: this.#side.since(),
        alone,
        mayDropAll: true,
        serves: () => `${this.#side.serves()}${offered}`,
        stopAccepting: () => []
      }, { channel, pid: worker.pid, child: started.child }, begun)
      channel.send({ type: 'end' })
      worker.say({ type: 'settle' })
      checkpoints.startServed(this.index, sections)
      this.#serve(worker)
      return worker
    } catch (error) {
      // What we ended ourselves says nothing of what it was offered.
      if (!this.#starting?.givenUp && !this.#aborted) checkpoints.startFailed(this.index, sections, gotOffer)
      worker.retiring = true
      worker.kill()
      throw error
    } finally {
      this.#booting = undefined
      channel.close()
      release()
    }
  }

  /** A worker that another keeper had. */
  async adopt(line: Line, { pid, state, generation, ageMs }: ProcessStatus): Promise<boolean> {
    const known = [...this.workers].find((worker) => worker.pid === pid)
    const worker = new Worker(line, { pid, slot: this.index, startedAt: Date.now() - ageMs, ...(known && { ended: known.ended }) }, this.#workerSide)
    worker.state = state
    worker.generation = generation
    if (!(await worker.greeted)) return false
    if (known) {
      known.replaced = true
      this.workers.delete(known)
    }
    this.workers.add(worker)
    const { server } = this
    if (isLeaving(state)) worker.retiring = true
    // Two that serve in one slot: a keeper died while one took over from the other, or one could not be asked when its place was filled.
    else if (server && server !== known && !server.how && server.generation > generation) worker.stop(false)
    else this.#serve(worker)
    return true
  }

  /** Workers that ended while nobody listened. */
  forgetGone(): void {
    for (const worker of this.workers) if (worker.how) this.workers.delete(worker)
    if (this.server && !this.workers.has(this.server)) this.server = [...this.workers].find(({ retiring }) => !retiring)
  }

  async #launch(inPlace: boolean): Promise<Fresh> {
    const fresh = await startWorker(this.#side.command(inPlace), { ...this.#side.env, [pathsMark]: JSON.stringify(this.#side.files.paths) }, this.index, this.#side.name, this.#workerSide)
    // As it will call itself when it has its offer; it may not live that long.
    fresh.worker.generation = this.#generation + 1
    this.workers.add(fresh.worker)
    return fresh
  }

  // ---- handing over ----

  /** Replaces the worker that serves, or starts one. Resolves when the new one serves. Throws a HandoverError: then all is as before. */
  async replace(demands: Demands): Promise<Replacement> {
    const release = this.#side.files.hold()
    try {
      return await this.#replace(demands)
    } finally {
      release()
    }
  }

  async #replace(demands: Demands): Promise<Replacement> {
    await this.giveUpStart()
    const from = this.server
    if (!from) {
      this.#side.checkpoints.offerAgain(this.index)
      const to = await this.start(false, demands.withoutState)
      return { slot: this, from: null, to, failure: () => (this.server === to ? undefined : this.#gone(to, 'ended soon after it had begun to serve')) }
    }
    const { worker: to, started } = await this.#launch(false)
    if (this.#isGone(from)) {
      closeSync(started.messages)
      closeSync(started.descriptors)
      to.retiring = true
      to.kill()
      throw this.#gone(from, 'ended while its successor was started', diedTodo)
    }
    const more = this.#side.members.extrasFor(this.index)
    const mine = this.#side.members.of(this.index)
    this.#booting = {
      worker: to,
      decide: (claims) => {
        void this.#judge(to, claims, mine, demands).then((veto) => {
          to.say(veto === undefined ? { type: 'proceed' } : { type: 'veto', reason: veto })
          // It would say so to its predecessor.
          if (veto !== undefined) this.#vetoed(to, veto)
        })
      }
    }
    const over = this.#handOver(from, to)
    from.say({ type: 'reload', pid: to.pid, listeners: more.listeners, ...(demands.withoutState && { withoutState: true }), ...(demands.allowDrop && { allowDrop: true }) }, [started.messages, started.descriptors, ...more.fds])
    closeSync(started.messages)
    closeSync(started.descriptors)
    const error = await over
    this.#booting = undefined
    if (error?.code === 'HANDOVER_PREDECESSOR_SILENT' && this.server === from && !from.how) return await this.#replaceBlocked(from, to, demands)
    if (error) {
      to.retiring = true
      const known = await this.#witnessed(error, from, to)
      to.kill()
      // Nobody else does something about it.
      if (!this.server && from.how) this.#side.crashed(this, from, from.how)
      throw this.#withStderr(known, to)
    }
    const undo = this.#undo
    const died = undo?.to === to && undo.died
    if (died) this.#side.diedHandingOver(from, died, to)
    return { slot: this, from, to, ...(died && { died }), failure: () => (undo?.to === to && undo.failure ? this.#withStderr(undo.failure(), to) : undefined) }
  }

  /**
   * It cannot hand over: the keeper makes the offer in its place, and ends it when another one serves. Throws a HandoverError: then it has
   * its place still.
   */
  async #replaceBlocked(from: Worker, asked: Worker, demands: Demands): Promise<Replacement> {
    asked.retiring = true
    asked.kill()
    await asked.ended
    this.#side.warn(`${from.who} does not answer: its event loop is blocked, or it was stopped. A successor is started without it; when that serves it is ended, and its connections and what it did not save are lost`)
    from.retiring = true
    let to: Worker
    try {
      to = await this.start(false, demands.withoutState)
    } catch (error) {
      from.retiring = false
      throw error
    }
    // It may have come to itself meanwhile.
    if ((await from.ask(lookMs)) === undefined) from.kill()
    else from.stop(false)
    await Promise.race([from.ended, sleep(answerMs, undefined, { ref: false })])
    return { slot: this, from, to, died: from.how ?? { code: null, signal: 'SIGKILL' }, failure: () => (this.server === to ? undefined : this.#gone(to, 'ended soon after it had begun to serve')) }
  }

  /** Resolves when the new generation serves, or with what went wrong. */
  async #handOver(from: Worker, to: Worker): Promise<HandoverError | undefined> {
    return await new Promise((resolve) => {
      // The predecessor must show that it heard: one whose event loop is blocked never would.
      const waitMs = Math.min(answerMs, this.#side.readyTimeoutMs(false))
      const timer = setTimeout(() => {
        this.#handover?.end(this.#silent(from, waitMs))
      }, waitMs)
      const handover: Handover = {
        from,
        to,
        alone: false,
        began: () => {
          clearTimeout(timer)
          void this.#watch(handover)
        },
        end: (error) => {
          clearTimeout(timer)
          this.#handover = undefined
          if (!error) {
            from.retiring = true
            this.#undo = { from, to, died: from.how, failure: undefined }
            this.#serve(to)
          }
          resolve(error)
        }
      }
      this.#handover = handover
    })
  }

  /** A predecessor that has begun may block later; its own deadlines are of no use then. One whose successor serves is waited for. */
  async #watch(handover: Handover): Promise<void> {
    const { from, to } = handover
    const matters = (): boolean => this.#handover === handover && !handover.alone && !from.how && to.state !== 'serving'
    while (matters()) {
      const answered = (await from.ask(answerMs)) !== undefined
      // One that hung up does not block: its end is about to be heard.
      if (!answered && !from.hungUp && matters()) handover.end(this.#silent(from))
      await sleep(lookMs, undefined, { ref: false })
    }
  }

  #silent(from: Worker, waitMs = answerMs): HandoverError {
    return new HandoverError('HANDOVER_PREDECESSOR_SILENT', `${from.who} did not answer within ${waitMs} ms: its event loop is blocked.\n  It still holds its connections, and the keeper its port.\n  Kill it (kill -9 ${from.pid}): another one is started at once, from the new build.`)
  }

  /** Nobody but us hears a successor that is alone: it is ended here, and the next one is started. */
  #vetoed(to: Worker, reason: string): void {
    if (this.#handover?.to !== to) return
    if (this.#handover.alone) this.#handover.end(new HandoverError('HANDOVER_SUCCESSOR_FAILED', `${to.who} cannot serve: ${withoutStop(reason)}.\n  ${this.#side.serves()}\n  Repair it and reload again.`))
    else this.#handover.vetoed = reason
  }

  /** The predecessor died with the offer made. */
  #leaveAlone(handover: Handover): void {
    const { to, vetoed } = handover
    handover.alone = true
    if (vetoed !== undefined) this.#vetoed(to, vetoed)
    // Nobody else waits for it any more.
    const timer = setTimeout(() => {
      if (this.#handover === handover) handover.end(new HandoverError('HANDOVER_SUCCESSOR_TIMEOUT', `${to.who} did not become ready after its predecessor had ended, and is killed.\n  ${this.#side.serves()}\n  Repair the build and reload again.`))
    }, this.#side.readyTimeoutMs(false))
    void to.ended.then(() => { clearTimeout(timer) })
    timer.unref()
  }

  /** Why a successor that has booted must not serve. */
  async #judge(to: Worker, { kept, added, dropped: all }: Claims, mine: readonly OfferedListener[], demands: Demands): Promise<string | undefined> {
    // A port that the system chose, beside others, may be one that comes and goes: a test server, a passive connection of FTP.
    const passes = ({ asked }: OfferedListener): boolean => kept.length > 0 && asked.endsWith(':0')
    const dropped = mine.filter((listener) => all.includes(listener.name) && !passes(listener)).map(({ name }) => name)
    if (dropped.length > 0 && !demands.allowDrop) {
      return `it listens on ${added.length > 0 ? listed(added) : 'nothing new'} and no more on ${listed(dropped)}, which is served now. If that is meant, reload with --allow-drop`
    }
    return demands.probe === undefined ? undefined : await this.probe(to, demands.probe)
  }

  /** Why the worker does not answer as it should; undefined where it does. It may, but need not, serve already. */
  async probe(worker: Worker, path: string): Promise<string | undefined> {
    const spoken = worker.speaks.find(({ protocol }) => protocol !== 'other')
    if (!spoken || spoken.protocol === 'other') return `the probe GET ${path} has nowhere to go: no listener speaks HTTP`
    let ours: number, theirs: number
    try {
      [ours, theirs] = socketPair()
    } catch (error) {
      return `the probe GET ${path} could not be sent: ${(error as Error).message}`
    }
    worker.say({ type: 'probe', listener: spoken.listener }, [theirs])
    closeSync(theirs)
    const answer = await probe(ours, { protocol: spoken.protocol, path, host: 'localhost', deadlineMs: this.#probeDeadline(worker) })
    return answer.ok ? undefined : `the probe GET ${path} ${answer.reason}`
  }

  #probeDeadline(worker: Worker): number {
    const bootedForMs = worker === this.server ? 0 : Date.now() - worker.startedAt
    return Math.round(Math.max(probeReserveMs, Math.min(probeMs, this.#side.readyTimeoutMs(false) - bootedForMs - probeReserveMs)))
  }

  #serve(worker: Worker): void {
    const before = this.server
    // Nobody made them follow each other (a worker that was found late): never two for long.
    if (before && before !== worker && !before.retiring && !before.replaced) before.stop(false)
    this.server = worker
    this.#generation = worker.generation
    this.#side.checkpoints.served(this.index)
    this.#side.changed(this)
    // It died in this very moment.
    if (worker.how) this.#ended(worker, worker.how)
  }

  /** Nobody needs to come back any more. */
  settle(): void {
    if (!this.#undo) return
    const { from, to, died } = this.#undo
    this.#undo = undefined
    // Nobody needs the state of before: it lives in the new generation, or in the one that serves again. Where one of the two died, it is
    // all there is.
    if (!died && !to.how) this.#side.checkpoints.forgetLeft(this.index)
    if (this.server !== from) this.#side.checkpoints.forget(this.index, from.pid)
    from.say({ type: 'settle' })
    to.say({ type: 'settle' })
  }

  /** The generation before serves again, and the new one leaves. False where that cannot be. */
  async recall(reason: string): Promise<boolean> {
    const undo = this.#undo
    if (!undo) return false
    if (this.server !== undo.from && !undo.from.how) {
      const over = new Promise<void>((resolve) => { undo.over = resolve })
      const timer = setTimeout(() => { undo.over?.() }, answerMs)
      undo.to.retiring = true
      // Where the new one died, the one before comes back by itself: a settle that it hears first would keep it from that.
      if (!undo.to.how) undo.from.say({ type: 'recall', reason })
      await over
      clearTimeout(timer)
      // One that is blocked cannot hear that it is to leave.
      if (this.server === undo.from && !undo.to.how) void undo.to.ask(answerMs).then((status) => { if (!status && undo.to !== this.server) undo.to.kill() })
      // It stays: it is to be started again when it crashes.
      if (this.server === undo.to) undo.to.retiring = false
    }
    return this.server === undo.from
  }

  // ---- what workers say ----

  readonly #workerSide: WorkerSide = {
    state: (worker, state) => { this.#state(worker, state) },
    booted: (worker, claims) => {
      if (this.#booting?.worker === worker) this.#booting.decide(claims)
      else worker.say({ type: 'proceed' })
    },
    serves: (worker, listeners, fds) => { this.#holds(worker, listeners, fds) },
    report: (worker, report) => {
      // Both sides of a handover have its report.
      if (report.predecessor.pid !== worker.pid) return
      this.#side.report(report)
      if (report.result === 'switched' && this.#handover?.from === worker) this.#handover.end()
    },
    failed: (worker, { successor, ...told }) => {
      const error = errorOf(told)
      // One whose event loop was blocked may speak of a handover that was given up long ago.
      if (this.#handover?.from === worker && this.#handover.to.pid === successor) this.#handover.end(error)
      else if (this.#undo?.from === worker && this.#undo.to.pid === successor) this.#undo.failure ??= () => error
    },
    wants: (worker, wishes) => { this.#side.wants(worker, wishes) },
    checkpoint: (worker, name, bytes, fd) => { this.#keepCheckpoint(worker, name, bytes, fd) },
    counts: (worker, topic, snapshot, fd, last) => { this.#side.counts.heard(worker, topic, snapshot, fd, last) },
    gather: (worker, id, topic, own) => { void this.#side.counts.gather(worker, id, topic, own) },
    leaving: () => this.#side.leaving(),
    ended: (worker, how) => { this.#ended(worker, how) },
    warn: (line) => { this.#side.warn(line) }
  }

  #state(worker: Worker, state: LifecycleState): void {
    if (state === 'launching' && this.#handover?.from === worker) this.#handover.began()
    if (state === 'draining' && worker === this.server && this.#handover?.from !== worker) {
      const asked = worker.retiring
      worker.retiring = true
      this.server = undefined
      this.#side.changed(this)
      if (!asked) this.#side.left(this, worker)
    }
    if (state !== 'serving') return
    if (this.#handover?.to === worker && this.#handover.alone) this.#handover.end()
    // It serves again: an undo.
    if (this.#undo?.from === worker && this.server !== worker) {
      worker.retiring = false
      this.#undo.to.retiring = true
      this.#serve(worker)
      this.#undo.over?.()
    } else if (worker.retiring && worker !== this.server) {
      // It came back when nobody waited for it any more: another one has its place, or will.
      worker.stop(false)
    }
  }

  #holds(worker: Worker, listeners: readonly OfferedListener[], fds: readonly number[]): void {
    if (worker.retiring && this.#undo?.from !== worker) {
      for (const fd of fds) closeSync(fd)
      return
    }
    this.#side.members.hold(this.index, listeners, fds)
    if (worker === this.server) this.#side.changed(this)
  }

  #keepCheckpoint(worker: Worker, name: string, bytes: number, fd: number): void {
    const { checkpoints } = this.#side
    if (worker.retiring && this.#undo?.from !== worker) {
      closeSync(fd)
      return
    }
    checkpoints.hold(this.index, worker.pid, name, bytes, fd)
    // What it said last may be read after its end was noticed.
    if (worker.how) checkpoints.crashed(this.index, worker.pid)
  }

  #ended(worker: Worker, how: ProcessEnd): void {
    // One that another line was opened to is told of by that one.
    if (!this.workers.delete(worker) || this.#side.leaving()) return
    this.lastEnd = how
    const handover = this.#handover
    const undo = this.#undo
    const mayComeBack = undo?.to === worker && !undo.from.how
    if (worker === this.server && !worker.retiring && !mayComeBack) this.#side.checkpoints.crashed(this.index, worker.pid)
    else this.#side.checkpoints.forget(this.index, worker.pid)
    this.#side.counts.ended(worker)
    if (handover?.to === worker) {
      // The predecessor notices as well, and has the better words for it.
      const { from } = handover
      if (from.how) handover.end(this.#gone(worker, 'ended before it served', buildTodo, `; ${from.who}, which handed over to it, had ended ${byWhat(from.how)}`))
      else setTimeout(() => { if (this.#handover === handover) handover.end(this.#gone(worker, 'ended before it served')) }, noticeMs)
    }
    if (undo?.from === worker) undo.over?.()
    if (worker !== this.server) return
    this.server = undefined
    this.#side.changed(this)
    if (handover?.from === worker) {
      // One that has its offer serves by itself.
      if (handover.to.how || !['preparing', 'ready', 'serving'].includes(handover.to.state)) handover.end(this.#gone(worker, 'ended while it handed over', diedTodo))
      else if (handover.to.state === 'serving') handover.end()
      else this.#leaveAlone(handover)
    } else if (mayComeBack) {
      undo.failure ??= () => this.#gone(worker, 'ended soon after it had begun to serve')
      // The generation before notices by itself, and serves again within milliseconds.
      setTimeout(() => { if (!this.server) this.#side.crashed(this, worker, how) }, noticeMs)
    } else {
      // Nobody can come back: the reload is no success all the same.
      if (undo?.to === worker) undo.failure ??= () => this.#gone(worker, 'ended soon after it had begun to serve')
      this.#side.crashed(this, worker, how)
    }
  }

  /** The predecessor saw its successor end; how it did so is known only here. */
  async #witnessed(error: HandoverError, from: Worker, to: Worker): Promise<HandoverError> {
    if (error.code !== 'HANDOVER_SUCCESSOR_EXIT' || from.how) return error
    await Promise.race([to.ended, sleep(noticeMs, undefined, { ref: false })])
    // What it wrote last is still on its way.
    await new Promise((resolve) => setImmediate(resolve))
    return to.how ? this.#gone(to, `ended before it ${to.state === 'ready' || to.state === 'serving' ? 'served' : 'was ready'}`) : error
  }

  #isGone(worker: Worker): boolean {
    return worker.how !== undefined
  }

  #gone(worker: Worker, what: string, todo = buildTodo, before = ''): HandoverError {
    const how = worker.how ? `, ${byWhat(worker.how)}` : ''
    return new HandoverError('HANDOVER_SUCCESSOR_EXIT', { what: `${worker.who} ${what}${how}${before}`, serving: this.#side.serves(), todo, onLines: true }, { stderr: worker.stderr })
  }

  #withStderr(error: HandoverError, worker: Worker): HandoverError {
    const { stderr } = worker
    if (stderr === '' || (error.stderr ?? '') !== '') return error
    return new HandoverError(error.code, partsOf(error), { stderr, cause: error.cause })
  }
}
