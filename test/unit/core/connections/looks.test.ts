/**
 * What a drain costs: it looks at a connection when something has happened on it, and not again and again at all of them; and at the
 * deadline it cuts some of them in each turn of the event loop, so that the others are still answered. Looks and turns are counted, not
 * times.
 */

import { socketPair } from '@handover/core/fd'
import { closeSync, writeSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import type net from 'node:net'
import type { AddressInfo } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { expect, onTestFinished, test, vi } from 'vitest'
import { areLeft, ConnectionSender, ConnectionTracker, deadlineIn, nothingDrained, sum, type OutgoingConnection } from '../../../helpers/internals.js'
import { waitFor } from '../../../helpers/program.js'

const count = 200
/** More than two turns cut at most. */
const many = 1_200

/** ConnectionTracker with requests that are not answered until the test says so, and a drain that moves those that can. */
async function longPolls(count: number) {
  const waiting: http.ServerResponse[] = []
  const server = http.createServer((_request, response) => { waiting.push(response) })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const clients = Array.from({ length: count }, () => {
    const [client, accepted] = socketPair()
    connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
    writeSync(client, 'GET /poll HTTP/1.1\r\nHost: a\r\n\r\n')
    return client
  })
  onTestFinished(() => {
    for (const client of clients) closeSync(client)
    server.close()
  })
  await waitFor(() => waiting.length === count)
  let moved = 0
  const channel = { send: () => { moved++ } } as unknown as ConstructorParameters<typeof ConnectionSender>[0]
  const mover = new ConnectionSender(channel, { listeners: ['tcp'], kinds: [], room: count }, () => undefined)
  const drain = connections.drain({ lingerMs: 100, deadline: deadlineIn(60_000), route: { mover, listener: 'tcp', http2: false } })
  onTestFinished(() => { mover.end({ text: 'the test is over' }, true) })
  return { connections, drain, waiting, moved: () => moved }
}

test('requests that only wait are looked at once, and once more when they are answered', async () => {
  const { drain, waiting, moved } = await longPolls(count)
  onTestFinished(() => { drain.undo() })
  await waitFor(() => drain.looks >= count)
  // As long as several rounds over all of them would need.
  await wait(300)
  expect(drain.looks).toBe(count)
  waiting[0]!.end('news')
  await waitFor(() => moved() === 1)
  expect(drain.looks).toBe(count + 1)
})

/** Cuts them all: how many were cut in each turn. */
async function cutInTurns({ connections, drain }: Awaited<ReturnType<typeof longPolls>>): Promise<number[]> {
  const left = [connections.open]
  const watch = (): void => {
    left.push(connections.open)
    if (connections.open > 0) setImmediate(watch)
  }
  drain.cut()
  setImmediate(watch)
  await drain.empty()
  await waitFor(() => connections.open === 0)
  return left.slice(1).map((open, index) => left[index]! - open)
}

test('at the deadline some are cut in each turn of the loop, and each is named', async () => {
  const held = await longPolls(count)
  // One turn may be seen as two.
  expect(Math.max(...await cutInTurns(held))).toBeLessThan(count)
  expect(held.drain.result).toMatchObject({ cut: count, closedIdle: 0 })
  expect(held.drain.result.requestsCut.map(({ path }) => path)).toEqual(Array<string>(count).fill('/poll'))
})

test('where turns are slow more is cut in each, but never all that is left', async () => {
  const held = await longPolls(many)
  let now = performance.now()
  // Each look at the clock is half a second after the one before: two turns are over the time for all.
  vi.spyOn(performance, 'now').mockImplementation(() => { now += 500; return now })
  onTestFinished(() => { vi.restoreAllMocks() })
  const turns = await cutInTurns(held)
  expect(Math.max(...turns)).toBeGreaterThan(100)
  expect(Math.max(...turns)).toBeLessThan(many / 2)
  expect(held.drain.result).toMatchObject({ cut: many, closedIdle: 0 })
})

test('a request of HTTP/2 is named, too, in whatever turn its session is cut', async () => {
  const waiting: http2.Http2ServerRequest[] = []
  const server = http2.createServer((request) => { waiting.push(request) })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  const clients = Array.from({ length: count }, () => http2.connect(`http://127.0.0.1:${port}`).on('error', () => undefined))
  onTestFinished(() => {
    for (const client of clients) client.destroy()
    server.close()
  })
  for (const client of clients) client.request({ ':path': '/poll' }).on('error', () => undefined)
  await waitFor(() => waiting.length === count)
  const drain = connections.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000), stays: 'movingIsOff' })
  drain.cut()
  await drain.empty()
  expect(drain.result.cut).toBe(count)
  expect(drain.result.requestsCut.map(({ path }) => path)).toEqual(Array<string>(count).fill('/poll'))
  drain.end()
})

test('a program that ends no connections itself is asked that once, and not each time for all of them', () => {
  const connections = { [Symbol.iterator]: vi.fn() } as unknown as Parameters<typeof areLeft>[0]
  expect(areLeft(connections, { programEnds: () => false })).toBe(false)
  expect(areLeft(connections, {})).toBe(false)
  expect(connections[Symbol.iterator]).not.toHaveBeenCalled()
})

test('the requests that were cut are in one report, however many they are', () => {
  const requestsCut = Array.from({ length: 200_000 }, () => ({ method: 'GET', path: '/poll', ms: 1 }))
  expect(sum([{ ...nothingDrained(), requestsCut }]).requestsCut).toHaveLength(requestsCut.length)
})

test('a program may move all of its connections at once: what one message has is taken from the list in one piece', async () => {
  const { shift } = Array.prototype
  let [long, left] = [0, 0]
  Array.prototype.shift = function () {
    if (this.length > many / 2) long++
    return shift.call(this) as unknown
  }
  onTestFinished(() => { Array.prototype.shift = shift })
  const connection: OutgoingConnection = {
    fd: () => 0, about: { kind: 'chat', listener: '', ageMs: 0, requests: 0 }, sent: () => undefined, left: () => { left++ }, back: () => undefined
  }
  const channel = {
    send: ({ connections }: { connections: readonly unknown[] }) => { setImmediate(() => { sender.taken(connections.length) }) }
  } as unknown as ConstructorParameters<typeof ConnectionSender>[0]
  const sender = new ConnectionSender(channel, { listeners: [], kinds: ['chat'], room: many }, () => undefined)
  for (let each = 0; each < many; each++) sender.send(connection)
  await waitFor(() => left === many)
  expect(long).toBe(0)
})

test('a session of HTTP/2 that stays through many undone drains is left as it was', async () => {
  const server = http2.createServer((_request, response) => { response.write('it goes on') })
  const connections = new ConnectionTracker(server)
  const accepted = new Promise<net.Socket>((resolve) => { server.once('connection', resolve) })
  const session = new Promise<http2.ServerHttp2Session>((resolve) => { server.once('session', resolve) })
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const client = http2.connect(`http://127.0.0.1:${String((server.address() as AddressInfo).port)}`)
  onTestFinished(() => {
    client.destroy()
    server.close()
  })
  await new Promise((resolve) => { client.request({ ':path': '/' }).once('data', resolve) })
  const socket = await accepted
  const channel = { send: () => undefined } as unknown as ConstructorParameters<typeof ConnectionSender>[0]
  const drainAndUndo = async (): Promise<number> => {
    const mover = new ConnectionSender(channel, { listeners: ['tcp'], kinds: [], room: count, http2: ['tcp'] }, () => undefined)
    const drain = connections.drain({ lingerMs: 100, deadline: deadlineIn(60_000), route: { mover, listener: 'tcp', http2: true } })
    await waitFor(() => drain.looks > 0)
    mover.end({ text: 'the test is over' }, true)
    drain.undo()
    return socket.listenerCount('close')
  }
  const listeners: number[] = []
  for (let time = 0; time < 4; time++) listeners.push(await drainAndUndo())
  expect(new Set(listeners), listeners.join(' ')).toHaveLength(1)
  expect(Object.hasOwn(await session, 'ping')).toBe(false)
})
