/**
 * One worker's place: the generation that serves in it, earlier ones that drain, and the one that is being started. It starts, hands over,
 * takes back and notices crashes; the keeper decides when. Where it stands is one state (slot-state.ts); a start and a reload have files of
 * their own.
 */

import { closeSync } from 'node:fs'
import {
  deadlineIn, debug, errorOf, HandoverError, isLeaving, pathsMark, withDeadline,
  type LifecycleState, type OfferedListener, type ProcessEnd, type ProcessStatus, type Report, type Wishes
} from '@handover/core/internal'
import { answerMs, noticeMs, workerGone, type SlotContext, type SlotSide } from './slot-context.js'
import { handoverLost, replaceServer, type Demands, type Replacement } from './slot-reload.js'
import { giveUp, startWithoutPredecessor } from './slot-start.js'
import { bootingOf, handoverOf, serverOf, SlotLifecycle, undoOf, type Claims, type Start } from './slot-state.js'
import { Worker, type LaunchedWorker, type Line, type StartWorker, type WorkerNews, type WorkerSide } from './worker.js'

export type { SlotSide }

const endedSoon = 'ended soon after it had begun to serve'

export class Slot implements SlotContext {
  readonly index: number
  readonly workers = new Set<Worker>()
  /** How the last worker that ended did so. */
  lastEnd: ProcessEnd | undefined
  generation = 0
  isStopping = false
  readonly side: SlotSide
  readonly lifecycle: SlotLifecycle
  readonly #startWorker: StartWorker

  /** `start`: how a process is started. */
  constructor(index: number, side: SlotSide, start: StartWorker) {
    this.index = index
    this.side = side
    this.#startWorker = start
    this.lifecycle = new SlotLifecycle((from, to) => { debug(() => `slot ${index}: ${from} to ${to.is}`) })
  }

  /** The worker that accepts. */
  get server(): Worker | undefined {
    return serverOf(this.lifecycle.state)
  }

  /** The worker that is being started. */
  get booting(): Worker | undefined {
    return bootingOf(this.lifecycle.state)
  }

  /** A worker boots that has no predecessor. */
  get isStarting(): boolean {
    const { is } = this.lifecycle.state
    return is === 'starting' || is === 'alone'
  }

  /** The keeper stops: nothing is started any more. What runs hears of it, and ends in its own way. */
  abort(): void {
    this.isStopping = true
  }

  async launch(inPlace: boolean): Promise<LaunchedWorker> {
    if (this.isStopping) throw new HandoverError('HANDOVER_STOPPED', { what: 'the keeper stops' })
    const { name, files } = this.side
    const env = { ...this.side.env, [pathsMark]: JSON.stringify(files.paths) }
    const command = this.side.command(inPlace)
    const launched = await this.#startWorker(command, env, this.index, name, this.#workerSide)
    launched.worker.release = command.release
    // As it will call itself when it has its offer; it may not live that long.
    launched.worker.generation = this.generation + 1
    this.#know(launched.worker)
    return launched
  }

  // ---- starting where no worker hands over ----

  /** Starts a worker to which the keeper itself offers what it holds. Resolves when it serves. Throws a HandoverError; then it is gone. */
  async start(first = false, wishes?: Wishes): Promise<Worker> {
    const { state } = this.lifecycle
    const start: Start = { givenUp: false, server: this.server, returning: state.is === 'returning' ? state.undo.from : undefined }
    if (state.is === 'serving' || state.is === 'returning') this.lifecycle.move(state.is, { is: 'starting', start })
    else this.lifecycle.move('empty', { is: 'starting', start })
    start.over = this.#start(start, first, wishes)
    return await start.over
  }

  async #start(start: Start, first: boolean, wishes?: Wishes): Promise<Worker> {
    let worker: Worker
    try {
      worker = await startWithoutPredecessor(this, start, first, wishes)
    } catch (cause) {
      this.lifecycle.move('starting', start.server ? { is: 'serving', server: start.server } : { is: 'empty' })
      throw start.givenUp ? new HandoverError('HANDOVER_STOPPED', { what: 'the start was given up' }, { cause }) : cause
    }
    this.lifecycle.move('starting', { is: 'serving', server: worker })
    this.#stopOther(start.server)
    this.serverChanged(worker)
    return worker
  }

  /** What is being started is of a build that is replaced. Resolves when it is gone, drains or serves: it may have accepted already. */
  async giveUpStart(): Promise<void> {
    const { state } = this.lifecycle
    if (state.is !== 'starting') return
    await giveUp(state.start)
    // Those who wait for the start itself hear of it first.
    await new Promise((resolve) => setImmediate(resolve))
  }

  /** The slot goes away: its workers end in order. */
  async retire(): Promise<void> {
    const { state } = this.lifecycle
    if (state.is === 'starting') await giveUp(state.start, true)
    this.server?.stop(false)
  }

  /** Takes a worker that another keeper had. False where it hangs up. */
  async adopt(line: Line, { pid, state, generation, ageMs }: ProcessStatus): Promise<boolean> {
    const known = [...this.workers].find((worker) => worker.pid === pid)
    const about = { pid, slot: this.index, ageMs, ...(known && { ended: known.ended }) }
    const worker = new Worker(line, about, this.#workerSide)
    worker.state = state
    worker.generation = generation
    if (!(await worker.greeted)) return false
    if (known) {
      known.replaced = true
      this.workers.delete(known)
    }
    this.workers.add(worker)
    const { server } = this
    // Two may serve in one slot: a keeper died while one took over from the other, or one did not answer when its place was filled.
    const isOlder = server !== undefined && server !== known && !server.how && server.generation > generation
    if (isLeaving(state)) worker.retiring = true
    else if (isOlder || !this.#takePlace(worker)) worker.stop(false)
    return true
  }

  /** A worker that was found serves here from now on. False in a reload, whose workers go first. */
  #takePlace(worker: Worker): boolean {
    const { server } = this
    const { state } = this.lifecycle
    if (state.is === 'starting') state.start.server = worker
    else if (state.is === 'serving' || state.is === 'empty') this.lifecycle.move(state.is, { is: 'serving', server: worker })
    else return false
    this.#stopOther(server)
    this.serverChanged(worker)
    return true
  }

  /** Never two that serve in one slot for long. */
  #stopOther(before: Worker | undefined): void {
    if (before && !before.retiring && !before.replaced) before.stop(false)
  }

  /** Forgets workers that ended while another keeper had them. */
  forgetGone(): void {
    for (const worker of this.workers) if (worker.how) this.workers.delete(worker)
    const { state } = this.lifecycle
    if (state.is !== 'serving' || this.workers.has(state.server)) return
    const server = [...this.workers].find(({ retiring }) => !retiring)
    this.lifecycle.move('serving', server ? { is: 'serving', server } : { is: 'empty' })
  }

  // ---- handing over ----

  /** Replaces the worker that serves, or starts one. Resolves when the new one serves. Throws a HandoverError: then all is as before. */
  async replace(demands: Demands): Promise<Replacement> {
    const release = this.side.files.hold()
    try {
      await this.giveUpStart()
      const from = this.server?.retiring ? undefined : this.server
      if (from) return await replaceServer(this, from, demands) ?? await this.#replaceBlocked(from, demands)
      this.side.checkpoints.offerAgain(this.index)
      return this.#started(null, await this.start(false, demands))
    } finally {
      release()
    }
  }

  /** The keeper makes the offer in the place of `from`, and ends that when another worker serves. */
  async #replaceBlocked(from: Worker, demands: Demands): Promise<Replacement> {
    this.side.warn(`${from.who} does not answer: its event loop is blocked, or it was stopped. A successor is started without it; when that serves it is ended, and its connections and what it did not save are lost`)
    from.retiring = true
    // What it saved is for the next one, as after a crash; where that fails and it goes on, it saves again.
    this.side.checkpoints.crashed(this.index, from.pid)
    let to: Worker
    try {
      to = await this.start(false, demands)
    } catch (error) {
      from.retiring = false
      throw error
    }
    // It may have come to itself meanwhile.
    if ((await from.ask()) === undefined) from.kill()
    else from.stop(false)
    await withDeadline(from.ended, deadlineIn(answerMs))
    return { ...this.#started(from, to), died: from.how ?? { code: null, signal: 'SIGKILL' } }
  }

  #started(from: Worker | null, to: Worker): Replacement {
    return { from, to, failure: () => (this.server === to ? undefined : workerGone(this.side, to, endedSoon)) }
  }

  /** The reload is over: no worker needs to come back any more. */
  settle(): void {
    const { state } = this.lifecycle
    const undo = undoOf(state)
    if (!undo) return
    const { from, to, died } = undo
    // The state of before lives in the worker that serves. Where one of the two died, what it left is all there is.
    if (!died && !to.how) this.side.checkpoints.forgetLeft(this.index)
    if (state.is !== 'undone') this.side.checkpoints.forget(this.index, from.pid)
    if (state.is === 'undoable') this.lifecycle.move('undoable', { is: 'serving', server: to })
    else if (state.is === 'undone') this.lifecycle.move('undone', { is: 'serving', server: from })
    else if (state.is === 'returning') this.lifecycle.move('returning', { is: 'empty' })
    from.say({ type: 'settle' })
    to.say({ type: 'settle' })
  }

  /** The generation before serves again, and the new one leaves. False where that cannot be. */
  async recall(reason: string): Promise<boolean> {
    const { state } = this.lifecycle
    const undo = undoOf(state)
    if (!undo) return false
    const { from, to } = undo
    if (state.is !== 'undone' && !from.how) {
      const over = new Promise<void>((resolve) => { undo.over = resolve })
      to.retiring = true
      // Where the new one died, the one before comes back by itself: a settle that it hears first would keep it from that.
      if (!to.how) from.say({ type: 'recall', reason })
      await withDeadline(over, deadlineIn(answerMs))
      // A blocked worker cannot hear that it is to leave.
      if (this.server === from && !to.how) void to.ask(answerMs).then((status) => { if (!status && to !== this.server) to.kill() })
      // It stays: it is to be started again when it crashes.
      if (this.server === to) to.retiring = false
    }
    return this.server === from
  }

  // ---- what workers say ----

  readonly #workerSide: WorkerSide = {
    heard: (worker, news, fds) => { this.#heard(worker, news, fds) },
    leaving: () => this.side.leaving(),
    ended: (worker, how) => { this.#ended(worker, how) },
    warn: (line) => { this.side.warn(line) }
  }

  #heard(worker: Worker, news: WorkerNews, fds: readonly number[]): void {
    const { counts } = this.side
    const [fd] = fds
    switch (news.type) {
      case 'state': this.#heardState(worker, news.state); break
      case 'booted': this.#booted(worker, news); break
      case 'serves': this.#holdListeners(worker, news.listeners, fds); break
      case 'report': this.#reported(worker, news.report); break
      case 'failed': this.#failed(worker, news); break
      case 'wants': this.side.wants(worker, news); break
      case 'checkpoint': this.#holdCheckpoint(worker, news.name, news.bytes, fd!); break
      case 'gather': void counts.gather(worker, news.id, news.topic, fd === undefined ? undefined : { snapshot: news.snapshot, fd }); break
      case 'told':
      case 'tally': counts.heard(worker, news.topic, news.snapshot, fd!, news.type === 'tally')
    }
  }

  #booted(worker: Worker, claims: Claims): void {
    const { state } = this.lifecycle
    const handover = handoverOf(state)
    if (handover?.to === worker) handover.booted(claims)
    else worker.say({ type: 'proceed' })
  }

  #reported(worker: Worker, report: Report): void {
    // Both sides of a handover have its report.
    if (report.predecessor.pid !== worker.pid) return
    this.side.report(report)
    const handover = handoverOf(this.lifecycle.state)
    if (report.result === 'switched' && handover?.from === worker) handover.end()
  }

  #failed(worker: Worker, { successor, ...told }: Extract<WorkerNews, { type: 'failed' }>): void {
    const error = errorOf(told)
    const { state } = this.lifecycle
    const [handover, undo] = [handoverOf(state), undoOf(state)]
    // A worker whose event loop was blocked may speak of a handover that was given up long ago.
    if (handover?.from === worker && handover.to.pid === successor) handover.end(error)
    else if (undo?.from === worker && undo.to.pid === successor) undo.failure ??= () => error
  }

  #heardState(worker: Worker, heard: LifecycleState): void {
    const { state } = this.lifecycle
    const handover = handoverOf(state)
    if (heard === 'launching' && handover?.from === worker) handover.began()
    if (heard === 'draining' && state.is === 'starting' && state.start.worker === worker) state.start.left?.()
    else if (heard === 'draining' && worker === this.server && !handover) {
      const asked = worker.retiring
      worker.retiring = true
      this.#withoutServer()
      if (!asked) this.side.left(worker)
    }
    if (heard !== 'serving') return
    if (state.is === 'alone' && state.handover.to === worker) state.handover.end()
    else if ((state.is === 'undoable' || state.is === 'returning') && state.undo.from === worker) {
      const { undo } = state
      worker.retiring = false
      undo.to.retiring = true
      this.lifecycle.move(state.is, { is: 'undone', undo })
      this.serverChanged(worker)
      undo.over?.()
    } else if (state.is === 'starting' && state.start.returning === worker) {
      worker.retiring = false
      this.#takePlace(worker)
    // It came back too late: another worker has its place, or will.
    } else if (worker.retiring && worker !== this.server) worker.stop(false)
  }

  serverChanged(worker: Worker): void {
    this.generation = worker.generation
    this.side.checkpoints.served(this.index)
    this.side.changed(worker)
    if (worker.how) this.#know(worker)
  }

  /** It may have ended already: that was noticed before it was known, and nothing was done. */
  #know(worker: Worker): void {
    this.workers.add(worker)
    if (worker.how) this.#ended(worker, worker.how)
  }

  /** The worker that served does not any more. */
  #withoutServer(): void {
    const { state } = this.lifecycle
    if (state.is === 'starting') state.start.server = undefined
    else if (state.is === 'undoable' && !state.undo.from.how) this.lifecycle.move('undoable', { is: 'returning', undo: state.undo })
    else if (state.is === 'undoable' || state.is === 'undone' || state.is === 'serving') this.lifecycle.move(state.is, { is: 'empty' })
    this.side.changed(undefined)
  }

  /** What the worker sends belongs to the past: it handed over, or was told to stop, and will not serve again. */
  #isOver(worker: Worker): boolean {
    return worker.retiring && undoOf(this.lifecycle.state)?.from !== worker
  }

  #holdListeners(worker: Worker, listeners: readonly OfferedListener[], fds: readonly number[]): void {
    if (this.#isOver(worker)) {
      for (const fd of fds) closeSync(fd)
      return
    }
    this.side.members.hold(this.index, listeners, fds)
    if (worker === this.server) this.side.changed(worker)
  }

  #holdCheckpoint(worker: Worker, name: string, bytes: number, fd: number): void {
    const { checkpoints } = this.side
    if (this.#isOver(worker)) {
      closeSync(fd)
      return
    }
    checkpoints.hold(this.index, worker.pid, name, bytes, fd)
    // What it said last may be read after its end was noticed.
    if (worker.how) checkpoints.crashed(this.index, worker.pid)
  }

  #ended(worker: Worker, how: ProcessEnd): void {
    // If the worker has been connected anew, its new line reports its end.
    if (!this.workers.delete(worker) || this.side.leaving()) return
    this.lastEnd = how
    const { state } = this.lifecycle
    const [handover, undo] = [handoverOf(state), undoOf(state)]
    const isServer = worker === this.server
    const mayComeBack = undo?.to === worker && !undo.from.how
    if (isServer && !worker.retiring && !mayComeBack) this.side.checkpoints.crashed(this.index, worker.pid)
    else this.side.checkpoints.forget(this.index, worker.pid)
    this.side.counts.ended(worker)
    if (handover?.to === worker || handover?.from === worker) {
      handoverLost(this, handover, worker)
      return
    }
    if (undo?.from === worker) undo.over?.()
    if (state.is === 'returning' && state.undo.from === worker) this.lifecycle.move('returning', { is: 'empty' })
    if (!isServer) return
    if (undo?.to === worker) undo.failure ??= () => workerGone(this.side, worker, endedSoon)
    this.#withoutServer()
    if (!mayComeBack) this.side.crashed(worker, how)
    // The generation before notices by itself, and serves again within milliseconds.
    else setTimeout(() => { if (!this.server) this.side.crashed(worker, how) }, noticeMs)
  }
}
