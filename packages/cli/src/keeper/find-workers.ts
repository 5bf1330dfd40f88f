/**
 * Workers serve on when their keeper is gone or leaves. A keeper of the same name finds them by their own control sockets, and connects to
 * them. Processes and their connections are unaffected.
 */

import { readdirSync } from 'node:fs'
import path from 'node:path'
import { connectKeeper, placesOfWorkers, type ProcessStatus } from '@handover/core/internal'
import { NoListener, statusOf } from '../control/ask.js'
import { removeSocket } from '../control/left-sockets.js'
import { ending, isOwn, pidOf } from '../control/socket-names.js'
import type { Fleet } from './fleet.js'

/** How often to look for workers that could not be found at first: they booted when their keeper died, or their event loop was blocked. */
const againMs = 10_000

/** What a later look leaves out: sockets of other apps, and workers that the keeper has. */
interface KnownSockets {
  readonly foreign: Set<string>
  readonly pids: ReadonlySet<number>
}

/** Finds all workers at once. Answers how many. `log` hears of those that cannot be asked. */
export async function findWorkers(fleet: Fleet, log: (line: string) => void): Promise<number> {
  fleet.counts.hold()
  try {
    return await look(fleet, log)
  } finally {
    fleet.counts.release()
  }
}

/** Looks again and again, for as long as the keeper has the name. */
export function findLateWorkers(fleet: Fleet, log: (line: string) => void): void {
  const foreign = new Set<string>()
  const said = new Set<string>()
  const once = (line: string): void => {
    if (!said.has(line)) log(line)
    said.add(line)
  }
  const lookAgain = async (): Promise<void> => {
    if (!fleet.isKeeping) return
    const count = await look(fleet, once, { foreign, pids: new Set(fleet.workers.map(({ pid }) => pid)) })
    if (count === 0) return
    log(`${count} more worker${count === 1 ? '' : 's'} of ${fleet.options.name} lived: where a slot has one already, one of the two leaves`)
  }
  const later = (): void => {
    setTimeout(() => { void lookAgain().catch((error: unknown) => { once(String(error)) }).finally(later) }, againMs).unref()
  }
  later()
}

async function look(fleet: Fleet, log: (line: string) => void, known?: KnownSockets): Promise<number> {
  const { name } = fleet.options
  const isNew = (file: string): boolean =>
    isOwn(file) && file.endsWith(ending) && !known?.foreign.has(file) && !known?.pids.has(pidOf(file) ?? 0)
  const files = placesOfWorkers().flatMap((folder) => readdirSync(folder).filter(isNew).map((file) => path.join(folder, file)))
  const found = await Promise.all(files.map(async (file) => {
    try {
      const process = (await statusOf(file))?.processes[0]
      if (known && !fleet.isKeeping) return false
      if (process && isOurs(process, name)) return await take(fleet, file, process)
      known?.foreign.add(path.basename(file))
    } catch (error) {
      // Left from a process that was killed. One that does not answer may still be a worker.
      if (error instanceof NoListener) removeSocket(file)
      else log(`${path.basename(file)} may be a worker of ${name}, and cannot be asked: ${(error as Error).message}`)
    }
    return false
  }))
  return found.filter(Boolean).length
}

/** One keeper at a time has the name, so a worker that had a keeper of this name is ours. */
const isOurs = (status: ProcessStatus, name: string): boolean => status.name === name && status.keeper !== null && status.slot !== null

async function take(fleet: Fleet, file: string, status: ProcessStatus): Promise<boolean> {
  const line = connectKeeper(file, status.slot ?? 0)
  if (!line) return false
  fleet.noteService(status)
  return await fleet.slot(status.slot ?? 0).adopt(line, status)
}
