/** share(): what the predecessor knew, the successor knows before it serves; and what cannot go along changes nothing. */

import { afterEach, describe, expect, it } from 'vitest'
import { nothingLost } from '../helpers/invariants.js'
import { Sharing } from './sharing.js'

const simple = (value: string, more = ''): string => `handover.share('thing', { save: () => (${value}), restore: (value, info) => { memory.value = value; memory.info = info }, ${more} })`

let app: Sharing | undefined
afterEach(async () => { await app?.[Symbol.asyncDispose]() })

describe('a section', () => {
  it('is restored before the successor serves, with what is known of the one who saved it', async () => {
    app = await Sharing.start(simple(`{ users: new Map([['ann', { seen: new Date(0), bytes: Buffer.from('abc'), big: 12n }]]), tags: new Set([1, 2]) }`, 'schema: 3'), { env: { HANDOVER_VERSION: '1.2.3' } })
    const before = await app.get('/memory')
    expect(before.body['value']).toBeUndefined()
    expect(await app.reload()).toEqual({ restored: ['thing'], unclaimed: [], failed: [] })
    const { body, generation } = await app.get('/memory')
    expect(generation).toBe(2)
    expect(body.text).toContain(`Map(1) {\n      'ann' => {\n        seen: 1970-01-01T00:00:00.000Z,\n        bytes: <Buffer 61 62 63>,\n        big: 12n`)
    expect(body['info']).toMatchObject({ phase: 'offer', version: '1.2.3', schema: 3, generation: 1, node: process.versions.node })
    nothingLost(await app.loadResult())
  })

  it('may be saved and restored asynchronously, and shared as an instance of a class', async () => {
    const code = `class Store { data = []; async save() { await new Promise(setImmediate); return this.data } async restore(value) { await new Promise((done) => setTimeout(done, 50)); this.data = value; memory.data = value } add(n) { this.data.push(n) } }
      const store = new Store(); handover.share('store', store); store.add(handover.generation)`
    app = await Sharing.start(code)
    await app.reload()
    await app.reload()
    expect((await app.get('/memory')).body['data']).toEqual([1])
    nothingLost(await app.loadResult())
  })
})
