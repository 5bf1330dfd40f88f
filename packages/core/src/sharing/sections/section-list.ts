/**
 * Small sections as entries of one text of JSON: a header each, and the value. What JSON carries as it is stands there itself (`value`),
 * anything else in the text form of value-codec.ts (`text`). For a thousand of them the work for each counts, in code that runs for the
 * first time: no file, no promise, no copy of bytes.
 */

import { HandoverError } from '../../errors.js'
import { smallBytes } from '../../platform/memory-file.js'
import { decodeState, encodeState, isSharedView } from '../../protocol/value-codec.js'
import { encodeValue, isHeader, isStream, type EncodedValue, type HeaderToWrite, type SectionAbout } from './section-file.js'
import { frameKinds } from './section-frames.js'

/** A section of which the limit is lower is written into a file, which knows its size to the byte. */
export const leastLimit = 4 * smallBytes

/** Who has saved all of a list. */
type Author = Pick<SectionAbout, 'version' | 'generation'>
type Head = Author & Pick<SectionAbout, 'node'>

/** A section as the text of an entry. */
export interface ListedSection {
  readonly entry: string
  readonly by: Author
}

/** With `text` there is no value. */
type Entry = readonly [schema: number | null, savedAt: number, value: unknown, text?: string]

/** A section in a list. */
export interface ListItem {
  readonly header: SectionAbout
  readonly value: unknown
  readonly text: string | undefined
}

const { getOwnPropertyDescriptor, getOwnPropertySymbols, getPrototypeOf } = Object

// Of the value that is being looked at. No class: its private names take longer before V8 has compiled them, and this runs but a few times.
/** About as many characters are left. */
let room = 0
let root: unknown
let seen: Set<unknown> | undefined

/** Whether JSON carries it as it is: it has no undefined, -0, accessor, symbol or toJSON(), no object twice, and is small. */
function isJson(value: unknown): boolean {
  room = smallBytes
  root = value
  try {
    return carries(value)
  } catch {
    // By a proxy, which refuses in words where it is written otherwise.
    return false
  } finally {
    root = seen = undefined
  }
}

function carries(value: unknown): boolean {
  if (typeof value === 'string') return (room -= value.length) >= 0
  if (typeof value === 'number') return value === 0 ? 1 / value > 0 : Number.isFinite(value)
  if (typeof value !== 'object' || value === null) return value === null || typeof value === 'boolean'
  if (value !== root || seen) {
    seen ??= new Set([root])
    if (seen.has(value)) return false
    seen.add(value)
  }
  if ((room -= 2) < 0 || 'toJSON' in value) return false
  const prototype: unknown = getPrototypeOf(value)
  if (prototype === Array.prototype) return Array.isArray(value) && carriesItems(value)
  // The arguments of a function, for one, look plain but for that.
  if (prototype !== Object.prototype || Object.prototype.toString.call(value) !== '[object Object]') return false
  for (const key in value) {
    room -= key.length + 4
    const own = getOwnPropertyDescriptor(value, key)
    if (own === undefined || !('value' in own) || !carries(own.value)) return false
  }
  return getOwnPropertySymbols(value).length === 0
}

function carriesItems(value: readonly unknown[]): boolean {
  room -= value.length
  for (let at = 0; at < value.length && room >= 0; at++) if (!carries(value[at])) return false
  return room >= 0
}

const entryOf = (by: HeaderToWrite, value: unknown, text?: string): ListedSection =>
  ({ entry: JSON.stringify(text === undefined ? [by.schema, Date.now(), value] : [by.schema, Date.now(), null, text]), by })

/** Its place in a list; or, where it is not small, how it was encoded, if it was. Throws HANDOVER_STATE for what cannot be written. */
export function asListed(header: HeaderToWrite, value: unknown, plain: boolean): ListedSection | EncodedValue | undefined {
  if (isJson(value)) return entryOf(header, value)
  if (isStream(value)) return undefined
  const of = `section ${JSON.stringify(header.name)}`
  let encoded
  if (value instanceof Uint8Array) {
    if (value.length > smallBytes / 2 || isSharedView(value)) return undefined
  } else {
    encoded = encodeValue(value, of, plain)
    if (encoded.content.length > smallBytes) return encoded
  }
  // The bytes alone, not the memory around a view.
  const whole = value instanceof Uint8Array && !Buffer.isBuffer(value) ? new Uint8Array(value) : value
  const text = encoded?.kind === frameKinds.text ? encoded.content as string : encodeState(whole, of)
  return text.length > smallBytes ? encoded : entryOf(header, null, text)
}

/** The text of a list. */
export const listOf = ({ version, generation }: Author, entries: readonly string[]): string =>
  `[${JSON.stringify({ version, node: process.versions.node, generation } satisfies Head)},${entries.join(',')}]`

/** The sections of these names in a text. Throws what JSON.parse does, or HANDOVER_STATE where it holds anything else. */
export function readList(text: string, names: readonly string[]): ListItem[] {
  const [head, ...entries] = JSON.parse(text) as [Head, ...Entry[]]
  const header = { schema: null, phase: 'offer', savedAt: 0, items: false, ...head } as const
  if (!isHeader({ ...header, name: '' }) || entries.length !== names.length || !entries.every(isEntry)) throw new HandoverError('HANDOVER_STATE', `it does not hold ${names.length} sections`)
  const { phase, version, node, generation, items } = header
  return entries.map(([schema, savedAt, value, as], index) =>
    ({ header: { name: names[index]!, schema, phase, version, node, generation, savedAt, items }, value, text: as }))
}

const isEntry = (entry: unknown): boolean =>
  Array.isArray(entry) && (entry[0] === null || typeof entry[0] === 'number') && typeof entry[1] === 'number' &&
  (entry.length === 3 || typeof entry[3] === 'string')

/** Throws HANDOVER_STATE for a text that this process cannot read. */
export const valueOf = ({ header: { name }, value, text }: ListItem): unknown =>
  text === undefined ? value : decodeState(text, `section ${JSON.stringify(name)}`)
