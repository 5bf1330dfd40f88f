/**
 * Asks the other processes of the app what they count. A keeper asks all of them; without one, each process asks its neighbours, which pass
 * the question on.
 *
 * A question carries what the asker is about to show, so that it is not lost if that process dies. A neighbour that is gone counts with its
 * last message.
 */

import { closeSync } from 'node:fs'
import { Aggregates, type Exchange } from './aggregate.js'
import { countsOf, type Count, type Snapshot, type SnapshotPart } from './count-once.js'
import { count, list, number, optional, shape, string } from '../../protocol/json-lines.js'
import type { CountedBy, CountFile } from '../../protocol/keeper-messages.js'
import { takeTextFile, textFile } from '../../platform/memory-file.js'
import type { PeerMessages } from '../peer-messages.js'
import { TimeLimit } from '../sections/abortable.js'
import type { Neighbour } from '../sharing-api.js'
import { decodeState, encodeState } from '../../protocol/value-codec.js'

/** How long the others may take to answer, and how much less of that a process has that is one further away. */
const answerMs = 1_000
const hopMs = 250

/** What neighbours say to each other, by the name of the message. */
interface Words {
  /** What does every process on your side count? `ms`: how long the asker waits. */
  '@ask': { readonly id: number; readonly topic: string; readonly mine: SnapshotPart; readonly ms: number }
  '@answer': {
    readonly id: number; readonly topic: string; readonly own: SnapshotPart | undefined; readonly beyond: readonly SnapshotPart[]
  }
  /** What the neighbour counts now. */
  '@known': { readonly topic: string; readonly snapshot: SnapshotPart }
  /** The last message of a predecessor. */
  '@count': { readonly topic: string; readonly snapshot: SnapshotPart }
}

const part = shape({ id: string })
const shapes = {
  '@ask': shape({ id: count, topic: string, mine: part, ms: number }),
  '@answer': shape({ id: count, topic: string, own: optional(part), beyond: list(part) }),
  '@known': shape({ topic: string, snapshot: part }),
  '@count': shape({ topic: string, snapshot: part })
}

/**
 * What this wing needs of a keeper; the link to the keeper has this shape. Everything travels as files. A descriptor stays the caller's,
 * who may close it as soon as the call returns.
 */
export interface CountGatherer {
  /** What all others count, with those that are gone. Undefined where the keeper is gone or silent. */
  gather(topic: string, snapshot: CountedBy, fd: number): Promise<CountFile[] | undefined>
  /** What this process has counted, at its end. False where the keeper does not get it. */
  tally(topic: string, snapshot: CountedBy, fd: number): boolean
}

export interface ExchangeSide {
  /** The link to the keeper; undefined without one. */
  kept(): CountGatherer | undefined
  warn(line: string): void
}

export class ProcessExchange implements Exchange {
  readonly #peers: PeerMessages
  readonly #side: ExchangeSide
  /** What this process counts. */
  readonly aggregates: Aggregates
  readonly #asked = new Map<number, (answer: Words['@answer']) => void>()
  /** What each neighbour and the processes beyond it counted when it was last heard, by topic. */
  readonly #last: Readonly<Record<Neighbour, Map<string, readonly SnapshotPart[]>>> = { predecessor: new Map(), successor: new Map() }
  /** What the keeper last answered, by topic. */
  readonly #gathered = new Map<string, readonly SnapshotPart[]>()
  #ids = 0

  /** `id`: of this process. */
  constructor(id: string, peers: PeerMessages, side: ExchangeSide) {
    this.#peers = peers
    this.#side = side
    this.aggregates = new Aggregates(this, id, undefined, (line) => { side.warn(line) })
    this.#hear('@ask', (question, from) => { void this.#answer(question, from) })
    this.#hear('@answer', (answer, from) => {
      this.#last[from].set(answer.topic, allOf(answer))
      this.#asked.get(answer.id)?.(answer)
    })
    this.#hear('@known', ({ topic, snapshot }, from) => { this.#learn(from, topic, snapshot) })
    this.#hear('@count', ({ topic, snapshot }, from) => {
      this.#last[from].delete(topic)
      this.aggregates.inherit(topic, snapshot)
    })
  }

  #hear<Name extends keyof Words>(name: Name, listener: (word: Words[Name], from: Neighbour) => void): void {
    this.#peers.hear(name, (value, { from }) => {
      if (shapes[name](value)) listener(value as Words[Name], from)
      else this.#side.warn(`the ${from} sent a message "${name}" of an unknown shape: it is ignored`)
    })
  }

  #say<Name extends keyof Words>(name: Name, word: Words[Name], to: Neighbour): boolean {
    return this.#peers.say(name, word, to)
  }

  async ask(topic: string, mine: Snapshot): Promise<readonly SnapshotPart[]> {
    // If another keeper has taken its place meanwhile, the new one is asked.
    for (let asked, kept = this.#side.kept(); kept && kept !== asked; asked = kept, kept = this.#side.kept()) {
      const gathered = await this.#askKeeper(kept, topic, mine)
      if (!gathered) continue
      this.#gathered.set(topic, gathered)
      return gathered
    }
    const answers = await Promise.all(this.#peers.neighbours.map(async (neighbour) => await this.#ask(neighbour, topic, mine, answerMs)))
    // While the keeper, or the next one, is silent, its last answer is shown: a total must not run backwards.
    return [...answers.flat(), ...(this.#gathered.get(topic) ?? [])]
  }

  async #askKeeper(kept: CountGatherer, topic: string, mine: Snapshot): Promise<SnapshotPart[] | undefined> {
    const answers = await withFile(mine, (by, fd) => kept.gather(topic, by, fd))
    return answers?.flatMap(({ of, fd }) => {
      try {
        return [readTold(of, fd)]
      } catch (error) {
        this.#side.warn(`what process ${of} counts as "${topic}" is not in the sum: ${(error as Error).message}`)
        return []
      }
    })
  }

  async #ask(neighbour: Neighbour, topic: string, mine: SnapshotPart, ms: number): Promise<readonly SnapshotPart[]> {
    const id = ++this.#ids
    const isAsked = this.#say('@ask', { id, topic, mine, ms }, neighbour)
    const answer = isAsked && await new Promise<Words['@answer'] | undefined>((resolve) => {
      // If this event loop was blocked, the answer has arrived already, and is read before the immediate.
      const timer = setTimeout(() => setImmediate(resolve, undefined), ms)
      this.#asked.set(id, (heard) => {
        clearTimeout(timer)
        resolve(heard)
      })
    })
    this.#asked.delete(id)
    return answer ? allOf(answer) : this.#last[neighbour].get(topic) ?? []
  }

  async #answer({ id, topic, mine, ms }: Words['@ask'], from: Neighbour): Promise<void> {
    this.#learn(from, topic, mine)
    const own = await this.#snapshot(topic)
    const onward = from === 'predecessor' ? 'successor' : 'predecessor'
    const beyond = this.#peers.neighbours.includes(onward) ? await this.#ask(onward, topic, own ?? mine, Math.max(0, ms - hopMs)) : []
    this.#say('@answer', { id, topic, own, beyond }, from)
  }

  /** To the successor and to the keeper, before this process ends. `ms`: how long the program may take to count, at least a second. */
  async sayLast(ms: number): Promise<void> {
    if (!this.#peers.neighbours.includes('successor') && !this.#side.kept()) return
    const limit = new TimeLimit(Math.max(answerMs, ms), 'own() of aggregate() did not answer before the drain deadline')
    await this.#each(async (topic) => {
      const snapshot = await this.#snapshot(topic, limit)
      if (limit.aborted) this.#side.warn(`what this process counted as "${topic}" since it was last asked is lost: ${(limit.reason as Error).message}`)
      if (!snapshot) return
      if (this.#peers.neighbours.includes('successor')) this.#say('@count', { topic, snapshot }, 'successor')
      // Also where there is a successor: it may die before it has read the message.
      if (this.#side.kept()) withFile(snapshot, (by, fd) => this.#side.kept()?.tally(topic, by, fd))
    }).finally(() => { limit.end() })
  }

  /** At the switch: a predecessor that is silent later must not be missing in the first sum of its successor. */
  async introduce(): Promise<void> {
    await this.#each(async (topic) => {
      const snapshot = await this.#snapshot(topic)
      if (snapshot) this.#say('@known', { topic, snapshot }, 'successor')
    })
  }

  /** At the same time: one that waits for the program holds up no other. */
  async #each(tell: (topic: string) => Promise<void>): Promise<void> {
    await Promise.all(this.aggregates.topics.map(tell))
  }

  /** Undefined also where a function of the program throws. What is no plain data is left out: nobody awaits what is said of it. */
  async #snapshot(topic: string, limit?: TimeLimit): Promise<Snapshot | undefined> {
    try {
      const snapshot = await this.aggregates.snapshot(topic, limit)
      const value = snapshot && countsOf(snapshot).filter((count) => this.#canBeTold(topic, count))
      return snapshot && value && value.length > 0 ? { ...snapshot, value } : undefined
    } catch (error) {
      this.#cannotTell(topic, error)
      return undefined
    }
  }

  #canBeTold(topic: string, { value, text }: Count): boolean {
    try {
      if (text === undefined) encodeState(value, `aggregate('${topic}')`)
      return true
    } catch (error) {
      this.#cannotTell(topic, error)
      return false
    }
  }

  #cannotTell(topic: string, error: unknown): void {
    this.#side.warn(`what this process counts as "${topic}" cannot be told: ${(error as Error).message}`)
  }

  /** Replaces what the neighbour itself counts, and keeps what is known of the processes beyond it. */
  #learn(from: Neighbour, topic: string, snapshot: SnapshotPart): void {
    const known = this.#last[from]
    known.set(topic, [snapshot, ...(known.get(topic) ?? []).filter(({ id }) => id !== snapshot.id)])
  }

  /** A neighbour is gone: this process inherits what it last counted. */
  lost(neighbour: Neighbour): void {
    for (const [topic, snapshots] of this.#last[neighbour]) for (const snapshot of snapshots) this.aggregates.inherit(topic, snapshot)
    this.forget(neighbour)
  }

  /** Another process is this neighbour now. */
  forget(neighbour: Neighbour): void {
    this.#last[neighbour].clear()
  }
}

const allOf = ({ own, beyond }: Words['@answer']): readonly SnapshotPart[] => [...(own ? [own] : []), ...beyond]

/** Calls `send` with what a keeper gets: whose counts these are, and a file with the value, which is closed afterwards. */
export function withFile<T>({ id, includes, value }: Snapshot, send: (by: CountedBy, fd: number) => T): T {
  const fd = textFile(encodeState(value, 'what this process counts'))
  try {
    return send({ id, includes }, fd)
  } finally {
    closeSync(fd)
  }
}

/** Owns the descriptor. */
export const readTold = (id: string, fd: number): SnapshotPart =>
  ({ id, value: decodeState(takeTextFile(fd), 'what another process counts') })
