/**
 * The server of `bench workers`: answers with its version and pid, after a little work, so that the workers are the limit and not the
 * client.
 *
 * CONTENDER says who starts it: `handover` (then it knows nothing of it), `cluster` (then the first process is the primary: WORKERS of them
 * in turns, and a rolling restart at SIGHUP), or `pm2`. Without Handover it closes as the documents of pm2 and cluster have it:
 * server.close(), and the end when that is done.
 */

import cluster, { type Worker } from 'node:cluster'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'

const { CONTENDER: contender, PORT: port, WORKERS: workers, APP_VERSION_FILE: versionFile } = process.env

async function serve(): Promise<void> {
  const version = readFileSync(versionFile!, 'utf8').trim()
  const work = Buffer.alloc(64 * 1024, version)
  const server = http.createServer({ keepAliveTimeout: 65_000 }, (_request, response) => {
    response.setHeader('x-version', version).setHeader('x-pid', process.pid).end(createHash('sha256').update(work).digest('hex'))
  })
  if (contender !== 'handover') {
    const close = (): void => { server.close(() => process.exit()) }
    process.on('SIGINT', close) // from pm2
    process.on('message', (message) => { if (message === 'close') close() }) // from the primary
  }
  server.listen(Number(port), '127.0.0.1')
  await once(server, 'listening')
  if (contender === 'pm2') process.send?.('ready')
}

async function fork(): Promise<Worker> {
  const worker = cluster.fork()
  await once(worker, 'listening')
  return worker
}

async function lead(): Promise<void> {
  const serving = await Promise.all(Array.from({ length: Number(workers) }, fork))
  process.on('SIGHUP', () => void (async () => {
    for (const [index, old] of serving.entries()) {
      serving[index] = await fork()
      old.send('close')
    }
  })())
}

await (contender === 'cluster' && cluster.isPrimary ? lead() : serve())
