// The server that the chaos is about: it obeys the load client's contract, and its WebSockets send back every message.
//   KIND            http or fastify (with the adapter: WebSockets move), plain (it knows nothing of Handover)
//   PORT            on 127.0.0.1
//   BEHAVIOUR_FILE  read at every boot: see behaviour.mjs
//   OPTIONS         JSON of HandoverOptions
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { WebSocketServer } from 'ws'
import { referenceHandler } from '../../packages/load/dist/reference.js'

const { env } = process
const behaviour = readFileSync(env.BEHAVIOUR_FILE, 'utf8').trim()
if (behaviour !== 'ok') {
  const [{ handover }, { behave }] = await Promise.all([import('@handover/core'), import('./behaviour.mjs')])
  await behave(behaviour, handover)
}

const options = JSON.parse(env.OPTIONS ?? '{}')
const answer = referenceHandler('1')
const place = { host: '127.0.0.1', port: Number(env.PORT) }

function chat(wss) {
  wss.on('connection', (ws) => {
    ws.on('message', (data, binary) => { ws.send(data, { binary }) }).on('error', () => undefined)
  })
}

const kinds = {
  async plain() {
    const server = http.createServer({ keepAliveTimeout: 65_000 }, answer)
    chat(new WebSocketServer({ server }))
    await new Promise((resolve) => server.listen(place, resolve))
  },
  async http() {
    const [{ handover }, { moveWebSockets }] = await Promise.all([import('@handover/core'), import('@handover/core/ws')])
    const server = handover(http.createServer({ keepAliveTimeout: 65_000 }, answer), options)
    const wss = new WebSocketServer({ server })
    moveWebSockets(wss, { save: () => ({}), restore: () => undefined })
    chat(wss)
    await new Promise((resolve) => server.listen(place, resolve))
  },
  async fastify() {
    const [{ default: Fastify }, { default: plugin }, { moveWebSockets }] = await Promise.all([import('fastify'), import('@handover/fastify'), import('@handover/core/ws')])
    const app = Fastify({ keepAliveTimeout: 65_000 })
    await app.register(plugin, options)
    app.addContentTypeParser('*', (request, body, done) => { done(null) })
    app.all('/*', (request, reply) => { reply.hijack(); answer(request.raw, reply.raw) })
    const wss = new WebSocketServer({ server: app.server })
    moveWebSockets(wss, { save: () => ({}), restore: () => undefined })
    chat(wss)
    await app.listen(place)
  }
}
await kinds[env.KIND]()
