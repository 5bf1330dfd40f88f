/**
 * The other process of the tests, in Node: `node peer.mjs ROLE …`, with the connection as descriptor 3. It writes one line of JSON
 * for each thing that happened, and ends when its work is done or its standard input ends.
 */

import { readdirSync, writeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { closeFds, describeFd, receiveFds, receiveListener, sendFds, sendListener } from '@handover/core/fd'

const connection = 3
const say = (what) => { writeSync(1, `${JSON.stringify(what)}\n`) }
const openFds = () => readdirSync('/dev/fd').length
const servers = {
  net: () => net.createServer((socket) => { socket.end(`${process.pid}`) }),
  http: () => http.createServer((_request, response) => { response.end(`${process.pid}`) })
}

const roles = {
  /** Sends back what comes, until the end. */
  async echo() {
    for (;;) {
      const { data, fds } = await receiveFds(connection)
      await sendFds(connection, fds, data)
      closeFds(fds)
    }
  },
  /** Receives once and says what came of it. */
  async receive() {
    const before = openFds()
    try {
      const { data, fds } = await receiveFds(connection)
      closeFds(fds)
      say({ data: data.toString(), fds: fds.length, leaked: openFds() - before })
    } catch (error) {
      say({ code: error.code, message: error.message, leaked: openFds() - before })
    }
  },
  /** Sends as another user until the kernel refuses. */
  async flood(uid) {
    process.setuid(Number(uid))
    const fds = new Array(20).fill(2)
    try {
      for (;;) await sendFds(connection, fds, 'x', { timeoutMs: 0 })
    } catch (error) {
      say({ code: error.code, message: error.message, errno: error.cause?.errno })
    }
  },
  /** Listens, sends the listener, and listens on until standard input ends. */
  async offer(kind, where, data) {
    const server = servers[kind]()
    server.listen(/^\d+$/.test(where) ? { host: '127.0.0.1', port: Number(where) } : { path: where }, async () => {
      await sendListener(connection, server, data)
      say({ address: server.address() })
    })
    process.stdin.resume().on('end', () => { server.close() })
  },
  /** Receives a listener and serves on it until standard input ends. */
  async adopt(kind) {
    const { server, data, description } = await receiveListener(connection, servers[kind]())
    say({ address: server.address(), data: data.toString(), description, found: describeFd(server._handle.fd) })
    process.stdin.resume().on('end', () => { server.close() })
  }
}

const [role, ...words] = process.argv.slice(2)
try {
  await roles[role](...words)
} catch (error) {
  if (error.code !== 'HANDOVER_FD_CLOSED') throw error
}
