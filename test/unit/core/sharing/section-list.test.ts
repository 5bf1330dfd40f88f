/**
 * Small sections in a list: whatever is accepted comes back as it would from a file, what JSON would change goes as text, and what is not
 * small, or is a stream, goes into a file. A list that somebody else made leads to values or to an error.
 */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { asListed, listOf, readList, valueOf } from '../../../helpers/internals.js'
import { assertSame, state } from '../../../helpers/values.mjs'

/** Of a property; CI takes fewer. */
const runs = (usual: number): number => Math.min(usual, Number(process.env['HANDOVER_TEST_RUNS'] ?? usual))
const header = { name: 'users', schema: 3, phase: 'offer', version: '1.2.3', generation: 4 } as const

/** Of one that is small. */
function entryOf(value: unknown): string {
  const found = asListed(header, value, true)
  if (!found || !('entry' in found)) throw new Error('it is not listed')
  return found.entry
}

const there = (value: unknown): unknown => valueOf(readList(listOf(header, [entryOf(value)]), ['users'])[0]!)
const asText = (value: unknown): boolean => (JSON.parse(entryOf(value)) as unknown[]).length === 4

describe('a round trip', () => {
  test('any value comes back the same, and beside it what is known of the one who saved it', () => {
    let [json, text] = [0, 0]
    const some = fc.array(fc.oneof(state, fc.jsonValue()), { minLength: 1, maxLength: 4 })
    fc.assert(fc.property(some, (values) => {
      const names = values.map((_, index) => `section ${index}`)
      const items = readList(listOf(header, values.map(entryOf)), names)
      items.forEach((item, index) => {
        const value = values[index]
        // The bytes alone, not the memory around them.
        assertSame(valueOf(item), value instanceof Uint8Array && !Buffer.isBuffer(value) ? new Uint8Array(value) : value)
        const { savedAt } = item.header
        expect(item.header).toEqual({ ...header, name: names[index], node: process.versions.node, savedAt, items: false })
        expect(Math.abs(savedAt - Date.now())).toBeLessThan(3_600_000)
        if (item.text === undefined) json++
        else text++
      })
    }), { numRuns: runs(500) })
    expect([json > 50, text > 50]).toEqual([true, true])
  })

  test('an object that is at several places is one object again', () => {
    const shared = { is: 'shared' }
    const found = there({ a: shared, list: [shared] }) as { a: unknown; list: unknown[] }
    expect(found.list[0]).toBe(found.a)
    const root: Record<string, unknown> = { name: 'root' }
    root['root'] = root
    expect((there(root) as typeof root)['root']).toMatchObject({ name: 'root' })
    assertSame(there({ one: { a: 1 }, other: { a: 1 } }), { one: { a: 1 }, other: { a: 1 } })
  })

  test('a value is as it was when it was saved', () => {
    const value = { at: 1 }
    const entry = entryOf(value)
    value.at = 2
    expect(valueOf(readList(listOf(header, [entry]), ['users'])[0]!)).toEqual({ at: 1 })
  })
})

test.each<[string, unknown]>([
  ['a text', 'sévén \ud800 \u2028'], ['a number', 7], ['null', null], ['a list', [1, [true, null], {}]], ['an object', { a: { b: 'c' }, 7: 1 }],
  ['a key __proto__', JSON.parse('{"a":{"__proto__":1}}')], ['a property of an array', Object.assign([1, 2], { name: 'x' })]
])('%s goes as JSON', (_, value) => {
  expect(asText(value)).toBe(false)
  assertSame(there(value), Array.isArray(value) ? [...value as unknown[]] : value)
})

test.each<[string, unknown]>([
  ['undefined', undefined], ['undefined in an object', { a: undefined }], ['a hole', [, 1]], ['-0', [-0]], ['NaN', NaN], ['a bigint', [1n]], ['a Date', { at: new Date(0) }], ['a Map', new Map([[1, 2]])], ['a Buffer', Buffer.from('abc')], // eslint-disable-line no-sparse-arrays -- what is tested
  ['bytes', new Uint8Array(3)], ['a getter', { get it() { return 1 } }], ['toJSON(), hidden', Object.defineProperty({ a: 1 }, 'toJSON', { value: undefined })], ['no prototype', Object.create(null)], ['a URL', new URL('http://a/b')], ['an error', new RangeError('no')]
])('%s goes as text', (_, value) => {
  expect(asText(value)).toBe(true)
  if (!(value instanceof Error)) assertSame(there(value), typeof value === 'object' && value !== null && 'it' in value ? { it: 1 } : value)
})

test.each<[string, unknown]>([['a function', { run: () => 1 }], ['a symbol as a key', { [Symbol('x')]: 1 }], ['a class', new (class Own { a = 1 })()]])('%s is refused in words', (_, value) => {
  expect(() => asListed(header, value, true)).toThrow(expect.objectContaining({ code: 'HANDOVER_STATE', message: expect.stringContaining('section "users"') }))
})

test('what is not small is left to a file, with the way that it was encoded, and a stream is left as it is', () => {
  const text = 'x'.repeat(20_000)
  const numbers = Array.from({ length: 20_000 }, (_, id) => id)
  const large = [{ text }, numbers, { at: new Date(0), text }, numbers.map((id) => new Date(id))]
  for (const value of large) expect(asListed(header, value, true)).toMatchObject({ kind: expect.any(Number) as number })
  let begun = false
  function* stream(): Generator<number> {
    begun = true
    yield 1
  }
  const others = [stream(), Buffer.alloc(20_000), Buffer.from(new SharedArrayBuffer(4))]
  for (const value of others) expect(asListed(header, value, true)).toBeUndefined()
  expect(begun).toBe(false)
})

test('a text with any change leads to values or to an error', () => {
  const text = listOf(header, [entryOf({ a: 1 }), entryOf(new Map([[1, 2]]))])
  const harmless = (changed: string): void => {
    let items
    try {
      items = readList(changed, ['a', 'b'])
    } catch {
      return
    }
    for (const item of items) {
      try {
        valueOf(item)
      } catch (error) {
        expect(error).toMatchObject({ code: 'HANDOVER_STATE' })
      }
    }
  }
  const change = fc.property(fc.nat(text.length - 1), fc.string({ maxLength: 2 }), (at, put) => {
    harmless(text.slice(0, at) + put + text.slice(at + 1))
  })
  fc.assert(change, { numRuns: runs(2_000) })
  for (const wrong of ['[]', '{}', '[{"version":null,"node":"20","generation":1},[null,0,1]]', '[{"version":null,"node":"20"},[null,0,1],[null,0,1]]', '[{"version":null,"node":"20","generation":1},7,[null,0,1]]', '[{"version":null,"node":"20","generation":1},[null,0,1,2],[null,0,1]]']) {
    expect(() => readList(wrong, ['a', 'b'])).toThrow()
  }
})
