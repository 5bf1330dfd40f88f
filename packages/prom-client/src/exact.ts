/**
 * Sums that come out the same in whatever order they are added. With floating point the last digit depends on the order, and a total of the
 * same parts that is a digit smaller is a counter that ran backwards: Prometheus takes it for a restart and counts everything again. Pure.
 */

/** A whole number, or in units of 2^-128. */
export type Exact = number | bigint

const bits = 128n
const unit = 2 ** 128

const units = (value: Exact): bigint => (typeof value === 'bigint' ? value : BigInt(value) << bits)

/** Rounds down to a unit, so that a value that grows never sums up to less. NaN and Infinity count as 0. */
export function exact(value: number): Exact {
  if (!Number.isFinite(value)) return 0
  if (Number.isSafeInteger(value)) return value
  const many = Math.floor(value * unit)
  return Number.isFinite(many) ? BigInt(many) : BigInt(value) << bits
}

export function plus(a: Exact, b: Exact): Exact {
  if (typeof a === 'number' && typeof b === 'number' && Number.isSafeInteger(a + b)) return a + b
  return units(a) + units(b)
}

export function toNumber(value: Exact): number {
  if (typeof value === 'number') return value
  const many = Number(value)
  return Number.isFinite(many) ? many / unit : Number(value >> bits)
}
