/** How long a connection may be silent goes along with it, also where the program said that of its socket. */

import { socketPair } from '@handover/core/fd'
import { closeSync, readSync, writeSync } from 'node:fs'
import http from 'node:http'
import type net from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { ConnectionSender, ConnectionTracker, deadlineIn } from '../../../helpers/internals.js'
import { waitFor } from '../../../helpers/program.js'

const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const fresh = { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 } as const

async function serving(options: http.ServerOptions, answer: http.RequestListener = () => undefined) {
  const server = http.createServer(options, answer)
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const receive = (about: object = {}): { client: number; socket: net.Socket } => {
    const [client, accepted] = socketPair()
    onTestFinished(() => { closeSync(client) })
    return { client, socket: connections.receive(accepted, { ...fresh, ...about }) }
  }
  onTestFinished(() => { server.close().closeAllConnections() })
  return { server, connections, receive }
}

/** A connection whose program has given it a time of its own behind an answer, in a drain: what the successor is sent of it. */
async function ownTime(keepAliveTimeout = 5_000) {
  let isOut = false
  const { connections, receive } = await serving({ keepAliveTimeout }, (message, response) => {
    response.on('finish', () => {
      message.socket.setTimeout(120_000)
      isOut = true
    })
    response.end('ok')
  })
  const { client, socket } = receive()
  writeSync(client, request)
  await waitFor(() => isOut)
  readSync(client, Buffer.alloc(65_536))
  const sent: object[] = []
  const channel = { send: ({ connections: batch }: { connections: object[] }) => { sent.push(...batch) } }
  const mover = new ConnectionSender(channel as never, { listeners: ['tcp'], kinds: [], room: 10 }, () => undefined)
  const drain = connections.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000), route: { mover, listener: 'tcp', http2: false } })
  onTestFinished(() => { drain.undo() })
  await waitFor(() => sent.length === 1)
  return { socket, mover, sent }
}

test('the successor hears of the time that the program gave to the socket of an idle connection', async () => {
  const { sent } = await ownTime()
  expect(sent).toMatchObject([{ keepMs: 120_000 }])
})

test('where the server has no keep-alive time, the time that the program gave to the socket holds in the successor, also in requests', async () => {
  const { sent: [about] } = await ownTime(0)
  let asked = 0
  const { receive } = await serving({ keepAliveTimeout: 0 }, () => { asked++ })
  const { client, socket } = receive(about)
  expect(socket.timeout).toBe(120_000)
  writeSync(client, request)
  await waitFor(() => asked === 1)
  expect(socket.timeout).toBe(120_000)
})

test('a keep-alive time that the new version no longer has is not taken for one of the program', async () => {
  const { sent: [about] } = await ownTime()
  const { receive } = await serving({ keepAliveTimeout: 0 })
  expect(receive(about).socket.timeout ?? 0).toBe(0)
})

test('an idle connection that comes back has the time that the program gave to its socket', async () => {
  const { socket, mover } = await ownTime()
  expect(socket.timeout).toBe(0)
  mover.taken(0)
  expect(socket.timeout).toBe(120_000)
})

test.each([['that has sent nothing', {}], ['that is idle', { idleMs: 0, requests: 1 }]])(
  'the time of server.timeout goes on for a connection %s where nothing else limits it', async (_kind, about) => {
    const { server, receive } = await serving({ keepAliveTimeout: 0, headersTimeout: 0 })
    server.timeout = 500
    const order: net.Socket[] = []
    server.on('timeout', (socket) => {
      order.push(socket)
      socket.destroy()
    })
    const [first, second] = [receive(about), receive({ ...about, ageMs: 400, ...('idleMs' in about && { idleMs: 400 }) })]
    await waitFor(() => order.length === 2)
    expect(order).toEqual([second.socket, first.socket])
  }
)

test.each(['headersTimeout', 'requestTimeout'])('%s alone goes on for a connection that has sent nothing', async (limit) => {
  const { server, receive } = await serving({ headersTimeout: 0, requestTimeout: 0 })
  Object.assign(server, { [limit]: 60_000 })
  const told = new Promise((resolve) => { server.on('clientError', (error, socket) => { resolve([(error as NodeJS.ErrnoException).code, socket]) }) })
  receive()
  const { socket } = receive({ ageMs: 59_900 })
  expect(await told).toEqual(['ERR_HTTP_REQUEST_TIMEOUT', socket])
})

test('a connection that has sent nothing has the time that the program gave to its socket when it came', async () => {
  const { server, receive } = await serving({ headersTimeout: 0 })
  server.timeout = 1
  server.on('connection', (socket) => { socket.setTimeout(60_000) })
  const { socket } = receive({ ageMs: 10_000 })
  const { socket: late } = receive({ ageMs: 60_000 })
  await waitFor(() => late.destroyed)
  expect(socket.destroyed).toBe(false)
})
