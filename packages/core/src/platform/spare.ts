/**
 * A worker that a keeper has started before it is needed. Node has booted, and the preload has loaded this package; the program's options,
 * its script and its first line come when it is the worker's turn. It has the command line, the environment, the working directory and the
 * descriptors of any other worker. Only its slot is not known yet.
 *
 * It waits by a read that blocks its only thread: nothing else can happen in it.
 */

import { readSync, writeSync } from 'node:fs'
import { keeperMark, parseKeeperMark, spareMark, workerWords } from './marks.js'
import { pathsMark } from './path-guard.js'

/** What the keeper tells it when its turn comes. */
export interface SpareTurn {
  readonly slot: number
  /** For the guard of served Unix paths. */
  readonly paths: string
}

/**
 * Returns at once in a process that is no spare. `files`: what is loaded; the keeper does not use the spare after one has changed.
 * `prepare`: what a spare does before it says that it waits.
 */
export function awaitTurn(env: NodeJS.ProcessEnv, files: () => readonly string[], prepare: () => void): void {
  const isSpare = env[spareMark] !== undefined
  Reflect.deleteProperty(env, spareMark)
  const place = parseKeeperMark(env[keeperMark] ?? '')
  if (!isSpare || !place) return
  const begun = performance.now()
  prepare()
  const { slot, paths } = turn(place.messages, files())
  env[keeperMark] = [place.messages, place.descriptors, ...workerWords({ ...place, slot })].join(',')
  env[pathsMark] = paths
  // Of the worker: health checks and metrics show it.
  const waited = (performance.now() - begun) / 1_000
  const uptime = process.uptime.bind(process)
  process.uptime = () => uptime() - waited
}

function turn(line: number, files: readonly string[]): SpareTurn {
  const byte = Buffer.alloc(1)
  let text = ''
  try {
    writeSync(line, `${JSON.stringify(files)}\n`)
    // Not a byte more than this line: what follows belongs to the link.
    while (byte[0] !== 10) {
      if (read(line, byte) === 0) break
      text += byte.toString('latin1')
    }
    return JSON.parse(text) as SpareTurn
  } catch {
    // The keeper is gone. No handler of an exit may run, nor the terminal be touched.
    process.kill(process.pid, 'SIGKILL')
    throw new Error('the keeper is gone')
  }
}

function read(line: number, byte: Buffer): number {
  for (;;) {
    try {
      return readSync(line, byte)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINTR') throw error
    }
  }
}
