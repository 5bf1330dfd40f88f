/** What a process counts comes to another one as it was, whatever is in it. */

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { keyOf, type Labels, readSnapshot, writeSnapshot } from '../../helpers/internals.js'

const name = fc.stringMatching(/^[a-z_]{1,8}$/)
const labels = fc.dictionary(name, fc.oneof(fc.string({ unit: 'binary' }), fc.integer()), { maxKeys: 3, noNullPrototype: true })
const exact = fc.oneof(fc.maxSafeInteger(), fc.bigInt())
const exemplar = fc.record({ labelSet: labels, value: fc.integer(), timestamp: fc.integer() }, { requiredKeys: ['labelSet', 'value'] })
const withExemplar = <T>(made: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.tuple(made, fc.option(exemplar)).map(([value, one]) => (one ? { ...value, exemplar: one } : value))
const series = withExemplar(fc.record({
  labels, sum: exact, count: fc.nat(), buckets: fc.array(
    withExemplar(fc.record({ le: fc.oneof(fc.integer(), fc.constant(Infinity)), count: fc.nat() }))
  )
}))
const family = fc.record({
  name, help: fc.string(), type: fc.constantFrom('counter' as const, 'histogram' as const, 'summary' as const), series: fc.array(series).map((all) => new Map(all.map((one) => [keyOf(one.labels), one])))
})
const gauge = fc.record({ name, help: fc.string(), type: fc.constant('gauge'), aggregator: fc.constantFrom('sum', 'omit'), values: fc.array(fc.record({ labels, value: fc.double().map((value) => value + 0) })) })
const snapshot = fc.record({
  counts: fc.array(family).map((all) => new Map(all.map((one) => [`${one.type} ${one.name}`, one]))), gauges: fc.array(fc.record({ serves: fc.boolean(), metrics: fc.array(gauge) }))
})

it('comes back as it was', () => {
  fc.assert(fc.property(snapshot, (value) => { expect(readSnapshot(writeSnapshot(value))).toEqual(value) }))
})

it('has labels that are neither text nor numbers as prom-client shows them', () => {
  const odd = { yes: true, none: undefined, large: 10n, not: NaN } as unknown as Labels
  const { gauges } = readSnapshot(writeSnapshot({ counts: new Map(), gauges: [{ serves: true, metrics: [{ name: 'a', help: '', type: 'gauge', aggregator: 'sum', values: [{ labels: odd, value: 1 }] }] }] }))
  const shown = { yes: 'true', none: 'undefined', large: '10', not: 'NaN' }
  expect(gauges[0]!.metrics[0]!.values[0]!.labels).toEqual(shown)
  const exemplar = { labelSet: odd, value: 1 }
  const one = { labels: odd, sum: 1, count: 1, buckets: [{ le: Infinity, count: 1, exemplar }], exemplar }
  const { counts } = readSnapshot(writeSnapshot({ counts: new Map([['counter a', { name: 'a', help: '', type: 'counter', series: new Map([[keyOf(odd), one]]) }]]), gauges: [] }))
  const [read] = counts.get('counter a')!.series.values()
  expect([read!.labels, read!.exemplar?.labelSet, read!.buckets[0]!.exemplar?.labelSet]).toEqual([shown, shown, shown])
})
