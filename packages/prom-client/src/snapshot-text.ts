/**
 * What a process counts as text, for other processes. A scrape of some thousands of series must not hold up the requests of each process:
 * JSON of arrays is written and read about ten times as fast as what holds any value. Pure.
 */

import type { Bucket, Counts, Family, Series } from './counts.js'
import type { Exact } from './exact.js'
import type { Gauges } from './gauges.js'
import { keyOf, labelsOf, type Exemplar, type Labels, type Metric, type Value } from './metrics.js'

/** What one process counts, or several. */
export interface Snapshot {
  readonly counts: Counts
  readonly gauges: readonly Gauges[]
}

/** JSON has no bigint, no NaN and no Infinity: those are strings. */
type Numeral = number | string

type BucketText = readonly [le: Numeral, count: number, exemplar?: Exemplar]
type SeriesText = readonly [labels: Labels, sum: Numeral, count: number, buckets: readonly BucketText[], exemplar?: Exemplar]
type FamilyText = readonly [key: string, name: string, help: string, type: Family['type'], series: readonly SeriesText[]]
type ValueText = readonly [labels: Labels, value: Numeral]
type GaugeText = readonly [name: string, help: string, type: string, aggregator: string, values: readonly ValueText[]]
interface SnapshotText {
  readonly counts: readonly FamilyText[]
  readonly gauges: readonly (readonly [serves: boolean, metrics: readonly GaugeText[]])[]
}

const numeral = (value: number): Numeral => (Number.isFinite(value) ? value : String(value))
const exactNumeral = (value: Exact): Numeral => (typeof value === 'bigint' ? String(value) : value)
const readExact = (text: Numeral): Exact => (typeof text === 'string' ? BigInt(text) : text)

/** A program in JavaScript may label with anything; prom-client shows it as a string. */
const isPlain = (value: unknown): boolean => typeof value === 'string' || (typeof value === 'number' && Number.isFinite(value))
function plain(labels: Labels): Labels {
  if (Object.values(labels).every(isPlain)) return labels
  return Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, isPlain(value) ? value : String(value)]))
}

const exemplarText = (exemplar: Exemplar): Exemplar => ({ ...exemplar, labelSet: plain(exemplar.labelSet) })
const bucketText = ({ le, count, exemplar }: Bucket): BucketText =>
  (exemplar ? [numeral(le), count, exemplarText(exemplar)] : [numeral(le), count])
function seriesText({ labels, sum, count, buckets, exemplar }: Series): SeriesText {
  const text = [plain(labels), exactNumeral(sum), count, buckets.map(bucketText)] as const
  return exemplar ? [...text, exemplarText(exemplar)] : text
}
const valueText = (value: Value): ValueText => [plain(labelsOf(value)), numeral(value.value)]
const gaugeText = ({ name, help, type, aggregator, values }: Metric): GaugeText => [name, help, type, aggregator, values.map(valueText)]

export function writeSnapshot({ counts, gauges }: Snapshot): string {
  const text: SnapshotText = {
    counts: [...counts].map(([key, { name, help, type, series }]) => [key, name, help, type, [...series.values()].map(seriesText)]),
    gauges: gauges.map(({ serves, metrics }) => [serves, metrics.map(gaugeText)])
  }
  return JSON.stringify(text)
}

const exemplarOf = (exemplar?: Exemplar): { exemplar?: Exemplar } => (exemplar ? { exemplar } : {})
const readBucket = ([le, count, exemplar]: BucketText): Bucket => ({ le: Number(le), count, ...exemplarOf(exemplar) })
const readSeries = ([labels, sum, count, buckets, exemplar]: SeriesText): Series =>
  ({ labels, sum: readExact(sum), count, buckets: buckets.map(readBucket), ...exemplarOf(exemplar) })
const readFamily = ([, name, help, type, series]: FamilyText): Family =>
  ({ name, help, type, series: new Map(series.map((one) => [keyOf(one[0]), readSeries(one)])) })
const readGauge = ([name, help, type, aggregator, values]: GaugeText): Metric =>
  ({ name, help, type, aggregator, values: values.map(([labels, value]) => ({ labels, value: Number(value) })) })

export function readSnapshot(text: string): Snapshot {
  const { counts, gauges } = JSON.parse(text) as SnapshotText
  return {
    counts: new Map(counts.map((family) => [family[0], readFamily(family)])),
    gauges: gauges.map(([serves, metrics]) => ({ serves, metrics: metrics.map(readGauge) }))
  }
}
