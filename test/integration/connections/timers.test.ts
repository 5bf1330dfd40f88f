/**
 * The timers and limits of a connection go along: in the successor they behave as if the connection had always been there. What closes
 * first is compared, never how long it took.
 */

import { execFileSync } from 'node:child_process'
import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import type { Client } from '../../helpers/client.js'
import { answers, ask, goesOn, isOpen, Moving, nextAnswer, oneMoved } from '../../helpers/moving.js'

/** Long enough that a reload fits in, on a busy machine too; Node adds a second to what it promises. */
const keepAliveTimeout = 4_000
const soon = { headersTimeout: 1_000, requestTimeout: 1_000, connectionsCheckingInterval: 100 }

/** Puts down the names of clients in the order in which their connections end. */
function orderOfEnds(clients: Readonly<Record<string, Client>>): { order: string[]; all: Promise<unknown> } {
  const order: string[] = []
  return { order, all: Promise.all(Object.entries(clients).map(async ([name, client]) => { await client.over; order.push(name) })) }
}

test('an idle connection that moved is closed after what was left of its keep-alive time', async () => {
  const moving = await Moving.start({ blocked: true, server: { keepAliveTimeout } })
  const idle = await moving.idleClient()
  const answered = performance.now()
  const busy = await moving.client()
  busy.request('/held')
  await moving.began('/held')
  await moving.reload()
  await moving.blocked()
  // The successor itself accepted this one, and answered it later than the idle one was answered, but before that one moves.
  const between = await moving.idleClient()
  await wait(300)
  moving.unblock()
  await moving.arrived(2)
  moving.release()
  await answers(busy, 1)
  const ends = orderOfEnds({ idle, between, busy })
  await idle.over
  expect(performance.now() - answered).toBeGreaterThan(keepAliveTimeout)
  await ends.all
  expect(ends.order).toEqual(['idle', 'between', 'busy'])
  for (const client of [idle, between, busy]) expect(client.text).toBe('')
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
})

test('the first request in the successor ends the keep-alive time that came along', async () => {
  const moving = await Moving.start({ server: { keepAliveTimeout } })
  const [busy, idle] = [await moving.idleClient(), await moving.idleClient()]
  await moving.reload()
  await moving.arrived(2)
  busy.request(`/slow?ms=${keepAliveTimeout + 2_000}`)
  await idle.over
  expect(isOpen(busy)).toBe(true)
  expect(await nextAnswer(busy)).toMatchObject({ body: `generation 2 answers /slow?ms=${keepAliveTimeout + 2_000}` })
  await goesOn(busy)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
})

test('an idle connection that moved is never answered 408, and half a head that comes on one is', async () => {
  const moving = await Moving.start({ server: soon })
  const [idle, half] = [await moving.idleClient(), await moving.idleClient()]
  await moving.reload()
  await moving.arrived(2)
  await moving.report() // both have long been idle by then
  await half.send('GET / HTTP/1.1\r\nHost: te').received(/^HTTP\/1\.1 408 /)
  expect(await half.over).toBe('closed')
  // Those that are checked as late as the half one would have been told by now.
  await wait(2 * soon.connectionsCheckingInterval)
  expect(idle.text).toBe('')
  await goesOn(idle)
})

test('half a head that was read in the predecessor is answered 408 there', async () => {
  // Not before the reload, which takes seconds on a busy machine.
  const limit = 6_000
  const moving = await Moving.start({ server: {
    ...soon, headersTimeout: limit, requestTimeout: limit
  }, options: { drainTimeout: 60_000 } })
  const half = await moving.client()
  half.send('GET / HTTP/1.1\r\nHost: te')
  const witness = await moving.idleClient()
  await moving.reload()
  await half.received(/^HTTP\/1\.1 408 /)
  await goesOn(witness)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 1, drained: 1 } })
})

test('a connection that never sent a byte is answered 408, at the time that counts from when it connected', async () => {
  const limit = 4_000
  const moving = await Moving.start({ blocked: true, server: { ...soon, headersTimeout: limit, requestTimeout: limit } })
  const first = await moving.client()
  await moving.program.event('connection')
  await moving.reload()
  await moving.blocked()
  const second = await moving.client()
  await moving.arrived(1)
  await wait(500)
  moving.unblock()
  await moving.arrived(2)
  const ends = orderOfEnds({ first, second })
  await ends.all
  expect(ends.order).toEqual(['first', 'second'])
  for (const client of [first, second]) expect(client.text).toMatch(/^HTTP\/1\.1 408 /)
  expect(await moving.report()).toMatchObject(oneMoved)
})

test('a connection that had sent nothing when it moved, and then sends in time, is not answered 408', async () => {
  const limit = 5_000
  const moving = await Moving.start({ server: { ...soon, headersTimeout: limit, requestTimeout: limit } })
  const [asking, silent] = [await moving.client(), await moving.client()]
  await moving.arrived(2, 1)
  await moving.reload()
  await moving.arrived(2)
  await goesOn(asking)
  await silent.received(/^HTTP\/1\.1 408 /)
  await wait(2 * soon.connectionsCheckingInterval)
  await goesOn(asking)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
})

test('requestTimeout works in the successor: half a body on a connection that moved is answered 408', async () => {
  const moving = await Moving.start({ server: soon })
  const [half, witness] = [await moving.idleClient(), await moving.idleClient()]
  await moving.reload()
  await moving.arrived(2)
  half.request('/body', { method: 'POST', headers: 'Content-Length: 10\r\n' }).send('half')
  await half.received(/^HTTP\/1\.1 408 /)
  await goesOn(witness)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
})

test('server.timeout works in the successor: a connection that moved and is silent in a request is closed', async () => {
  const moving = await Moving.start({ limits: { timeout: 1_000 } })
  const [silent, witness] = [await moving.idleClient(), await moving.idleClient()]
  await moving.reload()
  await moving.arrived(2)
  silent.request('/never')
  expect(await silent.over).toBe('closed')
  await goesOn(witness)
})

test('maxRequestsPerSocket goes on counting', async () => {
  const moving = await Moving.start({ limits: { maxRequestsPerSocket: 4 } })
  const client = await moving.idleClient()
  await ask(client, '/')
  await moving.reload()
  await moving.arrived(1)
  expect((await ask(client, '/')).headers.get('connection')).toBe('keep-alive')
  await moving.reload()
  await moving.arrived(1, 3)
  const last = await ask(client, '/')
  expect(last.body).toBe('generation 3 answers /')
  expect(last.headers.get('connection')).toBe('close')
  expect(await client.over).toBe('closed')
  expect(await moving.report()).toMatchObject(oneMoved)
})

test('a head of which a part comes in what is left of the keep-alive time has as long for its rest as with Node alone', async () => {
  const moving = await Moving.start({ blocked: true, server: { keepAliveTimeout } })
  const client = await moving.idleClient()
  const answered = performance.now()
  await moving.reload()
  await moving.blocked()
  await wait(keepAliveTimeout + 500 - (performance.now() - answered))
  moving.unblock()
  await moving.arrived(1)
  client.send('GET / HTTP/1.1\r\nHost: te')
  await wait(1_500)
  client.send('st\r\n\r\n')
  expect(await nextAnswer(client)).toMatchObject({ status: 200, body: 'generation 2 answers /' })
  await goesOn(client)
})

test('an idle connection keeps the time that its client was told of, where the new version gives less', async () => {
  const moving = await Moving.start({ next: { server: { keepAliveTimeout: 200 } } })
  const client = await moving.idleClient()
  const witness = await moving.idleClient()
  await wait(1_500)
  await moving.reload()
  await moving.arrived(2)
  await ask(witness, '/')
  // The new version's time begins with its first answer.
  expect(await witness.over).toBe('closed')
  expect(client.text).toBe('')
  await goesOn(client)
})

describe('the probes that the kernel sends on a silent connection (keepAlive)', () => {
  async function probes({ socket }: Client): Promise<boolean> {
    for (;;) {
      const found = execFileSync('ss', ['-Htno', `dport = :${socket.localPort}`], { encoding: 'utf8' })
      // The client has not acknowledged the answer yet: that is another timer.
      if (!found.includes('timer:(on')) return found.includes('timer:(keepalive')
      await wait(10)
    }
  }
  const keepAlive = { keepAlive: true, keepAliveInitialDelay: 60_000 }

  test('begin on a connection that moves where the new version asks for them', async () => {
    const moving = await Moving.start({ next: { server: keepAlive } })
    const client = await moving.idleClient()
    expect(await probes(client)).toBe(false)
    await moving.reload()
    await moving.arrived(1)
    await goesOn(client)
    expect(await probes(client)).toBe(true)
  })

  test('go on, and end where the program says so', async () => {
    const moving = await Moving.start({ server: keepAlive, next: { server: {} } })
    const client = await moving.idleClient()
    await moving.reload()
    await moving.arrived(1)
    await goesOn(client)
    expect(await probes(client)).toBe(true)
    await ask(client, '/no-probes')
    expect(await probes(client)).toBe(false)
  })
})
