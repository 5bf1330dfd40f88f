/**
 * State that is large: it holds up the event loop for no longer than it must, is given up in the middle of one item, and is refused in
 * words where it is too much for text. These compare times, or take seconds of the processor: so they are not among the unit tests.
 */

import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { readSection, writeSection } from '../../helpers/internals.js'
import { refusal } from '../../helpers/refusal.js'

const header = { name: 'users', schema: 3, phase: 'final', version: '1.2.3', generation: 4 } as const
const never = new AbortController().signal

const write = (value: unknown, options: Partial<Parameters<typeof writeSection>[2]> = {}): ReturnType<typeof writeSection> =>
  writeSection(header, value, { maxBytes: 2 ** 32, signal: never, ...options })

test('a chain that is too long for recursion, a getter that throws and a text longer than a string are refused in words', () => {
  let chain: object = {}
  for (let at = 0; at < 100_000; at++) chain = { chain }
  expect(refusal(chain)).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('is nested too deeply to be written down') })
  const thrower = { get it() { throw new Error('by the getter') } }
  expect(refusal(thrower)).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('cannot be read: by the getter') })
  const long = 'x'.repeat(200_000_000)
  expect(refusal([long, `${long}y`, `${long}z`])).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('is longer as text than a string can be') })
})

test('writing is given up by the signal while one large item is written', async () => {
  for (const large of [Buffer.alloc(64_000_000), ['x'.repeat(64_000_000)]]) {
    const abort = new AbortController()
    const reason = new Error('given up')
    await expect(write(large, { signal: abort.signal, progress: () => { abort.abort(reason) } })).rejects.toBe(reason)
  }
})

describe('the event loop', () => {
  /** Of the processor, in milliseconds: what else the machine does is not counted. */
  const busyMs = (): number => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1_000
  }

  /** The longest time for which the loop was held up meanwhile. */
  async function stallOf(work: () => unknown): Promise<number> {
    let longest = 0
    let last = busyMs()
    let over = false
    const look = (): void => {
      const now = busyMs()
      longest = Math.max(longest, now - last)
      last = now
      if (!over) setImmediate(look)
    }
    setImmediate(look)
    await work()
    await sleep(1)
    over = true
    // A timer may come before the immediate.
    look()
    return longest
  }

  /** The least of a few: what else the process does can only make it longer. */
  async function leastStallOf(work: () => unknown): Promise<number> {
    let least = Infinity
    for (let round = 0; round < 4; round++) least = Math.min(least, await stallOf(work))
    return least
  }

  test('is held up by a stream for a small part of what one value of the same amount takes', async () => {
    const record = (id: number): unknown => ({ id, name: `user ${id}`, tags: ['a', 'b'], seen: new Date(id) })
    const count = 50_000
    const all = Array.from({ length: count }, (_, id) => record(id))
    let seen = 0
    const json = await leastStallOf(() => JSON.parse(JSON.stringify(all)) as unknown)
    const value = await leastStallOf(async () => { closeSync((await write(all)).fd) })
    const written = await leastStallOf(async () => { closeSync((await write(all.values())).fd) })
    const read = await leastStallOf(async () => {
      seen = 0
      const { value: stream } = await readSection((await write(all.values())).fd, { signal: never })
      for await (const _ of stream as AsyncIterable<unknown>) seen++
    })
    console.log(`longest stall for ${count} records: JSON ${Math.round(json)} ms, one value ${Math.round(value)} ms, written as a stream ${Math.round(written)} ms, written and read ${Math.round(read)} ms`)
    expect(seen).toBe(count)
    expect(Math.max(written, read)).toBeLessThan(value / 3)
    expect(Math.max(written, read)).toBeLessThan(json)
  })
})
