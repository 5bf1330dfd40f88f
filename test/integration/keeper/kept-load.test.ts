/**
 * Apps under `handover run`, with one worker and with four, reloaded again and again under the strict client: two with the adapter of
 * their framework, the others as their authors left them. No request is lost and no connection is closed.
 *
 * HANDOVER_TEST_RELOADS sets how many reloads each has (`npm run soak`: 50). With the default of 12 the first app has a quarter of them
 * and the others one; with fewer, each of the others runs with one worker or with two, and the first alone with one and with four.
 */

import { type LoadOptions, type LoadResult, startLoadProcess } from '@handover/load'
import { io, type Socket } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nothingLostNothingClosed } from '../../helpers/invariants.js'
import { programPath, waitFor } from '../../helpers/program.js'
import { KeptApp, type KeptOptions } from '../../helpers/kept-app.js'

const given = Number(process.env['HANDOVER_TEST_RELOADS'] ?? 12)

const traffic: LoadOptions = {
  connectFirst: true,
  keepAlive: [{ clients: 8, thinkMs: 20 }, { clients: 20, thinkMs: 100 }, { clients: 30, thinkMs: 2_000 }],
  newConnections: { clients: 1, thinkMs: 20 },
  slow: { clients: 3, thinkMs: 20 },
  post: [{ clients: 2, thinkMs: 20 }, { clients: 10, bytes: 200, pauseMs: 0, thinkMs: 500 }],
  stream: { clients: 2, thinkMs: 20 }
}

const apps: readonly (readonly [name: string, script: string, options: KeptOptions])[] = [
  ['Fastify with the adapter', programPath('server.mjs'), { env: { KIND: 'fastify', LISTEN: '127.0.0.1:$PORT' } }],
  ['Express with the adapter', programPath('server.mjs'), { env: { KIND: 'express5', LISTEN: '127.0.0.1:$PORT' } }],
  ['Nest', 'nest.mts', { run: ['--import', 'tsx'] }],
  ['Koa', 'koa.mjs', {}],
  ['Hono', 'hono.mjs', {}],
  ['socket.io', 'socketio.mjs', { env: { HANDOVER_DRAIN_TIMEOUT: '900000' } }]
]

/** Of which numbers of workers an app is run. */
const sizes = (index: number): readonly number[] => (given >= 12 || index === 0 ? [1, 4] : [index % 2 === 0 ? 1 : 2])

const cases = apps.flatMap(([name, script, options], index) => sizes(index).map((workers) => ({
  name,
  script,
  options: { ...options, workers },
  reloads: given >= 50 ? given : index === 0 ? Math.max(2, Math.ceil(given / 4)) : 1,
  // Half of the reloads, another half in each app.
  inParallel: (count: number) => workers > 1 && (count + index) % 2 === 1,
  // With the default bake, which takes its time.
  hangsUp: (count: number) => (given >= 50 ? count % 10 === 1 : index === 0 && workers > 1 && count === 2)
})))

/** A client of socket.io that says something all the time, each time when the one before was acknowledged. */
class Chatter {
  readonly pids: number[] = []
  acknowledged = 0
  readonly trouble: string[] = []
  #stopping = false
  readonly #socket: Socket
  readonly #over: Promise<void>

  constructor(url: string) {
    this.#socket = io(url, { transports: ['websocket'], forceNew: true, reconnectionDelay: 100 })
    this.#socket.on('welcome', (pid: number) => { this.pids.push(pid) })
    this.#socket.on('disconnect', (reason) => { if (!this.#stopping) this.trouble.push(`disconnected: ${reason}`) })
    this.#over = this.#chat()
  }

  async #chat(): Promise<void> {
    while (!this.#stopping) {
      const text = `number ${this.acknowledged}`
      try {
        const answer = await (this.#socket.timeout(30_000).emitWithAck('say', text) as Promise<{ text: string; pid: number }>)
        if (answer.text !== text || answer.pid !== this.pids[0]) this.trouble.push(`answered ${JSON.stringify(answer)}`)
        this.acknowledged++
      } catch (error) {
        this.trouble.push(String(error))
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#over
    this.#socket.disconnect()
  }
}

describe.for(cases)(`$name, $options.workers at work, reloaded $reloads times under load`, { timeout: 900_000 }, ({ name, script, options, reloads, inParallel, hangsUp }) => {
  let app: KeptApp
  let result: LoadResult
  let chatters: Chatter[] = []
  const served = new Set<number>()

  beforeAll(async () => {
    const begun = performance.now()
    app = await KeptApp.start(script, options)
    const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, traffic)
    const answered = async (pids: readonly number[]): Promise<void> => {
      for (const pid of pids) served.add(pid)
      await load.until(({ versions }) => pids.every((pid) => versions.some((seen) => seen.pid === pid)), 60_000)
    }
    try {
      if (name === 'socket.io') chatters = Array.from({ length: 12 }, () => new Chatter(app.url))
      await answered((await app.servers()).map(({ pid }) => pid))
      await waitFor(() => chatters.every(({ acknowledged }) => acknowledged > 0))
      for (let count = 1; count <= reloads; count++) {
        const outcome = hangsUp(count) ? await app.hangUp() : await app.reload('--bake', '0', ...(inParallel(count) ? ['--parallel'] : []))
        expect(outcome).toMatchObject({ ok: true, switched: { length: options.workers }, serving: { length: options.workers } })
        await answered(outcome.serving.map(({ pid }) => pid))
      }
      result = await load.stop()
    } finally {
      load.kill()
      await Promise.all(chatters.map((chatter) => chatter.stop()))
    }
    console.log(`${name}, ${options.workers} worker${options.workers === 1 ? '' : 's'}: ${reloads} reloads in ${((performance.now() - begun) / 1_000).toFixed(1)} s, ${result.requests} requests, ${result.lost} lost, ` +
      `${result.closedByServer.total} closed by the server, ${served.size} processes answered${chatters.length > 0 ? `; ${chatters.reduce((sum, { acknowledged }) => sum + acknowledged, 0)} emits acknowledged on ${chatters.length} WebSockets, ${chatters.flatMap(({ trouble }) => trouble).length} disconnects` : ''}`)
  }, 900_000)

  afterAll(async () => { await app[Symbol.asyncDispose]() })

  test('no request is lost, and no connection is closed by the server', () => { nothingLostNothingClosed(result) })

  test('every worker of every generation answered', () => {
    expect(new Set(result.versions.map(({ pid }) => pid))).toEqual(served)
    expect(served.size).toBe((reloads + 1) * options.workers)
  })

  if (name === 'socket.io') {
    test('no client of socket.io was disconnected before the drain deadline, and all that it said was acknowledged by the generation that it came to', () => {
      for (const { trouble, pids } of chatters) expect({ trouble, connects: pids.length }).toEqual({ trouble: [], connects: 1 })
      expect(new Set(chatters.flatMap(({ pids }) => pids)).size).toBeGreaterThanOrEqual(Math.min(2, options.workers))
    })
  }

  test('the drains cut nothing, nobody crashed, and the stop leaves no process', async () => {
    await waitFor(async () => (await app.status()).processes.length === options.workers)
    expect(app.drains).toHaveLength(reloads * options.workers)
    for (const { connections, requestsCut } of app.drains) expect(
      { cut: connections.cut, closedIdle: connections.closedIdle, requestsCut }
    ).toEqual({ cut: 0, closedIdle: 0, requestsCut: [] })
    expect((await app.status()).keeper).toMatchObject({ crashes: 0, down: [] })
    console.log(`${name}, ${options.workers} worker${options.workers === 1 ? '' : 's'}: ${app.drains.reduce((sum, { connections }) => sum + connections.moved, 0)} moves`)
    expect(await app.stop()).toEqual({ code: 0, signal: null })
    expect(app.stderrLines.filter((line) => /^handover: (warn|error)/.test(line))).toEqual([])
  })
})
