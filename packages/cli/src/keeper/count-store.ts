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

/** How long a gather waits for the others. A worker waits a little longer than that for its answer. */
const answerMs = 1_000
/** One that was silent is not waited for again; it is asked now and then whether it still is. */
const silentMs = 5_000
/** How long a successor may take to read what its predecessor sent at its end. */
const graceMs = 2_000
const mostTopics = 64
const longestTopic = 256
/** Of one topic, of processes that are gone. */
const mostGone = 64
/** SCM_MAX_FD: so an answer is one message, and arrives whole or not at all. */
const mostAnswered = 252

export interface CountsSide {
  /** All that live. */
  workers(): readonly Worker[]
  /** Those that serve, the best heir of this slot first. */
  heirs(slot: number): readonly Worker[]
  warn(line: string): void
}

/** A snapshot of a process that is gone, as the next keeper gets it, with its descriptor beside. */
export interface SavedCount {
  readonly topic: string
  readonly slot: number
  readonly snapshot: CountedBy
}

interface Known {
  readonly slot: number
  /** Null where it was a worker of the keeper before. */
  readonly pid: number | null
  snapshot: CountedBy
  fd: number
  /** It has said that it says no more. */
  last: boolean
  gone: boolean
  /** Gone, and not to be given to anybody yet. */
  waits: boolean
  /** It was given to this one, which has not said yet that it has it. */
  heir: Worker | undefined
}

/** What is known of a worker's way to answer, of one topic. As performance.now(). */
interface Speaker {
  spokeAt: number
  /** It did not answer: when it was asked last. */
  silentAt: number | undefined
}

export interface CountsOptions {
  readonly answerMs?: number
  readonly graceMs?: number
}

const hasServed = ({ state }: Worker): boolean => !isStarting(state) && state !== 'ended'

export class CountStore {
  readonly #side: CountsSide
  readonly #answerMs: number
  readonly #graceMs: number
  /** By topic, and the id of the process. */
  readonly #topics = new Map<string, Map<string, Known>>()
  readonly #speakers = new WeakMap<Worker, Map<string, Speaker>>()
  #running = false
  #again = false
  #said = false
  /** While some of the workers are another keeper's: resolves when that is over. */
  #held: Promise<void> | undefined
  #release: () => void = () => undefined

  constructor(side: CountsSide, { answerMs: wait = answerMs, graceMs: grace = graceMs }: CountsOptions = {}) {
    this.#side = side
    this.#answerMs = wait
    this.#graceMs = grace
  }

  /** What a worker counts now; the descriptor is owned from here on. `last`: it will say no more. */
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
    known.set(snapshot.id, { slot: worker.slot, pid: worker.pid, snapshot, fd, last, gone: worker.how !== undefined, waits: !last && (before?.waits ?? false), heir: before?.heir })
    this.#dropIncluded(known)
    // Its last word may be read after its end was noticed.
    if (worker.how) this.settle()
  }

  /**
   * Asks all others, and sends the worker what they count: the last word of those that are silent or gone. `own`: its own snapshot; absent
   * where that did not arrive.
   */
  async gather(worker: Worker, id: number, topic: string, own: { readonly snapshot: CountedBy; readonly fd: number } | undefined): Promise<void> {
    if (own) this.heard(worker, topic, own.snapshot, own.fd)
    await this.#held
    await this.#askAll(topic, worker)
    // Some of them may talk to the next keeper already, and this worker asks that one as soon as it has its line.
    if (this.#held) return
    const others = [...(this.#topics.get(topic)?.values() ?? [])].filter((known) => known.pid !== worker.pid).slice(-mostAnswered)
    const sent = worker.say({ type: 'gathered', id, ids: others.map(({ snapshot }) => snapshot.id) }, others.map(({ fd }) => fd))
    if (!sent) worker.say({ type: 'gathered', id, ids: [] })
    this.settle()
  }

  /**
   * Not all workers are here: what the others count is missing, and a sum without it would be smaller than one that was shown. Until
   * `release()` nobody is answered.
   */
  hold(): void {
    this.#held ??= new Promise((resolve) => { this.#release = resolve })
  }

  release(): void {
    this.#held = undefined
    this.#release()
  }

  /**
   * The requests of the service: what each worker says now, and the last word of those that are silent or gone. It is in the files before
   * it is shown, so it outlives a worker.
   */
  async requests(): Promise<number> {
    await this.#askAll(serviceTopic)
    return requestsIn([...(this.#topics.get(serviceTopic)?.values() ?? [])].map(({ fd }) => fd))
  }

  /** The process is gone: what it counted is for those that live. */
  ended(worker: Worker): void {
    for (const known of this.#topics.values()) {
      for (const each of known.values()) {
        if (each.pid !== worker.pid || each.gone) continue
        each.gone = true
        // One that handed over has told its successor itself, which may be reading that still.
        each.waits = worker.retiring && !each.last
        if (each.waits) setTimeout(() => { this.#waited(known, each.snapshot.id) }, this.#graceMs).unref()
      }
      this.#dropIncluded(known)
    }
    this.settle()
  }

  #waited(known: ReadonlyMap<string, Known>, id: string): void {
    const each = known.get(id)
    if (each) each.waits = false
    this.settle()
  }

  /** Gives what is nobody's to those that serve. To be called when one begins to. */
  settle(): void {
    this.#again = true
    if (!this.#running) void this.#settle()
  }

  /** For the next keeper: what `restore` takes; those that live tell it themselves. The descriptors stay with this one. */
  all(): { counts: SavedCount[]; fds: number[] } {
    const gone = [...this.#topics].flatMap(([topic, known]) => [...known.values()].filter((each) => each.gone).map((each) => ({ topic, ...each })))
    return { counts: gone.map(({ topic, slot, snapshot }) => ({ topic, slot, snapshot })), fds: gone.map(({ fd }) => fd) }
  }

  /** What `all()` of the keeper before answered; the descriptors are owned from here on. */
  restore(counts: readonly SavedCount[], fds: readonly number[]): void {
    counts.forEach(({ topic, slot, snapshot }, index) => {
      const known = this.#topic(topic)
      if (known) known.set(snapshot.id, { slot, pid: null, snapshot, fd: fds[index]!, last: true, gone: true, waits: false, heir: undefined })
      else closeSync(fds[index]!)
    })
  }

  // ---- who counts what ----

  #topic(topic: string): Map<string, Known> | undefined {
    const known = this.#topics.get(topic)
    if (known) return known
    if (this.#topics.size >= mostTopics || topic.length > longestTopic) {
      if (!this.#said) this.#side.warn(`the workers count more than ${mostTopics} things, or things with names of more than ${longestTopic} characters: what is left out of that is not added up. This is said once.`)
      this.#said = true
      return undefined
    }
    const made = new Map<string, Known>()
    this.#topics.set(topic, made)
    return made
  }

  /** A process that is gone lives on in another one's count. */
  #dropIncluded(known: Map<string, Known>): void {
    const merged = mergedIds([...known.values()].map(({ snapshot }) => snapshot))
    for (const [id, each] of known) if (each.gone && merged.has(id)) this.#drop(known, id, each)
    const gone = [...known].filter(([, each]) => each.gone)
    for (const [id, each] of gone.slice(0, Math.max(0, gone.length - mostGone))) this.#drop(known, id, each)
  }

  #drop(known: Map<string, Known>, id: string, { fd }: Known): void {
    known.delete(id)
    closeSync(fd)
  }

  async #askAll(topic: string, but?: Worker): Promise<void> {
    const others = this.#side.workers().filter((worker) => worker !== but && hasServed(worker))
    await Promise.all(others.map((worker) => this.#ask(worker, topic)))
  }

  /**
   * False where it did not answer in time: it may count nothing of this, or its event loop is blocked. Such a one is not waited for again
   * until it speaks of it.
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
    // What a worker makes up as it goes must not be kept.
    if (this.#topics.has(topic)) topics.set(topic, speaker)
    return speaker
  }

  // ---- heirs ----

  async #settle(): Promise<void> {
    this.#running = true
    while (this.#again) {
      this.#again = false
      for (const [topic, known] of this.#topics) for (const each of [...known.values()]) await this.#bequeath(topic, known, each)
    }
    this.#running = false
  }

  async #bequeath(topic: string, known: Map<string, Known>, each: Known): Promise<void> {
    const { id } = each.snapshot
    const isFree = (): boolean => known.get(id) === each && each.gone && !each.waits && (each.heir === undefined || each.heir.how !== undefined)
    if (!isFree()) return
    const heir = this.#side.heirs(each.slot).find((worker) => this.#speaker(worker, topic).silentAt === undefined)
    // It may have it already: then its answer lets go of ours.
    if (!heir || !(await this.#ask(heir, topic)) || !isFree()) return
    // Whoever hands over meanwhile passes on what it has now.
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
