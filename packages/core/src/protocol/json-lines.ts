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

/** Whether a value from another process is a `T`. */
export type Check<T = unknown> = (value: unknown) => value is T
/** What passes a check. */
export type Checked<C> = C extends Check<infer T> ? T : never

/** Where only some words are known (`string as Check<Word>`), a later version may send others. */
export const string: Check<string> = (value) => typeof value === 'string'
export const boolean: Check<boolean> = (value) => typeof value === 'boolean'
export const number: Check<number> = (value) => typeof value === 'number'
export const count: Check<number> = (value): value is number => Number.isSafeInteger(value) && (value as number) >= 0
const object = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null
export const list = <T>(of: Check<T>): Check<readonly T[]> => (value): value is readonly T[] => Array.isArray(value) && value.every(of)
export const optional = <T>(check: Check<T>): Check<T | undefined> => (value): value is T | undefined => value === undefined || check(value)
export const orNull = <T>(check: Check<T>): Check<T | null> => (value): value is T | null => value === null || check(value)
export const oneOf = <T extends string>(...values: readonly T[]): Check<T> => (value): value is T => values.includes(value as T)
/** An object whose keys may be any. */
export const record = <T>(of: Check<T>): Check<Readonly<Record<string, T>>> =>
  (value): value is Readonly<Record<string, T>> => object(value) && !Array.isArray(value) && Object.values(value).every(of)

type Fields = Readonly<Record<string, Check>>
/** An object with these fields. One that may be undefined may be absent. */
export type WithFields<F extends Fields> =
  { readonly [K in keyof F as undefined extends Checked<F[K]> ? never : K]: Checked<F[K]> } &
  { readonly [K in keyof F as undefined extends Checked<F[K]> ? K : never]?: Exclude<Checked<F[K]>, undefined> }
export const shape = <F extends Fields>(fields: F): Check<WithFields<F>> =>
  (value): value is WithFields<F> => object(value) && Object.keys(fields).every((field) => fields[field]?.(value[field]))

/** The fields of messages, by type. */
export type Shapes<M extends { readonly type: string } = { readonly type: string }> = Readonly<Record<M['type'], Fields>>
/** The messages of these shapes. */
export type MessagesOf<S extends Shapes> = { [T in keyof S]: { readonly type: T } & WithFields<S[T]> }[keyof S]

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

/** In a message: keys, what the program knows, what a client has sent. No error repeats them, since it stands in a log. */
const secrets = /("(?:ticketKeys|state|text|unread)":")(?:[^"\\]|\\.)*/g

/** A parser of lines, which throws HANDOVER_PROTOCOL with what it found. Unknown fields pass, so that a newer version may add some. */
export function reader<M extends { readonly type: string }>(shapes: Shapes<M>): (line: string) => M {
  const table: Shapes = shapes
  return (line) => {
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch {
      value = undefined
    }
    const type = object(value) ? value['type'] : undefined
    const fields = typeof type === 'string' && Object.hasOwn(table, type) ? table[type] : undefined
    const wrong = fields && Object.keys(fields).find((field) => !fields[field]?.((value as Record<string, unknown>)[field]))
    if (fields === undefined || wrong !== undefined) {
      const shown = line.slice(0, 1_000).replace(secrets, '$1…').slice(0, 200)
      const found = line.length > 200 ? `${shown}… (${line.length} characters)` : shown
      throw new HandoverError('HANDOVER_PROTOCOL', `expected one of ${Object.keys(table).join(', ')}${wrong === undefined ? '' : ` with a valid "${wrong}"`}, found ${JSON.stringify(found)}.`)
    }
    return value as M
  }
}
