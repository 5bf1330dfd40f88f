/**
 * A start, and each reload, use some 30 MB of Node's binary that a waiting keeper does not need. They stay in its resident memory until
 * the system needs them elsewhere. Here the kernel is told that they are not needed once the keeper is quiet; what is used again is mapped
 * again from the page cache. Workers are other processes, which this does not reach.
 */

import { addon } from '@handover/core/internal'

const lookMs = 1_000
/** For less it is not done again. */
const worthBytes = 8e6

export function watchProgramPages(
  isQuiet: () => boolean, drop = (): number => addon().dropProgramPages(), residentSet = (): number => process.memoryUsage.rss()
): void {
  let isDropped = false
  let most = 0
  const timer = setInterval(() => {
    // By now the pages that even a waiting keeper uses are back.
    if (isDropped) most = residentSet() + worthBytes
    isDropped = false
    if (residentSet() <= most || !isQuiet()) return
    isDropped = drop() >= 0
    // Not a system that can.
    if (!isDropped) clearInterval(timer)
  }, lookMs).unref()
}
