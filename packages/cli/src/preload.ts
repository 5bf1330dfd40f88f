/**
 * Loaded by `node --require` before a program that knows nothing of Handover: everything that it listens on is adopted.
 *
 * It acts in the one process that carries the mark, and takes the mark away: what that process forks or spawns inherits the command line of
 * Node, and with it this file, but must not hand anything over, nor pay for it. A successor carries it again, since it gets the environment
 * of the start.
 */

import type * as Keeper from '@handover/core/internal'

/** Set by a keeper, and removed by the core; or by whoever does without a keeper. */
const marks = ['HANDOVER_KEEPER', 'HANDOVER_PRELOAD']

const marked = marks.some((mark) => (process.env[mark] ?? '') !== '')
Reflect.deleteProperty(process.env, 'HANDOVER_PRELOAD')
// eslint-disable-next-line @typescript-eslint/no-require-imports -- only where it acts, and at once: import() would come after the program's first listen()
if (marked) (require('@handover/core/internal') as typeof Keeper).adoptEverything()
