/**
 * The server of `bench handover`: answers with its version, and writes its reports to stderr as reporter.ts does.
 *
 * With TLS_KEY and TLS_CERT, the names of two files, it speaks https. With WAIT=1 it boots, says `booted`, and listens only when a line
 * comes on its standard input: a successor whose boot takes no time. It listens on LISTENERS ports, and says at its end how long its event
 * loop was held up at most since it served.
 */

import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { once } from 'node:events'
import { handover } from '@handover/core'
import '../reporter.js'

const version = readFileSync(process.env['APP_VERSION_FILE']!, 'utf8').trim()
const answer: http.RequestListener = (_request, response) => {
  response.setHeader('x-version', version).setHeader('x-pid', process.pid).end('ok')
}
const { TLS_KEY: key, TLS_CERT: cert } = process.env
const options = { keepAliveTimeout: 65_000 }
const server = handover(key !== undefined && cert !== undefined
  ? https.createServer({ ...options, key: readFileSync(key), cert: readFileSync(cert) }, answer)
  : http.createServer(options, answer))
if (process.env['WAIT'] === '1') {
  process.stderr.write('booted\n')
  await once(process.stdin, 'data')
  process.stdin.destroy()
}
handover.events.on('state', ({ to }) => {
  if (to !== 'serving') return
  let [last, most] = [performance.now(), 0]
  setInterval(() => {
    const now = performance.now()
    most = Math.max(most, now - last)
    last = now
  }, 1).unref()
  process.on('exit', () => { process.stderr.write(`stall ${most}\n`) })
})
server.listen(Number(process.env['PORT']), '127.0.0.1')
for (let more = Number(process.env['LISTENERS'] ?? 1); more > 1; more--) handover(http.createServer(answer)).listen(0, '127.0.0.1')
