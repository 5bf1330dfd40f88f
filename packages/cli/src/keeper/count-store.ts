/**
 * What each process counts: the last snapshot of every process that lives, and of those that have ended and that no other process includes
 * yet. A worker that asks for a total gets them. The keeper holds descriptors of the files and compares ids; it reads those of the topic
 * `service` alone, for its status.
 *
 * Whatever a process has told outlives it: when it ends, a serving worker inherits its last snapshot. In a handover the successor mostly
 * has it already, so the heir is asked first, and gets only what its own count lacks. A snapshot is closed when another one includes it.
 */

import { closeSync } from 'node:fs'
import { isStarting, mergedIds, requestsIn, serviceTopic, type CountedBy } from '@handover/core/internal'
import type { Worker } from './worker.js'

/** How long a gather waits for the others. The worker that asked waits longer for its answer. */
const answerMs = 1_000
/** A worker that was silent is not waited for again, but asked this often whether it still is. */
const silentMs = 5_000
/** How long a successor may take to read what its predecessor sent at its end. */
const graceMs = 2_000
const mostTopics = 64
const longestTopic = 256
/** Of processes that are gone, in each topic. */
const mostGone = 64
/** SCM_MAX_FD: so an answer is one message, and arrives whole or not at all. */
const mostAnswered = 252

export interface CountsSide {
  workers(): readonly Worker[]
  /** The workers that serve, the best heir of this slot first. */
  heirs(slot: number): readonly Worker[]
  warn(line: string): void
}

/** A snapshot of a process that is gone, as the next keeper gets it, with its descriptor beside. */
export interface SavedCount {
  readonly topic: string
  readonly slot: number
  readonly snapshot: CountedBy
}

/** The last snapshot of one process. */
interface KnownCount {
  readonly slot: number
  /** Null for a worker of the keeper before. */
  readonly pid: number | null
  readonly snapshot: CountedBy
  readonly fd: number
  /** The process has said that it will say no more. */
  readonly last: boolean
  gone: boolean
  /** The process is gone, but its successor may still be reading what it sent. */
  waits: boolean
  /** It was given to this worker, which has not confirmed it yet. */
  heir: Worker | undefined
}

/** How a worker answers for one topic. As performance.now(). */
interface Speaker {
  spokeAt: number
  /** When it was last asked in vain. */
  silentAt: number | undefined
}

/** The counts of one topic, by the id of the process. */
type TopicCounts = Map<string, KnownCount>

export interface CountsOptions {
  readonly answerMs?: number
  readonly graceMs?: number
}

const hasServed = ({ state }: Worker): boolean => !isStarting(state) && state !== 'ended'

export class CountStore {
  readonly #side: CountsSide
  readonly #answerMs: number
  readonly #graceMs: number
  readonly #topics = new Map<string, TopicCounts>()
  readonly #speakers = new WeakMap<Worker, Map<string, Speaker>>()
  #settling = false
  #again = false
  #hasWarned = false
  /** While some of the workers are another keeper's: resolves when that is over. */
  #held: Promise<void> | undefined
  #release: () => void = () => undefined

  constructor(side: CountsSide, { answerMs: wait = answerMs, graceMs: grace = graceMs }: CountsOptions = {}) {
    this.#side = side
    this.#answerMs = wait
    this.#graceMs = grace
  }

  /** What a worker counts now. Takes the descriptor. `last`: the worker will say no more. */
  heard(worker: Worker, topic: string, snapshot: CountedBy, fd: number, last = false): void {
    const known = this.#topic(topic)
    if (!known) {
      closeSync(fd)
      return
    }
    const speaker = this.#speaker(worker, topic)
    speaker.silentAt = undefined
    speaker.spokeAt = performance.now()
    const before = known.get(snapshot.id)
    if (before) closeSync(before.fd)
    const { slot, pid, how } = worker
    const waits = !last && (before?.waits ?? false)
    known.set(snapshot.id, { slot, pid, snapshot, fd, last, gone: how !== undefined, waits, heir: before?.heir })
    this.#dropIncluded(known)
    // Its last word may be read after its end was noticed.
    if (how) this.settle()
  }

  /**
   * Sends the worker what all others count: the answers, and the last word of those that are silent or gone. `own`: its own snapshot, if it
   * arrived.
   */
  async gather(
    worker: Worker, id: number, topic: string, own: { readonly snapshot: CountedBy; readonly fd: number } | undefined
  ): Promise<void> {
    if (own) this.heard(worker, topic, own.snapshot, own.fd)
    await this.#held
    await this.#askAll(topic, worker)
    // Some of them may talk to the next keeper already. The worker asks that keeper as soon as it is connected.
    if (this.#held) return
    const others = [...(this.#topics.get(topic)?.values() ?? [])].filter((known) => known.pid !== worker.pid).slice(-mostAnswered)
    const sent = worker.say({ type: 'gathered', id, ids: others.map(({ snapshot }) => snapshot.id) }, others.map(({ fd }) => fd))
    if (!sent) worker.say({ type: 'gathered', id, ids: [] })
    this.settle()
  }

  /** Some workers are another keeper's, and a sum without them could go backwards: no worker gets one until `release()`. */
  hold(): void {
    this.#held ??= new Promise((resolve) => { this.#release = resolve })
  }

  release(): void {
    this.#held = undefined
    this.#release()
  }

  /** The requests of the service. Each worker writes them to its file before they are shown, so they outlive the worker. */
  async requests(): Promise<number> {
    await this.#askAll(serviceTopic)
    return requestsIn([...(this.#topics.get(serviceTopic)?.values() ?? [])].map(({ fd }) => fd))
  }

  /** The process is gone: a serving worker inherits what it counted. */
  ended(worker: Worker): void {
    for (const known of this.#topics.values()) {
      for (const each of known.values()) {
        if (each.pid !== worker.pid || each.gone) continue
        each.gone = true
        // It has told its successor itself if it handed over. The successor may still be reading.
        each.waits = worker.retiring && !each.last
        if (each.waits) setTimeout(() => {
          const now = known.get(each.snapshot.id)
          if (now) now.waits = false
          this.settle()
        }, this.#graceMs).unref()
      }
      this.#dropIncluded(known)
    }
    this.settle()
  }

  /** Gives the counts of processes that are gone to workers that serve. Call it when a worker begins to serve. */
  settle(): void {
    this.#again = true
    if (!this.#settling) void this.#settle()
  }

  /** For the next keeper: what `restore` takes. Living workers tell it their counts themselves. The descriptors stay with this keeper. */
  all(): { counts: SavedCount[]; fds: number[] } {
    const gone = [...this.#topics].flatMap(([topic, known]) =>
      [...known.values()].filter((each) => each.gone).map((each) => ({ topic, ...each })))
    return { counts: gone.map(({ topic, slot, snapshot }) => ({ topic, slot, snapshot })), fds: gone.map(({ fd }) => fd) }
  }

  /** What `all()` of the keeper before answered. Takes the descriptors. */
  restore(counts: readonly SavedCount[], fds: readonly number[]): void {
    counts.forEach(({ topic, slot, snapshot }, index) => {
      const [known, fd] = [this.#topic(topic), fds[index]!]
      if (known) known.set(snapshot.id, { slot, pid: null, snapshot, fd, last: true, gone: true, waits: false, heir: undefined })
      else closeSync(fd)
    })
  }

  // ---- who counts what ----

  #topic(topic: string): TopicCounts | undefined {
    const known = this.#topics.get(topic)
    if (known) return known
    if (this.#topics.size >= mostTopics || topic.length > longestTopic) {
      const what = `the workers count more than ${mostTopics} things, or things with names of more than ${longestTopic} characters`
      if (!this.#hasWarned) this.#side.warn(`${what}: what is left out of that is not added up. This is said once.`)
      this.#hasWarned = true
      return undefined
    }
    const made: TopicCounts = new Map()
    this.#topics.set(topic, made)
    return made
  }

  /** Drops counts of ended processes that another process includes, and the oldest where they are too many. */
  #dropIncluded(known: TopicCounts): void {
    const merged = mergedIds([...known.values()].map(({ snapshot }) => snapshot))
    for (const [id, each] of known) if (each.gone && merged.has(id)) this.#drop(known, id, each)
    const gone = [...known].filter(([, each]) => each.gone)
    for (const [id, each] of gone.slice(0, Math.max(0, gone.length - mostGone))) this.#drop(known, id, each)
  }

  #drop(known: TopicCounts, id: string, { fd }: KnownCount): void {
    known.delete(id)
    closeSync(fd)
  }

  async #askAll(topic: string, but?: Worker): Promise<void> {
    const others = this.#side.workers().filter((worker) => worker !== but && hasServed(worker))
    await Promise.all(others.map((worker) => this.#ask(worker, topic)))
  }

  /**
   * False if it did not answer in time: it may count nothing of this, or its event loop is blocked. It is then not waited for again, until
   * it tells of this topic itself.
   */
  async #ask(worker: Worker, topic: string): Promise<boolean> {
    const speaker = this.#speaker(worker, topic)
    const now = performance.now()
    if (speaker.silentAt !== undefined) {
      if (now - speaker.silentAt < silentMs) return false
      speaker.silentAt = now
      void worker.tell(topic, this.#answerMs)
      return false
    }
    const told = await worker.tell(topic, this.#answerMs)
    if (!told && speaker.spokeAt < now) speaker.silentAt = performance.now()
    return told
  }

  #speaker(worker: Worker, topic: string): Speaker {
    const topics = this.#speakers.get(worker) ?? new Map<string, Speaker>()
    this.#speakers.set(worker, topics)
    const speaker = topics.get(topic) ?? { spokeAt: -Infinity, silentAt: undefined }
    // A worker may make up topics without end: they must not be kept.
    if (this.#topics.has(topic)) topics.set(topic, speaker)
    return speaker
  }

  // ---- heirs ----

  async #settle(): Promise<void> {
    this.#settling = true
    while (this.#again) {
      this.#again = false
      for (const [topic, known] of this.#topics) for (const each of [...known.values()]) await this.#bequeath(topic, known, each)
    }
    this.#settling = false
  }

  async #bequeath(topic: string, known: TopicCounts, each: KnownCount): Promise<void> {
    const { id } = each.snapshot
    const isFree = (): boolean =>
      known.get(id) === each && each.gone && !each.waits && (each.heir === undefined || each.heir.how !== undefined)
    if (!isFree()) return
    const heir = this.#side.heirs(each.slot).find((worker) => this.#speaker(worker, topic).silentAt === undefined)
    // It may have it already: then its answer drops ours.
    if (!heir || !(await this.#ask(heir, topic)) || !isFree()) return
    // If it hands over meanwhile, it passes on only what it has now.
    if (!this.#side.heirs(each.slot).includes(heir)) {
      this.#again = true
      return
    }
    if (heir.say({ type: 'inherit', topic, of: id }, [each.fd])) {
      each.heir = heir
      await this.#ask(heir, topic)
    }
  }
}
