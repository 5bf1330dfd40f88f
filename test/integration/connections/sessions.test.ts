/**
 * Sessions of HTTP/2 in the clear move between two streams: their clients notice nothing, whatever their settings and windows are.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { programPath } from '../../helpers/program.js'
import { Generations } from '../../helpers/generations.js'
import { drained, type DrainReport } from '../../helpers/peers.js'
import { SessionLoad } from '../../helpers/session-load.js'

const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))
const sessions = 100

describe(`${sessions} sessions, reloaded ${reloads} times`, { timeout: 300_000 }, () => {
  let generations: Generations
  let load: SessionLoad
  let reports: DrainReport[]

  beforeAll(async () => {
    generations = await Generations.start({
      script: programPath('sessions.mjs'), listen: '127.0.0.1:0', env: { KIND: 'h2c', OPTIONS: JSON.stringify({ undoWindow: 100, drainTimeout: 60_000 }) }
    })
    const { port } = generations.targets[0] as { port: number }
    load = new SessionLoad(`http://127.0.0.1:${port}`, { sessions, thinkMs: [0, 0, 20, 60, 500] })
    await load.until(() => load.served(1) === sessions)
    for (let index = 0; index < reloads; index++) {
      await generations.reload(index % 2 === 0 ? 'signal' : 'rendezvous')
      await load.until(() => load.served(generations.count) === sessions)
    }
    reports = await drained(generations)
    await load.stop()
    console.log(`${reloads} reloads, ${load.answers} streams answered, ${load.pings} pings answered, ${load.lost.length} lost, ${load.closed} closed, ${load.goaways.length} GOAWAYs`)
  }, 300_000)

  afterAll(async () => { await generations[Symbol.asyncDispose]() })

  test('no stream is lost, no session is closed or told to go', () => {
    expect(load).toMatchObject({ lost: [], goaways: [], closed: 0 })
    expect(load.pings).toBeGreaterThan(0)
  })

  test('every session moves at every reload', () => {
    const connections = { open: sessions, moved: sessions, drained: 0, cut: 0, stayed: {} }
    for (const report of reports) expect(report).toMatchObject({ connections, requestsCut: [] })
    expect(reports).toHaveLength(reloads)
  })

  test('no server sees an error', () => {
    expect(generations.events.filter(({ event }) => event === 'sessionError' || event === 'streamError')).toEqual([])
  })
})
