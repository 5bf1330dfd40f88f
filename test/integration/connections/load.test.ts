/**
 * Promise 4 under load: 500 keep-alive clients that never retry, half of them with POSTs, some without a pause, some with one of 60 ms,
 * most of them mostly idle.
 * Over every reload nothing is lost, nothing is closed, and the connections opened in total are as many as the clients.
 * HANDOVER_TEST_RELOADS sets how many reloads the plain server has (default 50); Fastify and Express, which boot longer, have at most 8,
 * and below 3 they are left out: a run of that few is about a version of Node.
 */

import { type LoadOptions, type LoadResult, startLoadProcess } from '@handover/load'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { triggers, type Generations } from '../../helpers/generations.js'
import { accepted, drained, everyConnectionMoved, eachClientKeptItsConnection, reload, startGenerations } from '../../helpers/peers.js'

const most = Number(process.env['HANDOVER_TEST_RELOADS'] ?? 50)

const thinking = [{ clients: 5 }, { clients: 70, thinkMs: 60 }, { clients: 175, thinkMs: 5_000 }]
const traffic: LoadOptions = {
  connectFirst: true,
  keepAlive: thinking,
  post: thinking.map((group) => ({ ...group, bytes: 200, pauseMs: 0 }))
}

const frameworks = most < 3 ? [] : [['fastify', Math.min(8, most)], ['express5', Math.min(8, most)]] as const

describe.for([['http', most] as const, ...frameworks])('%s, reloaded %i times under 500 keep-alive clients', { timeout: 600_000 }, ([kind, reloads]) => {
  let generations: Generations
  let result: LoadResult

  beforeAll(async () => {
    const begun = performance.now()
    generations = await startGenerations(kind)
    const load = startLoadProcess(generations.targets[0]!, traffic)
    try {
      // The client has a connection as soon as it is in the kernel's queue: a successor may be the one that accepts it.
      await generations.until(() => accepted(generations) === 500)
      await load.until(({ versions }) => versions.some(({ version }) => version === '1'), 60_000)
      await reload(generations, reloads, triggers, () =>
        load.until(({ versions }) => versions.some(({ version }) => version === String(generations.count)), 60_000))
      await drained(generations)
      result = await load.stop()
    } finally {
      load.kill()
    }
    const { requests, lost, closedByServer, opened, latency } = result
    console.log(`${kind}: ${reloads} reloads in ${((performance.now() - begun) / 1000).toFixed(1)} s, ${requests} requests, ${lost} lost, ${closedByServer.total} closed, ${opened} opened, ` +
      `p99 ${latency.outside.p99.toFixed(0)} ms, longest ${latency.outside.max.toFixed(0)} ms`)
  }, 600_000)

  afterAll(async () => { await generations[Symbol.asyncDispose]() })

  test('no request is lost, no connection is closed, and each client opened one', () => {
    eachClientKeptItsConnection(result)
    expect(result.clients).toBe(500)
  })

  test('every client had answers, those that are mostly idle too', () => {
    for (const { answers, clients } of Object.values(result.kinds)) expect(answers).toBeGreaterThan(clients)
  })

  test('every generation answered', () => {
    expect(result.versions.map(({ version }) => Number(version)).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: reloads + 1 }, (_, index) => index + 1)
    )
  })

  test('every drain says that it moved 500 connections and left none behind', () => {
    everyConnectionMoved(generations, 500)
  })

  test('the servers accepted 500 connections and those that asked for the reload', () => {
    const calls = Array.from({ length: reloads }, (_, index) => triggers[index % triggers.length]).filter((trigger) => trigger === 'call').length
    expect(accepted(generations)).toBe(500 + calls)
  })
})
