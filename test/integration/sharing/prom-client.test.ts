/**
 * Metrics of real processes over reloads: what clients have counted is what /metrics says, to the last request, and no scraper sees a
 * value go down.
 * That last holds also where workers are killed, reloads are taken back, event loops are blocked and another keeper comes.
 *
 * HANDOVER_TEST_RELOADS sets how many reloads (20).
 */

import { rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { KeptApp } from '../../helpers/kept-app.js'
import { descriptorsOf, Program, programPath, waitFor } from '../../helpers/program.js'
import { Traffic } from '../../helpers/scraping.js'

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

test('no scraper sees a value go down while workers are killed or blocked, reloads are taken back, their number changes and the keeper is another one', { timeout: 300_000 }, async () => {
  // So that what each process counts is larger than what fits into a pipe at once.
  await using app = await KeptApp.start(programPath('metrics.mjs'), { workers: 4, env: { SERIES: '300' } })
  const traffic = new Traffic(app.port)
  const build = path.join(app.folder, 'build')
  const seen = async (scrapes: number): Promise<void> => {
    const before = traffic.scrapes
    await waitFor(() => traffic.scrapes >= before + scrapes)
  }
  const descriptors = async (): Promise<number> => descriptorsOf((await app.status()).keeper.pid).size
  const wentDown: Record<string, readonly string[]> = {}
  const step = async (name: string, act: () => Promise<unknown>): Promise<void> => {
    const before = traffic.wentDown.length
    await act()
    await waitFor(async () => (await app.servers()).length === (await app.status()).keeper.workers)
    await seen(10)
    if (traffic.wentDown.length > before) wentDown[name] = traffic.wentDown.slice(before)
  }
  try {
    await seen(10)
    const before = await descriptors()
    await step('a worker is killed', async () => {
      process.kill((await app.servers())[1]!.pid, 'SIGKILL')
      await seen(10)
    })
    writeFileSync(build, 'probe')
    await step('refused by its probe', async () => { expect((await app.reload('--probe', '/health', '--parallel')).error).toMatchObject({ code: 'HANDOVER_SUCCESSOR_FAILED' }) })
    writeFileSync(build, 'crash')
    await step('undone', async () => { expect(await app.reload('--parallel')).toMatchObject({ ok: false }) })
    rmSync(build)
    await step('blocked', async () => { await Promise.all([traffic.ask('/block'), seen(20)]) })
    await step('fewer', async () => { expect(await app.reload('--workers', '2', '--bake', '0')).toMatchObject({ ok: true }) })
    await step('more', async () => { expect(await app.reload('--workers', '4', '--bake', '0')).toMatchObject({ ok: true }) })
    for (let keeper = 0; keeper < 3; keeper++) await step('another keeper', async () => { expect(await app.run('reload', '--keeper', app.name)).toMatchObject({ status: 0 }) })
    await step('killed under the last keeper', async () => {
      process.kill((await app.servers())[2]!.pid, 'SIGKILL')
      await seen(10)
    })
    expect(await descriptors()).toBeLessThanOrEqual(before + 8)
  } finally {
    await traffic.stop()
  }
  expect(wentDown).toEqual({})
})

test('what takes megabytes to say goes from worker to worker, over a reload and to the heir of one that is killed', async () => {
  await using app = await KeptApp.start(programPath('metrics.mjs'), { workers: 2, env: { SERIES: '15000' } })
  const traffic = new Traffic(app.port)
  await traffic.stop()
  /** As many processes have counted each series. */
  const shows = async (processes: number): Promise<void> => {
    const text = await traffic.ask('/metrics')
    expect(text.length).toBeGreaterThan(1_800_000)
    expect(text.match(/^many_total\{.*\} (\d+)$/m)?.[1]).toBe(String(processes))
  }
  for (let scrape = 0; scrape < 4; scrape++) await shows(2)
  expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
  await waitFor(async () => (await app.status()).processes.length === 2)
  for (let scrape = 0; scrape < 4; scrape++) await shows(4)
  const [, killed] = await app.servers()
  process.kill(killed!.pid, 'SIGKILL')
  await waitFor(async () => (await app.servers()).every(({ pid }) => pid !== killed!.pid) && (await app.servers()).length === 2)
  for (let scrape = 0; scrape < 4; scrape++) await shows(5)
  expect(app.stderr).not.toMatch(/unknown|keeper .* is gone/)
})
