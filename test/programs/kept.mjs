// A server for tests of `handover run` that knows nothing of Handover and obeys the load client's contract.
//   PORT, or LISTEN   where, separated by commas: 127.0.0.1:0, unix:/path, udp:127.0.0.1:1234   (default: 127.0.0.1 and PORT)
//   KEPT_FOLDER/boot  JSON, read at every boot: { wait: ms before it listens, gate: a file that it waits for before it listens,
//                     throws: it does not start, places: on how many of its places it listens }
// Routes beside the contract: /crash (uncaught exception), /memory (allocates until the heap is full), /hang (blocks the event loop), /passing (listens for a moment
// on a port that the system chooses), /who (a pid and the address that it came by).
import dgram from 'node:dgram'
import { existsSync, readFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { referenceHandler } from '../../packages/load/dist/reference.js'

const { env } = process
const boot = (() => { try { return JSON.parse(readFileSync(path.join(env.KEPT_FOLDER, 'boot'), 'utf8')) } catch { return {} } })()
if (boot.throws) throw new Error(boot.throws)
while (boot.gate && existsSync(boot.gate)) await wait(5)

const contract = referenceHandler('1')
const hoard = []
const own = {
  '/crash': () => { setImmediate(() => { throw new Error('somebody asked for /crash') }) },
  '/memory': () => { setImmediate(function more() { hoard.push(Array.from({ length: 100_000 }, () => ({}))); setImmediate(more) }) },
  '/hang': () => { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0) }
}

for (const place of (env.LISTEN ?? `127.0.0.1:${env.PORT}`).split(',').slice(0, boot.places)) {
  if (place.startsWith('udp:')) {
    const [, host, port] = place.split(':')
    const socket = dgram.createSocket('udp4', (message, peer) => { socket.send(String(process.pid), peer.port, peer.address) })
    await new Promise((resolve) => { socket.bind(Number(port), host, resolve) })
    continue
  }
  const server = http.createServer({ keepAliveTimeout: 65_000 }, (req, res) => {
    const action = own[req.url]
    if (action) action()
    else if (req.url === '/passing') http.createServer().listen(0, '127.0.0.1', function () { this.close(() => { res.end() }) })
    else if (req.url === '/who') res.end(JSON.stringify({ pid: process.pid, address: server.address() }))
    else contract(req, res)
  })
  const [host, port] = place.split(':')
  await new Promise((resolve) => { server.listen(host === 'unix' ? { path: port } : { host, port: Number(port) }, resolve) })
}
