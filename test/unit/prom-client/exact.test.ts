/** Sums that do not depend on the order in which they are added, and grow with each of their parts. */

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { exact, type Exact, plus, toNumber } from '../../helpers/internals.js'

const sum = (values: readonly number[]): number => toNumber(values.map(exact).reduce<Exact>(plus, 0))
const duration = fc.double({ min: 0, max: 1e18, noNaN: true })

it('one value alone comes out as it was, down to what no clock measures', () => {
  for (const value of [0, 1, 0.1, 1e-12, 2 ** 53, 2 ** 60, 1e300, -0.25, 123456.789]) expect(sum([value])).toBe(value)
  fc.assert(fc.property(fc.double({ min: 2 ** -70, max: 1e307, noNaN: true }), (value) => { expect(sum([value])).toBe(value) }))
})

it('a sum is the same in whatever order it is added', () => {
  expect(0.1 + 0.2 + 0.3).not.toBe(0.3 + 0.2 + 0.1)
  fc.assert(fc.property(fc.array(duration).chain(
    (values) => fc.tuple(fc.constant(values), fc.shuffledSubarray(values, { minLength: values.length }))
  ), ([values, shuffled]) => {
    expect(sum(shuffled)).toBe(sum(values))
  }))
})

it('a sum in which one part has grown is no smaller, however it is grouped', () => {
  fc.assert(fc.property(fc.array(duration, { minLength: 1 }), duration, fc.nat(), (values, more, at) => {
    const grown = values.map((value, index) => (index === at % values.length ? value + more : value))
    const [first, ...rest] = grown.map(exact)
    const grouped = plus(rest.reduce<Exact>(plus, 0), first!)
    expect(toNumber(grouped)).toBeGreaterThanOrEqual(sum(values))
  }))
})

it('what is no finite number adds nothing', () => {
  expect(sum([1, NaN, Infinity, -Infinity, 2])).toBe(3)
})
