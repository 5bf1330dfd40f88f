/** A program counts in a form that cannot go to another process: its reload, its requests and its other state do not suffer from it. */

import { expect, it, vi } from 'vitest'
import { FakeMachine, ask } from '../../../helpers/fake-host.js'

class Hits {
  hits = 0
}

it('a predecessor whose own() answers no plain data serves on until its drain is over, and its final state arrives', async () => {
  const unhandled = vi.fn()
  process.on('unhandledRejection', unhandled)
  const final: unknown[] = []
  await using machine = new FakeMachine(async (process) => {
    const { generation } = process
    generation.configure({ undoWindow: 1_000, linger: 0 })
    generation.aggregate('hits', { own: () => new Hits(), add: (a) => a })
    generation.share('late', { save: () => process.number, restore: () => undefined, merge: (value) => { final.push(value) }, final: true })
    await process.listen(process.serve())
  })
  const first = await machine.start()
  await first.generation.reload()
  await machine.advance(1_000)
  await machine.until(() => first.end !== undefined, 'the predecessor to end')
  await machine.settle()
  process.off('unhandledRejection', unhandled)
  expect(unhandled).not.toHaveBeenCalled()
  expect(first.end).toEqual({ code: 0, signal: null })
  expect(final).toEqual([1])
  expect(first.lines.filter((line) => line.includes('what this process counts as "hits" cannot be told')).length).toBeGreaterThan(0)
  expect(await ask(machine.processes[1]!.port)).toBe('2')
})

it('a process that is asked for such counts answers all the same: the asker does not wait for its silence', async () => {
  const totals: (() => Promise<Hits>)[] = []
  await using machine = new FakeMachine(async (process) => {
    const { generation } = process
    generation.configure({ undoWindow: 60_000, linger: 0 })
    const own = (): Hits => (process.number === 1 ? new Hits() : { hits: 1 })
    const { total } = generation.aggregate('hits', { own, add: (a, b) => ({ hits: a.hits + b.hits }) })
    totals.push(total)
    await process.listen(process.serve())
  })
  const first = await machine.start()
  await first.generation.reload()
  let shown: Hits | undefined
  void totals[1]!().then((total) => { shown = total })
  await machine.settle()
  expect(shown).toEqual({ hits: 1 })
})
