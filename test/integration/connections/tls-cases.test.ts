/**
 * What is hard about moving a connection under TLS: bytes that are on their way, or half there, at the moment of the
 * move. The client's bytes go through the hands of the test, which holds some of them back.
 */

import { once } from 'node:events'
import { createHash, randomBytes } from 'node:crypto'
import net from 'node:net'
import { Duplex } from 'node:stream'
import tls from 'node:tls'
import { expect, onTestFinished, test } from 'vitest'
import { Client } from '../../helpers/client.js'
import { ask, goesOn, Moving, nextAnswer } from '../../helpers/moving.js'

const port = (moving: Moving): number => (moving.address as { port: number }).port

/** A TCP connection that sends what it gets only as far as it is let. */
class Gate extends Duplex {
  readonly raw: net.Socket
  /** So many bytes may still leave. */
  #open = Infinity
  #held: Buffer[] = []

  constructor(raw: net.Socket) {
    super()
    this.raw = raw
    raw.on('data', (chunk: Buffer) => { this.push(chunk) }).on('end', () => { this.push(null) })
    // Not at an orderly close: what came right before it may not have been read.
    raw.on('error', (error) => { this.destroy(error) }).on('close', (failed) => { if (failed) this.destroy() })
  }

  holdAfter(bytes: number): void { this.#open = bytes }

  get held(): number { return this.#held.reduce((sum, { length }) => sum + length, 0) }

  /** Sends what was held, in pieces of this length. */
  async letGo(pieces = Infinity): Promise<void> {
    while (this.#held.length > 0) {
      const all = Buffer.concat(this.#held.splice(0))
      for (let at = 0; at < all.length; at += pieces) {
        await new Promise((resolve) => { this.raw.write(all.subarray(at, at + pieces), resolve) })
        await new Promise(setImmediate)
      }
    }
    this.#open = Infinity
  }

  override _read(): void { /* it is pushed */ }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const passing = chunk.subarray(0, this.#open)
    this.#open -= passing.length
    if (passing.length > 0) this.raw.write(passing)
    if (passing.length < chunk.length) this.#held.push(chunk.subarray(passing.length))
    done()
  }

  override _final(done: () => void): void { this.raw.end(done) }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.raw.destroy()
    done(error)
  }
}

async function gated(moving: Moving, options: tls.ConnectionOptions = {}): Promise<{ client: Client; gate: Gate }> {
  const raw = net.connect(port(moving), '127.0.0.1').setNoDelay(true)
  await once(raw, 'connect')
  const gate = new Gate(raw)
  const client = await Client.secure(gate as unknown as net.Socket, options)
  onTestFinished(() => {
    client[Symbol.dispose]()
    raw.destroy()
  })
  return { client, gate }
}


const get = (target: string): string => `GET ${target} HTTP/1.1\r\nHost: test\r\n\r\n`
/** What the client sent before has been read: an answer on another connection comes after it. */
const readSoFar = async (witness: Client): Promise<void> => { for (let times = 0; times < 3; times++) await ask(witness, '/') }

test('a record of which 0 to 6 bytes have come at the moment of the move: the rest comes later, and its request is answered once', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const clients = []
  for (let bytes = 0; bytes <= 6; bytes++) {
    const { client, gate } = await gated(moving)
    await ask(client, '/')
    gate.holdAfter(bytes)
    client.request(`/held-after-${bytes}`)
    clients.push({ client, gate, bytes })
  }
  const witness = await moving.idleClient()
  await readSoFar(witness)
  await moving.reload()
  // The witness, and the connection of whose record nothing has come.
  await moving.arrived(2)
  await goesOn(witness)
  for (const { client, gate, bytes } of clients) {
    await gate.letGo()
    expect(await nextAnswer(client)).toMatchObject({ status: 200, body: `generation ${bytes === 0 ? 2 : 1} answers /held-after-${bytes}` })
  }
  await moving.arrived(8)
  for (const { client } of clients) await goesOn(client)
  expect(await moving.report()).toMatchObject({ connections: { open: 8, moved: 8, drained: 0, closedIdle: 0, cut: 0, stayed: {} } })
})

const cbc = { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA256' } as const

test('on connections that stay, a record of which a part has come is waited for, longer than an idle connection may stay', async () => {
  const moving = await Moving.start({ kind: 'https', options: { linger: 200 } })
  const idle = await gated(moving, cbc)
  await ask(idle.client, '/')
  const slow = []
  for (const bytes of [1, 6]) {
    const { client, gate } = await gated(moving, cbc)
    await ask(client, '/')
    gate.holdAfter(bytes)
    client.request(`/held-after-${bytes}`)
    slow.push({ client, gate, bytes })
  }
  await readSoFar(await moving.idleClient())
  await moving.reload()
  expect(await idle.client.over).toBe('closed')
  for (const { client, gate, bytes } of slow) {
    await gate.letGo()
    expect(await nextAnswer(client)).toMatchObject({ body: `generation 1 answers /held-after-${bytes}` })
    expect(await client.over).toBe('closed')
  }
  expect(await moving.report()).toMatchObject({ connections: { moved: 1, drained: 2, closedIdle: 1, cut: 0, stayed: { TLS: 3 } } })
})

test('where TLS does not move, a record that begins to come while the process drains is waited for, too', async () => {
  const moving = await Moving.start({ kind: 'https', options: { linger: 1_500, move: { tls: false } } })
  const [idle, slow] = [await gated(moving), await gated(moving)]
  for (const { client } of [idle, slow]) await ask(client, '/')
  await moving.reload()
  slow.gate.holdAfter(6)
  slow.client.request('/slow')
  expect(await idle.client.over).toBe('closed')
  await slow.gate.letGo()
  expect(await nextAnswer(slow.client)).toMatchObject({ body: 'generation 1 answers /slow' })
  expect(await moving.report()).toMatchObject({ connections: { drained: 1, closedIdle: 1, cut: 0 } })
})

test('half a request in one record and half in the next, on both sides of a reload, and after the move', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const client = await moving.idleClient()
  const text = get('/halves')
  client.send(text.slice(0, 20))
  const witness = await moving.idleClient()
  await readSoFar(witness)
  await moving.reload()
  await moving.arrived(1)
  client.send(text.slice(20))
  expect(await nextAnswer(client)).toMatchObject({ body: 'generation 1 answers /halves' })
  await moving.arrived(2)
  client.send(text.slice(0, 20))
  const other = await moving.idleClient()
  await readSoFar(other)
  await moving.reload()
  await moving.arrived(2, 3)
  client.send(text.slice(20))
  expect(await nextAnswer(client)).toMatchObject({ body: 'generation 2 answers /halves' })
  await moving.arrived(3, 3)
  await goesOn(client, 3)
})

const hash = (body: Buffer): string => `${body.length} ${createHash('sha256').update(body).digest('hex')}`

test('bodies in records of 16 KB and of 1 byte, which come whole and byte for byte, before and after a move', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const { client, gate } = await gated(moving)
  for (const generation of [1, 2, 3]) {
    for (const [bytes, record, pieces] of [[150_000, 16_384, 16_389], [150_000, 16_384, 1_000], [400, 1, 1], [400, 1, 7]] as const) {
      const body = randomBytes(bytes)
      gate.holdAfter(0)
      client.send(`POST /hash HTTP/1.1\r\nHost: test\r\nContent-Length: ${bytes}\r\n\r\n`)
      for (let at = 0; at < bytes; at += record) client.socket.write(body.subarray(at, at + record))
      await gate.letGo(pieces)
      expect(await nextAnswer(client)).toMatchObject({ body: hash(body) })
    }
    if (generation === 3) break
    await moving.reload()
    await moving.arrived(1, generation + 1)
  }
})

test('a close_notify that nobody has read at the move ends the connection in the successor', async () => {
  const moving = await Moving.start({ kind: 'https', blocked: true })
  const client = await moving.idleClient()
  await moving.reload()
  await moving.blocked()
  client.socket.end()
  moving.unblock()
  expect(await client.over).toBe('closed')
  await moving.report()
})

test('a request and a close_notify behind it, unread at the move, are answered and closed by the successor', async () => {
  const moving = await Moving.start({ kind: 'https', blocked: true })
  const client = await moving.idleClient()
  await moving.reload()
  await moving.blocked()
  client.request('/last')
  client.socket.end()
  moving.unblock()
  expect(await nextAnswer(client)).toMatchObject({ body: expect.stringMatching(/^generation [12] answers \/last$/) as string })
  expect(await client.over).toBe('closed')
  await moving.report()
})

test('clients that leave in the middle of a move, with and without a word, disturb no other', async () => {
  const moving = await Moving.start({ kind: 'https', blocked: true })
  const stays = await moving.idleClient()
  const leave = [
    (socket: net.Socket) => { socket.destroy() }, (socket: net.Socket) => { socket.end() },
    (_: net.Socket, raw: net.Socket) => { raw.resetAndDestroy() }
  ]
  const leaving = []
  for (const how of [...leave, ...leave]) leaving.push({ how, ...await gated(moving) })
  for (const { client } of leaving) await ask(client, '/')
  await moving.reload()
  await moving.blocked()
  for (const { how, client, gate } of leaving.slice(0, 3)) how(client.socket, gate.raw)
  moving.unblock()
  for (const { how, client, gate } of leaving.slice(3)) how(client.socket, gate.raw)
  await moving.arrived(1)
  await goesOn(stays)
  await moving.report()
  await moving.reload()
  await moving.arrived(1, 3)
  await goesOn(stays, 3)
})

test('five reloads in a row, each before the connections are asked again: they go through all', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const clients = await Promise.all(Array.from({ length: 10 }, () => moving.idleClient()))
  for (let generation = 2; generation <= 6; generation++) {
    await moving.reload()
    if (generation % 2 === 0) for (const client of clients) client.request('/')
    if (generation % 2 === 0) for (const client of clients) expect(await nextAnswer(client)).toMatchObject({ status: 200 })
  }
  await moving.arrived(10, 6)
  for (const client of clients) await goesOn(client, 6)
})

test('a session is resumed after a move: with a ticket from before it, and with one from after it', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const connect = async (session?: Buffer): Promise<{ client: Client; tickets: Buffer[]; reused: boolean }> => {
    const socket = tls.connect({ port: port(moving), host: '127.0.0.1', rejectUnauthorized: false, ...(session && { session }) })
    const tickets: Buffer[] = []
    socket.on('session', (ticket) => { tickets.push(ticket) })
    await once(socket, 'secureConnect')
    const client = Client.over(socket)
    onTestFinished(() => { client[Symbol.dispose]() })
    await ask(client, '/')
    return { client, tickets, reused: socket.isSessionReused() }
  }
  const before = await connect()
  await moving.reload()
  await moving.arrived(1)
  const after = await connect()
  expect([before.reused, after.reused]).toEqual([false, false])
  const resumed = [await connect(before.tickets[0]), await connect(after.tickets[0])]
  expect(resumed.map(({ reused }) => reused)).toEqual([true, true])
  await moving.reload()
  await moving.arrived(4, 3)
  for (const { client } of [before, after, ...resumed]) await goesOn(client, 3)
})

test.for(['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305'])(
  'TLS 1.2 with %s moves', async (ciphers) => {
    const moving = await Moving.start({ kind: 'https' })
    const { client } = await gated(moving, { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers })
    await ask(client, '/')
    await moving.reload()
    await moving.arrived(1)
    await goesOn(client)
    expect(await moving.report()).toMatchObject({ connections: { open: 1, moved: 1, drained: 0, cut: 0, stayed: {} } })
  }
)

/** Begins to renegotiate. Resolves with the answer to the request behind it, or with the error that ended it. */
async function renegotiate({ client }: { readonly client: Client }): Promise<string> {
  const error = await new Promise<unknown>((resolve) => {
    (client.socket as tls.TLSSocket).renegotiate({}, resolve)
    void client.over.then(resolve)
  })
  return error === null ? (await ask(client, '/behind')).body : String(error)
}

const [finished, refused] = ['generation 1 answers /behind', 'ERR_SSL_NO_RENEGOTIATION']

test('TLS 1.2 is renegotiated in the moment of a move: the old process finishes it, or the new one refuses it, and nothing else happens', async () => {
  const moving = await Moving.start({ kind: 'https', blocked: true, options: { linger: 1_000 } })
  const connect = async (): Promise<{ client: Client; gate: Gate }> => {
    const gatedClient = await gated(moving, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256' })
    await ask(gatedClient.client, '/')
    return gatedClient
  }
  interface Begun { readonly gate: Gate; readonly end: Promise<string> }
  const parts: Begun[] = [], halfWay: Begun[] = [], unread: Begun[] = [], late: Begun[] = []
  // Of the client's first message, these bytes are read before the reload.
  for (const bytes of [1, 4, 5, 6, 40]) {
    const { client, gate } = await connect()
    gate.holdAfter(bytes)
    parts.push({ gate, end: renegotiate({ client }) })
  }
  // The first message is read and answered, the second waits.
  for (let times = 0; times < 2; times++) {
    const { client, gate } = await connect()
    gate.holdAfter(0)
    const end = renegotiate({ client })
    while (gate.held === 0) await new Promise(setImmediate)
    await gate.letGo()
    gate.holdAfter(0)
    halfWay.push({ gate, end })
  }
  const [idle, ...others] = await Promise.all(Array.from({ length: 7 }, connect))
  await readSoFar(idle!.client)
  await moving.reload()
  await moving.blocked()
  // The process reads nothing now: it finds these when it begins to move connections.
  for (const { client, gate } of others.slice(0, 3)) unread.push({ gate, end: renegotiate({ client }) })
  for (const { client, gate } of others.slice(3)) {
    gate.holdAfter(0)
    late.push({ gate, end: renegotiate({ client }) })
  }
  moving.unblock()
  const ends = async (clients: readonly Begun[]): Promise<string[]> => await Promise.all(clients.map(({ end }) => end))
  const found = await ends(unread)
  for (const end of found) expect([finished, refused]).toContain(end)
  // The idle one, those whose message is late, and of the others those that had moved.
  await moving.arrived(4 + found.filter((end) => end === refused).length)
  for (const { gate } of [...parts, ...halfWay, ...late]) await gate.letGo()
  expect(await ends(parts)).toEqual(parts.map(() => finished))
  expect(await ends(halfWay)).toEqual(halfWay.map(() => finished))
  expect(await ends(late)).toEqual(late.map(() => refused))
  await goesOn(idle!.client)
  expect((await moving.report()).connections).toMatchObject({ open: 14, cut: 0 })
})
