// A Fastify or Express program in the shape that a test asks for.
//   APP       fastify, express5, express4
//   SHAPE     JSON; Fastify: { listen, callback, late, required, server: 'https'|'http2'|'http2s'|'factory', close, warmUp, before, beside: [arguments], fails }
//             Express: { required, forms: [{ listen: [arguments], callback: 'none'|'plain'|'error', own: 'http'|'https', onError, before }], once, next }
//             before: which package gets the server before it listens, and answers in the place of the app; beside: of another HTTP server; fails: onClose
//   OPTIONS   JSON of HandoverOptions; canMove: what that function answers
import { existsSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRequire } from 'node:module'
import { setTimeout as wait } from 'node:timers/promises'
import { handover as core } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const shape = JSON.parse(process.env.SHAPE ?? '{}')
const options = { undoWindow: 50, linger: 100, ...JSON.parse(process.env.OPTIONS ?? '{}') }
const { canMove } = options
if (canMove !== undefined) options.canMove = () => canMove
const require = createRequire(import.meta.url)
printEvents(core)

const stands = {
  'socket.io': async (server) => { new (await import('socket.io')).Server(server) },
  '@godaddy/terminus': async (server) => { (await import('@godaddy/terminus')).default.createTerminus(server, { signals: [], healthChecks: { '/health': async () => undefined } }) },
  'a function': async (server) => {
    const [app] = server.listeners('request')
    server.removeAllListeners('request').on('request', (request, response) => { app(request, response) })
  }
}

async function fastify() {
  const { default: Fastify } = await import('fastify')
  const plugin = shape.required ? require('@handover/fastify') : (await import('@handover/fastify')).default
  const servers = {
    https: { https: certificate() },
    http2: { http2: true },
    http2s: { http2: true, https: certificate() },
    factory: { serverFactory: (handler) => http.createServer({ keepAliveTimeout: 1234 }, handler) }
  }
  const app = Fastify(servers[shape.server] ?? {})
  const routes = () => {
    app.get('/', async () => String(process.pid))
    app.get('/slow', async () => { print('slow'); await wait(300); return String(process.pid) })
    app.get('/close', async () => { setImmediate(() => { void app.close().then(() => { print('closed') }) }); return String(process.pid) })
  }
  if (shape.late) routes()
  if (shape.before) await stands[shape.before](app.server)
  await app.register(plugin, shape.fails ? { ...options, onClose: () => { print('own onClose') } } : options)
  if (shape.beside) http.createServer((request, response) => { response.end(String(process.pid)) }).listen(...shape.beside)
  if (!shape.late) routes()
  app.addHook('preClose', async () => { print('preClose') })
  app.addHook('onClose', async () => {
    print('onClose')
    if (shape.fails) throw new Error('the hook failed')
  })
  await app.ready()
  print('decorated', { same: app.handover === core, plugin: app.hasPlugin('@handover/fastify') })

  if (shape.callback) {
    app.listen(shape.listen, (error, address) => { print('listening', { error: error?.code, address, addresses: app.addresses() }) })
  } else {
    const address = await app.listen(shape.listen)
    print('listening', { address, addresses: app.addresses() })
  }
  if (shape.warmUp) {
    await wait(50)
    print('warm', { state: app.handover.state })
    app.handover.ready()
  }
  if (shape.close) {
    await app.close()
    print('closed')
  }
}

async function express(name) {
  const { default: make } = await import(name)
  const { handover } = shape.required ? require('@handover/express') : await import('@handover/express')
  const app = handover(make(), options)
  app.get('/', (req, res) => { res.send(String(process.pid)) })
  // Other places from the second generation on.
  const second = shape.once && existsSync(shape.once)
  if (shape.once) writeFileSync(shape.once, '')
  for (const [index, form] of (second ? shape.next : shape.forms).entries()) {
    const callbacks = { none: [], plain: [() => { print('callback', { index }) }], error: [(error) => { print('callback', { index, error: error?.code }) }] }
    const args = [...form.listen, ...callbacks[form.callback ?? 'none']]
    const own = form.own && (form.own === 'https' ? https.createServer(certificate(), app) : http.createServer(app))
    if (form.before) await stands[form.before](own)
    const server = (own ?? app).listen(...args)
    if (form.onError) server.on('error', (error) => { print('error', { index, error: error.code }) })
    if (!server.listening) await new Promise((resolve) => server.once('listening', resolve))
    print('listening', { index, address: server.address() })
  }
}

const { APP = 'fastify' } = process.env
await (APP === 'fastify' ? fastify() : express(APP === 'express4' ? 'express4' : 'express'))
