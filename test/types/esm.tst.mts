// What a TypeScript program writes that imports the packages as ES modules. It is compiled, never run: see matrix.test.ts.
import dgram from 'node:dgram'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import express, { type Express } from 'express'
import Fastify from 'fastify'
import { WebSocketServer, type WebSocket } from 'ws'
import { Readable } from 'node:stream'
import { HandoverError, aggregate, handover, move, onMoved, ready, reload, share, stop, type Draining, type ErrorCode, type Handover, type HandoverOptions, type Report, type Section, type StateName } from '@handover/core'
import { sendFds, receiveFds } from '@handover/core/fd'
import { moveWebSockets } from '@handover/core/ws'
import { handover as adopt } from '@handover/express'
import plugin, { handover as named } from '@handover/fastify'
import { startLoad, type LoadResult } from '@handover/load'
import { inherit, type GaugeRule, type InheritOptions } from '@handover/prom-client'
import { Registry, type OpenMetricsContentType } from 'prom-client'
import { expect } from 'tstyche'


// core: the type of what is given comes back.
const options: HandoverOptions = { name: 'app', readyTimeout: 1, drainTimeout: 1, undoWindow: 1, linger: 1, reloadSignal: 'SIGHUP', readyWhen: 'manual', onClose: async () => undefined, log: (level, line) => { console.log(level, line) } }
const server = handover(http.createServer(), options)
expect(server).type.toBe<http.Server>()
const secure = handover(http2.createSecureServer())
expect(secure).type.toBe<http2.Http2SecureServer>()
const socket = handover(dgram.createSocket('udp4'))
expect(socket).type.toBe<dgram.Socket>()
handover(net.createServer()).listen(0).address()
handover(http.createServer(), { move: false })
handover(http.createServer(), { canMove: (connection) => { expect(connection).type.toBe<net.Socket>(); return !connection.destroyed } })

const generation: number = handover.generation
const state: StateName = handover.state
const report: Report = await reload()
const kept: readonly string[] = report.listeners.kept
const last: Report | undefined = handover.lastReport
handover.events.on('failed', (error) => { const code: ErrorCode = error.code; console.log(code) })
handover.events.on('state', ({ from, to }) => { console.log(from, to) })
handover.events.on('report', ({ durations }) => { console.log(durations.drain) })
ready()
await stop()
const error = new HandoverError('HANDOVER_OPTION', 'text')
expect(error.code).type.toBe<ErrorCode>()
console.log(generation, state, kept, last, sendFds, receiveFds)

// An option may be undefined, as what is read from a configuration is.
const maybe = Math.random() > 1 ? 1 : undefined
handover(server, { name: process.env['NAME'], drainTimeout: maybe, move: { http2: maybe === 1 || undefined }, onClose: undefined, log: undefined })
void reload({ withoutState: maybe === 1 || undefined })
share('undefined', { save: () => 1, restore: (saved) => { saved.toFixed() }, merge: undefined, schema: maybe, timeout: maybe, optional: undefined })

// @ts-expect-error -- not a server
handover({})
// @ts-expect-error -- no such option
handover(server, { names: 'app' })
// @ts-expect-error -- a number of milliseconds
handover(server, { linger: '1s' })
// @ts-expect-error -- its answer is needed at once
handover(server, { canMove: async () => true })
// @ts-expect-error -- no such code
new HandoverError('HANDOVER_NOTHING', 'text')

// Connections of the program's own protocol.
handover.events.on('draining', ({ successor, endsInMs }: Draining) => {
  const pid: number | undefined = successor?.pid
  console.log(pid, endsInMs.toFixed())
})
const moved: boolean = await handover.move(new net.Socket(), { kind: 'chat', state: { name: 'me', rest: '' } })
const movedToo: boolean = await move(new net.Socket(), { kind: 'chat' })
handover.onMoved('chat', (connection, about) => {
  expect(connection).type.toBe<net.Socket>()
  expect(about).type.toBe<unknown>()
})
onMoved('line', (_connection, about) => { console.log((about as { name: string }).name, moved, movedToo) })
// @ts-expect-error -- what comes from another program is to be looked at first
onMoved('word', (_connection, about) => { console.log(about.name) })
// @ts-expect-error -- no kind
await move(new net.Socket(), { state: {} })

// WebSockets of the package ws: save() says what restore() gets.
interface Member { name: string }
const members = new WeakMap<WebSocket, Member>()
const wss = new WebSocketServer({ noServer: true })
moveWebSockets(wss, {
  save: (ws) => { expect(ws).type.toBe<WebSocket>(); return members.get(ws) ?? null },
  restore: (ws, member) => { expect(member).type.toBe<Member>(); members.set(ws, member) },
  kind: 'members'
})
// @ts-expect-error -- no restore
moveWebSockets(wss, { save: () => null })
// @ts-expect-error -- not a WebSocketServer
moveWebSockets(server, { save: () => null, restore: () => undefined })

// Fastify: default and named, options checked, the decorator typed.
const app = Fastify()
await app.register(plugin, { drainTimeout: 30_000 })
await app.register(named)
expect(app.handover).type.toBe<Handover>()
const reloaded: Promise<Report> = app.handover.reload()
void reloaded
// @ts-expect-error -- no such option
await app.register(plugin, { drainTimeouts: 1 })
// @ts-expect-error -- a number of milliseconds
await app.register(plugin, { drainTimeout: 'soon' })
await app.listen({ port: 3000 })

// Fastify with another kind of server.
const other = Fastify({ http2: true })
await other.register(plugin)
console.log(other.handover.generation)

// Express: the app keeps its type.
const web = adopt(express(), { name: 'web' })
expect(web).type.toBe<Express & { readonly handover: Handover }>()
web.get('/', (_request, response) => { response.send('ok') })
web.listen(3000, (error) => { if (error) throw error })
// @ts-expect-error -- not an app
adopt({})

// prom-client: any registry, and the rule of each gauge.
inherit()
const rule: GaugeRule = 'adopt'
const inheritOptions: InheritOptions = { gauges: { open: rule, used: 'sum' }, generation: true, name: 'admin', core: handover }
inherit(new Registry(), inheritOptions)
const openMetrics = new Registry<OpenMetricsContentType>()
openMetrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
inherit(openMetrics, { name: 'open' })
// @ts-expect-error -- no such rule
inherit(new Registry(), { gauges: { open: 'keep' } })
// @ts-expect-error -- not a registry
inherit({})

// Shared state: restore gets what save answers, and a stream as an async iterable of its items.
const sessions = new Map<string, { user: string }>()
share('sessions', {
  save: () => sessions,
  restore: (saved) => { for (const [id, session] of saved) sessions.set(id, session) },
  merge: (saved, { savedAt }) => { expect(saved).type.toBe<Map<string, { user: string }>>(); expect(savedAt).type.toBe<Date>() }
})
share('later', { save: async ({ phase, signal }) => ({ phase, late: signal.aborted }), restore: (saved) => { expect(saved.late).type.toBe<boolean>() } })
share('stream', { async *save() { yield 'item' }, async restore(items) { for await (const item of items) expect(item).type.toBe<string>() } })
share('iterator', { save: () => sessions.entries(), async restore(items) { for await (const [id] of items) expect(id).type.toBe<string>() } })
share('readable', { save: (): Readable => Readable.from([]), async restore(items) { for await (const item of items) console.log(item) } })
share('older form', { schema: 2, accepts: [1], save: () => sessions, restore: (saved: Map<string, unknown> | [string, unknown][], { schema }) => { console.log(saved, schema) } })
share('only restored', { restore: (saved: string[]) => { console.log(saved.length) } })
share<number>('named', { save: () => 1, restore: (saved) => { saved.toFixed() } })
share<number>('async', { save: async () => 1, restore: (saved) => { saved.toFixed() } })
share('either', { save: () => (sessions.size > 0 ? sessions.keys() : undefined), restore: (saved) => { expect(saved).type.toBe<AsyncIterable<string> | undefined>() } })
const section: Section<number> = { save: () => 1, restore: (saved) => { saved.toFixed() } }
share('apart', section)
adopt(express()).handover.share('express', { save: () => sessions, restore: (saved) => { saved.clear() } })
// @ts-expect-error -- not what save answers
share<Map<string, number>>('wrong', { save: () => new Set([1]) })
// @ts-expect-error -- no such option
share('typo', { save: () => 1, checkpoints: 5_000 })
const orders = aggregate('orders', { own: () => 1, add: (a, b) => a + b, text: { write: String, read: Number } })
const total: number = await orders.total()
console.log(total)

// The load client, which is for ES modules alone.
const load = startLoad({ host: '127.0.0.1', port: 1 }, { keepAlive: { clients: 1 } })
const result: LoadResult = await load.stop()
console.log(result)
// @ts-expect-error -- no such option
startLoad({ host: '127.0.0.1', port: 1 }, { keepAlives: 1 })
