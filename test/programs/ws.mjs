// A WebSocket server for the tests of moves. It sends back every message as it came, checks that the numbers at their beginning follow each other, and
// pushes numbered messages and pings of its own; what it counts is the state that moves.
//   KIND       server (default), noServer, fastify
//   WSS        JSON of options for the WebSocketServer
//   OPTIONS    JSON of HandoverOptions
//   PUSH_MS    how often it pushes (100; 0: never)
//   SAVE, RESTORE    throw: that one does; SAVE also: null, undefined, function (which cannot be sent), null-twice, promise
//   AFTER_SAVE close, terminate: what each WebSocket is asked right after save
//   MUTE       removeAllListeners('message') for each WebSocket
//   LATE       with noServer: 'connection' is emitted when the first message has come, which nobody hears
//   TLS        over TLS
//   REFUSE     from this generation on upgrades are answered 401
//   BLOCK      while this file exists, a successor that serves stands still, its event loop too
//   UNKNOWN    a file that the first boot makes; the others do not know WebSockets
// The message `many <megabytes>` is answered with so much, in numbered messages; `part` with the first half of a message, `rest` with the other.
import { existsSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { handover } from '@handover/core'
import { moveWebSockets } from '@handover/core/ws'
import { WebSocketServer } from 'ws'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { env } = process
const { KIND = 'server', SAVE, RESTORE } = env
const wssOptions = JSON.parse(env.WSS ?? '{}')
const options = { undoWindow: 200, linger: 1_000, ...JSON.parse(env.OPTIONS ?? '{}'), onClose: () => { print('closed') } }
printEvents(handover)
if (env.BLOCK) {
  handover.events.on('state', ({ to, generation }) => {
    // The predecessor must have heard that it serves.
    if (to === 'serving' && generation > 1) setImmediate(() => { while (existsSync(env.BLOCK)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5) })
  })
}

const states = new WeakMap()
const asked = new WeakMap()
const moves = {
  save(ws) {
    const times = (asked.get(ws) ?? 0) + 1
    asked.set(ws, times)
    if (times === 1) print('asked', { readyState: ws.readyState })
    if (SAVE === 'throw') throw new Error('save failed')
    if (SAVE === 'null' || (SAVE === 'null-twice' && times <= 2)) return null
    if (SAVE === 'undefined') return undefined
    if (SAVE === 'promise') return Promise.reject(new Error('save is asynchronous'))
    const state = states.get(ws)
    // The successor's is another, so the old one must not be able to tell.
    setImmediate(() => { afterSave(ws) })
    return { ...state, ...(SAVE === 'function' && { fail: () => undefined }) }
  },
  restore(ws, state) {
    if (RESTORE === 'throw') throw new Error('restore failed')
    if (RESTORE === 'reject') return Promise.reject(new Error('restore failed later'))
    if (states.has(ws)) print('bad', { what: 'restored after the connection handler' })
    states.set(ws, state)
  }
}
const told = new Set()
function afterSave(ws) {
  if (env.AFTER_SAVE === 'close') ws.close(4000, 'enough')
  if (env.AFTER_SAVE === 'terminate') ws.terminate()
  if (told.has('save')) return
  told.add('save')
  ws.send('after save', (error) => { print('sentAfterSave', { error: error?.message, readyState: ws.readyState }) })
}

function connected(ws, request) {
  const moved = states.has(ws)
  if (!moved) states.set(ws, { got: 0, pushed: 0, pinged: 0, ponged: 0 })
  const state = states.get(ws)
  print('connection', { moved, url: request.url, protocol: ws.protocol, cookie: request.headers.cookie, offered: request.headers['sec-websocket-protocol'], method: request.method, remote: request.socket.remoteAddress })
  const bad = (what) => { print('bad', { what, state }) }
  if (env.MUTE) ws.removeAllListeners('message')
  ws.on('message', (data, isBinary) => {
    const text = data.toString('latin1', 0, 40)
    if (text.startsWith('many ')) return sendMany(ws, Number(text.slice(5)))
    if (text === 'part') return ws.send('first half, ', { fin: false })
    if (text === 'rest') return ws.send('second half')
    if (text === 'pid') return ws.send(`pid ${process.pid}`)
    const number = Number.parseInt(text, 10)
    if (number !== state.got + 1) bad(`message ${number} after ${state.got}`)
    state.got = number
    ws.send(data, { binary: isBinary })
  })
  ws.on('pong', (data) => {
    if (Number(data) !== state.ponged + 1) bad(`pong ${data} after ${state.ponged}`)
    state.ponged = Number(data)
  })
  ws.on('close', (code) => { print('close', { code }) })
  ws.on('error', (error) => { bad(error.message) })
}

function sendMany(ws, megabytes) {
  const padding = 'x'.repeat(65_536)
  for (let index = 1; index <= megabytes * 16; index++) ws.send(`${index} ${padding}`)
  print('queued', { bufferedAmount: ws.bufferedAmount })
}

function push(wss) {
  for (const ws of wss.clients) {
    const state = states.get(ws)
    if (ws.readyState !== ws.OPEN || !state) continue
    ws.send(`push ${++state.pushed} ${process.pid}`)
    if (state.pushed % 5 === 0) ws.ping(String(++state.pinged))
  }
}

function take(wss) {
  if (!env.UNKNOWN || !existsSync(env.UNKNOWN)) moveWebSockets(wss, moves)
  if (env.UNKNOWN) writeFileSync(env.UNKNOWN, '')
  const every = Number(env.PUSH_MS ?? 100)
  if (every > 0) setInterval(push, every, wss).unref()
}

async function fastify() {
  const [{ default: Fastify }, { default: plugin }, { default: websocket }] = await Promise.all([import('fastify'), import('@handover/fastify'), import('@fastify/websocket')])
  const app = Fastify()
  await app.register(plugin, options)
  await app.register(websocket, { options: wssOptions })
  take(app.websocketServer)
  app.addHook('preClose', async () => { print('preClose', { clients: app.websocketServer.clients.size }) })
  app.addHook('onRequest', async (request, reply) => {
    print('hook', { url: request.url })
    if (handover.generation >= Number(env.REFUSE)) return reply.code(401).send('who are you')
  })
  if (env.METRICS) app.websocketServer.on('connection', () => { print('metrics') })
  app.get('/ws', { websocket: true }, (socket, request) => { connected(socket, request.raw) })
  await app.listen({ port: 0, host: '127.0.0.1' })
  return app.server
}

async function plain() {
  const server = handover(env.TLS ? https.createServer(certificate()) : http.createServer(), options)
  const wss = new WebSocketServer({ ...(KIND === 'noServer' ? { noServer: true } : { server }), ...wssOptions, ...(env.VERIFY && { verifyClient: () => handover.generation === 1 }) })
  take(wss)
  wss.on('connection', connected)
  if (KIND === 'noServer') {
    server.on('upgrade', (request, socket, head) => {
      wss.handleUpgrade(request, socket, head, (ws) => {
        if (env.LATE) ws.once('message', () => { wss.emit('connection', ws, request) })
        else wss.emit('connection', ws, request)
      })
    })
  }
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

const server = await (KIND === 'fastify' ? fastify() : plain())
print('listening', { address: server.address() })
