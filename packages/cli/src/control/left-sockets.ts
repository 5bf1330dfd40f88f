/** The own control sockets of processes that were killed, which could not remove them. */

import { readdirSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { connectControl, placesOfWorkers } from '@handover/core/internal'
import { isOwn, pidOf } from './socket-names.js'

export function removeSocket(file: string): void {
  try {
    unlinkSync(file)
  } catch { /* somebody else did */ }
}

/** Those of a process that is gone. A process of another container may have the same pid: then it listens. */
export function removeSocketsOf(pid: number): void {
  for (const folder of placesOfWorkers()) {
    for (const name of readdirSync(folder)) {
      if (isOwn(name) && pidOf(name) === pid) removeIfStale(path.join(folder, name))
    }
  }
}

function removeIfStale(file: string): void {
  try {
    const socket = connectControl(file)
    socket?.destroy()
    if (!socket) removeSocket(file)
  } catch { /* another user's, or so busy that it cannot be asked */ }
}
