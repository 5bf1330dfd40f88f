// The same for a program that is CommonJS: import compiles to require().
import http = require('node:http')
import net = require('node:net')
import express = require('express')
import Fastify = require('fastify')
import WebSocket = require('ws')
import core = require('@handover/core')
import fd = require('@handover/core/fd')
import sockets = require('@handover/core/ws')
import adopter = require('@handover/express')
import byName = require('@handover/fastify')
import metrics = require('@handover/prom-client')
import prom = require('prom-client')
import tstyche = require('tstyche')
import plugin, { handover } from '@handover/fastify'


const server = core.handover(http.createServer(), { name: 'app' })
tstyche.expect(server).type.toBe<http.Server>()
const report: Promise<core.Report> = core.reload()
console.log(report, core.handover.state, fd.sendFds)
core.handover(http.createServer(), { move: false })
core.handover(http.createServer(), { canMove: ({ destroyed }) => !destroyed })
// @ts-expect-error -- its answer is needed at once
core.handover(http.createServer(), { canMove: async () => true })

core.handover.events.on('draining', ({ endsInMs }: core.Draining) => { console.log(endsInMs) })
const moved: Promise<boolean> = core.move(new net.Socket(), { kind: 'chat', state: { name: 'me' } })
core.handover.onMoved('chat', (socket, state) => { console.log(socket.remotePort, state as { name: string }, moved) })
// @ts-expect-error -- what comes from another program is to be looked at first
core.onMoved('word', (_socket, state) => { console.log(state.name) })
// @ts-expect-error -- no kind
void core.move(new net.Socket(), { state: {} })

const wss = new WebSocket.WebSocketServer({ noServer: true })
sockets.moveWebSockets(wss, { save: ({ protocol }) => ({ protocol }), restore: (_ws, state) => { tstyche.expect(state).type.toBe<{ protocol: string }>() } })
// @ts-expect-error -- no restore
sockets.moveWebSockets(wss, { save: () => null })
// @ts-expect-error -- not a WebSocketServer
sockets.moveWebSockets(server, { save: () => null, restore: () => undefined })

async function main(): Promise<void> {
  const app = Fastify()
  await app.register(plugin, { drainTimeout: 30_000 })
  await app.register(handover)
  await app.register(byName.handover)
  const generation: number = app.handover.generation
  console.log(generation)
  // @ts-expect-error -- no such option
  await app.register(plugin, { drainTimeouts: 1 })
}
void main()

const web = adopter.handover(express())
tstyche.expect(web).type.toBe<express.Express & { readonly handover: core.Handover }>()
web.listen(3000)

metrics.inherit(prom.register, { gauges: { open: 'reset' } })
// @ts-expect-error -- no such option
metrics.inherit(prom.register, { gauge: {} })
