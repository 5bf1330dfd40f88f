/** What the demo and the benches wait for: as long as something moves, and then with words that help. */

import { startLoad } from '@handover/load'
import { expect, test } from 'vitest'
import { waitWhileItMoves, workOf } from '../../helpers/internals.js'

test('waits far longer than its time of quiet while something moves, and resolves with what is found', async () => {
  let moved = 0
  let looks = 0
  const quietMs = 100
  const begun = performance.now()
  const found = await waitWhileItMoves({ what: 'it', look: () => (performance.now() - begun > 4 * quietMs && ++looks > 1 ? 'found' : undefined), moves: () => String(moved++), quietMs, todo: '' })
  expect(found).toBe('found')
})

test('gives up where nothing moves any more, and says what did not come, what was seen last, what to do, and what the server wrote', async () => {
  await expect(waitWhileItMoves({ what: 'an answer of version 2', look: () => undefined, moves: () => '3 answers', quietMs: 50, todo: 'See what the server wrote.', cause: () => 'its last line' }))
    .rejects.toMatchObject({ message: expect.stringMatching(/^an answer of version 2 did not come: nothing has moved for [\d.]+ s \(last seen: 3 answers\)\. See what the server wrote\.$/) as string, cause: 'its last line' })
})

test('gives up in the end where something moves for ever and comes to nothing', async () => {
  let moved = 0
  await expect(waitWhileItMoves({ what: 'it', look: () => undefined, moves: () => String(moved++), quietMs: 10_000, mostMs: 100, todo: 'Stop it.' }))
    .rejects.toThrow(/^it did not come: it has moved all the time, and came to nothing in 0\.1 s/)
})

test.runIf(process.platform === 'linux')('sees whether a process works', () => {
  expect(workOf([process.pid])).toMatch(new RegExp(`^process ${process.pid} in state [RSD] after \\d+ ms of work$`))
  expect(workOf([])).toBe('no process lives')
})

test('a condition of a load that does not come true is named in the error', async () => {
  const load = startLoad({ host: '127.0.0.1', port: 1 }, { keepAlive: { clients: 1, thinkMs: 1_000 } })
  try {
    await expect(load.until(({ answers }) => answers > 417, 50)).rejects.toThrow(/this did not hold within 50 ms: .*answers > 417.*; the load saw /)
  } finally {
    await load.stop()
  }
})
