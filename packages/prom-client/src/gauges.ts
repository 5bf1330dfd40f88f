/**
 * Gauges over the processes that live: what is true now. The gauges of a process that has ended are true of nothing, and are not inherited.
 * Pure.
 */

import { counts } from './counts.js'
import { keyOf, labelled, labelsOf, type Labels, type Metric, type Value } from './metrics.js'

/**
 * `sum`: over all processes that live, those that drain as well. `reset`: begins anew in each generation, over those that serve. `adopt`:
 * as reset, but begins with the value that the predecessor had when the reload began. Not for a gauge with collect(), which knows its value
 * itself.
 */
export type GaugeRule = 'sum' | 'reset' | 'adopt'

/** Of one process. */
export interface Gauges {
  readonly serves: boolean
  readonly metrics: readonly Metric[]
}

export function gaugesOf(metrics: readonly Metric[], more: Labels, serves: boolean): Gauges {
  return {
    serves,
    metrics: metrics.filter(({ type }) => !counts(type)).map(({ name, help, type, aggregator, values }) => ({
      name, help, type, aggregator, values: values.map((value) => ({ labels: labelled(labelsOf(value), more), value: value.value }))
    }))
  }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

/** The aggregators of prom-client, but for `omit`. */
const together: Readonly<Record<string, (values: readonly number[]) => number>> = {
  sum,
  first: (values) => values[0]!,
  min: (values) => Math.min(...values),
  max: (values) => Math.max(...values),
  average: (values) => sum(values) / values.length
}

/**
 * Sums each gauge. `processes`: the process that was asked comes first, and gives help and aggregator. A gauge that prom-client leaves out
 * of its sums (`omit`: when the process was started) is that of this process.
 */
export function sumOfGauges(processes: readonly Gauges[], ruleOf: (name: string) => GaugeRule | undefined): Metric[] {
  const all = new Map<string, Metric>()
  for (const { metrics } of processes) for (const metric of metrics) if (!all.has(metric.name)) all.set(metric.name, metric)
  const serving = processes.filter(({ serves }) => serves)
  // Where no process serves any more (the whole service is stopped), what still drains is all there is.
  const current = serving.length > 0 ? serving : processes
  return [...all.values()].map((metric) => {
    const rule = ruleOf(metric.name)
    const aggregator = rule === 'sum' ? 'sum' : metric.aggregator
    const scope = aggregator === 'omit' ? processes.slice(0, 1) : rule === 'reset' || rule === 'adopt' ? current : processes
    const series = new Map<string, Value[]>()
    for (const value of scope.flatMap(({ metrics }) => metrics.find(({ name }) => name === metric.name)?.values ?? [])) {
      const key = keyOf(labelsOf(value))
      series.set(key, [...(series.get(key) ?? []), value])
    }
    const add = together[aggregator] ?? together['first']!
    const values = [...series.values()].map((same) => ({ labels: labelsOf(same[0]!), value: add(same.map(({ value }) => value)) }))
    return { ...metric, values }
  })
}
