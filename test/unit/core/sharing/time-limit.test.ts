/** The limit of time of save() and restore(): it has a timer only where somebody waits, and what is aborted says why. */

import { once } from 'node:events'
import { expect, test } from 'vitest'
import { before, TimeLimit } from '../../../helpers/internals.js'

const timers = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length

test('it makes a timer when somebody asks for the signal, and ends it', () => {
  const usual = timers()
  const limit = new TimeLimit(60_000, 'late')
  expect([limit.aborted, timers()]).toEqual([false, usual])
  const { signal } = limit
  expect([signal.aborted, limit.signal, timers()]).toEqual([false, signal, usual + 1])
  limit.end()
  expect(timers()).toBe(usual)
})

test('when the time is over it is aborted, and says so', async () => {
  const limit = new TimeLimit(5, 'it took longer than 5 ms')
  await expect(before(limit, () => new Promise(() => undefined))).rejects.toThrow('it took longer than 5 ms')
  expect([limit.aborted, limit.signal.aborted, (limit.reason as Error).message]).toEqual([true, true, 'it took longer than 5 ms'])
  expect(() => { limit.throwIfAborted() }).toThrow('it took longer than 5 ms')
  limit.end()
})

test('time that passed before somebody waits counts', async () => {
  const limit = new TimeLimit(1, 'late')
  for (const until = performance.now() + 2; performance.now() < until;);
  await once(limit.signal, 'abort')
  limit.end()
})

test('it is aborted with the other signal, whether somebody waits or not, and with its reason', () => {
  const reason = new Error('given up')
  for (const waits of [false, true]) {
    const outer = new AbortController()
    const limit = new TimeLimit(60_000, 'late', outer.signal)
    if (waits) expect(limit.signal.aborted).toBe(false)
    outer.abort(reason)
    expect([limit.aborted, limit.reason, limit.signal.aborted, limit.signal.reason]).toEqual([true, reason, true, reason])
    expect(() => { limit.throwIfAborted() }).toThrow(reason)
    limit.end()
  }
})

test('who asks for the signal after the end gets one without a timer, which is never aborted', () => {
  const usual = timers()
  const outer = new AbortController()
  const limit = new TimeLimit(60_000, 'late', outer.signal)
  limit.end()
  expect([limit.signal.aborted, timers()]).toEqual([false, usual])
  outer.abort(new Error('given up'))
  expect(limit.signal.aborted).toBe(false)
})
