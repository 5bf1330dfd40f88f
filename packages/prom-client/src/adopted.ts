/**
 * Gauges that begin in a new generation with the value that they had in the last one. What was adopted for a gauge that the program has not
 * made yet waits for it; a value whose labels the program no longer has is dropped.
 */

import type { Registry } from 'prom-client'
import { labelsOf, type Labels, type Value } from './metrics.js'

/** A gauge, before and after its constructor has run to its end. */
interface Settable {
  readonly name: string
  readonly collect?: unknown
  /** Where it keeps its values is its own business, and differs between versions. */
  get?(): Promise<{ readonly values: readonly Value[] }>
  set?(labels: Labels, value: number): void
}

export type Adopted = Readonly<Record<string, readonly { readonly labels: Labels; readonly value: number }[]>>

/** Values of the gauges of these names. */
export async function valuesToAdopt(registry: Registry, names: readonly string[]): Promise<Adopted> {
  const found = names.map((name) => registry.getSingleMetric(name) as Settable | undefined).filter((gauge) => gauge !== undefined && gauge.collect === undefined)
  return Object.fromEntries(await Promise.all(found.map(async (gauge) => {
    const { values = [] } = (await gauge!.get?.()) ?? {}
    return [gauge!.name, values.map((value) => ({ labels: { ...labelsOf(value) }, value: value.value }))] as const
  })))
}

export function adopt(registry: Registry, adopted: Adopted): void {
  const waiting = new Map(Object.entries(adopted))
  const give = (gauge: Settable | undefined): void => {
    const values = waiting.get(gauge?.name ?? '')
    if (gauge?.set === undefined || values === undefined) return
    waiting.delete(gauge.name)
    if (gauge.collect !== undefined) return
    for (const { labels, value } of values) {
      try {
        gauge.set(labels, value)
      } catch {
        // Its labels are others now.
      }
    }
  }
  for (const name of [...waiting.keys()]) give(registry.getSingleMetric(name) as Settable | undefined)
  if (waiting.size === 0) return
  const register = registry.registerMetric.bind(registry)
  registry.registerMetric = (metric) => {
    register(metric)
    give(metric as unknown as Settable)
  }
}
