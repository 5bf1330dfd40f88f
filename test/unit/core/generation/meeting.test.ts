/** Reloads, stops and signals that meet each other, at each step where they can. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { HandoverError, Report } from '@handover/core'
import { ask, FakeMachine, type FakeProcess } from '../../../helpers/fake-host.js'

let machine: FakeMachine
let first: FakeProcess
let port: number

beforeEach(async () => {
  machine = new FakeMachine(async (process) => {
    process.generation.configure({ undoWindow: 1_000, linger: 0 })
    await process.listen(process.serve())
  })
  first = await machine.start()
  ;({ port } = first)
})
afterEach(async () => { await machine[Symbol.asyncDispose]() })

/** Acts when a process does this, in a turn of its own: not within what the process is doing. */
function when(step: string, act: () => void): void {
  machine.onStep = ({ by, does }) => {
    if (`${by.number} ${does}` === step) queueMicrotask(act)
  }
}

const outcome = async (reload: Promise<Report>): Promise<string> =>
  await reload.then(({ result }) => result, (error: HandoverError) => error.code)

const whileItReloads = [
  '1 is launching', '1 hears hello', '1 is offering', '1 says offer', '1 hears ready', '1 is committing', '1 says commit', '1 hears serving'
]

describe('two reloads at once', () => {
  it.each(whileItReloads)('of which the second is asked when "%s": it is refused with the reason, and the first goes on', async (step) => {
    let second: Promise<unknown> | undefined
    when(step, () => { second = first.generation.reload().catch((error: unknown) => error) })
    expect(await outcome(first.generation.reload())).toBe('switched')
    expect(await second).toMatchObject({
      code: 'HANDOVER_RELOAD_RUNNING',
      message: expect.stringMatching(/^a reload already runs\. Process 5000001 \(generation 1\) keeps serving tcp .+; no connection was lost\. Wait for its report\.$/)
    })
    expect(machine.processes).toHaveLength(2)
    expect(first.failures).toEqual([])
  })

  it('one that comes after the switch is refused, and names the process that serves', async () => {
    await first.generation.reload()
    await expect(first.generation.reload()).rejects.toMatchObject({
      code: 'HANDOVER_NOT_SERVING',
      message: 'process 5000001 (generation 1) is draining. Process 5000002 (generation 2) serves. Ask that process.'
    })
  })

  it('one in the successor, within the undo window of the first, ends that window: then only the successor can come back', async () => {
    await first.generation.reload()
    const [, second] = machine.processes
    machine.fates.set(3, { at: 'says serving', then: 'dies' })
    await second!.generation.reload()
    await machine.until(() => second!.failures.length === 1, 'the undo')
    expect(machine.story.filter((step) => step.endsWith('says settled'))).toEqual(['2 says settled'])
    expect([second!.state, first.failures]).toEqual(['serving', []])
    await machine.until(() => first.end !== undefined, 'the first to end')
    expect(await ask(port)).toBe('2')
  })

  it('a second signal is refused in the log, and starts nothing', async () => {
    first.signal('SIGHUP')
    first.signal('SIGHUP')
    await machine.until(() => machine.processes[1]?.state === 'serving', 'the switch')
    await machine.settle()
    expect(machine.processes).toHaveLength(2)
    expect(first.lines.filter((line) => line.includes('HANDOVER_RELOAD_RUNNING]: a reload already runs.'))).toHaveLength(1)
  })
})

/** The steps of the predecessor, and what becomes of the reload in which a stop is asked there. */
const whenStopped = {
  '1 is launching': 'HANDOVER_STOPPED',
  '1 hears hello': 'HANDOVER_STOPPED',
  '1 is offering': 'HANDOVER_STOPPED',
  '1 says offer': 'HANDOVER_STOPPED',
  '1 hears ready': 'HANDOVER_STOPPED',
  '1 is committing': 'switched',
  '1 says commit': 'switched',
  '1 hears serving': 'switched',
  '1 is draining': 'switched'
}

describe('a stop in a reload', () => {
  it.each(Object.entries(whenStopped))('when "%s" leads to %s', async (step, expected) => {
    const begun = machine.now
    when(step, () => { first.signal('SIGTERM') })
    expect(await outcome(first.generation.reload())).toBe(expected)
    await machine.until(() => first.end !== undefined, 'the predecessor to end')
    // It waits for no undo window.
    expect(machine.now).toBe(begun)
    expect(first.end).toEqual({ code: 0, signal: null })
    if (expected === 'switched') expect(await ask(port)).toBe('2')
    else await machine.until(() => machine.alive.length === 0, 'the successor to end')
  })

  it.each(['says hello', 'is preparing', 'is ready'])('of the successor when it "%s" fails the reload', async (step) => {
    when(`2 ${step}`, () => { machine.processes[1]!.signal('SIGTERM') })
    machine.program = async (process) => {
      process.generation.configure({ readyWhen: step === 'is preparing' ? 'manual' : 'listening' })
      await process.listen(process.serve())
    }
    expect(await outcome(first.generation.reload())).toBe('HANDOVER_SUCCESSOR_EXIT')
    expect(await ask(port)).toBe('1')
  })

  it.each(['is preparing', 'is ready', 'says ready'])('of the successor when it "%s" runs its close hooks once, and it never serves', async (step) => {
    const good = machine.program
    const cleaned: number[] = []
    machine.program = async (process) => {
      process.generation.configure({ readyWhen: step === 'is preparing' ? 'manual' : 'listening', onClose: () => { cleaned.push(process.number) } })
      await process.listen(process.serve())
    }
    when(`2 ${step}`, () => { machine.processes[1]!.signal('SIGTERM') })
    expect(await outcome(first.generation.reload())).toBe('HANDOVER_SUCCESSOR_EXIT')
    expect([cleaned, machine.processes[1]!.end]).toEqual([[2], { code: 0, signal: null }])
    expect(machine.story).not.toContain('2 is serving')
    machine.program = good
    expect(await outcome(first.generation.reload())).toBe('switched')
    expect(await ask(port)).toBe('3')
  })

  it('SIGHUP to a successor that boots neither ends it nor counts, and says so', async () => {
    when('2 says hello', () => { machine.processes[1]!.signal('SIGHUP') })
    expect(await outcome(first.generation.reload())).toBe('switched')
    expect(machine.processes[1]!.lines).toEqual([expect.stringContaining('process 5000002 listens on nothing yet in its main thread: the reload signal is ignored.')])
    expect(machine.processes).toHaveLength(2)
  })

  it('a second signal to stop ends the process at once, whatever still runs', async () => {
    first.generation.configure({ onClose: () => new Promise(() => undefined) })
    first.signal('SIGTERM')
    await machine.until(() => first.state === 'closing', 'the close hook')
    first.signal('SIGTERM')
    expect(first.end).toEqual({ code: 143, signal: null })
  })
})

describe('a reload that failed', () => {
  it('leaves the next one all it needs, again and again', async () => {
    const good = machine.program
    machine.program = () => { throw new Error('no database') }
    for (let time = 0; time < 5; time++) {
      await expect(first.generation.reload()).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT', message: expect.stringMatching(/ended with status 1 before it was ready[^]+no database/) })
    }
    machine.program = good
    expect(await outcome(first.generation.reload())).toBe('switched')
    expect(await ask(port)).toBe('7')
    expect(machine.processes.at(-1)!.generation.generation).toBe(2)
  })

  it('by an undo can be followed by one that succeeds, and by another undo', async () => {
    for (const number of [2, 3]) {
      machine.fates.set(number, { at: 'says serving', then: 'dies' })
      expect(await outcome(first.generation.reload())).toBe('switched')
      await machine.until(() => first.state === 'serving', 'the undo')
      expect(await ask(port)).toBe('1')
    }
    expect(first.failures).toMatchObject([{ code: 'HANDOVER_UNDONE' }, { code: 'HANDOVER_UNDONE' }])
    expect(await outcome(first.generation.reload())).toBe('switched')
    await machine.advance(1_000)
    await machine.until(() => first.end !== undefined, 'the predecessor to end')
    expect(await ask(port)).toBe('4')
  })
})
