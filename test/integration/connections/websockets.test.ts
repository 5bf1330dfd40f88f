/**
 * WebSockets of the package ws move with their state, between two messages: nothing is lost, doubled or reordered, and their clients see
 * no end. What cannot move is told 1012 in time.
 *
 * HANDOVER_TEST_RELOADS makes the load tests longer or shorter.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Report } from '@handover/core'
import { moveWebSockets } from '@handover/core/ws'
import { describe, expect, onTestFinished, test } from 'vitest'
import { WebSocketServer, type WebSocket } from 'ws'
import { FrameCounter } from '../../helpers/internals.js'
import { Program, programPath, waitFor, type ProgramEvent } from '../../helpers/program.js'
import { NumberedClient, addressOf, type ConnectOptions } from '../../helpers/numbered.js'

const most = Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10)

interface Started {
  readonly program: Program
  connect(options?: ConnectOptions): Promise<NumberedClient>
}

/** `finished`: the test's own onTestFinished, where tests run at the same time. */
async function start(env: Readonly<Record<string, string>> = {}, finished: (
  end: () => void | Promise<void>
) => void = onTestFinished): Promise<Started> {
  const program = Program.start(programPath('ws.mjs'), { env })
  finished(() => program[Symbol.asyncDispose]())
  const address = await addressOf(program)
  return {
    program,
    async connect(options) {
      const client = await ('TLS' in env ? NumberedClient.connect(address.replace('ws:', 'wss:'), { ...options, rejectUnauthorized: false }) : NumberedClient.connect(address, options))
      finished(() => { client[Symbol.dispose]() })
      return client
    }
  }
}

const eventsOf = (program: Program, name: string): ProgramEvent[] => program.events.filter(({ event }) => event === name)

/** What the drain of a process that has ended came to. */
async function drained(program: Program, pid = program.pid): Promise<Report> {
  const { report } = await program.event('report', (event) => event.pid === pid && (event['report'] as Report).result !== 'switched')
  return report as Report
}

async function servedBy(client: NumberedClient, pid: number): Promise<void> {
  await client.until(() => client.pid === pid)
}

describe.for([
  { env: { KIND: 'server' }, count: 200, reloads: most },
  { env: { KIND: 'noServer', WSS: '{"allowSynchronousEvents":false}' }, count: 40, reloads: Math.ceil(most / 3) },
  { env: { KIND: 'fastify' }, count: 40, reloads: Math.ceil(most / 3) },
  { env: { KIND: 'server', TLS: '1' }, count: 40, reloads: Math.ceil(most / 3) }
])('over $env', ({ env, count, reloads }) => {
  test(`${count} clients that talk all the time lose no message over ${reloads} reloads, and nobody is disconnected`, { timeout: 240_000 }, async () => {
    const { program, connect } = await start({ ...env, OPTIONS: '{"undoWindow":200,"drainTimeout":60000}' })
    const clients = await Promise.all(Array.from({ length: count }, () => connect()))
    const talking = Promise.all(clients.map((client) => client.talk(count)))
    const pids = [program.pid]
    for (let index = 0; index < reloads; index++) {
      await program.hangUp()
      // In the very moment of the switch.
      for (const client of clients) client.send()
      pids.push(program.serving)
      await Promise.all(clients.map((client) => servedBy(client, program.serving)))
    }
    for (const client of clients) client.stop()
    await talking
    await waitFor(() => program.alive.length === 1)

    expect(clients.flatMap(({ errors }) => errors)).toEqual([])
    expect(clients.filter(({ closed }) => closed !== undefined)).toEqual([])
    expect(eventsOf(program, 'bad')).toEqual([])
    expect(eventsOf(program, 'close')).toEqual([])
    expect(eventsOf(program, 'connection').filter(({ moved }) => moved === false)).toHaveLength(count)
    for (const pid of pids.slice(0, -1)) {
      expect((await drained(program, pid)).connections).toMatchObject(
        { open: count, moved: count, drained: 0, closedIdle: 0, cut: 0, kinds: { websocket: { moved: count } } }
      )
    }
    expect(clients.filter(({ sent, pushed }) => sent < reloads || pushed < reloads)).toEqual([])
    expect(clients.reduce((sum, { ponged }) => sum + ponged, 0)).toBeGreaterThan(reloads)
  })
})

test('the handler gets the request and the subprotocol of the client, whatever the new program would choose, and is asked nothing again', async () => {
  const { program, connect } = await start({ VERIFY: '1', PUSH_MS: '20' })
  const client = await connect({ protocols: ['chat', 'other'], path: '/room/7?name=a', headers: { cookie: 'session=1' } })
  await program.hangUp()
  await servedBy(client, program.serving)
  const [first, second] = eventsOf(program, 'connection')
  const { moved: _first, pid: _pid, generation: _generation, ...known } = first!
  expect(known).toMatchObject({ method: 'GET', url: '/room/7?name=a', protocol: 'chat', cookie: 'session=1', offered: 'chat,other', remote: '127.0.0.1' })
  expect(second).toMatchObject({ ...known, moved: true, generation: 2 })
  expect(client.errors).toEqual([])
})

test('from save on the old WebSocket sends nothing, says that it is closed, and reports it to the callback', async () => {
  const { program, connect } = await start({ PUSH_MS: '20' })
  const client = await connect()
  await program.hangUp()
  await servedBy(client, program.serving)
  const { error, readyState } = await program.event('sentAfterSave')
  expect({ error, readyState }).toEqual({ error: 'WebSocket is not open: readyState 3 (CLOSED)', readyState: 3 })
  client.send()
  await client.settled()
  expect(client.others).toEqual([])
})

test('a message that is half received, half sent or not saved yet makes the WebSocket wait, and then it moves', async () => {
  const { program, connect } = await start({ SAVE: 'null-twice', PUSH_MS: '0' })
  const [halfReceived, halfSent, whole] = await Promise.all([connect(), connect(), connect()])
  halfReceived.ws.send('1 half', { fin: false })
  halfSent.ws.send('part')
  const pid = async (client: NumberedClient): Promise<number> => {
    const before = client.others.length
    client.ws.send('pid')
    await client.until(() => client.others.length > before)
    return Number(/^pid (\d+)$/.exec(client.others.at(-1)!)?.[1])
  }
  await pid(whole)
  await program.hangUp()
  const successor = program.serving
  await waitFor(async () => (await pid(whole)) === successor)
  expect(program.alive).toContain(program.pid)
  halfReceived.sent = 1
  halfReceived.ws.send(' message')
  halfSent.ws.send('rest')
  await waitFor(() => halfSent.others.length > 0)
  expect(halfSent.others).toEqual(['first half, second half'])
  await waitFor(async () => (await pid(halfSent)) === successor && (await pid(halfReceived)) === successor)
  expect(halfReceived.others[0]).toBe('1 half message')
  expect((await drained(program)).connections).toMatchObject({ moved: 3, drained: 0, cut: 0 })
})

test('a client that reads slowly keeps its WebSocket in the predecessor until the kernel has all that waits for it', async () => {
  const { program, connect } = await start({ PUSH_MS: '0' })
  const client = await connect()
  client.ws.pause()
  client.ws.send('many 24')
  const { bufferedAmount } = await program.event('queued')
  expect(bufferedAmount).toBeGreaterThan(1_000_000)
  // It came later, so it is looked at after the other.
  const witness = await connect({ path: '/ws?witness' })
  await program.hangUp()
  await program.event('connection', ({ moved, url }) => moved === true && url === '/ws?witness')
  witness.send()
  await witness.settled()
  expect(eventsOf(program, 'asked')).toHaveLength(1)
  client.ws.resume()
  await client.until(() => client.others.length === 24 * 16)
  await program.event('connection', ({ moved, url }) => moved === true && url === '/ws')
  client.others.forEach((text, index) => { expect(text.startsWith(`${index + 1} `)).toBe(true) })
  client.send()
  await client.settled()
  expect((await drained(program)).connections).toMatchObject({ moved: 2, cut: 0, stayed: {} })
})

test('clients with permessage-deflate are told 1012 before the drain deadline, each at its own time, and find the successor', async () => {
  const { program, connect } = await start({ WSS: '{"perMessageDeflate":true}', OPTIONS: '{"drainTimeout":8000,"undoWindow":100}' })
  const clients = await Promise.all(Array.from({ length: 20 }, () => connect({ perMessageDeflate: true })))
  const plain = await connect()
  await program.hangUp()
  await servedBy(plain, program.serving)
  const ends = await Promise.all(clients.map(async (client) => {
    client.send()
    await client.settled()
    const code = await client.over().catch(() => client.closed)
    return { code, at: performance.now() }
  }))
  expect(ends.map(({ code }) => code)).toEqual(clients.map(() => 1012))
  const times = ends.map(({ at }) => at)
  expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(50)
  expect(program.stderr).toMatch(/closing 20 WebSockets with code 1012, service restart: 20 permessage-deflate\n/)
  const again = await connect({ perMessageDeflate: true })
  await servedBy(again, program.serving)
  expect((await drained(program)).connections).toMatchObject({ open: 21, moved: 1, drained: 20, closedIdle: 0, cut: 0, stayed: { 'permessage-deflate': 20 } })
  expect(plain.errors).toEqual([])
})

describe.concurrent('a WebSocket stays where it is, works, and is told 1012 in the end', () => {
  // In the last fifth each is told, at a moment of its own, and has the rest of the time to close.
  const short = '{"drainTimeout":20000,"undoWindow":100}'
  test.for([
    ['save() says null to the end', { SAVE: 'null' }, 'save() says nothing', /closing 1 WebSocket with code 1012, service restart: 1 save\(\) says nothing\n/],
    ['save() says undefined to the end', { SAVE: 'undefined' }, 'save() says nothing', /1 save\(\) says nothing\n/],
    ['save() throws', { SAVE: 'throw' }, 'save() throws', /error: save\(\) threw, so a WebSocket stays for now.*: Error: save failed[^]*1 save\(\) throws/],
    ['save() is async', { SAVE: 'promise' }, 'save() is async', /error: save\(\) answered a promise.*: it must not be async[^]*1 save\(\) is async/],
    ['its state cannot be sent', { SAVE: 'function' }, 'its state cannot be sent', /HANDOVER_STATE\]: the state of a connection of kind "websocket" holds a function at state\.fail[^]*1 its state cannot be sent/],
    ['moving is off', { OPTIONS: '{"drainTimeout":20000,"undoWindow":100,"move":false}' }, 'moving is off', /1 not taken by the successor/],
    ['the successor does not know WebSockets', { UNKNOWN: 'FILE' }, 'not taken by the successor', /1 not taken by the successor/],
    ['the application has removed all listeners for messages', { MUTE: '1' }, 'a message is not delivered yet', /1 a message is not delivered yet/],
    ['its first message came before its connection event', { KIND: 'noServer', LATE: '1' }, 'not seen from the beginning', /1 not seen from the beginning/],
    ['it came over TLS, and that is off', { TLS: '1', OPTIONS: '{"drainTimeout":20000,"undoWindow":100,"move":{"tls":false}}' }, 'TLS', /1 TLS\n/]
  ] as const)('where %s', async ([, env, stays, logged], context) => {
    const finished = context.onTestFinished
    const directory = mkdtempSync(path.join(tmpdir(), 'handover-ws-'))
    finished(() => { rmSync(directory, { recursive: true }) })
    const { program, connect } = await start({ OPTIONS: short, PUSH_MS: '50', ...env, ...('UNKNOWN' in env && { UNKNOWN: path.join(directory, 'booted') }) }, finished)
    const client = await connect()
    if ('LATE' in env) client.ws.send('nobody hears this')
    await client.until(() => client.pushed > 0)
    client.send()
    await client.settled()
    await program.hangUp()
    const before = client.pushed
    client.send()
    await client.settled()
    await client.until(() => client.pushed > before + 2)
    expect(client.pid).toBe(program.pid)
    expect(await client.over().catch(() => client.closed)).toBe(1012)
    expect(client.errors).toEqual([])
    const { connections } = await drained(program)
    expect(connections, JSON.stringify(connections)).toMatchObject({ open: 1, moved: 0, drained: 1, cut: 0 })
    expect(connections.stayed).toEqual({ [stays]: 1 })
    expect(program.stderr).toMatch(logged)
    expect(program.stderr.match(/HANDOVER_STATE|save\(\) (threw|answered)/g)?.length ?? 0).toBeLessThan(2)
  })

})

test('in a stop all are told 1012 at once, each at its own time, and the process does not wait for its drain deadline', async () => {
  const drainTimeout = 60_000
  const { program, connect } = await start({ OPTIONS: JSON.stringify({ drainTimeout }) })
  const clients = await Promise.all(Array.from({ length: 20 }, () => connect()))
  process.kill(program.pid, 'SIGTERM')
  const ends = await Promise.all(clients.map(
    async (client) => ({ code: await client.over().catch(() => client.closed), at: performance.now() })
  ))
  expect(ends.map(({ code }) => code)).toEqual(clients.map(() => 1012))
  const times = ends.map(({ at }) => at)
  expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(50)
  expect(await program.ended).toEqual({ code: 0, signal: null })
  const { connections, durations } = await drained(program)
  expect(connections).toMatchObject({ open: 20, drained: 20, cut: 0, stayed: {} })
  expect(durations.drain).toBeLessThan(drainTimeout / 4)
  expect(program.stderr).toMatch(/: closing 20 WebSockets with code 1012, service restart\n/)
})

describe.for([
  ['close', 4000],
  ['terminate', 1006]
] as const)('%s() after save', ([asked, code]) => {
  test('is not heard where the WebSocket has moved', async () => {
    const { program, connect } = await start({ AFTER_SAVE: asked, PUSH_MS: '20' })
    const client = await connect()
    await program.hangUp()
    await servedBy(client, program.serving)
    await program.event('sentAfterSave')
    client.send()
    await client.settled()
    expect(client.errors).toEqual([])
  })

  test('is done when the WebSocket comes back', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'handover-ws-'))
    onTestFinished(() => { rmSync(directory, { recursive: true }) })
    const block = path.join(directory, 'block')
    writeFileSync(block, '')
    const { program, connect } = await start({ AFTER_SAVE: asked, BLOCK: block, OPTIONS: '{"undoWindow":30000,"drainTimeout":60000}' })
    const client = await connect()
    await program.hangUp()
    await program.event('sentAfterSave')
    expect(client.closed).toBeUndefined()
    process.kill(program.serving, 'SIGKILL')
    expect(await client.over().catch(() => client.closed)).toBe(code)
    await program.event('close', ({ pid }) => pid === program.pid)
  })
})

test('WebSockets that are on their way when the successor dies come back, go on, and move in the next reload', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'handover-ws-'))
  onTestFinished(() => { rmSync(directory, { recursive: true }) })
  const block = path.join(directory, 'block')
  writeFileSync(block, '')
  const { program, connect } = await start({ BLOCK: block, PUSH_MS: '20', OPTIONS: '{"undoWindow":30000,"drainTimeout":60000}' })
  const clients = await Promise.all(Array.from({ length: 20 }, () => connect()))
  await program.hangUp()
  const successor = program.serving
  await program.until(() => eventsOf(program, 'asked').length === clients.length)
  for (const client of clients) client.send()
  process.kill(successor, 'SIGKILL')
  await program.event('failed', ({ code }) => code === 'HANDOVER_UNDONE')
  const talkWith = async (pid: number): Promise<void> => {
    await Promise.all(clients.map(async (client) => {
      const { pushed } = client
      client.send()
      await client.settled()
      await client.until(() => client.pushed > pushed && client.pid === pid)
    }))
  }
  await talkWith(program.pid)
  rmSync(block)
  await program.hangUp()
  await talkWith(program.serving)
  expect(program.serving).not.toBe(program.pid)
  expect(clients.flatMap(({ errors, others }) => [...errors, ...others])).toEqual([])
  expect(eventsOf(program, 'bad')).toEqual([])
})

test('WebSockets that had moved to a successor that dies are told to the application as closed, once the process serves again', async () => {
  const { program, connect } = await start({ PUSH_MS: '20', OPTIONS: '{"undoWindow":30000,"drainTimeout":60000}' })
  const clients = await Promise.all(Array.from({ length: 5 }, () => connect()))
  await program.hangUp()
  await Promise.all(clients.map((client) => servedBy(client, program.serving)))
  expect(eventsOf(program, 'close')).toEqual([])
  process.kill(program.serving, 'SIGKILL')
  await program.event('failed', ({ code }) => code === 'HANDOVER_UNDONE')
  await waitFor(() => eventsOf(program, 'close').length === clients.length)
  expect(eventsOf(program, 'close').map(({ pid, code }) => ({ pid, code }))).toEqual(clients.map(() => ({ pid: program.pid, code: 1006 })))
  const again = await connect()
  await servedBy(again, program.pid)
  expect(eventsOf(program, 'close')).toHaveLength(clients.length)
})

test.for(['throw', 'reject'])('a client whose state cannot be restored is told 1011: restore() does %s', async (how) => {
  const { program, connect } = await start({ RESTORE: how })
  const client = await connect()
  await program.hangUp()
  expect(await client.over().catch(() => client.closed)).toBe(1011)
  await program.stderrMatching(/restore\(\) failed for a WebSocket that was moved here; closing it with code 1011: Error: restore failed/)
  const other = await connect()
  await servedBy(other, program.serving)
})

describe('with @fastify/websocket', () => {
  test('the upgrade runs through the hooks and the route again, also where somebody else listens for connections', async () => {
    const { program, connect } = await start({ KIND: 'fastify', METRICS: '1', PUSH_MS: '20' })
    const client = await connect({ protocols: ['chat'] })
    for (let index = 0; index < 2; index++) {
      await program.hangUp()
      await servedBy(client, program.serving)
    }
    expect(eventsOf(program, 'hook').map(({ generation, url }) => ({ generation, url }))).toEqual([1, 2, 3].map((generation) => ({ generation, url: '/ws' })))
    expect(eventsOf(program, 'connection').map(({ protocol, moved }) => ({ protocol, moved }))).toEqual([{ protocol: 'chat', moved: false }, { protocol: 'chat', moved: true }, { protocol: 'chat', moved: true }])
    expect(eventsOf(program, 'metrics')).toHaveLength(3)
    expect(client.errors).toEqual([])
  })

  test('its preClose, which closes all clients, finds none', async () => {
    const { program, connect } = await start({ KIND: 'fastify', PUSH_MS: '20' })
    const clients = await Promise.all(Array.from({ length: 5 }, () => connect()))
    await program.hangUp()
    await Promise.all(clients.map((client) => servedBy(client, program.serving)))
    const { clients: found } = await program.event('preClose', ({ pid }) => pid === program.pid)
    expect(found).toBe(0)
    await program.event('exit', ({ pid }) => pid === program.pid)
    await Promise.all(clients.map(async (client) => {
      client.send()
      await client.settled()
      expect(client.errors).toEqual([])
    }))
  })

  test('a client that the hooks refuse now is told 1012 and sees no HTTP', async () => {
    const { program, connect } = await start({ KIND: 'fastify', REFUSE: '2' })
    const client = await connect()
    await program.hangUp()
    expect(await client.over().catch(() => client.closed)).toBe(1012)
    await program.stderrMatching(/closing a WebSocket that was moved here \(\/ws\) with code 1012, service restart: the application did not take it again: HTTP\/1\.1 401 Unauthorized/)
    expect(client.errors).toEqual([])
  })
})

describe('what cannot be used is refused with HANDOVER_OPTION', () => {
  const options = { save: (ws: WebSocket) => ws.protocol, restore: (ws: WebSocket, state: string) => { ws.send(state) } }
  const server = new WebSocketServer({ noServer: true })
  const without = { save: options.save } as unknown as typeof options
  const withKind = (kind: unknown): typeof options => ({ ...options, kind }) as typeof options

  test.for([
    ['an HTTP server', () => { moveWebSockets(http.createServer() as unknown as WebSocketServer, options) }, /something else than a WebSocketServer/],
    ['nothing', () => { moveWebSockets(undefined as unknown as WebSocketServer, options) }, /something else than a WebSocketServer/],
    ['a server without options', () => { moveWebSockets(Object.assign(new WebSocketServer({ noServer: true }), { options: null }) as unknown as WebSocketServer, options) }, /something else than a WebSocketServer/],
    ['no restore', () => { moveWebSockets(server, without) }, /no save or no restore/],
    ['no options', () => { moveWebSockets(server, null as unknown as typeof options) }, /no save or no restore/],
    ['an unknown option', () => { moveWebSockets(server, { ...options, knd: 'a' } as typeof options) }, /the option 'knd', which does not exist.*Known options: save, restore, kind/],
    ['a kind that is taken by HTTP', () => { moveWebSockets(server, withKind('http')) }, /moveWebSockets\(\) was given the kind 'http'/],
    ['an empty kind', () => { moveWebSockets(server, withKind('')) }, /moveWebSockets\(\) was given the kind ''/],
    ['a BigInt as kind', () => { moveWebSockets(server, withKind(1n)) }, /moveWebSockets\(\) was given the kind 1n/],
    ['a symbol as kind', () => { moveWebSockets(server, withKind(Symbol('a'))) }, /moveWebSockets\(\) was given the kind Symbol\(a\)/],
    ['the same server twice', () => { for (const kind of ['once', 'twice']) moveWebSockets(server, { ...options, kind }) }, /twice with one WebSocketServer/],
    ['a second server of the same kind', () => { for (let index = 0; index < 2; index++) moveWebSockets(new WebSocketServer({ noServer: true }), options) }, /moveWebSockets\(\) was given the kind 'websocket', which another call of moveWebSockets\(\)/]
  ] as const)('%s', ([, act, message]) => {
    expect(act).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringMatching(message) }))
  })

  test('and a server that is refused because of its kind has no listener of ours, and can be given again with another', () => {
    moveWebSockets(new WebSocketServer({ noServer: true }), withKind('taken'))
    const refused = new WebSocketServer({ noServer: true })
    const listeners = (): number[] => ['headers', 'connection', 'close'].map((name) => refused.listenerCount(name))
    const before = listeners()
    expect(() => { moveWebSockets(refused, withKind('taken')) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    expect(listeners()).toEqual(before)
    moveWebSockets(refused, withKind('free'))
    expect(listeners()).toEqual(before.map((count) => count + 1))
  })

  test('a server with a port of its own', async () => {
    const own = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    onTestFinished(() => { own.close() })
    expect(() => { moveWebSockets(own, options) }).toThrow(/with a port of its own/)
  })
})

test('frames are counted alike however their bytes are cut', () => {
  const frame = (first: number, length: number): Buffer => {
    const head = length < 126 ? [first, 0x80 | length] : length < 65_536
      ? [first, 0x80 | 126, length >> 8, length & 0xff]
      : [first, 0x80 | 127, 0, 0, 0, 0, 0, length >> 16, (length >> 8) & 0xff, length & 0xff]
    return Buffer.concat([Buffer.from([...head, 1, 2, 3, 4]), Buffer.alloc(length, 0x89)])
  }
  const frames = [
    frame(0x81, 0), frame(0x82, 125), frame(0x89, 5), frame(0x81, 126), frame(0x01, 7), frame(0x8a, 0), frame(0x00, 65_535), frame(0x80, 0),
    frame(0x82, 65_536), frame(0x89, 0)
  ]
  const ends = frames.map((_, index) => Buffer.concat(frames.slice(0, index + 1)).length)
  const between = new Set([0, ...ends].filter((end) => end <= ends[3]! || end >= ends[7]!))
  const bytes = Buffer.concat(frames)
  for (const most of [1, 2, 3, 17, 1_000, 70_000, bytes.length]) {
    const counter = new FrameCounter()
    for (let at = 0; at < bytes.length;) {
      const size = most === bytes.length ? most : 1 + Math.floor(Math.random() * most)
      counter.add(bytes.subarray(at, at + size))
      at = Math.min(bytes.length, at + size)
      if (counter.isBetween !== between.has(at)) expect.fail(`after ${at} bytes it says ${counter.isBetween}`)
    }
    const { messages, pings, pongs, closed } = counter
    expect({ messages, pings, pongs, closed }).toEqual({ messages: 5, pings: 2, pongs: 1, closed: false })
    counter.add(frame(0x88, 2))
    expect(counter.closed).toBe(true)
  }
})
