/**
 * The way to what the other processes of the app count: through the keeper, where there is one, to all of them; else from neighbour to
 * neighbour, which pass the question on.
 *
 * A question carries what the asker is about to show, so that it is not lost should that process die. A neighbour that is gone counts with
 * its last word.
 */

import { closeSync } from 'node:fs'
import type { Snapshot, SnapshotPart } from './count-once.js'
import { count, list, optional, shape, string } from '../../protocol/json-lines.js'
import type { CountedBy } from '../../protocol/keeper-messages.js'
import { takeTextFile, textFile } from '../../platform/memory-file.js'
import type { PeerMessages } from '../peer-messages.js'
import type { CountGatherer } from '../count-gatherer.js'
import type { Neighbour } from '../sharing-api.js'
import { decodeState, encodeState } from '../../protocol/value-codec.js'

/** How long the others may take to say what they count, and how much less of that each one further away has. */
const answerMs = 1_000
const hopMs = 250

/** `@ask`, between neighbours: what does everybody on your side count? */
interface Question {
  readonly id: number
  readonly topic: string
  readonly mine: SnapshotPart
  /** How long the asker waits. */
  readonly ms: number
}

/** `@answer`. */
interface Answer {
  readonly id: number
  readonly topic: string
  readonly own: SnapshotPart | undefined
  readonly beyond: readonly SnapshotPart[]
}

/** `@known`: what the neighbour counts now. `@count`: the last word of a predecessor. */
interface Word {
  readonly topic: string
  readonly snapshot: SnapshotPart
}

const part = shape({ id: string })

/** The fields that each of them must have. */
const shapes = {
  '@ask': shape({ id: count, topic: string, mine: part, ms: (value) => typeof value === 'number' && value >= 0 }),
  '@answer': shape({ id: count, topic: string, own: optional(part), beyond: list(part) }),
  '@known': shape({ topic: string, snapshot: part }),
  '@count': shape({ topic: string, snapshot: part })
}

export interface ExchangeSide {
  kept(): CountGatherer | undefined
  snapshot(topic: string): Promise<Snapshot | undefined>
  inherit(topic: string, told: SnapshotPart): void
  topics(): readonly string[]
  warn(line: string): void
}

const opposite = (neighbour: Neighbour): Neighbour => (neighbour === 'predecessor' ? 'successor' : 'predecessor')

export class ProcessExchange {
  readonly #peers: PeerMessages
  readonly #side: ExchangeSide
  readonly #asked = new Map<number, (answer: Answer) => void>()
  /** What each neighbour and those beyond it counted when it was last heard. */
  readonly #last = new Map<Neighbour, Map<string, readonly SnapshotPart[]>>([['predecessor', new Map()], ['successor', new Map()]])
  /** What the keeper last told of the others, by topic. */
  readonly #gathered = new Map<string, readonly SnapshotPart[]>()
  #ids = 0

  constructor(peers: PeerMessages, side: ExchangeSide) {
    this.#peers = peers
    this.#side = side
    this.#hear('@ask', (question: Question, from) => { void this.#answer(question, from) })
    this.#hear('@answer', (answer: Answer, from) => { this.#answered(answer, from) })
    this.#hear('@known', ({ topic, snapshot }: Word, from) => { this.#learn(from, topic, snapshot) })
    this.#hear('@count', ({ topic, snapshot }: Word, from) => {
      this.#last.get(from)?.delete(topic)
      side.inherit(topic, snapshot)
    })
  }

  #hear(name: keyof typeof shapes, listener: (value: never, from: Neighbour) => void): void {
    this.#peers.hear(name, (value, { from }) => {
      if (shapes[name](value)) listener(value as never, from)
      else this.#side.warn(`the ${from} sent a message "${name}" of an unknown shape: it is ignored`)
    })
  }

  async ask(topic: string, mine: Snapshot): Promise<readonly SnapshotPart[]> {
    // Where another keeper took its place meanwhile, that one is asked.
    for (let asked, kept = this.#side.kept(); kept && kept !== asked; asked = kept, kept = this.#side.kept()) {
      const gathered = await this.#askKeeper(kept, topic, mine)
      if (!gathered) continue
      this.#gathered.set(topic, gathered)
      return gathered
    }
    const answers = await Promise.all(this.#peers.neighbours.map(async (neighbour) => await this.#ask(neighbour, topic, mine, answerMs)))
    // What the keeper last told of the others is shown as long as it, or the next one, is silent: a total must not run backwards.
    return [...answers.flat(), ...(this.#gathered.get(topic) ?? [])]
  }

  async #askKeeper(kept: CountGatherer, topic: string, mine: Snapshot): Promise<SnapshotPart[] | undefined> {
    const asked = withFile(mine, (fd) => kept.gather(topic, countedBy(mine), fd))
    return (await asked)?.flatMap(({ of, fd }) => {
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
    const answer = await new Promise<Answer | undefined>((resolve) => {
      // Where it was this event loop that was blocked, the answer lies there already, and is read before the immediate.
      const timer = setTimeout(() => setImmediate(resolve, undefined), ms)
      this.#asked.set(id, (heard) => {
        clearTimeout(timer)
        resolve(heard)
      })
      if (this.#peers.say('@ask', { id, topic, mine, ms } satisfies Question, neighbour)) return
      clearTimeout(timer)
      resolve(undefined)
    })
    this.#asked.delete(id)
    return answer ? allOf(answer) : (this.#last.get(neighbour)?.get(topic) ?? [])
  }

  #answered(answer: Answer, from: Neighbour): void {
    this.#last.get(from)?.set(answer.topic, allOf(answer))
    this.#asked.get(answer.id)?.(answer)
  }

  async #answer({ id, topic, mine, ms }: Question, from: Neighbour): Promise<void> {
    this.#learn(from, topic, mine)
    const own = await this.#snapshot(topic)
    const onward = opposite(from)
    const beyond = this.#peers.neighbours.includes(onward) ? await this.#ask(onward, topic, own ?? mine, Math.max(0, ms - hopMs)) : []
    this.#peers.say('@answer', { id, topic, own, beyond } satisfies Answer, from)
  }

  /** To the successor, or to the keeper where there is none, before this process ends. */
  async sayLast(): Promise<void> {
    for (const topic of this.#side.topics()) {
      const snapshot = await this.#snapshot(topic)
      if (!snapshot) continue
      if (this.#peers.neighbours.includes('successor')) this.#peers.say('@count', { topic, snapshot } satisfies Word, 'successor')
      // Also where a successor has it: that may die before it has read it.
      if (this.#side.kept()) withFile(snapshot, (fd) => { this.#side.kept()?.tally(topic, countedBy(snapshot), fd) })
    }
  }

  /** At the switch: a predecessor that is silent later must not be missing in the first sum of its successor. */
  async introduce(): Promise<void> {
    for (const topic of this.#side.topics()) {
      const snapshot = await this.#snapshot(topic)
      if (snapshot) this.#peers.say('@known', { topic, snapshot } satisfies Word, 'successor')
    }
  }

  /** What the program adds may throw; that must not be an error of ours. */
  async #snapshot(topic: string): Promise<Snapshot | undefined> {
    try {
      return await this.#side.snapshot(topic)
    } catch (error) {
      this.#side.warn(`what this process counts as "${topic}" cannot be told: ${(error as Error).message}`)
      return undefined
    }
  }

  /** What the neighbour itself counts; what is known of those beyond it stays. */
  #learn(from: Neighbour, topic: string, snapshot: SnapshotPart): void {
    const known = this.#last.get(from)
    known?.set(topic, [snapshot, ...(known.get(topic) ?? []).filter(({ id }) => id !== snapshot.id)])
  }

  /** A neighbour is gone: what it last said it counted is this process's now. */
  lost(neighbour: Neighbour): void {
    const last = this.#last.get(neighbour)
    for (const [topic, snapshots] of last ?? []) for (const snapshot of snapshots) this.#side.inherit(topic, snapshot)
    last?.clear()
  }

  /** The neighbour of now is another one than before. */
  forget(neighbour: Neighbour): void {
    this.#last.get(neighbour)?.clear()
  }
}

const allOf = ({ own, beyond }: Answer): readonly SnapshotPart[] => [...(own ? [own] : []), ...beyond]

/** For the keeper, who gets the value as a file and does not look into it. */
export const countedBy = ({ id, includes }: Snapshot): CountedBy => ({ id, includes })

/** Calls `send` with a file that holds the value, and closes it. */
export function withFile<T>({ value }: SnapshotPart, send: (fd: number) => T): T {
  const fd = textFile(encodeState(value, 'what this process counts'))
  try {
    return send(fd)
  } finally {
    closeSync(fd)
  }
}

/** Owns the descriptor. */
export const readTold = (id: string, fd: number): SnapshotPart => ({ id, value: decodeState(takeTextFile(fd), 'what another process counts') })
