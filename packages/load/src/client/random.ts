/**
 * Repeatable random numbers in [0, 1): the same seed gives the same think times and the same bodies.
 *
 * The generator is mulberry32 (public domain, Tommy Ettinger). It is not for secrets.
 */

export type Random = () => number

export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6D2B79F5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
