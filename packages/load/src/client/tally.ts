/**
 * What a load has counted: requests, losses, connections, versions and latencies. Its snapshots are the face of a load.
 *
 * Memory is bounded whatever the load: histograms are of constant size, the first 1,000 losses are kept in detail (all are
 * counted), and so are the first 1,000 processes that answered.
 */

import type { Answer } from './answer.js'
import { nowMs } from './clock.js'
import type { Failure, LossReason } from './connection.js'
import { Histogram, type Latency } from './histogram.js'
import { type Kind, kinds } from './requests.js'

/** One request that got no whole, right answer. */
export interface Loss extends Failure {
  /** Of the client. */
  readonly kind: Kind
  /** Milliseconds since the load started. */
  readonly atMs: number
  /** How long after the request began. */
  readonly afterMs: number
  /** The interval it fell into: see Load.mark(). */
  readonly mark: string
  /** Which request on its connection it was, from 1; 0 when there was no connection. */
  readonly request: number
  /** The client's port, to be found in the server's report or in a trace. */
  readonly localPort?: number | undefined
}

/** Connections that the server closed while no request was under way. None of these is a loss. */
export interface ClosedByServer {
  /** The sum of the others. */
  readonly total: number
  /** After an answer with `Connection: close` that the client had not asked for. */
  readonly announced: number
  /** Closed without a word. */
  readonly idle: number
  /** Reset instead of closed. */
  readonly idleReset: number
}

/** Latencies by interval: `outside` of all marks, and each mark by its name. Milliseconds. */
export interface Latencies {
  /** Of no mark. */
  readonly outside: Latency
  readonly [mark: string]: Latency
}

/** What the clients of one kind counted. */
export interface KindStats {
  /** How many work at the same time. */
  readonly clients: number
  /** Answered, lost and under way. */
  readonly requests: number
  /** Whole and right. */
  readonly answers: number
  /** Requests without a whole, right answer. */
  readonly lost: number
  /** The same by reason. */
  readonly lostBy: Readonly<Partial<Record<LossReason, number>>>
  /** Connections that were established. */
  readonly opened: number
  /** See ClosedByServer. */
  readonly closedByServer: ClosedByServer
  /** Of whole, right answers. */
  readonly latency: Latencies
}

/** One process that answered, told from others by x-version, x-pid and x-generation ('' where there is none). */
export interface VersionStats {
  /** x-version. */
  readonly version: string
  /** x-pid. */
  readonly pid: number
  /** x-generation. */
  readonly generation: string
  /** How many it gave. */
  readonly answers: number
  /** When its first answer came, on the clock of nowMs(). */
  readonly firstAt: number
  /** When its latest answer came, on the same clock. */
  readonly lastAt: number
}

/** What all clients counted so far. */
export interface LoadStats {
  /** Since the load started. */
  readonly seconds: number
  /** Answered, lost and under way. */
  readonly requests: number
  /** Whole and right. */
  readonly answers: number
  /** Requests without a whole, right answer. */
  readonly lost: number
  /** Requests under way. */
  readonly inFlight: number
  /** How many work at the same time. */
  readonly clients: number
  /** Connections that were established. As many as `clients` where none was ever closed (and there are no `new` ones). */
  readonly opened: number
  /** See ClosedByServer. */
  readonly closedByServer: ClosedByServer
  /** The same by kind of client. */
  readonly kinds: Readonly<Partial<Record<Kind, KindStats>>>
  /** In the order in which they first answered. */
  readonly versions: readonly VersionStats[]
  /** Of the kinds that do not wait by design: keep-alive, new, pipelined. */
  readonly latency: Latencies
  /** For instance a kind that was switched off because the server has no such route. */
  readonly notes: readonly string[]
}

/** What happened in each slice of time, from the start of the load, in order. */
export interface Slices {
  /** How long a slice is, in milliseconds. */
  readonly ms: number
  /** Whole and right, by the moment at which they were whole. */
  readonly answers: readonly number[]
  /** Requests without one, by the moment at which that was known. */
  readonly lost: readonly number[]
  /** The longest time that one of the answers took, in milliseconds. */
  readonly slowest: readonly number[]
  /** The sum of the times that they took, in milliseconds. */
  readonly sums: readonly number[]
}

/** What a load counted, and each of its losses. */
export interface LoadResult extends LoadStats {
  /** Where LoadOptions.sliceMs asked for them: of all kinds of clients. The first hour. */
  readonly slices?: Slices
  /** The first 1,000. */
  readonly losses: readonly Loss[]
}

export const outside = 'outside'
const mostKept = 1000
const quickKinds: readonly Kind[] = ['keep-alive', 'new', 'pipelined']

const mostSlicedMs = 3_600_000

class SliceTally implements Slices {
  readonly ms: number
  readonly answers: number[] = []
  readonly lost: number[] = []
  readonly slowest: number[] = []
  readonly sums: number[] = []

  constructor(ms: number) {
    this.ms = ms
  }

  /** `tookMs`: undefined where it was lost. */
  add(atMs: number, tookMs?: number): void {
    if (atMs > mostSlicedMs) return
    const index = Math.floor(atMs / this.ms)
    for (const each of [this.answers, this.lost, this.slowest, this.sums]) while (each.length <= index) each.push(0)
    if (tookMs === undefined) this.lost[index]! += 1
    else {
      this.answers[index]! += 1
      this.slowest[index] = Math.max(this.slowest[index]!, tookMs)
      this.sums[index]! += tookMs
    }
  }
}

class KindTally {
  clients = 0
  answers = 0
  lost = 0
  inFlight = 0
  opened = 0
  readonly lostBy: Partial<Record<LossReason, number>> = {}
  readonly closed = { announced: 0, idle: 0, idleReset: 0 }
  readonly latency = new Map<string, Histogram>([[outside, new Histogram()]])
}

export class Tally {
  readonly #startedAt = nowMs()
  readonly #kinds = new Map<Kind, KindTally>()
  readonly #versions = new Map<string, {
    version: string; pid: number; generation: string; answers: number; firstAt: number; lastAt: number
  }>()
  readonly #losses: Loss[] = []
  readonly #notes: string[] = []
  readonly #off = new Set<Kind>()
  #mark = outside
  /** The mark that ended last, and when. */
  #lastMark = outside
  #lastMarkEnd = 0
  readonly #slices: SliceTally | undefined
  /** Called when a process answers for the first time. */
  onNewVersion: () => void = () => {}

  constructor(sliceMs?: number) {
    this.#slices = sliceMs === undefined ? undefined : new SliceTally(sliceMs)
  }

  addClients(kind: Kind, count: number): void {
    this.#of(kind).clients += count
  }

  isOn(kind: Kind): boolean {
    return !this.#off.has(kind)
  }

  /** A request begins; it must end in answered(), lost() or missing(). */
  begun(kind: Kind): void {
    this.#of(kind).inFlight += 1
  }

  answered(kind: Kind, startedAt: number, answer: Answer): void {
    const tally = this.#of(kind)
    const now = nowMs()
    tally.inFlight -= 1
    tally.answers += 1
    const mark = this.#markSince(startedAt)
    let histogram = tally.latency.get(mark)
    if (histogram === undefined) tally.latency.set(mark, histogram = new Histogram())
    histogram.record(now - startedAt)
    this.#slices?.add(now - this.#startedAt, now - startedAt)
    this.#sawVersion(answer, now)
  }

  lost(kind: Kind, startedAt: number, failure: Failure, request: number, localPort?: number): void {
    this.#of(kind).inFlight -= 1
    this.#lose(kind, startedAt, failure, request, localPort)
  }

  /** An answer that no request asked for. */
  unexpected(kind: Kind, failure: Failure, request: number, localPort?: number): void {
    this.#lose(kind, nowMs(), failure, request, localPort)
  }

  /** 404 before the kind's first right answer: the server has no such route, so the kind is left out. False otherwise. */
  missing(kind: Kind, answer: Answer): boolean {
    const tally = this.#of(kind)
    if (answer.status !== 404 || tally.answers > 0) return false
    tally.inFlight -= 1
    if (this.isOn(kind)) this.#notes.push(`${kind} is switched off: the server answers 404 to it`)
    this.#off.add(kind)
    return true
  }

  opened(kind: Kind): void {
    this.#of(kind).opened += 1
  }

  closed(kind: Kind, how: 'announced' | 'idle' | 'idleReset'): void {
    this.#of(kind).closed[how] += 1
  }

  mark(name: string): void {
    if (this.#mark !== outside) {
      this.#lastMark = this.#mark
      this.#lastMarkEnd = nowMs()
    }
    this.#mark = name
  }

  stats(): LoadStats {
    const all = [...this.#kinds.values()]
    const sum = (pick: (tally: KindTally) => number): number => all.reduce((total, tally) => total + pick(tally), 0)
    const answers = sum((tally) => tally.answers)
    const lost = sum((tally) => tally.lost)
    const inFlight = sum((tally) => tally.inFlight)
    const quick = quickKinds.flatMap((kind) => this.#kinds.get(kind) ?? [])
    return {
      seconds: (nowMs() - this.#startedAt) / 1000,
      requests: answers + lost + inFlight,
      answers,
      lost,
      inFlight,
      clients: sum((tally) => tally.clients),
      opened: sum((tally) => tally.opened),
      closedByServer: closedOf(all),
      kinds: Object.fromEntries(kinds.flatMap((kind) => {
        const tally = this.#kinds.get(kind)
        return tally === undefined ? [] : [[kind, statsOf(tally)]]
      })),
      versions: [...this.#versions.values()].map((seen) => ({ ...seen })),
      latency: latenciesOf(quick),
      notes: [...this.#notes]
    }
  }

  result(): LoadResult {
    return { ...this.stats(), losses: this.#losses, ...(this.#slices && { slices: this.#slices }) }
  }

  #of(kind: Kind): KindTally {
    let tally = this.#kinds.get(kind)
    if (tally === undefined) this.#kinds.set(kind, tally = new KindTally())
    return tally
  }

  /** A request belongs to a mark when any part of it lay within. */
  #markSince(startedAt: number): string {
    if (this.#mark !== outside) return this.#mark
    return this.#lastMarkEnd > startedAt ? this.#lastMark : outside
  }

  #lose(kind: Kind, startedAt: number, failure: Failure, request: number, localPort: number | undefined): void {
    const tally = this.#of(kind)
    tally.lost += 1
    tally.lostBy[failure.reason] = (tally.lostBy[failure.reason] ?? 0) + 1
    this.#slices?.add(nowMs() - this.#startedAt)
    if (this.#losses.length >= mostKept) return
    const now = nowMs()
    this.#losses.push(
      { kind, ...failure, atMs: now - this.#startedAt, afterMs: now - startedAt, mark: this.#markSince(startedAt), request, localPort }
    )
  }

  #sawVersion(answer: Answer, now: number): void {
    const version = answer.headers.get('x-version') ?? ''
    const pid = Number(answer.headers.get('x-pid') ?? 0)
    const generation = answer.headers.get('x-generation') ?? ''
    const key = `${version} ${pid} ${generation}`
    const seen = this.#versions.get(key)
    if (seen !== undefined) {
      seen.answers += 1
      seen.lastAt = now
    } else if (this.#versions.size < mostKept) {
      this.#versions.set(key, { version, pid, generation, answers: 1, firstAt: now, lastAt: now })
      this.onNewVersion()
    }
  }
}

function statsOf(tally: KindTally): KindStats {
  const { clients, answers, lost, inFlight, opened } = tally
  return {
    clients,
    requests: answers + lost + inFlight,
    answers,
    lost,
    lostBy: { ...tally.lostBy },
    opened,
    closedByServer: closedOf([tally]),
    latency: latenciesOf([tally])
  }
}

function closedOf(tallies: readonly KindTally[]): ClosedByServer {
  const total = { total: 0, announced: 0, idle: 0, idleReset: 0 }
  for (const { closed: { announced, idle, idleReset } } of tallies) {
    total.announced += announced
    total.idle += idle
    total.idleReset += idleReset
    total.total += announced + idle + idleReset
  }
  return total
}

function latenciesOf(tallies: readonly KindTally[]): Latencies {
  const merged = new Map<string, Histogram>([[outside, new Histogram()]])
  for (const { latency } of tallies) {
    for (const [mark, histogram] of latency) {
      let into = merged.get(mark)
      if (into === undefined) merged.set(mark, into = new Histogram())
      into.add(histogram)
    }
  }
  return Object.fromEntries([...merged].map(([mark, histogram]) => [mark, histogram.summary()])) as unknown as Latencies
}
