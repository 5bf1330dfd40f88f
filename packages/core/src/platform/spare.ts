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

/** What V8 had put off is over by then. */
const settledMs = 2_000
/** A program under load has objects of its own by then, of the kinds that it needs. */
const ownObjectsMs = 30_000

/** What the keeper tells it when its turn comes. */
export interface SpareTurn {
  readonly slot: number
  /** For the guard of served Unix paths. */
  readonly paths: string
}

/**
 * Returns at once in a process that is no spare. `files`: what is loaded; the keeper does not use the spare after one has changed.
 * `prepare`: what a spare does before it says that it waits. What it answers stays in memory until the program has run for a while.
 */
export function awaitTurn(env: NodeJS.ProcessEnv, files: () => readonly string[], prepare: () => unknown): void {
  const isSpare = env[spareMark] !== undefined
  Reflect.deleteProperty(env, spareMark)
  const place = parseKeeperMark(env[keeperMark] ?? '')
  if (!isSpare || !place) return
  const begun = performance.now()
  const prepared = prepare()
  const { slot, paths } = turn(place.messages, files())
  putOffReducing()
  setTimeout((_held: unknown) => undefined, ownObjectsMs, prepared).unref()
  env[keeperMark] = [place.messages, place.descriptors, ...workerWords({ ...place, slot })].join(',')
  env[pathsMark] = paths
  // Of the worker: health checks and metrics show it.
  const waited = (performance.now() - begun) / 1_000
  const uptime = process.uptime.bind(process)
  process.uptime = () => uptime() - waited
}

/**
 * Where a program is quiet for 8 s, V8 collects its garbage once more (its memory reducer). In a spare, which waits in a read, that came as
 * soon as the event loop ran: in the midst of the switch. It threw away what the spare had compiled, since no object was left of the kinds
 * that this was for: the worst 100 ms of `npm run bench -- dip` had 33 instead of 70 %. What cannot mark in steps it puts off by 8 s.
 * https://github.com/v8/v8/blob/main/src/heap/memory-reducer.cc
 */
function putOffReducing(): void {
  const asked = [...process.execArgv, process.env['NODE_OPTIONS'] ?? '']
  if (asked.some((word) => /incremental[-_]marking/.test(word))) return
  const { setFlagsFromString } = process.getBuiltinModule('node:v8')
  setFlagsFromString('--no-incremental-marking')
  setTimeout(() => { setFlagsFromString('--incremental-marking') }, settledMs).unref()
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
