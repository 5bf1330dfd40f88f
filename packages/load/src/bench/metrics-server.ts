/**
 * The server of `bench metrics`: GET /metrics with SERIES lines of counters and as many of histograms. CONTENDER says what makes it:
 * `alone` (one process with prom-client), `handover` (@handover/prom-client, under `handover run` or not) or `cluster` (the first process
 * is the primary: WORKERS of them, summed by prom-client's own AggregatorRegistry).
 */

import cluster from 'node:cluster'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { AggregatorRegistry, Counter, Histogram, register } from 'prom-client'
import { handover } from '@handover/core'
import { inherit } from '@handover/prom-client'

const { CONTENDER: contender, PORT: port, WORKERS: workers, SERIES: series, APP_VERSION_FILE: versionFile } = process.env
const bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

function fill(): void {
  const labelNames = ['method', 'path', 'status'] as const
  const counter = new Counter({ name: 'requests_total', help: 'Requests.', labelNames })
  const histogram = new Histogram({ name: 'duration_seconds', help: 'Of a request.', labelNames, buckets: bounds })
  for (let index = 0; index < Number(series); index++) counter.inc({ method: 'GET', path: `/path/${index}`, status: 200 }, index)
  // A histogram has a line for each bucket, +Inf, sum and count.
  for (let index = 0; index < Number(series) / (bounds.length + 3); index++) {
    for (let value = 1; value <= 20; value++) histogram.observe({ method: 'GET', path: `/path/${index}`, status: 200 }, 1 / value)
  }
}

function serve(metrics: () => Promise<string>): void {
  const version = readFileSync(versionFile!, 'utf8').trim()
  const server = http.createServer((request, response) => {
    response.setHeader('x-version', version).setHeader('x-pid', process.pid)
    if (request.url !== '/metrics') response.end()
    else metrics().then((text) => response.end(text), (error: unknown) => response.writeHead(500).end(String(error)))
  })
  if (contender === 'handover') handover(server)
  server.listen(Number(port), '127.0.0.1')
}

if (contender !== 'cluster' || cluster.isWorker) fill()
if (contender === 'cluster') {
  const aggregator = new AggregatorRegistry()
  // The primary answers, since only it can ask.
  if (cluster.isPrimary) {
    for (let index = 0; index < Number(workers); index++) cluster.fork()
    serve(() => aggregator.clusterMetrics())
  }
} else {
  if (contender === 'handover') inherit()
  serve(() => register.metrics())
}
