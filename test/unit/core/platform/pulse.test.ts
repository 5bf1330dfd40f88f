/** When a successor counts as one that hangs: over faked time, since it is about time alone. */

import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Pulse } from '../../../helpers/internals.js'

beforeEach(() => { vi.useFakeTimers() })
afterEach(() => { vi.useRealTimers() })

function started({ answers }: { answers: boolean }): {
  pulse: Pulse; seen: { asked: number; hangs: number }; answer(is: boolean, debugged?: boolean): void
} {
  const seen = { asked: 0, hangs: 0 }
  let [isAnswering, isDebugged] = [answers, false]
  const pulse: Pulse = new Pulse({
    pid: 0,
    ask: () => {
      seen.asked++
      if (isAnswering) queueMicrotask(() => { pulse.heard(isDebugged) })
    },
    hangs: () => { seen.hangs++ }
  })
  return { pulse, seen, answer: (is, debugged = false) => { [isAnswering, isDebugged] = [is, debugged] } }
}

it('one that answers is asked again and again, and does not hang', async () => {
  const { pulse, seen } = started({ answers: true })
  await vi.advanceTimersByTimeAsync(20_000)
  expect(seen.hangs).toBe(0)
  expect(seen.asked).toBeGreaterThan(20)
  pulse.stop()
})

it('one that stops to answer hangs three seconds later, once', async () => {
  const { seen, answer } = started({ answers: true })
  await vi.advanceTimersByTimeAsync(5_000)
  answer(false)
  await vi.advanceTimersByTimeAsync(2_900)
  expect(seen.hangs).toBe(0)
  await vi.advanceTimersByTimeAsync(1_500)
  expect(seen.hangs).toBe(1)
  await vi.advanceTimersByTimeAsync(20_000)
  expect(seen.hangs).toBe(1)
})

it('one that can stand at a breakpoint never hangs', async () => {
  const { pulse, seen, answer } = started({ answers: true })
  answer(true, true)
  await vi.advanceTimersByTimeAsync(1_000)
  answer(false)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(seen.hangs).toBe(0)
  pulse.stop()
})

it('the time in which this process itself stood still, or the machine slept, does not count', () => {
  const { pulse, seen } = started({ answers: false })
  vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 3_600_000)
  vi.advanceTimersByTime(500)
  expect(seen.hangs).toBe(0)
  pulse.stop()
  vi.restoreAllMocks()
})

it('the next answer is told to whoever waits for it', async () => {
  const { pulse, answer } = started({ answers: false })
  let told = 0
  pulse.afterAnswer(() => { told++ })
  await vi.advanceTimersByTimeAsync(1_000)
  expect(told).toBe(0)
  answer(true)
  pulse.heard(false)
  expect(told).toBe(1)
  pulse.stop()
})
