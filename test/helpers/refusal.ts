/** The error with which a value of the state is refused. */

import { encodeState } from './internals.js'

export const refusal = (value: unknown): { code: string; message: string } => {
  try {
    encodeState(value, 'the test')
  } catch (error) {
    return error as { code: string; message: string }
  }
  throw new Error('it was written')
}
