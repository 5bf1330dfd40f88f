/**
 * One process that the keeper started, and the line to it. It says what it hears and does what it is told; what follows is the slot's
 * business.
 */

import { closeSync } from 'node:fs'
import { addon, check, deadlineIn, keeperMark, openChannel, openPairs, startInspected, withDeadline, withOwnInspector, workerMessages, workerWords, type Channel, type CommandLine, type CountedBy, type ProcessEnd, type KeeperMessage, type OfferedListener, type Peer, type ProcessStatus, type Received, type Spoken, type SpawnedProcess, type LifecycleState, type Wishes, type WorkerMessage } from '@handover/core/internal'

export type Line = Channel<WorkerMessage, KeeperMessage>
type Booted = Extract<WorkerMessage, { type: 'booted' }>
type WorkerWord<T extends WorkerMessage['type']> = Extract<WorkerMessage, { type: T }>

/** What a worker tells its slot. */
export interface WorkerSide {
  state(worker: Worker, state: LifecycleState): void
  booted(worker: Worker, claims: Booted): void
  serves(worker: Worker, listeners: readonly OfferedListener[], fds: readonly number[]): void
  report(worker: Worker, report: WorkerWord<'report'>['report']): void
  failed(worker: Worker, failure: WorkerWord<'failed'>): void
  wants(worker: Worker, wishes: Wishes): void
  /** The receiver closes the descriptor, which is of a file; so with the next two. */
  checkpoint(worker: Worker, name: string, bytes: number, fd: number): void
  /** What it counts; `last`: it will say no more. */
  counts(worker: Worker, topic: string, snapshot: CountedBy, fd: number, last: boolean): void
  /** It wants to know what all others count. `own`: absent where the descriptor did not arrive. */
  gather(worker: Worker, id: number, topic: string, own: { readonly snapshot: CountedBy; readonly fd: number } | undefined): void
  /** The keeper leaves: another one has the worker, or will. */
  leaving(): boolean
  /** The process is gone. */
  ended(worker: Worker, how: ProcessEnd): void
  warn(line: string): void
}

/** How long a process that hung up may take to be gone. */
const exitMs = 2_000

interface AboutWorker {
  readonly pid: number
  readonly slot: number
  readonly startedAt: number
  /** Absent where another keeper started it. */
  readonly ended?: Promise<ProcessEnd>
  readonly stderr?: () => string
}

export class Worker {
  readonly pid: number
  readonly slot: number
  readonly startedAt: number
  generation = 0
  state: LifecycleState = 'idle'
  /** Of the last `booted`. */
  speaks: readonly Spoken[] = []
  /** It has said what it listens on, and the keeper has copies. */
  holds = false
  /** It handed over, or was asked to end: its end is no crash. */
  retiring = false
  /** A debugger could attach to it when it answered last. */
  isDebugged = false
  /** The worker has been connected anew: its other line reports its end. */
  replaced = false
  /** How it ended; undefined while it lives. */
  how: ProcessEnd | undefined
  readonly ended: Promise<ProcessEnd>
  readonly #line: Line
  readonly #stderr: () => string
  readonly #side: WorkerSide
  readonly #asked = new Map<number, (status: ProcessStatus | undefined) => void>()
  readonly #telling = new Map<number, (told: boolean) => void>()
  #asks = 0
  /** It has spoken: the addon and the line work in it. */
  #said = false
  #hungUp = false

  constructor(line: Line, about: AboutWorker, side: WorkerSide) {
    this.#line = line
    this.pid = about.pid
    this.slot = about.slot
    this.startedAt = about.startedAt
    this.#stderr = about.stderr ?? (() => '')
    this.#side = side
    this.greeted = new Promise((resolve) => { this.#greet = resolve })
    const hungUp = this.#hear()
    void hungUp.then(() => { this.#greet(false) })
    // The process is no child of this keeper where another one started it: it counts as gone when it hangs up.
    this.ended = about.ended ?? hungUp.then(() => ({ code: null, signal: null }))
    void this.ended.then((how) => {
      this.how = how
      for (const resolve of this.#asked.values()) resolve(undefined)
      for (const resolve of this.#telling.values()) resolve(false)
      if (!this.replaced) side.ended(this, how)
    })
    // A line that breaks although the process lives: nothing is known of it any more.
    if (about.ended) void hungUp.then(() => setTimeout(() => { if (!side.leaving() && !this.replaced) this.kill() }, exitMs).unref())
  }

  /** The worker has the line: to one that was called, nothing may be sent before that. False where it hangs up first. */
  readonly greeted: Promise<boolean>
  #greet: (heard: boolean) => void = () => undefined

  get peer(): Peer {
    return { pid: this.pid, generation: this.generation }
  }

  /** For people. */
  get who(): string {
    return `process ${this.pid} (generation ${this.generation})`
  }

  /** The last lines that it wrote to stderr, until it was settled. */
  get stderr(): string {
    return this.#stderr()
  }

  /** Its line is closed: it is gone, or about to be. */
  get hungUp(): boolean {
    return this.#hungUp
  }

  async #hear(): Promise<void> {
    await this.#line.hearAll((received) => { this.#heard(received) }, (what) => { this.#side.warn(`process ${this.pid} said ${what}`) })
    this.#hungUp = true
    this.#line.close()
  }

  #heard({ message: word, fds, missing }: Received<WorkerMessage>): void {
    const side = this.#side
    if (missing) {
      this.#lacks(word, missing)
      return
    }
    switch (word.type) {
      case 'hello':
        this.#said = true
        this.#greet(true)
        break
      case 'state':
        this.state = word.state
        // Until it has its offer it knows nothing of any before it.
        if (word.state !== 'idle' && word.state !== 'taking') this.generation = word.generation
        side.state(this, word.state)
        break
      case 'booted':
        this.speaks = word.speaks
        side.booted(this, word)
        break
      case 'serves':
        this.holds = true
        side.serves(this, word.listeners, fds)
        break
      case 'report':
        side.report(this, word.report)
        break
      case 'failed':
        side.failed(this, word)
        break
      case 'wants':
        side.wants(this, { withoutState: word.withoutState ?? false, allowDrop: word.allowDrop ?? false })
        break
      case 'status':
        this.isDebugged = word.status.debugged === true
        this.#asked.get(word.id)?.(word.status)
        this.#asked.delete(word.id)
        break
      case 'checkpoint':
        side.checkpoint(this, word.name, word.bytes, fds[0]!)
        break
      case 'gather':
        side.gather(this, word.id, word.topic, { snapshot: word.snapshot, fd: fds[0]! })
        break
      case 'told':
      case 'tally':
        side.counts(this, word.topic, word.snapshot, fds[0]!, word.type === 'tally')
        if (word.type === 'told') this.#telling.get(word.id)?.(true)
    }
  }

  /** Not all descriptors of the word arrived: it is done without them, as far as that is possible. */
  #lacks(word: WorkerMessage, { counted, arrived }: NonNullable<Received<WorkerMessage>['missing']>): void {
    const [what, so] = word.type === 'serves' ? ['listeners', 'should it die, its port closes']
      : word.type === 'checkpoint' ? ['checkpoint', 'the one before is kept']
      : ['count', 'it counts with its last one']
    this.#side.warn(`process ${this.pid} sent ${counted} ${what}, and ${arrived} arrived: ${so}. Raise the limit of open files of the keeper (ulimit -n)`)
    if (word.type === 'serves') this.holds = true
    else if (word.type === 'gather') this.#side.gather(this, word.id, word.topic, undefined)
    else if (word.type === 'told') this.#telling.get(word.id)?.(false)
  }

  /** False where it cannot be told: it hung up, or the system does not let it. */
  say(word: KeeperMessage, fds: readonly number[] = []): boolean {
    // Its descriptor of the line is closed, and the number may be another's by now.
    if (this.#hungUp) return false
    try {
      this.#line.send(word, fds)
      return true
    } catch (error) {
      this.#side.warn(`process ${this.pid} cannot be told "${word.type}": ${(error as Error).message}`)
      return false
    }
  }

  /** Undefined where it does not answer in time: its event loop is blocked, or it is gone. */
  async ask(timeoutMs: number): Promise<ProcessStatus | undefined> {
    if (this.#hungUp) return undefined
    const id = ++this.#asks
    const answer = new Promise<ProcessStatus | undefined>((resolve) => { this.#asked.set(id, resolve) })
    this.say({ type: 'ask', id })
    const status = await withDeadline(answer, deadlineIn(timeoutMs))
    this.#asked.delete(id)
    return status
  }

  /** Asks what it counts. Resolves when its side has heard that; false where it does not say so in time. */
  async tell(topic: string, timeoutMs: number): Promise<boolean> {
    if (this.#hungUp) return false
    const id = ++this.#asks
    const heard = new Promise<boolean>((resolve) => { this.#telling.set(id, resolve) })
    const told = this.say({ type: 'tell', id, topic }) && await withDeadline(heard, deadlineIn(timeoutMs))
    this.#telling.delete(id)
    return told ?? false
  }

  signal(signal: NodeJS.Signals): void {
    // Its pid may be another's by now.
    if (this.how) return
    try {
      process.kill(this.pid, signal)
    } catch { /* it is gone */ }
  }

  kill(): void {
    this.signal('SIGKILL')
  }

  /** Drains and ends it. `last`: nobody serves after it. `signal`: that of the stop, where one came. */
  stop(last: boolean, signal?: NodeJS.Signals): void {
    this.retiring = true
    if (this.#said && this.state !== 'idle') this.say({ type: 'stop', last, ...(signal !== undefined && { signal }) })
    // It has not loaded anything of ours yet, or never listened: then its own listeners for the signal are all there is.
    else this.signal('SIGTERM')
  }
}

/**
 * A process as it was started: the worker, and the raw ends of the channel on which a predecessor, or the keeper in its place, makes the
 * offer.
 */
export interface Fresh {
  readonly worker: Worker
  readonly started: SpawnedProcess
}

/** Starts a worker of this slot; `name`: of the app. Throws HANDOVER_SPAWN, or the system's error where descriptors are short. */
export async function startWorker(
  command: CommandLine, env: NodeJS.ProcessEnv, slot: number, name: string, side: WorkerSide
): Promise<Fresh> {
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  let started: SpawnedProcess
  try {
    const inspected = await withOwnInspector(command, env)
    started = await startInspected(inspected, inspected.command, inspected.env, {
      variable: keeperMark, fds: [theirMessages, theirDescriptors], words: workerWords({ slot, keeper: process.pid, name })
    })
  } catch (error) {
    closeSync(messages)
    closeSync(descriptors)
    throw error
  } finally {
    closeSync(theirMessages)
    closeSync(theirDescriptors)
  }
  const line: Line = openChannel(messages, descriptors, workerMessages)
  const { pid, child } = started
  const worker = new Worker(line, { pid, slot, startedAt: Date.now(), ended: child.ended, stderr: () => child.stderr() }, side)
  return { worker, started }
}

/** A connected pair: one end for a worker, one for us. Throws the system's error. */
export const socketPair = (): readonly [number, number] => check(addon().socketPair(), 'socketpair')
