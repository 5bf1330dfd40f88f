/** The pairs of descriptors between a process and one that it starts. */

import { closeSync } from 'node:fs'
import { check, type Native } from './native.js'

export type Pair = readonly [number, number]

/** For messages, for descriptors and, if asked for, for stderr: all of them or none. The caller owns every end. */
export function openPairs(addon: Native, forStderr: boolean): readonly [Pair, Pair, Pair | undefined] {
  const pairs: Pair[] = []
  const keep = (made: Pair): Pair => {
    pairs.push(made)
    return made
  }
  try {
    return [
      keep(check(addon.socketPair(), 'socketpair')),
      keep(check(addon.socketPair(), 'socketpair')),
      // A pipe, since /dev/stderr cannot be opened where it is a socket.
      forStderr ? keep(check(addon.pipe(), 'pipe')) : undefined
    ]
  } catch (error) {
    for (const fd of pairs.flat()) closeSync(fd)
    throw error
  }
}
