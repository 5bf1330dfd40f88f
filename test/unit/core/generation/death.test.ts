/**
 * Death at every step of a reload, of either side. The tables are the steps of a reload that succeeds: a new step needs a row.
 */

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { freePorts } from '../../../helpers/ask.js'
import { ask, FakeMachine, type FakeProcess } from '../../../helpers/fake-host.js'

let port: number
let machine: FakeMachine
let first: FakeProcess
let held = 0

beforeEach(async () => {
  held = 0
  port = (await freePorts(1))[0]!
  machine = new FakeMachine(async (process) => {
    process.generation.configure({ undoWindow: 1_000, linger: 0 })
    await process.listen(process.serve((request, response) => { if (request.url === '/held') held++; else response.end(String(process.number)) }), port)
  })
  first = await machine.start()
})
afterEach(async () => { await machine[Symbol.asyncDispose]() })

const stepsOf = (process: FakeProcess): string[] => machine.steps.filter(({ by }) => by === process).map(({ does }) => does)

/** It alone lives and answers, and can hand over. */
async function serves(process: FakeProcess): Promise<void> {
  expect(machine.alive).toEqual([process])
  expect(process.state).toBe('serving')
  expect(await ask(port)).toBe(String(process.number))
  machine.fates.clear()
  expect(await process.generation.reload()).toMatchObject({ result: 'switched', predecessor: { pid: process.pid } })
  expect(await ask(port)).toBe(String(machine.processes.length))
}

const ofSuccessor = {
  'says hello': 'serves on',
  'is taking': 'serves on',
  'hears offer': 'serves on',
  'is preparing': 'serves on',
  'is ready': 'serves on',
  'says ready': 'serves on',
  'hears commit': 'serves on',
  'is serving': 'serves on',
  'says serving': 'serves again'
} as const

describe('a successor that is killed', () => {
  it('has a row in this table for each of its steps', async () => {
    await first.generation.reload()
    expect(stepsOf(machine.processes[1]!)).toEqual(Object.keys(ofSuccessor))
  })

  it.each(Object.entries(ofSuccessor))('when it "%s" changes nothing: the predecessor %s, at once', async (step, then) => {
    machine.fates.set(2, { at: step, then: 'dies' })
    const begun = machine.now
    const reload = first.generation.reload()
    if (then === 'serves on') {
      await expect(reload).rejects.toMatchObject({
        code: 'HANDOVER_SUCCESSOR_EXIT',
        message: expect.stringMatching(/^process 5000002 \(generation 2\) ended by SIGKILL before it (was ready|served)\.\n {2}Process 5000001 \(generation 1\) keeps serving tcp .+; no connection was lost\.\n {2}Find out what sent SIGKILL \(the kernel does where memory is short\), and reload again/)
      })
    } else {
      expect(await reload).toMatchObject({ result: 'switched' })
      await machine.until(() => first.failures.length > 0, 'the undo')
      expect(first.generation.lastReport).toMatchObject({ result: 'undone' })
    }
    expect(first.failures).toMatchObject([{ code: then === 'serves on' ? 'HANDOVER_SUCCESSOR_EXIT' : 'HANDOVER_UNDONE' }])
    expect(machine.now).toBe(begun)
    await serves(first)
  })
})

const ofPredecessor = {
  'is launching': 'is never started',
  'hears hello': 'binds for itself',
  'is offering': 'binds for itself',
  'says offer': 'takes over',
  'hears ready': 'takes over',
  'is committing': 'takes over',
  'says commit': 'takes over',
  'hears serving': 'takes over',
  'is draining': 'takes over',
  'is closing': 'takes over',
  'is ended': 'takes over',
  'says end': 'takes over with its report'
} as const

describe('a predecessor that is killed', () => {
  it('has a row in this table for each of its steps', async () => {
    await first.generation.reload()
    await machine.advance(1_000)
    await machine.until(() => first.end !== undefined, 'the predecessor to end')
    expect(stepsOf(first)).toEqual(['is serving', ...Object.keys(ofPredecessor), 'exits with 0'])
  })

  it('while its successor has handed over as well is no reason to say that that one will serve', async () => {
    const waits = fetch(`http://127.0.0.1:${port}/held`).catch(() => undefined)
    await machine.until(() => held === 1, 'the request')
    await first.generation.reload()
    const [, second] = machine.processes
    await second!.generation.reload()
    first.dies()
    await machine.settle()
    await waits
    expect(second!.lines.filter((line) => line.includes('ended without a report'))).toEqual(['2 warn: the predecessor ended without a report. Process 5000003 (generation 3) serves.'])
  })

  it.each(Object.entries(ofPredecessor))('when it "%s" leaves a successor that %s', async (step, then) => {
    machine.fates.set(1, { at: step, then: 'dies' })
    void first.generation.reload()
    await machine.until(() => first.end !== undefined || machine.processes[1]?.state === 'serving', 'the switch')
    if (!first.end) await machine.advance(1_000)
    await machine.until(() => first.end !== undefined, 'the predecessor to die')
    await machine.settle()
    const [, second] = machine.processes
    if (then === 'is never started') {
      expect(second).toBeUndefined()
      return
    }
    expect(second!.generation.generation).toBe(then === 'binds for itself' ? 1 : 2)
    const silent = second!.lines.filter((line) => line.includes('the predecessor ended without a report'))
    expect(silent).toHaveLength(then === 'takes over' ? 1 : 0)
    // Nobody else reads what it writes.
    expect(second!.writesTo).toBe('standard error, and passes on the relay')
    await serves(second!)
  })
})
