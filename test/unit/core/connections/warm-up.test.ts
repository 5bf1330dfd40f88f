/** What a spare does before it waits: Node's code and ours serve requests of its own, and nothing of them is left. */

import { channel } from 'node:diagnostics_channel'
import { readdirSync } from 'node:fs'
import net from 'node:net'
import { expect, test } from 'vitest'
import { requestCounts, warmUp } from '../../../helpers/internals.js'

const answers = channel('http.server.response.finish')

/** How many requests were answered. */
function warmed(): number {
  let answered = 0
  const count = (): void => { answered++ }
  answers.subscribe(count)
  warmUp()
  answers.unsubscribe(count)
  return answered
}

const seen = (): unknown => [{ ...requestCounts }, readdirSync('/proc/self/fd'), process.getActiveResourcesInfo().sort()]

test.runIf(process.platform === 'linux')('answers requests, and keeps no count, descriptor or handle of them', () => {
  warmUp() // loads what is loaded once
  const before = seen()
  expect(warmed()).toBeGreaterThan(0)
  expect(seen()).toEqual(before)
})

test.each([['_tickCallback', process], ['_createServerHandle', net]])('does nothing in a Node without %s', (name, owner) => {
  const before = { ...requestCounts }
  const real = Object.getOwnPropertyDescriptor(owner, name)!
  Object.defineProperty(owner, name, { ...real, value: undefined })
  try {
    expect(warmed()).toBe(0)
  } finally {
    Object.defineProperty(owner, name, real)
  }
  expect(requestCounts).toEqual(before)
})
