/** A keeper and its workers in one process: starts, crashes and the waits between tries, reloads of all slots, and stops. */

import os from 'node:os'
import type { ReloadOutcome } from '@handover/core/internal'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { freePorts } from '../../helpers/ask.js'
import { ask, FakeMachine, type FakeProcess, type FakeProgram } from '../../helpers/fake-host.js'
import { spawnOn } from '../../helpers/fake-spawn.js'
import { Keeper, ListenerMembers, statusOfApp } from '../../helpers/internals.js'

let machine: FakeMachine
let port: number
let lines: string[]
let ended: number[]
let keepers: Keeper[]
let putBack: () => void

const server: FakeProgram = async (process) => {
  process.generation.configure({ linger: 0 })
  await process.listen(process.serve(), port)
}

beforeEach(async () => {
  port = (await freePorts(1))[0]!
  lines = []
  ended = []
  keepers = []
  machine = new FakeMachine(server)
  putBack = spawnOn(machine)
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'] })
})

afterEach(async () => {
  // From here on it starts nothing.
  for (const keeper of keepers) {
    keeper.leave()
    keeper.members.close()
  }
  await machine[Symbol.asyncDispose]()
  await machine.settle()
  vi.useRealTimers()
  vi.restoreAllMocks()
  putBack()
})

/** The time of the keeper and of its workers. */
async function advance(ms: number): Promise<void> {
  const stepMs = 50
  await machine.settle()
  for (let left = ms; left > 0; left -= stepMs) {
    vi.advanceTimersByTime(Math.min(stepMs, left))
    await machine.advance(Math.min(stepMs, left))
  }
}

function keep(workers: number): Keeper {
  const options: ConstructorParameters<typeof Keeper>[0] = {
    name: 'shop', version: '1.0.0', workers, hangTimeoutMs: 0, readyTimeoutMs: 60_000, spare: false, env: {},
    command: () => ({ file: 'node', args: ['server.mjs'], cwd: '/', notes: [] }),
    log: (level, line) => { lines.push(`${level}: ${line}`) },
    handOver: () => Promise.reject(new Error('nobody asks')),
    served: () => undefined,
    reloads: () => undefined,
    ended: (status) => { ended.push(status) }
  }
  const keeper = new Keeper(options, new ListenerMembers())
  keepers.push(keeper)
  return keeper
}

/** A keeper whose workers all serve. */
async function running(workers = 2): Promise<Keeper> {
  const keeper = keep(workers)
  await keeper.run()
  return keeper
}

const serving = (keeper: Keeper): number[] =>
  keeper.servers.map(({ pid }) => machine.processes.find((process) => process.pid === pid)!.number)
const processOf = (number: number): FakeProcess => machine.processes[number - 1]!

/** Lets time pass until this is done. */
async function done<T>(work: Promise<T>): Promise<T> {
  let isDone = false
  const settled = (): void => { isDone = true }
  work.then(settled, settled)
  for (let turns = 0; !isDone && turns < 1_000; turns++) await advance(50)
  return await work
}

const reload = async (keeper: Keeper): Promise<ReloadOutcome> => await done(keeper.reloads.begin({ bakeMs: 0 }))

/** The keeper's own lines of this kind. */
const linesWith = (text: string): string[] => lines.filter((line) => line.includes(text))

describe('a start', () => {
  it('is that of the first worker, which binds, and of the others when it serves', async () => {
    const keeper = await running(3)
    expect(machine.story.filter((step) => step.endsWith('is serving'))[0]).toBe('1 is serving')
    expect(machine.story.indexOf('1 is serving')).toBeLessThan(machine.story.indexOf('2 says hello'))
    // Why one of them ended, if it did.
    expect(lines).toEqual([])
    expect(serving(keeper)).toEqual([1, 2, 3])
    expect(['1', '2', '3']).toContain(await ask(port))
  })

  it('that fails ends the keeper with the status of the program', async () => {
    machine.program = (process) => { process.exit(3) }
    await done(keep(2).run())
    expect(ended).toEqual([3])
    expect(machine.processes).toHaveLength(1)
    expect(lines).toEqual([expect.stringMatching(/^error: process 5000001 \(generation 1\) ended with status 3 before it was ready\. Nobody serves\. Repair the program, and start it again\.$/)])
  })
})

describe('a worker that crashes', () => {
  it('is followed by the next one at once, and a connect that comes between waits for it', async () => {
    const keeper = await running(1)
    processOf(1).dies()
    const answer = ask(port)
    await advance(50)
    await machine.until(() => serving(keeper).length === 1, 'the next worker')
    expect(await answer).toBe('2')
    expect(linesWith('ended by SIGKILL')).toEqual([`warn: process 5000001 (generation 1) ended by SIGKILL; the next one is started. Nobody serves: the keeper (process ${process.pid}) keeps tcp 127.0.0.1:${port}, and connects wait.`])
    expect((await done(statusOfApp(keeper))).keeper?.crashes).toBe(1)
  })

  it('leaves its connects to the other worker until the next one serves', async () => {
    const keeper = await running(2)
    processOf(1).dies()
    await machine.settle()
    expect(serving(keeper)).toEqual([2])
    expect(await Promise.all(Array.from({ length: 8 }, () => ask(port)))).toEqual(Array.from({ length: 8 }, () => '2'))
  })

  it('again and again as soon as it serves is tried later each time, and at the latest after a second', async () => {
    await running(1)
    machine.onStep = ({ by, does }) => { if (does === 'says serving') void machine.settle().then(() => { by.dies() }) }
    processOf(1).dies()
    await machine.settle()
    for (const [index, waitMs] of [0, 100, 200, 400, 800, 1_000, 1_000].entries()) {
      await advance(waitMs - 50)
      expect(machine.processes, `before wait ${index}`).toHaveLength(index + 1)
      await advance(50)
      await machine.until(() => machine.processes[index + 1]?.end !== undefined, 'the next crash')
      await machine.settle()
    }
    expect(linesWith('ended by SIGKILL').map((line) => /the next (?:one is started|try is in [0-9.]+ s)/.exec(line)?.[0])).toEqual([
      'the next one is started', ...['0.1', '0.2', '0.4', '0.8', '1', '1', '1'].map((seconds) => `the next try is in ${seconds} s`)
    ])
  })

  it('after a second in which it served counts as the first crash', async () => {
    await running(1)
    for (let crash = 1; crash <= 3; crash++) {
      await advance(1_100)
      processOf(crash).dies()
      await machine.settle()
      await advance(50)
      await machine.until(() => machine.processes[crash]?.state === 'serving', 'the next worker')
    }
    expect(linesWith('the next one is started')).toHaveLength(3)
  })
})

describe('a build that does not start', () => {
  it('is tried five times, then every 15 s, which is said once; the status has the reason, and a repaired one serves', async () => {
    const keeper = await running(2)
    machine.program = (process) => { process.exit(1) }
    processOf(1).dies()
    await machine.settle()
    await advance(3_000)
    expect(machine.processes).toHaveLength(2 + 5)
    expect(linesWith('It does not start')).toEqual([expect.stringMatching(/^error: process 5000007 \(generation 2\) ended with status 1 before it was ready\. It does not start: 5 tries in a row failed\. Process 5000002 \(generation 1\) serves tcp .+ The keeper goes on trying every 15 s; repair the build, and handover reload tries at once\.$/)])
    expect((await done(statusOfApp(keeper))).keeper?.down).toMatchObject([{ slot: 0, reason: expect.stringContaining('ended with status 1 before it was ready') }])
    await advance(15_000)
    expect(machine.processes).toHaveLength(2 + 6)
    await advance(10_000)
    expect(machine.processes).toHaveLength(2 + 6)
    expect(linesWith('It does not start')).toHaveLength(1)
    machine.program = server
    await advance(6_000)
    expect(serving(keeper)).toEqual([9, 2])
  })

  it('does not hold up a reload with a repaired one', async () => {
    const keeper = await running(1)
    machine.program = (process) => { process.exit(1) }
    processOf(1).dies()
    await machine.settle()
    await advance(3_000)
    machine.program = server
    const outcome = await reload(keeper)
    expect(outcome).toMatchObject({ ok: true, switched: [{ slot: 0, from: null }] })
    expect(await ask(port)).toBe(String(machine.processes.length))
  })
})

describe('a reload', () => {
  it('replaces the worker of every slot, one after the other, and the generation before ends', async () => {
    const keeper = await running(2)
    const outcome = await reload(keeper)
    expect(outcome).toMatchObject({
      ok: true,
      switched: [
        { slot: 0, from: { pid: 5000001, generation: 1 }, to: { pid: 5000003, generation: 2 } },
        { slot: 1, from: { pid: 5000002, generation: 1 }, to: { pid: 5000004, generation: 2 } }
      ]
    })
    expect(machine.story.indexOf('3 is serving')).toBeLessThan(machine.story.indexOf('4 says hello'))
    await machine.until(() => machine.alive.length === 2, 'the end of the generation before')
    expect([processOf(1).end, processOf(2).end]).toEqual([{ code: 0, signal: null }, { code: 0, signal: null }])
    expect(serving(keeper)).toEqual([3, 4])
  })

  it.each([
    { what: 'as many others at once as there are cores', request: {}, atOnce: 2 },
    { what: 'with --parallel all others at once', request: { parallel: true }, atOnce: 5 }
  ])('boots the first worker alone, then $what, and n accept at every moment', async ({ request, atOnce }) => {
    vi.spyOn(os, 'availableParallelism').mockReturnValue(2)
    const keeper = await running(6)
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
    const outcome = await done(keeper.reloads.begin({ bakeMs: 0, ...request }))
    expect(outcome).toMatchObject({ ok: true, switched: [0, 1, 2, 3, 4, 5].map((slot) => ({ slot, to: { generation: 2 } })) })
    expect({ most, fewest, alone }).toEqual({ most: atOnce, fewest: 6, alone: [7, 7] })
    expect(serving(keeper)).toHaveLength(6)
  })

  it('in which the third worker fails takes back the first and the one that ran beside it, and begins no more', async () => {
    vi.spyOn(os, 'availableParallelism').mockReturnValue(2)
    const keeper = await running(6)
    machine.fates.set(9, { at: 'is ready', then: 'dies' })
    expect(await reload(keeper)).toMatchObject({ ok: false, switched: [], error: { code: 'HANDOVER_SUCCESSOR_EXIT' } })
    expect(serving(keeper)).toEqual([1, 2, 3, 4, 5, 6])
    expect(machine.processes.length).toBeLessThan(12)
    await machine.until(() => machine.alive.length === 6, 'the end of what was taken back')
  })

  it.each(['says hello', 'is preparing', 'is ready', 'hears commit', 'says serving'])('in which the worker of the second slot dies when it "%s" takes the first slot back', async (step) => {
    const keeper = await running(2)
    machine.fates.set(4, { at: step, then: 'dies' })
    const outcome = await reload(keeper)
    expect(outcome).toMatchObject({ ok: false, error: { code: expect.stringMatching(/^HANDOVER_(SUCCESSOR_EXIT|UNDONE)$/) } })
    expect(serving(keeper)).toEqual([1, 2])
    await machine.until(() => machine.alive.length === 2, 'the end of what was taken back')
    expect(machine.alive.map(({ number, state }) => [number, state])).toEqual([[1, 'serving'], [2, 'serving']])
    expect(['1', '2']).toContain(await ask(port))
    machine.fates.clear()
    expect((await reload(keeper)).ok).toBe(true)
  })

  it('is refused while another one runs, and a request without options that comes just after another is the same', async () => {
    const keeper = await running(1)
    const first = keeper.reloads.together()
    const second = keeper.reloads.together()
    await expect(keeper.reloads.begin({})).rejects.toMatchObject({
      code: 'HANDOVER_RELOAD_RUNNING',
      message: `a reload already runs. Process 5000001 (generation 1) serves tcp 127.0.0.1:${port}. Wait for its report.`
    })
    await machine.until(() => processOf(2)?.state === 'serving', 'the switch')
    await advance(600)
    await expect(keeper.reloads.together()).rejects.toMatchObject({ code: 'HANDOVER_RELOAD_RUNNING' })
    expect(await done(first)).toBe(await done(second))
    expect(machine.processes).toHaveLength(2)
  })

  it('that a worker asks for is made by its keeper, and the worker hears of it', async () => {
    const keeper = await running(1)
    const report = await done(processOf(1).generation.reload())
    expect(report).toMatchObject({ trigger: 'keeper', predecessor: { pid: 5000001 }, successor: { pid: 5000002 } })
    expect(serving(keeper)).toEqual([2])
  })
})

describe('a stop', () => {
  it('drains and ends all workers, and the keeper has their status', async () => {
    const keeper = await running(2)
    await done(keeper.stop('SIGTERM'))
    expect(machine.processes.map(({ end }) => end)).toEqual([{ code: 0, signal: null }, { code: 0, signal: null }])
    expect(ended).toEqual([0])
    await expect(ask(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(lines).toEqual([])
  })

  it('in a reload ends the workers of both generations, and starts none', async () => {
    const keeper = await running(2)
    const outcome = keeper.reloads.begin({ bakeMs: 0 })
    await machine.until(() => processOf(3)?.state === 'preparing' || processOf(3)?.state === 'serving', 'the successor')
    await done(keeper.stop('SIGTERM'))
    await done(outcome)
    expect(machine.alive).toEqual([])
    expect(ended).toEqual([0])
  })

  it('while a crashed worker waits for its next try ends what there is', async () => {
    const keeper = await running(2)
    machine.program = (process) => { process.exit(1) }
    processOf(1).dies()
    await machine.settle()
    await advance(1_000)
    await done(keeper.stop('SIGTERM'))
    const { length } = machine.processes
    await advance(20_000)
    expect(machine.processes).toHaveLength(length)
    expect(machine.alive).toEqual([])
  })

  it('kills a worker whose event loop is blocked after 10 s', async () => {
    const keeper = await running(2)
    processOf(2).hangs()
    const stopped = keeper.stop('SIGTERM')
    await advance(9_000)
    expect(machine.alive.map(({ number }) => number)).toEqual([2])
    await done(stopped)
    expect(processOf(2).end).toEqual({ code: null, signal: 'SIGKILL' })
    expect(ended).toEqual([137])
  })
})
