// A server of HTTPS, as programs make it: KIND sni (a context of its own for b.example, by SNICallback), added (by addContext), rotated (by
// setSecureContext, after it listens), fastify, express, allowHTTP1 (of http2). Every answer says what the program sees of the connection.
import { createServer } from 'node:https'
import { createSecureServer } from 'node:http2'
import { createSecureContext } from 'node:tls'
import express from 'express'
import Fastify from 'fastify'
import { handover } from '@handover/core'
import handoverPlugin from '@handover/fastify'
import { handover as handoverExpress } from '@handover/express'
import { certificate } from './certificate.mjs'
import { print, printEvents } from './print.mjs'

const { KIND: kind } = process.env
const options = { undoWindow: 100 }
const seen = ({ socket }, more = {}) => ({
  generation: handover.generation, encrypted: socket.encrypted, servername: socket.servername, alpn: socket.alpnProtocol, ...more
})
const answer = (request, response) => { response.end(JSON.stringify(seen(request))) }
const listening = (server) => { print('listening', { address: server.address() }) }

printEvents(handover)
if (kind === 'fastify') {
  const app = Fastify({ https: certificate() })
  await app.register(handoverPlugin, options)
  app.get('/', (request) => seen(request.raw, { protocol: request.protocol }))
  await app.listen({ port: 0, host: '127.0.0.1' })
  listening(app.server)
} else {
  const app = express().get('/', (request, response) => { response.json(seen(request, { secure: request.secure, protocol: request.protocol })) })
  const settings = {
    ...certificate(),
    ...(kind === 'sni' && { SNICallback: (name, done) => { done(null, name === 'b.example' ? createSecureContext(certificate()) : undefined) } }),
    ...(kind === 'allowHTTP1' && { allowHTTP1: true })
  }
  const server = (kind === 'allowHTTP1' ? createSecureServer : createServer)(settings, kind === 'express' ? handoverExpress(app, options) : answer)
  if (kind === 'added') server.addContext('b.example', createSecureContext(certificate()))
  if (kind !== 'express') handover(server, options)
  server.listen(0, '127.0.0.1', () => {
    if (kind === 'rotated') server.setSecureContext(certificate())
    listening(server)
  })
}
