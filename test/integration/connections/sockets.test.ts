/**
 * move() and onMoved(): what they take, what they answer, and what becomes of the bytes on both sides of a connection.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { inspect } from 'node:util'
import { handover } from '@handover/core'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Address, Client } from '../../helpers/client.js'
import { Program, type ProgramEvent, programPath } from '../../helpers/program.js'

interface Plan {
  readonly id: string
  readonly kind?: string
  readonly now?: boolean
  readonly every?: boolean
  readonly pause?: boolean
  readonly inside?: boolean
  readonly encoding?: string
  readonly write?: number
}

class Sockets {
  readonly program: Program
  readonly #address: Address
  readonly #tls: boolean

  private constructor(program: Program, address: Address, tls: boolean) {
    this.program = program
    this.#address = address
    this.#tls = tls
  }

  static async start({ env = {}, options = {} }: {
    readonly env?: Readonly<Record<string, string>>; readonly options?: object
  } = {}): Promise<Sockets> {
    const program = Program.start(programPath('move-sockets.mjs'), { env: { OPTIONS: JSON.stringify(options), ...env } })
    onTestFinished(() => program[Symbol.asyncDispose]())
    const { address } = await program.event('listening')
    return new Sockets(program, address as Address, env['TLS'] !== undefined)
  }

  async connect(): Promise<Client> {
    const client = await Client.connect(this.#address, { tls: this.#tls })
    onTestFinished(() => { client[Symbol.dispose]() })
    return client
  }

  /** A client whose plan the program has read. */
  async client(plan: Plan): Promise<Client> {
    const client = await this.connect()
    client.send(JSON.stringify(plan))
    await this.program.event('connected', ({ id }) => id === plan.id)
    return client
  }

  /** What move() said of it. */
  async tried(id: string): Promise<ProgramEvent> {
    return await this.program.event('tried', (event) => event['id'] === id)
  }

  async arrived(id: string): Promise<ProgramEvent> {
    return await this.program.event('arrived', (event) => event['id'] === id)
  }

  /** What the copies of a connection have emitted, with the generation of each. */
  emitted(id: string): string[] {
    return this.program.events.filter((event) => event.event === 'socket' && event['id'] === id).map(({ generation, name }) => `${generation} ${String(name)}`)
  }
}

/** It is answered by this generation. */
async function isAnsweredBy(client: Client, generation: number): Promise<void> {
  client.text = ''
  await client.send('ping').received(new RegExp(`^${generation} got ping$`))
}

/** A socket that is connected to nothing that matters. */
async function someSocket(): Promise<net.Socket> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
  await new Promise((resolve) => socket.once('connect', resolve))
  onTestFinished(() => {
    socket.destroy()
    server.close()
  })
  return socket
}

describe('wrong arguments', () => {
  test.each([
    ['nothing', undefined], ['an object that is no socket', {}], ['a server', net.createServer()]
  ])('move() of %s rejects', async (_, found) => {
    await expect(handover.move(found as never, { kind: 'line' })).rejects.toMatchObject({ code: 'HANDOVER_OPTION', message: expect.stringMatching(/move\(\) was given something else than a net\.Socket\. Nothing was changed\. Give/) })
  })

  test.each([[undefined], [''], ['http'], [7]])('move() with the kind %j rejects', async (kind) => {
    await expect(handover.move(await someSocket(), { kind: kind as never })).rejects.toMatchObject({ code: 'HANDOVER_OPTION', message: expect.stringContaining(`the kind ${inspect(kind)}`) })
  })

  test('move() without options rejects', async () => {
    await expect(handover.move(await someSocket(), undefined as never)).rejects.toMatchObject({ code: 'HANDOVER_OPTION' })
  })

  test.each([
    ['a function', { user: { name: 'a', greet: () => 'hi' } }, 'user.greet'],
    ['a symbol', { list: [1, Symbol('mine')] }, 'list[1]'],
    ['an object of a class', { deep: new Map([['key', { socket: new net.Socket() }]]) }, 'deep.get("key").socket'],
    ['a promise', [Promise.resolve()], '[0]'],
    ['a WeakMap', { seen: new WeakMap() }, 'seen']
  ])('move() with %s in the state rejects with the path to it', async (_, state, at) => {
    await expect(handover.move(await someSocket(), { kind: 'line', state })).rejects.toMatchObject({
      code: 'HANDOVER_STATE',
      message: expect.stringMatching(new RegExp(`^the state of a connection of kind "line" holds .+ at ${at.replace(/[[\]().]/g, '\\$&')}, which cannot go to another process\\. Nothing was changed\\. Give plain data`))
    })
  })

  test('move() with a state of more than 256 KiB rejects with both numbers', async () => {
    await expect(handover.move(await someSocket(), { kind: 'line', state: 'x'.repeat(262_144) })).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringMatching(/is 262\d{3} bytes long, expected at most 262144/) })
  })

  test.each([[undefined], [''], ['http'], [{}]])('onMoved() with the kind %j throws', (kind) => {
    expect(() => { handover.onMoved(kind as never, () => undefined) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
  })

  test('onMoved() without a function, and a second one for the same kind, throw', () => {
    expect(() => { handover.onMoved('once', undefined as never) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    handover.onMoved('once', () => undefined)
    expect(() => { handover.onMoved('once', () => undefined) }).toThrow(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringContaining('onMoved("once") was called twice') }))
  })
})

describe('a move resolves false and the connection goes on', () => {
  test('before a drain', async () => {
    const sockets = await Sockets.start()
    const client = await sockets.client({ id: 'early', now: true })
    expect(await sockets.tried('early')).toMatchObject({ moved: false })
    await isAnsweredBy(client, 1)
  })

  test('in a drain without a successor', async () => {
    const sockets = await Sockets.start()
    const client = await sockets.client({ id: 'stopped' })
    process.kill(sockets.program.pid, 'SIGTERM')
    expect(await sockets.tried('stopped')).toMatchObject({ moved: false })
    await isAnsweredBy(client, 1)
  })

  test('where the successor does not know the kind', async () => {
    const sockets = await Sockets.start()
    const client = await sockets.client({ id: 'unknown', kind: 'knitting' })
    await sockets.program.hangUp()
    expect(await sockets.tried('unknown')).toMatchObject({ moved: false })
    await isAnsweredBy(client, 1)
  })

  test('where moving is off', async () => {
    const sockets = await Sockets.start({ options: { move: false } })
    const client = await sockets.client({ id: 'off' })
    await sockets.program.hangUp()
    expect(await sockets.tried('off')).toMatchObject({ moved: false })
    await isAnsweredBy(client, 1)
  })

  test('under TLS, where that is off', async () => {
    const sockets = await Sockets.start({ env: { TLS: '1' }, options: { move: { tls: false } } })
    const client = await sockets.client({ id: 'secure' })
    await sockets.program.hangUp()
    expect(await sockets.tried('secure')).toMatchObject({ moved: false })
    await isAnsweredBy(client, 1)
  })

  test('where setEncoding() has read half a character', async () => {
    const sockets = await Sockets.start()
    const client = await sockets.client({ id: 'half', encoding: 'utf8' })
    const fox = Buffer.from('🦊')
    client.socket.write(Buffer.concat([Buffer.from('a'), fox.subarray(0, 2)]))
    await client.received(/^1 got a$/)
    await sockets.program.hangUp()
    expect(await sockets.tried('half')).toMatchObject({ moved: false })
    client.socket.write(fox.subarray(2))
    await client.received(/^1 got a1 got 🦊$/)
  })
})

describe.for([
  ['in the clear', {}], ['under TLS', { TLS: '1' }]
] as const)('a move %s resolves true', ([, env]) => {
  test('and the successor gets the socket with the state, and answers on the same connection', async () => {
    const sockets = await Sockets.start({ env })
    const client = await sockets.client({ id: 'plain' })
    await isAnsweredBy(client, 1)
    await sockets.program.hangUp()
    expect(await sockets.tried('plain')).toMatchObject({ moved: true })
    expect(await sockets.arrived('plain')).toMatchObject({ generation: 2 })
    await client.received(/hello from 2\n/)
    await isAnsweredBy(client, 2)
    const ended = await sockets.program.event('report', ({ report }) => (report as { result: string }).result === 'drained')
    expect(ended['report']).toMatchObject({ connections: { open: 1, moved: 1, drained: 0, cut: 0, kinds: { line: { moved: 1 } } } })
  })

  test('over a Unix socket', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-sockets-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const sockets = await Sockets.start({ env: { ...env, LISTEN: path.join(folder, 'a.sock') } })
    const client = await sockets.client({ id: 'unix' })
    await sockets.program.hangUp()
    await client.received(/hello from 2\n/)
    await isAnsweredBy(client, 2)
  })

  test('where the connection came through a server that Handover does not know', async () => {
    const sockets = await Sockets.start({ env: { ...env, FOREIGN: '1' } })
    const client = await sockets.client({ id: 'foreign' })
    await sockets.program.hangUp()
    await client.received(/hello from 2\n/)
    await isAnsweredBy(client, 2)
  })

  test('and a state of every type that can be cloned comes back as it was, a Buffer as a Buffer', async () => {
    const sockets = await Sockets.start({ env })
    await sockets.client({ id: 'every', every: true })
    await sockets.program.hangUp()
    expect(await sockets.arrived('every')).toMatchObject({ equal: true, same: true, hole: true, bytes: 'Buffer as bytes' })
  })

  test('and what comes right behind the message in whose listener it was moved is read by the successor alone', async () => {
    const sockets = await Sockets.start({ env })
    const client = await sockets.client({ id: 'inside', inside: true })
    await sockets.program.hangUp()
    await sockets.program.event('draining')
    await client.send('now').received(/moving/)
    client.text = ''
    for (let number = 0; number < 200; number++) {
      client.send(`${number},`)
      if (number % 20 === 0) await new Promise((resolve) => { setTimeout(resolve, 1) })
    }
    client.send('end')
    await client.received(/end$/)
    expect(client.text.replaceAll('2 got ', '').replace('hello from 2\n', '')).toBe(`${Array.from({ length: 200 }, (_, number) => `${number},`).join('')}end`)
  })

  test('and what was written before is sent before anything that the successor writes', async () => {
    const sockets = await Sockets.start({ env })
    const size = 8_000_000
    const client = await sockets.connect()
    client.socket.pause()
    client.send(JSON.stringify({ id: 'backlog', write: size }))
    await sockets.program.event('connected')
    await sockets.program.hangUp()
    // A kernel holds some of it, and it can not go before that is read.
    await isStillOpen(sockets, 'backlog')
    client.socket.resume()
    await client.receivedEnd('hello from 2\n')
    expect(client.text).toHaveLength(size + 'hello from 2\n'.length)
    expect(client.text.slice(0, size)).toBe('x'.repeat(size))
    await isAnsweredBy(client, 2)
  })

  test('and where its client never reads that, it is cut at the drain deadline, and the report says so', async () => {
    const sockets = await Sockets.start({ env, options: { drainTimeout: 2_000 } })
    const client = await sockets.connect()
    client.socket.pause()
    client.send(JSON.stringify({ id: 'backlog', write: 20_000_000 }))
    await sockets.program.event('connected')
    await sockets.program.hangUp()
    const drained = await sockets.program.event('report', ({ pid, report }) => pid === sockets.program.pid && (report as { result: string }).result === 'drained')
    expect(drained['report']).toMatchObject({ connections: { open: 1, moved: 0, cut: 1, kinds: { socket: { cut: 1 } }, stayed: { 'its client does not read': 1 } } })
    await sockets.program.event('tried', ({ id, moved }) => id === 'backlog' && moved === false)
  })

  test('and the copy that stays behind is silent, also when the client leaves later', async () => {
    const sockets = await Sockets.start({ env, options: { drainTimeout: 60_000 } })
    const stays = await sockets.client({ id: 'stays', kind: 'knitting' })
    const moves = await sockets.client({ id: 'moves' })
    await sockets.program.hangUp()
    await moves.received(/hello from 2\n/)
    moves.socket.end()
    await moves.over
    await sockets.program.event('socket', ({ id, name }) => id === 'moves' && name === 'close')
    await isAnsweredBy(stays, 1)
    expect(sockets.emitted('moves')).toEqual(['2 end', '2 close'])
  })

  test('and it moves on over one reload after the other', async () => {
    const sockets = await Sockets.start({ env })
    const client = await sockets.client({ id: 'once' })
    await sockets.program.hangUp()
    await client.received(/hello from 2\n/)
    await isAnsweredBy(client, 2)
    await sockets.program.hangUp()
    await client.received(/hello from 3\n/)
    await isAnsweredBy(client, 3)
  })
})

test('what a paused socket had not given away goes along, in order, before what comes later', async () => {
  const sockets = await Sockets.start()
  const client = await sockets.client({ id: 'paused', pause: true })
  // More than a stream holds, so that a part is in the process and a part in the kernel.
  const numbers = Array.from({ length: 30_000 }, (_, index) => `${index},`).join('')
  client.send(numbers)
  await sockets.program.hangUp()
  expect(await sockets.tried('paused')).toMatchObject({ moved: true })
  client.send('end')
  await client.received(/end$/)
  expect(client.text.replaceAll('2 got ', '').replace('hello from 2\n', '')).toBe(`${numbers}end`)
})

test('where the function of onMoved() throws after the client has heard of it, that connection alone is closed; one whose client has heard nothing goes back', async () => {
  const sockets = await Sockets.start()
  const [broken, silent] = [await sockets.client({ id: 'broken', kind: 'throws' }), await sockets.client({ id: 'silent', kind: 'throws' })]
  const other = await sockets.client({ id: 'other' })
  await sockets.program.hangUp()
  expect(await broken.over).toBe('closed')
  await isAnsweredBy(silent, 1)
  await other.received(/hello from 2\n/)
  await isAnsweredBy(other, 2)
  await sockets.program.stderrMatching(/error: a connection of kind "throws" that was moved here is closed: Error: this function throws/)
})

/** move() has not answered, and the predecessor still holds the connection. */
async function isStillOpen(sockets: Sockets, id: string): Promise<void> {
  await sockets.program.event('draining')
  const other = await sockets.client({ id: 'meanwhile' })
  await isAnsweredBy(other, 2)
  expect(sockets.program.events.some((event) => event.event === 'tried' && event['id'] === id)).toBe(false)
}
