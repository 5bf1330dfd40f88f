// server.mjs for the tests in test/move that count connections: it prints which Node runs it (`boot`) and every connection that this process accepted
// (`accepted`). A connection that was moved here was accepted by another one, and is not printed.
import { subscribe } from 'node:diagnostics_channel'
import http from 'node:http'
import https from 'node:https'
import { print } from './print.mjs'

print('boot', { node: process.version })
subscribe('net.server.socket', ({ socket }) => {
  // The control socket has a server too.
  if (socket.server instanceof http.Server || socket.server instanceof https.Server) print('accepted', { port: socket.remotePort })
})
await import('./server.mjs')
