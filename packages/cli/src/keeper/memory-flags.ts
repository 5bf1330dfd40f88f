/**
 * A keeper lives long and computes little: what compilers take would be a tenth of its memory. The workers are other processes, which
 * this does not reach.
 *
 * Only flags of compilers are set, which V8 reads when a function is about to be compiled. A flag of the garbage collector must be known
 * before V8 starts: a change afterwards can end the process.
 */

import { setFlagsFromString } from 'node:v8'

export function saveMemory(): void {
  for (const flag of ['--no-opt', '--no-sparkplug']) setFlagsFromString(flag)
}
