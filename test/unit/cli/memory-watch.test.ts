/** The memory limit of workers: what is reloaded, when, and how seldom where that does not help. */

import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { watchMemory, type Worker } from '../../helpers/internals.js'

const mega = 1_048_576
const workerOf = (slot: number): Worker => ({ slot, pid: 100 + slot, who: `process ${100 + slot} (generation 1)` }) as Worker

beforeEach(() => { vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'performance'] }) })
afterEach(() => { vi.useRealTimers() })

interface World {
  readonly workers: Worker[]
  readonly memory: Map<number, number>
  readonly reloaded: number[]
  readonly said: string[]
  quiet: boolean
  reload: (worker: Worker) => Promise<boolean>
}

function watched(): World & { readonly end: () => void } {
  const world: World = {
    workers: [workerOf(0), workerOf(1)], memory: new Map(), reloaded: [], said: [], quiet: true, reload: () => Promise.resolve(true)
  }
  const end = watchMemory(100 * mega, {
    servers: () => world.workers,
    isQuiet: () => world.quiet,
    reload: (worker) => {
      world.reloaded.push(worker.slot)
      return world.reload(worker)
    },
    warn: (line) => { world.said.push(line) },
    memoryOf: ({ slot }) => Promise.resolve((world.memory.get(slot) ?? 50) * mega)
  })
  return Object.assign(world, { end })
}

it('a worker that stays above the limit is reloaded, and it is said; a peak is forgiven', async () => {
  const world = watched()
  world.memory.set(1, 150)
  await vi.advanceTimersByTimeAsync(2_000)
  world.memory.set(1, 90)
  await vi.advanceTimersByTimeAsync(1_000)
  world.memory.set(1, 150)
  await vi.advanceTimersByTimeAsync(2_000)
  expect(world.reloaded).toEqual([])
  await vi.advanceTimersByTimeAsync(1_000)
  expect(world.reloaded).toEqual([1])
  expect(world.said).toEqual(['process 101 (generation 1) has 150 MB of memory, more than --max-memory (100 MB): its slot is reloaded'])
  world.end()
  world.memory.set(0, 150)
  await vi.advanceTimersByTimeAsync(10_000)
  expect(world.reloaded).toEqual([1])
})

it('one is reloaded at a time, and none while something else runs', async () => {
  const world = watched()
  world.memory.set(0, 150).set(1, 150)
  let over = (): void => undefined
  world.reload = () => new Promise((resolve) => { over = () => { resolve(true) } })
  world.quiet = false
  await vi.advanceTimersByTimeAsync(10_000)
  expect(world.reloaded).toEqual([])
  world.quiet = true
  await vi.advanceTimersByTimeAsync(20_000)
  expect(world.reloaded).toEqual([0])
  world.memory.set(0, 50)
  over()
  await vi.advanceTimersByTimeAsync(1_000)
  expect(world.reloaded).toEqual([0, 1])
  over()
})

it('a reload that fails or does not help is tried again after a minute, and then more and more seldom', async () => {
  const world = watched()
  world.memory.set(0, 150)
  world.reload = () => Promise.reject(new Error('it does not start'))
  await vi.advanceTimersByTimeAsync(3_600_000)
  expect(world.reloaded.length).toBeGreaterThan(3)
  expect(world.reloaded.length).toBeLessThan(8)
  expect(world.said).toContainEqual('slot 0 could not be reloaded for its memory, and goes on as before; the next try is in 60 s at the earliest')
  world.end()
})
