// A server for the option warmUp.
//   KIND            http (1), https, h2c, h2, net
//   LISTEN          127.0.0.1:0, or a path
//   BEHAVIOUR_FILE  what becomes of a warm-up request: ok, a status, hang, throw
//   OPTIONS         of handover()
// Prints `warm` for the first warm-up request, and with each 'state' how many there were. HTTP answers with `${pid} ${warm}`.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print } from './print.mjs'

const { env } = process
const behaviour = env.BEHAVIOUR_FILE ? readFileSync(env.BEHAVIOUR_FILE, 'utf8') : 'ok'
const seen = { warm: 0, urls: {}, addresses: {} }

const answer = (request, response) => {
  if (request.headers['user-agent'] !== 'handover-warm-up') return response.end(`${process.pid} ${seen.warm}`)
  const { url, socket: { remoteAddress } } = request
  if (seen.warm++ === 0) print('warm')
  seen.urls[url] = (seen.urls[url] ?? 0) + 1
  seen.addresses[remoteAddress] = (seen.addresses[remoteAddress] ?? 0) + 1
  if (behaviour === 'hang') return undefined
  if (behaviour === 'throw') throw new Error('this build cannot answer')
  response.statusCode = behaviour === 'ok' ? 200 : Number(behaviour)
  return response.end(url === '/a' ? 'ok' : 'x'.repeat(20_000))
}

const makers = {
  http: () => http.createServer(answer),
  https: () => https.createServer(certificate(), answer),
  h2c: () => http2.createServer(answer),
  h2: () => http2.createSecureServer(certificate(), answer),
  net: () => net.createServer((socket) => { socket.end(`${process.pid} 0`) })
}

handover.events.on('state', (change) => {
  print('state', { ...change, ...seen })
})
handover.events.on('report', (report) => { print('report', { report }) })
handover.events.on('failed', ({ code, message }) => { print('failed', { code, message }) })
const options = { undoWindow: 100, warmUp: ['/a', '/b?c=d'], ...JSON.parse(env.OPTIONS ?? '{}') }
const server = handover(makers[env.KIND ?? 'http'](), options)
const [, host, port] = /^(.*):(\d+)$/.exec(env.LISTEN ?? '127.0.0.1:0') ?? []
server.listen(...(host ? [Number(port), host] : [env.LISTEN]), () => { print('listening', { address: server.address() }) })
