/** The clock of requests: exact where few ask, the same for all where many ask, and never behind for long. */

import { createRequire } from 'node:module'
import { setTimeout as later } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { coarseNow } from '../../../helpers/internals.js'

/** The time has gone on. */
function spin(): void {
  for (const from = performance.now(); performance.now() === from;);
}

/** Few ask now, also where other tests of this worker asked often before: soon it is read each time again. */
async function settled(now = coarseNow): Promise<void> {
  for (let from = performance.now(); now() < from; from = performance.now()) await later(1)
}

test('where few ask it is read each time', async () => {
  await settled()
  for (let at = 0; at < 10; at++) {
    const from = performance.now()
    spin()
    expect(coarseNow()).toBeGreaterThan(from)
  }
})

test('where many ask it is the same for a while, and then goes on', async () => {
  let last = coarseNow()
  for (let again = 0; again < 3;) {
    spin()
    const now = coarseNow()
    again = now === last ? again + 1 : 0
    last = now
  }
  while (coarseNow() === last) await later(1)
  await settled()
})

test('where many ask for the first time while the timers of the program are other ones, it goes on all the same', async () => {
  // A clock of its own, which has no timer yet.
  const require = createRequire(import.meta.url)
  const file = require.resolve('../../../../packages/core/dist/platform/coarse-clock.js')
  const { [file]: others } = require.cache
  Reflect.deleteProperty(require.cache, file)
  const { coarseNow: now } = require(file) as { coarseNow: typeof coarseNow }
  require.cache[file] = others
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    for (let reads = 0; reads < 1_000; reads++) now()
  } finally {
    vi.useRealTimers()
  }
  await settled(now)
})
