/**
 * The beginning of a stop: connects are refused from here on, and what the kernel has queued is answered.
 *
 * While the keeper holds a copy of a listener the kernel goes on completing connects there, and nobody would accept them. So its copies go
 * before the workers are told: then each of them has the only copy, takes what is queued as it closes it, and a client that comes later is
 * refused at once and may try elsewhere.
 */

import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { addon } from '@handover/core/internal'
import type { Fleet } from './fleet.js'

/** How long those may take to let go of their copies that drain already; they need a turn of their loop. */
const letGoMs = 500
/** A client that connects without end is not waited for. */
const mostQueued = 65_536

/** Resolves when the keeper holds no listener any more, and no process that is not about to be told to stop does. */
export async function refuseConnects(fleet: Fleet): Promise<void> {
  const { servers } = fleet
  // They keep silent copies for an undo, and have been told that there will be none. Whoever answers has read that before.
  const silent = fleet.workers.filter((worker) => worker.retiring && !servers.includes(worker))
  if (silent.length > 0) await Promise.race([Promise.all(silent.map((worker) => worker.ask(letGoMs))), sleep(letGoMs)])
  // A worker may have stopped by itself a moment ago, as by ctrl-C, which all processes of a terminal hear: then what came since is in this
  // queue alone.
  for (const { slot, key, fd, listener } of fleet.members.listening()) {
    const taker = servers.find((worker) => worker.slot === slot) ?? servers.find((worker) => fleet.members.serves(worker.slot, key))
    if (listener.kind === 'udp' || !taker || taker.hungUp) continue
    for (let count = 0; count < mostQueued; count++) {
      const connection = addon().accept?.(fd) ?? -1
      if (connection < 0) break
      const said = taker.say({ type: 'probe', listener: listener.name }, [connection])
      closeSync(connection)
      if (!said) break
    }
  }
  fleet.members.close()
}
