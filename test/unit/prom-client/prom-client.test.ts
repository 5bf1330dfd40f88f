/**
 * A registry that answers for the service, with several processes in one: each has its own registry and its own Aggregates, and asks the
 * others directly.
 */

import client, { AggregatorRegistry, Counter, Gauge, Histogram, Registry, Summary } from 'prom-client'
import { describe, expect, it } from 'vitest'
import { Aggregates, decodeState, encodeState, type LifecycleState, type Section, type Snapshot } from '../../helpers/internals.js'
import { inherit, type InheritOptions } from '@handover/prom-client'

const sent = <T>(value: T): T => decodeState(encodeState(value, 'a test'), 'a test') as T

function newRegistry(contentType: string): Registry {
  const registry = new Registry()
  registry.setContentType(contentType as never)
  return registry
}

/** The processes of one app. */
class App {
  readonly living: Process[] = []
  #started = 0

  start(options: InheritOptions = {}, contentType: string = Registry.PROMETHEUS_CONTENT_TYPE): Process {
    const process = new Process(this, ++this.#started, options, contentType)
    this.living.push(process)
    return process
  }
}

class Process {
  readonly registry: Registry
  readonly registers: Registry[]
  readonly aggregates: Aggregates
  readonly core: NonNullable<InheritOptions['core']>
  readonly sections = new Map<string, Section<unknown>>()
  readonly app: App
  state: LifecycleState = 'serving'

  constructor(app: App, generation: number, options: InheritOptions, contentType: string) {
    this.app = app
    this.registry = newRegistry(contentType)
    this.registers = [this.registry]
    this.aggregates = new Aggregates({
      ask: async (topic) => {
        const answers = await Promise.all(app.living.filter((other) => other !== this).map((other) => other.aggregates.snapshot(topic)))
        return answers.filter((answer) => answer !== undefined).map(sent)
      }
    }, `p${generation}`)
    const state = (): LifecycleState => this.state
    this.core = {
      generation,
      get state() { return state() },
      aggregate: (name, counting) => this.aggregates.aggregate(name, counting),
      share: (name, section) => { this.sections.set(name, section as Section<unknown>) }
    }
    this.inherit = (registry, more = {}) => { inherit(registry, { core: this.core, ...more }) }
    this.inherit(this.registry, options)
  }

  readonly inherit: (registry: Registry, options?: InheritOptions) => void

  /** It is gone, and `heir` has what it counted. */
  async end(heir: Process): Promise<void> {
    this.app.living.splice(this.app.living.indexOf(this), 1)
    for (const topic of this.aggregates.topics) heir.aggregates.inherit(topic, sent(await this.aggregates.snapshot(topic) as Snapshot))
  }

  async values(name?: string): Promise<Record<string, number>> {
    const text = name === undefined ? await this.registry.metrics() : await this.registry.getSingleMetricAsString(name)
    return Object.fromEntries(text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => {
      const [, series, value] = /^(\S+(?:\{.*?\})?) (\S+)/.exec(line)!
      return [series!, Number(value)]
    }))
  }
}

/** Text without and with inherit() of the same counts. */
async function sameAs(fill: (registry: Registry) => void, contentType: string = Registry.PROMETHEUS_CONTENT_TYPE): Promise<void> {
  const plain = newRegistry(contentType)
  fill(plain)
  const { registry } = new App().start({}, contentType)
  fill(registry)
  const strip = (text: string): string => text.replaceAll(/ \d{10}(\.\d+)?$/gm, ' TIME')
  const json = sent(await registry.getMetricsAsJSON()) as unknown
  expect(strip(await registry.metrics())).toBe(strip(await plain.metrics()))
  expect(registry.contentType).toBe(plain.contentType)
  const names = (json as { name: string }[]).map(({ name }) => name)
  expect(names).toHaveLength(plain.getMetricsAsArray().length)
}

describe('a process alone', () => {
  it.each([['without default labels', {}], ['with default labels', { app: 'shop', zone: 'a' }]])('shows what prom-client shows without inherit(), to the letter, %s', async (_labels, labels) => {
    await sameAs((registry) => {
      const registers = [registry]
      registry.setDefaultLabels(labels)
      new Counter({ name: 'plain_total', help: 'one \\ line\nanother', registers }).inc(3)
      const counter = new Counter({ name: 'labelled', help: 'b', labelNames: ['status', 'path'], registers })
      counter.inc({ status: 200, path: '/a"b\\c\n' })
      counter.inc({ status: 'none', path: '' }, 0.25)
      // prom-client writes the labels of a histogram after the default ones.
      const named = Object.keys(labels).length > 0 ? {} : { path: '/' }
      const histogram = new Histogram({ name: 'seconds', help: 'c', labelNames: Object.keys(named), buckets: [0.1, 1, 10], registers })
      for (const seconds of [0.05, 0.5, 0.7, 5, 50]) histogram.observe(named, seconds)
      new Histogram({ name: 'none', help: 'c', registers })
      const gauge = new Gauge({ name: 'open', help: 'd', labelNames: ['kind'], registers })
      gauge.set({ kind: 'ws' }, 7)
      gauge.set({ kind: 'odd' }, Infinity)
      new Gauge({ name: 'at', help: 'd', aggregator: 'omit', registers }).set(5)
      const byHand = { name: 'by_hand', help: 'f', type: 'gauge', aggregator: 'sum' }
      registry.registerMetric({ ...byHand, get: () => Promise.resolve({ ...byHand, values: [{ value: 3 }] }) } as never)
      const summary = new Summary({ name: 'sizes', help: 'e', percentiles: [0.5, 0.9], registers })
      for (const size of [1, 2, 3.5]) summary.observe(size)
    })
  })

  it('shows the same in OpenMetrics, with exemplars', async () => {
    await sameAs((registry) => {
      const registers = [registry]
      new Counter({ name: 'requests_total', help: 'a', registers, enableExemplars: true }).inc({ value: 2, exemplarLabels: { traceId: 'abc' } } as never)
      const histogram = new Histogram({ name: 'seconds', help: 'b', buckets: [1, 2], registers, enableExemplars: true })
      histogram.observe({ value: 1.5, exemplarLabels: { traceId: 10n } } as never)
      new Gauge({ name: 'open', help: 'c', registers }).set(1)
    }, Registry.OPENMETRICS_CONTENT_TYPE)
  })

  it('gives as JSON what AggregatorRegistry of prom-client understands', async () => {
    const { registry, registers } = new App().start()
    new Counter({ name: 'n', help: 'n', registers }).inc(2)
    new Histogram({ name: 'h', help: 'h', buckets: [1], registers }).observe(0.5)
    const twice = AggregatorRegistry.aggregate([await registry.getMetricsAsJSON(), await registry.getMetricsAsJSON()])
    expect(await twice.metrics()).toMatch(/^n 4$/m)
    expect(await twice.metrics()).toMatch(/^h_bucket\{le="1"\} 2$/m)
  })
})

describe('counters, histograms and summaries', () => {
  it('are not changed by what a program does with the JSON of them', async () => {
    const app = new App()
    const [old, now] = [app.start(), app.start()]
    for (const [{ registers }, by] of [[old, 100], [now, 10]] as const) {
      new Counter({ name: 'requests', help: 'n', labelNames: ['path'], registers }).inc({ path: '/' }, by)
      new Gauge({ name: 'open', help: 'o', labelNames: ['path'], registers }).set({ path: '/' }, by)
      new Summary({ name: 'sizes', help: 's', labelNames: ['path'], percentiles: [], registers }).observe({ path: '/' }, by)
    }
    await old.end(now)
    for (let time = 0; time < 3; time++) {
      for (const { values } of await now.registry.getMetricsAsJSON() as unknown as { values: { labels: Record<string, string> }[] }[]) for (const { labels } of values) labels['instance'] = `of push ${time}`
      expect(await now.values()).toEqual({ 'requests{path="/"}': 110, 'open{path="/"}': 10, 'sizes_sum{path="/"}': 110, 'sizes_count{path="/"}': 2 })
    }
  })

  it('go on over generations: while the predecessor drains, and after its end', async () => {
    const app = new App()
    const old = app.start()
    const counterOf = ({ registers }: Process): Counter => new Counter({ name: 'requests', help: 'n', labelNames: ['status'], registers })
    const secondsOf = ({ registers }: Process): Histogram => new Histogram({ name: 'seconds', help: 'h', buckets: [0.1, 1], registers })
    const [before, seconds] = [counterOf(old), secondsOf(old)]
    before.inc({ status: 200 }, 3)
    seconds.observe(0.05)
    seconds.observe(5)
    const next = app.start()
    const [after, later] = [counterOf(next), secondsOf(next)]
    after.inc({ status: '200' })
    after.inc({ status: 500 })
    later.observe(0.5)
    const expected = { 'requests{status="200"}': 4, 'requests{status="500"}': 1, 'seconds_bucket{le="0.1"}': 1, 'seconds_bucket{le="1"}': 2, 'seconds_bucket{le="+Inf"}': 3, seconds_sum: 5.55, seconds_count: 3 }
    expect(await next.values()).toEqual(expected)
    expect(await old.values()).toEqual(expected)
    before.inc({ status: 200 })
    expect(await next.values()).toEqual({ ...expected, 'requests{status="200"}': 5 })
    await old.end(next)
    expect(await next.values()).toEqual({ ...expected, 'requests{status="200"}': 5 })
    expect(await next.values('requests')).toEqual({ 'requests{status="200"}': 5, 'requests{status="500"}': 1 })
    expect(await next.registry.getMetricsAsJSON()).toMatchObject([{ name: 'requests', values: [{ value: 5, labels: { status: '200' } }, { value: 1, labels: { status: 500 } }] }, { name: 'seconds' }])
  })

  it('of several workers are the sum in each of them', async () => {
    const app = new App()
    const workers = [1, 10, 100, 1000].map((n) => {
      const worker = app.start()
      new Counter({ name: 'n', help: 'n', registers: worker.registers }).inc(n)
      return worker
    })
    for (const worker of workers) expect(await worker.values()).toEqual({ n: 1111 })
  })

  it('that only an older version had stay in what is shown, after those of the program', async () => {
    const app = new App()
    const old = app.start()
    new Counter({ name: 'gone', help: 'of the old version', registers: old.registers }).inc(2)
    const next = app.start()
    new Counter({ name: 'kept', help: 'k', registers: next.registers }).inc(1)
    await old.end(next)
    expect(await next.registry.metrics()).toBe('# HELP kept k\n# TYPE kept counter\nkept 1\n\n# HELP gone of the old version\n# TYPE gone counter\ngone 2\n')
    expect(await next.values('gone')).toEqual({ gone: 2 })
    const last = app.start()
    await next.end(last)
    expect(await last.values()).toEqual({ kept: 1, gone: 2 })
  })

  it('with other labels, another help or labels in another order are added as Prometheus sees them', async () => {
    const app = new App()
    const old = app.start()
    const before = new Counter({ name: 'n', help: 'old', labelNames: ['a', 'b'], registers: old.registers })
    before.inc({ a: 'x', b: 'y' }, 5)
    const next = app.start()
    const after = new Counter({ name: 'n', help: 'new', labelNames: ['b', 'a', 'c'], registers: next.registers })
    after.inc({ b: 'y', a: 'x' }, 1)
    after.inc({ a: 'x', b: 'y', c: 'z' }, 7)
    await old.end(next)
    expect(await next.values()).toEqual({ 'n{b="y",a="x"}': 6, 'n{a="x",b="y",c="z"}': 7 })
    expect(await next.registry.metrics()).toMatch(/^# HELP n new$/m)
  })

  it('whose name another kind of metric has now are not shown under it, and are there again in a version that has them', async () => {
    const app = new App()
    const first = app.start()
    new Counter({ name: 'n', help: 'n', registers: first.registers }).inc(5)
    const second = app.start()
    new Gauge({ name: 'n', help: 'n', registers: second.registers }).set(1)
    await first.end(second)
    expect(await second.registry.metrics()).toBe('# HELP n n\n# TYPE n gauge\nn 1\n')
    const third = app.start()
    new Counter({ name: 'n', help: 'n', registers: third.registers }).inc(1)
    await second.end(third)
    expect(await third.registry.metrics()).toBe('# HELP n n\n# TYPE n counter\nn 6\n')
  })

  it('with other buckets have the buckets of both, which grow with their bounds, and none is smaller than before', async () => {
    const app = new App()
    const old = app.start()
    const before = new Histogram({ name: 'h', help: 'h', buckets: [1, 5], registers: old.registers })
    for (const value of [0.5, 3, 10]) before.observe(value)
    const shown = await old.values()
    const next = app.start()
    const after = new Histogram({ name: 'h', help: 'h', buckets: [1, 2, 10], registers: next.registers })
    for (const value of [0.5, 1.5, 7, 20]) after.observe(value)
    const expected = { 'h_bucket{le="1"}': 2, 'h_bucket{le="2"}': 3, 'h_bucket{le="5"}': 4, 'h_bucket{le="10"}': 5, 'h_bucket{le="+Inf"}': 7, h_sum: 42.5, h_count: 7 }
    expect(await next.values()).toEqual(expected)
    await old.end(next)
    const now = await next.values()
    expect(now).toEqual(expected)
    expect(Object.keys(now)).toEqual(Object.keys(expected))
    for (const [series, value] of Object.entries(shown)) expect(now[series]).toBeGreaterThanOrEqual(value)
  })

  it('of summaries continue in sum and count, with the quantiles of the process that is asked', async () => {
    const app = new App()
    const summaryOf = ({ registers }: Process): Summary => new Summary({ name: 's', help: 's', labelNames: ['path'], percentiles: [0.5], registers })
    const old = app.start()
    const before = summaryOf(old)
    before.observe({ path: '/a' }, 100)
    before.observe({ path: '/b' }, 1)
    const next = app.start()
    summaryOf(next).observe({ path: '/a' }, 2)
    await old.end(next)
    expect(await next.values()).toEqual({ 's{quantile="0.5",path="/a"}': 2, 's_sum{path="/a"}': 102, 's_count{path="/a"}': 2, 's_sum{path="/b"}': 1, 's_count{path="/b"}': 1 })
  })

  it('with Infinity among their buckets, or a bound twice, show no series twice', async () => {
    const { registry, registers } = new App().start()
    new Histogram({ name: 'h', help: 'h', buckets: [0.1, 0.1, Infinity], registers }).observe(3)
    const names = (await registry.metrics()).split('\n').filter((line) => line.startsWith('h_bucket')).map((line) => line.split(' ')[0])
    expect(names).toEqual(['h_bucket{le="0.1"}', 'h_bucket{le="+Inf"}'])
  })

  it('of summaries and gauges whose values have no labels, or some apart from the others, as versions of prom-client differ in, are shown', async () => {
    const app = new App()
    const other = app.start({ gauges: { open: 'adopt' } })
    const summary = { name: 's', help: 's', type: 'summary', aggregator: 'sum' }
    const gauge = { name: 'open', help: 'g', type: 'gauge', aggregator: 'sum' }
    const values = [{ labels: { quantile: 0.5 }, value: 2 }, { metricName: 's_sum', value: 6 }, { metricName: 's_count', value: 3 }]
    other.registry.registerMetric({ ...summary, get: () => Promise.resolve({ ...summary, values }) } as never)
    // Where it keeps its values is its own business.
    other.registry.registerMetric({ ...gauge, get: () => Promise.resolve({ ...gauge, values: [{ value: 4, labels: { room: 'a' }, sharedLabels: { zone: 'z' } }] }) } as never)
    expect(await other.values()).toEqual({ 's{quantile="0.5"}': 2, s_sum: 6, s_count: 3, 'open{room="a",zone="z"}': 4 })
    expect(await other.sections.get('prom-client:gauges')!.save!({} as never)).toEqual({ open: [{ labels: { room: 'a', zone: 'z' }, value: 4 }] })
  })

  it('of sums with fractions show the same in every process, whatever was added first', async () => {
    const app = new App()
    const all = Array.from({ length: 6 }, (_, index) => {
      const process = app.start()
      const counter = new Counter({ name: 'cpu', help: 'c', registers: process.registers })
      for (let n = 0; n <= index; n++) counter.inc(0.1 + index / 7)
      return process
    })
    const shown = await Promise.all(all.map((process) => process.values()))
    expect(new Set(shown.map(({ cpu }) => cpu)).size).toBe(1)
    await all[0]!.end(all[5]!)
    await all[1]!.end(all[3]!)
    expect(await all[4]!.values()).toEqual(shown[0])
  })

  it('carry the newest exemplar of all processes', async () => {
    const app = new App()
    const open = (): Process => app.start({}, Registry.OPENMETRICS_CONTENT_TYPE)
    const count = async ({ registers }: Process, traceId: string): Promise<void> => {
      new Counter({ name: 'n_total', help: 'n', registers, enableExemplars: true }).inc({ value: 1, exemplarLabels: { traceId } } as never)
      const then = Date.now()
      while (Date.now() === then) await new Promise(setImmediate)
    }
    const [old, next] = [open(), open()]
    await count(next, 'first')
    await count(old, 'second')
    expect(await next.registry.metrics()).toMatch(/^# TYPE n counter\nn_total 2 # \{traceId="second"\} 1 \d+\.?\d*\n# EOF\n$/m)
  })

  it('with a name that ends in _total are the same counter in OpenMetrics and in the older format', async () => {
    const app = new App()
    const old = app.start()
    new Counter({ name: 'n_total', help: 'n', registers: old.registers }).inc(1)
    const next = app.start({}, Registry.OPENMETRICS_CONTENT_TYPE)
    new Counter({ name: 'n_total', help: 'n', registers: next.registers }).inc(2)
    expect(await next.values()).toEqual({ n_total: 3 })
    expect(await old.values()).toEqual({ n_total: 3 })
    expect(await next.values('n_total')).toEqual({ n_total: 3 })
    expect(await next.values()).toEqual({ n_total: 3 })
  })
})

describe('gauges', () => {
  const gaugesOf = ({ registers }: Process, n: number): Gauge[] => ['sum', 'reset', 'adopt', 'unnamed'].map((name) => {
    const gauge = new Gauge({ name, help: name, registers })
    gauge.set(n)
    return gauge
  })
  const gauges = { sum: 'sum', reset: 'reset', adopt: 'adopt' } as const

  it('are summed over all that live, or over those that serve, and never inherited', async () => {
    const app = new App()
    const [old, next, worker] = [app.start({ gauges }), app.start({ gauges }), app.start({ gauges })]
    gaugesOf(old, 100)
    gaugesOf(next, 10)
    gaugesOf(worker, 1)
    old.state = 'draining'
    for (const process of [old, next, worker]) expect(await process.values()).toEqual({ sum: 111, reset: 11, adopt: 11, unnamed: 111 })
    await old.end(next)
    expect(await worker.values()).toEqual({ sum: 11, reset: 11, adopt: 11, unnamed: 11 })
    next.state = 'draining'
    worker.state = 'draining'
    expect(await worker.values()).toEqual({ sum: 11, reset: 11, adopt: 11, unnamed: 11 })
  })

  it('that only a process has which drains are shown while it does', async () => {
    const app = new App()
    const [old, next] = [app.start(), app.start()]
    new Gauge({ name: 'old', help: 'o', registers: old.registers }).set(3)
    expect(await next.values()).toEqual({ old: 3 })
    await old.end(next)
    expect(await next.values()).toEqual({})
  })

  it('are put together as their aggregator says, and what prom-client leaves out of sums is that of the process asked', async () => {
    const app = new App()
    const all = [1, 2, 6].map((n) => {
      const process = app.start()
      for (const aggregator of ['sum', 'min', 'max', 'average', 'first', 'omit'] as const) {
        new Gauge({ name: aggregator, help: 'g', aggregator, labelNames: ['a', 'b'], registers: process.registers }).set(n === 1 ? { a: 1, b: 2 } : { b: '2', a: '1' }, n)
      }
      return process
    })
    const labels = '{b="2",a="1"}'
    expect(await all[1]!.values()).toEqual({ [`sum${labels}`]: 9, [`min${labels}`]: 1, [`max${labels}`]: 6, [`average${labels}`]: 3, [`first${labels}`]: 2, [`omit${labels}`]: 2 })
  })

  it('to adopt begin with the value of the predecessor, with its labels, whether they were made before it arrives or after', async () => {
    const app = new App()
    const options = { gauges: { early: 'adopt', late: 'adopt', collected: 'adopt', gone: 'adopt' } } as const
    const make = ({ registers }: Process, name: string, labelNames: string[] = []): Gauge =>
      new Gauge({ name, help: name, labelNames, registers })
    const old = app.start(options)
    make(old, 'early', ['room']).set({ room: 'a' }, 4)
    const late = make(old, 'late', ['room', 'kind'])
    late.set({ room: 'b', kind: 'x' }, 5)
    make(old, 'gone').set(9)
    new Gauge({ name: 'collected', help: 'c', collect() { this.set(7) }, registers: old.registers })
    const next = app.start(options)
    const early = make(next, 'early', ['room'])
    const saved = sent(await old.sections.get('prom-client:gauges')!.save!({} as never))
    old.state = 'draining'
    await next.sections.get('prom-client:gauges')!.restore!(saved, {} as never)
    new Gauge({ name: 'collected', help: 'c', collect() { this.set(1) }, registers: next.registers })
    const lateOnes = make(next, 'late', ['room', 'kind'])
    expect(await next.values('early')).toEqual({ 'early{room="a"}': 4 })
    expect(await next.values('late')).toEqual({ 'late{room="b",kind="x"}': 5 })
    expect(await next.values('collected')).toEqual({ collected: 1 })
    early.inc({ room: 'a' })
    lateOnes.dec({ room: 'b', kind: 'x' }, 2)
    expect(await next.values('early')).toEqual({ 'early{room="a"}': 5 })
    expect(await next.values('late')).toEqual({ 'late{room="b",kind="x"}': 3 })
  })

  it('to adopt begin anew where the program has other labels now', async () => {
    const app = new App()
    const options = { gauges: { g: 'adopt' } } as const
    const old = app.start(options)
    new Gauge({ name: 'g', help: 'g', labelNames: ['room'], registers: old.registers }).set({ room: 'a' }, 4)
    const next = app.start(options)
    const saved = sent(await old.sections.get('prom-client:gauges')!.save!({} as never))
    await next.sections.get('prom-client:gauges')!.restore!(saved, {} as never)
    new Gauge({ name: 'g', help: 'g', registers: next.registers })
    await old.end(next)
    expect(await next.values()).toEqual({ g: 0 })
  })
})

describe('the default metrics', () => {
  it('are those of one service: what was used is summed, lag is an average, the start is that of the process asked', async () => {
    const app = new App()
    const [old, next] = [app.start(), app.start()]
    for (const { registry } of [old, next]) client.collectDefaultMetrics({ register: registry })
    const started = Math.round(Date.now() / 1000 - process.uptime())
    const first = await next.values()
    expect(Math.abs(first['process_start_time_seconds']! - started)).toBeLessThanOrEqual(1)
    expect(Object.entries(first).filter(([name]) => name.startsWith('nodejs_version_info'))).toEqual([[expect.stringContaining(process.version), 1]])
    await old.end(next)
    const then = await next.values()
    expect(then['process_cpu_seconds_total']).toBeGreaterThanOrEqual(first['process_cpu_seconds_total']!)
    expect(then['process_resident_memory_bytes']).toBeLessThan(first['process_resident_memory_bytes']! * 0.75)
    expect(Object.keys(then)).toEqual(expect.arrayContaining(Object.keys(first).filter((name) => !name.includes('{'))))
    const plain = new Registry()
    client.collectDefaultMetrics({ register: plain })
    const shown = (await next.registry.getMetricsAsJSON()).map(({ name }) => name)
    expect(shown).toEqual((await plain.getMetricsAsJSON()).map(({ name }) => name))
  })
})

describe('inherit()', () => {
  it('adds no label unless the generation is asked for', async () => {
    const app = new App()
    const [old, next] = [app.start({ generation: true }), app.start({ generation: true })]
    for (const { registers } of [old, next]) {
      new Counter({ name: 'n', help: 'n', registers }).inc(2)
      new Gauge({ name: 'g', help: 'g', registers }).set(3)
      new Summary({ name: 's', help: 's', percentiles: [0.5], registers }).observe(1)
    }
    await old.end(next)
    expect(await next.values()).toEqual({
      'n{generation="2"}': 2, 'n{generation="1"}': 2, 'g{generation="2"}': 3,
      's{quantile="0.5",generation="2"}': 1, 's_sum{generation="2"}': 1, 's_count{generation="2"}': 1, 's_sum{generation="1"}': 1, 's_count{generation="1"}': 1
    })
  })

  it('keeps two registries apart that have two names', async () => {
    const app = new App()
    const [old, next] = [app.start(), app.start()]
    const others = [old, next].map((process, index) => {
      const registry = new Registry()
      process.inherit(registry, { name: 'admin' })
      new Counter({ name: 'n', help: 'n', registers: process.registers }).inc(1)
      new Counter({ name: 'n', help: 'n', registers: [registry] }).inc(10 + index)
      return registry
    })
    await old.end(next)
    expect(await next.values()).toEqual({ n: 2 })
    expect(await others[1]!.metrics()).toMatch(/^n 21$/m)
  })

  it('answers for registries that were merged, where it is given what came of it', async () => {
    const app = new App()
    const [old, next] = [app.start({ name: 'unused' }), app.start({ name: 'unused' })]
    const merged = [old, next].map((process) => {
      const parts = ['a', 'b'].map((name) => {
        const part = new Registry()
        new Counter({ name, help: name, registers: [part] }).inc()
        return part
      })
      const registry = Registry.merge(parts)
      process.inherit(registry)
      return registry
    })
    expect(await merged[0]!.metrics()).toMatch(/^a 2$[^]*^b 2$/m)
  })

  it.each([
    ['a registry that it has already', (process: Process) => [process.registry, {}], 'twice with one registry'],
    ['a second one without a name', () => [new Registry(), {}], 'a second registry without a name'],
    ['a rule that it does not know', () => [new Registry(), { name: 'x', gauges: { open: 'keep' } }], "'keep' for the gauge open"],
    ['an option that it does not know', () => [new Registry(), { name: 'x', gauge: {} }], 'gauge, which is no option'],
    ['an option of another type', () => [new Registry(), { name: 7 }], '7 for name'],
    ['no registry', () => [{}, { name: 'x' }], '{} for a registry'],
    ['no options', () => [new Registry(), null], 'null for options']
  ] as [string, (process: Process) => [Registry, InheritOptions], string][])('refuses %s', (_what, given, message) => {
    const process = new App().start()
    const [registry, options] = given(process)
    expect(() => { inherit(registry, options && { core: process.core, ...options }) }).toThrowError(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringContaining(message) as string }))
  })

  it('rejects with what a collect function throws, as prom-client does, and says of an unknown metric what prom-client says', async () => {
    const { registry, registers } = new App().start()
    await expect(registry.getSingleMetricAsString('nothing')).rejects.toThrow(TypeError)
    new Gauge({ name: 'g', help: 'g', registers, collect() { throw new Error('no database') } })
    await expect(registry.metrics()).rejects.toThrow('no database')
  })
})
