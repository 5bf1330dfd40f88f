/**
 * A histogram of latencies in constant memory (about 14 KB), whatever the number of requests.
 *
 * Buckets are 64 per power of two of microseconds, so a percentile is at most 1.6 % too high; `max` is exact.
 * Latencies above 71 minutes count as 71 minutes.
 */

/** Milliseconds. All are 0 when `count` is 0. */
export interface Latency {
  /** How many answers. */
  readonly count: number
  /** Half of them took at most so many milliseconds. */
  readonly p50: number
  /** In milliseconds. */
  readonly p90: number
  /** In milliseconds. */
  readonly p99: number
  /** In milliseconds. */
  readonly max: number
}

const bucketCount = 26 * 64 + 64

export class Histogram {
  readonly #buckets = new Float64Array(bucketCount)
  #count = 0
  #maxMs = 0

  record(ms: number): void {
    this.#buckets[bucketOf(ms)]! += 1
    this.#count += 1
    this.#maxMs = Math.max(this.#maxMs, ms)
  }

  add(other: Histogram): void {
    for (let index = 0; index < bucketCount; index++) this.#buckets[index]! += other.#buckets[index]!
    this.#count += other.#count
    this.#maxMs = Math.max(this.#maxMs, other.#maxMs)
  }

  summary(): Latency {
    const [p50, p90, p99] = this.#percentiles([0.5, 0.9, 0.99])
    return { count: this.#count, p50: p50!, p90: p90!, p99: p99!, max: this.#maxMs }
  }

  /** `shares` rise; one pass for all. */
  #percentiles(shares: readonly number[]): number[] {
    const found: number[] = []
    let seen = 0
    for (let index = 0; index < bucketCount && found.length < shares.length; index++) {
      seen += this.#buckets[index]!
      while (found.length < shares.length && seen > 0 && seen >= this.#count * shares[found.length]!) {
        found.push(Math.min(highestMsOf(index), this.#maxMs))
      }
    }
    while (found.length < shares.length) found.push(0)
    return found
  }
}

function bucketOf(ms: number): number {
  const us = Math.min(Math.max(Math.round(ms * 1000), 0), 2 ** 32 - 1) >>> 0
  const shift = Math.max(0, 25 - Math.clz32(us))
  return shift * 64 + (us >>> shift)
}

function highestMsOf(bucket: number): number {
  const shift = Math.max(0, Math.floor(bucket / 64) - 1)
  return ((bucket - shift * 64 + 1) * 2 ** shift - 1) / 1000
}
