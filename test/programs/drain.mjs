// A server whose requests end when the test says so, for the tests of stop and drain. SIGUSR2 releases what is held.
//   KIND       http (default), https, fastify, express5, express4
//   LISTEN     a host (default 127.0.0.1), or unix:/path
//   OPTIONS    JSON of HandoverOptions; SERVER  JSON of options for createServer
//   CLOSE_MS   how long its close hook takes (default 0)
//   BEHAVIOUR_FILE  one word of behaviour.mjs
//   SIGNALS    a signal that the program itself listens for: SIGTERM, or SIGTERM:later to add the listener after listen()
//   YIELDS     before or later: a package listens for signals, and acts where nothing else does (signal-exit)
// Routes: /  /held (and below)  /streaming  /body (POST; answers the length)  /early (POST; answers before the body)
//         /keep-alive (says so itself)  /list  /pairs (headers as lists)  /stop (calls handover.stop())  and an echo for upgraded connections.
import { subscribe } from 'node:diagnostics_channel'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { setTimeout as wait } from 'node:timers/promises'
import { handover } from '@handover/core'
import { behave } from './behaviour.mjs'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { env } = process
const kind = env.KIND ?? 'http'
const serverOptions = { keepAliveTimeout: 65_000, ...JSON.parse(env.SERVER ?? '{}'), ...(kind === 'https' && certificate()) }
const onClose = async () => {
  await wait(Number(env.CLOSE_MS ?? 0))
  print('closed')
}
const options = { undoWindow: 100, linger: 20_000, ...JSON.parse(env.OPTIONS ?? '{}'), onClose }

printEvents(handover)
for (const name of ['state', 'report', 'draining', 'failed']) {
  subscribe(`handover:${name}`, (message) => { print('diagnostics', { name, message }) })
}

if (env.BEHAVIOUR_FILE) await behave(readFileSync(env.BEHAVIOUR_FILE, 'utf8'), handover)

let releasing = []
process.on('SIGUSR2', () => { for (const release of releasing.splice(0)) release() })
const released = () => new Promise((resolve) => { releasing.push(resolve) })

const [ownSignal, later] = (env.SIGNALS ?? '').split(':')
const ownListener = () => { print('own signal listener') }
if (ownSignal && !later) process.on(ownSignal, ownListener)
/** As versions 3 and 4 of signal-exit. */
const listenBeside = () => {
  const emitters = [process.__signal_exit_emitter__ = { count: 0 }, globalThis[Symbol.for('signal-exit emitter')] = { count: 0 }]
  for (const emitter of emitters) {
    emitter.count++
    for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM']) process.on(signal, () => { if (process.listeners(signal).length === 2) process.exit(1) })
  }
}
if (env.YIELDS === 'before') listenBeside()

async function answer(req, res) {
  const { pathname } = new URL(req.url, 'http://localhost')
  if (pathname !== '/') print('request', { url: req.url })
  switch (pathname.startsWith('/held/') ? '/held' : pathname) {
    case '/held': await released(); break
    case '/streaming':
      res.write('first\n')
      await released()
      res.end('last\n')
      return
    case '/body': {
      let length = 0
      for await (const chunk of req) length += chunk.length
      res.end(`${length} bytes`)
      return
    }
    case '/keep-alive': res.setHeader('Connection', 'keep-alive'); break
    case '/list': res.writeHead(200, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'Content-Length', '2']).end('ok'); return
    case '/pairs': res.writeHead(200, [['Set-Cookie', 'a=1'], ['Set-Cookie', 'b=2'], ['Connection', 'keep-alive'], ['Content-Length', '2']]).end('ok'); return
    case '/stop': void handover.stop(); break
  }
  const text = `answer to ${req.url}`
  res.setHeader('Content-Length', text.length).end(text)
}
const handler = (req, res) => { answer(req, res).catch(() => res.destroy()) }

const upgraded = new Set()
function onUpgrade(req, socket) {
  upgraded.add(socket)
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
  socket.on('data', (chunk) => socket.write(chunk)).on('end', () => socket.end()).on('error', () => {})
  print('upgrade', { url: req.url })
}

const where = env.LISTEN?.startsWith('unix:') ? { path: env.LISTEN.slice(5) } : { port: 0, host: env.LISTEN ?? '127.0.0.1' }

async function listenFastify() {
  const [{ default: Fastify }, { default: plugin }] = await Promise.all([import('fastify'), import('@handover/fastify')])
  const app = Fastify({ forceCloseConnections: false, ...JSON.parse(env.SERVER ?? '{}') })
  await app.register(plugin, options)
  app.addHook('preClose', async () => {
    print('preClose')
    // As @fastify/websocket does.
    for (const socket of upgraded) socket.end('goodbye')
  })
  app.addHook('onClose', async () => { print('onClose') })
  app.get('/', async () => 'answer to /')
  app.get('/held', async (request) => {
    print('request', { url: request.url })
    await released()
    return `answer to ${request.url}`
  })
  app.server.on('upgrade', onUpgrade)
  await app.listen(where)
  return app.server
}

async function listen() {
  if (kind === 'fastify') return listenFastify()
  let server
  if (kind === 'express5' || kind === 'express4') {
    const [{ default: express }, { handover: adopt }] = await Promise.all([import(kind === 'express5' ? 'express' : 'express4'), import('@handover/express')])
    server = http.createServer(serverOptions, adopt(express(), options).use(handler))
  } else {
    server = handover((kind === 'https' ? https : http).createServer(serverOptions, handler), options)
  }
  if (env.UPGRADE !== 'no') server.on('upgrade', onUpgrade)
  await new Promise((resolve, reject) => server.once('error', reject).listen(where, resolve))
  return server
}

const server = await listen()
if (env.YIELDS === 'later') listenBeside()
if (ownSignal && later) process.on(ownSignal, ownListener)
print('listening', { address: server.address() })
