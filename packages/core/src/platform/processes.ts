/** What the system knows of a process: whether it lives, is stopped or traced, and what ends with it. proc(5), else kill(2) alone. */

import { readFileSync } from 'node:fs'

/** Whether a process of this pid runs in this pid namespace; a zombie does not. */
export function isAlive(pid: number): boolean {
  if (stateOf(pid) === 'Z') return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** The letter of its state; undefined: unknown. */
function stateOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name before it is in parentheses, and may hold any character.
    return text.slice(text.lastIndexOf(')') + 2).split(' ', 1)[0]
  } catch {
    return undefined
  }
}

/** Inits of containers that end with the first process that they start; docker-init is the tini of `docker run --init`. */
const endsWithItsFirst = /^(tini|docker-init|dumb-init|catatonit)\b/

/** Why the end of this process, which `who` names, would end its container; undefined where it would not. */
export function endsContainer(who: string, pid = process.pid): string | undefined {
  if (pid === 1) return `${who} is PID 1: its end would end the container`
  const init = process.ppid === 1 ? nameOfProcess(1) ?? '' : ''
  return endsWithItsFirst.test(init) ? `${who} was started by ${init}, which ends with it, and the container with both` : undefined
}

/** The name of a process; undefined where it has ended. proc(5) */
export function nameOfProcess(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** Why a process may not answer, and what to do, as the rest of a sentence. */
export function whyDeaf(pid: number): string {
  switch (stateOf(pid)) {
    case 'T': return `it was stopped by a signal (SIGSTOP or the like); kill -CONT ${pid} lets it go on`
    case 't': return 'it stands in a debugger; let that go on'
    case 'D': return 'it waits in the kernel, mostly for a disk or a network file system'
    default: return isAlive(pid) ? 'see whether its event loop is blocked' : 'it has ended, or runs in another container'
  }
}

/** Kills it. False where that cannot be: it is gone, or in another container. */
export function endProcess(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 'SIGKILL')
  } catch {
    return false
  }
}

/** Whether it is being debugged by gdb, strace or the like. proc(5) */
export function isTraced(pid: number): boolean {
  try {
    return /^TracerPid:\t[1-9]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
