// A server for the tests of `handover run`: it obeys the load client's contract, and its next boots go wrong as BEHAVIOUR_FILE says (behaviour.mjs).
//   KIND      http (default), https, http2, http2-tls, net        LISTEN   host:port (default 127.0.0.1:0)        OPTIONS   JSON of HandoverOptions
// More behaviours:
//   boots:N:WORD        the first N boots since this was said are good, then WORD
//   manual              never says that it is ready        port:N   listens there and nowhere else        also:N   listens there as well
//   crash-after:MS      when it has served that long       fail:N   answers N % of the requests with 500
//   health:WHAT         /healthz: 500, 302, hang, crash; late:MS: 500 when it has served that long, 200 before
// Paths beside the contract: /healthz, /reload (by the program itself), /block?while=FILE (its event loop, while that exists), /held (answered on SIGUSR2)
import { spawn } from 'node:child_process'
import { appendFileSync, existsSync, readFileSync, statSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import { handover } from '@handover/core'
import { referenceHandler } from '../../packages/load/dist/reference.js'
import { behave } from './behaviour.mjs'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { env } = process
const file = env.BEHAVIOUR_FILE
let word = 'ok'
try { word = readFileSync(file, 'utf8').trim() } catch { /* none was given */ }
const counted = /^boots:(\d+):(.*)$/.exec(word)
if (counted) {
  appendFileSync(`${file}.boots`, '.')
  word = statSync(`${file}.boots`).size > Number(counted[1]) ? counted[2] : 'ok'
}
const [name, argument] = word.split(/:(.*)/s)
if (word !== 'ok') process.stderr.write(`this build is bad: ${word}\n`)

printEvents(handover)
for (const signal of ['SIGUSR2', 'SIGWINCH', 'SIGQUIT']) process.on(signal, () => { print('signal', { signal }) })
if (!['ok', 'manual', 'port', 'also', 'crash-after', 'fail', 'health'].includes(name)) await behave(word, handover)

// Processes whose starter has ended, which come to PID 1; ORPHANS: how many.
if (env.ORPHANS) {
  let left = Number(env.ORPHANS)
  for (let index = Number(env.ORPHANS); index > 0; index--) spawn('sh', ['-c', '(sleep 0.05; exit 3) & exit 0'], { stdio: 'ignore' }).once('exit', () => { if (--left === 0) print('orphans') })
}

const contract = referenceHandler(env.VERSION ?? '1')
let servedAt = Infinity
handover.events.on('state', ({ to }) => { if (to === 'serving') servedAt = Date.now() })
let requests = 0
const held = []
process.on('SIGUSR2', () => { for (const response of held.splice(0)) response.end() })

function health(response) {
  const [what, ms] = (name === 'health' ? argument : '200').split(':')
  switch (what) {
    case 'hang': return
    case 'crash': return process.exit(9)
    case 'late': response.statusCode = Date.now() - servedAt > Number(ms) ? 500 : 200; break
    default: response.statusCode = Number(what)
  }
  if (what === '302') response.setHeader('Location', '/')
  response.end('health')
}

function answer(request, response) {
  const url = new URL(request.url, 'http://localhost')
  switch (url.pathname) {
    case '/healthz': health(response); break
    case '/reload':
      handover.reload().then((report) => { response.end(JSON.stringify(report)) }, (error) => { response.writeHead(409).end(JSON.stringify({ code: error.code, message: error.message })) })
      break
    case '/block':
      print('blocked')
      while (existsSync(url.searchParams.get('while'))) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
      response.end()
      break
    case '/environment': response.end(JSON.stringify(Object.fromEntries(['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'HANDOVER_KEEPER', 'HANDOVER_SUCCESSOR'].map((name) => [name, name in env])))); break
    case '/held':
      held.push(response)
      print('held')
      break
    default:
      if (name === 'fail' && requests++ % 100 < Number(argument)) response.writeHead(500, { 'x-version': '1', 'x-pid': process.pid, 'content-length': 0 }).end()
      else contract(request, response)
  }
}

const makers = {
  http: () => http.createServer({ keepAliveTimeout: 65_000 }, answer),
  https: () => https.createServer({ keepAliveTimeout: 65_000, ...certificate() }, answer),
  net: () => net.createServer((socket) => { socket.end(String(process.pid)) }),
  http2: () => http2.createServer(answer),
  'http2-tls': () => http2.createSecureServer({ allowHTTP1: true, ...certificate() }, answer)
}

function listen(port, host) {
  const options = { linger: 5_000, drainTimeout: 10_000, ...(name === 'manual' && { readyWhen: 'manual' }), ...JSON.parse(env.OPTIONS ?? '{}') }
  const server = handover(makers[env.KIND ?? 'http'](), options)
  server.listen(port, host, () => {
    print('listening', { address: server.address() })
    // It need not be waited whether it listens on what was offered as well.
    if (name === 'port') handover.ready()
  })
}

const [, host, port] = /^(.*):(\d+)$/.exec(env.LISTEN ?? '127.0.0.1:0')
listen(name === 'port' ? Number(argument) : Number(port), host)
if (name === 'also') listen(Number(argument), host)
if (name === 'crash-after') handover.events.on('state', ({ to }) => { if (to === 'serving') setTimeout(() => { throw new Error('this build crashes while it serves') }, Number(argument)) })
