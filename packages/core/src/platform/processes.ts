/** What the system knows of a process: whether it lives, is stopped or traced, and what ends with it. proc(5), else kill(2) alone. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** A file of /proc/PID; empty where it cannot be read. */
function textOf(pid: number | 'self', name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch {
    return ''
  }
}

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

/** Of /proc/PID/stat, from the third field on: state, parent, group, session. Empty where it cannot be read. proc(5) */
export function statOf(pid: number | 'self'): string[] {
  // The name before it is in parentheses, and may hold any character.
  return /.*\) (.*)/s.exec(textOf(pid, 'stat'))?.[1]?.split(' ') ?? []
}

/** The letter of its state; undefined: unknown. */
const stateOf = (pid: number): string | undefined => statOf(pid)[0]
/** 0: unknown, or none. */
const parentOf = (pid: number): number => Number(statOf(pid)[1] ?? 0)

/** Inits of containers that end with the first process that they start; docker-init is the tini of `docker run --init`. */
const init = /^(tini|docker-init|dumb-init|catatonit)\b/
const shell = /(^|\/)(sh|bash|dash|ash)$/
/** With one of these a shell may have more to do. */
const severalCommands = /[;|\n]|(^|[^&])&([^&]|$)/
/** By their own names, or by those of their main files. */
const launcher = /(^|\/)((npm|npx|yarn|pnpm)(-cli)?|tsx(\/dist\/cli)?|dotenvx?|cross-env|env-cmd)(\.[cm]?js)?( |$)/

/** It waits for the one command that it has started, and ends with that: `sh -c 'node server.js'`, `npm start`, `tsx server.ts`. */
function endsWithItsCommand(pid: number): boolean {
  const words = wordsOf(pid)
  const [program = '', option, command = ''] = words
  if (shell.test(program)) return option === '-c' && !severalCommands.test(command)
  return option === '--run' || words.slice(0, 2).some((word) => launcher.test(word))
}

/** Whether the end of this process is the end of `first`, by way of all between them. */
const endsFirst = (pid: number, first = 1): boolean => endsWithItsCommand(pid) && (pid === first || endsFirst(parentOf(pid), first))

/** The parent of this process at its start. Later PID 1 may be its parent only because that one has ended. */
let starter: number | undefined

/** Call it at the start of the process. */
export function noteStarter(): void {
  starter = process.ppid
}

/** What starts the first process of a container, where that sees the pids of the machine. */
const runtime = /^(containerd-shim|conmon)/
/** PID 1 of a pod whose containers share their pids; what starts their first processes is outside. */
const podInit = 'pause'

/**
 * Why the end of this process, which `who` names, would end its container; undefined where it would not, or that is not known. `beside`:
 * its successor was started by something else, and may run in another container, also where the two share their pids.
 */
export function endsContainer(who: string, pid = process.pid, beside = false): string | undefined {
  if (pid === 1) return `${who} is PID 1: its end would end the container`
  const { ppid } = process
  if (starter !== undefined && starter !== ppid) return undefined
  const first = nameOfProcess(1) ?? ''
  const isFirst = ppid === 0 ? first === podInit : runtime.test(nameOfProcess(ppid) ?? '')
  if (isFirst && !beside) return `${who} is the first of its container: its end would end the container`
  const isOver = (ppid === 1 && init.test(first)) || (starter !== undefined && first !== '' && endsFirst(ppid))
  return isOver ? `${who} was started by ${first} (PID 1), which ends with it, and the container with both` : undefined
}

/**
 * Why the end of this process, which `who` names, would end its service of systemd: that has not heard who the main process is then.
 * Undefined where it would not, or that is not known. systemd.exec(5)
 */
export function endsService(who: string, pid = process.pid, env = process.env): string | undefined {
  const { SYSTEMD_EXEC_PID: main = '', NOTIFY_SOCKET: socket = '' } = env
  if (main === '' || socket !== '') return undefined
  const { ppid } = process
  const isMain = main === String(pid) || ((starter ?? ppid) === ppid && endsFirst(ppid, Number(main)))
  return isMain ? `systemd would end the service with ${who}, since its unit (Type=simple, or exec) does not let it say who follows` : undefined
}

/** Its command line; an empty word is at the end. Empty where it cannot be read. proc(5) */
export function wordsOf(pid: number | 'self'): string[] {
  const text = textOf(pid, 'cmdline')
  return text === '' ? [] : text.split('\0')
}

/** The name of a process; undefined where it has ended. proc(5) */
export const nameOfProcess = (pid: number): string | undefined => textOf(pid, 'comm').trim() || undefined

/** Its resident set, in bytes; undefined where it cannot be read. proc(5) */
export function memoryOf(pid: number): number | undefined {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(textOf(pid, 'status'))?.[1]
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1_024
}

/** The inodes of its sockets; none where it has ended, or is another user's. proc(5) */
export function socketsOf(pid: number): string[] {
  const inodes: string[] = []
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      try {
        inodes.push(.../^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.slice(1) ?? [])
      } catch { /* it was closed */ }
    }
  } catch { /* see above */ }
  return inodes
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
export const isTraced = (pid: number): boolean => /^TracerPid:\t[1-9]/m.test(textOf(pid, 'status'))
