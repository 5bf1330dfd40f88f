/**
 * The state of an application as text, in the format of the package devalue: everything that structured clone knows, but for errors and host objects,
 * and the same in every version of Node. A Buffer comes back as a Uint8Array.
 */

import { HandoverError } from './errors.js'

/** The part of it that is used. Its types are written for ES modules. */
interface Devalue {
  stringify(value: unknown): string
  parse(text: string): unknown
}

let loaded: Devalue | undefined
// It is an ES module, and needed only where state moves.
// eslint-disable-next-line @typescript-eslint/no-require-imports -- this file is CommonJS, and import() would be asynchronous
const devalue = (): Devalue => (loaded ??= require('devalue') as Devalue)

/** Throws HANDOVER_STATE, with the path to what cannot be written down. `of` names the state in the message. */
export function encodeState(value: unknown, of: string): string {
  try {
    return devalue().stringify(value)
  } catch (cause) {
    const { message, path = '' } = cause as { message: string; path?: string }
    const what = message.replace(/^Cannot stringify /, '').replace(/ \S*$/, (end) => (end.trim() === path ? '' : end))
    throw new HandoverError('HANDOVER_STATE', `the state of ${of} holds ${what}${path === '' ? '' : ` at ${path.replace(/^\./, '')}`}, which cannot go to another process. Nothing was changed. Give plain data: objects, arrays, Map, Set, Date, typed arrays, BigInt.`, { cause })
  }
}

export function decodeState(text: string): unknown {
  return devalue().parse(text)
}
