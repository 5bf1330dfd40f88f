/**
 * What a reload may cost, in counts that a busy machine does not change: test/budget.json has the most, and `npm run bench -- counts`
 * shows what it is. A change that needs more raises the budget in the same commit, and says why.
 */

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { countCosts } from '../../helpers/internals.js'
import { root } from '../../helpers/world.js'

// What Node itself loads and calls differs between its versions.
test.runIf(process.versions.node.startsWith('20.'))('a reload stays within the budget of files, messages and system calls', async ({ skip }) => {
  const counts = await countCosts()
  if (!counts) return skip('strace is not installed, or may not trace here')
  const budget = JSON.parse(readFileSync(path.join(root, 'test/budget.json'), 'utf8')) as Record<string, number>
  expect(Object.keys(counts)).toEqual(Object.keys(budget))
  const over = Object.entries(counts).filter(([name, value]) => value > budget[name]!).map(([name, value]) => `${name}: ${value}, budget ${budget[name]}`)
  expect(over).toEqual([])
})
