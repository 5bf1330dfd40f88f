// node examples/opentelemetry/server.mjs
// kill -HUP <the pid that it prints>
//
// Metrics of OpenTelemetry that go on over reloads: curl localhost:3000/metrics. Each process counts by itself; what is shown is the sum over all that live
// and have lived. Durations are whole milliseconds: the sum of fractions depends on the order in which it is made, and a digit less is a counter that ran back.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { PrometheusSerializer } from '@opentelemetry/exporter-prometheus'
import { AggregationType, DataPointType, InstrumentType, MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics'
import { aggregate, handover } from '@handover/core'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()

class Reader extends MetricReader {
  async onForceFlush() {}
  async onShutdown() {}
}
const reader = new Reader()
const views = [{ instrumentType: InstrumentType.HISTOGRAM, aggregation: { type: AggregationType.EXPLICIT_BUCKET_HISTOGRAM, options: { boundaries: [5, 50, 500] } } }]
const meter = new MeterProvider({ readers: [reader], views }).getMeter('example')
const requests = meter.createCounter('requests', { description: 'Requests that were answered.' })
const durations = meter.createHistogram('duration', { description: 'Of a request.', unit: 'ms' })

/** Counters and histograms of this process, as plain data. A gauge is of one process, and so in no sum. */
async function own() {
  const { resourceMetrics } = await reader.collect()
  return resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics).filter(({ dataPointType }) => dataPointType !== DataPointType.GAUGE)
    .map(({ descriptor, aggregationTemporality, dataPointType, isMonotonic, dataPoints }) => structuredClone({ descriptor, aggregationTemporality, dataPointType, isMonotonic, dataPoints }))
}

const nameOf = ({ descriptor }) => descriptor.name
const labelsOf = ({ attributes }) => JSON.stringify(Object.entries(attributes).sort())
const merge = (a, b, keyOf, both) => {
  const all = new Map(a.map((one) => [keyOf(one), one]))
  for (const other of b) all.set(keyOf(other), all.has(keyOf(other)) ? both(all.get(keyOf(other)), other) : other)
  return [...all.values()]
}
/** Histograms of this program have the same buckets in each version. */
const addValues = (a, b) => (typeof a === 'number' ? a + b : {
  ...a, sum: a.sum + b.sum, count: a.count + b.count, buckets: { ...a.buckets, counts: a.buckets.counts.map((count, index) => count + b.buckets.counts[index]) }
})
const add = (a, b) => merge(a, b, nameOf, (one, other) => ({
  ...one, dataPoints: merge(one.dataPoints, other.dataPoints, labelsOf, (point, more) => ({ ...point, value: addValues(point.value, more.value) }))
}))

const metrics = aggregate('opentelemetry', { own, add })
const serializer = new PrometheusSerializer()

const server = handover(http.createServer(async (request, response) => {
  const began = performance.now()
  response.setHeader('x-version', version)
  if (request.url === '/metrics') {
    const { resourceMetrics } = await reader.collect()
    const scope = resourceMetrics.scopeMetrics[0]?.scope ?? { name: 'example' }
    return response.end(serializer.serialize({ resource: resourceMetrics.resource, scopeMetrics: [{ scope, metrics: await metrics.total() }] }))
  }
  requests.add(1, { method: request.method })
  durations.record(Math.round(performance.now() - began))
  response.end(JSON.stringify({ version }))
}))
server.listen(Number(process.env.PORT ?? 3000), () => console.log(`version ${version} listening on`, server.address(), `process ${process.pid}`))
