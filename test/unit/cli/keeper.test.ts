/** A keeper and its workers in one process: starts, crashes and the waits between tries, reloads of all slots, and stops. */

import os from 'node:os'
import type { ProcessEnd } from '@handover/core/internal'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { FakeApp } from '../../helpers/fake-app.js'
import { ask, type FakeMachine, type FakeProgram } from '../../helpers/fake-host.js'
import { statusOfApp } from '../../helpers/internals.js'

let app: FakeApp
let machine: FakeMachine
let port: number
let server: FakeProgram

beforeEach(async () => {
  app = await FakeApp.make()
  ;({ machine, port } = app)
  server = machine.program
})
afterEach(async () => { await app[Symbol.asyncDispose]() })

describe('a start', () => {
  it('is that of the first worker, which binds, and of the others when it serves', async () => {
    const keeper = await app.running(3)
    expect(machine.story.filter((step) => step.endsWith('is serving'))[0]).toBe('1 is serving')
    expect(machine.story.indexOf('1 is serving')).toBeLessThan(machine.story.indexOf('2 says hello'))
    // Why one of them ended, if it did.
    expect(app.lines).toEqual([])
    expect(app.serving(keeper)).toEqual([1, 2, 3])
    expect(['1', '2', '3']).toContain(await ask(port))
  })

  it('that fails ends the keeper with the status of the program', async () => {
    machine.program = (process) => { process.exit(3) }
    await app.done(app.keep(2).run())
    expect(app.ended).toEqual([3])
    expect(machine.processes).toHaveLength(1)
    expect(app.lines).toEqual([expect.stringMatching(/^error: process 5000001 \(generation 1\) ended with status 3 before it was ready\. Nobody serves\. Repair the program, and start it again\.$/)])
  })

  it('that ends in the moment of a stop ends the keeper with the status of the program', async () => {
    machine.program = (process) => { process.exit(130) }
    const keeper = app.keep(1)
    let end: ProcessEnd | undefined
    Object.defineProperty(keeper.slot(0), 'lastEnd', {
      get: () => end,
      set: (how: ProcessEnd) => {
        end = how
        void keeper.stop('SIGINT')
      }
    })
    await app.done(keeper.run())
    await machine.until(() => app.ended.length > 0, 'the end')
    expect(app.ended).toEqual([130])
  })
})

it('is as old as before when the clock of the machine is set back, and so are its workers', async () => {
  const keeper = await app.running(2)
  for (const worker of keeper.workers) worker.ask = () => Promise.resolve(undefined)
  const clock = vi.spyOn(Date, 'now').mockReturnValue(Date.now() - 3_600_000)
  const { keeper: status, processes } = await app.done(statusOfApp(keeper))
  clock.mockRestore()
  expect([status, ...processes].map((each) => each!.ageMs).filter((ms) => !(ms >= 0))).toEqual([])
  expect(processes).toHaveLength(2)
})

describe('a worker that crashes', () => {
  it('is followed by the next one at once, and a connect that comes between waits for it', async () => {
    const keeper = await app.running(1)
    app.processOf(1).dies()
    const answer = ask(port)
    await app.advance(50)
    await machine.until(() => app.serving(keeper).length === 1, 'the next worker')
    expect(await answer).toBe('2')
    expect(app.linesWith('ended by SIGKILL')).toEqual([`warn: process 5000001 (generation 1) ended by SIGKILL; the next one is started. Nobody serves: the keeper (process ${process.pid}) keeps tcp 127.0.0.1:${port}, and connects wait.`])
    expect((await app.done(statusOfApp(keeper))).keeper?.crashes).toBe(1)
  })

  it('leaves its connects to the other worker until the next one serves', async () => {
    const keeper = await app.running(2)
    app.processOf(1).dies()
    await machine.settle()
    expect(app.serving(keeper)).toEqual([2])
    expect(await Promise.all(Array.from({ length: 8 }, () => ask(port)))).toEqual(Array.from({ length: 8 }, () => '2'))
  })

  it('again and again as soon as it serves is tried later each time, and at the latest after a second', async () => {
    await app.running(1)
    machine.onStep = ({ by, does }) => { if (does === 'says serving') void machine.settle().then(() => { by.dies() }) }
    app.processOf(1).dies()
    await machine.settle()
    for (const [index, waitMs] of [0, 100, 200, 400, 800, 1_000, 1_000].entries()) {
      await app.advance(waitMs - 50)
      expect(machine.processes, `before wait ${index}`).toHaveLength(index + 1)
      await app.advance(50)
      await machine.until(() => machine.processes[index + 1]?.end !== undefined, 'the next crash')
      await machine.settle()
    }
    expect(app.linesWith('ended by SIGKILL').map((line) => /the next (?:one is started|try is in [0-9.]+ s)/.exec(line)?.[0])).toEqual([
      'the next one is started', ...['0.1', '0.2', '0.4', '0.8', '1', '1', '1'].map((seconds) => `the next try is in ${seconds} s`)
    ])
  })

  it('after a second in which it served counts as the first crash', async () => {
    await app.running(1)
    for (let crash = 1; crash <= 3; crash++) {
      await app.advance(1_100)
      app.processOf(crash).dies()
      await machine.settle()
      await app.advance(50)
      await machine.until(() => machine.processes[crash]?.state === 'serving', 'the next worker')
    }
    expect(app.linesWith('the next one is started')).toHaveLength(3)
  })
})

describe('a build that does not start', () => {
  it('is tried five times, then every 15 s, which is said once; the status has the reason, and a repaired one serves', async () => {
    const keeper = await app.running(2)
    machine.program = (process) => { process.exit(1) }
    app.processOf(1).dies()
    await machine.settle()
    await app.advance(3_000)
    expect(machine.processes).toHaveLength(2 + 5)
    expect(app.linesWith('It does not start')).toEqual([expect.stringMatching(/^error: process 5000007 \(generation 2\) ended with status 1 before it was ready\. It does not start: 5 tries in a row failed\. Process 5000002 \(generation 1\) serves tcp .+ The keeper goes on trying every 15 s; repair the build, and handover reload tries at once\.$/)])
    expect((await app.done(statusOfApp(keeper))).keeper?.down).toMatchObject([{ slot: 0, reason: expect.stringContaining('ended with status 1 before it was ready') }])
    await app.advance(15_000)
    expect(machine.processes).toHaveLength(2 + 6)
    await app.advance(10_000)
    expect(machine.processes).toHaveLength(2 + 6)
    expect(app.linesWith('It does not start')).toHaveLength(1)
    machine.program = server
    await app.advance(6_000)
    expect(app.serving(keeper)).toEqual([9, 2])
  })

  it('does not hold up a reload with a repaired one', async () => {
    const keeper = await app.running(1)
    machine.program = (process) => { process.exit(1) }
    app.processOf(1).dies()
    await machine.settle()
    await app.advance(3_000)
    machine.program = server
    const outcome = await app.reload(keeper)
    expect(outcome).toMatchObject({ ok: true, switched: [{ slot: 0, from: null }] })
    expect(await ask(port)).toBe(String(machine.processes.length))
  })
})

describe('a reload', () => {
  it('that a worker asks for and that fails says apart what happened, who serves and what to do, as without a keeper', async () => {
    await app.running(1)
    machine.program = (process) => { process.exit(3) }
    const error = await app.done(app.processOf(1).generation.reload()).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'HANDOVER_SUCCESSOR_EXIT', what: 'process 5000002 (generation 2) ended before it was ready, with status 3',
      serving: expect.stringContaining('Process 5000001 (generation 1)') as string, todo: 'Repair the build and reload again'
    })
  })

  it('replaces the worker of every slot, one after the other, and the generation before ends', async () => {
    const keeper = await app.running(2)
    const outcome = await app.reload(keeper)
    expect(outcome).toMatchObject({
      ok: true,
      switched: [
        { slot: 0, from: { pid: 5000001, generation: 1 }, to: { pid: 5000003, generation: 2 } },
        { slot: 1, from: { pid: 5000002, generation: 1 }, to: { pid: 5000004, generation: 2 } }
      ]
    })
    expect(machine.story.indexOf('3 is serving')).toBeLessThan(machine.story.indexOf('4 says hello'))
    await machine.until(() => machine.alive.length === 2, 'the end of the generation before')
    expect([app.processOf(1).end, app.processOf(2).end]).toEqual([{ code: 0, signal: null }, { code: 0, signal: null }])
    expect(app.serving(keeper)).toEqual([3, 4])
  })

  it.each([
    { what: 'as many others at once as there are cores', request: {}, atOnce: 2 },
    { what: 'with --parallel all others at once', request: { parallel: true }, atOnce: 5 }
  ])('boots the first worker alone, then $what, and n accept at every moment', async ({ request, atOnce }) => {
    vi.spyOn(os, 'availableParallelism').mockReturnValue(2)
    const keeper = await app.running(6)
    let [booting, most, fewest] = [0, 0, Infinity]
    const alone: number[] = []
    machine.program = async (process) => {
      most = Math.max(most, ++booting)
      if (process.number === 7) alone.push(machine.processes.length)
      await server(process)
      booting--
      fewest = Math.min(fewest, keeper.servers.length)
      if (process.number === 7) alone.push(machine.processes.length)
    }
    const outcome = await app.done(keeper.reloads.begin({ bakeMs: 0, ...request }))
    expect(outcome).toMatchObject({ ok: true, switched: [0, 1, 2, 3, 4, 5].map((slot) => ({ slot, to: { generation: 2 } })) })
    expect({ most, fewest, alone }).toEqual({ most: atOnce, fewest: 6, alone: [7, 7] })
    expect(app.serving(keeper)).toHaveLength(6)
  })

  it('in which the third worker fails takes back the first and the one that ran beside it, and begins no more', async () => {
    vi.spyOn(os, 'availableParallelism').mockReturnValue(2)
    const keeper = await app.running(6)
    machine.fates.set(9, { at: 'is ready', then: 'dies' })
    expect(await app.reload(keeper)).toMatchObject({ ok: false, switched: [], error: { code: 'HANDOVER_SUCCESSOR_EXIT' } })
    expect(app.serving(keeper)).toEqual([1, 2, 3, 4, 5, 6])
    expect(machine.processes.length).toBeLessThan(12)
    await machine.until(() => machine.alive.length === 6, 'the end of what was taken back')
  })

  it.each(['says hello', 'is preparing', 'is ready', 'hears commit', 'says serving'])('in which the worker of the second slot dies when it "%s" takes the first slot back', async (step) => {
    const keeper = await app.running(2)
    machine.fates.set(4, { at: step, then: 'dies' })
    const outcome = await app.reload(keeper)
    expect(outcome).toMatchObject({ ok: false, error: { code: expect.stringMatching(/^HANDOVER_(SUCCESSOR_EXIT|UNDONE)$/) } })
    // Memory was short, or somebody killed it: the build has nothing to repair.
    if (outcome.error?.code !== 'HANDOVER_UNDONE') expect(outcome.error?.todo).toBe('Find out what sent SIGKILL (the kernel does where memory is short), and reload again')
    expect(app.serving(keeper)).toEqual([1, 2])
    await machine.until(() => machine.alive.length === 2, 'the end of what was taken back')
    expect(machine.alive.map(({ number, state }) => [number, state])).toEqual([[1, 'serving'], [2, 'serving']])
    expect(['1', '2']).toContain(await ask(port))
    machine.fates.clear()
    expect((await app.reload(keeper)).ok).toBe(true)
  })

  it('into which a deploy comes takes back the workers of both releases; the next one has that of the last', async () => {
    const keeper = await app.running(4)
    app.release = '/releases/2/server.mjs'
    machine.onStep = ({ by, does }) => { if (by.number === 5 && does === 'is serving') app.release = '/releases/3/server.mjs' }
    const { ok, error, serving } = await app.reload(keeper)
    expect({ ok, code: error?.code }).toEqual({ ok: false, code: 'HANDOVER_SUCCESSOR_FAILED' })
    expect(error?.message).toMatch(/^a deploy changed the code while the reload ran: process 5000005 \(generation 2\) was started from \/releases\/2\/server\.mjs, and process \d+ \(generation 2\) from \/releases\/3\/server\.mjs\.\n {2}The generation before serves again in all slots; no connection was lost\.\n {2}Reload again when the deploy is done\.$/)
    expect(serving.map(({ generation }) => generation)).toEqual([1, 1, 1, 1])
    expect(app.serving(keeper)).toEqual([1, 2, 3, 4])
    expect(await app.reload(keeper)).toMatchObject({ ok: true })
  })

  it('is refused while another one runs, and a request without options that comes just after another is the same', async () => {
    const keeper = await app.running(1)
    const first = keeper.reloads.together()
    const second = keeper.reloads.together()
    await expect(keeper.reloads.begin({})).rejects.toMatchObject({
      code: 'HANDOVER_RELOAD_RUNNING',
      message: `a reload already runs. Process 5000001 (generation 1) serves tcp 127.0.0.1:${port}. Wait for its report.`
    })
    await machine.until(() => app.processOf(2)?.state === 'serving', 'the switch')
    await app.advance(600)
    await expect(keeper.reloads.together()).rejects.toMatchObject({ code: 'HANDOVER_RELOAD_RUNNING' })
    expect(await app.done(first)).toBe(await app.done(second))
    expect(machine.processes).toHaveLength(2)
  })

  it('that a worker asks for is made by its keeper, and the worker hears of it', async () => {
    const keeper = await app.running(1)
    const report = await app.done(app.processOf(1).generation.reload())
    expect(report).toMatchObject({ trigger: 'keeper', predecessor: { pid: 5000001 }, successor: { pid: 5000002 } })
    expect(app.serving(keeper)).toEqual([2])
  })
})

describe('a stop', () => {
  it('drains and ends all workers, and the keeper has their status', async () => {
    const keeper = await app.running(2)
    await app.done(keeper.stop('SIGTERM'))
    expect(machine.processes.map(({ end }) => end)).toEqual([{ code: 0, signal: null }, { code: 0, signal: null }])
    expect(app.ended).toEqual([0])
    await expect(ask(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(app.lines).toEqual([])
  })

  it('in a reload ends the workers of both generations, and starts none', async () => {
    const keeper = await app.running(2)
    const outcome = keeper.reloads.begin({ bakeMs: 0 })
    await machine.until(() => app.processOf(3)?.state === 'preparing' || app.processOf(3)?.state === 'serving', 'the successor')
    await app.done(keeper.stop('SIGTERM'))
    await app.done(outcome)
    expect(machine.alive).toEqual([])
    expect(app.ended).toEqual([0])
  })

  it.each(['boots', 'is watched'])('in a reload is told at once to whoever waits for that, also where the new worker %s', async (when) => {
    const keeper = await app.running(2)
    const outcome = keeper.reloads.begin({ bakeMs: when === 'is watched' ? 3_000 : 0 })
    if (when === 'boots') await machine.until(() => app.processOf(3) !== undefined, 'the successor')
    else await app.processIn(3, 'serving')
    const stopped = keeper.stop('SIGTERM')
    expect(await outcome).toMatchObject({ ok: false, serving: [], error: { code: 'HANDOVER_STOPPED', what: 'a stop was asked while the reload ran' } })
    expect(machine.alive).not.toEqual([])
    await app.done(stopped)
    expect([machine.alive, app.ended]).toEqual([[], [0]])
  })

  it('while a crashed worker waits for its next try ends what there is', async () => {
    const keeper = await app.running(2)
    machine.program = (process) => { process.exit(1) }
    app.processOf(1).dies()
    await machine.settle()
    await app.advance(1_000)
    await app.done(keeper.stop('SIGTERM'))
    const { length } = machine.processes
    await app.advance(20_000)
    expect(machine.processes).toHaveLength(length)
    expect(machine.alive).toEqual([])
  })

  it('kills a worker whose event loop is blocked after 10 s', async () => {
    const keeper = await app.running(2)
    app.processOf(2).hangs()
    const stopped = keeper.stop('SIGTERM')
    await app.advance(9_000)
    expect(machine.alive.map(({ number }) => number)).toEqual([2])
    await app.done(stopped)
    expect(app.processOf(2).end).toEqual({ code: null, signal: 'SIGKILL' })
    expect(app.ended).toEqual([137])
  })
})
