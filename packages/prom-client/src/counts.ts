/**
 * What only ever grows: counters, histograms, and sum and count of summaries, in a form that can be added up however the versions of the
 * program differ. If the buckets of a histogram were changed, the sum has the buckets of all. A process without a bucket at some bound
 * counts there with its next smaller one, so that the buckets of a sum grow with their bounds and never fall in time. Pure.
 */

import { exact, plus, toNumber, type Exact } from './exact.js'
import { keyOf, labelled, labelsOf, type Exemplar, type Labels, type Metric, type Value } from './metrics.js'

export interface Bucket {
  readonly le: number
  /** Of all up to `le`. */
  readonly count: number
  readonly exemplar?: Exemplar
}

/** Of one set of labels. A counter has its value in `sum`. */
export interface Series {
  readonly labels: Labels
  readonly sum: Exact
  readonly count: number
  /** By `le`. */
  readonly buckets: readonly Bucket[]
  readonly exemplar?: Exemplar
}

/** A series whose values are still being read. */
interface SeriesDraft extends Series {
  sum: Exact
  count: number
  readonly buckets: Bucket[]
}

export interface Family {
  /** Of a counter: as it stands before its values, with _total where OpenMetrics asks for it. */
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'histogram' | 'summary'
  readonly series: ReadonlyMap<string, Series>
}

/** By type and name: a name that is now of another kind of metric is another family. */
export type Counts = ReadonlyMap<string, Family>

export const counts = (type: string): type is Family['type'] => type === 'counter' || type === 'histogram' || type === 'summary'

export const nameOf = ({ name, type }: Pick<Metric, 'name' | 'type'>, openMetrics: boolean): string =>
  (openMetrics && type === 'counter' ? `${name.replace(/_total$/, '')}_total` : name)

/** A copy: prom-client goes on counting in what it gave. Null: there is none. */
const exemplarOf = ({ exemplar }: Value): { exemplar?: Exemplar } => {
  if (!exemplar) return {}
  const { labelSet, value, timestamp } = exemplar
  return { exemplar: { labelSet: { ...labelSet }, value, ...(timestamp !== undefined && { timestamp }) } }
}

function latest(a: Exemplar | undefined, b: Exemplar | undefined): { exemplar?: Exemplar } {
  const exemplar = a && b ? ((a.timestamp ?? 0) < (b.timestamp ?? 0) ? b : a) : (a ?? b)
  return exemplar ? { exemplar } : {}
}

function without(labels: Labels, name: string | undefined): Labels {
  if (name === undefined || !Object.hasOwn(labels, name)) return labels
  const { [name]: _, ...rest } = labels
  return rest
}

/** A bound that the program names twice, or Infinity beside the +Inf that prom-client adds, is one series: a scrape shows it once. */
function addBound(buckets: Bucket[], bucket: Bucket): void {
  const at = buckets.findIndex(({ le }) => Object.is(le, bucket.le))
  if (at < 0) buckets.push(bucket)
  else buckets[at] = { ...buckets[at]!, ...latest(buckets[at]!.exemplar, bucket.exemplar) }
}

/** `more`: labels that each series gets. */
export function countsOf(metrics: readonly Metric[], more: Labels, openMetrics: boolean): Counts {
  const families = metrics.filter(({ type }) => counts(type)).map((metric): Family => {
    const type = metric.type as Family['type']
    const series = new Map<string, SeriesDraft>()
    for (const value of metric.values) {
      const labels = labelsOf(value)
      // Quantiles of several processes cannot be added.
      if (type === 'summary' && labels['quantile'] !== undefined) continue
      const bound = type === 'histogram' ? 'le' : undefined
      const key = keyOf(labels, bound)
      let one = series.get(key)
      if (one === undefined) series.set(key, one = { labels: labelled(without(labels, bound), more), sum: 0, count: 0, buckets: [] })
      if (type === 'counter') Object.assign(one, { sum: plus(one.sum, exact(value.value)) }, exemplarOf(value))
      else if (value.metricName?.endsWith('_sum')) one.sum = exact(value.value)
      else if (value.metricName?.endsWith('_count')) one.count = value.value
      else {
        const le = labels['le'] === '+Inf' ? Infinity : Number(labels['le'])
        addBound(one.buckets, { le, count: value.value, ...exemplarOf(value) })
      }
    }
    const byLabels = new Map([...series.values()].map((one) => [keyOf(one.labels), one]))
    return { name: nameOf(metric, openMetrics), help: metric.help, type, series: byLabels }
  })
  return new Map(families.map((family) => [`${family.type} ${family.name}`, family]))
}

export function addCounts(a: Counts, b: Counts): Counts {
  return union(a, b, (one, other) => ({ ...one, series: union(one.series, other.series, addSeries) }))
}

function union<T>(a: ReadonlyMap<string, T>, b: ReadonlyMap<string, T>, add: (a: T, b: T) => T): Map<string, T> {
  const both = new Map(a)
  for (const [key, other] of b) {
    const one = both.get(key)
    both.set(key, one === undefined ? other : add(one, other))
  }
  return both
}

const addSeries = (a: Series, b: Series): Series => ({
  labels: a.labels, sum: plus(a.sum, b.sum), count: a.count + b.count, buckets: addBuckets(a.buckets, b.buckets),
  ...latest(a.exemplar, b.exemplar)
})

function addBuckets(a: readonly Bucket[], b: readonly Bucket[]): Bucket[] {
  if (a.length === b.length && a.every(({ le }, index) => le === b[index]!.le)) {
    return a.map(({ le, count, exemplar }, index) => ({ le, count: count + b[index]!.count, ...latest(exemplar, b[index]!.exemplar) }))
  }
  const bounds = [...new Set([...a, ...b].map(({ le }) => le))].sort((one, other) => one - other)
  const below = (buckets: readonly Bucket[], bound: number): Bucket | undefined => buckets.findLast(({ le }) => le <= bound)
  const exemplarAt = (bucket: Bucket | undefined, le: number): Exemplar | undefined => (bucket?.le === le ? bucket.exemplar : undefined)
  return bounds.map((le) => {
    const [one, other] = [below(a, le), below(b, le)]
    return { le, count: (one?.count ?? 0) + (other?.count ?? 0), ...latest(exemplarAt(one, le), exemplarAt(other, le)) }
  })
}

/** In the form of prom-client. `local`: the same metric of this process, whose quantiles are shown. */
export function toMetric({ name, help, type, series }: Family, local: Metric | undefined, more: Labels): Metric {
  const quantiles = new Map<string, Value[]>()
  for (const value of type === 'summary' ? (local?.values ?? []) : []) {
    const { quantile, ...labels } = labelsOf(value)
    if (quantile === undefined) continue
    const all = labelled(labels, more)
    quantiles.set(keyOf(all), [...(quantiles.get(keyOf(all)) ?? []), { labels: { quantile, ...all }, value: value.value }])
  }
  const values = [...series].flatMap(([key, { labels, sum, count, buckets, exemplar }]): Value[] => (type === 'counter'
    ? [{ value: toNumber(sum), labels, ...(exemplar && { exemplar }) }]
    : [
        ...(quantiles.get(key) ?? []),
        ...buckets.map(({ le, count: value, exemplar: example }): Value => ({
          metricName: `${name}_bucket`, labels: { le: le === Infinity ? '+Inf' : le, ...labels }, value,
          ...(example && { exemplar: example })
        })),
        { metricName: `${name}_sum`, labels, value: toNumber(sum) },
        { metricName: `${name}_count`, labels, value: count }
      ]))
  return { name: local?.name ?? name, help: local?.help ?? help, type, aggregator: local?.aggregator ?? 'sum', values }
}
