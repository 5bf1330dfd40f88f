/** What became of the connections of a drain in numbers, and the sum over the servers of a process. Pure. */

import type { ConnectionCounts, CutRequest, Report } from '../protocol/report.js'

export type Counts = { -readonly [Key in keyof ConnectionCounts]: number }
export const noCounts = (): Counts => ({ moved: 0, drained: 0, closedIdle: 0, cut: 0 })

export interface DrainResult extends Counts {
  open: number
  readonly kinds: Record<string, Counts>
  /** Why connections did not move, and how many. */
  readonly stayed: Record<string, number>
  readonly requestsCut: CutRequest[]
}

export const nothingDrained = (): DrainResult => ({ open: 0, ...noCounts(), kinds: {}, stayed: {}, requestsCut: [] })

function add(total: Counts, more: Counts): void {
  for (const key of ['moved', 'drained', 'closedIdle', 'cut'] as const) total[key] += more[key]
}

export function sum(results: readonly DrainResult[]): DrainResult {
  const total = nothingDrained()
  for (const result of results) {
    total.open += result.open
    add(total, result)
    for (const [kind, counts] of Object.entries(result.kinds)) add(total.kinds[kind] ??= noCounts(), counts)
    for (const [reason, count] of Object.entries(result.stayed)) total.stayed[reason] = (total.stayed[reason] ?? 0) + count
    // Not as arguments of one call: there may be more of them than the stack holds.
    for (const cut of result.requestsCut) total.requestsCut.push(cut)
  }
  return total
}

/** The connections of a report. */
export const countsOf = ({ requestsCut: _, ...counts }: DrainResult): Report['connections'] => counts

/** Of a report in which the drain has only begun. */
export const openCounts = (open: number): Report['connections'] => countsOf({ ...nothingDrained(), open })
