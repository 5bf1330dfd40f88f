/** Waits between tries, by how many failed in a row: at once, then longer and longer. */
export const backoffMs = (failures: number): number => (failures === 0 ? 0 : Math.min(100 * 2 ** (failures - 1), 10_000))
/** So many starts in a row failed: it is said that this build does not start, and it is tried slowly. */
export const manyStarts = 5
export const slowMs = 15_000
/** A worker that served for that long was no failure. */
export const stableMs = 1_000

export interface Trouble {
  /** Crashes and starts. */
  failures: number
  /** Since a worker served. */
  starts: number
  reason: string
  nextAt: number
  timer: NodeJS.Timeout | undefined
}
