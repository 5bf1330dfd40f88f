// A server of HTTP/2 in the clear (KIND h2c) or over TLS (h2) whose answers can be checked: x-hash is of the body that came, and the body
// is `bytes` long and begins with ?seed. With ?trailers the answer has some; with ?events it is a stream of them; CONNECT with a protocol is echoed. Environment as in
// protocols.mjs; PRINT: each request is printed, with the windows of its session as the server sees them.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http2 from 'node:http2'
import { TLSSocket } from 'node:tls'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { env } = process
const tlsOf = ({ encrypted, alpnProtocol: alpn, socket }) => ({
  encrypted, alpn, socket: {
    isTlsSocket: socket instanceof TLSSocket, isOfServer: socket.server === server, encrypted: socket.encrypted, alpn: socket.alpnProtocol, servername: socket.servername, protocol: socket.getProtocol(), cipher: socket.getCipher(),
    authorized: socket.authorized, finished: socket.getFinished().toString('hex')
  }
})
const version = env.VERSION_FILE ? readFileSync(env.VERSION_FILE, 'utf8') : '1'
const options = { undoWindow: 100, ...JSON.parse(env.OPTIONS ?? '{}') }
const [, host, port] = /^(.*):(\d+)$/.exec(env.LISTEN ?? '127.0.0.1:0')

printEvents(handover)

const settings = JSON.parse(env.SETTINGS ?? '{}')
const server = env.KIND === 'h2' ? http2.createSecureServer({ ...certificate(), settings }) : http2.createServer({ settings })
server.on('session', (session) => {
  print('session', { peer: session.socket.remotePort, local: session.socket.localPort, settings: session.localSettings })
  session.on('error', (error) => { print('sessionError', { message: error.message }) })
  if (env.WINDOW) session.setLocalWindowSize(Number(env.WINDOW))
})
server.on('stream', (stream, headers) => {
  const url = new URL(headers[':path'] ?? '/', 'http://localhost')
  const [bytes, ms, seed] = ['bytes', 'ms', 'seed'].map((name) => Number(url.searchParams.get(name)))
  const hash = createHash('sha256')
  if (env.PRINT) {
    // Undefined where the client has reset the stream at once.
    const { effectiveLocalWindowSize, effectiveRecvDataLength } = stream.session?.state ?? {}
    print('request', { url: headers[':path'], id: stream.id, clientMaySend: effectiveLocalWindowSize - effectiveRecvDataLength, push: stream.pushAllowed })
  }
  stream.on('error', (error) => { print('streamError', { message: error.message }) })
  if (headers[':method'] === 'CONNECT') {
    stream.respond({ ':status': 200, 'x-version': version, 'x-protocol': headers[':protocol'] })
    stream.pipe(stream)
    return
  }
  if (url.searchParams.has('events')) {
    stream.respond({ 'Content-Type': 'text/event-stream; charset=utf-8' })
    const timer = setInterval(() => { if (!stream.writableEnded) stream.write('data: 1\n\n') }, 20)
    stream.resume().once('close', () => { clearInterval(timer) })
    return
  }
  if (url.searchParams.has('push')) stream.pushStream({ ':path': '/pushed' }, (error, pushed) => { if (!error) pushed.end('pushed') })
  stream.on('data', (chunk) => { hash.update(chunk) })
  stream.on('end', () => {
    setTimeout(() => {
      if (stream.destroyed) return
      const hashed = hash.digest('hex')
      const { remoteAddress, remotePort } = stream.session.socket
      const waitForTrailers = url.searchParams.has('trailers')
      if (waitForTrailers) stream.once('wantTrailers', () => { stream.sendTrailers({ 'x-trailer': `${hashed}` }) })
      stream.respond({
        ':status': 200, 'content-type': 'application/octet-stream', 'x-version': version, 'x-hash': hashed, 'x-echo': headers['x-thing'],
        'x-peer': `${remoteAddress} ${remotePort}`, 'x-settings': JSON.stringify(stream.session.remoteSettings), 'x-pid': String(process.pid), 'x-tls': env.KIND === 'h2' && env.PRINT ? JSON.stringify(tlsOf(stream.session)) : undefined
      }, { waitForTrailers })
      const body = Buffer.alloc(bytes, 'body')
      if (bytes >= 4) body.writeUInt32BE(seed)
      stream.end(body)
    }, ms)
  })
})
handover(server, options)
await new Promise((resolve, reject) => server.once('error', reject).listen(Number(port), host, resolve))
print('boot', { node: process.version })
print('listening', { address: server.address(), version })
