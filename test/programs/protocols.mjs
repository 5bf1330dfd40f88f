// Servers that do not speak HTTP/1 alone, for the tests of reloads.
//   KIND       h2, h2-allow1 (secure), h2c, net, tls, udp
//   LISTEN     127.0.0.1:0
//   VERSION_FILE, OPTIONS  as in server.mjs
// HTTP answers `${version} ${pid}` after ?ms; net, tls and udp send back what they get, the latter with the pid before it.
import dgram from 'node:dgram'
import { readFileSync } from 'node:fs'
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { env } = process
const version = env.VERSION_FILE ? readFileSync(env.VERSION_FILE, 'utf8') : '1'
const options = { undoWindow: 100, linger: 5_000, ...JSON.parse(env.OPTIONS ?? '{}'), onClose: () => { print('closed') } }
const [, host, port] = /^(.*):(\d+)$/.exec(env.LISTEN ?? '127.0.0.1:0')

printEvents(handover)

const answer = (req, res) => {
  const ms = Number(new URL(req.url, 'http://localhost').searchParams.get('ms'))
  print('request', { url: req.url })
  setTimeout(() => { res.end(`${version} ${process.pid}`) }, ms)
}
const echo = (socket) => { socket.on('error', () => undefined).pipe(socket) }

const makers = {
  h2: () => http2.createSecureServer(certificate(), answer),
  'h2-allow1': () => http2.createSecureServer({ ...certificate(), allowHTTP1: true }, answer),
  h2c: () => http2.createServer(answer),
  net: () => net.createServer({ allowHalfOpen: true }, echo),
  tls: () => tls.createServer({ ...certificate(), allowHalfOpen: true }, echo),
  udp: () => dgram.createSocket('udp4', function (message, peer) { this.send(`${process.pid} ${message}`, peer.port, peer.address) })
}

const server = handover(makers[env.KIND](), options)
if (env.KIND === 'udp') await new Promise((resolve) => server.bind(Number(port), host, resolve))
else await new Promise((resolve, reject) => server.once('error', reject).listen(Number(port), host, resolve))
print('listening', { address: server.address(), version })
