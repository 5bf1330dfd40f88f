/** CheckpointStore as the keeper holds them: which of them the next process of a slot gets, and when they are let go. */

import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { CheckpointStore, mostCheckpoints, type SavedSection } from '../../helpers/internals.js'
import { waitFor } from '../../helpers/program.js'
import { Files, readAndClose } from '../../helpers/line.js'

const signal = new AbortController().signal
const files = new Files()
let warnings: string[] = []
afterEach(() => { warnings = [] })
afterAll(() => { files[Symbol.dispose]() })

const keep = (afterMs?: number): CheckpointStore => new CheckpointStore((line) => { warnings.push(line) }, afterMs)

/** A file is closed in the background: what gives its memory back must not hold up the keeper. */
const leftOpen = async (count: number): Promise<void> => { await waitFor(() => files.open === count) }

function hold(checkpoints: CheckpointStore, slot: number, pid: number, name: string, text: string): void {
  checkpoints.hold(slot, pid, name, text.length, files.make(text))
}

/** What the next start is offered. */
async function offered(checkpoints: CheckpointStore, slot = 0): Promise<Record<string, string>> {
  const { names, save } = checkpoints.offerFor(slot)
  return Object.fromEntries(await Promise.all(names.map(async (name) => {
    const { fd, bytes, phase } = await save(name, signal, undefined) as SavedSection
    expect(phase).toBe('checkpoint')
    const text = readAndClose(fd)
    expect(bytes).toBe(text.length)
    return [name, text] as const
  })))
}

describe('checkpoints', () => {
  it('are offered when their worker crashed, the latest of each section, and not before', async () => {
    const checkpoints = keep()
    hold(checkpoints, 0, 1, 'cache', 'cache 1')
    hold(checkpoints, 0, 1, 'sessions', 'sessions 1')
    hold(checkpoints, 0, 1, 'sessions', 'sessions 2')
    hold(checkpoints, 1, 2, 'sessions', 'of another slot')
    await leftOpen(3)
    expect(await offered(checkpoints)).toEqual({})
    checkpoints.crashed(0, 1)
    expect(await offered(checkpoints)).toEqual({ cache: 'cache 1', sessions: 'sessions 2' })
    // A start that fails at boot takes nothing away.
    expect(await offered(checkpoints)).toEqual({ cache: 'cache 1', sessions: 'sessions 2' })
    expect(await offered(checkpoints, 1)).toEqual({})
    await leftOpen(3)
    for (const slot of [0, 1]) checkpoints.drop(slot)
    await leftOpen(0)
  })

  it('are let go when the worker handed over or ended in order, and when the slot goes away', async () => {
    const checkpoints = keep()
    hold(checkpoints, 0, 1, 'a', '1')
    hold(checkpoints, 0, 2, 'a', '2')
    checkpoints.forget(0, 1)
    await leftOpen(1)
    checkpoints.crashed(0, 2)
    expect(await offered(checkpoints)).toEqual({ a: '2' })
    hold(checkpoints, 0, 3, 'b', '3')
    checkpoints.drop(0)
    await leftOpen(0)
    expect(checkpoints.status).toEqual([])
    await expect(checkpoints.offerFor(0).save('a', signal, undefined)).rejects.toThrow('does not hold it')
  })

  it('of two generations that live are kept apart: which of them crashes decides', async () => {
    for (const [crashes, ends, left] of [[1, 2, 'of the first'], [2, 1, 'of the second']] as const) {
      const checkpoints = keep()
      hold(checkpoints, 0, 1, 'a', 'of the first')
      hold(checkpoints, 0, 2, 'a', 'of the second')
      checkpoints.forget(0, ends)
      checkpoints.crashed(0, crashes)
      expect(await offered(checkpoints)).toEqual({ a: left })
      checkpoints.drop(0)
    }
  })

  it('stay after the next worker serves, until it has sent its own', async () => {
    const checkpoints = keep()
    hold(checkpoints, 0, 1, 'a', 'a 1')
    hold(checkpoints, 0, 1, 'b', 'b 1')
    checkpoints.crashed(0, 1)
    checkpoints.served(0)
    hold(checkpoints, 0, 2, 'a', 'a 2')
    expect(await offered(checkpoints)).toEqual({ b: 'b 1' })
    checkpoints.crashed(0, 2)
    expect(await offered(checkpoints)).toEqual({ a: 'a 2', b: 'b 1' })
    await leftOpen(2)
    checkpoints.drop(0)
  })

  it('are let go after a while where the worker that got them sends none', async () => {
    const checkpoints = keep(20)
    hold(checkpoints, 0, 1, 'a', '1')
    checkpoints.crashed(0, 1)
    checkpoints.served(0)
    await waitFor(() => files.open === 0)
    expect(await offered(checkpoints)).toEqual({})
  })

  it('are let go when what got them has crashed twice before it sent its own: they may be why', async () => {
    const checkpoints = keep()
    hold(checkpoints, 0, 1, 'poison', '1')
    checkpoints.crashed(0, 1)
    for (const pid of [2, 3]) {
      expect(await offered(checkpoints)).toEqual({ poison: '1' })
      checkpoints.served(0)
      checkpoints.crashed(0, pid)
    }
    expect(await offered(checkpoints)).toEqual({})
    await leftOpen(0)
    expect(warnings).toEqual([expect.stringContaining('poison')])
  })

  describe('where starts end before they serve', () => {
    const left = (): CheckpointStore => {
      const checkpoints = keep()
      hold(checkpoints, 0, 1, 'poison', '1')
      checkpoints.crashed(0, 1)
      return checkpoints
    }
    /** The starts that follow, all of which fail with their offer taken: + for those that got what was left. */
    const fail = (checkpoints: CheckpointStore, starts: number): string => Array.from({ length: starts }, () => {
      const offer = checkpoints.offerFor(0)
      checkpoints.startFailed(0, offer, true)
      return offer.names.length > 0 ? '+' : '-'
    }).join('')

    it('two get what was left, the next one does not; it is dropped when that serves', async () => {
      const checkpoints = left()
      expect(fail(checkpoints, 2)).toBe('++')
      expect(checkpoints.nextStart(0)).toMatch(/^ without the checkpoint of poison \(\d+ ms old\)$/)
      expect(await offered(checkpoints)).toEqual({})
      expect(checkpoints.status).toHaveLength(1)
      checkpoints.startServed(0, checkpoints.offerFor(0))
      await leftOpen(0)
      expect(warnings).toEqual([expect.stringMatching(/^2 starts in a row in slot 0 .*poison/), expect.stringMatching(/^slot 0 serves without the checkpoint of poison .* it is dropped/)])
      expect(checkpoints.nextStart(0)).toBe('')
    })

    it('where the one without fails too, what was left is offered more and more often, and that is told once', async () => {
      const checkpoints = left()
      expect(fail(checkpoints, 2 + 1 + 4 + 1 + 8 + 1 + 8 + 1)).toBe('++-++++-++++++++-++++++++-')
      expect(warnings).toHaveLength(2)
      expect(checkpoints.failedWith(0)).toMatch(/^, 22 of them with the checkpoint of poison /)
      // Then it serves with it, and all begins anew.
      checkpoints.startServed(0, checkpoints.offerFor(0))
      expect(checkpoints.failedWith(0)).toBe('')
      expect(await offered(checkpoints)).toEqual({ poison: '1' })
      expect(fail(checkpoints, 4)).toBe('++-+')
      checkpoints.drop(0)
      await leftOpen(0)
    })

    it('one that never had its offer failed for another reason', async () => {
      const checkpoints = left()
      for (let index = 0; index < 5; index++) checkpoints.startFailed(0, checkpoints.offerFor(0), false)
      expect(await offered(checkpoints)).toEqual({ poison: '1' })
      expect(fail(checkpoints, 2)).toBe('++')
      // Also where it would have had none.
      checkpoints.startFailed(0, checkpoints.offerFor(0), false)
      expect(await offered(checkpoints)).toEqual({ poison: '1' })
      checkpoints.drop(0)
    })

    it('one that was asked to go without drops it when it serves, without a word, and says nothing of it when it fails', async () => {
      const checkpoints = left()
      checkpoints.startFailed(0, checkpoints.offerFor(0, true), true)
      expect(fail(checkpoints, 2)).toBe('++')
      // Somebody repaired the build.
      checkpoints.offerAgain(0)
      expect(await offered(checkpoints)).toEqual({ poison: '1' })
      expect(checkpoints.offerFor(0, true).names).toEqual([])
      checkpoints.startServed(0, checkpoints.offerFor(0, true))
      await leftOpen(0)
      expect(warnings).toHaveLength(1)
    })

    it('what a dead worker said last comes to no harm although it is read after the next start began', async () => {
      const checkpoints = keep()
      const offer = checkpoints.offerFor(0)
      hold(checkpoints, 0, 1, 'late', '1')
      checkpoints.crashed(0, 1)
      checkpoints.startServed(0, offer)
      expect(await offered(checkpoints)).toEqual({ late: '1' })
      checkpoints.drop(0)
      expect(warnings).toEqual([])
    })
  })

  it(`are at most ${mostCheckpoints} of a worker, and of those that crashed one after the other the latest`, async () => {
    const checkpoints = keep()
    for (let index = 0; index < mostCheckpoints + 5; index++) hold(checkpoints, 0, 1, `section ${index}`, '1')
    hold(checkpoints, 0, 1, 'x'.repeat(300), '1')
    await leftOpen(mostCheckpoints)
    expect(warnings).toHaveLength(1)
    // The latest of one that is known has room.
    hold(checkpoints, 0, 1, 'section 0', '2')
    checkpoints.crashed(0, 1)
    const { at } = checkpoints.all().checkpoints[0]!
    await waitFor(() => Date.now() > at)
    for (let index = 0; index < 10; index++) hold(checkpoints, 0, 2, `other ${index}`, '1')
    checkpoints.crashed(0, 2)
    const names = Object.keys(await offered(checkpoints))
    expect(names).toHaveLength(mostCheckpoints)
    expect(names.filter((name) => name.startsWith('other'))).toHaveLength(10)
    await leftOpen(mostCheckpoints)
    checkpoints.drop(0)
    await leftOpen(0)
  })

  it('go to the next keeper, where those of workers that are gone meanwhile are left to their slot', async () => {
    const before = keep()
    hold(before, 0, 1, 'a', 'lives')
    hold(before, 1, 2, 'a', 'died meanwhile')
    hold(before, 2, 3, 'a', 'had crashed')
    before.crashed(2, 3)
    const { checkpoints: saved, fds } = before.all()
    const next = keep()
    next.restore(JSON.parse(JSON.stringify(saved)) as typeof saved, fds)
    next.adopted([1])
    expect(await Promise.all([0, 1, 2].map((slot) => offered(next, slot)))).toEqual([{}, { a: 'died meanwhile' }, { a: 'had crashed' }])
    expect(next.status).toEqual([0, 1, 2].map((slot) => ({ slot, name: 'a', bytes: [5, 14, 11][slot], ageMs: expect.any(Number) })))
  })
})
