/**
 * The duty of PID 1 in a container: processes whose parent has died become its children, and stay zombies until it waits for them.
 *
 * Node waits for the processes that it started, and must be the only one that does, or their exit events are lost. So this looks first
 * which process has ended (waitid with WNOWAIT), and leaves those of Node alone. Only PID 1 gets orphans: elsewhere it does nothing.
 */

import { addon } from '@handover/core/internal'

/** A process of Node that has ended hides the others until Node has reaped it, in this turn of the event loop or the next. */
const againMs = 20

/**
 * Reaps orphans from now on, also those that have ended already. `isOurs`: whether this process started `pid` itself and waits for its exit
 * event. Answers a function that ends it.
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
