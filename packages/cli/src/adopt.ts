/**
 * Workers whose keeper is gone, or leaves, serve on; a keeper of the same name finds them by their own control sockets, and has them again. No process and no
 * connection notices.
 */

import { readdirSync } from 'node:fs'
import path from 'node:path'
import { connectKeeper, findControlDirectory, type ProcessStatus } from '@handover/core/keeper'
import { isOwn, statusOf } from './apps.js'
import type { Keeper } from './keeper.js'

/** Answers how many were found. `log` hears of those that cannot be had. */
export async function adoptWorkers(keeper: Keeper, log: (line: string) => void): Promise<number> {
  const { folder, exists } = findControlDirectory()
  const files = exists ? readdirSync(folder).filter((file) => isOwn(file) && file.endsWith('.sock')).map((file) => path.join(folder, file)) : []
  const found = await Promise.all(files.map(async (file) => {
    try {
      const process = (await statusOf(file))?.processes[0]
      return process && isOurs(process, keeper.options.name) && (await adopt(keeper, file, process)) ? 1 : 0
    } catch (error) {
      // What a killed process left is nobody's; one that hangs may be a worker.
      if (error instanceof Error && error.name !== 'NobodyListens') log(`${path.basename(file)} may be a worker of ${keeper.options.name}, and cannot be asked: ${error.message}`)
      return 0
    }
  }))
  return found.reduce<number>((sum, one) => sum + one, 0)
}

/** One keeper at a time has the name: whoever was kept under it, and lives, is ours. */
const isOurs = (status: ProcessStatus, name: string): boolean => status.name === name && status.keeper !== null && status.slot !== null

async function adopt(keeper: Keeper, file: string, status: ProcessStatus): Promise<boolean> {
  const line = connectKeeper(file, status.slot ?? 0)
  return line ? await keeper.slot(status.slot ?? 0).adopt(line, status) : false
}
