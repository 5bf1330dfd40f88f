/**
 * The beginning of a stop: from here on connects are refused, and connections that the kernel has queued are answered.
 *
 * While the keeper holds a copy of a listener, the kernel goes on completing connects that no process would accept. So the keeper closes
 * its copies before it tells the workers. Each worker then has the only copy, and accepts what is queued as it closes it. Later clients are
 * refused at once and may try elsewhere.
 */

import { closeSync } from 'node:fs'
import { addon } from '@handover/core/internal'
import type { Fleet } from './fleet.js'

/** How long draining workers may take to close their copies: they need a turn of their event loop. */
const letGoMs = 500
/** A client may connect without end. */
const mostQueued = 65_536

/** Resolves when only the workers that will be told to stop hold listeners. */
export async function refuseConnects(fleet: Fleet): Promise<void> {
  const { servers } = fleet
  // They keep silent copies for an undo. They have been told that there will be none: once they answer, they have read that.
  const silent = fleet.workers.filter((worker) => worker.retiring && !servers.includes(worker))
  await Promise.all(silent.map((worker) => worker.ask(letGoMs)))
  // A worker may have stopped by itself a moment ago, as by ctrl-C, which all processes of a terminal hear. Then what came since is queued
  // here only.
  for (const { slot, key, fd, listener } of fleet.members.listening()) {
    const taker = servers.find((worker) => worker.slot === slot) ?? servers.find((worker) => fleet.members.serves(worker.slot, key))
    if (listener.kind === 'udp' || !taker || taker.hungUp) continue
    for (let count = 0; count < mostQueued; count++) {
      const connection = addon().accept(fd)
      if (connection < 0) break
      const said = taker.say({ type: 'probe', listener: listener.name }, [connection])
      closeSync(connection)
      if (!said) break
    }
  }
  fleet.members.close()
}
