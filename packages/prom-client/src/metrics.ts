/**
 * The JSON of prom-client, as far as it is used here. Its own types say neither the text of `type` nor the exemplars. Pure.
 */

export type Labels = Readonly<Record<string, string | number>>

export interface Exemplar {
  readonly labelSet: Labels
  readonly value: number
  readonly timestamp?: number
}

export interface Value {
  /** Versions differ in whether a value without labels has an empty object or none. */
  readonly labels?: Labels | undefined
  /** What some versions keep apart, for all values of one series. */
  readonly sharedLabels?: Labels
  readonly value: number
  /** Where it is not the name of the metric: name_bucket, name_sum, name_count. */
  readonly metricName?: string
  readonly exemplar?: Exemplar | null
}

export interface Metric {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly aggregator: string
  readonly values: readonly Value[]
}

/** The same key for the same labels in any order; 200 and '200' look the same to Prometheus. `except`: a label that is left out. */
export function keyOf(labels: Labels, except?: string): string {
  let key = ''
  for (const name of Object.keys(labels).sort()) {
    if (name === except) continue
    const value = String(labels[name])
    key += `${name} ${value.length} ${value},`
  }
  return key
}

export const labelsOf = ({ labels = {}, sharedLabels }: Value): Labels =>
  (sharedLabels === undefined ? labels : { ...labels, ...sharedLabels })

/** With `more` labels; the program's own labels win. A metric that is registered by hand may have no labels. */
export const labelled = (labels: Labels = {}, more: Labels = {}): Labels =>
  (Object.keys(more).length === 0 ? labels : { ...labels, ...more, ...labels })
