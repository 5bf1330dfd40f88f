/**
 * Sums over all processes of an app: those that serve, those that drain, and those that are gone. Each process counts by itself. A process
 * that is asked for a total adds what the others count at that moment to what it counts and has inherited.
 *
 * Every process is in the sum exactly once: inherited counts stay apart by process, with a version, until no other process can hold them. A
 * total that was begun after another one was shown is never smaller. Pure but for the messages that `Exchange` passes on.
 */

import { HandoverError, optionError, textOf } from '../../errors.js'
import { before, TimeLimit, type Abortable } from '../sections/abortable.js'
import { countsOf, once, type Count, type Snapshot, type SnapshotPart } from './count-once.js'

/** What a program gives to aggregate(). `T`: plain data, as for share(); with `text` anything. */
export interface AggregateOptions<T> {
  /**
   * What this process has counted since it began. Only ever grows, or a total would run backwards. Never called twice at a time; one that
   * has not answered within a minute is given up.
   */
  own(): T | Promise<T>
  /** The sum of two; changes neither. */
  add(a: T, b: T): T
  /** What stays of a value when its process is gone; changes it not. By default all of it. */
  remains?(value: T): T
  /**
   * How a value goes to other processes. By default as share() writes it, which takes long for what is large. What one version of the
   * program writes the others must read: where that changes, also where `text` is added, the aggregate needs another name.
   */
  text?: { write(value: T): string; read(text: string): T } | undefined
}

/** What aggregate() answers. */
export interface Aggregate<T> {
  /** Over every process that lives or has lived. A process that does not answer within a second counts as it last did. */
  total(): Promise<T>
  /** What this process has counted and inherited; asks nobody. */
  mine(): Promise<T>
}

/** The way to the other processes of the app. */
export interface Exchange {
  /**
   * Asks all others, and sends them what this process is about to show. Resolves with the answers that arrive in time, and with the last
   * counts of processes that are gone or silent.
   */
  ask(topic: string, mine: Snapshot): Promise<readonly SnapshotPart[]>
}

/** One that never answers must not keep all later ones waiting. */
const ownMs = 60_000
/** How long inherited counts stay apart, at least: by then a later version, or a second copy on another way, has arrived. */
const settledMs = 60_000
/** More than this stay apart only where this process cannot add them. */
const apart = 32
/** So many ids of processes go along. No process holds copies of counts that are older. */
const remembered = 256

/** A program in JavaScript may give anything. */
const has = (options: unknown, name: string): boolean =>
  typeof (options as Record<string, unknown> | null | undefined)?.[name] === 'function'

const lastOf = (ids: Iterable<string>): string[] => [...new Set(ids)].slice(-remembered)

/** A value, which may be undefined. */
interface Box {
  readonly value: unknown
}

/** What processes that are gone have counted, and their ids. */
interface InheritedCount extends Box {
  readonly includes: readonly string[]
}

/** One topic in one process. */
class Sum {
  readonly #id: string
  readonly #now: () => number
  readonly #warn: (line: string) => void
  #options: AggregateOptions<unknown> | undefined
  /** What was inherited, by process. */
  #parts = new Map<string, Count & { readonly since: number }>()
  /** What was read of a text; undefined where this version of the program cannot read it. */
  readonly #values = new WeakMap<Count, Box | undefined>()
  /** What was inherited long ago. */
  #merged: InheritedCount | undefined
  #version = 0
  #own: Box | undefined
  #looking: Promise<unknown> = Promise.resolve()
  #next: Promise<unknown> | undefined

  constructor(id: string, now: () => number, warn: (line: string) => void) {
    this.#id = id
    this.#now = now
    this.#warn = warn
  }

  /** False where it is counted here already. */
  count(options: AggregateOptions<unknown>): boolean {
    if (this.#options !== undefined) return false
    this.#options = options
    return true
  }

  async total(ask: (mine: Snapshot) => Promise<readonly SnapshotPart[]>): Promise<unknown> {
    const own = await this.#look()
    const answers = await ask(this.#snapshot(own))
    // No await below: counts inherited meanwhile are included exactly once. Of its own count it shows what it has sent: the others still
    // have that if this process crashes now.
    const shown = this.#add(own, answers)
    this.#settle(answers)
    return shown
  }

  async mine(): Promise<unknown> {
    return this.#add(await this.#look(), [])
  }

  async snapshot(limit?: Abortable): Promise<Snapshot | undefined> {
    // What it has inherited must not be lost because own() throws, or hangs.
    if (this.#options !== undefined) await (limit ? before(limit, () => this.#look()) : this.#look()).catch(() => undefined)
    const snapshot = this.#snapshot(this.#own)
    return countsOf(snapshot).length === 0 ? undefined : snapshot
  }

  inherit(told: SnapshotPart): void {
    const since = this.#now()
    const arrived = countsOf(told).filter(({ id }) => id !== this.#id && !this.#merged?.includes.includes(id))
    this.#parts = new Map(once([...this.#parts.values(), ...arrived.map((count) => ({ ...count, since }))]).map((part) => [part.id, part]))
    this.#merge([...this.#parts.values()].sort((a, b) => a.since - b.since).slice(0, -apart))
  }

  /**
   * Calls own(), one call after the other, so that a later version is never the smaller one. A caller that comes while own() runs waits
   * for the next call, since this one may have counted already.
   */
  #look(): Promise<Box> {
    this.#next ??= this.#looking = this.#looking.catch(() => undefined).then(async () => {
      this.#next = undefined
      const limit = new TimeLimit(ownMs, `own() of aggregate() has not answered for ${ownMs} ms`)
      try {
        this.#own = { value: await before(limit, async () => await this.#options!.own()) }
      } finally {
        limit.end()
      }
    })
    return this.#next.then(() => this.#own!)
  }

  /** What this process has inherited, as one value; undefined where there is nothing, or the program here cannot add it. */
  get inherited(): InheritedCount {
    const { includes } = this.#snapshot(undefined)
    const boxes = this.#options === undefined ? [] : [this.#merged, ...[...this.#parts.values()].map((part) => this.#read(part))]
    const values = boxes.filter((box) => box !== undefined).map(({ value }) => this.#remains(value))
    return { value: values.length === 0 ? undefined : this.#sumOf(values), includes }
  }

  #sumOf(values: readonly unknown[]): unknown {
    return values.reduce((a, b) => this.#options!.add(a, b))
  }

  #counts(own: Box | undefined): (Count & { readonly since?: number })[] {
    const parts = [...this.#parts.values()]
    const both = [this.#merged, own].filter((box) => box !== undefined).map(({ value }) => value)
    if (both.length === 0) return parts
    return [{ id: this.#id, version: ++this.#version, includes: this.#merged?.includes ?? [], value: this.#sumOf(both) }, ...parts]
  }

  #snapshot(own: Box | undefined): Snapshot {
    const counts = this.#counts(own)
    const value = counts.map(({ since: _, value: counted, text = this.#write(counted), ...about }): Count =>
      ({ ...about, ...(text === undefined ? { value: counted } : { value: null, text }) }))
    return { id: this.#id, includes: lastOf([...counts.flatMap(({ includes }) => includes), ...this.#parts.keys()]), value }
  }

  #write(value: unknown): string | undefined {
    const text: unknown = this.#options?.text?.write(value)
    if (text === undefined || typeof text === 'string') return text
    const what = `text.write() of aggregate() answered ${typeof text}, expected a string`
    throw new HandoverError('HANDOVER_STATE', { what, serving: 'The sum cannot be made', todo: 'Answer a string' })
  }

  /** Undefined where this version of the program cannot read it: it counts nothing here, and is passed on. */
  #read(count: Count): Box | undefined {
    const { text } = count
    if (text === undefined) return count
    if (!this.#values.has(count)) this.#values.set(count, this.#readText(count.id, text))
    return this.#values.get(count)
  }

  #readText(id: string, text: string): Box | undefined {
    const read = this.#options?.text?.read.bind(this.#options.text)
    try {
      if (read) return { value: read(text) }
      this.#warn(`what process ${id} counted is in no sum of this one: aggregate() was given no text here that reads it`)
    } catch (error) {
      this.#warn(`what process ${id} counted is in no sum of this one: text.read() of aggregate() threw ${textOf(error)}`)
    }
    return undefined
  }

  #add(own: Box, answers: readonly SnapshotPart[]): unknown {
    const all = [{ id: this.#id, counts: this.#counts(own) }, ...answers.map((answer) => ({ id: answer.id, counts: countsOf(answer) }))]
    const gone = new Set(all.flatMap(({ id, counts }) => counts.filter((count) => count.id !== id)).map(({ id }) => id))
    return this.#sumOf(once(all.flatMap(({ counts }) => counts)).flatMap((count) => {
      const read = this.#read(count)
      return read ? [gone.has(count.id) ? this.#remains(read.value) : read.value] : []
    }))
  }

  #remains(value: unknown): unknown {
    const options = this.#options!
    return options.remains === undefined ? value : options.remains(value)
  }

  /** Merges what was inherited long ago and no other process holds. */
  #settle(answers: readonly SnapshotPart[]): void {
    const elsewhere = new Set(answers.flatMap((told) => [told.id, ...countsOf(told).flatMap(({ id, includes }) => [id, ...includes])]))
    const before = this.#now() - settledMs
    this.#merge([...this.#parts.values()].filter(({ id, since }) => since <= before && !elsewhere.has(id)))
  }

  #merge(parts: readonly Count[]): void {
    if (this.#options === undefined) return
    for (const part of parts) {
      const read = this.#read(part)
      if (!read) continue
      const { id, includes } = part
      const rest = this.#remains(read.value)
      this.#merged = {
        includes: lastOf([...includes, ...(this.#merged?.includes ?? []), id]),
        value: this.#merged === undefined ? rest : this.#options.add(this.#merged.value, rest)
      }
      this.#parts.delete(id)
    }
  }
}

/** All topics of one process. */
export class Aggregates {
  readonly #exchange: Exchange
  readonly #id: string
  readonly #now: () => number
  readonly #warn: (line: string) => void
  readonly #sums = new Map<string, Sum>()

  /** `id`: of this process. `now`: milliseconds that never go back. */
  constructor(exchange: Exchange, id: string, now: () => number = () => performance.now(), warn: (line: string) => void = () => undefined) {
    this.#exchange = exchange
    this.#id = id
    this.#now = now
    this.#warn = warn
  }

  /** Those that are counted here, and those that were only inherited. */
  get topics(): string[] {
    return [...this.#sums.keys()]
  }

  aggregate<T>(name: string, options: AggregateOptions<T>): Aggregate<T> {
    if (typeof name !== 'string' || name === '') throw optionError('aggregate() was called without a name', 'Give a name that is the same in each version of the program')
    if (!has(options, 'own') || !has(options, 'add')) throw optionError(`aggregate('${name}') was called without own() or add()`, 'Give both')
    if (options.remains !== undefined && !has(options, 'remains')) throw optionError(`aggregate('${name}') was given a remains that is no function`, 'Give a function, or none')
    if (options.text !== undefined && !(has(options.text, 'write') && has(options.text, 'read'))) throw optionError(`aggregate('${name}') was given a text without write() or read()`, 'Give both, or none')
    const sum = this.#sum(name)
    if (!sum.count(options)) throw optionError(`aggregate('${name}') was called twice in this process`, 'Give the second another name', 'The first one counts')
    return {
      total: async () => await sum.total((mine) => this.#exchange.ask(name, mine)) as T,
      mine: async () => await sum.mine() as T
    }
  }

  /**
   * What others get when they ask, and what stays when this process ends. Undefined where there is nothing. Where `limit` is aborted: as it
   * was last known.
   */
  snapshot(topic: string, limit?: Abortable): Promise<Snapshot | undefined> {
    return this.#sums.get(topic)?.snapshot(limit) ?? Promise.resolve(undefined)
  }

  /**
   * Of a process that is gone. What the program here does not count (not yet, or not any more) is kept for it, and for the next generation.
   */
  inherit(topic: string, told: SnapshotPart): void {
    this.#sum(topic).inherit(told)
  }

  /** Without what this process counts itself. */
  inherited(topic: string): InheritedCount {
    return this.#sums.get(topic)?.inherited ?? { value: undefined, includes: [] }
  }

  #sum(topic: string): Sum {
    let sum = this.#sums.get(topic)
    if (sum === undefined) this.#sums.set(topic, sum = new Sum(this.#id, this.#now, this.#warn))
    return sum
  }
}
