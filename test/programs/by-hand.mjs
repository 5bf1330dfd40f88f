// A server whose connections the program takes into its own hands before HTTP has them, for the tests of moves.
// Settings, as JSON in SETTINGS, and over it NEXT in every generation after the first (see move-settings.mjs):
//   kind    plain (Node's own way), proxy (reads a PROXY line first), port (a net server that looks at the first byte, and an HTTP server that never listens),
//           emit (its own `emit` does that), tls (a net server whose connections it wraps in TLS itself), destroys, throws (a listener for 'connection' does)
//   options HandoverOptions
// Routes: /  /held, which is never answered. Every answer says which generation gave it.
import { settings } from './move-settings.mjs'
import http from 'node:http'
import net from 'node:net'
import tls from 'node:tls'
import { handover } from '@handover/core'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { kind } = settings
const options = { undoWindow: 100, ...settings.options }
printEvents(handover)

const answering = () => http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  if (request.url === '/held') print('request', { url: request.url })
  else response.end(`generation ${handover.generation}`)
})

const afterFirstBytes = (socket, next) => {
  socket.once('data', (first) => {
    socket.pause()
    socket.unshift(first)
    next()
    process.nextTick(() => { socket.resume() })
  })
}

const kinds = {
  plain: () => answering(),
  proxy() {
    const server = answering()
    const toHttp = server.listeners('connection')
    server.removeAllListeners('connection')
    return server.on('connection', (socket) => {
      socket.once('readable', () => {
        const bytes = socket.read()
        if (!bytes) return
        socket.unshift(bytes.subarray(bytes.indexOf('\r\n') + 2))
        for (const listener of toHttp) listener.call(server, socket)
      })
    })
  },
  port() {
    const server = answering()
    return net.createServer((socket) => { afterFirstBytes(socket, () => { server.emit('connection', socket) }) })
  },
  emit() {
    const server = answering()
    const emit = server.emit.bind(server)
    server.emit = (name, ...args) => {
      if (name !== 'connection') return emit(name, ...args)
      afterFirstBytes(args[0], () => { emit(name, ...args) })
      return true
    }
    return server
  },
  tls() {
    const server = answering()
    const secureContext = tls.createSecureContext(certificate())
    return net.createServer((socket) => { server.emit('connection', new tls.TLSSocket(socket, { isServer: true, secureContext })) })
  },
  destroys: () => answering().on('connection', (socket) => { socket.destroy() }),
  throws: () => answering().on('connection', () => { throw new Error('this listener throws') })
}

const server = handover(kinds[kind](), options)
server.listen(0, '127.0.0.1', () => { print('listening', { address: server.address() }) })
