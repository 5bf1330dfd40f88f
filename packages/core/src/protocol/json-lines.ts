/**
 * Messages as lines of JSON: the checks that a table of messages is made of, and the reader that holds a line against the table. Pure.
 */

import { HandoverError } from '../errors.js'

export const maxLineBytes = 1_048_576

export type Check = (value: unknown) => boolean
export const string: Check = (value) => typeof value === 'string'
export const boolean: Check = (value) => typeof value === 'boolean'
export const count: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0
export const object: Check = (value) => typeof value === 'object' && value !== null
export const list = (of: Check): Check => (value) => Array.isArray(value) && value.every(of)
export const optional = (check: Check): Check => (value) => value === undefined || check(value)
export const shape = (fields: Readonly<Record<string, Check>>): Check => (value) => {
  if (!object(value)) return false
  return Object.keys(fields).every((field) => fields[field]?.((value as Record<string, unknown>)[field]))
}

/** The fields that each message must have. */
export type Shapes<M extends { readonly type: string }> = Readonly<Record<M['type'], Readonly<Record<string, Check>>>>

/**
 * Reads one line. What it answers throws HANDOVER_PROTOCOL with what was found where it is not a message; unknown extra fields pass, so that a
 * neighbouring version may add some.
 */
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
