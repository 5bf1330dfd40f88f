/**
 * Metrics of real processes over reloads: what clients have counted is what /metrics says, to the last request, and no scraper sees a value go down.
 *
 * HANDOVER_TEST_RELOADS sets how many reloads (20).
 */

import { expect, test } from 'vitest'
import { KeptApp } from '../cli/kept-app.js'
import { Program, programPath, waitFor } from '../helpers/program.js'
import { Traffic } from './scraping.js'

const reloads = Number(process.env['HANDOVER_TEST_RELOADS'] ?? 20)

async function isExact(traffic: Traffic): Promise<void> {
  const counted = await traffic.counted()
  expect(Object.fromEntries(Object.keys(traffic.expected).map((series) => [series, counted.get(series)]))).toEqual(traffic.expected)
}

test(`over ${reloads} reloads under load nothing is counted twice, lost, or seen to go down`, async () => {
  await using program = Program.start(programPath('metrics.mjs'))
  const { address } = await program.event('listening')
  const { port } = address as { port: number }
  const traffic = new Traffic(port)
  await traffic.ask('/adopted')
  try {
    for (let reload = 0; reload < reloads; reload++) {
      const before = traffic.scrapes
      await program.hangUp()
      await waitFor(() => traffic.scrapes >= before + 3)
    }
  } finally {
    await traffic.stop()
  }
  expect(traffic.wrong).toEqual([])
  await isExact(traffic)
  await waitFor(() => program.alive.length === 1)
  await isExact(traffic)
  expect(await traffic.ask('/metrics')).toMatch(/^adopted 7$/m)
  console.log(`${reloads} reloads: ${traffic.expected['seconds_count']} requests counted exactly, ${traffic.scrapes} scrapes, none went down`)
})

test('with 4 workers under handover run /metrics of any of them is the sum, over reloads under load', async () => {
  await using app = await KeptApp.start(programPath('metrics.mjs'), { workers: 4 })
  const traffic = new Traffic(app.port)
  await traffic.ask('/adopted')
  const times = Math.max(1, Math.ceil(reloads / 4))
  try {
    for (let reload = 0; reload < times; reload++) {
      const before = traffic.scrapes
      expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
      await waitFor(() => traffic.scrapes >= before + 3)
    }
  } finally {
    await traffic.stop()
  }
  expect(traffic.wrong).toEqual([])
  for (let worker = 0; worker < 8; worker++) await isExact(traffic)
  await waitFor(async () => (await app.status()).processes.length === 4)
  for (let worker = 0; worker < 8; worker++) await isExact(traffic)
  expect(await traffic.ask('/metrics')).toMatch(/^adopted 7$/m)
  console.log(`${times} reloads of 4 workers: ${traffic.expected['seconds_count']} requests counted exactly, ${traffic.scrapes} scrapes, none went down`)
  expect(await app.stop()).toEqual({ code: 0, signal: null })
})
