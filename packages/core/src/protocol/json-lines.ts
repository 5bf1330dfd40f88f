/** Messages as lines of JSON: cuts bytes into lines, and parses a line by a table of checks. It reads no socket itself. */

import { StringDecoder } from 'node:string_decoder'
import { HandoverError } from '../errors.js'

/** The limit for a message between two processes of Handover. */
export const maxLineBytes = 1_048_576

/** Cuts what arrives into lines of at most `limit` characters. */
export class LineReader {
  readonly #limit: number
  readonly #decoder = new StringDecoder('utf8')
  #text = ''
  #at = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  add(bytes: Buffer | string): void {
    this.#text = this.rest + (typeof bytes === 'string' ? bytes : this.#decoder.write(bytes))
    this.#at = 0
  }

  /** The next line, without its end; undefined: it is not complete. Throws HANDOVER_PROTOCOL if it is too long. */
  next(): string | undefined {
    const end = this.#text.indexOf('\n', this.#at)
    if ((end < 0 ? this.#text.length : end) - this.#at > this.#limit) {
      throw new HandoverError('HANDOVER_PROTOCOL', `expected a line of at most ${this.#limit} bytes, found a longer one.`)
    }
    if (end < 0) return undefined
    const line = this.#text.slice(this.#at, end)
    this.#at = end + 1
    return line
  }

  get rest(): string {
    return this.#text.slice(this.#at)
  }
}

export type Check = (value: unknown) => boolean
export const string: Check = (value) => typeof value === 'string'
export const boolean: Check = (value) => typeof value === 'boolean'
export const number: Check = (value) => typeof value === 'number'
export const count: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0
export const object: Check = (value) => typeof value === 'object' && value !== null
export const list = (of: Check): Check => (value) => Array.isArray(value) && value.every(of)
export const optional = (check: Check): Check => (value) => value === undefined || check(value)
export const orNull = (check: Check): Check => (value) => value === null || check(value)
export const oneOf = (...values: readonly string[]): Check => (value) => values.includes(value as string)
/** An object whose keys may be any. */
export const record = (of: Check): Check => (value) => object(value) && !Array.isArray(value) && Object.values(value as object).every(of)
export const shape = (fields: Readonly<Record<string, Check>>): Check => (value) => {
  if (!object(value)) return false
  return Object.keys(fields).every((field) => fields[field]?.((value as Record<string, unknown>)[field]))
}

export type Shapes<M extends { readonly type: string }> = Readonly<Record<M['type'], Readonly<Record<string, Check>>>>

/** How many descriptors go before a message; none, if it is not in the table. */
export type Descriptors<M extends { readonly type: string }> =
  { readonly [T in M['type']]?: (message: Extract<M, { readonly type: T }>) => number }
export const one = (): number => 1

/** All messages of one side of a channel. */
export interface Vocabulary<M extends { readonly type: string }> {
  /** The name of that side in the debug log. */
  readonly speaker: string
  /** Throws HANDOVER_PROTOCOL. */
  readonly parse: (line: string) => M
  readonly descriptors: (message: M) => number
  /** If not all descriptors of such a message arrive, the first ones are still used. */
  readonly takesSome: (message: M) => boolean
}

export const vocabulary = <M extends { readonly type: string }>(
  speaker: string, shapes: Shapes<M>, descriptors: Descriptors<M>, some: readonly M['type'][] = []
): Vocabulary<M> => ({
  speaker,
  parse: reader(shapes),
  descriptors: (message) => (descriptors as Readonly<Record<string, ((message: M) => number) | undefined>>)[message.type]?.(message) ?? 0,
  takesSome: ({ type }) => some.includes(type)
})

/** A parser of lines, which throws HANDOVER_PROTOCOL with what it found. Unknown fields pass, so that a newer version may add some. */
export function reader<M extends { readonly type: string }>(shapes: Shapes<M>): (line: string) => M {
  const table: Readonly<Record<string, Readonly<Record<string, Check>>>> = shapes
  return (line) => {
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch {
      value = undefined
    }
    const type = object(value) ? (value as { type?: unknown }).type : undefined
    const fields = typeof type === 'string' && Object.hasOwn(table, type) ? table[type] : undefined
    const wrong = fields && Object.keys(fields).find((field) => !fields[field]?.((value as Record<string, unknown>)[field]))
    if (fields === undefined || wrong !== undefined) {
      const found = line.length > 200 ? `${line.slice(0, 200)}… (${line.length} characters)` : line
      throw new HandoverError('HANDOVER_PROTOCOL', `expected one of ${Object.keys(table).join(', ')}${wrong === undefined ? '' : ` with a valid "${wrong}"`}, found ${JSON.stringify(found)}.`)
    }
    return value as M
  }
}
