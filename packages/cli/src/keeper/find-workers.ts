/**
 * Workers whose keeper is gone, or leaves, serve on; a keeper of the same name finds them by their own control sockets, and has them again.
 * No process and no connection notices.
 */

import { readdirSync } from 'node:fs'
import path from 'node:path'
import { connectKeeper, placesOfWorkers, type ProcessStatus } from '@handover/core/internal'
import { NobodyListens } from '../control/ask.js'
import { isOwn, pidOf } from '../control/socket-names.js'
import { statusOf } from '../control/status-of.js'
import type { Fleet } from './fleet.js'

/** How often it is looked for those that could not be found before: they booted when their keeper died, or their event loop was blocked. */
const againMs = 10_000

/** A look at those that were not found before. */
interface Late {
  /** Sockets of other apps. */
  readonly foreign: Set<string>
  readonly known: ReadonlySet<number>
}

/** Answers how many were found. `log` hears of those that cannot be had. */
export async function adoptWorkers(fleet: Fleet, log: (line: string) => void, late?: Late): Promise<number> {
  if (!late) fleet.counts.hold()
  try {
    return await findWorkers(fleet, log, late)
  } finally {
    if (!late) fleet.counts.release()
  }
}

async function findWorkers(fleet: Fleet, log: (line: string) => void, late?: Late): Promise<number> {
  const isLookedAt = (file: string): boolean => isOwn(file) && file.endsWith('.sock') && !late?.foreign.has(file) && !late?.known.has(pidOf(file) ?? 0)
  const files = placesOfWorkers().flatMap((folder) => readdirSync(folder).filter(isLookedAt).map((file) => path.join(folder, file)))
  const found = await Promise.all(files.map(async (file) => {
    try {
      const process = (await statusOf(file))?.processes[0]
      if (late && !fleet.isKeeping) return 0
      if (process && isOurs(process, fleet.options.name)) return (await adopt(fleet, file, process)) ? 1 : 0
      late?.foreign.add(path.basename(file))
    } catch (error) {
      // What a killed process left is nobody's; one that hangs may be a worker.
      if (!(error instanceof NobodyListens)) log(`${path.basename(file)} may be a worker of ${fleet.options.name}, and cannot be asked: ${(error as Error).message}`)
    }
    return 0
  }))
  return found.reduce<number>((sum, one) => sum + one, 0)
}

/** Looks again and again, for as long as the keeper has the name. */
export function adoptLate(fleet: Fleet, log: (line: string) => void): void {
  const foreign = new Set<string>()
  const said = new Set<string>()
  const once = (line: string): void => {
    if (!said.has(line)) log(line)
    said.add(line)
  }
  const look = async (): Promise<void> => {
    if (!fleet.isKeeping) return
    const count = await adoptWorkers(fleet, once, { foreign, known: new Set(fleet.workers.map(({ pid }) => pid)) })
    if (count > 0) log(`${count} more worker${count === 1 ? '' : 's'} of ${fleet.options.name} lived: where a slot has one already, one of the two leaves`)
  }
  const again = (): void => { setTimeout(() => { void look().catch((error: unknown) => { once(String(error)) }).finally(again) }, againMs).unref() }
  again()
}

/** One keeper at a time has the name: whoever was kept under it, and lives, is ours. */
const isOurs = (status: ProcessStatus, name: string): boolean => status.name === name && status.keeper !== null && status.slot !== null

async function adopt(fleet: Fleet, file: string, status: ProcessStatus): Promise<boolean> {
  const line = connectKeeper(file, status.slot ?? 0)
  if (!line) return false
  fleet.noteService(status)
  return await fleet.slot(status.slot ?? 0).adopt(line, status)
}
