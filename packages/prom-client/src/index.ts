/**
 * @handover/prom-client: a registry that answers for the service. Its counters and histograms go on over reloads, and are summed over all
 * workers.
 *
 * Each process counts in its own registry, as without Handover; only what is shown is a sum. Metrics are read by the public API of
 * prom-client alone, and only gauges with the rule `adopt` are written.
 */

import { inspect } from 'node:util'
import { HandoverError, handover, type Handover, type StateName } from '@handover/core'
import { Registry, register, type OpenMetricsContentType } from 'prom-client'
import { addCounts, countsOf, nameOf, toMetric } from './counts.js'
import { setValues, valuesOf, type GaugeValues } from './gauge-values.js'
import { gaugesOf, sumOfGauges, type GaugeRule } from './gauges.js'
import { labelsOf, type Labels, type Metric } from './metrics.js'
import { readSnapshot, writeSnapshot, type Snapshot } from './snapshot-text.js'

/** What inherit() takes beside the registry. */
export interface InheritOptions {
  /** By name of a gauge. Other gauges are put together over all processes that live, as their `aggregator` says (by default the sum). */
  readonly gauges?: Readonly<Record<string, GaugeRule>> | undefined
  /** Adds the label `generation` to what each process counts. The number of series grows with each reload then. Default: false. */
  readonly generation?: boolean | undefined
  /** Tells a second registry of a process from the first. The same in each version of the program. */
  readonly name?: string | undefined
  /** For tests: the object of the process. Default: `handover` of @handover/core. */
  readonly core?: Pick<Handover, 'aggregate' | 'share' | 'generation' | 'state'> | undefined
}

export type { GaugeRule }

type AnyRegistry = Registry | Registry<OpenMetricsContentType>

const rules: readonly unknown[] = ['sum', 'reset', 'adopt'] satisfies GaugeRule[]
const serving: readonly StateName[] = ['serving', 'launching', 'offering', 'committing']
const inherited = new WeakSet<AnyRegistry>()
/** Of each process: in tests there are several. */
const topics = new WeakMap<object, Set<string>>()

/**
 * Makes `registry.metrics()`, `getMetricsAsJSON()` and `getSingleMetricAsString()` answer for the service: every process that counts, and
 * every one that did. Call it once for each registry, before listen(). By default the registry of prom-client. Throws HANDOVER_OPTION.
 */
function inherit(registry: AnyRegistry = register, options: InheritOptions = {}): void {
  mustBeRight(registry, options)
  const { gauges = {}, generation = false, name, core = handover } = options
  const metrics = registry as Registry
  const topic = name === undefined ? 'prom-client' : `prom-client:${name}`
  const others = topics.get(core) ?? new Set()
  if (others.has(topic)) {
    const called = name === undefined ? 'without a name' : `named ${JSON.stringify(name)}`
    throw refused(`inherit() was called for a second registry ${called}`, "Give it a name of its own: inherit(registry, { name: 'admin' })")
  }
  const toAdopt = Object.keys(gauges).filter((gauge) => gauges[gauge] === 'adopt')
  const more = (): Labels => (generation ? { generation: String(core.generation) } : {})
  const local = metrics.getMetricsAsJSON.bind(metrics) as unknown as () => Promise<Metric[]>
  /** The metrics of this process when it last looked. */
  let latest: readonly Metric[] = []

  const sum = core.aggregate<Snapshot>(topic, {
    own: async () => {
      latest = await local()
      return { counts: countsOf(latest, more(), isOpenMetrics(metrics)), gauges: [gaugesOf(latest, more(), serving.includes(core.state))] }
    },
    add: (a, b) => ({ counts: addCounts(a.counts, b.counts), gauges: [...a.gauges, ...b.gauges] }),
    remains: ({ counts }) => ({ counts, gauges: [] }),
    text: { write: writeSnapshot, read: readSnapshot }
  })
  topics.set(core, others.add(topic))
  if (toAdopt.length > 0) {
    const save = (): Promise<GaugeValues> => valuesOf(metrics, toAdopt)
    core.share<GaugeValues>(`${topic}:gauges`, { save, restore: (values) => { setValues(metrics, values) }, optional: true })
  }
  inherited.add(registry)

  async function ofService(): Promise<Metric[]> {
    const said = await sum.total()
    const mine = latest
    const known = new Map(mine.map((metric) => [nameOf(metric, isOpenMetrics(metrics)), metric]))
    // The metrics of this program decide of what kind a name is.
    const isKnown = (metric: { name: string; type: string }): boolean => (known.get(metric.name)?.type ?? metric.type) === metric.type
    const counted = [...said.counts.values()].filter(isKnown).map((family) => toMetric(family, known.get(family.name), more()))
    const measured = sumOfGauges(said.gauges, (gauge) => (Object.hasOwn(gauges, gauge) ? gauges[gauge] : undefined)).filter(isKnown)
    const all = new Map([...counted, ...measured].map((metric) => [metric.name, metric]))
    // In the order of the program; then the metrics that only others have.
    const first = mine.map((metric) => all.get(metric.name)).filter((metric) => metric !== undefined)
    return [...new Set([...first, ...all.values()])]
  }
  answerWith(metrics, ofService)
}

const isOpenMetrics = (registry: Registry): boolean => (registry.contentType as string) === Registry.OPENMETRICS_CONTENT_TYPE

/** The registry shows these metrics from now on. */
function answerWith(registry: Registry, ofService: () => Promise<Metric[]>): void {
  const text = (shown: readonly Metric[]): Registry => {
    const written = new Registry()
    written.setContentType(registry.contentType)
    for (const metric of shown) {
      // prom-client adds _total again to each value.
      const isNamedAgain = isOpenMetrics(registry) && metric.type === 'counter'
      const named = isNamedAgain ? { ...metric, name: metric.name.replace(/_total$/, '') } : metric
      written.registerMetric({ ...metric, get: () => Promise.resolve(named) } as never)
    }
    return written
  }
  // The caller may change what it gets, and must not change what is counted.
  const copyOf = (metric: Metric): Metric =>
    ({ ...metric, values: metric.values.map((value) => ({ ...value, labels: { ...labelsOf(value) } })) })
  const single = registry.getSingleMetricAsString.bind(registry)
  Object.assign(registry, {
    metrics: async () => await text(await ofService()).metrics(),
    getMetricsAsJSON: async () => (await ofService()).map(copyOf),
    getSingleMetricAsString: async (wanted: string) => {
      const shown = (await ofService()).find((metric) => metric.name === wanted || nameOf(metric, isOpenMetrics(registry)) === wanted)
      return shown === undefined ? await single(wanted) : await text([shown]).getSingleMetricAsString(shown.name)
    }
  })
}

/** Programs in JavaScript may give anything. Throws HANDOVER_OPTION. */
function mustBeRight(registry: unknown, options: unknown): void {
  if (typeof (registry as { getMetricsAsJSON?: unknown } | null)?.getMetricsAsJSON !== 'function') {
    throw refused(`inherit() was given ${inspect(registry, { depth: 0 })} for a registry`, 'Give a Registry of prom-client')
  }
  if (typeof options !== 'object' || options === null) {
    throw refused(`inherit() was given ${inspect(options)} for options`, 'Give an object, or nothing')
  }
  if (inherited.has(registry as AnyRegistry)) {
    throw refused('inherit() was called twice with one registry', 'Call it once for each registry, with all its options')
  }
  const checks: Readonly<Record<keyof InheritOptions, (value: unknown) => boolean>> = {
    gauges: (value) => typeof value === 'object' && value !== null,
    generation: (value) => typeof value === 'boolean',
    name: (value) => typeof value === 'string' && value !== '',
    core: (value) => typeof value === 'function' || (typeof value === 'object' && value !== null)
  }
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(checks, key)) {
      throw refused(`inherit() was given ${key}, which is no option of it`, `Give some of ${Object.keys(checks).join(', ')}`)
    }
    if (value !== undefined && !checks[key as keyof InheritOptions](value)) {
      throw refused(`inherit() was given ${inspect(value)} for ${key}`, 'See docs/metrics.md, what each option takes')
    }
  }
  for (const [gauge, rule] of Object.entries((options as InheritOptions).gauges ?? {})) {
    if (!rules.includes(rule)) throw refused(`inherit() was given ${inspect(rule)} for the gauge ${gauge}`, 'Give sum, reset or adopt')
  }
}

const refused = (what: string, todo: string): HandoverError =>
  new HandoverError('HANDOVER_OPTION', { what, serving: 'Nothing was changed', todo })

export { inherit as default, inherit }

// require() answers with the function itself, as in all adapters.
module.exports = Object.assign(inherit, { default: inherit, inherit })
