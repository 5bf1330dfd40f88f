/**
 * The world outside: what this process inherited, the environment that it was started with, the terminal, the end of the process. Everything that a test wants to replace is in the `Host` object.
 */

import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { isatty } from 'node:tty'
import { inspectorMark } from './inspector-port.js'
import { keeperMark } from '../keeper-link/keeper-link.js'
import { launch, successorMark, type Launched } from './spawn.js'
import { native } from './native.js'
import type { LogLevel } from '../options.js'
import { pathsMark } from './path-guard.js'
import { commandLine } from './command-line.js'
import { InheritedStderr } from './stderr-relay.js'

/** What belongs to this process alone: the marks, and the IPC channel of a process that was forked. */
const notInherited = [successorMark, keeperMark, pathsMark, inspectorMark, 'NODE_CHANNEL_FD', 'NODE_CHANNEL_SERIALIZATION_MODE', 'NODE_UNIQUE_ID']

// Asked now: a terminal that has gone away answers no.
const onTerminal = [0, 1, 2].filter((fd) => isatty(fd))

export interface Host {
  /** `paths`: of the Unix sockets that this process serves. */
  launch(paths: readonly string[]): Promise<Launched>
  log(level: LogLevel, line: string): void
  exit(status: number): void
}

/** The inherited ends of the channel in a process that was started as a successor. */
export interface Inheritance {
  readonly messages: number
  readonly descriptors: number
  /** Where stderr really goes: until the commit descriptor 2 leads through the predecessor. */
  readonly stderr?: InheritedStderr
}

/** Reads and removes the mark. Call it before anything else. */
export function takeInheritance(env: NodeJS.ProcessEnv): Inheritance | undefined {
  const mark = env[successorMark]
  Reflect.deleteProperty(env, successorMark)
  const [messages, descriptors, original, relay] = (mark ?? '').split(',').map(Number)
  if (messages === undefined || descriptors === undefined || !native) return undefined
  // Inherited by accident (a program that copied its environment): then these are not sockets of ours.
  if ([messages, descriptors].some((fd) => typeof native?.peerCredentials(fd) === 'number')) return undefined
  return { messages, descriptors, ...(original !== undefined && relay !== undefined && { stderr: new InheritedStderr(original, relay) }) }
}

/**
 * The environment that this process was started with: what the program set since (dotenv, for one) must not hide what a new
 * version would set. proc(5); elsewhere the environment of now.
 */
export function initialEnvironment(): NodeJS.ProcessEnv {
  let env: NodeJS.ProcessEnv
  try {
    const pairs = readFileSync('/proc/self/environ', 'utf8').split('\0').filter((pair) => pair.indexOf('=') > 0)
    env = Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]))
  } catch {
    env = { ...process.env }
  }
  for (const key of notInherited) Reflect.deleteProperty(env, key)
  return env
}

/**
 * How many descriptors this process can still open, less a reserve for what it opens to do its work. Where the descriptors cannot be counted: a
 * quarter of the limit.
 */
export function descriptorRoom(): number {
  const limit = native?.openFilesLimit() ?? 0
  const reserve = Math.max(64, Math.round(Math.min(limit, 100_000) / 50))
  try {
    return Math.max(0, Math.min(limit, 1_000_000_000) - readdirSync('/proc/self/fd').length - reserve)
  } catch {
    return Math.max(0, Math.floor(Math.min(limit, 1_000_000_000) / 4))
  }
}

/** True where this process began on a terminal that has gone away: then SIGHUP means the end, as it always did. */
export const terminalIsGone = (): boolean => onTerminal.length > 0 && !onTerminal.some((fd) => isatty(fd))

/** Lets go of a terminal that is gone: Node puts its mode back at the end of the process, and aborts where that fails. */
export function leaveTerminal(): void {
  if (!native) return
  try {
    const nowhere = openSync('/dev/null', 'r+')
    for (const fd of onTerminal) native.duplicateTo(nowhere, fd)
    closeSync(nowhere)
  } catch { /* no descriptor is free: then the end is less orderly */ }
}

export const switchedOff = 'HANDOVER=off'

/** Why this process can neither give nor take listeners, or undefined. */
export function unavailable(): string | undefined {
  if (/^(off|0|false|no)$/i.test(process.env['HANDOVER'] ?? '')) return switchedOff
  if ('Bun' in globalThis) return 'Bun has no descriptors to pass'
  if ('Deno' in globalThis) return 'Deno has no descriptors to pass'
  return undefined
}

export function realHost(log: Host['log']): Host {
  const command = commandLine((text) => { log('warn', text) })
  const env = initialEnvironment()
  return {
    launch: async (paths) => await launch(command(), env, paths),
    log,
    exit: (status) => {
      // Its terminal may have gone without a word to this process: a keeper heard it.
      if (terminalIsGone()) leaveTerminal()
      process.exit(status)
    }
  }
}
