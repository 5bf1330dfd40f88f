// What servers do at listen and close, in the spirit of the tests of Node, Express and ws: each behaviour answers what a program would see of it. Prints one JSON
// object: name → outcome. It is run with the preload and without, and both must print the same; so nothing of this process may stand in an outcome: no port, pid, path.
const { once } = require('node:events')
const fs = require('node:fs')
const http = require('node:http')
const http2 = require('node:http2')
const https = require('node:https')
const net = require('node:net')
const { tmpdir } = require('node:os')
const path = require('node:path')
const dgram = require('node:dgram')

const folder = fs.mkdtempSync(path.join(tmpdir(), 'handover-behaviours-'))
// A relative path, and one that Node cuts at its zero byte, are in here too.
process.chdir(folder)
process.on('exit', () => { fs.rmSync(folder, { recursive: true, force: true }) })

const asked = (error) => (error ? { name: error.name, code: error.code, syscall: error.syscall, message: error.message.replaceAll(folder, 'FOLDER').replace(/:\d{4,5}\b/g, ':PORT') } : null)
const outcomeOf = async (act) => { try { return { value: await act() ?? null } } catch (error) { return { error: asked(error) } } }
/** A behaviour that does not end has that as its outcome. */
const outcomeInTime = (act) => Promise.race([outcomeOf(act), new Promise((resolve) => { setTimeout(resolve, 10_000, 'it does not end').unref() })])
/** The address without what differs from run to run. */
const shown = (server) => {
  const address = server.address()
  return typeof address === 'string' ? address.replace(folder, 'FOLDER') : address && { ...address, port: address.port > 0 ? 'PORT' : address.port }
}
const turn = () => new Promise((resolve) => { setImmediate(resolve) })
const closed = (server) => new Promise((resolve) => { server.close((error) => { resolve(asked(error)) }) })
const get = (server, options = {}) => new Promise((resolve, reject) => {
  http.get({ port: server.address().port, host: '127.0.0.1', agent: false, ...options }, (response) => {
    let text = ''
    response.setEncoding('utf8').on('data', (more) => { text += more }).on('end', () => { resolve({ status: response.statusCode, connection: response.headers.connection ?? null, text }) }).on('error', reject)
  }).on('error', reject)
})
/** The order of events, by name. */
function eventsOf(emitter, names) {
  const seen = []
  for (const name of names) emitter.on(name, (...args) => { seen.push(args[0] instanceof Error ? `${name} ${args[0].code}` : name) })
  return seen
}

const certificate = fs.existsSync(process.env.CERTIFICATE ?? '') ? JSON.parse(fs.readFileSync(process.env.CERTIFICATE, 'utf8')) : undefined
const makers = {
  net: (listener) => net.createServer(listener),
  http: (listener) => http.createServer(listener),
  http2: (listener) => http2.createServer(listener),
  ...(certificate && { https: (listener) => https.createServer(certificate, listener), http2Secure: (listener) => http2.createSecureServer(certificate, listener) })
}

// ---- what every kind of server does ----

const common = {
  async 'listen(0) gives a port, emits listening once, after the call, and returns the server'(make) {
    const server = make()
    const seen = eventsOf(server, ['listening', 'close', 'error'])
    const returned = server.listen(0) === server
    seen.push('returned')
    const before = server.listening
    await once(server, 'listening')
    const during = [server.listening, shown(server)]
    const error = await closed(server)
    return { returned, before, during, after: [server.listening, shown(server)], error, seen }
  },
  async 'forms of listen()'(make) {
    const forms = [[0], [0, '127.0.0.1'], [0, '::1'], [0, 5], [0, '127.0.0.1', 5], ['0'], [{ port: 0 }], [{ port: 0, host: '127.0.0.1', backlog: 3 }], [{ port: 0, host: '::', ipv6Only: true }], [{ port: 0, exclusive: true }], [{ port: 0, reusePort: false }],
      [{ path: path.join(folder, 'form') }], [path.join(folder, 'form')], [], [null], [undefined], [{ port: undefined }], [0, null], [0, undefined, undefined]]
    const outcomes = []
    for (const form of forms) {
      const server = make()
      outcomes.push(await outcomeOf(async () => {
        await new Promise((resolve, reject) => { server.once('error', reject).listen(...form, resolve) })
        const address = shown(server)
        return { address, error: await closed(server) }
      }))
    }
    return outcomes
  },
  async 'what listen() refuses'(make) {
    const forms = [[-1], [65536], ['abc-\0'], [{}], [{ port: -1 }], [{ port: 'x' }], [{ port: 1.5 }], [true], [false], [{ fd: -1 }], [{ port: null }], [{ host: 'a' }], [Symbol('a')], [{ port: 0, host: 'name.invalid' }], [{ port: 0, host: '203.0.113.77' }], [{ path: path.join(folder, 'no', 'such') }]]
    const outcomes = []
    for (const form of forms) {
      const server = make()
      outcomes.push(await outcomeOf(async () => {
        await new Promise((resolve, reject) => { server.once('error', reject).listen(...form, resolve) })
        return [shown(server), await closed(server)]
      }))
      if (server.listening) await closed(server)
    }
    return outcomes.map((outcome) => JSON.stringify(outcome).replace(/Symbol\(a\)/, 'a symbol'))
  },
  async 'a second listen() is refused while it listens, and works after a close'(make) {
    const server = make()
    server.listen(0)
    const atOnce = await outcomeOf(() => { server.listen(0) })
    await once(server, 'listening')
    const later = await outcomeOf(() => { server.listen(0) })
    const first = await closed(server)
    server.listen(0)
    await once(server, 'listening')
    return { atOnce, later, first, again: shown(server), second: await closed(server) }
  },
  async 'a port in use'(make) {
    const first = make().listen(0, '127.0.0.1')
    await once(first, 'listening')
    const second = make()
    const seen = eventsOf(second, ['listening', 'close', 'error'])
    second.listen(first.address().port, '127.0.0.1')
    await new Promise((resolve) => { second.once('error', resolve) })
    await turn()
    const state = [second.listening, shown(second), await closed(second)]
    const other = make().listen(first.address().port, '127.0.0.2')
    await once(other, 'listening')
    return { seen, state, other: shown(other), closes: [await closed(other), await closed(first)] }
  },
  async 'close() before listen(), twice, in the turn of listen(), and in listening'(make) {
    const never = make()
    const twice = make().listen(0)
    await once(twice, 'listening')
    const early = make()
    const seen = eventsOf(early, ['listening', 'close', 'error'])
    early.listen(0)
    const inTurn = await closed(early)
    const within = make()
    const inListening = await new Promise((resolve) => { within.listen(0, () => { within.close((error) => { resolve(asked(error)) }) }) })
    await turn()
    return { never: await closed(never), twice: await Promise.all([closed(twice), closed(twice)]), inTurn, seen, inListening }
  },
  async 'close emits close when the last connection has ended, and not before'(make) {
    const server = make()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const seen = eventsOf(server, ['close'])
    const client = net.connect(server.address().port, '127.0.0.1').on('error', () => undefined)
    const [accepted] = await once(server, 'connection')
    accepted.on('error', () => undefined)
    const over = closed(server)
    await turn()
    const refused = await new Promise((resolve) => { net.connect(client.remotePort, '127.0.0.1').on('error', ({ code }) => { resolve(code) }).on('connect', () => { resolve('ok') }) })
    const before = [...seen]
    client.destroy()
    accepted.destroy()
    return { before, refused, error: await over, seen }
  },
  async 'getConnections() counts, also after a close'(make) {
    const server = make()
    const count = () => new Promise((resolve, reject) => { server.getConnections((error, found) => { if (error) reject(error); else resolve(found) }) })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const none = await count()
    const client = net.connect(server.address().port, '127.0.0.1').on('error', () => undefined)
    const [accepted] = await once(server, 'connection')
    const one = await count()
    client.destroy()
    accepted.on('error', () => undefined).destroy()
    const over = await closed(server)
    return { none, one, over, after: await outcomeOf(count) }
  },
  async 'Symbol.asyncDispose'(make) {
    const server = make()
    if (!server[Symbol.asyncDispose]) return 'not there'
    const never = await outcomeOf(() => server[Symbol.asyncDispose]())
    server.listen(0)
    await once(server, 'listening')
    const first = await outcomeOf(() => server[Symbol.asyncDispose]())
    return { never, first, listening: server.listening, again: await outcomeOf(() => server[Symbol.asyncDispose]()) }
  },
  async 'a signal that aborts before, in the turn of, and after listen()'(make) {
    const outcomes = []
    for (const when of ['before', 'turn', 'after']) {
      const server = make()
      const seen = eventsOf(server, ['listening', 'close', 'error'])
      const controller = new AbortController()
      if (when === 'before') controller.abort()
      const gone = once(server, 'close')
      server.listen({ port: 0, signal: controller.signal })
      if (when === 'turn') controller.abort()
      if (when === 'after') {
        await once(server, 'listening')
        controller.abort()
      }
      await gone
      outcomes.push({ when, seen, listening: server.listening, address: shown(server) })
    }
    return outcomes
  },
  async 'a signal that is none'(make) {
    return await outcomeOf(() => { make().listen({ port: 0, signal: 'no signal' }) })
  },
  async 'unref() and ref() return the server, before and after listen()'(make) {
    const server = make()
    const before = [server.unref() === server, server.ref() === server]
    server.listen(0)
    await once(server, 'listening')
    return { before, after: [server.unref() === server, server.ref() === server], error: await closed(server) }
  },
  async 'a Unix path: its address, a second server on it, and what is left after the close'(make) {
    const file = path.join(folder, `path-${Math.random()}`)
    const server = make().listen(file)
    await once(server, 'listening')
    const there = fs.existsSync(file)
    const second = await outcomeOf(() => new Promise((resolve, reject) => { make().once('error', reject).listen(file, resolve) }))
    const address = shown(server) === server.address().replace(folder, 'FOLDER')
    const error = await closed(server)
    const left = fs.existsSync(file)
    fs.writeFileSync(file, '')
    const onFile = await outcomeOf(() => new Promise((resolve, reject) => { make().once('error', reject).listen(file, resolve) }))
    return JSON.stringify({ there, second, address, error, left, onFile }).replace(/path-[\d.]+/g, 'PATH')
  },
  async 'readableAll and writableAll are the mode of the path'(make) {
    const modes = []
    for (const options of [{}, { readableAll: true }, { writableAll: true }, { readableAll: true, writableAll: true }]) {
      const file = path.join(folder, `mode-${Math.random()}`)
      const server = make().listen({ path: file, ...options })
      await once(server, 'listening')
      modes.push((fs.statSync(file).mode & 0o777).toString(8))
      await closed(server)
    }
    return modes
  },
  async 'the events on which a program may be alone have no listener but its own'(make) {
    const server = make()
    // The others, `connection` and `close` among them, have listeners of Handover, which cannot do without.
    const counts = () => ['request', 'listening', 'error', 'clientError', 'upgrade', 'connect', 'checkContinue', 'timeout', 'drop', 'tlsClientError'].map((name) => `${name} ${server.listenerCount(name)}`)
    const before = counts()
    server.listen(0, () => undefined)
    await once(server, 'listening')
    const during = counts()
    await closed(server)
    return { before, during, after: counts() }
  },
  async 'keys and own properties are those of Node'(make) {
    const server = make()
    server.listen(0)
    await once(server, 'listening')
    const own = Object.keys(server).sort()
    await closed(server)
    return { own, prototype: Object.getPrototypeOf(server) === make().constructor.prototype, listen: [server.listen.length, server.listen.name], close: [server.close.length, server.close.name], overridden: Object.keys(server).filter((key) => typeof server[key] === 'function').sort() }
  }
}

// ---- HTTP ----

const answering = (req, res) => { res.end('ok') }
const ofHttp = {
  async 'close() ends idle connections and answers what is under way'() {
    const server = http.createServer((req, res) => { if (req.url === '/slow') server.once('go', () => { res.end('slow') }); else res.end('ok') })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const agent = new http.Agent({ keepAlive: true })
    const first = await get(server, { agent })
    const slow = get(server, { path: '/slow' })
    await once(server, 'request')
    const over = closed(server)
    await turn()
    server.emit('go')
    const answer = await slow
    return { first, answer, error: await over }
  },
  async 'closeAllConnections() and closeIdleConnections()'() {
    const server = http.createServer(answering).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const idle = net.connect(server.address().port, '127.0.0.1')
    const [accepted] = await once(server, 'connection')
    server.closeIdleConnections()
    const afterIdle = accepted.destroyed
    server.closeAllConnections()
    await once(idle.on('error', () => undefined), 'close')
    return { afterIdle, afterAll: accepted.destroyed, error: await closed(server), again: [server.closeAllConnections(), server.closeIdleConnections()].length }
  },
  async 'what closeIdleConnections() does before listen() and after close()'() {
    const server = http.createServer(answering)
    const before = await outcomeOf(() => { server.closeIdleConnections() })
    server.listen(0)
    await once(server, 'listening')
    await closed(server)
    return { before, after: await outcomeOf(() => { server.closeIdleConnections(); server.closeAllConnections() }) }
  },
  async 'settings of a server stay as they were set'() {
    const options = { keepAliveTimeout: 1234, headersTimeout: 2345, requestTimeout: 3456, maxHeaderSize: 4096, connectionsCheckingInterval: 5000, noDelay: false, keepAlive: true, keepAliveInitialDelay: 10, requireHostHeader: false, joinDuplicateHeaders: true, highWaterMark: 100 }
    const server = http.createServer(options, answering).listen(0)
    await once(server, 'listening')
    const { keepAliveTimeout, headersTimeout, requestTimeout, maxHeadersCount, timeout, maxRequestsPerSocket } = server
    await closed(server)
    return { keepAliveTimeout, headersTimeout, requestTimeout, maxHeadersCount, timeout, maxRequestsPerSocket }
  },
  async 'keep-alive of an answer, Connection: close, and a request after it'() {
    const server = http.createServer({ keepAliveTimeout: 7_000 }, answering).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const socket = net.connect(server.address().port, '127.0.0.1').setEncoding('latin1')
    let text = ''
    socket.on('data', (more) => { text += more })
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    await once(socket, 'end')
    socket.end()
    return { text: text.replace(/Date: .*\r\n/g, ''), error: await closed(server) }
  },
  async 'maxRequestsPerSocket, checkContinue, a bad request'() {
    const server = http.createServer(answering)
    server.maxRequestsPerSocket = 2
    const seen = eventsOf(server, ['checkContinue', 'clientError', 'dropRequest', 'upgrade', 'connect'])
    server.on('checkContinue', (req, res) => { res.writeContinue(); res.end('continued') })
    server.on('clientError', (error, socket) => { socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n') })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const answers = []
    for (const text of ['GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(3), 'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\nConnection: close\r\n\r\n', 'no request\r\n\r\n']) {
      const socket = net.connect(server.address().port, '127.0.0.1').setEncoding('latin1')
      let answer = ''
      socket.on('data', (more) => { answer += more }).on('error', () => undefined)
      socket.end(text)
      await once(socket, 'close')
      answers.push(answer.replace(/Date: .*\r\n/g, ''))
    }
    return { answers, seen, error: await closed(server) }
  },
  async 'setTimeout() of a server, and the timeout event'() {
    const server = http.createServer(() => undefined)
    const seen = eventsOf(server, ['timeout'])
    const returned = server.setTimeout(30, (socket) => { socket.destroy() }) === server
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    // Whether its request was read before says if it sees an end or a reset: the message has it, the code has not.
    const { error: { code } = {} } = await outcomeOf(() => get(server))
    return { returned, code, seen, error: await closed(server) }
  }
}

// ---- net ----

const ofNet = {
  async 'maxConnections and drop'() {
    const server = net.createServer((socket) => { socket.on('error', () => undefined) })
    server.maxConnections = 1
    const seen = eventsOf(server, ['drop'])
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const first = net.connect(server.address().port, '127.0.0.1').on('error', () => undefined)
    await once(server, 'connection')
    const second = net.connect(server.address().port, '127.0.0.1').on('error', () => undefined)
    await once(server, 'drop')
    first.destroy()
    second.destroy()
    return { seen, error: await closed(server) }
  },
  async 'pauseOnConnect and allowHalfOpen'() {
    const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const client = net.connect(server.address().port, '127.0.0.1').setEncoding('utf8')
    client.end('hello')
    const [socket] = await once(server, 'connection')
    const paused = socket.isPaused()
    const text = Buffer.concat(await socket.resume().toArray()).toString()
    socket.end('later')
    return { paused, text, answer: (await client.toArray()).join(''), allowHalfOpen: socket.allowHalfOpen, error: await closed(server) }
  },
  async 'a listener that is given as { fd } or as a handle'() {
    const first = net.createServer((socket) => { socket.end('shared') }).listen(0, '127.0.0.1')
    await once(first, 'listening')
    const byServer = net.createServer((socket) => { socket.end('shared') })
    const given = await outcomeOf(() => new Promise((resolve, reject) => { byServer.once('error', reject).listen(first, resolve) }))
    const same = byServer.address()?.port === first.address().port
    const byFd = net.createServer()
    const fd = await outcomeOf(() => new Promise((resolve, reject) => { byFd.once('error', reject).listen({ fd: 0 }, resolve) }))
    return { given, same, fd, closes: [await closed(byServer), await closed(byFd)] }
  },
  async 'UDP: bind, address, in use, close'() {
    const socket = dgram.createSocket('udp4')
    const seen = eventsOf(socket, ['listening', 'close', 'error'])
    const returned = socket.bind(0, '127.0.0.1') === socket
    await once(socket, 'listening')
    const address = { ...socket.address(), port: socket.address().port > 0 }
    const again = await outcomeOf(() => { socket.bind(0) })
    const second = dgram.createSocket('udp4')
    const inUse = await outcomeOf(() => new Promise((resolve, reject) => { second.once('error', reject).bind(socket.address().port, '127.0.0.1', resolve) }))
    second.close()
    await new Promise((resolve) => { socket.close(resolve) })
    return { returned, address, again, inUse, closedAgain: await outcomeOf(() => { socket.close() }), addressAfter: await outcomeOf(() => socket.address()), seen }
  }
}

// ---- Express, ws ----

const ofPackages = {
  async 'express: app.listen() in its forms, its callback and its errors'() {
    const outcomes = {}
    for (const name of ['express', 'express4']) {
      const express = require(name)
      const app = express().get('/', (req, res) => { res.send('ok') })
      outcomes[name] = []
      for (const form of [[], [0], [0, '127.0.0.1'], [0, '127.0.0.1', 5], [{ port: 0 }], [path.join(folder, `express-${name}`)]]) {
        let calls = 0
        let server
        const error = await new Promise((resolve) => { server = app.listen(...form, (failed) => { calls++; setImmediate(resolve, asked(failed)) }) })
        outcomes[name].push({ calls, error, isServer: server instanceof http.Server, address: shown(server), answer: typeof server.address() === 'string' ? null : (await get(server, { host: server.address().family === 'IPv6' ? '::1' : '127.0.0.1' })).text, close: await closed(server) })
      }
      const busy = net.createServer().listen(0, '127.0.0.1')
      await once(busy, 'listening')
      outcomes[name].push(await new Promise((resolve) => {
        const seen = []
        const server = app.listen(busy.address().port, '127.0.0.1', (failed) => { seen.push(`callback ${failed?.code}`) })
        server.on('error', ({ code }) => { seen.push(`error ${code}`) })
        setTimeout(resolve, 50, seen)
      }))
      await closed(busy)
    }
    return outcomes
  },
  async 'ws: a server of its own, one that is given, noServer, close() of each'() {
    const { WebSocket, WebSocketServer } = require('ws')
    const talk = async (port) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/`)
      await once(socket, 'open')
      socket.send('hello')
      const [answer] = await once(socket, 'message')
      return { socket, answer: answer.toString() }
    }
    const chat = (wss) => wss.on('connection', (socket) => { socket.on('message', (data) => { socket.send(data.toString()) }) })
    const outcomes = []
    const own = chat(new WebSocketServer({ port: 0, host: '127.0.0.1', backlog: 10 }))
    const seen = eventsOf(own, ['listening', 'close', 'error', 'connection'])
    await once(own, 'listening')
    const first = await talk(own.address().port)
    const gone = once(first.socket, 'close')
    const over = new Promise((resolve) => { own.close((error) => { resolve(asked(error)) }) })
    await turn()
    const refused = await outcomeOf(() => talk(first.socket._socket?.remotePort ?? 1))
    for (const client of own.clients) client.close(1001, 'bye')
    const [code, reason] = await gone
    outcomes.push({ seen, answer: first.answer, refused: refused.error?.code, code, reason: reason.toString(), over: await over, again: await new Promise((resolve) => { own.close((error) => { resolve(asked(error)) }) }) })

    const server = http.createServer(answering)
    const given = chat(new WebSocketServer({ server }))
    const events = eventsOf(given, ['listening', 'close', 'error'])
    server.listen(0, '127.0.0.1')
    await once(given, 'listening')
    const second = await talk(server.address().port)
    const plain = await get(server)
    const wssClosed = await new Promise((resolve) => { given.close((error) => { resolve(asked(error)) }); second.socket.terminate() })
    const still = await get(server)
    outcomes.push({ events, answer: second.answer, plain: plain.text, wssClosed, still: still.text, listeners: ['upgrade', 'listening', 'error'].map((name) => server.listenerCount(name)), close: await closed(server) })

    const busy = net.createServer().listen(0, '127.0.0.1')
    await once(busy, 'listening')
    const failing = new WebSocketServer({ port: busy.address().port, host: '127.0.0.1' })
    const [error] = await once(failing, 'error')
    outcomes.push({ failing: asked(error) })
    await closed(busy)
    return outcomes
  }
}

async function main() {
  const outcomes = {}
  for (const [kind, make] of Object.entries(makers)) for (const [name, behave] of Object.entries(common)) outcomes[`${kind}: ${name}`] = await outcomeInTime(() => behave(make))
  for (const part of [ofHttp, ofNet, ofPackages]) for (const [name, behave] of Object.entries(part)) outcomes[name] = await outcomeInTime(behave)
  fs.writeSync(1, JSON.stringify(outcomes))
}
main().then(() => { process.exit(0) }, (error) => { console.error(error); process.exit(1) })
