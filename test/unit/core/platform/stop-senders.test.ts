/** A signal to stop, and the same one again: from whom it comes decides. */

import { expect, it } from 'vitest'
import { StopSenders } from '../../../helpers/internals.js'

const [kernel, npm, shell] = [-1, 100, 200]

/** Each signal has its senders and its time. Answers for each whether it belongs to the stop before. */
function heard(...signals: readonly (readonly [senders: readonly number[], at: number, signal?: 'SIGTERM' | 'SIGINT'])[]): boolean[] {
  let now = 0
  let next: readonly number[] = []
  const stops = new StopSenders(() => next, () => now)
  return signals.map(([senders, at, signal = 'SIGINT']) => {
    now = at
    next = senders
    return stops.isSameStop(signal)
  })
}

it.each([
  { what: 'the first one', signals: [[[kernel], 0]], same: [false] },
  { what: 'what npm passes on of the terminal\'s', signals: [[[kernel], 0], [[npm], 30]], same: [false, true] },
  { what: 'what npm has passed on before the terminal\'s came', signals: [[[npm], 0], [[kernel], 30]], same: [false, true] },
  { what: 'both, which came in one turn of the loop', signals: [[[kernel, npm], 0], [[], 0]], same: [false, true] },
  { what: 'another signal of somebody else in the same moment', signals: [[[kernel], 0], [[npm], 30, 'SIGTERM']], same: [false, true] },
  { what: 'a second one by the same', signals: [[[kernel], 0], [[kernel], 30]], same: [false, false] },
  { what: 'a second one under npm', signals: [[[kernel], 0], [[npm], 10], [[kernel], 300], [[npm], 310]], same: [false, true, false, true] },
  { what: 'one that somebody else sends later', signals: [[[shell], 0], [[npm], 5_000]], same: [false, false] },
  { what: 'senders that are not known', signals: [[[], 0], [[], 30]], same: [false, false] },
  { what: 'two in one turn of the loop, by the same', signals: [[[shell, shell], 0], [[], 0]], same: [false, false] }
] as const)('$what', ({ signals, same }) => {
  expect(heard(...signals)).toEqual(same)
})
