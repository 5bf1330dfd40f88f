/**
 * Sessions of HTTP/2 that move, byte by byte: what their clients may send and get is after the move what it was before, whatever they
 * have said, and however their frames come.
 */

import { once } from 'node:events'
import http2 from 'node:http2'
import { expect, onTestFinished, test } from 'vitest'
import { Generations } from '../../helpers/generations.js'
import { firstWindow, headersFrame, reset, sameAgain, settingIds, settingsFrame, types, windowUpdate, WireClient } from '../../helpers/http2-wire.js'
import { frameOf } from '../../helpers/internals.js'
import { drained, portOf, type DrainReport } from '../../helpers/peers.js'
import { programPath, type ProgramEvent } from '../../helpers/program.js'

const limit = { timeout: 60_000 }

async function start(env: Readonly<Record<string, string>> = {}, options: object = {}): Promise<Generations> {
  const OPTIONS = JSON.stringify({ undoWindow: 100, drainTimeout: 30_000, ...options })
  const script = programPath('sessions.mjs')
  const all = { KIND: 'h2c', PRINT: '1', OPTIONS, ...env }
  const generations = await Generations.start({ script, listen: '127.0.0.1:0', env: all })
  onTestFinished(() => generations[Symbol.asyncDispose]())
  return generations
}

async function connect(
  generations: Generations, settings: Readonly<Record<number, number>> = {}, window = firstWindow
): Promise<WireClient> {
  const client = await WireClient.connect(portOf(generations), settings, window)
  onTestFinished(() => { client.destroy() })
  return client
}

/** Resolves when the newest process alone is left, which every session has moved to. */
async function move(generations: Generations, sessions = 1): Promise<void> {
  await generations.reload('signal')
  const reports = await drained(generations)
  expect(reports.at(-1)).toMatchObject({ connections: { open: sessions, moved: sessions, cut: 0, stayed: {} }, requestsCut: [] })
}

const requested = async (generations: Generations, path: string): Promise<ProgramEvent> =>
  await generations.until(() => generations.events.find((event) => event.event === 'request' && event['url'] === path))

const noErrors = (generations: Generations): void => {
  expect(generations.events.filter(({ event }) => event === 'sessionError')).toEqual([])
}

// ---- windows ----

test.for([1, 100, 16_384, 1_000_000])('a client with windows of %i bytes for a stream: the server sends so much after the move, and no byte more before it may', limit, async (size) => {
  const generations = await start()
  const client = await connect(generations, { [settingIds.initialWindowSize]: size }, 10_000_000)
  const before = client.request('/?bytes=40000')
  await client.sendsExactly(before, Math.min(40_000, size))
  if (size < 40_000) client.allow(before, 40_000 - size)
  expect(await client.answer(before)).toBe(40_000)
  await move(generations)
  const after = client.request('/?bytes=300000')
  const first = Math.min(300_000, size)
  await client.sendsExactly(after, first)
  if (first < 300_000) {
    client.allow(after, 1)
    await client.sendsExactly(after, first + 1)
    client.allow(after, 300_000 - first - 1)
  }
  expect(await client.answer(after)).toBe(300_000)
  noErrors(generations)
})

test.for([1, 30_000, 65_534, 65_535])('of the window of the connection %i bytes are spent: what is left is sent after the move, and no byte more', limit, async (spent) => {
  const generations = await start()
  const client = await connect(generations, { [settingIds.initialWindowSize]: 1_000_000 })
  expect(await client.answer(client.request(`/?bytes=${spent}`))).toBe(spent)
  await move(generations)
  await move(generations)
  const left = firstWindow - spent
  const stream = client.request('/?bytes=200000')
  await client.sendsExactly(stream, left)
  client.allow(0, 1)
  await client.sendsExactly(stream, left + 1)
  client.allow(0, 20_000)
  await client.sendsExactly(stream, left + 20_001)
  expect(client.allowed).toBe(0)
  client.allow(0, 1_000_000)
  expect(await client.answer(stream)).toBe(200_000)
  noErrors(generations)
})

test('a window of the connection that was raised and is partly spent is sent to its last byte after the move', limit, async () => {
  const generations = await start()
  const client = await connect(generations, { [settingIds.initialWindowSize]: 1_000_000 }, 300_000)
  await client.answer(client.request('/?bytes=50001'))
  await move(generations)
  const stream = client.request('/?bytes=900000')
  await client.sendsExactly(stream, 249_999)
  expect(client.allowed).toBe(0)
  client.allow(0, 1_000_000)
  expect(await client.answer(stream)).toBe(900_000)
})

test.for([
  { what: 'as it begins', env: {}, body: 20_000 },
  { what: 'that the server raised', env: { WINDOW: '400000' }, body: 150_000 },
  { what: 'of a server with other settings', env: { SETTINGS: '{"initialWindowSize":200000,"maxFrameSize":20000}' }, body: 65_000 }
])('the window of the connection $what: client and server agree on what the client may send, before the move and after each', limit, async ({ env, body }) => {
  const generations = await start(env)
  const client = await connect(generations)
  for (let round = 0; round < 3; round++) {
    const stream = client.request(`/?round=${round}`, { end: false })
    // What the program's setLocalWindowSize() says has come by then, too.
    await client.ping()
    for (let left = body; left > 0;) {
      const part = Math.min(left, 10_000)
      await client.until(() => client.credit >= part)
      client.data(stream, part, part === left)
      left -= part
      await client.ping()
      // Of the stream's own window.
      const isRaised = (): boolean => client.frames.some(({ type, stream: of }) => type === types.windowUpdate && of === stream)
      if (env.SETTINGS === undefined) await client.until(() => body - left < firstWindow - 10_000 || isRaised())
    }
    await client.answer(stream)
    client.request(`/?after=${round}`)
    const { clientMaySend } = await requested(generations, `/?after=${round}`)
    expect(client.credit).toBe(clientMaySend)
    await client.answer(client.nextStream - 2)
    await move(generations)
    await client.answer(client.request(`/?moved=${round}`))
    expect(client.credit).toBe((await requested(generations, `/?moved=${round}`))['clientMaySend'])
    expect(client.credit).toBe(Number(env.WINDOW ?? firstWindow))
  }
  noErrors(generations)
})

test('the client changes its settings after the move: the windows of streams that are open change with them', limit, async () => {
  const generations = await start()
  const client = await connect(generations, { [settingIds.initialWindowSize]: 100 }, 10_000_000)
  await client.answer(client.request('/?bytes=1'))
  await move(generations)
  const stream = client.request('/?bytes=100000')
  await client.sendsExactly(stream, 100)
  const acks = (): number => client.frames.filter(({ type, flags }) => type === types.settings && flags === 1).length
  const before = acks()
  client.write(settingsFrame({ [settingIds.initialWindowSize]: 50_000 }))
  await client.sendsExactly(stream, 50_000)
  expect(acks()).toBe(before + 1)
  client.allow(stream, 50_000)
  expect(await client.answer(stream)).toBe(100_000)
})

// ---- streams ----

test('the server lets its client open as many streams at a time after the move as before it, and no more', limit, async () => {
  const generations = await start({ SETTINGS: '{"maxConcurrentStreams":2}' })
  const [moved, stays] = [await connect(generations), await connect(generations)]
  const openThree = async (client: WireClient): Promise<string> => {
    const [, , third] = [client.request('/?ms=300'), client.request('/?ms=300'), client.request('/')] as const
    return await client.answer(third).then(() => 'answered', () => 'refused')
  }
  await moved.answer(moved.request('/'))
  await stays.answer(stays.request('/'))
  const before = await openThree(stays)
  await move(generations)
  const [first, second] = [moved.request('/?ms=100'), moved.request('/?ms=100')]
  await Promise.all([moved.answer(first), moved.answer(second)])
  expect([before, await openThree(moved)]).toEqual(['refused', 'refused'])
})

test('numbers of streams go on: the next is answered, numbers may be left out, and late frames for older streams do no harm', limit, async () => {
  const generations = await start()
  const client = await connect(generations)
  client.nextStream = 5
  const last = [client.request('/'), client.request('/')].at(-1)!
  await client.answer(last)
  await move(generations)
  client.write(reset(last), windowUpdate(last, 5), reset(1), windowUpdate(3, 5))
  client.write(frameOf(types.data, 0, 5, Buffer.alloc(10)), frameOf(types.data, 1, last))
  const next = client.request('/?next')
  expect(next).toBe(last + 2)
  await client.answer(next)
  expect((await requested(generations, '/?next'))['id']).toBe(next)
  client.nextStream += 40
  await client.answer(client.request('/?later'))
  expect(client.goaways).toBe(0)
  noErrors(generations)
})

test('a session without a stream so far moves, and its first one is answered', limit, async () => {
  const generations = await start()
  const client = await connect(generations)
  await client.ping()
  await move(generations)
  await move(generations)
  const stream = client.request('/?bytes=70000&first')
  expect((await requested(generations, '/?bytes=70000&first'))['id']).toBe(stream)
  await client.sendsExactly(stream, firstWindow)
})

test('streams that are reset as soon as they are asked for, before, during and after the move, leave the session whole', limit, async () => {
  const generations = await start()
  const client = await connect(generations)
  let stopping = false
  const storm = (async () => {
    while (!stopping) {
      const stream = client.nextStream
      client.nextStream += 2
      client.write(headersFrame(stream, '/?bytes=5000', { end: false }), reset(stream))
      const cancelled = client.request('/?ms=5&bytes=5000')
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 10))
      client.write(reset(cancelled))
      client.allow(0, 5_000)
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 10))
    }
  })()
  await client.ping()
  await Promise.race([move(generations), storm])
  await Promise.race([move(generations), storm])
  stopping = true
  await storm
  expect(await client.answer(client.request('/?bytes=1000'))).toBe(1_000)
  noErrors(generations)
})

// ---- frames ----

test('PING, PRIORITY and frames of types that nobody knows are taken before the move, while it waits, and after it', limit, async () => {
  const generations = await start()
  const client = await connect(generations)
  const odd = (): Buffer[] => [
    frameOf(types.priority, 0, 3, Buffer.from([0, 0, 0, 0, 10])), frameOf(types.priority, 0, 101, Buffer.from([0, 0, 0, 3, 200])),
    frameOf(0xfa, 0xff, 7, Buffer.alloc(300)), frameOf(0x10, 0, 0, Buffer.from('\0\0\0\u0001u=1')), frameOf(0x0a, 0, 0, Buffer.alloc(4))
  ]
  client.write(...odd())
  const slow = client.request('/?ms=500')
  await requested(generations, '/?ms=500')
  const moved = move(generations)
  for (let count = 0; count < 20; count++) {
    client.write(...odd())
    await client.ping()
  }
  await client.answer(slow)
  await moved
  for (let count = 0; count < 3; count++) {
    client.write(...odd())
    await client.ping()
    await client.answer(client.request('/'))
  }
  expect(client.goaways).toBe(0)
  noErrors(generations)
})

test('a frame that is cut after each of its first 12 bytes when the session is to move is read whole by the one process or the other', limit, async () => {
  const generations = await start()
  const cuts = Array.from({ length: 12 }, (_, index) => index + 1)
  const clients = await Promise.all(cuts.map(() => connect(generations)))
  const slow = clients.map((client) => client.request('/?ms=400'))
  await Promise.all(clients.map((client) => client.ping()))
  const moved = move(generations, 12)
  await Promise.all(clients.map(async (client, index) => {
    // The ping of the drain is answered by then, and this session moves with the end of its stream.
    await client.answer(slow[index]!)
    const [stream, frame] = [client.nextStream, headersFrame(client.nextStream, `/?bytes=2000&cut=${index}`)]
    client.nextStream += 2
    await client.writeCut(frame, cuts[index]!, 60)
    expect(await client.answer(stream)).toBe(2_000)
  }))
  await moved
  await Promise.all(clients.map(async (client) => { expect(await client.answer(client.request('/?bytes=100'))).toBe(100) }))
  expect(clients.map(({ goaways }) => goaways)).toEqual(cuts.map(() => 0))
  noErrors(generations)
})

test('a frame that has half come when the drain begins is waited for, however short its first part is', limit, async () => {
  const generations = await start()
  const cuts = Array.from({ length: 12 }, (_, index) => index + 1)
  const clients = await Promise.all(cuts.map(() => connect(generations)))
  await Promise.all(clients.map((client) => client.answer(client.request('/'))))
  const frames = clients.map((client, index) => headersFrame(client.nextStream, `/?bytes=2000&cut=${index}`))
  for (const [index, client] of clients.entries()) {
    client.silent = true
    client.write(frames[index]!.subarray(0, cuts[index]))
  }
  await generations.reload('signal')
  await Promise.all(clients.map(async (client, index) => {
    const ping = await client.until(() => client.frames.find(({ type, flags }) => type === types.ping && flags === 0))
    client.silent = false
    client.write(frames[index]!.subarray(cuts[index]), frameOf(types.ping, 1, 0, ping.payload))
    expect(await client.answer(client.nextStream)).toBe(2_000)
    client.nextStream += 2
  }))
  expect((await drained(generations))[0]).toMatchObject({ connections: { open: 12, moved: 12, stayed: {} } })
  await Promise.all(clients.map((client) => client.answer(client.request('/'))))
  noErrors(generations)
})

test.for([
  { what: 'fills its table and never says that it became smaller', indexed: true, says: false },
  { what: 'fills its table, and says what it must', indexed: true, says: true },
  { what: 'has no table, and never says so', indexed: false, says: false }
])('a client that $what keeps its session through moves, also while streams are open', limit, async ({ indexed, says }) => {
  const generations = await start()
  const client = await connect(generations)
  let told = 0
  const ask = async (path: string): Promise<void> => {
    const tables = client.settings.filter(([id]) => id === settingIds.headerTableSize).map(([, value]) => value)
    const fresh = tables.slice(told)
    told = tables.length
    // Zero, and what came behind it: 4,096 is 31 and 4,065 more.
    const sizes = [...(fresh.includes(0) ? [0x20] : []), ...(fresh.at(-1) === 4_096 ? [0x3f, 0xe1, 0x1f] : [])]
    await client.answer(client.request(path, { indexed, first: Buffer.from(says ? sizes : []) }))
  }
  await ask('/?one')
  for (let round = 0; round < 2; round++) {
    const slow = ask(`/?ms=1500&round=${round}`)
    await requested(generations, `/?ms=1500&round=${round}`)
    const pings = (): number => client.frames.filter(({ type, flags }) => type === types.ping && flags === 0).length
    const before = pings()
    const moved = move(generations)
    // The drain has asked.
    await client.until(() => pings() > before)
    await client.ping(2)
    for (let count = 0; count < 4; count++) await ask(`/?count=${count}`)
    await slow
    await moved
    for (let count = 0; count < 3; count++) await ask(`/?after=${count}`)
  }
  expect(client.goaways).toBe(0)
  noErrors(generations)
})

/** What GOAWAY says: its code, and the last stream that may have been begun. */
async function goaway(client: WireClient): Promise<{ code: number; last: number }> {
  const frame = await client.look(() => client.frames.find(({ type }) => type === types.goaway))
  return { last: frame.payload.readUInt32BE(), code: frame.payload.readUInt32BE(4) }
}

/** It looks up the newest entry of its table, though it has said that the table is empty, as Go before 1.20 does. */
const lookedUp = { first: Buffer.from([0xbe]) }

test('a client that goes on with its old table after the move hears that its stream was not begun', limit, async () => {
  const generations = await start()
  const client = await connect(generations)
  const first = client.request('/?one', { indexed: true })
  await client.answer(first)
  await move(generations)
  client.request('/?two', lookedUp)
  client.request('/?three', lookedUp)
  expect(await goaway(client)).toEqual({ code: 0, last: first })
  noErrors(generations)
})

test('a client that fills its old table anew after the move hears at its next stream that this one was not begun', limit, async () => {
  const generations = await start()
  const client = await connect(generations)
  await client.answer(client.request('/?one', { indexed: true }))
  await move(generations)
  // Its entries were dropped one by one (the path of each request is new), so it looks up none of them.
  const second = client.request('/?two', { indexed: true })
  await client.answer(second)
  client.write(sameAgain(client.nextStream))
  expect(await goaway(client)).toEqual({ code: 0, last: second })
  noErrors(generations)
})

test.for([
  ['h2c', 'in one piece', Infinity], ['h2c', 'of which 5 bytes come first', 5], ['h2c', 'of which 12 bytes come first', 12],
  ['h2', 'of which 12 bytes come first', 12]
] as const)('%s: a client that goes on with its old table before the move, by a head %s, hears so too, and its older streams are answered', limit, async ([kind, , cut]) => {
  const generations = await start({ KIND: kind })
  const client = await (kind === 'h2' ? WireClient.connectSecurely(portOf(generations)) : connect(generations))
  await client.answer(client.request('/?one', { indexed: true }))
  const slow = client.request('/?bytes=3000', { end: false })
  await requested(generations, '/?bytes=3000')
  await generations.reload('signal')
  // Its acknowledgement was read before the answer to this ping.
  await client.until(() => client.settings.some(([id, value]) => id === settingIds.headerTableSize && value === 0))
  await client.ping()
  await client.writeCut(headersFrame(slow + 2, '/?two', lookedUp), cut, 60)
  client.write(reset(slow + 2), windowUpdate(slow + 2, 5))
  expect(await goaway(client)).toEqual({ code: 0, last: slow })
  client.data(slow, 10, true)
  await client.look(() => client.received(slow) === 3_000)
  expect((await drained(generations))[0]).toMatchObject({ connections: { moved: 0, drained: 1, cut: 0, stayed: {} } })
  noErrors(generations)
})

test.for(['h2c', 'h2'])('%s: half a head that has come while the session waited for its move is read whole where the old process serves again', limit, async (kind) => {
  const generations = await start({ KIND: kind }, { undoWindow: 20_000 })
  const client = await (kind === 'h2' ? WireClient.connectSecurely(portOf(generations)) : connect(generations))
  await client.answer(client.request('/?one', { indexed: true }))
  const slow = client.request('/?bytes=3000', { end: false })
  await requested(generations, '/?bytes=3000')
  await generations.reload('signal')
  await client.until(() => client.settings.some(([id, value]) => id === settingIds.headerTableSize && value === 0))
  await client.ping()
  const undone = generations.until(() => generations.events.some(({ event, report }) => event === 'report' && (report as DrainReport).result === 'undone'))
  const whole = client.writeCut(headersFrame(slow + 2, '/?two'), 12, undone)
  process.kill(generations.serving, 'SIGKILL')
  await whole
  await client.answer(slow + 2)
  client.data(slow, 10, true)
  expect(await client.answer(slow)).toBe(3_000)
  expect(client.goaways).toBe(0)
})

test.for(['h2c', 'h2'])('%s: of clients that always go on with their old table, each request is answered, or its stream was not begun', limit, async (kind) => {
  const generations = await start({ KIND: kind })
  const port = portOf(generations)
  let isOver = false
  const seen = { answered: 0, again: 0, lost: [] as string[] }

  /** One session; until it is told to go. */
  async function session(): Promise<void> {
    const client = await (kind === 'h2' ? WireClient.connectSecurely(port) : WireClient.connect(port))
    try {
      while (!isOver) {
        const stream = client.nextStream
        if (stream === 1) client.request('/?bytes=30', { indexed: true, end: false })
        else client.write(sameAgain(stream))
        client.nextStream = stream + 2
        client.data(stream, 14_000, true)
        await client.look(() => client.received(stream) === 30 || client.goaways > 0 || client.closed !== undefined)
        if (client.received(stream) === 30) {
          client.allow(0, 30)
          seen.answered++
          continue
        }
        seen.again++
        const last = client.frames.findLast(({ type }) => type === types.goaway)?.payload.readUInt32BE()
        if (last === undefined || last >= stream) seen.lost.push(`stream ${stream}, last ${last}, ${client.closed}`)
        return
      }
    } finally {
      client.destroy()
    }
  }
  const users = Array.from({ length: 12 }, async () => { while (!isOver) await session() })
  for (let round = 0; round < 4; round++) {
    const before = seen.answered
    await generations.until(() => seen.answered > before + 100)
    await generations.reload('signal')
  }
  await drained(generations)
  isOver = true
  await Promise.all(users)
  // No look for errors: each client leaves without reading to the end.
  expect(seen.lost).toEqual([])
  expect(seen.again).toBeGreaterThan(0)
})

test.for([
  ['an update of the window by nothing', windowUpdate(0, 0)],
  ['one that is too short', frameOf(types.windowUpdate, 0, 0, Buffer.alloc(3))],
  ['the head of a frame that is too long', Buffer.from('GET / HTTP/1.1\r\n\r\n')]
] as const)('%s is the same error after the move as before it', limit, async ([, wrong]) => {
  const generations = await start()
  const [before, after] = [await connect(generations), await connect(generations)]
  for (const client of [before, after]) await client.answer(client.request('/?bytes=10'))
  before.write(wrong)
  const expected = await goaway(before)
  before.destroy()
  await generations.reload('signal')
  await drained(generations)
  after.write(wrong)
  expect(await goaway(after)).toEqual(expected)
  expect(generations.alive).toHaveLength(1)
})

// ---- clients of Node ----

function connectNode(generations: Generations, settings: http2.Settings = {}): http2.ClientHttp2Session {
  const session = http2.connect(`http://127.0.0.1:${portOf(generations)}`, { settings })
  session.on('error', () => undefined)
  onTestFinished(() => { session.destroy() })
  return session
}

interface Answer {
  readonly headers: http2.IncomingHttpHeaders
  readonly trailers: http2.IncomingHttpHeaders | undefined
  readonly bytes: number
}

async function ask(session: http2.ClientHttp2Session, path: string, headers: http2.OutgoingHttpHeaders = {}): Promise<Answer> {
  const stream = session.request({ ':path': path, ...headers })
  let trailers: http2.IncomingHttpHeaders | undefined
  stream.on('trailers', (found) => { trailers = found })
  const answered = once(stream, 'response') as Promise<[http2.IncomingHttpHeaders]>
  const [[found], body] = await Promise.all([answered, stream.toArray() as Promise<Buffer[]>])
  return { headers: found, trailers, bytes: Buffer.concat(body).length }
}

test.for([0, 200, 4_096, 65_536])('a client whose table of headers has %i bytes reads the same headers again and again over three moves', limit, async (headerTableSize) => {
  const generations = await start({ SETTINGS: '{"headerTableSize":8192}' })
  const session = connectNode(generations, { headerTableSize })
  for (let round = 1; round <= 4; round++) {
    for (let count = 0; count < 6; count++) {
      const { headers } = await ask(session, '/', { 'x-thing': `thing ${count % 3} of ${'many '.repeat(20)}`.trim() })
      expect(headers).toMatchObject({ 'x-version': String(round), 'x-echo': `thing ${count % 3} of ${'many '.repeat(20)}`.trim() })
    }
    if (round < 4) await move(generations)
  }
  noErrors(generations)
})

test('trailers of both sides come after the move as before it', limit, async () => {
  const generations = await start()
  const session = connectNode(generations)
  for (let round = 0; round < 2; round++) {
    const { trailers, headers } = await ask(session, '/?trailers&bytes=70000')
    expect(trailers).toMatchObject({ 'x-trailer': headers['x-hash'] })
    if (round === 0) await move(generations)
  }
})

test('extended CONNECT: the protocol is offered after the move, and a stream that is open lets the session move when it ends', limit, async () => {
  const generations = await start({ SETTINGS: '{"enableConnectProtocol":true}' })
  const session = connectNode(generations)
  await once(session, 'remoteSettings')
  const tunnel = (): http2.ClientHttp2Stream => session.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/chat', ':authority': 'localhost' })
  const first = tunnel()
  expect((await once(first, 'response'))[0]).toMatchObject({ ':status': 200, 'x-protocol': 'websocket', 'x-version': '1' })
  await generations.reload('signal')
  first.write('still here')
  expect(String((await once(first, 'data'))[0])).toBe('still here')
  first.end()
  await once(first.resume(), 'close')
  expect((await drained(generations))[0]).toMatchObject({ connections: { open: 1, moved: 1, stayed: {} } })
  expect(session.remoteSettings.enableConnectProtocol).toBe(true)
  const second = tunnel()
  expect((await once(second, 'response'))[0]).toMatchObject({ ':status': 200, 'x-protocol': 'websocket', 'x-version': '2' })
  second.end('over there')
  expect(String((await once(second, 'data'))[0])).toBe('over there')
})

test('a client that wants no pushes gets none after the move; a session in which was pushed stays, and is told to go', limit, async () => {
  const generations = await start()
  const [plain, pushed] = [connectNode(generations, { enablePush: false }), connectNode(generations)]
  pushed.on('stream', (stream) => { stream.resume() })
  await Promise.all([ask(plain, '/?plain'), ask(pushed, '/?push')])
  expect((await requested(generations, '/?plain'))['push']).toBe(false)
  const goaway = once(pushed, 'goaway')
  await generations.reload('signal')
  await goaway
  expect((await drained(generations))[0]).toMatchObject({ connections: { open: 2, moved: 1, drained: 1 } })
  expect((await ask(plain, '/?moved')).headers).toMatchObject({ 'x-version': '2' })
  expect((await requested(generations, '/?moved'))['push']).toBe(false)
})

test.for([
  ['in the clear', 'h2c', false], ['in the clear that has moved', 'h2c', true], ['over TLS that has moved', 'h2', true]
] as const)('a session %s that is told to go answers a stream that crosses the GOAWAY, and then names the last one', limit, async ([, kind, hasMoved]) => {
  const generations = await start({ KIND: kind }, { drainTimeout: 3_000 })
  const client = kind === 'h2' ? await WireClient.connectSecurely(portOf(generations)) : await connect(generations)
  onTestFinished(() => { client.destroy() })
  await client.answer(client.request('/'))
  if (hasMoved) await move(generations)
  client.request('/?ms=60000')
  await requested(generations, '/?ms=60000')
  await generations.reload('signal')
  // What it is asked from now on it answers below.
  client.silent = true
  const answered = client.frames.length
  expect(await goaway(client)).toEqual({ code: 0, last: 2 ** 31 - 1 })
  const crossed = client.request('/?bytes=10')
  await client.look(() => client.received(crossed) === 10)
  const pings = client.frames.slice(answered).filter(({ type, flags }) => type === types.ping && flags === 0)
  client.write(...pings.map(({ payload }) => frameOf(types.ping, 1, 0, payload)))
  const last = await client.look(() => client.frames.filter(({ type }) => type === types.goaway)[1])
  expect(last.payload.readUInt32BE()).toBe(crossed)
  noErrors(generations)
})

// ---- moves ----

test('clients that leave at any moment of the move end in the process that has them, and no other is disturbed', limit, async () => {
  const generations = await start()
  const clients = await Promise.all(Array.from({ length: 40 }, () => connect(generations)))
  await Promise.all(clients.map((client) => client.answer(client.request('/'))))
  const stays = connectNode(generations)
  await ask(stays, '/')
  const reloaded = generations.reload('signal')
  await generations.until(() => generations.events.some(({ event, generation }) => event === 'listening' && generation === 2))
  for (const [index, client] of clients.entries()) setTimeout(() => { client.destroy() }, index)
  await reloaded
  const [report] = await drained(generations) as [DrainReport]
  expect(report.connections.cut).toBe(0)
  expect((await ask(stays, '/?bytes=100000')).headers).toMatchObject({ 'x-version': '2' })
  stays.close()
  await generations.stop()
})

test('a session moves through five generations that are reloaded one upon the other, with streams of all sizes on their way', limit, async () => {
  const generations = await start()
  const settings = [{}, { initialWindowSize: 1_000, headerTableSize: 0 }, { initialWindowSize: 5_000_000 }]
  const sessions = settings.map((own) => connectNode(generations, own))
  let stopping = false
  let answers = 0
  const users = sessions.map(async (session) => {
    for (let count = 0; !stopping; count++) {
      const bytes = (count * 7_919) % 150_000
      expect((await ask(session, `/?bytes=${bytes}&ms=${count % 5}`)).bytes).toBe(bytes)
      answers++
    }
  })
  const all = Promise.all(users)
  for (let index = 0; index < 5; index++) await Promise.race([generations.reload('signal'), all])
  const reports = await Promise.race([drained(generations), all.then(() => [])])
  const before = answers
  await generations.until(() => true)
  while (answers < before + 20) await Promise.race([new Promise((resolve) => setTimeout(resolve, 10)), all])
  stopping = true
  await all
  expect(reports).toHaveLength(5)
  for (const { connections } of reports) expect(connections).toMatchObject({ open: 3, moved: 3, cut: 0, stayed: {} })
  noErrors(generations)
})
