/**
 * How many descriptors this process can still open: connections move only while their successor has room for them.
 * It is an estimate, since the program may open some meanwhile.
 */

import { readdirSync } from 'node:fs'
import { native } from './native.js'

/** Open descriptors left, less a reserve for this process's own work. A quarter of the limit where they cannot be counted. */
export function descriptorRoom(): number {
  const limit = native?.openFilesLimit() ?? 0
  const reserve = Math.max(64, Math.round(Math.min(limit, 100_000) / 50))
  try {
    return Math.max(0, Math.min(limit, 1_000_000_000) - readdirSync('/proc/self/fd').length - reserve)
  } catch {
    return Math.max(0, Math.floor(Math.min(limit, 1_000_000_000) / 4))
  }
}
