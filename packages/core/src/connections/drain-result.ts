/** What became of the connections of a drain, counted, and the sum over the servers of a process. Pure. */

import type { ConnectionCounts, CutRequest } from '../protocol/report.js'

export type Counts = { -readonly [Key in keyof ConnectionCounts]: number }
export const noCounts = (): Counts => ({ moved: 0, drained: 0, closedIdle: 0, cut: 0 })

/** What became of the connections of a drain. */
export interface DrainResult {
  open: number
  moved: number
  drained: number
  closedIdle: number
  cut: number
  readonly kinds: Record<string, Counts>
  /** Why connections did not move, and how many. */
  readonly stayed: Record<string, number>
  readonly requestsCut: CutRequest[]
}

export const nothingDrained = (): DrainResult => ({ open: 0, moved: 0, drained: 0, closedIdle: 0, cut: 0, kinds: {}, stayed: {}, requestsCut: [] })

export function sum(results: readonly DrainResult[]): DrainResult {
  const total = nothingDrained()
  for (const result of results) {
    for (const key of ['open', 'moved', 'drained', 'closedIdle', 'cut'] as const) total[key] += result[key]
    for (const [kind, counts] of Object.entries(result.kinds)) {
      const all = (total.kinds[kind] ??= noCounts())
      for (const key of ['moved', 'drained', 'closedIdle', 'cut'] as const) all[key] += counts[key]
    }
    for (const [reason, count] of Object.entries(result.stayed)) total.stayed[reason] = (total.stayed[reason] ?? 0) + count
    total.requestsCut.push(...result.requestsCut)
  }
  return total
}
