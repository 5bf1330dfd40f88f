/** What each wait of a reload lasts, to the millisecond, by a clock that the test moves; and what follows at its end. */

import http from 'node:http'
import { describe, expect, it } from 'vitest'
import { freePorts } from '../../../helpers/ask.js'
import { ask, FakeMachine, type FakeProcess, type FakeProgram } from '../../../helpers/fake-host.js'
import type { HandoverOptions, Report } from '@handover/core'

const serving = (options: HandoverOptions = {}, listener?: http.RequestListener): FakeProgram => async (process) => {
  process.generation.configure({ linger: 0, ...options })
  await process.listen(process.serve(listener))
}

/** A program whose requests are answered when `answer` is called. */
function holding(options: HandoverOptions = {}): { program: FakeProgram; held: (() => void)[] } {
  const held: (() => void)[] = []
  return { program: serving(options, (_request, response) => { held.push(() => response.end('held')) }), held }
}

const reports = (process: FakeProcess): Report[] => {
  const heard: Report[] = []
  process.generation.events.on('report', (report) => heard.push(report))
  return heard
}

describe('readyTimeout', () => {
  const never: readonly [what: string, program: FakeProgram][] = [
    ['never listens', () => new Promise(() => undefined)],
    ['has the offer and never says that it is ready', async (process) => {
      process.generation.configure({ readyWhen: 'manual' })
      await process.listen(process.serve())
    }],
    ['says hello and hangs', async (process) => {
      process.machine.fates.set(process.number, { at: 'says hello', then: 'hangs' })
      await process.listen(process.serve())
    }]
  ]
  it.each(never)('passes, and not earlier, for a successor that %s: it is killed, and the predecessor serves on', async (_what, program) => {
    await using machine = new FakeMachine(serving({ readyTimeout: 30_000 }))
    const first = await machine.start()
    machine.program = program
    const reload = first.generation.reload()
    const failed = expect(reload).rejects.toMatchObject({
      code: 'HANDOVER_SUCCESSOR_TIMEOUT',
      message: expect.stringMatching(/^process 5000002 \(generation 2\) did not become ready within 30000 ms and was killed\.\n {2}Process 5000001 \(generation 1\) keeps serving tcp .+; no connection was lost\.\n {2}Raise readyTimeout/)
    })
    await machine.advance(29_999)
    expect([first.failures, machine.processes[1]!.end]).toEqual([[], undefined])
    await machine.advance(1)
    await failed
    expect([first.state, machine.processes[1]!.end]).toEqual(['serving', { code: null, signal: 'SIGKILL' }])
    expect(await ask(first.port)).toBe('1')
  })

  it('leaves 10 s to a successor that has heard "commit" to say that it serves', async () => {
    await using machine = new FakeMachine(serving({ readyTimeout: 30_000 }))
    const first = await machine.start()
    machine.fates.set(2, { at: 'hears commit', then: 'hangs' })
    const failed = expect(first.generation.reload()).rejects.toMatchObject({
      code: 'HANDOVER_SUCCESSOR_TIMEOUT',
      message: expect.stringMatching(/did not serve within 10000 ms and was killed/)
    })
    await machine.advance(9_999)
    expect(first.state).toBe('committing')
    await machine.advance(1)
    await failed
    expect(machine.alive).toEqual([first])
    expect(first.state).toBe('serving')
  })
})

describe('a listener that the new version does not listen on', () => {
  let dropped: string
  async function dropping(readyTimeout: number): Promise<{ machine: FakeMachine; first: FakeProcess }> {
    const [port] = await freePorts(1)
    dropped = `tcp 127.0.0.1:${port}`
    const machine = new FakeMachine(async (process) => {
      process.generation.configure({ linger: 0, readyTimeout })
      await process.listen(process.serve())
      if (process.number === 1) await process.listen(process.serve(), port)
    })
    return { machine, first: await machine.start() }
  }

  it.each([[40_000, 5_000, 35_000], [8_000, 1_000, 6_000]])('counts as dropped near the end of a readyTimeout of %i ms, and is named after %i ms', async (readyTimeout, namedAfter, droppedAfter) => {
    const { machine, first } = await dropping(readyTimeout)
    await using _ = machine
    const reload = first.generation.reload()
    await machine.advance(namedAfter - 1)
    const [, second] = machine.processes
    expect(second!.lines).toEqual([])
    await machine.advance(1)
    expect(second!.lines).toEqual([expect.stringContaining(`generation 2 (process 5000002) is not ready: it waits for its listen() on ${dropped}, which the version before listens on.`)])
    await machine.advance(droppedAfter - namedAfter - 1)
    expect(second!.state).toBe('preparing')
    await machine.advance(1)
    expect((await reload).listeners.dropped).toEqual([dropped])
  })

  it('counts as dropped after 10 s where the reload allows that', async () => {
    const { machine, first } = await dropping(60_000)
    await using _ = machine
    const reload = first.generation.reload({ allowDrop: true })
    await machine.advance(9_999)
    expect(machine.processes[1]!.state).toBe('preparing')
    await machine.advance(1)
    expect((await reload).listeners.dropped).toEqual([dropped])
  })

  it('is waited for no longer when the program calls ready()', async () => {
    const { machine, first } = await dropping(60_000)
    await using _ = machine
    const begun = machine.now
    const reload = first.generation.reload()
    await machine.until(() => machine.processes[1]?.state === 'preparing', 'the offer')
    machine.processes[1]!.generation.ready()
    expect((await reload).listeners.dropped).toEqual([dropped])
    expect(machine.now).toBe(begun)
  })
})

describe('undoWindow', () => {
  it.each([['a moment before its end', 1_999, true], ['a moment after its end', 2_001, false]])('decides whether the predecessor serves again: a successor that dies %s', async (_when, afterMs, undone) => {
    const { program, held } = holding({ undoWindow: 2_000, drainTimeout: 20_000 })
    await using machine = new FakeMachine(program)
    const first = await machine.start()
    const { port } = first
    const answer = ask(port)
    await machine.until(() => held.length === 1, 'the request')
    await first.generation.reload()
    await machine.advance(afterMs)
    machine.processes[1]!.dies()
    await machine.settle()
    expect(first.state).toBe(undone ? 'serving' : 'draining')
    expect(first.failures.map((error) => (error as Error & { code: string }).code)).toEqual(undone ? ['HANDOVER_UNDONE'] : [])
    held[0]!()
    expect(await answer).toBe('held')
    if (undone) {
      const again = ask(port)
      await machine.until(() => held.length === 2, 'the next request')
      held[1]!()
      expect(await again).toBe('held')
    } else {
      await machine.until(() => first.end !== undefined, 'the end of the drain')
      expect(first.end).toEqual({ code: 0, signal: null })
      await expect(ask(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    }
  })

  it('ends with an undo after 3 s in which the event loop of the successor has not turned, and the successor is killed', async () => {
    await using machine = new FakeMachine(serving({ undoWindow: 60_000 }))
    const first = await machine.start()
    await first.generation.reload()
    await machine.advance(10_000)
    const [, second] = machine.processes
    second!.hangs()
    // It is asked every half second.
    await machine.advance(3_500)
    expect(first.state).toBe('draining')
    await machine.advance(500)
    expect([first.state, second!.end]).toEqual(['serving', { code: null, signal: 'SIGKILL' }])
    expect(first.failures).toMatchObject([{
      code: 'HANDOVER_UNDONE',
      message: expect.stringMatching(/^process 5000002 \(generation 2\) hangs within the undo window: it has not answered for 3000 ms, and it was killed\.\n {2}Process 5000001 \(generation 1\) serves again tcp /)
    }])
    // The line of its report: the successor did not die.
    expect(first.lines.at(-1)).toMatch(/generation 1 \(process 5000001\) serves again: the switch to generation 2 \(process 5000002\) was undone$/)
    expect(await ask(first.port)).toBe('1')
  })

  it('does not end before the successor has answered a last question: one that hangs by then is found out', async () => {
    await using machine = new FakeMachine(serving({ undoWindow: 1_000 }))
    const first = await machine.start()
    await first.generation.reload()
    await machine.advance(999)
    machine.processes[1]!.hangs()
    await machine.advance(4_000)
    expect(first.failures).toMatchObject([{ code: 'HANDOVER_UNDONE' }])
    expect(first.state).toBe('serving')
  })

  it('is over at once for a successor that is stopped on purpose: the predecessor does not come back', async () => {
    await using machine = new FakeMachine(serving({ undoWindow: 60_000 }))
    const first = await machine.start()
    const begun = machine.now
    await first.generation.reload()
    machine.processes[1]!.signal('SIGTERM')
    await machine.until(() => machine.alive.length === 0, 'both to end')
    expect(machine.now).toBe(begun)
    expect(machine.processes.map(({ end }) => end)).toEqual([{ code: 0, signal: null }, { code: 0, signal: null }])
    expect(first.failures).toEqual([])
  })
})

describe('drainTimeout', () => {
  it('cuts what is left half a second before its end, and the report names the request', async () => {
    const { program, held } = holding({ undoWindow: 0, drainTimeout: 5_000, move: false })
    await using machine = new FakeMachine(program)
    const first = await machine.start()
    const heard = reports(first)
    const cut = expect(ask(first.port, '/slow?token=secret')).rejects.toMatchObject({ code: 'ECONNRESET' })
    await machine.until(() => held.length === 1, 'the request')
    await first.generation.reload()
    await machine.advance(4_499)
    expect(first.state).toBe('draining')
    await machine.advance(1)
    await cut
    await machine.until(() => first.end !== undefined, 'the predecessor to end')
    expect(heard.at(-1)).toMatchObject({ result: 'drained', connections: { open: 1, cut: 1 }, requestsCut: [{ method: 'GET', path: '/slow' }], durations: { drain: 4_500 } })
  })

  it('leaves that half second to close hooks, and ends without those that take longer', async () => {
    const { program, held } = holding({ drainTimeout: 5_000, onClose: () => new Promise(() => undefined) })
    await using machine = new FakeMachine(program)
    const first = await machine.start()
    const heard = reports(first)
    const cut = expect(ask(first.port)).rejects.toMatchObject({ code: 'ECONNRESET' })
    await machine.until(() => held.length === 1, 'the request')
    void first.generation.stop()
    await machine.advance(4_500)
    await cut
    await machine.advance(499)
    expect(first.state).toBe('closing')
    await machine.advance(1)
    expect(heard.at(-1)).toMatchObject({ result: 'stopped', cleanupCut: 'close hooks' })
    expect(first.end).toEqual({ code: 0, signal: null })
  })

  it.each<[how: string, leave: (process: FakeProcess) => unknown]>([
    ['hands over', (process) => process.generation.reload()],
    ['is stopped', (process) => { process.signal('SIGTERM') }]
  ])('holds a generation that %s back for the one before it, which still answers', async (_how, leave) => {
    const { program, held } = holding({ undoWindow: 0, drainTimeout: 20_000 })
    await using machine = new FakeMachine(program)
    const first = await machine.start()
    const answer = ask(first.port)
    await machine.until(() => held.length === 1, 'the request')
    await first.generation.reload()
    const [, second] = machine.processes
    await leave(second!)
    await machine.advance(1_000)
    expect([first.state, second!.state]).toEqual(['draining', 'draining'])
    held[0]!()
    expect(await answer).toBe('held')
    await machine.until(() => second!.end !== undefined, 'both to end')
    expect(machine.story.filter((step) => step.endsWith('is ended'))).toEqual(['1 is ended', '2 is ended'])
  })
})

it('the predecessor waits one second for a successor that does not take its last word, and ends', async () => {
  await using machine = new FakeMachine(serving({ undoWindow: 0 }))
  const first = await machine.start()
  machine.fates.set(2, { at: 'hears end', then: 'hangs' })
  await first.generation.reload()
  await machine.advance(1)
  expect(first.state).toBe('ended')
  await machine.advance(999)
  expect(first.end).toBeUndefined()
  await machine.advance(1)
  expect(first.end).toEqual({ code: 0, signal: null })
})
