/**
 * A plain HTTP/1.1 connection moves from whatever state it is in: at once, or when nothing of it is left in the predecessor. The client
 * sees no close, every answer is whole and in order, and the next one comes from the successor.
 */

import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import {
  answers, answersBeforeTheEnd, ask, bothMove, goesOn, isOpen, Moving, nextAnswer, oneMoved, switched, untilOnly
} from '../../helpers/moving.js'

/** The old copy of a connection that has moved is closed by then. */
const closedBy = 500
const places = [['TCP over IPv4', '127.0.0.1:0'], ['TCP over IPv6', '[::1]:0'], ['a Unix socket', 'unix:DIR/server.sock']] as const

describe.for(places)('on %s', ([, place]) => {
  test('an idle connection moves', async () => {
    const moving = await Moving.start({ listen: [place] })
    const idle = await moving.idleClient()
    await moving.reload()
    await moving.arrived(1)
    await goesOn(idle)
    expect(await moving.report()).toMatchObject(oneMoved)
    await goesOn(idle)
  })

  test('a connection on which nothing was sent yet moves', async () => {
    const moving = await Moving.start({ listen: [place] })
    const fresh = await moving.client()
    await moving.program.event('connection')
    await moving.reload()
    await moving.arrived(1)
    await goesOn(fresh)
    expect(await moving.report()).toMatchObject(oneMoved)
    await goesOn(fresh)
  })

  test('a connection goes through three generations', async () => {
    const moving = await Moving.start({ listen: [place] })
    const idle = await moving.idleClient()
    for (const generation of [2, 3, 4]) {
      await moving.reload()
      await moving.arrived(1, generation)
      await goesOn(idle, generation)
    }
    expect(await moving.report()).toMatchObject(oneMoved)
  })
})

test('a connection that is silent goes through three generations, whether it ever had an answer or not', async () => {
  const moving = await Moving.start()
  const [idle, fresh] = [await moving.idleClient(), await moving.client()]
  await moving.arrived(2, 1)
  for (const generation of [2, 3, 4]) {
    await moving.reload()
    await moving.arrived(2, generation)
  }
  await goesOn(idle, 4)
  await goesOn(fresh, 4)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
})

test('a connection that comes to a generation which drains already goes on to the next', async () => {
  const moving = await Moving.start()
  const client = await moving.client()
  client.request('/held')
  await moving.began('/held')
  await moving.reload()
  await moving.reload()
  moving.release()
  expect(await nextAnswer(client)).toMatchObject({ body: 'generation 1 answers /held' })
  await moving.arrived(1, 3)
  await goesOn(client, 3)
  expect(await moving.report()).toMatchObject(oneMoved)
})

describe('a request that has begun to arrive is answered by the predecessor, and then the connection moves', () => {
  const begins: readonly (readonly [string, string, string])[] = [
    ['its first byte', 'G', 'ET / HTTP/1.1\r\nHost: test\r\n\r\n'],
    ['half of its head', 'GET / HTTP/1.1\r\nHost: te', 'st\r\n\r\n'],
    ['all of its head but the last byte', 'GET / HTTP/1.1\r\nHost: test\r\n\r', '\n']
  ]
  test.for(begins)('%s was read', async ([, first, rest]) => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.send(first)
    const witness = await switched(moving)
    client.send(rest)
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 answers /' }])
    await bothMove(moving, client, witness)
  })

  test('half of its head came in the same write as a whole request', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.send('GET / HTTP/1.1\r\nHost: test\r\n\r\nGET /held HT')
    await answers(client, 1)
    const witness = await switched(moving)
    client.send('TP/1.1\r\nHost: test\r\n\r\n')
    await moving.began('/held')
    moving.release()
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 answers /held' }])
    await bothMove(moving, client, witness)
  })

  test('its handler runs', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/held')
    await moving.began('/held')
    const witness = await switched(moving)
    moving.release()
    const [answer] = await answers(client, 1)
    expect(answer).toMatchObject({ body: 'generation 1 answers /held' })
    expect(answer!.headers.get('connection')).toBe('keep-alive')
    await bothMove(moving, client, witness)
  })

  test('its answer has begun', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/streaming')
    await client.received(/first\n/)
    const witness = await switched(moving)
    moving.release()
    expect(await answers(client, 1)).toMatchObject([{ body: 'first\ngeneration 1 answers /streaming' }])
    await bothMove(moving, client, witness)
  })

  test('half of its body was read', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/body', { method: 'POST', headers: 'Content-Length: 10\r\n' }).send('first')
    await moving.began('/body')
    const witness = await switched(moving)
    client.send('other')
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 took 10 bytes' }])
    await bothMove(moving, client, witness)
  })

  test('its body is larger than what is read before somebody asks for it, and nobody does', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/unread', { method: 'POST', body: 'x'.repeat(4_000_000) })
    await moving.began('/unread')
    const witness = await switched(moving)
    moving.release()
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 answers /unread' }])
    await bothMove(moving, client, witness)
  })

  test('its client was told 100 Continue', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/body', { method: 'POST', headers: 'Expect: 100-continue\r\nContent-Length: 4\r\n' })
    await client.received(/^HTTP\/1\.1 100 Continue\r\n\r\n/)
    const witness = await switched(moving)
    client.send('body')
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 took 4 bytes' }])
    await bothMove(moving, client, witness)
  })

  test('its chunks are still coming', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/body', { method: 'POST', headers: 'Transfer-Encoding: chunked\r\n' }).send('5\r\nfir')
    await moving.began('/body')
    const witness = await switched(moving)
    client.send('st\r\n6\r\nsecond\r\n').send('0\r\n\r\n')
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 took 11 bytes' }])
    await bothMove(moving, client, witness)
  })

  test('only the last CRLF of its chunks is missing', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/body', { method: 'POST', headers: 'Transfer-Encoding: chunked\r\n' }).send('5\r\nfirst\r\n0\r\n')
    await moving.began('/body')
    const witness = await switched(moving)
    client.send('\r\n')
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 took 5 bytes' }])
    await bothMove(moving, client, witness)
  })

  test.for([['its length', 'Content-Length: 10\r\n', 'first', 'other'], ['the last CRLF of its chunks', 'Transfer-Encoding: chunked\r\n', '5\r\nfirst\r\n0\r\n', '\r\n']])('it was answered before all of %s had come', async ([, headers, first, rest]) => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/early', { method: 'POST', headers: headers! }).send(first!)
    expect(await answers(client, 1)).toMatchObject([{ body: 'generation 1 answers /early' }])
    const witness = await switched(moving)
    client.send(rest!)
    await bothMove(moving, client, witness)
  })
})

test.for([['an answer of 8 MB', '/big', 1], ['an answer and 8 MB that the application wrote to the socket itself', '/raw', 2]] as const)('%s, to a reader that stands still, arrive whole, and then the connection moves', async ([, target, count]) => {
  // So much takes its time on a busy machine.
  const moving = await Moving.start({ options: { drainTimeout: 100_000 } })
  const reader = await moving.client()
  reader.socket.pause()
  reader.request(target)
  expect((await moving.program.event('unsent'))['bytes']).toBeGreaterThan(0)
  const witness = await switched(moving)
  await goesOn(witness)
  expect(isOpen(reader)).toBe(true)
  reader.socket.resume()
  await reader.receivedEnd('1048575\n')
  const answer = (await answers(reader, count)).at(-1)
  expect(answer!.body === Array.from({ length: 1_048_576 }, (_, index) => `${index.toString().padStart(7, '0')}\n`).join('')).toBe(true)
  await bothMove(moving, reader, witness)
})

describe('a client that does not wait for answers', () => {
  test('gets all of them in order from the predecessor, the first of which is slow, and then the connection moves', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/held').request('/second').request('/third')
    await moving.began('/third')
    const witness = await switched(moving)
    moving.release()
    expect((await answers(client, 3)).map(({ body, headers }) => [body, headers.get('connection')])).toEqual([
      ['generation 1 answers /held', 'keep-alive'], ['generation 1 answers /second', 'keep-alive'], ['generation 1 answers /third', 'keep-alive']
    ])
    await bothMove(moving, client, witness)
  })

  test('and goes on to send while an answer is slow gets the later ones from the successor, in order', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/held')
    await moving.began('/held')
    const witness = await switched(moving)
    // In one write: from the second on nothing more is read.
    client.socket.cork()
    client.request('/second').request('/third').socket.uncork()
    await moving.began('/third')
    client.request('/fourth').request('/fifth')
    moving.release()
    expect((await answers(client, 5)).map(({ body }) => body)).toEqual([
      'generation 1 answers /held', 'generation 1 answers /second', 'generation 1 answers /third', 'generation 2 answers /fourth', 'generation 2 answers /fifth'
    ])
    await bothMove(moving, client, witness)
  })

  test('and never stops sending cannot hold the connection', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    let sent = 0
    let answered = 0
    let last = ''
    const more = (): void => {
      while (sent < answered + 50) client.request(`/?${sent++}`)
    }
    more()
    const reloaded = moving.reload()
    while (!last.startsWith('generation 2')) {
      const { body } = await nextAnswer(client)
      expect(body).toMatch(new RegExp(`^generation [12] answers /\\?${answered}$`))
      answered++
      last = body
      more()
    }
    await reloaded
    const rest = await answers(client, sent - answered)
    expect(rest.map(({ body }) => body)).toEqual(rest.map((_, index) => `generation 2 answers /?${answered + index}`))
    await goesOn(client)
    expect(await moving.report()).toMatchObject(oneMoved)
  })

  test.for(['an end', 'a reset'])('and leaves with %s while nothing is read from it harms nobody', async (how) => {
    const moving = await Moving.start()
    const leaving = await moving.client()
    const witness = await moving.idleClient()
    leaving.request('/held').request('/held?2')
    await moving.began('/held?2')
    await moving.reload()
    await moving.arrived(1)
    if (how === 'an end') leaving.socket.end()
    else leaving.socket.resetAndDestroy()
    moving.release()
    const { connections } = await moving.report()
    expect(connections).toMatchObject({ open: 2, closedIdle: 0, cut: 0, stayed: {} })
    if (how === 'an end') expect((await answersBeforeTheEnd(leaving)).map(({ body }) => body)).toEqual(['generation 1 answers /held', 'generation 1 answers /held?2'])
    await untilOnly(witness, 1)
  })
})

test('a program that goes on after its answer can still ask whose request it was', async () => {
  const moving = await Moving.start()
  const [client, busy] = [await moving.client(), await moving.client()]
  expect((await ask(client, '/after')).body).toBe('generation 1 answers /after')
  busy.request('/held')
  await moving.began('/held')
  await moving.reload()
  await moving.arrived(1)
  await goesOn(client)
  await wait(closedBy)
  moving.release()
  expect(await moving.program.event('after')).toMatchObject({ remote: ['127.0.0.1', client.socket.localPort] })
  await nextAnswer(busy)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
})

test.each(['http', 'https', 'fastify'])('a program that closes its server of %s at its drain, as many do, closes no connection that moves', async (kind) => {
  const moving = await Moving.start({ kind, closes: true })
  const clients = [await moving.idleClient(), await moving.idleClient()]
  await moving.reload()
  await moving.arrived(2)
  for (const client of clients) await goesOn(client)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 2 } })
})
