/**
 * The preload of the command with real frameworks, whose apps know nothing of Handover: reloaded under the strict client, no request is
 * lost and no plain connection is closed. Many reloads, by the keeper, are in kept-load.test.ts. HANDOVER_TEST_RELOADS below 10: one
 * reload instead of two.
 */

import { type LoadOptions, type LoadResult, startLoadProcess } from '@handover/load'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Http2Load, type Http2Result } from '../../helpers/http2-load.js'
import { App } from '../../helpers/frameworks.js'
import { nothingLostNothingClosed } from '../../helpers/invariants.js'

const reloads = Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10) < 10 ? 1 : 2
const tsx = ['--import', 'tsx']
// Node strips types itself from 22.18 on.
const strips = (process.features as { typescript?: unknown }).typescript === 'strip'

const traffic: LoadOptions = {
  connectFirst: true,
  keepAlive: [{ clients: 3 }, { clients: 20, thinkMs: 60 }, { clients: 40, thinkMs: 2_000 }],
  newConnections: { clients: 1, thinkMs: 20 },
  slow: { clients: 3, thinkMs: 20 },
  post: [{ clients: 3, thinkMs: 20 }, { clients: 20, bytes: 200, pauseMs: 0, thinkMs: 500 }],
  stream: { clients: 3, thinkMs: 20 }
}

describe.for([
  ['http.cjs', []],
  ['express.cjs', []],
  ['express.mjs', []],
  ['express.mts', tsx],
  ['fastify.mjs', []],
  ['fastify.cjs', []],
  ['nest.mts', tsx],
  ['koa.mjs', []],
  ['hono.mjs', []],
  ...(strips ? [['stripped.mts', []] as const] : [])
] as const)(`%s, reloaded ${reloads} times under load`, { timeout: 300_000 }, ([script, execArgv]) => {
  let app: App
  let result: LoadResult
  const pids = new Set<number>()

  beforeAll(async () => {
    app = await App.start(script, { execArgv })
    const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, traffic)
    const answered = (): Promise<unknown> => {
      pids.add(app.serving!)
      return load.until(({ versions }) => versions.some(({ pid }) => pid === app.serving), 60_000)
    }
    try {
      await answered()
      for (let count = 0; count < reloads; count++) {
        await app.reload()
        await answered()
      }
      await app.drained(reloads)
      result = await load.stop()
    } finally {
      load.kill()
    }
    console.log(`${script}: ${reloads} reloads, ${result.requests} requests, ${result.lost} lost, ${result.closedByServer.total} closed, ${app.drains.reduce((sum, { connections }) => sum + connections.moved, 0)} moved`)
  }, 300_000)

  afterAll(async () => { await app[Symbol.asyncDispose]() })

  test('no request is lost, and no connection is closed by the server', () => { nothingLostNothingClosed(result) })

  test('every generation answered, and every drain moved connections and cut none', () => {
    expect(new Set(result.versions.map(({ pid }) => pid))).toEqual(pids)
    expect(pids.size).toBe(reloads + 1)
    for (const { connections, requestsCut } of app.drains) expect(
      { ...connections, some: connections.moved > 0, requestsCut }
    ).toMatchObject({ some: true, closedIdle: 0, cut: 0, stayed: {}, requestsCut: [] })
  })
})

describe(`http2.mjs, reloaded ${reloads} times under load`, { timeout: 300_000 }, () => {
  let app: App
  let result: Http2Result

  beforeAll(async () => {
    // Always a stream: told to go a second before the deadline.
    app = await App.start('http2.mjs', { env: { HANDOVER_DRAIN_TIMEOUT: '4000' } })
    const load = new Http2Load(app.url, 20, 30)
    await load.until(() => load.pids.has(app.serving!))
    for (let count = 0; count < reloads; count++) {
      await app.reload()
      await load.until(() => load.pids.has(app.serving!))
    }
    result = await load.stop()
    await app.drained(reloads)
  }, 300_000)

  afterAll(async () => { await app[Symbol.asyncDispose]() })

  test('no stream is lost, and a session that never is without one is told with GOAWAY before it ends', () => {
    expect(result).toMatchObject({ lost: [], untold: 0 })
    expect(result.sessions).toBeLessThanOrEqual(reloads + 1)
    expect(result.pids.size).toBe(reloads + 1)
    for (const { connections, requestsCut } of app.drains) expect(
      { cut: connections.cut, requestsCut }
    ).toEqual({ cut: 0, requestsCut: [] })
  })
})
