/**
 * Which counts make up a sum, so that each process is in it exactly once. A process that has ended lives on in the counts of others, and
 * several of them may hold a copy; so a count carries a version, and the ids of the processes that are merged into it. Pure.
 */

import type { CountedBy } from '../../protocol/keeper-messages.js'

/** What one process counts and has inherited, as another process gets it. */
export interface SnapshotPart {
  /** Of the process, unique over all generations. */
  readonly id: string
  readonly value: unknown
}

/** The same with the ids of ended processes that are in `value`: a keeper goes by these, and does not read values. */
export type Snapshot = SnapshotPart & CountedBy

/** The value of a snapshot is a list of these: one of the process itself, if it counts at all, and those that it has inherited. */
export interface Count extends CountedBy {
  /** Grows with each snapshot of the process. */
  readonly version: number
  readonly value: unknown
  /** In the place of a value, where the program writes it itself. */
  readonly text?: string
}

const isCount = (value: unknown): value is Count => {
  const { id, version, includes, text } = (value ?? {}) as Partial<Record<keyof Count, unknown>>
  return typeof id === 'string' && typeof version === 'number' && Array.isArray(includes) &&
    (text === undefined || typeof text === 'string')
}

/** Another process may have another version of Handover: anything there that is no count adds nothing. */
export const countsOf = ({ value }: SnapshotPart): readonly Count[] => (Array.isArray(value) ? value.filter(isCount) : [])

/** The ids that are merged into the count of another process. */
export const mergedIds = (counts: readonly CountedBy[]): ReadonlySet<string> =>
  new Set(counts.flatMap(({ id, includes }) => includes.filter((other) => other !== id)))

/** The latest version of each process, unless it is merged into the count of another. */
export function once<C extends Count>(counts: Iterable<C>): C[] {
  const latest = new Map<string, C>()
  for (const count of counts) {
    const known = latest.get(count.id)
    if (known === undefined || known.version < count.version) latest.set(count.id, count)
  }
  const merged = mergedIds([...latest.values()])
  return [...latest.values()].filter(({ id }) => !merged.has(id))
}
