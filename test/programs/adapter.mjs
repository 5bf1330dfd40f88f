// A Fastify or Express program in the shape that a test asks for.
//   APP       fastify, express5, express4
//   SHAPE     JSON; Fastify: { listen, callback, late, required, server: 'https'|'http2'|'http2s'|'factory', close, warmUp }
//             Express: { required, forms: [{ listen: [arguments], callback: 'none'|'plain'|'error', own: 'http'|'https', onError }], once, next }
//   OPTIONS   JSON of HandoverOptions
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
const require = createRequire(import.meta.url)
printEvents(core)

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
  await app.register(plugin, options)
  if (!shape.late) routes()
  app.addHook('preClose', async () => { print('preClose') })
  app.addHook('onClose', async () => { print('onClose') })
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
    const server = form.own ? (form.own === 'https' ? https.createServer(certificate(), app) : http.createServer(app)).listen(...args) : app.listen(...args)
    if (form.onError) server.on('error', (error) => { print('error', { index, error: error.code }) })
    if (!server.listening) await new Promise((resolve) => server.once('listening', resolve))
    print('listening', { index, address: server.address() })
  }
}

const { APP = 'fastify' } = process.env
await (APP === 'fastify' ? fastify() : express(APP === 'express4' ? 'express4' : 'express'))
