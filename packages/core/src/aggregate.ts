/**
 * Sums over all processes of an app: those that serve, those that drain, and those that are gone. Each process counts by itself; whoever is asked adds up
 * what the others count at that moment to what it counts and has inherited. Every process is in the sum exactly once: a count that was inherited names the
 * process that it came from. Pure but for the words that `Exchange` passes on.
 */

/** What a program gives to aggregate(). `T`: plain data, as for share(). */
export interface AggregateOptions<T> {
  /** What this process has counted since it began. Only ever grows, or a total would run backwards. */
  own(): T | Promise<T>
  /** The sum of two; changes neither. */
  add(a: T, b: T): T
}

export interface Aggregate<T> {
  /** Over every process that lives or has lived. One that does not answer within a second counts with what it last said. */
  total(): Promise<T>
}

/** What one process counts, with what it has inherited. */
export interface Snapshot {
  /** Of the process, unique over all generations. */
  readonly id: string
  /** Processes that are gone, whose counts are in `value`. */
  readonly includes: readonly string[]
  readonly value: unknown
}

/** The way to the other processes of the app. */
export interface Exchange {
  /** Asks all others, and tells them what this process is about to show. Resolves with what arrived in time, and with the last word of those that are gone or silent. */
  ask(topic: string, mine: Snapshot): Promise<readonly Snapshot[]>
}
export class Aggregates {
  constructor(_exchange: Exchange, _id: string) {}
  inherited(_topic: string): { value: unknown; includes: string[] } { return { value: undefined, includes: [] } }
  readonly topics: string[] = []
  o: unknown
  aggregate<T>(_name: string, o: AggregateOptions<T>): Aggregate<T> { this.o = o; return { total: async () => o.own() } }
  async snapshot(_topic: string): Promise<Snapshot | undefined> { return undefined }
  inherit(_topic: string, _s: Snapshot): void {}
}
