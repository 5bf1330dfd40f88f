/**
 * Random state for the tests, the same in every version of Node for the same seed, and the comparison that they use: types, values, order of keys and
 * entries, and which places hold the same object. It knows nothing of how state is written.
 */

import { Buffer } from 'node:buffer'
import assert from 'node:assert/strict'
import { types } from 'node:util'
import fc from 'fast-check'

const bytes = fc.uint8Array({ maxLength: 40 })

/** A Buffer in the middle of memory that others share. */
const buffer = bytes.map((array) => Buffer.concat([Buffer.from('before'), array, Buffer.from('after')]).subarray(6, 6 + array.length))

const view = fc.tuple(fc.uint8Array({ minLength: 16, maxLength: 64 }), fc.nat(8), fc.nat(8), fc.constantFrom(DataView, Uint8Array, Int8Array, Uint8ClampedArray))
  .map(([{ buffer: memory }, from, length, Type]) => new Type(memory, from, length))
const wideView = fc.tuple(fc.uint8Array({ minLength: 64, maxLength: 64 }), fc.nat(3), fc.nat(4), fc.constantFrom(Float64Array, BigInt64Array, BigUint64Array, Float32Array, Int16Array, Uint32Array))
  .map(([{ buffer: memory }, from, length, Type]) => new Type(memory, from * 8, length))

const nativeErrors = [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError]
const error = fc.tuple(fc.constantFrom(...nativeErrors), fc.option(fc.string({ unit: 'binary' }), { nil: undefined }), fc.option(fc.string(), { nil: undefined })).map(([Type, message, stack]) => {
  const made = new Type(message)
  if (stack !== undefined) made.stack = stack
  return made
})

const regexp = fc.tuple(fc.constantFrom('a+', '[/]', '\\n\\/', '(?<year>\\d)', '\u2028', '<!--', ''), fc.subarray(['d', 'g', 'i', 'm', 's', 'u', 'y'])).map(([source, flags]) => new RegExp(source, flags.join('')))

/** What one place holds, beside what fast-check makes up itself. */
const leaf = fc.oneof(
  buffer, view, wideView, error, regexp, fc.string({ unit: 'binary' }), fc.date(), fc.bigInt(), bytes.map(({ buffer: memory }) => memory),
  fc.constantFrom(undefined, null, NaN, -0, 0, Infinity, -Infinity, '', '__proto__', Number.MAX_SAFE_INTEGER, 5e-324, Object(1n), Object('boxed'), Object(-0), Object(true), Object(false))
)

const kinds = ['object', 'null', 'array', 'sparse', 'map', 'set', 'error', 'aggregate']
const keys = fc.constantFrom('a', 'b', '__proto__', 'constructor', 'toString', 'length', '0', '7', '', 'ключ', '\u2028', '<', '"')

/** Objects that lead to each other and to themselves. */
const graph = fc.record({
  nodes: fc.array(fc.constantFrom(...kinds), { minLength: 1, maxLength: 8 }),
  edges: fc.array(fc.tuple(fc.nat(7), keys, fc.nat(7), fc.nat(7), fc.option(leaf, { nil: undefined, freq: 2 })), { maxLength: 24 })
}).map(({ nodes, edges }) => {
  const made = nodes.map((kind) => {
    switch (kind) {
      case 'null': return Object.create(null)
      case 'array': return []
      case 'sparse': return new Array(9)
      case 'map': return new Map()
      case 'set': return new Set()
      case 'error': return new RangeError('a node')
      case 'aggregate': return new AggregateError([], 'many')
      default: return {}
    }
  })
  for (const [from, key, to, index, plain] of edges) {
    const node = made[from % made.length]
    const value = plain ?? made[to % made.length]
    if (Array.isArray(node)) node[index] = value
    else if (node instanceof Map) node.set(index % 2 === 0 ? key : made[index % made.length], value)
    else if (node instanceof Set) node.add(value)
    else if (node instanceof AggregateError && index % 2 === 0) node.errors.push(value)
    else if (node instanceof Error) Object.defineProperty(node, 'cause', { value, writable: true, configurable: true, enumerable: false })
    else Object.defineProperty(node, key, { value, writable: true, configurable: true, enumerable: true })
  }
  return made[0]
})

const anything = (more = {}) => fc.anything({
  maxDepth: 4, maxKeys: 6, withBigInt: true, withBoxedValues: true, withDate: true, withMap: true, withObjectString: true, withSet: true, withSparseArray: true, withTypedArray: true,
  key: fc.oneof(fc.string(), keys), ...more
})

/** All that can be state. */
export const state = fc.oneof(leaf, graph, anything({ withNullPrototype: true }), fc.array(leaf), fc.tuple(graph, graph))

/** What structuredClone makes no other type of, so that it can be asked: it knows neither Buffer nor objects without a prototype, nor AggregateError. */
export const cloneable = fc.oneof(anything(), view, wideView, error, regexp)

/** Without fc.assert, as another process has to make the same. */
export const samples = (seed, count) => fc.sample(state, { seed, numRuns: count })

const detail = {
  Map: (value) => [...value].flat(),
  Set: (value) => [...value],
  ArrayBuffer: (value) => [Buffer.from(value).toString('hex')],
  Date: (value) => [value.getTime()],
  RegExp: (value) => [value.source, value.flags],
  Number: (value) => [value.valueOf()],
  String: (value) => [value.valueOf()],
  Boolean: (value) => [value.valueOf()],
  BigInt: (value) => [value.valueOf()]
}

/** Throws where the two differ in anything that a program could see, but the stack of getters, symbols and lastIndex. */
export function assertSame(found, wanted, place = 'state', pairs = new Map(), back = new Map()) {
  if (typeof wanted !== 'object' || wanted === null) {
    assert.ok(Object.is(found, wanted), `${place}: found ${String(found)}, expected ${String(wanted)}`)
    return
  }
  assert.equal(typeof found, 'object', place)
  if (pairs.has(wanted) || back.has(found)) {
    assert.ok(pairs.get(wanted) === found && back.get(found) === wanted, `${place}: not the same object as elsewhere`)
    return
  }
  pairs.set(wanted, found)
  back.set(found, wanted)
  const tag = Object.prototype.toString.call(wanted).slice(8, -1)
  assert.equal(Object.prototype.toString.call(found).slice(8, -1), tag, place)
  assert.ok(Object.getPrototypeOf(found) === Object.getPrototypeOf(wanted), `${place}: another prototype`)
  const go = (a, b, step) => { assertSame(a, b, `${place}${step}`, pairs, back) }
  const all = (a, b) => {
    assert.equal(a.length, b.length, `${place}: another size`)
    b.forEach((_, index) => { go(a[index], b[index], `(${index})`) })
  }
  if (ArrayBuffer.isView(wanted)) {
    assert.deepEqual([Buffer.isBuffer(found), found.byteLength], [Buffer.isBuffer(wanted), wanted.byteLength], place)
    if (Buffer.isBuffer(wanted)) assert.ok(found.equals(wanted), place)
    else {
      assert.equal(found.byteOffset, wanted.byteOffset, place)
      go(found.buffer, wanted.buffer, '.buffer')
    }
  } else if (types.isNativeError(wanted)) {
    assert.deepEqual([found.name, found.message, found.stack, Object.hasOwn(found, 'message'), Object.hasOwn(found, 'cause')], [wanted.name, wanted.message, wanted.stack, Object.hasOwn(wanted, 'message'), Object.hasOwn(wanted, 'cause')], place)
    go(found.cause, wanted.cause, '.cause')
    if (wanted instanceof AggregateError) go(found.errors, wanted.errors, '.errors')
    assert.deepEqual(Object.keys(found), [], place)
  } else if (detail[tag] && tag !== 'Array') {
    all(detail[tag](found), detail[tag](wanted))
  } else {
    // `__proto__` comes last.
    const order = (value) => Object.keys(value).filter((key) => key !== '__proto__').concat(Object.hasOwn(value, '__proto__') ? ['__proto__'] : [])
    assert.deepEqual(order(found), order(wanted), place)
    if (Array.isArray(wanted)) assert.equal(found.length, wanted.length, place)
    for (const key of order(wanted)) go(found[key], wanted[key], `[${JSON.stringify(key)}]`)
  }
}
