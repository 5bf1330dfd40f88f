/**
 * Moved connections that are acknowledged before they have sockets: whose client waits is served first, whatever is queued, and until then
 * each counts, ages and ends as the others do.
 */

import { socketPair } from '@handover/core/fd'
import { closeSync, readdirSync, readlinkSync, writeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { once } from 'node:events'
import { afterEach, expect, it, onTestFinished, vi } from 'vitest'
import { type Channel, ConnectionReceiver, ConnectionTracker, deadlineIn, type Message, type MovedConnection, native } from '../../../helpers/internals.js'

/** The test needs Linux. */
const addon = native as Required<NonNullable<typeof native>>

afterEach(() => { vi.restoreAllMocks() })

const idle = (requests: number): MovedConnection => ({ kind: 'http', listener: 'tcp', ageMs: 5, idleMs: 1, requests })

function pairs(count: number): { fds: number[]; others: number[] } {
  const all = Array.from({ length: count }, () => socketPair())
  return { fds: all.map(([fd]) => fd), others: all.map(([, other]) => other) }
}

/** A receiver that keeps the order in which it made connections, each in 2 ms. `received` is called for each. */
function ordered(received: (number: number) => void = () => undefined) {
  const order: number[] = []
  const answers: Message[] = []
  const place = { arriving: 0 }
  const abouts: MovedConnection[] = []
  const receiver = new ConnectionReceiver({ send: (message: Message) => { answers.push(message) } } as unknown as Channel, {
    receive: (fd, about) => {
      for (const end = performance.now() + 2; performance.now() < end;);
      closeSync(fd)
      order.push(about.requests)
      abouts.push(about)
      received(about.requests)
    },
    waitsAt: () => place
  })
  const { fds, others } = pairs(60)
  onTestFinished(() => { for (const other of others) closeSync(other) })
  void receiver.take(fds.map((_, index) => idle(index)), fds)
  return { receiver, order, answers, place, abouts, others }
}

const ask = (other: number): void => { writeSync(other, 'x') }

it('acknowledges at once, and first serves those whose clients wait, in the order in which they began to', async () => {
  const { receiver, order, answers, place, others } = ordered()
  expect([answers, place.arriving, order]).toEqual([[{ type: 'taken', count: 60 }], 60, []])
  for (const number of [50, 20, 40]) ask(others[number]!)
  await receiver.idle()
  expect(order.slice(0, 3)).toEqual([50, 20, 40])
  expect([order.length, new Set(order).size, place.arriving]).toEqual([60, 60, 0])
})

/** How many there are in this process: Node has some as well. */
const epolls = (): number => readdirSync('/proc/self/fd').filter((fd) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).includes('eventpoll')
  } catch {
    return false
  }
}).length

it('keeps no descriptor of its own once all are served', async () => {
  const before = epolls()
  const { receiver } = ordered()
  expect(epolls()).toBe(before + 1)
  await receiver.idle()
  expect(epolls()).toBe(before)
})

it('serves a client that asks while others are queued before the rest of them', async () => {
  const { receiver, order, others } = ordered((number) => { if (number === 5) ask(others[59]!) })
  await receiver.idle()
  // Whatever was left of that turn, which has room for three.
  expect(order.indexOf(59)).toBeLessThanOrEqual(order.indexOf(5) + 3)
})

it('would serve it last if it never asked which clients wait, which the two tests before would notice', async () => {
  vi.spyOn(addon, 'epollReady').mockReturnValue([])
  const { receiver, order, others } = ordered()
  ask(others[59]!)
  await receiver.idle()
  expect(order).toEqual(Array.from({ length: 60 }, (_, index) => index))
})

it('adds the time that a connection waited to its age and to how long it is idle', async () => {
  const { receiver, abouts } = ordered()
  await receiver.idle()
  // 59 others before it, of 2 ms each.
  expect(abouts.at(-1)!.idleMs).toBeGreaterThan(100)
  expect(abouts.at(-1)!.ageMs).toBe(abouts.at(-1)!.idleMs! + 4)
})

it('makes a connection that cannot be watched before it answers', async () => {
  vi.spyOn(addon, 'epollAdd').mockImplementation((_epoll, fds) => [...fds])
  const { receiver, order, answers, place } = ordered()
  expect([order.length, answers.length, place.arriving]).toEqual([60, 1, 0])
  await receiver.idle()
  expect(order.length).toBe(60)
})

async function serving(server: http.Server) {
  const tracker = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const receiver = new ConnectionReceiver({ send: () => undefined } as unknown as Channel, {
    receive: (fd, about) => { tracker.receive(fd, about) },
    waitsAt: () => (tracker.takesAll ? tracker : undefined)
  })
  const { fds, others } = pairs(20)
  const counted = async (): Promise<number> => await new Promise((resolve) => {
    server.getConnections((_, count) => { resolve(count) })
  })
  return { tracker, receiver, fds, others, counted, take: () => receiver.take(fds.map((_, index) => idle(index)), fds) }
}

const clientOf = (fd: number): net.Socket => new net.Socket({ fd }).on('error', () => undefined)

it('counts connections that wait, and serves them; a client that closes meanwhile is gone', async () => {
  const { tracker, receiver, others, counted, take } = await serving(http.createServer(({ url }, response) => { response.end(url) }))
  const count = counted()
  void take()
  expect(tracker.open).toBe(20)
  expect([...tracker.all]).toEqual([])
  await count
  const [first, ...rest] = others
  closeSync(first!)
  const clients = rest.map(clientOf)
  await receiver.idle()
  const answers = await Promise.all(clients.map(async (client, index) => {
    client.write(`GET /${index} HTTP/1.1\r\nHost: a\r\n\r\n`)
    const [bytes] = await once(client, 'data') as [Buffer]
    return bytes.toString().endsWith(`/${index}`)
  }))
  expect(answers.every(Boolean)).toBe(true)
  expect([tracker.open, await counted()]).toEqual([19, 19])
  for (const client of clients) client.destroy()
})

it('closes a connection that waited when its keep-alive time is over', async () => {
  const { others, receiver, take } = await serving(http.createServer({ keepAliveTimeout: 100 }))
  void take()
  const clients = others.map(clientOf)
  await receiver.idle()
  await Promise.all(clients.map(async (client) => await client.resume().toArray().catch(() => [])))
})

it('drains connections that wait when the drain begins', async () => {
  const { tracker, others, receiver, take } = await serving(http.createServer())
  void take()
  const drain = tracker.drain({ lingerMs: 1, deadline: deadlineIn(10_000) })
  await receiver.idle()
  await drain.empty()
  expect(drain.result).toMatchObject({ closedIdle: 20, cut: 0 })
  for (const other of others) closeSync(other)
  drain.end()
})

it('waits for the program where it has a listener for "connection", or emits its events itself', async () => {
  const server = http.createServer()
  const tracker = new ConnectionTracker(server)
  expect(tracker.takesAll).toBe(true)
  const listener = (): void => undefined
  server.on('connection', listener)
  expect(tracker.takesAll).toBe(false)
  server.off('connection', listener)
  expect(tracker.takesAll).toBe(true)
  const { emit } = server
  Object.assign(server, { emit: (...args: unknown[]) => Reflect.apply(emit, server, args) })
  expect(tracker.takesAll).toBe(false)
})
