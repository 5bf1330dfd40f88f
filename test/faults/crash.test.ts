/**
 * Workers that die: the port stays open whatever kills them, the others answer what waits for the dead one, and the next one comes by
 * itself.
 * HANDOVER_TEST_SECONDS sets for how long a random worker is killed every second (default 8), and half as often one is killed within a
 * reload.
 */

import { once } from 'node:events'
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { type LoadResult, startLoadProcess } from '@handover/load'
import { describe, expect, test } from 'vitest'
import { connects } from '../helpers/ask.js'
import { exists, programPath, waitFor } from '../helpers/program.js'
import { KeptApp } from '../helpers/kept-app.js'

const seconds = Number(process.env['HANDOVER_TEST_SECONDS'] ?? 8)
const rounds = Math.max(4, Math.ceil(seconds / 2))
const kept = programPath('kept.mjs')
const shortly = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** The pid that answers on a connection of its own. */
async function answer(port: number): Promise<number> {
  const [response] = await once(http.get({ host: '127.0.0.1', port, agent: false }), 'response') as [http.IncomingMessage]
  response.resume()
  await once(response, 'end')
  return Number(response.headers['x-pid'])
}

/** Asks for something by which the worker ends, on a connection of its own. */
function provoke(app: KeptApp, route: string): void {
  http.get({ host: '127.0.0.1', port: app.port, path: route, agent: false }).on('error', () => undefined).on('response', (response) => { response.on('error', () => undefined).resume() })
}

/** What every worker of a later boot does. */
function boots(app: KeptApp, how: { gate?: string; throws?: string }): void {
  const file = path.join(app.folder, 'boot')
  writeFileSync(`${file}.new`, JSON.stringify(how))
  renameSync(`${file}.new`, file)
}

const servingEvents = (app: KeptApp): number[] => app.program.events.filter(({ event, to }) => event === 'state' && to === 'serving').map(({ pid }) => pid)

describe.for([1, 4])(`kill -9 of a random worker every second for ${seconds} s, %i to choose from`, { timeout: 120_000 + 2_000 * seconds }, (workers) => {
  test('no connect is refused, and what is lost was inside the process that was killed', async () => {
    await using app = await KeptApp.start(kept, { workers })
    const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, { newConnections: { clients: 8, thinkMs: 5 } })
    let kills = 0
    let result: LoadResult
    try {
      await load.until(({ answers }) => answers > 100)
      const end = performance.now() + 1_000 * seconds
      while (performance.now() < end) {
        // Whom a status asks, it waits for: one that boots does not answer.
        const servers = servingEvents(app).filter(exists)
        const victim = servers[Math.floor(Math.random() * servers.length)]
        if (victim !== undefined) {
          process.kill(victim, 'SIGKILL')
          kills++
        }
        // The beat of this test, not a wait for anything.
        await shortly(1_000)
      }
      const last = (await app.serving(workers)).map(({ pid }) => pid)
      await load.until(({ versions }) => last.every((pid) => versions.some((seen) => seen.pid === pid)))
      result = await load.stop()
    } finally {
      load.kill()
    }
    const { requests, lost, losses, kinds, latency, versions } = result
    const lostBy = kinds.new?.lostBy ?? {}
    console.log(`${workers} worker${workers === 1 ? '' : 's'}, ${kills} killed in ${seconds} s: ${requests} requests on as many connections, 0 refused, ${lost} lost inside (${JSON.stringify(lostBy)}); ` +
      `answers after ${JSON.stringify(latency.outside)} ms; ${versions.length} processes answered`)
    expect(losses.filter(({ reason }) => reason !== 'reset' && reason !== 'closed' && reason !== 'cut')).toEqual([])
    // At most one of each client can be inside.
    expect(lost).toBeLessThanOrEqual(8 * kills)
    const { crashes, down } = (await app.status()).keeper
    expect(down).toEqual([])
    // One that was killed before the keeper heard that it serves is a start that failed.
    expect(crashes).toBeGreaterThan(0)
    expect(crashes).toBeLessThanOrEqual(kills)
    expect(await app.stop()).toEqual({ code: 0, signal: null })
  })
})

test('kill -9 of any process of the app while it is reloaded: nothing is refused, and in the end every slot has one worker that answers', { timeout: 300_000 }, async () => {
  await using app = await KeptApp.start(kept, { workers: 3 })
  const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, { newConnections: { clients: 4, thinkMs: 5 } })
  const outcomes: boolean[] = []
  let kills = 0
  try {
    await load.until(({ answers }) => answers > 100)
    for (let round = 0; round < rounds; round++) {
      const running = app.reload('--bake', '0', ...(round % 2 === 0 ? ['--parallel'] : []))
      // Anywhere in the reload, which is what this is about.
      await shortly(Math.random() * 1_500)
      const all = app.left.filter((pid) => pid !== app.program.pid && app.isWorker(pid))
      const victim = all[Math.floor(Math.random() * all.length)]
      if (victim !== undefined) {
        process.kill(victim, 'SIGKILL')
        kills++
      }
      outcomes.push((await running).ok)
      await app.serving(3)
    }
    const pids = (await app.serving(3)).map(({ pid }) => pid)
    await load.until(({ versions }) => pids.every((pid) => versions.some((seen) => seen.pid === pid)))
    const { requests, lost, losses } = await load.stop()
    console.log(`${rounds} reloads of 3 workers, ${kills} processes killed meanwhile: ${outcomes.filter((ok) => ok).length} reloads succeeded, ${requests} requests on as many connections, 0 refused, ${lost} lost inside`)
    expect(losses.filter(({ reason }) => reason !== 'reset' && reason !== 'closed' && reason !== 'cut')).toEqual([])
    expect(lost).toBeLessThanOrEqual(4 * kills)
  } finally {
    load.kill()
  }
  expect(await app.reload('--bake', '0', '--wait')).toMatchObject({ ok: true, switched: { length: 3 } })
  await waitFor(async () => (await app.status()).processes.length === 3)
  expect((await app.status()).keeper).toMatchObject({ down: [] })
  expect(await app.stop()).toEqual({ code: 0, signal: null })
})

test('what comes to a dead worker is answered by the others while the next one boots', async () => {
  await using app = await KeptApp.start(kept, { workers: 4 })
  const gate = path.join(app.folder, 'gate')
  writeFileSync(gate, '')
  boots(app, { gate })
  const [, , victim] = await app.servers()
  const others = (await app.servers()).map(({ pid }) => pid).filter((pid) => pid !== victim!.pid)
  process.kill(victim!.pid, 'SIGKILL')
  // At once: the kernel goes on giving a quarter of them to the queue of the dead one.
  const pids = await Promise.all(Array.from({ length: 100 }, () => answer(app.port)))
  for (const pid of pids) expect(others).toContain(pid)
  // The next one has not said that it serves.
  expect(servingEvents(app)).toHaveLength(4)
  rmSync(gate)
  const servers = await app.serving(4)
  const next = servers.find(({ slot }) => slot === victim!.slot)!
  await waitFor(async () => (await answer(app.port)) === next.pid)
  // It accepts by itself again, and nobody else for it: about a quarter is its own.
  const after = await Promise.all(Array.from({ length: 200 }, () => answer(app.port)))
  expect(after.filter((pid) => pid === next.pid).length).toBeGreaterThanOrEqual(25)
  expect((await app.status()).keeper).toMatchObject({ crashes: 1, down: [] })
})

test('with one worker, connects wait for the next one and are answered by it', async () => {
  await using app = await KeptApp.start(kept)
  const gate = path.join(app.folder, 'gate')
  writeFileSync(gate, '')
  boots(app, { gate })
  process.kill((await app.servers())[0]!.pid, 'SIGKILL')
  await waitFor(async () => (await app.status()).keeper.down.length === 1)
  const answers = Promise.all(Array.from({ length: 50 }, () => answer(app.port)))
  expect(await connects({ port: app.port })).toBe('ok')
  expect(servingEvents(app)).toHaveLength(1)
  rmSync(gate)
  const [next] = await app.serving(1)
  expect(new Set(await answers)).toEqual(new Set([next!.pid]))
})

describe.for([
  ['an uncaught exception', '/crash', /ended with status 1;/],
  ['no memory left', '/memory', /ended by SIGABRT;/]
] as const)('a worker that ends by %s', ([, route, how]) => {
  test('is replaced, its words are passed on, and meanwhile the other one answers', async () => {
    await using app = await KeptApp.start(kept, { workers: 2, run: ['--max-old-space-size=32'] })
    const before = await app.servers()
    const gate = path.join(app.folder, 'gate')
    writeFileSync(gate, '')
    boots(app, { gate })
    provoke(app, route)
    await app.program.stderrMatching(how)
    const [other] = await app.serving(1)
    expect(before.map(({ pid }) => pid)).toContain(other!.pid)
    expect(new Set(await Promise.all(Array.from({ length: 40 }, () => answer(app.port))))).toEqual(new Set([other!.pid]))
    rmSync(gate)
    const after = await app.serving(2)
    expect(after.filter(({ generation }) => generation === 2)).toHaveLength(1)
    expect(app.stderr).toMatch(route === '/crash' ? /somebody asked for \/crash/ : /heap out of memory/)
    expect((await app.status()).keeper).toMatchObject({ crashes: 1, down: [] })
  })
})

test('a worker that hangs is killed after --hang-timeout and replaced, while the others serve on', async () => {
  await using app = await KeptApp.start(kept, { workers: 3, run: ['--hang-timeout', '1s'] })
  const before = await app.servers()
  provoke(app, '/hang')
  const [, pid] = await app.program.stderrMatching(/process (\d+) \(generation 1\) has not answered for 1000 ms/)
  await waitFor(async () => (await app.status()).keeper.crashes === 1)
  const after = await app.serving(3)
  const others = before.map((server) => server.pid).filter((each) => each !== Number(pid))
  expect(others).toHaveLength(2)
  for (const each of others) expect(after.map((server) => server.pid)).toContain(each)
  expect((await app.status()).keeper).toMatchObject({ crashes: 1, down: [] })
})

test('a build that does not start any more: the keeper says so, keeps the port and goes on trying; repaired, a reload serves at once what waited', async () => {
  await using app = await KeptApp.start(kept, { workers: 2 })
  boots(app, { throws: 'this build is broken' })
  // One by one: a worker that lives covers the other.
  for (const { pid } of await app.servers()) process.kill(pid, 'SIGKILL')
  await app.program.stderrMatching(/error: .* It does not start: 5 tries in a row failed\. Nobody serves: the keeper \(process \d+\) keeps tcp .*, and connects wait\. The keeper goes on trying every 15 s; repair the build, and handover reload tries at once\./)
  const { down, crashes } = (await app.status()).keeper
  expect(down.map(({ slot }) => slot)).toEqual([0, 1])
  expect(down[0]!.reason).toMatch(/ended .* before it was ready/)
  expect(crashes).toBe(2)
  expect(app.stderr).toContain('this build is broken')

  const waiting = Promise.all(Array.from({ length: 50 }, () => answer(app.port)))
  expect(await connects({ port: app.port })).toBe('ok')
  // Still broken: said, and nothing is lost by it.
  expect(await app.reload('--bake', '0')).toMatchObject({ ok: false, serving: [], error: { stderr: expect.stringContaining('this build is broken') as string } })
  boots(app, {})
  const outcome = await app.reload('--bake', '0')
  expect(outcome).toMatchObject({ ok: true, switched: [{ slot: 0, from: null }, { slot: 1, from: null }] })
  const serving = outcome.serving.map(({ pid }) => pid)
  for (const pid of await waiting) expect(serving).toContain(pid)
  expect((await app.status()).keeper.down).toEqual([])
})
