// The clients of the fuzz, in a thread of their own, so that their bytes come at any moment of a move. Each has one connection at a time and sends
// requests in fragments, several before the first answer, and checks all that comes back. They never send anything twice.
//   in   'tick': the servers' event loop turns.  'finish': have no request under way any more.  'ask once more': a last request, then go.
//   out  { failure }, { quiet }, { gone, requests, connections }
import net from 'node:net'
import tls from 'node:tls'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { AnswerReader, makeRequest } from './fuzz-requests.mjs'
import { Random } from './fuzz-random.mjs'

const { places, clients, seed, stuckMs, tickMs, secure } = workerData
let requests = 0
let connections = 0
let finishing = false
let askOnceMore
const askedOnceMore = new Promise((resolve) => { askOnceMore = resolve })
const open = new Set()
let ticked = false

parentPort.on('message', (word) => {
  if (word === 'finish') finishing = true
  else if (word === 'ask once more') askOnceMore()
  else if (!ticked) {
    // One for those that came together, after what had arrived was read: a machine that stands still is no connection that is stuck.
    ticked = true
    setImmediate(() => {
      ticked = false
      for (const connection of open) connection.tick()
    })
  }
})

class Connection {
  #socket
  #client
  #outstanding = []
  #written = 0
  #ticksSilent = 0
  #leaving = false
  #wake = () => undefined

  constructor(socket, client) {
    connections++
    this.#socket = socket
    this.#client = client
    const reader = new AnswerReader({
      next: () => this.#outstanding[0],
      goOn: (request) => { request.mayGoOn = true },
      done: () => { this.#outstanding.shift() }
    })
    socket.setNoDelay(true)
    socket.on('data', (bytes) => {
      this.#ticksSilent = 0
      try {
        reader.feed(bytes)
      } catch (error) {
        this.#fail('bad', error.message)
      }
      this.#wake()
      this.#readSlowly()
    })
    socket.on('error', (error) => { this.#fail('closed', error.code) })
    socket.on('end', () => { if (!this.#leaving) this.#fail('closed', 'by the server') })
    open.add(this)
  }

  tick() {
    if (++this.#ticksSilent * tickMs < stuckMs) return
    if (this.#leaving) this.#fail('stuck', 'the server does not see that its client has left')
    else if (this.#outstanding.length > 0) this.#fail('stuck', `no answer for ${stuckMs} ms`)
  }

  #fail(kind, reason) {
    open.delete(this)
    const oldest = this.#outstanding[0]
    parentPort.postMessage({ failure: { kind, reason, client: this.#client.number, id: oldest?.id ?? null, outstanding: this.#outstanding.length, carried: this.#written } })
    this.#leaving = true
    this.#socket.destroy()
    // Its client does nothing more.
    this.#wake = () => undefined
  }

  #readSlowly() {
    const { random } = this.#client
    if (!this.#outstanding[0]?.large || !random.chance(0.3)) return
    this.#socket.pause()
    setTimeout(() => { this.#socket.resume() }, random.between(1, 30))
  }

  async #until(condition) {
    while (!condition()) await new Promise((resolve) => { this.#wake = resolve })
  }

  async #write(bytes) {
    const { random } = this.#client
    const whole = random.chance(0.4)
    const least = bytes.length / 12
    for (let at = 0; at < bytes.length;) {
      const size = whole ? bytes.length : Math.ceil(least * random.next()) + random.size(200)
      this.#ticksSilent = 0
      this.#socket.write(bytes.subarray(at, at + size))
      at += size
      if (random.chance(0.2)) await pause(random.between(1, 3))
      else if (random.chance(0.5)) await turn()
    }
  }

  /** Sends them all, and waits until at most `open` of its requests have no answer. */
  async ask(asked, open) {
    let bytes = []
    const flush = async () => {
      const all = Buffer.concat(bytes)
      bytes = []
      await this.#write(all)
    }
    for (const request of asked) {
      requests++
      request.carried = ++this.#written
      this.#outstanding.push(request)
      bytes.push(request.sent)
      if (request.expect) {
        await flush()
        await this.#until(() => request.mayGoOn)
      }
      bytes.push(request.sentBody)
    }
    await flush()
    await this.#until(() => this.#outstanding.length <= open)
  }

  async leave() {
    this.#leaving = true
    this.#ticksSilent = 0
    this.#socket.end()
    if (!this.#socket.closed) await new Promise((resolve) => { this.#socket.once('close', resolve) })
    open.delete(this)
  }
}

async function connect(client) {
  const { random } = client
  const place = places[random.between(0, places.length - 1)]
  const where = client.slow ? { path: place.path } : { host: '127.0.0.1', port: place.port }
  const socket = secure ? tls.connect({ ...where, rejectUnauthorized: false }) : net.connect(where)
  await new Promise((resolve, reject) => { socket.once(secure ? 'secureConnect' : 'connect', resolve).once('error', reject) })
  // Nobody has read from it when it moves.
  if (random.chance(0.5)) await pause(random.size(30))
  return new Connection(socket, client)
}

const makeRequests = (client, count) => Array.from({ length: count }, () => makeRequest(++client.lastId, client.random, client.slow))

async function run(client) {
  const { random } = client
  for (;;) {
    const connection = await connect(client)
    for (let rounds = random.between(1, 60); rounds > 0 && !finishing; rounds--) {
      // Under TLS Node itself answers a pipeline with 400 (HPE_PAUSED) where it pauses the parser for want of room, and records wait.
      const count = secure || random.chance(0.5) ? 1 : random.between(2, 10)
      await connection.ask(makeRequests(client, count), !secure && random.chance(0.2) ? random.between(0, 5) : 0)
      if (random.chance(0.6)) await pause(random.size(12))
    }
    if (finishing) {
      await connection.ask(makeRequests(client, 1), 0)
      parentPort.postMessage({ quiet: client.number })
      await askedOnceMore
      await connection.ask(makeRequests(client, 1), 0)
      await connection.leave()
      return
    }
    await connection.ask([], 0)
    await connection.leave()
  }
}

let running = clients
for (let number = 0; number < clients; number++) {
  // The number of a request is nowhere twice.
  const client = { number, random: new Random(seed + number * 7_919), slow: number % 2 === 1, lastId: number * 10_000_000 }
  run(client).then(() => {
    if (--running > 0) return
    parentPort.postMessage({ gone: true, requests, connections })
    parentPort.close()
  }, (error) => { parentPort.postMessage({ failure: { kind: 'bad', reason: error.stack, client: number } }) })
}
