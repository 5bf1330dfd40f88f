// The fuzz of moving connections: two HTTP servers throw every connection that may move at each other, for as long as it lasts, while strict clients
// send requests in every shape and check every byte that they get. Prints one line of JSON; exits with 0 where nothing was wrong.
//   npm run fuzz -- [--moves 100000] [--seconds 3600] [--clients 32] [--seed 1] [--stuck 10000] [--taken-back 0] [--unread 0] [--fresh 0] [--tls] [--mutation 'a name of fuzz-mutations.mjs']
// The run ends with the first failure, after `moves` with so many of them taken back, unread and fresh, or after `seconds`. The seed gives the requests and their fragments again; when the bytes come, and
// when a connection moves, is up to the machine.
// Required, not imported: what a mutation replaces must be what the core itself looks up.
import { closeSync, mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRequire } from 'node:module'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { certificate } from '../programs/certificate.mjs'
import { mutations } from './fuzz-mutations.mjs'
import { Random } from './fuzz-random.mjs'
import { answer } from './fuzz-requests.mjs'

const load = createRequire(import.meta.url)
const core = (file) => load(`../../packages/core/dist/${file}.js`)
/** The modules in which a mutation replaces functions, by the names that it has for them. */
const mutable = {
  receiver: 'connections/connection-receiver', tracker: 'connections/connection-tracker', movability: 'connections/movability', sender: 'connections/connection-sender',
  handle: 'platform/node/connection-handle', cargo: 'connections/tls-cargo'
}

const given = parseArgs({ options: { moves: { type: 'string', default: '100000' }, seconds: { type: 'string', default: '3600' }, clients: { type: 'string', default: '32' }, seed: { type: 'string' }, stuck: { type: 'string', default: '10000' }, tls: { type: 'boolean', default: false }, 'taken-back': { type: 'string', default: '0' }, unread: { type: 'string', default: '0' }, fresh: { type: 'string', default: '0' }, mutation: { type: 'string' } } }).values
const options = { moves: Number(given.moves), seconds: Number(given.seconds), clients: Number(given.clients), stuckMs: Number(given.stuck), takenBack: Number(given['taken-back']), unread: Number(given.unread), fresh: Number(given.fresh), seed: Number(given.seed ?? Date.now() % 1_000_000) }
const random = new Random(options.seed)

let mutated = 0
if (given.mutation !== undefined) {
  const mutate = mutations[given.mutation]
  if (!mutate) throw new Error(`no mutation "${given.mutation}"`)
  mutate(Object.fromEntries(Object.entries(mutable).map(([name, file]) => [name, core(file)])), () => { mutated++ })
}
const { ConnectionReceiver } = core('connections/connection-receiver')
const { Channel } = core('protocol/channel')
const { deadlineIn } = core('protocol/deadline')
const { handoverMessages } = core('protocol/handover-messages')
const { ConnectionTracker } = core('connections/connection-tracker')
const { ConnectionSender } = core('connections/connection-sender')
const { native } = core('platform/native')
const { cannotMove } = core('platform/node/support-check')
const secure = given.tls
if (secure) core('platform/tls-records').watchTls()
if (given.mutation === undefined && cannotMove() !== undefined) throw new Error(cannotMove())

const folder = mkdtempSync(path.join(tmpdir(), 'handover-fuzz-'))
process.on('exit', () => { rmSync(folder, { recursive: true, force: true }) })

// ---- the two processes, in one ----

let moves = 0
let movesUnread = 0
let movesFresh = 0
let takenBack = 0

/** What one process has: a server for each listener, whose connections it knows. */
class Side {
  listeners = new Map()
  #place

  constructor(name) {
    this.#place = path.join(folder, name)
  }

  async listen() {
    for (const [name, where] of [['tcp', { host: '127.0.0.1', port: 0 }], ['unix', { path: this.#place }]]) {
      const settings = { keepAliveTimeout: 120_000, connectionsCheckingInterval: 100 }
      const server = secure ? https.createServer({ ...settings, ...certificate() }) : http.createServer(settings)
      const connections = new ConnectionTracker(server)
      server.on('request', (request, response) => {
        answer(request, response, connections.get(request.socket)?.requests).catch(() => { response.destroy() })
      })
      // Node puts the 100 into the body of the answer where an answer before it is not out yet.
      server.on('checkContinue', (request, response) => {
        const goOn = () => {
          response.writeContinue()
          server.emit('request', request, response)
        }
        if (response.socket) goOn()
        else response.once('socket', goOn)
      })
      this.listeners.set(name, { server, connections })
      await new Promise((resolve) => { server.listen(where, resolve) })
    }
    return { port: this.listeners.get('tcp').server.address().port, path: this.#place }
  }

  adopt(fd, about, keys) {
    moves++
    if (native.pollReadable(fd, 0) === 1) movesUnread++
    if (about.idleMs === undefined) movesFresh++
    this.listeners.get(about.listener).connections.receive(fd, about, keys)
  }

  setTimeouts(ms) {
    for (const { server } of this.listeners.values()) Object.assign(server, { headersTimeout: ms, requestTimeout: ms })
  }
}

/** The two ends of a channel; `holding` is what the predecessor holds, `taking` the successor. */
function connected() {
  const [holding, taking] = native.socketPair()
  const [holdingDescriptors, takingDescriptors] = native.socketPair()
  const channel = (messages, descriptors) => new Channel(new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) }, handoverMessages)
  return { holding: channel(holding, holdingDescriptors), taking: channel(taking, takingDescriptors) }
}

/** What the successor of a round does with the descriptors that it is sent: `short`: some are lost (MSG_CTRUNC); `dead`: it says nothing any more. */
const manner = () => (random.chance(0.1) ? 'short' : random.chance(0.05) ? 'dead' : 'sound')

function lose(fds) {
  takenBack += fds.length
  for (const fd of fds) closeSync(fd)
}

function shortOf(fds) {
  const kept = random.between(0, fds.length)
  lose(fds.slice(kept))
  return fds.slice(0, kept)
}

/** A predecessor drains into a successor, for a moment, and then serves again: what generation.ts does from the commit to the undo. */
async function round(from, to, how = manner()) {
  const { holding, taking } = connected()
  const atOnce = random.chance(0.5) && !secure
  const adopter = new ConnectionReceiver(taking, {
    receive: (fd, about, _acknowledged, keys) => { to.adopt(fd, about, keys) },
    waitsAt: ({ listener }) => {
      if (secure) return undefined
      const { connections } = to.listeners.get(listener)
      if (!connections.takesAll) throw new Error('the fuzz has no listener of its own')
      return atOnce ? connections : undefined
    }
  })
  let flying = 0
  let landed = () => undefined
  const counting = {
    send: (message, fds) => {
      holding.send(message, fds)
      flying++
    }
  }
  let drains = []
  const undo = () => { for (const drain of drains.splice(0)) drain.undo() }
  const room = random.chance(0.1) ? random.between(1, 20) : 1_000_000
  const mover = new ConnectionSender(counting, { listeners: [...from.listeners.keys()], kinds: [], room, atOnce, ...(secure && { tls: [...from.listeners.keys()] }) }, undo)
  drains = [...from.listeners].map(([listener, { connections }]) => connections.drain({ lingerMs: 60_000, deadline: deadlineIn(120_000), route: { mover, listener, http2: false } }))

  const heard = [
    (async () => {
      for (let received; (received = await taking.receive()) !== undefined;) {
        const { message, fds } = received
        if (how === 'dead') lose(fds)
        else await adopter.take(message.connections, how === 'short' ? shortOf(fds) : fds)
      }
    })(),
    (async () => {
      for (let received; (received = await holding.receive()) !== undefined;) {
        mover.taken(received.message.count, received.message.back)
        if (--flying === 0) landed()
      }
    })()
  ]

  if (random.chance(0.1)) await pause(random.between(20, 120))
  else for (let turns = random.between(2, 30); turns > 0; turns--) await turn()

  if (how === 'dead') {
    mover.end('successorEnded', true)
  } else {
    undo()
    if (flying > 0) await new Promise((resolve) => { landed = resolve })
    mover.end({ text: 'the round is over' })
    await adopter.idle()
  }
  holding.close()
  taking.close()
  await Promise.all(heard)
}

let throwing = true
async function throwAll(from, to) {
  while (throwing) {
    await round(from, to)
    if (random.chance(0.5)) await pause(random.between(1, 4))
    else await turn()
  }
}

// ---- the run ----

const begun = performance.now()
const tickMs = 100
const a = new Side('a')
const b = new Side('b')
const places = [await a.listen(), await b.listen()]
const worker = new Worker(new URL('fuzz-clients.mjs', import.meta.url), { workerData: { places, clients: options.clients, seed: options.seed, stuckMs: options.stuckMs, tickMs, secure } })
const ticking = setInterval(() => { worker.postMessage('tick') }, tickMs)
const failures = []
let quiet = 0
let wake = () => undefined
let gone
worker.on('message', (message) => {
  if (message.failure) failures.push(message.failure)
  if (message.quiet !== undefined) quiet++
  if (message.gone) gone = message
  wake()
})
// Under a wrong rule Node's own assertions may fail.
process.on('uncaughtException', (error) => {
  failures.push({ kind: 'bad', reason: error.stack })
  wake()
})
worker.on('error', (error) => {
  failures.push({ kind: 'bad', reason: error.stack })
  wake()
})
async function until(condition) {
  while (!condition() && failures.length === 0) await new Promise((resolve) => { wake = resolve })
}

let over = false
const timer = setTimeout(() => { over = true; wake() }, options.seconds * 1_000)
const looking = setInterval(() => { wake() }, 20)
const thrown = [throwAll(a, b), throwAll(b, a)]

const isEnough = () => moves >= options.moves && takenBack >= options.takenBack && movesUnread >= options.unread && movesFresh >= options.fresh
await until(() => over || isEnough())
worker.postMessage('finish')
await until(() => quiet === options.clients)
// Every connection is idle, and was moved after its last request. None may be taken for one whose request is slow to come.
const before = moves
await until(() => over || moves - before >= 4 * options.clients)
throwing = false
if (failures.length === 0) {
  await Promise.all(thrown)
  // And came back once more, from a successor that died.
  await round(a, b, 'dead')
  await round(b, a, 'dead')
}
a.setTimeouts(500)
b.setTimeouts(500)
if (failures.length === 0) await Promise.race([pause(1_500), until(() => false)])
a.setTimeouts(60_000)
b.setTimeouts(60_000)
worker.postMessage('ask once more')
await until(() => gone !== undefined)
clearTimeout(timer)
clearInterval(looking)
clearInterval(ticking)

const count = (kind) => failures.filter((failure) => failure.kind === kind).length
console.log(JSON.stringify({
  node: process.version, seed: options.seed, seconds: Math.round((performance.now() - begun) / 100) / 10,
  moves, movesUnread, movesFresh, takenBack, requests: gone?.requests ?? null, connections: gone?.connections ?? null,
  bad: count('bad'), stuck: count('stuck'), closed: count('closed'),
  ...(given.mutation !== undefined && { mutation: given.mutation, mutated }), failures: failures.slice(0, 5)
}))
process.exit(failures.length > 0 ? 1 : 0)
