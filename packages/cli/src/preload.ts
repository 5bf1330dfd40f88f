/**
 * Loaded by `node --require` before a program that knows nothing of Handover: everything that it listens on is adopted.
 *
 * It acts only in the process that carries the mark, and removes the mark. Threads of that process, and children where the environment
 * names this file, load it too, but must not hand anything over. A successor carries the mark again: it gets the environment of the start.
 */

import type * as Keeper from '@handover/core/internal'

/** Set by a keeper, and removed by the core; or set without a keeper, and removed here. */
const marks = ['HANDOVER_KEEPER', 'HANDOVER_PRELOAD']

const isSet = (mark: string): boolean => (process.env[mark] ?? '') !== ''
const marked = marks.some(isSet)
const isKept = isSet('HANDOVER_KEEPER')
Reflect.deleteProperty(process.env, 'HANDOVER_PRELOAD')
// Loaded only where it acts, and at once: import() would come after the first listen() of the program.
if (marked) {
  // Another preload may have put its functions into Node's, or have ticks that are due.
  const isFirst = Object.keys(require.cache).length === 1
  // A name loads its modules when it is read: a spare has them before it waits.
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- see above
  const { adoptEverything, awaitTurn, hideWords, warmUp } = require('@handover/core/internal') as typeof Keeper
  awaitTurn(process.env, () => Object.keys(require.cache), () => isFirst && warmUp())
  // The keeper put them first. What the program forks must not need this file, which a deploy may just replace.
  if (isKept) hideWords(process.execArgv.slice(0, 2))
  adoptEverything()
}
