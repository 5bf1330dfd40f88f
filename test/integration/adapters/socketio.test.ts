/**
 * What a reload is for clients of socket.io, whose sessions live in one process: a WebSocket stays with its generation until that ends, a
 * client that polls learns at its next request that the successor does not know it. Both come back by themselves.
 */

import { io, type Socket } from 'socket.io-client'
import { expect, test } from 'vitest'
import { App } from '../../helpers/frameworks.js'

class Chatter implements Disposable {
  readonly connects: number[] = []
  readonly disconnects: string[] = []
  readonly #socket: Socket

  constructor(url: string, transports: string[]) {
    this.#socket = io(url, { transports, forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 100 })
    this.#socket.on('welcome', (pid: number) => { this.connects.push(pid) })
    this.#socket.on('disconnect', (reason) => { this.disconnects.push(reason) })
  }

  /** Resolves with the process that answered. */
  async say(text: string): Promise<number> {
    const answer = await (this.#socket.timeout(30_000).emitWithAck('say', text) as Promise<{ text: string; pid: number }>)
    expect(answer.text).toBe(text)
    return answer.pid
  }

  async upgraded(): Promise<void> {
    const { engine } = this.#socket.io
    if (engine.transport.name !== 'websocket') await new Promise<void>((resolve) => { engine.once('upgrade', () => { resolve() }) })
  }

  async disconnected(): Promise<void> {
    if (this.disconnects.length === 0) await new Promise<void>((resolve) => { this.#socket.once('disconnect', () => { resolve() }) })
  }

  /** Resolves with the process that greeted, after so many connects. */
  async welcomed(count: number): Promise<number> {
    while (this.connects.length < count) await new Promise<void>((resolve) => { this.#socket.once('welcome', () => { resolve() }) })
    return this.connects[count - 1]!
  }

  [Symbol.dispose](): void {
    this.#socket.disconnect()
  }
}

const env = { HANDOVER_DRAIN_TIMEOUT: '4000' }

test.each([[['websocket']], [['polling', 'websocket']]])('a client on a WebSocket (%s) is served by its own generation until that is cut at the drain deadline, and comes back to the successor', async (transports) => {
  await using app = await App.start('socketio.mjs', { env })
  const first = app.serving!
  using chatter = new Chatter(app.url, transports)
  expect(await chatter.say('before')).toBe(first)
  await chatter.upgraded()
  await app.reload()
  expect(await chatter.say('after the switch')).toBe(first)
  expect(chatter.disconnects).toEqual([])

  await chatter.disconnected()
  expect(chatter.disconnects).toEqual(['transport close'])
  // Said while it is away: the client keeps it until it is back.
  expect(await chatter.say('meanwhile')).toBe(app.serving)
  expect(chatter.connects).toEqual([first, app.serving])
  const [drain] = await app.drained(1)
  expect(drain).toMatchObject({ connections: { stayed: { upgraded: 1 }, kinds: { upgraded: { cut: 1 } } }, requestsCut: [] })
})

test('a client that polls is told "Session ID unknown" by the successor, and comes back to it with a new session', async () => {
  await using app = await App.start('socketio.mjs', { env })
  const first = app.serving!
  using chatter = new Chatter(app.url, ['polling'])
  expect(await chatter.say('before')).toBe(first)
  await app.reload()
  // On the way when the session ends: socket.io promises no more than once, and this was none.
  const onTheWay = chatter.say('after the switch').catch(() => undefined)
  await chatter.disconnected()
  expect(chatter.disconnects).toEqual(['transport error'])
  expect(await chatter.welcomed(2)).toBe(app.serving)
  expect(await chatter.say('with a new session')).toBe(app.serving)
  await app.drained(1)
  void onTheWay
})

test('an app that closes its sessions when it drains sends every client to the successor before the deadline, and nothing is cut', async () => {
  await using app = await App.start('socketio-polite.mjs', { env: { HANDOVER_DRAIN_TIMEOUT: '10000' } })
  const first = app.serving!
  const chatters = Array.from({ length: 20 }, (_, index) => new Chatter(app.url, index % 2 === 0 ? ['websocket'] : ['polling']))
  try {
    for (const chatter of chatters) expect(await chatter.say('before')).toBe(first)
    await app.reload()
    for (const chatter of chatters) expect(await chatter.welcomed(2)).toBe(app.serving)
    for (const chatter of chatters) {
      expect(chatter.disconnects).toEqual(['transport close'])
      expect(await chatter.say('after')).toBe(app.serving)
    }
    const [drain] = await app.drained(1)
    expect(drain).toMatchObject({ connections: { cut: 0 }, requestsCut: [] })
  } finally {
    for (const chatter of chatters) chatter[Symbol.dispose]()
  }
})
