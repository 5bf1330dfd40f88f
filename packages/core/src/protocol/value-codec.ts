/**
 * The state of an application as text, in the format of the package devalue: everything of JavaScript that structured clone knows, and URL;
 * cycles and the same object twice too. The same in every version of Node, as far as that version knows the type (Float16Array: 24,
 * Temporal: 26).
 *
 * Beyond devalue: a Buffer comes back as a Buffer with memory of its own; an Error as the nearest native type, with name, message, stack,
 * cause and the errors of an AggregateError; a key `__proto__` as a property of the object itself, never as its prototype. As in structured
 * clone, RegExp.lastIndex, other properties of errors, and the class of what extends Map, Set, Array or Date are left behind; and
 * properties with names that somebody gave to an array.
 */

import { types } from 'node:util'
import { HandoverError, textOf } from '../errors.js'

interface Shape {
  readonly kind: 'plain' | 'null-proto' | 'not-plain' | 'symbol-keys'
  readonly keys?: readonly string[]
}

type Table = Readonly<Record<string, (value: never) => unknown>>

/** The part of it that is used. Its types are written for ES modules. */
interface Devalue {
  readonly stringify: (value: unknown, reducers: Table, options?: { operations: Table }) => string
  parse(text: string, revivers: Table): unknown
  readonly defaultStringifyOperations: { shapeOf(value: object): Shape }
}

let loaded: Devalue | undefined
// The bundle has it, evaluated where it is first used.
// eslint-disable-next-line @typescript-eslint/no-require-imports -- this file is CommonJS, and import() would be asynchronous
const devalue = (): Devalue => (loaded ??= require('devalue') as Devalue)

const errorTypes = new Map<unknown, (message?: string) => Error>([
  ...[Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError]
    .map((type) => [type.name, (message?: string) => new type(message)] as const),
  ['AggregateError', (message) => new AggregateError([], message)]
])

/** What is attached to an object after all are there, so that it may lead back to the object: a list of keys and values. */
type Attached = Map<object, unknown[]>

/** The value beside what is to be attached; written only where something is, so that plain data is plain devalue. */
class Linked {
  readonly parts: readonly [value: unknown, attached: Attached]

  constructor(value: unknown, attached: Attached) {
    this.parts = [value, attached]
  }
}

const isError = (value: unknown): value is Error => types.isNativeError(value) || value instanceof DOMException

interface ErrorText {
  readonly type: string
  readonly name?: string
  readonly message?: string
  readonly stack?: string
}

function writeError(error: Error, attached: Attached): ErrorText {
  let type = 'Error'
  for (let proto = Object.getPrototypeOf(error) as object | null; proto !== null; proto = Object.getPrototypeOf(proto) as object | null) {
    const name = (proto as { constructor?: { name?: unknown } }).constructor?.name
    if (typeof name !== 'string' || !errorTypes.has(name)) continue
    type = name
    break
  }
  const own = (['cause', ...(type === 'AggregateError' ? ['errors'] : [])] as (keyof Error)[]).filter((key) => Object.hasOwn(error, key))
  if (own.length > 0) attached.set(error, own.flatMap((key) => [key, error[key]]))
  const { name, message, stack } = error as { [Key in keyof Error]: unknown }
  return {
    type,
    ...(typeof name === 'string' && name !== type && { name }),
    ...((Object.hasOwn(error, 'message') || message !== '') && { message: String(message) }),
    ...(typeof stack === 'string' && { stack })
  }
}

function readError({ type, name, message, stack }: ErrorText): Error {
  const error = (errorTypes.get(type) ?? errorTypes.get('Error')!)(message)
  for (const [key, value] of [['name', name], ['stack', stack]] as const) {
    if (value !== undefined) Object.defineProperty(error, key, { value, writable: true, configurable: true, enumerable: false })
  }
  return error
}

/** Base64 by Node's own hand: that of devalue takes one element at a time before Node 26. */
function readBytes(base64: string): ArrayBuffer {
  const bytes = new Uint8Array(Buffer.byteLength(base64, 'base64'))
  if (Buffer.from(bytes.buffer).write(base64, 'base64') !== bytes.length) throw new Error('the bytes are not base64')
  return bytes.buffer
}

const revivers: Table = {
  ArrayBuffer: readBytes,
  Buffer: (bytes: ArrayBuffer) => Buffer.from(bytes),
  Error: readError,
  Linked([value, attached]: readonly [unknown, Attached]) {
    for (const [target, list] of attached) {
      const enumerable = !isError(target)
      // Defined, not assigned: `__proto__` is a key like any other.
      for (let at = 0; at < list.length; at += 2) {
        Object.defineProperty(target, list[at] as string, { value: list[at + 1], writable: true, configurable: true, enumerable })
      }
    }
    return value
  }
}

const isObject = (thing: unknown): thing is object => typeof thing === 'object' && thing !== null

/** A view over memory that threads of this process share: a copy would no longer change with it, unnoticed. */
export const isSharedView = (thing: unknown): thing is NodeJS.ArrayBufferView =>
  ArrayBuffer.isView(thing) && types.isSharedArrayBuffer(thing.buffer)

/** As devalue says that it cannot write something. */
class SharedMemory extends Error {
  override readonly name = 'DevalueError'
  readonly value: unknown

  constructor(value: unknown) {
    super('the memory is shared')
    this.value = value
  }
}

function bytesOf(buffer: Buffer): ArrayBuffer {
  if (isSharedView(buffer)) throw new SharedMemory(buffer)
  return new Uint8Array(buffer).buffer
}

/** What is found on the way and has to be attached goes into `attached`. */
const reducersFor = (attached: Attached): Table => ({
  // The bytes alone: the memory of a Buffer is often shared with others.
  Buffer: (thing: unknown) => isObject(thing) && Buffer.isBuffer(thing) && bytesOf(thing),
  Error: (thing: unknown) => isObject(thing) && isError(thing) && writeError(thing, attached),
  SharedMemory(thing: unknown) {
    if (isSharedView(thing)) throw new SharedMemory(thing)
    return false
  },
  Linked: (thing: unknown) => thing instanceof Linked && thing.parts
})

const operationsFor = (attached: Attached): Table => ({
  // An object with a method then() has a function like any other; a promise is no plain object.
  isThenable: () => false,
  shapeOf(thing: object): Shape {
    const shape = devalue().defaultStringifyOperations.shapeOf(thing)
    if (!shape.keys?.includes('__proto__')) return shape
    attached.set(thing, ['__proto__', (thing as { __proto__: unknown }).__proto__])
    return { ...shape, keys: shape.keys.filter((key) => key !== '__proto__') }
  }
})

function write(value: unknown): string {
  const { stringify } = devalue()
  const attached: Attached = new Map()
  const reducers = reducersFor(attached)
  try {
    const text = stringify(value, reducers)
    if (attached.size === 0) return text
  } catch (error) {
    if (!isRefusal(error)) throw error
  }
  // With operations of one's own it takes twice the time for what is small, and few need them.
  const options = { operations: operationsFor(attached) }
  const text = stringify(value, reducers, options)
  // The map grows while it is written, as more is found in what is attached.
  return attached.size === 0 ? text : stringify(new Linked(value, attached), reducers, options)
}

const isRefusal = (error: unknown): error is Error & { value: unknown } => error instanceof Error && error.name === 'DevalueError'

/** The places in an object where others are, as a program would write them. */
function* partsOf(value: object): Generator<readonly [string, unknown]> {
  if (value instanceof Map) {
    let index = 0
    for (const [key, entry] of value as Map<unknown, unknown>) {
      yield [`.get(${typeof key === 'string' ? JSON.stringify(key) : isObject(key) || typeof key === 'function' ? '...' : String(key)})`, entry]
      yield [`.keys()[${index++}]`, key]
    }
  } else if (value instanceof Set) {
    let index = 0
    for (const entry of value as Set<unknown>) yield [`.values()[${index++}]`, entry]
  } else if (ArrayBuffer.isView(value)) {
    yield ['.buffer', value.buffer]
  } else {
    const keys = isError(value) ? ['cause', 'errors'].filter((key) => Object.hasOwn(value, key)) : Object.keys(value)
    for (const key of keys) {
      const place = Array.isArray(value) ? `[${key}]` : /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`
      yield [place, (value as Record<string, unknown>)[key]]
    }
  }
}

/** The shortest way to it. */
function pathTo(wanted: unknown, root: unknown): string {
  const open: (readonly [path: string, value: unknown])[] = [['', root]]
  const seen = new Set<unknown>()
  for (const [path, value] of open) {
    if (Object.is(value, wanted)) return path
    if (typeof value !== 'object' || value === null || seen.has(value)) continue
    seen.add(value)
    for (const [place, part] of partsOf(value)) open.push([path + place, part])
  }
  return ''
}

/** The same; empty where a getter or a proxy stands in the way. */
function whereIs(wanted: unknown, root: unknown): string {
  try {
    return pathTo(wanted, root)
  } catch {
    return ''
  }
}

/** A class, in the words of the one who wrote it. */
function nameOf(thing: object): string {
  const name = (Object.getPrototypeOf(thing) as { constructor?: { name?: unknown } } | null)?.constructor?.name
  if (typeof name === 'string' && name !== '' && name !== 'Object') return `an instance of ${name}`
  const tag = Object.prototype.toString.call(thing)
  // process.env, Object.create(…).
  return tag === '[object Object]' ? 'an object with a prototype of its own (a copy is plain: { ...it })' : `what is ${tag}`
}

function whatIs(thing: unknown, message: string): string {
  if (typeof thing === 'function') return 'a function'
  if (typeof thing === 'symbol') return 'a symbol'
  if (isSharedView(thing)) return `${nameOf(thing)} over a SharedArrayBuffer`
  return message.includes('symbolic keys') ? 'an object with symbols as keys' : nameOf(thing as object)
}

/** V8's own words for what has no other mark. */
const tooDeep = 'call stack'
const tooLong = /string length|string longer than/i

/** Throws HANDOVER_STATE with the path to what cannot be written. `of` names the state, `at` is where the value is in it. */
export function encodeState(value: unknown, of: string, at = ''): string {
  try {
    return write(value)
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    let what
    let advice = 'Give plain data: objects, arrays, Map, Set, Date, typed arrays, BigInt, errors'
    if (isRefusal(cause)) {
      const thing = cause.value
      if (isSharedView(thing) || types.isSharedArrayBuffer(thing)) advice = 'Give a copy (new Uint8Array(it), for one): what threads share stays in their process'
      const path = at + whereIs(thing, value)
      what = `holds ${whatIs(thing, message)}${path === '' ? '' : ` at ${path.replace(/^\./, '')}`}, which cannot go to another process`
    } else if (cause instanceof RangeError && message.includes(tooDeep)) {
      what = `${at === '' ? '' : `at ${at} `}is nested too deeply to be written down`
      advice = 'Keep what is a list as an array, not as a chain of objects'
    } else if (cause instanceof RangeError && tooLong.test(message)) {
      what = `${at === '' ? '' : `at ${at} `}is longer as text than a string can be (about 512 MB)`
      advice = 'Give it in smaller items'
    } else {
      what = `cannot be read${at === '' ? '' : ` at ${at}`}: ${message}`
    }
    throw new HandoverError('HANDOVER_STATE', { what: `the state of ${of} ${what}`, serving: 'Nothing was changed', todo: advice }, { cause })
  }
}

/** Throws HANDOVER_STATE for a text that this version cannot read. `of` names the state in the message. */
export function decodeState(text: string, of: string): unknown {
  try {
    return devalue().parse(text, revivers)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : textOf(cause)
    throw new HandoverError('HANDOVER_STATE', {
      what: `the state of ${of} cannot be read by this process (Node ${process.version}): ${reason}. Its text is ${text.length} characters long`,
      serving: 'Nothing was changed', todo: 'Let both processes have versions of Node that know its types'
    }, { cause })
  }
}
