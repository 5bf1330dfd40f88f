/**
 * Values of gauges that go on in the next generation (the rule `adopt`). The value of a gauge that the program has not made yet waits for
 * it. A value whose labels the program no longer has is dropped.
 */

import type { Registry } from 'prom-client'
import { labelsOf, type Labels, type Value } from './metrics.js'

/** A gauge, before and after its constructor has run to its end. Where it keeps its values differs between versions. */
interface RegisteredGauge {
  readonly name: string
  readonly collect?: unknown
  get?(): Promise<{ readonly values: readonly Value[] }>
  set?(labels: Labels, value: number): void
}

export type GaugeValues = Readonly<Record<string, readonly { readonly labels: Labels; readonly value: number }[]>>

/** Of the gauges of these names; a gauge with collect() knows its value itself. */
export async function valuesOf(registry: Registry, names: readonly string[]): Promise<GaugeValues> {
  const found = names.map((name) => registry.getSingleMetric(name) as RegisteredGauge | undefined).filter((gauge) => gauge !== undefined)
  return Object.fromEntries(await Promise.all(found.filter(({ collect }) => collect === undefined).map(async (gauge) => {
    const { values = [] } = (await gauge.get?.()) ?? {}
    return [gauge.name, values.map((value) => ({ labels: { ...labelsOf(value) }, value: value.value }))] as const
  })))
}

export function setValues(registry: Registry, all: GaugeValues): void {
  const waiting = new Map(Object.entries(all))
  const give = (gauge: RegisteredGauge | undefined): void => {
    const values = waiting.get(gauge?.name ?? '')
    if (gauge?.set === undefined || values === undefined) return
    waiting.delete(gauge.name)
    if (gauge.collect !== undefined) return
    for (const { labels, value } of values) {
      try {
        gauge.set(labels, value)
      } catch { /* It has other labels now. */ }
    }
  }
  for (const name of [...waiting.keys()]) give(registry.getSingleMetric(name) as RegisteredGauge | undefined)
  if (waiting.size === 0) return
  const register = registry.registerMetric.bind(registry)
  registry.registerMetric = (metric) => {
    register(metric)
    give(metric as unknown as RegisteredGauge)
  }
}
