// A server that counts its requests with prom-client, for the service: GET /metrics answers the sums. GET /slow answers after 100 ms.
//   PORT      127.0.0.1 and this port (default: 0)
import http from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { handover } from '@handover/core'
import { inherit } from '@handover/prom-client'
import client from 'prom-client'
import { print, printEvents } from './print.mjs'

printEvents(handover)
inherit(client.register, { gauges: { adopted: 'adopt' } })
client.collectDefaultMetrics()
const requests = new client.Counter({ name: 'requests_total', help: 'Requests.', labelNames: ['path'] })
const seconds = new client.Histogram({ name: 'seconds', help: 'Durations.', buckets: [0.05, 0.5, 5] })
const sizes = new client.Summary({ name: 'sizes', help: 'Sizes.', percentiles: [0.5] })
const adopted = new client.Gauge({ name: 'adopted', help: 'Set once.' })

const server = http.createServer({ keepAliveTimeout: 65_000 }, async (request, response) => {
  response.setHeader('x-pid', String(process.pid))
  if (request.url === '/metrics') {
    response.setHeader('content-type', client.register.contentType)
    return response.end(await client.register.metrics())
  }
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
