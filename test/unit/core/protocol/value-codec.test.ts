/**
 * State as text: what goes in comes out, with the same types, order and identities; what cannot is refused with the path to it; and no
 * text can reach a prototype. Other versions of Node are in integration/sharing/between-versions, what takes long by its size in
 * integration/sharing/large-values.
 */

import assert from 'node:assert/strict'
import net from 'node:net'
import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeState, encodeState } from '../../../helpers/internals.js'
import { refusal } from '../../../helpers/refusal.js'
import { assertSame, cloneable, state } from '../../../helpers/values.mjs'

/** Of a property; CI takes fewer. */
const runs = (usual: number): number => Math.min(usual, Number(process.env['HANDOVER_TEST_RUNS'] ?? usual))

const roundTrip = (value: unknown): unknown => decodeState(encodeState(value, 'the test'), 'the test')
describe('a round trip', () => {
  test('any state comes back the same: types, order, holes, cycles and what is shared', () => {
    fc.assert(fc.property(state, (value) => { assertSame(roundTrip(value), value) }), { numRuns: runs(2_000) })
  })

  test('what structuredClone copies comes back as its copy', () => {
    fc.assert(fc.property(cloneable, (value) => {
      assert.deepStrictEqual(roundTrip(value), structuredClone(value))
    }), { numRuns: runs(1_000) })
  })

  test('a Buffer comes back as a Buffer that shares its memory with nobody', () => {
    const pool = Buffer.from('secret, public')
    const text = encodeState({ part: pool.subarray(8) }, 'the test')
    const { part } = decodeState(text, 'the test') as { part: Buffer }
    expect([Buffer.isBuffer(part), String(part), part.buffer.byteLength]).toEqual([true, 'public', 6])
    expect(text).not.toContain(pool.toString('base64').slice(0, 6))
  })

  test('views of the same memory share it afterwards', () => {
    const memory = new ArrayBuffer(16)
    const { all, half } = roundTrip({ all: new Uint8Array(memory), half: new DataView(memory, 8, 4) }) as {
      all: Uint8Array; half: DataView
    }
    all[8] = 7
    expect([half.getUint8(0), half.byteOffset, half.byteLength]).toEqual([7, 8, 4])
  })

  test('an error keeps its type, message, stack, cause and what it leads to, though it leads back', () => {
    const error = new TypeError('outer', { cause: new RangeError('inner') })
    const found = roundTrip({ last: error, again: error }) as { last: Error; again: Error }
    expect(found.last).toBe(found.again)
    expect(found.last).toBeInstanceOf(TypeError)
    expect([found.last.message, found.last.stack, Object.keys(found.last)]).toEqual(['outer', error.stack, []])
    expect(found.last.cause).toBeInstanceOf(RangeError)

    const round: Error = new Error('round')
    round.cause = { by: new Map([[round, 1]]) }
    const back = roundTrip(round) as Error & { cause: { by: Map<Error, number> } }
    expect([...back.cause.by.keys()]).toEqual([back])

    const many = roundTrip(new AggregateError([new SyntaxError('a'), 2], 'many')) as AggregateError
    expect(many).toBeInstanceOf(AggregateError)
    expect([many.errors[0] instanceof SyntaxError, many.errors[1], many.message]).toEqual([true, 2, 'many'])
  })

  test('an error of a class of its own comes back as the native type that it extends, with its name', () => {
    class Refused extends RangeError {
      override name = 'Refused'
    }
    const found = roundTrip(new Refused('no')) as Error
    expect([Object.getPrototypeOf(found) === RangeError.prototype, found.name, found.message]).toEqual([true, 'Refused', 'no'])
    const aborted = roundTrip(AbortSignal.abort().reason) as Error
    expect([aborted instanceof Error, aborted.name, aborted.message]).toEqual([true, 'AbortError', 'This operation was aborted'])
  })

  test('URL and URLSearchParams come back', () => {
    const found = roundTrip({ at: new URL('http://a/b?c=d'), by: new URLSearchParams('a=1&a=2') }) as { at: URL; by: URLSearchParams }
    expect([found.at.href, found.by.getAll('a')]).toEqual(['http://a/b?c=d', ['1', '2']])
  })
})

describe('what cannot be written', () => {
  class Own {}
  const cycle = { list: [{}] as unknown[] }
  cycle.list.push(cycle, { run: () => 1 })
  test.each<[what: string, path: string, value: unknown]>([
    ['a function', 'users[3].socket', { users: [{}, {}, {}, { socket: () => 1 }] }],
    ['a function', 'list[2].run', cycle],
    ['a function', 'then', { then: () => 1 }],
    ['a symbol', 'a', { a: Symbol('x') }],
    ['an object with symbols as keys', 'a', { a: { [Symbol('x')]: 1 } }],
    ['an instance of PassThrough', 'get("key").body', new Map([['key', { body: new PassThrough() }]])],
    ['an instance of Socket', 'get(7)[0]', new Map([[7, [new net.Socket()]]])],
    ['an instance of Own', 'keys()[1].own', new Map<unknown, unknown>([[1, 2], [{ own: new Own() }, 3]])],
    ['an instance of Own', 'get(...).own', new Map([[{}, { own: new Own() }]])],
    ['an instance of WeakMap', 'seen.values()[1]', { seen: new Set([1, new WeakMap()]) }],
    ['an instance of Promise', '["a b"]', { 'a b': Promise.resolve() }],
    ['an instance of Own', 'last.cause.of', { last: new Error('x', { cause: { of: new Own() } }) }],
    ['a function', 'errors[1]', new AggregateError([1, () => 1])],
    ['an instance of Own', '__proto__.own', JSON.parse('{"__proto__":{}}', (key, value: object) => key === '__proto__' ? { own: new Own() } : value)],
    ['an instance of WeakRef', 'ref', { ref: new WeakRef({}) }]
  ])('%s at %s is refused with the path', (what, place, value) => {
    const { code, message, ...parts } = refusal(value)
    expect(code).toBe('HANDOVER_STATE')
    expect(message).toMatch(`the state of the test holds ${what} at ${place}, which cannot go to another process. Nothing was changed. Give plain data`)
    expect(parts).toMatchObject({ what: expect.stringMatching(/another process$/), serving: 'Nothing was changed', todo: expect.stringMatching(/^Give plain data/) })
  })

  test.each<[what: string, place: string, value: unknown]>([
    ['an instance of Uint8Array over a SharedArrayBuffer at bytes', 'in an object', { bytes: new Uint8Array(new SharedArrayBuffer(4)) }],
    ['an instance of Buffer over a SharedArrayBuffer at list[1]', 'as a Buffer', { list: [1, Buffer.from(new SharedArrayBuffer(4))] }],
    ['an instance of DataView over a SharedArrayBuffer', 'as a view', new DataView(new SharedArrayBuffer(4))],
    ['an instance of SharedArrayBuffer at memory', 'itself', { memory: new SharedArrayBuffer(4) }]
  ])('%s, %s, is refused: a copy would go on alone', (what, _place, value) => {
    const { code, message } = refusal(value)
    expect(code).toBe('HANDOVER_STATE')
    expect(message).toContain(`the state of the test holds ${what}, which cannot go to another process. Nothing was changed. Give a copy`)
  })

  test('what stands behind a getter or a proxy that throws is refused all the same, and so is what throws no error', () => {
    const trap = new Proxy({}, { ownKeys() { throw new Error('by the proxy') } })
    for (const state of [{ deep: { deep: { run: () => 1 } }, get late() { throw new Error('by the getter') } }, { deep: { deep: { run: () => 1 } }, trap }]) {
      expect(refusal(state)).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('holds a function, which cannot go to another process') })
    }
    for (const thrown of [null, undefined, 'text']) {
      expect(refusal({ get it() { throw thrown } })).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining(`cannot be read: ${thrown}`) })
    }
  })

  test('a value that cannot be written at all is refused without a path', () => {
    expect(refusal(() => 1).message).toMatch(/^the state of the test holds a function, which/)
    expect(refusal(new Own()).message).toMatch(/^the state of the test holds an instance of Own, which/)
  })
})

describe('a text that somebody else made', () => {
  const untouched = (): unknown[] => [Object, Array, Map, Set, Error, Buffer, Uint8Array, Function].map(
    ({ prototype }) => Reflect.ownKeys(prototype).length
  )

  test.each([
    ['[{"__proto__":1},{"polluted":2},true]'], ['[["null","__proto__",1],{"polluted":2},true]'], ['[["Linked",1],[2,3],{},["Map",2,4],[5,6],"__proto__",{"polluted":7},true]'],
    ['[["Linked",1],[2,3],1,["Map",2,4],[5,6],"polluted",true]'], ['[["Linked",0]]'], ['[["Error",1],{"type":2,"name":2},"__proto__"]'], ['[["Error",1],{"type":2},"constructor"]'],
    ['[["constructor",1],1]'], ['[["__proto__",1],1]'], ['[["Buffer",1],4294967296]'], ['[["Buffer",1],["Uint8Array",2],["ArrayBuffer","AAAA"]]'], ['[["ArrayBuffer","!"]]'], ['[[-7,4294967295,0,1],1]'],
    ['[["Error",1],["Error",0]]'], ['[["Linked",1],[2,2],[]]'], ['{'], [''], ['[]'], ['[{"a":9}]'], ['null']
  ])('%s is refused or read, and touches no prototype', (text) => {
    const before = untouched()
    try {
      const value = decodeState(text, 'the test')
      const prototypes = [Object, Array, Error, Buffer, ArrayBuffer].map(({ prototype }) => prototype as unknown)
      // Not toContain(), which would print them.
      if (typeof value === 'object' && value !== null) assert.ok(prototypes.includes(Object.getPrototypeOf(value)), 'an object of another kind')
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      expect(error).toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringMatching(/^the state of the test cannot be read by this process \(Node v\d/) })
    }
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
    expect(untouched()).toEqual(before)
  })

  test('any change to a text leads to a value or to HANDOVER_STATE, and to no prototype', () => {
    const before = untouched()
    const words = ['"__proto__"', '"constructor"', '"Linked"', '"Error"', '"Map"', '"null"', '0', '1', '-7', '[', '{', ',']
    fc.assert(fc.property(state, fc.nat(), fc.nat(30), fc.constantFrom(...words), (value, at, length, word) => {
      const text = encodeState(value, 'the test')
      const start = at % text.length
      try {
        decodeState(text.slice(0, start) + word + text.slice(start + length), 'the test')
      } catch (error) {
        expect((error as { code: string }).code).toBe('HANDOVER_STATE')
      }
    }), { numRuns: runs(1_000) })
    expect(untouched()).toEqual(before)
  })
})
