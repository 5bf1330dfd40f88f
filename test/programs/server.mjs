// One server of each kind, for the tests. It prints what happens as JSON lines and obeys the load client's contract.
//   KIND       http (default), https, fastify, fastify-https, express5, express4
//   LISTEN     where, separated by commas: 127.0.0.1:0, [::1]:0, localhost:0, :0, unix:/path   (default 127.0.0.1:0)
//   VERSION_FILE, BEHAVIOUR_FILE   read at every boot; a behaviour is one of those below, 'ok' by default
//   OPTIONS    JSON of HandoverOptions
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { setTimeout as wait } from 'node:timers/promises'
import { handover } from '@handover/core'
import { referenceHandler } from '../../packages/load/dist/reference.js'
import { behave } from './behaviour.mjs'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { env } = process
const read = (file, otherwise) => { try { return readFileSync(file, 'utf8').trim() } catch { return otherwise } }
const version = read(env.VERSION_FILE, '1')
const options = { undoWindow: 500, linger: 5_000, ...JSON.parse(env.OPTIONS ?? '{}'), onClose: () => { print('closed') } }

printEvents(handover)
await behave(read(env.BEHAVIOUR_FILE, 'ok'), handover)

const contract = referenceHandler(version)
const answer = (req, res) => {
  if (req.url === '/reload') {
    handover.reload().then((report) => res.end(JSON.stringify(report)), (error) => { res.statusCode = 409; res.end(JSON.stringify({ code: error.code, message: error.message })) })
    return
  }
  contract(req, res)
}

const places = (env.LISTEN ?? '127.0.0.1:0').split(',').map((place) => {
  if (place.startsWith('unix:')) return { path: place.slice(5) }
  const [, host, port] = /^(.*):(\d+)$/.exec(place)
  return { port: Number(port), ...(host && { host: host.replace(/[[\]]/g, '') }) }
})

const kinds = {
  http: async () => handover(http.createServer({ keepAliveTimeout: 65_000 }, answer), options),
  https: async () => handover(https.createServer({ keepAliveTimeout: 65_000, ...certificate() }, answer), options),
  async express5() {
    const [{ default: express }, { handover: adopt }] = await Promise.all([import('express'), import('@handover/express')])
    return Object.assign(http.createServer({ keepAliveTimeout: 65_000 }, adopt(express(), options).use(answer)))
  },
  async express4() {
    const [{ default: express }, { handover: adopt }] = await Promise.all([import('express4'), import('@handover/express')])
    return Object.assign(http.createServer({ keepAliveTimeout: 65_000 }, adopt(express(), options).use(answer)))
  }
}

async function listenFastify(place, extra = {}) {
  const [{ default: Fastify }, { default: plugin }] = await Promise.all([import('fastify'), import('@handover/fastify')])
  const app = Fastify({ ...extra })
  await app.register(plugin, options)
  app.addContentTypeParser('*', (request, body, done) => { done(null) })
  app.all('/*', (request, reply) => { reply.hijack(); answer(request.raw, reply.raw) })
  await app.listen(place)
  return app.server
}

const kind = env.KIND ?? 'http'
for (const place of places) {
  let server
  if (kind.startsWith('fastify')) {
    server = await listenFastify(place, kind === 'fastify-https' ? { https: certificate() } : {})
  } else {
    server = await kinds[kind]()
    await new Promise((resolve, reject) => server.once('error', reject).listen(place, resolve))
  }
  print('listening', { address: server.address(), version })
}
if (env.READY_AFTER) { await wait(Number(env.READY_AFTER)); handover.ready() }
