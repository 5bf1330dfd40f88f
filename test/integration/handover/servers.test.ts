/**
 * Every kind of HTTP server under strict load on IPv4, IPv6 and a Unix path at the same time, reloaded by every trigger in turn:
 * no request is lost, and no plain connection is closed. HANDOVER_TEST_RELOADS sets how many reloads (default 50).
 */

import { type LoadOptions, type LoadResult, startLoadProcess } from '@handover/load'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../../helpers/program.js'
import { Generations, triggers } from '../../helpers/generations.js'

const reloads = Number(process.env['HANDOVER_TEST_RELOADS'] ?? 50)

// TLS connections that think for longer than `linger` are closed, which no client can tell from a lost request in time.
const thinkMs = 2_500
const options = JSON.stringify({ undoWindow: 100, linger: 2 * thinkMs, drainTimeout: 30_000 })

const traffic: LoadOptions = {
  keepAlive: [{ clients: 1 }, { clients: 4, thinkMs: 60 }, { clients: 3, thinkMs }],
  newConnections: { clients: 1, thinkMs: 20 },
  slow: { clients: 1, thinkMs: 20 },
  post: { clients: 2, thinkMs: 20 },
  stream: { clients: 1, thinkMs: 20 }
}

describe.for(['fastify', 'express5', 'express4', 'http', 'https'])(`%s, reloaded ${reloads} times under load`, { timeout: 600_000 }, (kind) => {
  let generations: Generations
  let results: LoadResult[]
  const reports: Record<string, unknown>[] = []

  beforeAll(async () => {
    const begun = performance.now()
    generations = await Generations.start({ listen: '127.0.0.1:0,[::1]:0,unix:DIR/server.sock', env: { KIND: kind, OPTIONS: options }, tls: kind === 'https' })
    const loads = generations.targets.map((target, index) => startLoadProcess(target, { ...traffic, seed: index + 1 }))
    const answering = (version: number): Promise<unknown> =>
      Promise.all(loads.map((load) => load.until(({ versions }) => versions.some((seen) => seen.version === String(version)))))
    try {
      await answering(1)
      for (let index = 0; index < reloads; index++) {
        reports.push(await generations.reload(triggers[index % triggers.length]!))
        await answering(generations.count)
      }
      results = await Promise.all(loads.map((load) => load.stop()))
    } finally {
      for (const load of loads) load.kill()
    }
    const sum = (of: (result: LoadResult) => number): number => results.reduce((total, result) => total + of(result), 0)
    console.log(`${kind}: ${reloads} reloads in ${((performance.now() - begun) / 1000).toFixed(1)} s, ${sum(({ requests }) => requests)} requests, ${sum(({ lost }) => lost)} lost, ` +
      `${sum(({ opened }) => opened)} connections opened, ${sum(({ closedByServer }) => closedByServer.total)} closed by the server (${sum(({ closedByServer }) => closedByServer.announced)} of them announced)`)
  }, 600_000)

  afterAll(async () => { await generations[Symbol.asyncDispose]() })

  test('no request is lost on IPv4, IPv6 or the Unix path', () => {
    for (const { requests, losses, lost, notes } of results) {
      expect({ lost, losses, notes }).toEqual({ lost: 0, losses: [], notes: [] })
      expect(requests).toBeGreaterThan(reloads)
    }
  })

  test(kind === 'https' ? 'every connection that is closed was told before' : 'no connection is closed', () => {
    for (const { closedByServer } of results) {
      if (kind === 'https') expect(closedByServer.total).toBe(closedByServer.announced)
      else expect(closedByServer.total).toBe(0)
    }
  })

  test('every kind of traffic had answers', () => {
    for (const { kinds } of results) {
      expect(Object.keys(kinds).toSorted()).toEqual(['keep-alive', 'new', 'post', 'slow', 'stream'])
      for (const { answers } of Object.values(kinds)) expect(answers).toBeGreaterThan(0)
    }
  })

  test('every version answered on every listener, each from a process of its own', () => {
    for (const { versions } of results) {
      const all = versions.filter(({ version }) => version !== '')
      expect(new Set(all.map(({ version }) => Number(version)))).toEqual(
        new Set(Array.from({ length: reloads + 1 }, (_, index) => index + 1))
      )
      expect(new Set(all.map(({ pid }) => pid)).size).toBe(reloads + 1)
    }
  })

  test('each generation counts one more than its predecessor', () => {
    reports.forEach((report, index) => {
      expect(report).toMatchObject({ result: 'switched', trigger: triggers[index % triggers.length], predecessor: { generation: index + 1 }, successor: { generation: index + 2 } })
    })
    expect(generations.serving).toBe((reports.at(-1)?.['successor'] as { pid: number } | undefined)?.pid)
  })

  test('every listener is kept at every reload', () => {
    for (const { listeners } of reports) expect(listeners).toMatchObject({ kept: { length: 3 }, added: [], dropped: [] })
  })

  test('one process is left, and every other has ended with status 0', async () => {
    await waitFor(() => generations.alive.length === 1, 60_000)
    expect(generations.alive).toEqual([generations.serving])
    const exits = (): number[] => generations.events.filter(({ event }) => event === 'exit').map(({ code }) => code as number)
    await generations.until(() => exits().length === reloads)
    expect(new Set(exits())).toEqual(new Set(reloads > 0 ? [0] : []))
  })

  test('no drain cut a connection or a request', () => {
    const drained = generations.events.filter(({ event, report }) => event === 'report' && (report as { result: string }).result === 'drained').map(({ report }) => report)
    expect(drained.length).toBeGreaterThanOrEqual(reloads)
    for (const report of drained) expect(report).toMatchObject({ connections: { cut: 0 }, requestsCut: [] })
  })

  test('a stop ends the last process with status 0', async () => {
    await generations.stop()
    expect(await generations.until(() => generations.events.find(({ event, generation }) => event === 'exit' && generation === reloads + 1))).toMatchObject({ code: 0 })
  })
})
