/**
 * What PID 1 owes to its container: processes whose own starter has died come to it, and stay zombies until it takes notice.
 *
 * Node takes notice of those that it started, and must be the only one that does, or their exit events are lost. So this one looks first
 * who has ended (waitid with WNOWAIT), and never touches one of ours. As any other process than PID 1 it does nothing: nobody's orphans
 * come there.
 */

import { addon } from '@handover/core/internal'

/**
 * One of ours that has ended hides the others for as long as Node has not reaped it, which it does in the same turn of the event loop or
 * the next.
 */
const againMs = 20

/**
 * Reaps orphans from now on, those that have ended already first. `isOurs` says whether this process started `pid` itself and has not had
 * its exit event yet. Answers a function that ends it.
 */
export function reapOrphans(isOurs: (pid: number) => boolean): () => void {
  if (process.pid !== 1) return () => undefined
  let again: NodeJS.Timeout | undefined
  const reap = (): void => {
    clearTimeout(again)
    for (let pid; (pid = addon().endedProcess()) > 0;) {
      if (isOurs(pid)) {
        again = setTimeout(reap, againMs).unref()
        return
      }
      if (addon().reap(pid) < 0) return
    }
  }
  process.on('SIGCHLD', reap)
  reap()
  return () => {
    clearTimeout(again)
    process.off('SIGCHLD', reap)
  }
}
