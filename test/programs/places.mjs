// An http program whose listeners change between versions, and which does to them what programs do.
//   PLAN_FILE   JSON, read at every boot: { listen: [listen options, …], udp: [bind options, …], unlink: [path, …], close: [index, …], ready,
//               options }
// It prints `bound` with the addresses, or `error` for each listen() that fails. `close` comes once this process serves.
import dgram from 'node:dgram'
import { once } from 'node:events'
import { readFileSync, rmSync } from 'node:fs'
import http from 'node:http'
import { handover } from '@handover/core'
import { print, printEvents } from './print.mjs'

const { listen = [], udp = [], unlink = [], close = [], ready, options } = JSON.parse(readFileSync(process.env.PLAN_FILE, 'utf8'))
printEvents(handover)

async function start(server, go) {
  const settled = new Promise((resolve) => {
    server.once('listening', resolve)
    server.on('error', (error) => {
      print('error', { error: { ...error, message: error.message, name: error.constructor.name } })
      resolve()
    })
  })
  go()
  await settled
  return server
}
const serve = (place) => {
  const server = handover(http.createServer({ keepAliveTimeout: 60_000 }, (req, res) => {
    const ms = Number(new URL(req.url, 'http://localhost').searchParams.get('ms'))
    setTimeout(() => res.end(`${process.pid}\n`), ms)
    if (ms > 0) print('asked', { url: req.url })
  }), { undoWindow: 200, linger: 200, readyTimeout: 8_000, ...options })
  return start(server, () => server.listen(place))
}
const bind = (place) => {
  const socket = handover(dgram.createSocket('udp4'))
  return start(socket, () => socket.bind(place))
}

for (const path of unlink) rmSync(path, { force: true })
const servers = await Promise.all(listen.map(serve))
const sockets = await Promise.all(udp.map(bind))
// Closes and listens again, on request: SIGUSR2.
process.on('SIGUSR2', async () => {
  const address = servers[0].address()
  await new Promise((resolve) => servers[0].close(resolve))
  await new Promise((resolve) => setImmediate(resolve))
  servers[0].listen(typeof address === 'string' ? address : { port: address.port, host: address.address })
  await once(servers[0], 'listening')
  print('again', { address: servers[0].address() })
})

print('bound', { addresses: [...servers, ...sockets].map((server) => { try { return server.address() } catch { return null } }) })
if (ready) handover.ready()

while (close.length > 0 && handover.state !== 'serving') await once(handover.events, 'state')
for (const index of close) await new Promise((resolve) => servers[index].close(resolve))
if (close.length > 0) print('closed-by-program')
