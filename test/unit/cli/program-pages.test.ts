/** When the keeper gives back the pages of its program file: once it is quiet, and again only where it is worth it. */

import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { watchProgramPages } from '../../helpers/internals.js'

const mega = 1e6

let resident: number
let isQuiet: boolean
let drops: number
let answer: number

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  resident = 49 * mega
  isQuiet = true
  drops = 0
  answer = 35 * mega
  const drop = (): number => {
    drops++
    return answer
  }
  watchProgramPages(() => isQuiet, drop, () => resident)
})
afterEach(() => { vi.useRealTimers() })

/** It waits, and uses so much of it again. */
function waits(seconds: number, residentMegabytes: number): void {
  resident = residentMegabytes * mega
  vi.advanceTimersByTime(seconds * 1_000)
}

it('a quiet keeper gives them back once', () => {
  waits(1, 49)
  waits(60, 29)
  expect(drops).toBe(1)
})

it('while a reload runs or a worker boots they stay', () => {
  isQuiet = false
  waits(60, 49)
  expect(drops).toBe(0)
  isQuiet = true
  waits(1, 49)
  expect(drops).toBe(1)
})

it('they are given back again when 8 MB more are resident than the waiting keeper needs', () => {
  waits(1, 49)
  waits(1, 29)
  waits(60, 36)
  expect(drops).toBe(1)
  waits(1, 38)
  expect(drops).toBe(2)
})

it('memory of its own that stays is no reason to do it each second', () => {
  waits(1, 49)
  waits(1, 29)
  waits(60, 100)
  expect(drops).toBe(2)
})

it('a system that cannot is not asked again', () => {
  answer = -38
  waits(60, 49)
  expect(drops).toBe(1)
})
