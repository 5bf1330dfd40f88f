/**
 * One value of plain data in V8's own format, several times as fast as text: objects, arrays, Map, Set, Date, Buffer and primitives. It
 * refuses whatever V8 would change without a word (a class, an accessor, a symbol, a hole in an array): that goes as text.
 *
 * A value is written in one turn of the event loop, so that it is as it was at one moment; it is read in slices of a few milliseconds.
 * V8 reads what an older V8 has written, so that a file of this kind is only for a process whose V8 is known.
 */

import { types } from 'node:util'
import { HandoverError, textOf } from '../../errors.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { isSharedView } from '../../protocol/value-codec.js'
import type { Abortable } from './abortable.js'

/** Entries of a Map, a Set or an array that are read at a time. */
const sliceLength = 256
/** After so many looks it is noted what was seen: an object that many share is then looked at once. Notes cost time. */
const looksWithoutNotes = 2_000_000
/** V8 writes a chain of 3,000 objects, and reads none of more than 1,600. What is deeper goes as text, which is read if it is written. */
const deepest = 1_000
/** Objects. Text is as fast for so few. */
const fewLooks = 40

const [versionOfV8, minorOfV8] = process.versions.v8.split('.').map(Number) as [number, number]

/** The process whose V8 this is reads what this process writes. */
export function readsPlain(v8: string | undefined): boolean {
  const [version = 0, minor = 0] = (v8 ?? '').split('.').map(Number)
  return version > versionOfV8 || (version === versionOfV8 && minor >= minorOfV8)
}

let classes: ReturnType<typeof load> | undefined

function load() {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- most processes never need it
  const v8 = require('node:v8') as typeof import('node:v8')
  class Writer extends v8.DefaultSerializer {
    /** Of what V8 asks about, only a Buffer passes the walk. */
    _writeHostObject(buffer: Buffer): void {
      this.writeUint32(buffer.length)
      this.writeRawBytes(buffer)
    }
  }
  class Reader extends v8.DefaultDeserializer {
    /** With memory of its own. */
    _readHostObject(): Buffer {
      return Buffer.from(this.readRawBytes(this.readUint32()))
    }
  }
  return { Writer, Reader }
}

const { getOwnPropertyDescriptor, getOwnPropertySymbols, getPrototypeOf, hasOwn } = Object

/** Whether V8 writes all of it as it is, and reads it: false for what is deep, or leads back to itself. */
class Walk {
  readonly #root: unknown
  #looks = 0
  #depth = 0
  readonly #seen = new Set<object>()

  /** `root` is written in slices: nothing may lead back to it. */
  constructor(root: unknown) {
    this.#root = root
  }

  /** How many objects it has seen, each as often. */
  get looks(): number {
    return this.#looks
  }

  isPlain(value: unknown): boolean {
    if (typeof value !== 'object' || value === null) return typeof value !== 'function' && typeof value !== 'symbol'
    if (value === this.#root) return false
    if (++this.#looks > looksWithoutNotes) {
      if (this.#seen.has(value)) return true
      this.#seen.add(value)
    }
    if (++this.#depth > deepest) return false
    const plain = this.#isPlain(value)
    this.#depth--
    return plain
  }

  #isPlain(value: object): boolean {
    switch (getPrototypeOf(value)) {
      case Object.prototype: return this.#object(value as Record<string, unknown>)
      case Array.prototype: return Array.isArray(value) && this.#array(value)
      case Date.prototype: return types.isDate(value)
      case Map.prototype: return types.isMap(value) && this.#map(value)
      case Set.prototype: return types.isSet(value) && this.#set(value)
      case Buffer.prototype: return types.isUint8Array(value) && !isSharedView(value)
      default: return false
    }
  }

  #object(value: Record<string, unknown>): boolean {
    for (const key in value) {
      const own = getOwnPropertyDescriptor(value, key)
      if (own === undefined || !('value' in own) || key === '__proto__' || !this.isPlain(own.value)) return false
    }
    // The arguments of a function, for one, look plain but for that.
    return getOwnPropertySymbols(value).length === 0 && Object.prototype.toString.call(value) === '[object Object]'
  }

  #array(value: readonly unknown[]): boolean {
    for (let at = 0; at < value.length; at++) {
      const item = value[at]
      if ((item === undefined && !hasOwn(value, at)) || !this.isPlain(item)) return false
    }
    return Object.keys(value).length === value.length
  }

  #map(value: ReadonlyMap<unknown, unknown>): boolean {
    for (const [key, entry] of value) if (!this.isPlain(key) || !this.isPlain(entry)) return false
    return true
  }

  #set(value: ReadonlySet<unknown>): boolean {
    for (const entry of value) if (!this.isPlain(entry)) return false
    return true
  }
}

type Kind = 'Map' | 'Set' | 'Array' | 'value'

function kindOf(value: object): Kind {
  const prototype = getPrototypeOf(value) as object | null
  if (prototype === Map.prototype && types.isMap(value)) return 'Map'
  if (prototype === Set.prototype && types.isSet(value)) return 'Set'
  return prototype === Array.prototype && Array.isArray(value) ? 'Array' : 'value'
}

/** What is written in slices: of a Map keys and values. What somebody added to an array beside its items is left behind, as in text. */
function listsOf(value: object, kind: Kind): readonly (readonly unknown[])[] {
  switch (kind) {
    case 'Map': return [[...(value as Map<unknown, unknown>).keys()], [...(value as Map<unknown, unknown>).values()]]
    case 'Set': return [[...value as Set<unknown>]]
    case 'Array': return [value as unknown[]]
    case 'value': return [[value]]
  }
}

/** Undefined for what is no plain data, or has less than so many objects. */
export function encodePlain(value: unknown, fewest = fewLooks): Buffer | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const kind = kindOf(value)
  const walk = new Walk(kind === 'value' ? undefined : value)
  try {
    const lists = listsOf(value, kind)
    let writer
    for (let at = 0; at < lists[0]!.length; at += sliceLength) {
      const slices = lists.map((list) => list.slice(at, at + sliceLength))
      for (const slice of slices) if (!walk.isPlain(slice)) return undefined
      if (!writer) {
        if (lists[0]!.length <= sliceLength && walk.looks < fewest) return undefined
        writer = new (classes ??= load()).Writer()
        writer.writeHeader()
        writer.writeValue(kind)
      }
      for (const slice of slices) writer.writeValue(slice)
    }
    if (!writer) return undefined
    writer.writeValue(null)
    return writer.releaseBuffer()
  } catch {
    // Too deep, too large, a proxy: as text it is either possible or refused with a reason.
    return undefined
  }
}

/** Throws HANDOVER_STATE for what this process cannot read; signal.reason. `of` names the state in the message. */
export async function decodePlain(bytes: Buffer, of: string, signal: Abortable): Promise<unknown> {
  const budget = new LoopBudget()
  try {
    const reader = new (classes ??= load()).Reader(bytes)
    reader.readHeader()
    const kind = reader.readValue() as Kind
    const lists: (readonly unknown[])[] = []
    const nextTurn = async (): Promise<void> => {
      await budget.nextTurn()
      signal.throwIfAborted()
    }
    for (let list; (list = reader.readValue() as unknown[] | null) !== null;) {
      if (!Array.isArray(list)) throw new TypeError('a slice of it is no list')
      lists.push(list)
      if (budget.isSpent) await nextTurn()
    }
    // Only now: while it is read, each collection of garbage would look through the whole table.
    const [map, set, array] = [new Map<unknown, unknown>(), new Set(), [] as unknown[]]
    for (let at = 0; at < lists.length; at++) {
      const list = lists[at]!
      if (kind === 'Map') {
        const values = lists[++at]!
        for (let index = 0; index < list.length; index++) map.set(list[index], values[index])
      } else if (kind === 'Set') for (const entry of list) set.add(entry)
      else for (const item of list) array.push(item)
      if (budget.isSpent) await nextTurn()
    }
    return kind === 'Map' ? map : kind === 'Set' ? set : kind === 'Array' ? array : array[0]
  } catch (cause) {
    if (signal.aborted) throw signal.reason
    const reason = cause instanceof Error ? cause.message : textOf(cause)
    throw new HandoverError('HANDOVER_STATE', {
      what: `the state of ${of} cannot be read by this process (Node ${process.version}): ${reason}. It has ${bytes.length} bytes in V8's format`,
      serving: 'Nothing was changed', todo: 'Let both processes have the same version of Node'
    }, { cause })
  }
}
