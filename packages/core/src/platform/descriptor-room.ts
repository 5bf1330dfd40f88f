/**
 * How many descriptors are left to this process. Connections move only while the successor has room for them.
 * It is an estimate: the program may open some meanwhile.
 */

import { readdirSync } from 'node:fs'
import { native } from './native.js'

/**
 * How many descriptors this process can still open, less a reserve for what it opens to do its work. Where the descriptors cannot be
 * counted: a quarter of the limit.
 */
export function descriptorRoom(): number {
  const limit = native?.openFilesLimit() ?? 0
  const reserve = Math.max(64, Math.round(Math.min(limit, 100_000) / 50))
  try {
    return Math.max(0, Math.min(limit, 1_000_000_000) - readdirSync('/proc/self/fd').length - reserve)
  } catch {
    return Math.max(0, Math.floor(Math.min(limit, 1_000_000_000) / 4))
  }
}
