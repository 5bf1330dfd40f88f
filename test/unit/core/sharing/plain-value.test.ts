/**
 * Plain data in V8's own format: what is accepted comes back as it would from text, with what is shared and in the same order, in however
 * many slices; what V8 would change is refused; bytes that somebody else made lead to a value or to HANDOVER_STATE.
 */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodePlain, decodeState, encodePlain as encode, encodeState, readsPlain } from '../../../helpers/internals.js'
import { assertSame, state } from '../../../helpers/values.mjs'

/** Of a property; CI takes fewer. */
const runs = (usual: number): number => Math.min(usual, Number(process.env['HANDOVER_TEST_RUNS'] ?? usual))
const never = new AbortController().signal
/** However little it is. */
const encodePlain = (value: unknown): Buffer | undefined => encode(value, 0)
const read = (bytes: Buffer): Promise<unknown> => decodePlain(bytes, 'the test', never)

/** What is mostly accepted; with objects that are at several places. */
const { plain } = fc.letrec((tie) => ({
  plain: fc.oneof({ depthSize: 'medium' }, fc.constantFrom(undefined, null, NaN, -0, Infinity, true), fc.string({ unit: 'binary' }), fc.double(), fc.maxSafeInteger(), fc.bigInt(), fc.date(),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)), fc.array(tie('plain'), { maxLength: 6 }), fc.dictionary(fc.string(), tie('plain'), { maxKeys: 5, noNullPrototype: true }),
    fc.array(fc.tuple(tie('plain'), tie('plain')), { maxLength: 5 }).map((entries) => new Map(entries)), fc.array(tie('plain'), { maxLength: 5 }).map((entries) => new Set(entries)),
    tie('plain').map((shared) => [shared, { again: shared }, new Map([[shared, shared]])]))
}))
/** Longer than a slice. */
const long = fc.tuple(plain, fc.integer({ min: 250, max: 1_100 }), fc.array(plain, { maxLength: 5 })).map(([shared, length, some]) => {
  const items = Array.from({ length }, (_, index) => [index, shared, some[index % 7]])
  return [items, new Set<unknown>([...items, shared]), new Map(items.map((item, index) => [`${index}`, item])), { items }]
})

describe('a round trip', () => {
  test('whatever is accepted of any state comes back the same, as from text', async () => {
    let accepted = 0
    await fc.assert(fc.asyncProperty(fc.oneof(state, plain), async (value) => {
      const bytes = encodePlain(value)
      if (!bytes) return
      accepted++
      const found = await read(bytes)
      assertSame(found, value)
      assertSame(found, decodeState(encodeState(value, 'the test'), 'the test'))
    // Some 30 % are accepted.
    }), { numRuns: Math.max(400, runs(2_000)) })
    expect(accepted).toBeGreaterThan(50)
  })

  test('what is longer than a slice comes back the same: what its entries share, too', async () => {
    await fc.assert(fc.asyncProperty(long, async (values) => {
      for (const value of values) {
        const bytes = encodePlain(value)
        if (bytes) assertSame(await read(bytes), value)
      }
    }), { numRuns: runs(40) })
    const shared = { is: 'shared' }
    const sharing = new Map(Array.from({ length: 1_000 }, (_, id) => [id, { shared }]))
    const found = await read(encodePlain(sharing)!) as typeof sharing
    expect(found.get(999)!.shared).toBe(found.get(0)!.shared)
  })

  test.each<[string, (inner: unknown) => unknown]>([
    ['objects', (inner) => ({ inner })], ['arrays', (inner) => [inner]], ['sets', (inner) => new Set([inner])], ['maps', (inner) => new Map([['inner', inner]])]
  ])('a chain of %s that is accepted is read, however long', async (_name, around) => {
    let refused = 0
    for (const length of [500, 1_800, 2_300, 2_800, 3_200]) {
      let chain: unknown = 'end'
      for (let at = 0; at < length; at++) chain = around(chain)
      const bytes = encodePlain(chain)
      if (bytes) await read(bytes)
      else refused++
    }
    expect(refused).toBe(4)
  })

  test('a Buffer shares its memory with nobody', async () => {
    const found = await read(encodePlain({ part: Buffer.from('secret, public').subarray(8) })!) as { part: Buffer }
    expect([Buffer.isBuffer(found.part), String(found.part)]).toEqual([true, 'public'])
    const { part } = await read(encodePlain({ part: Buffer.alloc(100_000, 'x') })!) as { part: Buffer }
    expect([part.buffer.byteLength, part.every((byte) => byte === 120)]).toEqual([100_000, true])
  })

  test('an object that is shared millions of times is looked at once', async () => {
    let tree: object = { leaf: 1 }
    for (let level = 0; level < 40; level++) tree = { left: tree, right: tree }
    assertSame(await read(encodePlain({ tree })!), { tree })
  })
})

function argumentsOf(): unknown {
  return arguments // eslint-disable-line prefer-rest-params -- what is tested
}

class Own { a = 1 }
const cycle = { list: [{}] as unknown[] }
cycle.list.push(cycle)
const rooted = new Map<unknown, unknown>([[1, 2]])
rooted.set('itself', { rooted })
const named = Object.assign([1, 2], { name: 'x' })
let chain: object = {}
for (let at = 0; at < 100_000; at++) chain = { chain }

test.each<[string, unknown]>([
  ['URL', { at: new URL('http://a/b') }], ['a class', [new Own()]], ['a class that extends Map', new (class extends Map<unknown, unknown> {})()], ['a class that extends Array', [new (class extends Array<unknown> {})()]],
  ['a function', { run: () => 1 }], ['a method', { then() { return 1 } }], ['a getter', { get it() { return 1 } }], ['a setter', { set it(_: unknown) { /* nothing */ } }], ['a symbol', [Symbol('x')]], ['a symbol as a key', { [Symbol('x')]: 1 }],
  ['a hole', [Object.assign(new Array(3), [1])]], ['only holes', [new Array(3)]], ['a property of an array', [named]], ['no prototype', { a: Object.create(null) as object }], ['another prototype', Object.create({ a: 1 })],
  ['a key __proto__', JSON.parse('{"a":{"__proto__":1}}')], ['an error', { last: new Error('x') }], ['a RegExp', [/a/g]], ['a boxed number', [Object(1)]], ['an ArrayBuffer', [new ArrayBuffer(4)]], ['a typed array', [new Float64Array(4)]],
  ['a Uint8Array', [new Uint8Array(4)]], ['memory of threads', { bytes: Buffer.from(new SharedArrayBuffer(4)) }], ['memory of threads itself', [new SharedArrayBuffer(4)]], ['a proxy', [new Proxy({ a: 1 }, {})]], ['a proxy of a Map', new Proxy(new Map(), {})],
  ['a promise', [Promise.resolve(1)]], ['a WeakMap', [new WeakMap()]], ['a cycle', cycle], ['a Map that leads to itself', rooted], ['a long chain', chain], ['arguments', [argumentsOf()]],
  ['an error as a plain object', [Object.setPrototypeOf(new Error('x'), Object.prototype)]], ['process.env', { env: process.env }], ['a namespace', { fc: await import('fast-check') }], ['a primitive', 7], ['a text', 'seven'], ['nothing', null],
  ['what comes late', new Map(Array.from({ length: 5_000 }, (_, id) => [id, id === 4_999 ? new Own() : { id }]))]
])('%s is left to text', (_, value) => {
  expect(encodePlain(value)).toBeUndefined()
})

test('what has few objects is left to text, which is as fast', () => {
  expect([encode([{ a: 1 }]), encode(new Map([[1, [2]]])), encode({}), encode([])]).toEqual([undefined, undefined, undefined, undefined])
  expect(encode(Array.from({ length: 100 }, () => [])) instanceof Buffer).toBe(true)
})

test('an array leaves behind what was added to it beside its items, as in text', async () => {
  assertSame(await read(encodePlain(named)!), [1, 2])
})

test('bytes with any change, or a part of them, lead to a value or to HANDOVER_STATE', async () => {
  const bytes = encodePlain(new Map<unknown, unknown>([['a', { text: 'é€', n: 1.5, big: 12n ** 9n, at: new Date(0), list: [1, [2]], bytes: Buffer.from('abc') }], ['b', new Set([1])]]))!
  const harmless = async (changed: Buffer): Promise<void> => {
    await read(changed).catch((error: unknown) => { expect(error).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringMatching(/^the state of the test cannot be read by this process/) }) })
  }
  const change = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255))
  await fc.assert(fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
    const changed = Buffer.from(bytes)
    for (const [at, byte] of changes) changed[at] = byte
    await harmless(changed)
  }), { numRuns: runs(2_000) })
  for (let end = 0; end < bytes.length; end++) await harmless(bytes.subarray(0, end))
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
})

test('reading ends with the reason of the signal', async () => {
  const abort = new AbortController()
  const reason = new Error('given up')
  const bytes = encodePlain(Array.from({ length: 300_000 }, (_, id) => ({ id, list: [id] })))!
  setImmediate(() => { abort.abort(reason) })
  await expect(decodePlain(bytes, 'the test', abort.signal)).rejects.toBe(reason)
})

test('only a V8 that is as new as this one reads it', () => {
  const [major, minor] = process.versions.v8.split('.').map(Number) as [number, number]
  expect([process.versions.v8, `${major}.${minor + 1}.0`, `${major + 1}.0.0`, '99.1'].map(readsPlain)).toEqual([true, true, true, true])
  expect([undefined, '', 'x.y', `${major - 1}.99.0`, ...(minor > 0 ? [`${major}.${minor - 1}.9`] : [])].some(readsPlain)).toBe(false)
})
