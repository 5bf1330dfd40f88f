// A server whose connections move, for the tests of it. Every answer says which generation gave it. SIGUSR2 releases what is held.
// Settings, as JSON in SETTINGS (see move-settings.mjs):
//   kind      http (default), https, fastify, express5, express4, koa
//   listen    places: 127.0.0.1:0, [::1]:0, unix:/path
//   options   HandoverOptions; server: options for createServer; limits: what is set on the server; ticketKeys: base64
//   veto      true: canMove says no to the connections that asked for /stay, and throws for those that asked for /throw
//   closes    true: it closes its server at its drain
//   block     a file: at its drain the first generation stands still, its event loop too, until that file exists
// Routes: /  /held  /slow?ms=  /never  /streaming  /events  /body /hash /unread /tls /early (POST)  /big  /raw  /hijack  /listen  /no-probes  /stay  /throw  /keep-alive
//         /count (open connections)  /ticket-keys  /after (asks for its client when it is released)  and an echo for upgraded connections.
import { settings } from './move-settings.mjs'
import { existsSync } from 'node:fs'
import { createHash } from 'node:crypto'
import http from 'node:http'
import https from 'node:https'
import { setTimeout as wait } from 'node:timers/promises'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { kind, veto, block } = settings
const vetoed = new WeakSet()
const throwing = new WeakSet()
const options = {
  undoWindow: 100,
  linger: 20_000,
  ...settings.options,
  ...(veto && {
    canMove: (socket) => {
      print('asked')
      if (throwing.has(socket)) throw new Error('canMove throws')
      return !vetoed.has(socket)
    }
  })
}
const serverOptions = {
  keepAliveTimeout: 65_000,
  ...settings.server,
  ...(settings.ticketKeys && { ticketKeys: Buffer.from(settings.ticketKeys, 'base64') }),
  ...(kind === 'https' && certificate())
}

printEvents(handover)
if (block) {
  handover.events.on('draining', () => {
    if (existsSync(block)) return
    print('blocked')
    while (!existsSync(block)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2)
  })
}

let releasing = []
process.on('SIGUSR2', () => { for (const release of releasing.splice(0)) release() })
const released = () => new Promise((resolve) => { releasing.push(resolve) })

const big = () => Array.from({ length: 1_048_576 }, (_, index) => `${index.toString().padStart(7, '0')}\n`).join('')

async function lengthOf(req) {
  let length = 0
  for await (const chunk of req) length += chunk.length
  return length
}

async function hashOf(req) {
  const chunks = await req.toArray()
  const body = Buffer.concat(chunks)
  return `${body.length} ${createHash('sha256').update(body).digest('hex')}`
}

async function answer(req, res) {
  const { pathname, searchParams } = new URL(req.url, 'http://localhost')
  const { socket } = req
  if (pathname !== '/') print('request', { url: req.url })
  let text = `generation ${handover.generation} answers ${req.url}`
  switch (pathname) {
    case '/held': await released(); break
    case '/slow': await wait(Number(searchParams.get('ms'))); break
    case '/never': return
    case '/streaming':
      res.write('first\n')
      await released()
      res.end(text)
      return
    case '/events':
      res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
      res.write(`data: generation ${handover.generation}\n\n`)
      while (!res.closed && !res.writableEnded) {
        await released()
        if (!res.writableEnded) res.write('data: more\n\n')
      }
      return
    case '/body': text = `generation ${handover.generation} took ${await lengthOf(req)} bytes`; break
    case '/hash': text = await hashOf(req); break
    case '/tls': text = JSON.stringify({
      encrypted: socket.encrypted, authorized: socket.authorized, error: socket.authorizationError, protocol: socket.getProtocol(),
      cipher: socket.getCipher(), alpn: socket.alpnProtocol, servername: socket.servername, finished: socket.getFinished()?.toString('hex'),
      peer: socket.getPeerFinished()?.toString('hex'), reused: socket.isSessionReused(), certificate: socket.getPeerCertificate(),
      session: socket.getSession() !== undefined, exporter: socket.exportKeyingMaterial(32, 'test', Buffer.from('x')).toString('hex'),
      remote: [socket.remoteAddress, socket.remotePort, socket.localPort]
    }); break
    case '/unread': await released(); break
    case '/big':
      res.setHeader('Content-Length', 8_388_608).end(big())
      setImmediate(() => { print('unsent', { bytes: socket.writableLength }) })
      return
    case '/raw':
      res.once('close', () => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n${big()}`)
        setImmediate(() => { print('unsent', { bytes: socket.writableLength }) })
      })
      break
    case '/hijack':
      res.detachSocket(socket)
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${text}`)
      await released()
      socket.write('a word of the application')
      return
    case '/no-probes': socket.setKeepAlive(false); break
    case '/listen': socket.on('data', () => undefined); break
    case '/stay': vetoed.add(socket); break
    case '/throw': throwing.add(socket); break
    case '/keep-alive': res.setHeader('Connection', 'keep-alive'); break
    case '/count': text = `generation ${handover.generation} has ${await new Promise((resolve) => { server.getConnections((error, count) => { resolve(count) }) })} connections`; break
    case '/after':
      res.end(text)
      await released()
      print('after', {
        remote: [socket.remoteAddress, socket.remotePort],
        ...(socket.encrypted && { client: socket.getPeerCertificate()?.subject?.CN, cipher: socket.getCipher()?.name, protocol: socket.getProtocol() })
      })
      return
    case '/ticket-keys': text = server.getTicketKeys().toString('base64'); break
  }
  res.setHeader('Content-Length', text.length).end(text)
}
const handler = (req, res) => { answer(req, res).catch(() => res.destroy()) }

function onUpgrade(req, socket) {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
  socket.on('data', (chunk) => socket.write(chunk)).on('end', () => socket.end()).on('error', () => {})
}

const places = settings.listen.map((place) => {
  if (place.startsWith('unix:')) return { path: place.slice(5) }
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(place)
  return { host, port: Number(port) }
})

function watch(made) {
  Object.assign(made, settings.limits)
  made.on('connection', () => { print('connection') })
  if (settings.upgrade !== false) made.on('upgrade', onUpgrade)
  return made
}

async function listenFastify(place) {
  const [{ default: Fastify }, { default: plugin }] = await Promise.all([import('fastify'), import('@handover/fastify')])
  const app = Fastify({ forceCloseConnections: false, ...settings.server })
  await app.register(plugin, options)
  app.get('/', async () => `generation ${handover.generation} answers /`)
  watch(app.server)
  await app.listen(place)
  return app.server
}

async function make() {
  if (kind === 'express5' || kind === 'express4') {
    const [{ default: express }, { handover: adopt }] = await Promise.all([import(kind === 'express5' ? 'express' : 'express4'), import('@handover/express')])
    const app = adopt(express(), options)
    app.get('/', (req, res) => { res.send(`generation ${handover.generation} answers /`) })
    return http.createServer(serverOptions, app)
  }
  if (kind === 'koa') {
    const { default: Koa } = await import('koa')
    const app = new Koa()
    app.use((context) => { context.body = `generation ${handover.generation} answers ${context.url}` })
    return handover(http.createServer(serverOptions, app.callback()), options)
  }
  return handover((kind === 'https' ? https : http).createServer(serverOptions, handler), options)
}

let server
for (const place of places) {
  if (kind === 'fastify') {
    server = await listenFastify(place)
  } else {
    server = watch(await make())
    await new Promise((resolve, reject) => server.once('error', reject).listen(place, resolve))
  }
  if (settings.closes) handover.events.on('draining', () => { server.close() })
  print('listening', { address: server.address() })
}
