/**
 * Workers that accept and are not ready yet, because nobody else serves: whatever ends them, what they have accepted is answered, and their
 * cleanup runs once.
 */

import type http from 'node:http'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ask, type FakeProcess, type FakeProgram } from '../../helpers/fake-host.js'
import { FakeApp } from '../../helpers/fake-app.js'

let app: FakeApp
let held: http.ServerResponse[]
/** The numbers of processes whose close hook has run. */
let cleaned: number[]

beforeEach(async () => {
  held = []
  cleaned = []
  app = await FakeApp.make()
})
afterEach(async () => { await app[Symbol.asyncDispose]() })

/** It never says that it is ready, and holds its answers. */
const unready: FakeProgram = async (process) => {
  process.generation.configure({ linger: 0, readyWhen: 'manual', onClose: () => { cleaned.push(process.number) } })
  await process.listen(process.serve((_request, response) => { held.push(response) }), app.port)
}

/** The next process, which has accepted a request and is not ready. */
async function accepted(number: number): Promise<{ process: FakeProcess; answer: Promise<string> }> {
  const process = await app.processIn(number, 'preparing')
  const answer = ask(app.port)
  answer.catch(() => undefined)
  await app.machine.until(() => held.length > 0, 'the request')
  return { process, answer }
}

/** It has been asked to end: its request is answered, and it ends by itself. */
async function endsWell({ process, answer }: { process: FakeProcess; answer: Promise<string> }): Promise<void> {
  await app.machine.until(() => process.state === 'draining', 'the drain')
  expect(process.end).toBeUndefined()
  held[0]!.end('whole')
  expect(await answer).toBe('whole')
  await app.machine.until(() => process.end !== undefined, 'the end')
  expect(process.end).toEqual({ code: 0, signal: null })
  expect(cleaned).toEqual([process.number])
}

it.each(['SIGTERM', undefined] as const)('at a stop (%s) in the very first start', async (signal) => {
  app.machine.program = unready
  const keeper = app.keep(1)
  void keeper.run()
  const worker = await accepted(1)
  const stopped = keeper.stop(signal)
  await endsWell(worker)
  await app.done(stopped)
  expect(app.ended).toEqual([0])
  await expect(ask(app.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})

it('at a stop after a crash, also past the time that a start may take', async () => {
  const keeper = await app.running(1)
  app.machine.program = unready
  app.processOf(1).dies()
  const worker = await accepted(2)
  await app.advance(59_000)
  const stopped = keeper.stop('SIGTERM')
  await app.advance(5_000)
  await endsWell(worker)
  await app.done(stopped)
  expect(app.ended).toEqual([0])
  expect(app.machine.processes).toHaveLength(2)
})

it('when a reload replaces their build: the new one serves at once', async () => {
  const keeper = await app.running(1)
  const { program } = app.machine
  app.machine.program = unready
  app.processOf(1).dies()
  const worker = await accepted(2)
  app.machine.program = program
  expect(await app.reload(keeper)).toMatchObject({ ok: true, switched: [{ from: null, to: { pid: app.processOf(3).pid } }] })
  expect(await ask(app.port)).toBe('3')
  await endsWell(worker)
  expect(app.serving(keeper)).toEqual([3])
})

it('when they are not ready in time: the next one is started meanwhile', async () => {
  const keeper = await app.running(1)
  const { program } = app.machine
  app.machine.program = unready
  app.processOf(1).dies()
  const worker = await accepted(2)
  app.machine.program = program
  await app.advance(59_000)
  expect(worker.process.state).toBe('preparing')
  await app.advance(6_000)
  expect(app.serving(keeper)).toEqual([3])
  await endsWell(worker)
  expect(app.linesWith('did not become ready within 60000 ms and was told to end')).toHaveLength(1)
})

it('when their slot goes away', async () => {
  const keeper = await app.running(2)
  app.machine.program = unready
  app.processOf(2).dies()
  app.processOf(1).dies()
  await app.processIn(4, 'preparing')
  keeper.setCount(0)
  await app.machine.until(() => app.machine.alive.length === 0, 'the end of all')
  expect(app.machine.processes.slice(2).map(({ end }) => end)).toEqual([{ code: 0, signal: null }, { code: 0, signal: null }])
  expect(cleaned.sort()).toEqual([3, 4])
})

it('when somebody else stops them: the next one is started meanwhile', async () => {
  const keeper = await app.running(1)
  const { program } = app.machine
  app.machine.program = unready
  app.processOf(1).dies()
  const worker = await accepted(2)
  app.machine.program = program
  worker.process.signal('SIGTERM')
  await app.machine.settle()
  await app.advance(200)
  expect(app.serving(keeper)).toEqual([3])
  await endsWell(worker)
  expect(app.linesWith('was stopped by somebody else before it was ready')).toHaveLength(1)
})

it('a successor that is not ready at a stop cleans up as well', async () => {
  const keeper = await app.running(1)
  app.machine.program = unready
  const outcome = keeper.reloads.begin({ bakeMs: 0 })
  await app.processIn(2, 'preparing')
  await app.done(keeper.stop('SIGTERM'))
  expect(await app.done(outcome)).toMatchObject({ ok: false })
  expect(app.machine.processes.map(({ end }) => end)).toEqual([{ code: 0, signal: null }, { code: 0, signal: null }])
  expect([cleaned, app.ended]).toEqual([[2], [0]])
})

it('one that is blocked is killed at a stop, and in a reload', async () => {
  const keeper = await app.running(1)
  const { program } = app.machine
  app.machine.program = unready
  app.processOf(1).dies()
  await accepted(2)
  app.processOf(2).hangs()
  app.machine.program = program
  expect(await app.reload(keeper)).toMatchObject({ ok: true })
  expect(app.processOf(2).end).toEqual({ code: null, signal: 'SIGKILL' })
  await app.advance(1_100)
  app.machine.program = unready
  app.processOf(3).dies()
  await app.processIn(4, 'preparing')
  app.processOf(4).hangs()
  await app.done(keeper.stop('SIGTERM'))
  expect(app.processOf(4).end).toEqual({ code: null, signal: 'SIGKILL' })
})

it('a successor that heeds no stop is killed 10 s later', async () => {
  const keeper = await app.running(1)
  app.machine.program = (process) => { process.signals.on('SIGTERM', () => undefined) }
  const outcome = keeper.reloads.begin({ bakeMs: 0 })
  await app.advance(50)
  const stopped = keeper.stop('SIGTERM')
  await app.advance(9_500)
  expect(app.machine.alive.map(({ number }) => number)).toEqual([2])
  await app.done(stopped)
  await app.done(outcome)
  expect(app.processOf(2).end).toEqual({ code: null, signal: 'SIGKILL' })
  expect(app.ended).toEqual([0])
})
