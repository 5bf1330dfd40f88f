/** The mark of a worker: keepers and workers of different versions write and read the same text. */

import { expect, it } from 'vitest'
import { parseKeeperMark, workerWords } from '../../../helpers/internals.js'

it('a worker reads what its keeper wrote, and the text is as in PROTOCOL.md', () => {
  const place = { slot: 2, keeper: 4120, name: 'shop, the second' }
  const text = [17, 18, ...workerWords(place)].join(',')
  expect(text).toBe('17,18,2,4120,shop, the second')
  expect(parseKeeperMark(text)).toEqual({ messages: 17, descriptors: 18, ...place })
})

it.each(['', '17,18', '17,18,2,4120', '17,x,2,4120,shop', '-1,18,2,4120,shop'])('%j is no mark', (text) => {
  expect(parseKeeperMark(text)).toBeUndefined()
})
