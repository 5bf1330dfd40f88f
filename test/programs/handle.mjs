// Listens on a handle that the program opened itself; every later generation asks for the address. PORT: where.
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { handover } from '@handover/core'
import { print, printEvents } from './print.mjs'

printEvents(handover)
const port = Number(process.env.PORT)
const server = handover(http.createServer((req, res) => { res.end(String(process.pid)) }), { undoWindow: 0, linger: 200 })
const listening = () => { print('listening', { address: server.address() }) }
if (process.argv[2] === 'handle') {
  const own = net.createServer().listen(port, '127.0.0.1')
  await once(own, 'listening')
  server.listen(own, listening)
} else {
  server.listen(port, '127.0.0.1', listening)
}
