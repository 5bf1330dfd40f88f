/**
 * Reads the first line of a connection to the control socket: the greeting of a process that wants to take over, or a request of the
 * command `handover`. Anything else is refused with an error that shows it. Pure.
 */

import { HandoverError } from '../errors.js'
import { boolean } from '../protocol/json-lines.js'
import { isTypo } from '../typo.js'
import type { ControlRequest, ReloadRequest } from '../protocol/control-messages.js'

/** One of the two connections of a process that wants to take over; `token` says which belong together. */
export interface Greeting {
  readonly type: 'messages' | 'descriptors'
  readonly token: string
  /** With `messages`: not a successor but a keeper calls, to have the process of this socket for a worker in this slot. */
  readonly slot?: number
}

/** Whether a value can be used. */
type Check = (value: unknown) => boolean
const from = (least: number, most: number): Check => (value) =>
  Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most

/**
 * The options of a reload: each is checked, and an unknown one is refused rather than ignored, since it may be what makes the reload
 * careful.
 */
const reloadOptions: { readonly [Option in keyof Required<ReloadRequest>]: readonly [Check, expected: string] } = {
  wait: [boolean, 'true or false'],
  canary: [from(1, 1_024), 'a whole number from 1 to 1024'],
  // A timer of Node holds a signed 32-bit number of milliseconds.
  bakeMs: [from(0, 2_147_483_647), 'a whole number of milliseconds from 0 to 2147483647'],
  // It becomes the first line of an HTTP request.
  probe: [(value) => typeof value === 'string' && /^\/[\x21-\x7e]{0,2000}$/.test(value), 'a path that begins with "/", without spaces'],
  parallel: [boolean, 'true or false'],
  workers: [from(1, 1_024), 'a whole number from 1 to 1024'],
  allowDrop: [boolean, 'true or false'],
  withoutState: [boolean, 'true or false'],
  keeper: [boolean, 'true or false']
}

const lineError = (what: string): HandoverError => new HandoverError('HANDOVER_PROTOCOL', what)
const shown = (value: unknown): string => {
  const text = JSON.stringify(value) as string | undefined ?? 'nothing'
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

const expected = 'the first line must be {"type":"messages"|"descriptors","token":"…"} or {"type":"request","verb":"status"|"reload"|"stop"}'

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * Throws HANDOVER_PROTOCOL. A field that is not known is refused rather than ignored: it may be what makes the request careful, or one
 * of a newer version.
 */
export function parseFirstLine(line: string): Greeting | ControlRequest {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch { /* garbage */ }
  if (!isObject(value)) throw lineError(expected)
  const { type, token, slot } = value
  if (type === 'request') return parseRequest(value)
  const isPair = (type === 'messages' || type === 'descriptors') && typeof token === 'string' && /^[0-9a-f]{32}$/.test(token)
  if (isPair && (slot === undefined || from(0, 1_024)(slot))) return { type, token, ...(typeof slot === 'number' && { slot }) }
  throw lineError(expected)
}

function parseRequest(request: Record<string, unknown>): ControlRequest {
  const { verb, options = {} } = request
  switch (verb) {
    case 'status':
    case 'stop':
      refuseOthers(request, ['type', 'verb'], `a request for "${verb}"`)
      return { type: 'request', verb }
    case 'reload':
      refuseOthers(request, ['type', 'verb', 'options'], 'a request for "reload"')
      return { type: 'request', verb, options: parseOptions(options) }
    default:
      throw lineError(`the verb of a request is ${shown(verb)}, expected "status", "reload" or "stop"`)
  }
}

function parseOptions(options: unknown): ReloadRequest {
  if (!isObject(options)) throw lineError(`the options of a reload are ${shown(options)}, expected an object`)
  refuseOthers(options, Object.keys(reloadOptions), 'a reload')
  for (const [name, value] of Object.entries(options)) {
    const [check, what] = reloadOptions[name as keyof ReloadRequest]
    if (!check(value)) throw lineError(`the option ${name} of a reload is ${shown(value)}, expected ${what}`)
  }
  return options
}

function refuseOthers(given: Record<string, unknown>, known: readonly string[], of: string): void {
  const other = Object.keys(given).find((name) => !known.includes(name))
  if (other === undefined) return
  const meant = known.find((name) => isTypo(other, name))
  throw lineError(`${shown(other)} is not known in ${of}${meant === undefined ? '' : ` (did you mean ${meant}?)`}, expected some of ${known.join(', ')}. Nothing was done`)
}
