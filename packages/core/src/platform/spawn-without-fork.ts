/**
 * Starts a process without fork(2). Node forks, which copies the page tables: a process of 500 MB stands still for some 40 ms, and its
 * clients wait. The addon's posix_spawn(3) shares the memory until exec, and takes about a millisecond whatever the size.
 *
 * Not for a keeper that is PID 1: it reaps what it did not start by child_process.
 */

import { closeSync } from 'node:fs'
import os from 'node:os'
import { check, native, systemError } from './native.js'

/** Both null: it was reaped by another part of the program, and how it ended is not known. */
export interface ProcessEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface SpawnRequest {
  readonly file: string
  /** With argv[0]. */
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly cwd: string
  /** They become 0, 1, … of the process. */
  readonly fds: readonly number[]
}

export interface WatchedProcess {
  readonly pid: number
  readonly ended: Promise<ProcessEnd>
  readonly kill: () => void
  /** This process may end before it. Absent where it may anyway. */
  readonly unref?: () => void
}

/** Undefined where this system has no such way, and the caller takes another. Throws the system's error, as `spawn` does. */
export function spawnWithoutFork({ file, args, env, cwd, fds }: SpawnRequest): WatchedProcess | undefined {
  // Without a slash it is looked up in PATH, which posix_spawn(3) does not. A process that cannot be watched is not started.
  if (!native || !file.includes('/')) return undefined
  const own = native.openProcess(process.pid)
  if (own < 0) return undefined
  closeSync(own)
  const pid = native.spawn(file, args, env, cwd, fds)
  if (pid === -os.constants.errno.ENOSYS) return undefined
  check(pid, `spawn ${file}`)
  let isOver = false
  let over: (end: ProcessEnd) => void = () => undefined
  const ended = new Promise<ProcessEnd>((resolve) => { over = resolve })
  const watched = native.openProcess(pid)
  const watch = watched < 0 ? watched : native.watchOnce(watched, 'readable', () => {
    isOver = true
    over(endOf(native!.exitStatus(pid)))
  }, false)
  if (watched >= 0) closeSync(watched)
  if (typeof watch === 'number') {
    // No descriptor is left to watch it with: it must not run unseen.
    process.kill(pid, 'SIGKILL')
    throw systemError(watch, 'pidfd_open')
  }
  return { pid, ended, kill: () => { if (!isOver) process.kill(pid, 'SIGKILL') } }
}

/** A wait status as Linux has it: the signal in the lower seven bits, else the code in the next eight. wait(2) */
function endOf(status: number): ProcessEnd {
  const number = status & 0x7f
  const signal = Object.entries(os.constants.signals).find(([, value]) => value === number)?.[0] as NodeJS.Signals | undefined
  if (status < 0) return { code: null, signal: null }
  return signal === undefined ? { code: status >> 8, signal: null } : { code: null, signal }
}
