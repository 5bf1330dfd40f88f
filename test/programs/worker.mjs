// A cluster worker or a worker thread that listens, asks itself, and reports to whoever started it. Argument: a Unix path to listen on as well.
import cluster from 'node:cluster'
import { once } from 'node:events'
import http from 'node:http'
import { parentPort } from 'node:worker_threads'
import { handover } from '@handover/core'

const make = () => handover(http.createServer((req, res) => { res.end('ok') }))
async function ask(place) {
  const [response] = await once(http.get({ ...place, agent: false }), 'response')
  return (await response.setEncoding('utf8').toArray()).join('')
}

const server = make().listen(0, '127.0.0.1')
await once(server, 'listening')
const answer = { tcp: await ask({ port: server.address().port, host: '127.0.0.1' }), signals: process.listenerCount('SIGHUP') }
if (cluster.isWorker) {
  const unix = make().listen(process.argv[2])
  await once(unix, 'listening')
  process.send({ ...answer, unix: await ask({ socketPath: process.argv[2] }) })
} else {
  parentPort.postMessage(answer)
}
