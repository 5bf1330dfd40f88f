// One process with many servers, one for each form of listen() and bind() that the scenario asks for. It prints what Node's user sees of each.
//   SCENARIO_FILE   JSON: { servers: [{ name, form, type, port?, path?, fd?, shared? }], options }; read at every boot
// `type`: net, http, https, http2, http2-clear, udp4, udp6. Each answers with the pid of the process.
import dgram from 'node:dgram'
import { readFileSync, readlinkSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'
import { datagramSignatures, signatures } from './signatures.mjs'

const { servers, options } = JSON.parse(readFileSync(process.env.SCENARIO_FILE, 'utf8'))
printEvents(handover)

const answer = (req, res) => { res.end(String(process.pid)) }
const makers = {
  net: () => net.createServer((socket) => { socket.on('error', () => undefined).end(String(process.pid)) }),
  http: () => http.createServer(answer),
  https: () => https.createServer(certificate(), answer),
  http2: () => http2.createSecureServer(certificate(), answer),
  'http2-clear': () => http2.createServer(answer),
  udp4: () => dgram.createSocket('udp4'),
  udp6: () => dgram.createSocket({ type: 'udp6' })
}

const descriptorOf = (server) => {
  const state = Object.getOwnPropertySymbols(server).find((symbol) => symbol.description === 'state symbol')
  return (state ? server[state].handle : server._handle)?.fd
}
const addressOf = (server) => { try { return server.address() } catch { return undefined } }
const shown = (value) => value && Object.fromEntries(Object.entries(value).map(([key, each]) => [key, each instanceof AbortSignal ? 'signal' : each === undefined ? 'undefined' : each]))

const aborts = []

async function start({ name, form, type, ...place }) {
  const server = handover(makers[type](), { undoWindow: 300, linger: 300, ...options })
  const datagram = type.startsWith('udp')
  if (datagram) server.on('message', (message, { port, address }) => { server.send(String(process.pid), port, address) })
  const six = type === 'udp6'
  const seen = { name, type, listening: 0, done: 0 }
  const abort = new AbortController()
  aborts.push(abort)
  const c = { ...place, any: six ? '::' : '0.0.0.0', local: six ? '::1' : '127.0.0.1', signal: abort.signal, done: () => { seen.done++ } }
  const settled = new Promise((resolve) => {
    server.on('listening', () => { seen.listening++; resolve() })
    server.on('error', (error) => { seen.error = { ...error, message: error.message }; resolve() })
  })
  const returned = (datagram ? datagramSignatures : signatures)[form](server, c)
  seen.chains = returned === server
  seen.synchronous = seen.listening + seen.done > 0
  seen.addressAtOnce = addressOf(server)
  seen.optionsAtOnce = shown(c.options)
  await settled
  await new Promise((resolve) => setImmediate(resolve))
  seen.address = addressOf(server)
  seen.options = shown(c.options)
  if (!seen.error) seen.inode = readlinkSync(`/proc/self/fd/${descriptorOf(server)}`)
  return seen
}

process.on('message', () => undefined)
print('bound', { servers: await Promise.all(servers.map(start)) })
process.on('SIGUSR2', () => { for (const abort of aborts) abort.abort() })
