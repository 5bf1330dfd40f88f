/**
 * One process that the keeper started, or took from another keeper, and the line to it. It passes on what the process says, and tells it
 * what the slot decides; it decides nothing itself.
 */

import { closeSync } from 'node:fs'
import {
  addon, deadlineIn, describeProcess, isLeaving, keeperMark, openChannel, openPairs, startInspected, withDeadline, withOwnInspector,
  workerMessages, workerWords, type Channel, type CommandLine, type KeeperMessage, type LifecycleState, type Peer, type ProcessEnd,
  type ProcessStatus, type Received, type SpawnedProcess, type Spoken, type WorkerMessage
} from '@handover/core/internal'
import { Age } from './age.js'
import type { Release } from './start-paths.js'

export type Line = Channel<WorkerMessage, KeeperMessage>
/** What the slot of a worker hears of it; the rest is between the keeper and the process. */
export type WorkerNews = Exclude<WorkerMessage, { type: 'hello' | 'status' }>
/** Its program, or its signal, asks for a reload. */
export type ReloadWish = Extract<WorkerMessage, { type: 'wants' }>

/** What a worker tells its slot. */
export interface WorkerSide {
  /** The slot closes the descriptors. `gather` comes without its descriptor where that did not arrive. */
  heard(worker: Worker, news: WorkerNews, fds: readonly number[]): void
  /** The keeper leaves: another one has the worker, or will. */
  leaving(): boolean
  /** The process is gone. */
  ended(worker: Worker, how: ProcessEnd): void
  warn(line: string): void
}

/** How long a worker whose event loop turns may take to answer, where nothing else is said. */
export const statusMs = 1_000
/** How long a process that hung up may take to end. */
const exitMs = 2_000
/** How long a process that was asked to end may take to begin. */
const heedMs = 10_000

interface AboutWorker {
  readonly pid: number
  readonly slot: number
  /** When this keeper got it. Absent where that has just started it. */
  readonly ageMs?: number
  /** Absent where another keeper started it. */
  readonly ended?: Promise<ProcessEnd>
  readonly stderr?: () => string
}

export class Worker {
  readonly pid: number
  readonly slot: number
  /** As performance.now(): since when this keeper has it. */
  readonly since = performance.now()
  readonly age: Age
  generation = 0
  /** Undefined where another keeper started it, or it is not known. */
  release: Release | undefined
  state: LifecycleState = 'idle'
  /** Of the last `booted`. */
  speaks: readonly Spoken[] = []
  /** It has said what it listens on, and the keeper has copies. */
  holds = false
  /** It handed over, or was asked to end: its end is no crash. */
  retiring = false
  /** By this keeper. */
  isKilled = false
  #stop: { readonly last: boolean; readonly signal: NodeJS.Signals | undefined; readonly bySignal: boolean } | undefined
  /** A debugger could attach to it when it answered last. */
  isDebugged = false
  /** The worker has been connected anew: its other line reports its end. */
  replaced = false
  /** Its line is closed: it is gone, or about to be. */
  hungUp = false
  /** How it ended; undefined while it lives. */
  how: ProcessEnd | undefined
  readonly ended: Promise<ProcessEnd>
  /** Its line works: nothing may be sent before that to a worker that this keeper called. False where it hangs up first. */
  readonly greeted: Promise<boolean>
  readonly #line: Line
  readonly #stderr: () => string
  readonly #side: WorkerSide
  /** What it was asked and has not answered, by the id of the question. */
  readonly #questions = new Map<number, (answer: WorkerMessage | undefined) => void>()
  #asks = 0
  #greet: (greeted: boolean) => void = () => undefined
  #isGreeted = false

  constructor(line: Line, about: AboutWorker, side: WorkerSide) {
    this.#line = line
    this.pid = about.pid
    this.slot = about.slot
    this.age = new Age(about.ageMs)
    this.#stderr = about.stderr ?? (() => '')
    this.#side = side
    this.greeted = new Promise((resolve) => { this.#greet = resolve })
    const hungUp = this.#hear()
    void hungUp.then(() => { this.#greet(false) })
    // A process that another keeper started is no child of this one: it counts as gone when it hangs up.
    this.ended = about.ended ?? hungUp.then(() => ({ code: null, signal: null }))
    void this.ended.then((how) => {
      this.how = how
      for (const resolve of this.#questions.values()) resolve(undefined)
      if (!this.replaced) side.ended(this, how)
    })
    // Without its line the keeper knows nothing of the process, even if it lives.
    if (about.ended) void hungUp.then(() => setTimeout(() => { if (!side.leaving() && !this.replaced) this.kill() }, exitMs).unref())
  }

  get peer(): Peer {
    return { pid: this.pid, generation: this.generation }
  }

  /** For people. */
  get who(): string {
    return describeProcess(this)
  }

  /** The last lines that it wrote to stderr before it was settled. */
  get stderr(): string {
    return this.#stderr()
  }

  async #hear(): Promise<void> {
    await this.#line.hearAll((received) => { this.#heard(received) }, (what) => { this.#side.warn(`process ${this.pid} said ${what}`) })
    this.hungUp = true
    this.#line.close()
  }

  #heard({ message, fds, missing }: Received<WorkerMessage>): void {
    if (missing) {
      this.#lacks(message, missing)
      return
    }
    if (message.type === 'hello') {
      this.#isGreeted = true
      this.#greet(true)
      return
    }
    if (message.type === 'status') {
      this.isDebugged = message.status.debugged === true
      this.#questions.get(message.id)?.(message)
      return
    }
    if (message.type === 'state') {
      this.state = message.state
      // Until it has its offer it does not know which generation it is.
      if (message.state !== 'idle' && message.state !== 'taking') this.generation = message.generation
      // The signal of the stop did not end its program, which listens now.
      if (this.#stop?.bySignal && message.state !== 'idle') this.stop(this.#stop.last, this.#stop.signal)
    } else if (message.type === 'booted') this.speaks = message.speaks
    else if (message.type === 'serves') this.holds = true
    this.#side.heard(this, message, fds)
    if (message.type === 'told') this.#questions.get(message.id)?.(message)
  }

  /** Not all descriptors of a message arrived: what can be done without them is done. */
  #lacks(message: WorkerMessage, { counted, arrived }: NonNullable<Received<WorkerMessage>['missing']>): void {
    const [what, so] = message.type === 'serves' ? ['listeners', 'should it die, its port closes']
      : message.type === 'checkpoint' ? ['checkpoint', 'the one before is kept']
      : ['count', 'it counts with its last one']
    this.#side.warn(`process ${this.pid} sent ${counted} ${what}, and ${arrived} arrived: ${so}. Raise the limit of open files of the keeper (ulimit -n)`)
    if (message.type === 'serves') this.holds = true
    else if (message.type === 'gather') this.#side.heard(this, message, [])
    else if (message.type === 'told') this.#questions.get(message.id)?.(undefined)
  }

  /** False where it hung up, or the system refuses. */
  say(message: KeeperMessage, fds: readonly number[] = []): boolean {
    // The descriptor of its line is closed, and the number may be reused.
    if (this.hungUp) return false
    try {
      this.#line.send(message, fds)
      return true
    } catch (error) {
      this.#side.warn(`process ${this.pid} cannot be told "${message.type}": ${(error as Error).message}`)
      return false
    }
  }

  /** Undefined where it does not answer in time: its event loop is blocked, or it is gone. */
  async ask(timeoutMs = statusMs): Promise<ProcessStatus | undefined> {
    const answer = await this.#question((id) => ({ type: 'ask', id }), timeoutMs)
    return answer?.type === 'status' ? answer.status : undefined
  }

  /** Asks what it counts. Resolves when the slot has heard that; false where the answer does not come in time. */
  async tell(topic: string, timeoutMs: number): Promise<boolean> {
    return await this.#question((id) => ({ type: 'tell', id, topic }), timeoutMs) !== undefined
  }

  async #question(message: (id: number) => KeeperMessage, timeoutMs: number): Promise<WorkerMessage | undefined> {
    if (this.hungUp) return undefined
    const id = ++this.#asks
    const answer = new Promise<WorkerMessage | undefined>((resolve) => { this.#questions.set(id, resolve) })
    this.say(message(id))
    try {
      return await withDeadline(answer, deadlineIn(timeoutMs))
    } finally {
      this.#questions.delete(id)
    }
  }

  signal(signal: NodeJS.Signals): void {
    // Its pid may be reused.
    if (this.how) return
    try {
      process.kill(this.pid, signal)
    } catch { /* it is gone */ }
  }

  kill(): void {
    this.isKilled = true
    this.signal('SIGKILL')
  }

  /** Drains and ends it. `last`: nobody serves after it. `signal`: that of the stop, where one came. */
  stop(last: boolean, signal?: NodeJS.Signals): void {
    // It has not loaded this package yet, or never listened: then only its own listeners for the signal can end it.
    const bySignal = !this.#isGreeted || this.state === 'idle'
    this.retiring = true
    this.#stop = { last, signal, bySignal }
    if (bySignal) this.signal(signal === 'SIGINT' ? signal : 'SIGTERM')
    else this.say({ type: 'stop', last, ...(signal !== undefined && { signal }) })
  }

  /** It was asked to end, or does so by itself: it answers what it has, and cleans up. */
  get isEnding(): boolean {
    return this.#stop !== undefined || isLeaving(this.state)
  }

  /** It is of no use any more: kills it, unless it ends by itself. One that was asked to must show soon that it does. */
  abandon(): void {
    this.retiring = true
    const killUnless = (ends: boolean): void => { if (!ends) this.kill() }
    killUnless(this.isEnding)
    if (this.isEnding) setTimeout(() => { killUnless(isLeaving(this.state)) }, heedMs).unref()
  }
}

/** A worker that was just started, and the raw ends of the channel on which it awaits the offer. */
export interface LaunchedWorker {
  readonly worker: Worker
  readonly started: SpawnedProcess
}

/** A process, and the keeper's ends of its line, which nobody reads yet. */
export interface StartedProcess {
  readonly started: SpawnedProcess
  readonly line: readonly [messages: number, descriptors: number]
}

/** Throws HANDOVER_SPAWN, or the system's error where that is short of something. */
export async function startProcess(command: CommandLine, env: NodeJS.ProcessEnv, slot: number, name: string): Promise<StartedProcess> {
  const [[messages, theirMessages], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  try {
    const inspected = await withOwnInspector(command, env)
    const started = await startInspected(inspected, inspected.command, inspected.env, { inherited: {
      variable: keeperMark, fds: [theirMessages, theirDescriptors], words: workerWords({ slot, keeper: process.pid, name })
    } })
    return { started, line: [messages, descriptors] }
  } catch (error) {
    closeSync(messages)
    closeSync(descriptors)
    throw error
  } finally {
    closeSync(theirMessages)
    closeSync(theirDescriptors)
  }
}

/** From now on the process is the worker of this slot. */
export function workerOf({ started, line: [messages, descriptors] }: StartedProcess, slot: number, side: WorkerSide): LaunchedWorker {
  const line: Line = openChannel(messages, descriptors, workerMessages)
  const { pid, child } = started
  const worker = new Worker(line, { pid, slot, ended: child.ended, stderr: () => child.stderr() }, side)
  return { worker, started }
}

/** Starts a worker of this slot; `name`: of the app. Throws as `startProcess` does. */
export type StartWorker =
  (command: CommandLine, env: NodeJS.ProcessEnv, slot: number, name: string, side: WorkerSide) => Promise<LaunchedWorker>
