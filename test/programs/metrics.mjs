// A server that counts its requests with prom-client, for the service: GET /metrics answers the sums. GET /slow answers after 100 ms.
// GET /block does not give back the event loop for 3 s.
//   PORT         127.0.0.1 and this port (default: 0)
//   SERIES       so many more series, of a long label each (default: 0)
//   KEPT_FOLDER  a file `build` in it says what is wrong with this build: `probe` (/health answers 503), `crash` (a while after it began to serve)
import { readFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { handover } from '@handover/core'
import { inherit } from '@handover/prom-client'
import client from 'prom-client'
import { print, printEvents } from './print.mjs'

const build = (() => { try { return readFileSync(path.join(process.env.KEPT_FOLDER, 'build'), 'utf8') } catch { return '' } })()
printEvents(handover)
inherit(client.register, { gauges: { adopted: 'adopt' } })
client.collectDefaultMetrics()
const requests = new client.Counter({ name: 'requests_total', help: 'Requests.', labelNames: ['path'] })
const seconds = new client.Histogram({ name: 'seconds', help: 'Durations.', buckets: [0.05, 0.5, 5] })
const sizes = new client.Summary({ name: 'sizes', help: 'Sizes.', percentiles: [0.5] })
const adopted = new client.Gauge({ name: 'adopted', help: 'Set once.' })

const many = new client.Counter({ name: 'many_total', help: 'Many series.', labelNames: ['of'] })
const count = Number(process.env.SERIES ?? 0)
for (let series = 0; series < count; series++) many.inc({ of: `${series} ${'x'.repeat(100)}` })

const server = http.createServer({ keepAliveTimeout: 65_000 }, async (request, response) => {
  response.setHeader('x-pid', String(process.pid))
  if (request.url === '/metrics') {
    response.setHeader('content-type', client.register.contentType)
    return response.end(await client.register.metrics())
  }
  if (request.url === '/health') {
    response.statusCode = build === 'probe' ? 503 : 200
    return response.end()
  }
  if (request.url === '/block') for (const until = performance.now() + 3_000; performance.now() < until;);
  if (request.url === '/adopted') adopted.inc(7)
  if (request.url === '/slow') await wait(100)
  requests.inc({ path: request.url })
  // Thirds and sevenths: their sum depends on the order in which it is made.
  seconds.observe(request.url === '/slow' ? 1 / 3 : 1 / 70)
  sizes.observe(2.5)
  response.end('ok')
})
handover(server, { undoWindow: 100, drainTimeout: 15_000 })
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => { print('listening', { address: server.address() }) })
if (build === 'crash') server.on('listening', () => setTimeout(() => process.exit(9), 1_000))
