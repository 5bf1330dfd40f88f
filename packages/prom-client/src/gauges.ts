/**
 * Gauges over the processes that live: what is true now. Those of a process that is gone are true of nothing, so nobody inherits them.
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

const average = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length

/** The aggregators of prom-client, but for `omit`. */
const together: Readonly<Record<string, (values: readonly number[]) => number>> = {
  sum: (values) => values.reduce((a, b) => a + b, 0),
  first: (values) => values[0]!,
  min: (values) => Math.min(...values),
  max: (values) => Math.max(...values),
  average
}

/**
 * Of each gauge one. `processes`: that which was asked comes first; so do its help and aggregator. A gauge that prom-client leaves out of
 * its sums (`omit`: when the process was started) is that of the process which was asked.
 */
export function sumOfGauges(processes: readonly Gauges[], ruleOf: (name: string) => GaugeRule | undefined): Metric[] {
  const all = new Map<string, Metric>()
  for (const { metrics } of processes) for (const metric of metrics) if (!all.has(metric.name)) all.set(metric.name, metric)
  const serving = processes.filter(({ serves }) => serves)
  return [...all.values()].map((metric) => {
    const rule = ruleOf(metric.name)
    const aggregator = rule === 'sum' ? 'sum' : metric.aggregator
    // Where nobody serves any more (the whole service is stopped), what still drains is all there is.
    const scope = aggregator === 'omit' ? processes.slice(0, 1) : rule === 'reset' || rule === 'adopt' ? (serving.length > 0 ? serving : processes) : processes
    const series = new Map<string, Value[]>()
    for (const { metrics } of scope) {
      for (const value of metrics.find(({ name }) => name === metric.name)?.values ?? []) series.set(keyOf(labelsOf(value)), [...(series.get(keyOf(labelsOf(value))) ?? []), value])
    }
    const add = together[aggregator] ?? together['first']!
    return { ...metric, values: [...series.values()].map((values) => ({ labels: labelsOf(values[0]!), value: add(values.map(({ value }) => value)) })) }
  })
}
