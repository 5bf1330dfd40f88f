/**
 * The very moment of the switch: what lies unread in the kernel when a connection moves, what comes while it does, and what the
 * successor's server says of the connections that it got.
 */

import { describe, expect, test } from 'vitest'
import { answers, answersBeforeTheEnd, ask, goesOn, isOpen, Moving, oneMoved, switched, untilOnly } from '../../helpers/moving.js'

describe('what is unread in the kernel when the connection moves is read by the successor', () => {
  // One connection each: what is looked at a slice of the loop later may have been read by then, and is answered by the predecessor.
  describe.each([
    { what: 'was answered before', connect: async (moving: Moving) => await moving.idleClient() },
    { what: 'never sent a byte', connect: async (moving: Moving) => await moving.client() }
  ])('on a connection that $what', ({ connect }) => {
    test('a request', async () => {
      const moving = await Moving.start({ blocked: true })
      const client = await connect(moving)
      await moving.reload()
      await moving.blocked()
      client.request('/?unread')
      moving.unblock()
      expect(await answers(client, 1)).toMatchObject([{ body: 'generation 2 answers /?unread' }])
      await goesOn(client)
      expect(await moving.report()).toMatchObject(oneMoved)
    })

    test('half a request head, whose other half comes afterwards', async () => {
      const moving = await Moving.start({ blocked: true })
      const client = await connect(moving)
      await moving.reload()
      await moving.blocked()
      client.send('GET / HTTP/1.1\r\nHost: te')
      moving.unblock()
      await moving.arrived(1)
      client.send('st\r\n\r\n')
      expect(await answers(client, 1)).toMatchObject([{ body: 'generation 2 answers /' }])
      await goesOn(client)
      expect(await moving.report()).toMatchObject(oneMoved)
    })
  })

  test('a hundred requests, in order', async () => {
    const moving = await Moving.start({ blocked: true })
    const client = await moving.idleClient()
    await moving.reload()
    await moving.blocked()
    for (let index = 0; index < 100; index++) client.request(`/?${index}`)
    moving.unblock()
    expect((await answers(client, 100)).map(({ body }) => body)).toEqual(Array.from({ length: 100 }, (_, index) => `generation 2 answers /?${index}`))
    expect(await moving.report()).toMatchObject(oneMoved)
  })

  test('a body of a megabyte', async () => {
    const moving = await Moving.start({ blocked: true })
    const client = await moving.idleClient()
    await moving.reload()
    await moving.blocked()
    client.request('/body', { method: 'POST', body: 'x'.repeat(1_000_000) })
    moving.unblock()
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 2 took 1000000 bytes' }])
    expect(await moving.report()).toMatchObject(oneMoved)
  })

  test('a request that expects 100 Continue', async () => {
    const moving = await Moving.start({ blocked: true })
    const client = await moving.idleClient()
    await moving.reload()
    await moving.blocked()
    client.request('/body', { method: 'POST', headers: 'Expect: 100-continue\r\nContent-Length: 4\r\n' })
    moving.unblock()
    await client.received(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
    client.send('body')
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 2 took 4 bytes' }])
    expect(await moving.report()).toMatchObject(oneMoved)
  })

  test.for([['the end of an idle one', 'idle', 'end'], ['the end of one that sent nothing', 'fresh', 'end'], ['the reset of an idle one', 'idle', 'reset'], ['the reset of one that sent nothing', 'fresh', 'reset']])('%s', async ([, state, how]) => {
    const moving = await Moving.start({ blocked: true })
    const leaving = state === 'idle' ? await moving.idleClient() : await moving.client()
    const witness = await moving.idleClient()
    await moving.reload()
    await moving.blocked()
    if (how === 'end') leaving.socket.end()
    else leaving.socket.resetAndDestroy()
    moving.unblock()
    const { connections } = await moving.report()
    expect(connections).toMatchObject({ open: 2, closedIdle: 0, cut: 0, stayed: {} })
    expect(await leaving.over).toBe('closed')
    await untilOnly(witness, 1)
  })

  test('the end of a client that still waits for the answer to its unread request', async () => {
    const moving = await Moving.start({ blocked: true })
    const client = await moving.idleClient()
    await moving.reload()
    await moving.blocked()
    client.request('/')
    client.socket.end()
    moving.unblock()
    expect(await answersBeforeTheEnd(client)).toMatchObject([{ body: 'generation 2 answers /' }])
    expect(await moving.report()).toMatchObject(oneMoved)
  })
})

describe('between two requests', () => {
  test.for([['a stray CRLF', '\r\n', ''], ['two stray CRLF', '\r\n\r\n', ''], ['a lone CR, whose LF comes to the successor', '\r', '\n']])('%s does not keep a connection from moving', async ([, stray, rest]) => {
    const moving = await Moving.start()
    const client = await moving.client()
    await ask(client, '/body', { method: 'POST', body: 'body' })
    client.send(stray!)
    const witness = await switched(moving)
    await moving.arrived(2)
    client.send(rest!)
    await goesOn(client)
    await goesOn(witness)
    expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
  })

  test('a stray CRLF that is unread when the connection moves does not harm the next request', async () => {
    const moving = await Moving.start({ blocked: true })
    const client = await moving.idleClient()
    await moving.reload()
    await moving.blocked()
    client.send('\r\n')
    moving.unblock()
    await moving.arrived(1)
    await goesOn(client)
    expect(await moving.report()).toMatchObject(oneMoved)
  })
})

test('requests that are sent in the very moment of the switch, by 100 clients at every reload, are all answered on the connections that they were sent on', async () => {
  const reloads = Number(process.env['HANDOVER_TEST_MOVE_RELOADS'] ?? 10)
  const moving = await Moving.start()
  const clients = await Promise.all(Array.from({ length: 100 }, () => moving.idleClient()))
  for (let generation = 2; generation < reloads + 2; generation++) {
    const reloaded = moving.reload()
    await moving.program.event('state', (event) => event.generation === generation && event['to'] === 'serving')
    // The first at once, the others one after the other while connections move.
    const asked = clients.map(async (client, index) => {
      for (let turn = 0; turn < index % 10; turn++) await new Promise((resolve) => { setImmediate(resolve) })
      return await ask(client, `/?${index}`)
    })
    for (const [index, answer] of (await Promise.all(asked)).entries()) {
      expect(answer.body).toMatch(new RegExp(`^generation (${generation - 1}|${generation}) answers /\\?${index}$`))
    }
    await reloaded
    expect(clients.every(isOpen)).toBe(true)
  }
  const ended = (): unknown[] => moving.program.events.filter(({ event, pid, report }) => {
    const { result, predecessor } = (report ?? {}) as { result?: string; predecessor?: { pid: number } }
    return event === 'report' && result === 'drained' && predecessor?.pid === pid
  }).map(({ report }) => report)
  await moving.program.until(() => ended().length === reloads)
  for (const report of ended()) expect(report).toMatchObject({ connections: { open: 100, moved: 100 } })
  await moving.report()
})

describe('server.getConnections()', () => {
  test('counts the connections that were moved here, and no longer when they close', async () => {
    const moving = await Moving.start()
    const clients = await Promise.all(Array.from({ length: 5 }, () => moving.idleClient()))
    await moving.reload()
    await moving.arrived(5)
    const witness = clients[0]!
    expect((await ask(witness, '/count')).body).toBe('generation 2 has 5 connections')
    for (const client of clients.slice(2)) client.socket.destroy()
    await untilOnly(witness, 2)
    const another = await moving.idleClient()
    await untilOnly(witness, 3)
    another.socket.destroy()
    await untilOnly(witness, 2)
    expect(await moving.report()).toMatchObject({ connections: { open: 5, moved: 5 } })
  })
})

test('what a client has pipelined behind an answer that ends its connection does not cost it that answer', async () => {
  const moving = await Moving.start()
  const client = await moving.client()
  client.socket.pause()
  client.request('/held').request('/big', { headers: 'Connection: close\r\n' })
  await moving.began('/held')
  const witness = await moving.idleClient()
  await moving.reload()
  // The first look is over: nothing more is read from the one that pipelines.
  await moving.arrived(1)
  client.request('/')
  await goesOn(witness)
  moving.release()
  client.socket.resume()
  expect(await client.over).toBe('closed')
  expect(client.text.length).toBeGreaterThan(8_388_608)
  expect(client.text).toMatch(/Connection: close/)
})
