/** Programs that add to the prototypes of all objects, as some old packages do. */

import { expect, test } from 'vitest'
import { runPlain } from './plain-and-preloaded.js'

const names = ['@handover/core', '@handover/core/fd', '@handover/core/ws', '@handover/core/internal', '@handover/fastify', '@handover/express', '@handover/prom-client']

test('every package loads after a program has added to Object.prototype, and exports what it does without', async () => {
  const text = (added: string): string => `${added}; console.log(JSON.stringify(${JSON.stringify(names)}.map((name) => Object.keys(require(name)))))`
  const [plain, extended] = await Promise.all(['', 'Object.prototype.extra = 1; Array.prototype.last = 2'].map((added) => runPlain(['-e', text(added)], { cwd: import.meta.dirname })))
  expect(extended).toEqual(plain)
  expect(plain).toMatchObject({ status: 0, stderr: '' })
})
