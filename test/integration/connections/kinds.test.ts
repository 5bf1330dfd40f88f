/**
 * What may not move, and why: TLS, HTTP/2, what the application holds or vetoes, what the successor does not take. It is drained politely,
 * with the reason in the report. And what moves under every framework.
 */

import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Client } from '../../helpers/client.js'
import { Program, programPath } from '../../helpers/program.js'
import { type Answer, answersIn, ask, goesOn, isOpen, Moving, type MoveReport, nextAnswer, oneMoved } from '../../helpers/moving.js'

/** The next answer is the last one, from the predecessor, and says so. */
async function isToldToGo(client: Client, target = '/'): Promise<void> {
  const answer = await ask(client, target)
  expect(answer).toMatchObject({ status: 200, body: `generation 1 answers ${target}` })
  expect(answer.headers.get('connection')).toBe('close')
  expect(await client.over).toBe('closed')
}

describe.for(['http', 'fastify', 'express5', 'express4', 'koa'])('%s', (kind) => {
  test('20 connections move and are answered', async () => {
    const moving = await Moving.start({ kind })
    const clients = await Promise.all(Array.from({ length: 20 }, () => moving.idleClient()))
    await moving.reload()
    await moving.arrived(20)
    await Promise.all(clients.map((client) => goesOn(client)))
    expect(await moving.report()).toMatchObject(
      { connections: { open: 20, moved: 20, drained: 0, closedIdle: 0, cut: 0, kinds: { http: { moved: 20 } }, stayed: {} } }
    )
    await Promise.all(clients.map((client) => goesOn(client)))
  })
})

test('connections of several listeners come to the listeners of the same names', async () => {
  const moving = await Moving.start({ listen: ['127.0.0.1:0', '[::1]:0', 'unix:DIR/server.sock'] })
  const clients = await Promise.all(moving.addresses.map((address) => moving.idleClient(address)))
  await moving.reload()
  await moving.arrived(3)
  await Promise.all(clients.map((client) => goesOn(client)))
  expect(await moving.report()).toMatchObject({ connections: { open: 3, moved: 3, stayed: {} } })
})

describe('a client that ends its connection itself', () => {
  test('with Connection: close in a request that runs gets its answer, and nothing moves', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.request('/held', { headers: 'Connection: close\r\n' })
    await moving.began('/held')
    await moving.reload()
    moving.release()
    expect(await nextAnswer(client)).toMatchObject({ body: 'generation 1 answers /held' })
    expect(await client.over).toBe('closed')
    expect(await moving.report()).toMatchObject(
      { connections: { open: 1, moved: 0, drained: 1, cut: 0, kinds: { http: { drained: 1 } }, stayed: {} } }
    )
  })

  test('with HTTP/1.0 in a request that runs gets its answer, and nothing moves', async () => {
    const moving = await Moving.start()
    const client = await moving.client()
    client.send('GET /held HTTP/1.0\r\n\r\n')
    await moving.began('/held')
    await moving.reload()
    moving.release()
    expect(await client.over).toBe('closed')
    expect(client.text).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*generation 1 answers \/held$/)
    expect(await moving.report()).toMatchObject({ connections: { open: 1, moved: 0, drained: 1, cut: 0, stayed: {} } })
  })
})

test('an idle connection of an HTTP/1.0 client that asked for keep-alive moves', async () => {
  const moving = await Moving.start()
  const client = await moving.client()
  const request = 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'
  expect((await nextAnswer(client.send(request))).headers.get('connection')).toBe('keep-alive')
  await moving.reload()
  await moving.arrived(1)
  expect(await nextAnswer(client.send(request))).toMatchObject({ body: 'generation 2 answers /' })
  expect(isOpen(client)).toBe(true)
  expect(await moving.report()).toMatchObject(oneMoved)
})

test('a program that says Connection: keep-alive itself does not keep a connection from moving', async () => {
  const moving = await Moving.start()
  const client = await moving.client()
  await ask(client, '/keep-alive')
  await moving.reload()
  await moving.arrived(1)
  await goesOn(client)
  expect(await moving.report()).toMatchObject(oneMoved)
})

describe('canMove', () => {
  test('keeps a connection: it is told to go by its next answer, and the others move', async () => {
    const moving = await Moving.start({ veto: true })
    const [kept, silent, other] = [await moving.client(), await moving.client(), await moving.idleClient()]
    await ask(kept, '/stay')
    await ask(silent, '/stay')
    await moving.reload()
    await moving.arrived(1)
    await goesOn(other)
    expect([isOpen(kept), isOpen(silent)]).toEqual([true, true])
    await isToldToGo(kept)
    silent.socket.end()
    expect(await moving.report()).toMatchObject({ connections: { open: 3, moved: 1, drained: 2, closedIdle: 0, cut: 0, stayed: { 'vetoed by canMove': 2 } } })
  })

  test('that throws keeps the connection', async () => {
    const moving = await Moving.start({ veto: true })
    const [kept, other] = [await moving.client(), await moving.idleClient()]
    await ask(kept, '/throw')
    await moving.reload()
    await moving.arrived(1)
    await goesOn(other)
    await isToldToGo(kept)
    expect(await moving.report({ complains: true })).toMatchObject({ connections: { open: 2, moved: 1, drained: 1, stayed: { 'vetoed by canMove': 1 } } })
    expect(moving.program.stderr.match(/warn: canMove threw Error/g)).toHaveLength(1)
  })

  test('is asked once for each connection of each reload, and not while a request runs', async () => {
    const moving = await Moving.start({ veto: true })
    const [kept, busy, other] = [await moving.client(), await moving.client(), await moving.idleClient()]
    await ask(kept, '/stay')
    busy.request('/held')
    await moving.began('/held')
    await moving.reload()
    await moving.arrived(1)
    const asked = (): number => moving.program.events.filter(({ event, generation }) => event === 'asked' && generation === 1).length
    expect(asked()).toBe(2)
    moving.release()
    await nextAnswer(busy)
    await moving.arrived(2)
    await isToldToGo(kept)
    await goesOn(other)
    await moving.report()
    expect(asked()).toBe(3)
  })

  test('keeps an idle connection for linger, which is then closed', async () => {
    const moving = await Moving.start({ veto: true, options: { linger: 300 } })
    const kept = await moving.client()
    await ask(kept, '/stay')
    await moving.reload()
    expect(await kept.over).toBe('closed')
    expect(kept.text).toBe('')
    expect(await moving.report()).toMatchObject({ connections: { open: 1, moved: 0, closedIdle: 1, cut: 0, kinds: { http: { closedIdle: 1 } }, stayed: { 'vetoed by canMove': 1 } } })
  })
})

describe.for([
  ['move: false', { options: { move: false } }, 'moving is off'],
  ['HANDOVER_MOVE=off', { env: { HANDOVER_MOVE: 'off' } }, 'moving is off'],
  ['a successor with move: false', { next: { options: { move: false } } }, 'not taken by the successor']
] as const)('%s', ([, options, reason]) => {
  test('drains every connection politely', async () => {
    const moving = await Moving.start(options)
    const [idle, busy, fresh] = [await moving.idleClient(), await moving.client(), await moving.client()]
    busy.request('/held')
    await moving.began('/held')
    await moving.arrived(3, 1)
    await moving.reload()
    await isToldToGo(idle)
    await isToldToGo(fresh)
    moving.release()
    const answer = await nextAnswer(busy)
    expect(answer).toMatchObject({ body: 'generation 1 answers /held' })
    expect(answer.headers.get('connection')).toBe('close')
    expect(await moving.report()).toMatchObject(
      { connections: { open: 3, moved: 0, drained: 3, closedIdle: 0, cut: 0, stayed: { [reason]: 3 } } }
    )
  })

  test('closes an idle connection after linger', async () => {
    const { options: own = {}, ...rest } = options as { options?: object }
    const moving = await Moving.start({ ...rest, options: { linger: 300, ...own } })
    const idle = await moving.idleClient()
    await moving.reload()
    expect(await idle.over).toBe('closed')
    expect(await moving.report()).toMatchObject({ connections: { open: 1, moved: 0, closedIdle: 1, cut: 0, stayed: { [reason]: 1 } } })
  })
})

test('connections of a listener that the successor dropped are drained politely, and those of the others move', async () => {
  const moving = await Moving.start({ listen: ['unix:DIR/kept.sock', 'unix:DIR/dropped.sock'], next: { listen: ['unix:DIR/kept.sock'] }, options: { readyTimeout: 4_000 } })
  const [kept, dropped] = [await moving.idleClient(moving.addresses[0]), await moving.idleClient(moving.addresses[1])]
  await moving.reload()
  await moving.arrived(1)
  await goesOn(kept)
  await isToldToGo(dropped)
  expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 1, drained: 1, stayed: { 'not taken by the successor': 1 } } })
})

describe('what the application holds stays', () => {
  test('a request that is never answered, until the deadline, and the report names it', async () => {
    const moving = await Moving.start({ options: { drainTimeout: 3_000 } })
    const [stuck, other] = [await moving.client(), await moving.idleClient()]
    stuck.request('/never?token=secret')
    await moving.began('/never?token=secret')
    await moving.reload()
    await moving.arrived(1)
    await goesOn(other)
    expect(isOpen(stuck)).toBe(true)
    await stuck.over
    expect(stuck.text).toBe('')
    expect(await moving.report()).toMatchObject({
      connections: { open: 2, moved: 1, drained: 0, cut: 1, kinds: { http: { moved: 1, cut: 1 } } },
      requestsCut: [{ method: 'GET', path: '/never' }]
    })
  })

  test('a socket that was taken away from its response, which the application goes on to use', async () => {
    const moving = await Moving.start({ options: { drainTimeout: 30_000 } })
    const [hijacked, other] = [await moving.client(), await moving.idleClient()]
    expect(await ask(hijacked, '/hijack')).toMatchObject({ body: 'generation 1 answers /hijack' })
    await moving.reload()
    await moving.arrived(1)
    await goesOn(other)
    moving.release()
    await hijacked.received(/^a word of the application$/)
    expect(isOpen(hijacked)).toBe(true)
    hijacked.socket.end()
    expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 1, drained: 1, cut: 0 } })
  })

  test('a socket whose bytes the application listens to, which is told to go by its next answer', async () => {
    const moving = await Moving.start()
    const [listened, other] = [await moving.client(), await moving.idleClient()]
    await ask(listened, '/listen')
    await moving.reload()
    await moving.arrived(1)
    await goesOn(other)
    await isToldToGo(listened)
    expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 1, drained: 1, stayed: { 'read by the application': 1 } } })
  })

  test('an upgraded connection that nobody moves, until the deadline', async () => {
    const moving = await Moving.start({ options: { drainTimeout: 3_000 } })
    const [upgraded, other] = [await moving.client(), await moving.idleClient()]
    await upgraded.request('/echo', { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' }).received(/ 101 [^]*\r\n\r\n$/)
    await moving.reload()
    await moving.arrived(1)
    await goesOn(other)
    await upgraded.send('still here').received(/still here$/)
    await upgraded.over
    expect(await moving.report()).toMatchObject({
      connections: { open: 2, moved: 1, cut: 1, kinds: { http: { moved: 1 }, upgraded: { cut: 1 } }, stayed: { upgraded: 1 } },
      requestsCut: []
    })
  })

  test('an upgraded connection that says goodbye itself', async () => {
    const moving = await Moving.start()
    const upgraded = await moving.client()
    await upgraded.request('/echo', { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' }).received(/ 101 [^]*\r\n\r\n$/)
    await moving.reload()
    await upgraded.send('still here').received(/still here$/)
    upgraded.socket.end()
    expect(await moving.report()).toMatchObject(
      { connections: { open: 1, moved: 0, drained: 1, kinds: { upgraded: { drained: 1 } }, stayed: { upgraded: 1 } } }
    )
  })

  test('half of an upgrade, which is then done in the predecessor', async () => {
    const moving = await Moving.start()
    const upgrading = await moving.client()
    upgrading.send('GET /echo HTTP/1.1\r\nHost: test\r\nConnection: Upg')
    const witness = await moving.idleClient()
    await moving.reload()
    await moving.arrived(1)
    await upgrading.send('rade\r\nUpgrade: echo\r\n\r\n').received(/ 101 [^]*\r\n\r\n$/)
    await upgrading.send('still here').received(/still here$/)
    upgrading.socket.end()
    await goesOn(witness)
    expect(await moving.report()).toMatchObject({ connections: { open: 2, moved: 1, drained: 1 } })
  })
})

test('a request for an upgrade that the program knows nothing of is one like others, and its connection moves', async () => {
  const moving = await Moving.start({ upgrade: false })
  const client = await moving.client()
  client.request('/held', { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' })
  await moving.began('/held')
  await moving.reload()
  moving.release()
  expect(await nextAnswer(client)).toMatchObject({ status: 200, body: 'generation 1 answers /held' })
  await moving.arrived(1)
  await goesOn(client)
  expect(await moving.report()).toMatchObject(oneMoved)
})

test('an idle connection that moved can be upgraded in the successor', async () => {
  const moving = await Moving.start()
  const client = await moving.idleClient()
  await moving.reload()
  await moving.arrived(1)
  await client.request('/echo', { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' }).received(/ 101 [^]*\r\n\r\n$/)
  await client.send('echoed').received(/echoed$/)
  expect(await moving.report()).toMatchObject(oneMoved)
})

test('a stream of server-sent events stays open in the drain, and ends with a hint when to come back before the deadline', async () => {
  const moving = await Moving.start({ options: { drainTimeout: 6_000 } })
  const [reader, other] = [await moving.client(), await moving.idleClient()]
  await reader.request('/events').received(/data: generation 1\n\n/)
  await moving.reload()
  await moving.arrived(1)
  await goesOn(other)
  moving.release()
  await reader.received(/data: more\n\n/)
  const answer = await nextAnswer(reader)
  expect(answer.body).toBe('data: generation 1\n\ndata: more\n\nretry: 1000\n\n')
  expect(await moving.report()).toMatchObject({ connections: { open: 2, closedIdle: 0, cut: 0 }, requestsCut: [] })
})

describe('TLS', () => {
  const options = { move: { tls: false } }

  test('a connection stays where that is off, with the reason, and is told to go by its next answer', async () => {
    const moving = await Moving.start({ kind: 'https', options })
    const [idle, busy] = [await moving.idleClient(), await moving.client()]
    busy.request('/held')
    await moving.began('/held')
    await moving.reload()
    expect([isOpen(idle), isOpen(busy)]).toEqual([true, true])
    await isToldToGo(idle)
    moving.release()
    const answer = await nextAnswer(busy)
    expect(answer).toMatchObject({ body: 'generation 1 answers /held' })
    expect(answer.headers.get('connection')).toBe('close')
    expect(await moving.report()).toMatchObject(
      { connections: { open: 2, moved: 0, drained: 2, cut: 0, kinds: { https: { drained: 2 } }, stayed: { TLS: 2 } } }
    )
  })

  test('a connection that never began its handshake stays where that is off, with the reason', async () => {
    const moving = await Moving.start({ kind: 'https', options })
    await isToldToGo(await moving.handshakeAfterReload())
    expect(await moving.report()).toMatchObject(
      { connections: { open: 1, moved: 0, drained: 1, kinds: { https: { drained: 1 } }, stayed: { TLS: 1 } } }
    )
  })

  /** One request on a connection of its own, and what its next connection can resume. */
  async function visit(moving: Moving, version: tls.SecureVersion, target = '/', session?: Buffer): Promise<{ answer: Answer; reused: boolean; session: Buffer | undefined }> {
    const { address, port } = moving.address as net.AddressInfo
    const socket = tls.connect(
      { host: address, port, rejectUnauthorized: false, minVersion: version, maxVersion: version, ...(session && { session }) }
    )
    onTestFinished(() => { socket.destroy() })
    let newest: Buffer | undefined
    socket.on('session', (given: Buffer) => { newest = given })
    await once(socket, 'secureConnect')
    socket.write(`GET ${target} HTTP/1.1\r\nHost: test\r\n\r\n`)
    let text = ''
    while (answersIn(text).answers.length === 0) text += String((await once(socket, 'data'))[0])
    while (!newest && !session) await once(socket, 'session')
    return { answer: answersIn(text).answers[0]!, reused: socket.isSessionReused(), session: newest }
  }

  test.for(['TLSv1.2', 'TLSv1.3'] as const)('a client that comes back to the successor resumes its session of %s', async (version) => {
    const moving = await Moving.start({ kind: 'https', options: { linger: 200 } })
    const first = await visit(moving, version)
    expect(first).toMatchObject({ reused: false, answer: { body: 'generation 1 answers /' } })
    for (const generation of [2, 3]) {
      await moving.reload()
      expect(await visit(moving, version, '/', first.session)).toMatchObject({ reused: true, answer: { body: `generation ${generation} answers /` } })
    }
  })

  test('a program with ticket keys of its own keeps them', async () => {
    const [own, other] = [Buffer.alloc(48, 1).toString('base64'), Buffer.alloc(48, 2).toString('base64')]
    const moving = await Moving.start({ kind: 'https', ticketKeys: own, next: { ticketKeys: other }, options: { linger: 200 } })
    const first = await visit(moving, 'TLSv1.3', '/ticket-keys')
    expect(first.answer.body).toBe(own)
    await moving.reload()
    expect(await visit(moving, 'TLSv1.3', '/ticket-keys', first.session)).toMatchObject({ reused: false, answer: { body: other } })
  })

  test('a program without ticket keys of its own gets those of its predecessor', async () => {
    const moving = await Moving.start({ kind: 'https', options: { linger: 200 } })
    const { answer: { body } } = await visit(moving, 'TLSv1.3', '/ticket-keys')
    await moving.reload()
    expect(await visit(moving, 'TLSv1.3', '/ticket-keys')).toMatchObject({ answer: { body } })
  })
})

test.for([
  ['h2', { move: { tls: false } }, 'HTTP/2'],
  ['h2', { move: { http2: false } }, 'HTTP/2'],
  ['h2c', { move: { http2: false } }, 'moving is off'],
  ['h2c', { move: false }, 'moving is off']
] as const)('a session of HTTP/2 (%s, %j) stays, with the reason, and gets GOAWAY', async ([kind, options, reason]) => {
  const program = Program.start(programPath('protocols.mjs'), { env: { KIND: kind, OPTIONS: JSON.stringify(options) } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening') as unknown as { address: net.AddressInfo }
  const session = http2.connect(`${kind === 'h2' ? 'https' : 'http'}://127.0.0.1:${address.port}`, { rejectUnauthorized: false })
  onTestFinished(() => { session.destroy() })
  const stream = session.request({ ':path': '/' }).resume()
  await once(stream, 'end')
  const goaway = once(session, 'goaway')
  await program.hangUp()
  await goaway
  expect(await program.ended).toEqual({ code: 0, signal: null })
  const { report } = await program.event('report', (event) => (event['report'] as MoveReport).result === 'drained') as unknown as { report: MoveReport }
  const counts = { open: 1, moved: 0, drained: 1, closedIdle: 0, cut: 0 }
  expect(report).toMatchObject({ connections: { ...counts, kinds: { http2: { drained: 1 } }, stayed: { [reason]: 1 } } })
})
