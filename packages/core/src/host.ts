/**
 * The world outside: the command line and the environment that this process was started with, starting a successor, the terminal, the end of the
 * process. Everything that a test wants to replace is in the `Host` object.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { accessSync, closeSync, constants, openSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { isatty } from 'node:tty'
import { Channel } from './channel.js'
import { HandoverError } from './errors.js'
import type { LogLevel } from './options.js'
import { check, native, type Native } from './native.js'
import { InheritedStderr, StderrRelay } from './stderr.js'

/** Marks a successor: the descriptors of its end of the channel. Removed before any code of the program can run. */
const marker = 'HANDOVER_SUCCESSOR'

/** What belongs to this process alone: the mark, and the IPC channel of a process that was forked. */
const notInherited = [marker, 'NODE_CHANNEL_FD', 'NODE_CHANNEL_SERIALIZATION_MODE', 'NODE_UNIQUE_ID']

// Asked now: a terminal that has gone away answers no.
const onTerminal = [0, 1, 2].filter((fd) => isatty(fd))

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A successor, whoever started it. */
export interface Launched {
  readonly channel: Channel
  /** 0 where it is not known (another pid namespace). */
  readonly pid: number
  /** Absent where this process did not start it. */
  readonly child?: {
    readonly ended: Promise<Ended>
    /** The last lines that it wrote to stderr before it served; empty where stderr is a terminal. */
    stderr(): string
    kill(): void
    /** This process may end before the child. */
    unref(): void
  }
}

export interface Host {
  launch(): Promise<Launched>
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
  const mark = env[marker]
  Reflect.deleteProperty(env, marker)
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
function initialEnvironment(): NodeJS.ProcessEnv {
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

const sameFile = (a: string, b: string): boolean => {
  try {
    return realpathSync(a) === realpathSync(b)
  } catch {
    return false
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The words of the command line as they were typed, or undefined (not Linux, or process.title was set before). */
function typedArguments(): string[] | undefined {
  try {
    const words = readFileSync('/proc/self/cmdline', 'utf8').split('\0')
    words.pop()
    return words.length === 1 + process.execArgv.length + process.argv.length - 1 ? words : undefined
  } catch {
    return undefined
  }
}

/** How to start this program again: what a person would type, so that symlinks that moved since are followed anew. */
export interface CommandLine {
  readonly file: string
  readonly args: readonly string[]
  readonly cwd: string
}

/** Call it at the start of the process: the links still lead to what runs now. */
export function commandLine(): CommandLine {
  const logical = process.env['PWD']
  let physical: string
  try {
    physical = process.cwd()
  } catch {
    physical = logical ?? '/' // it was removed
  }
  const cwd = logical !== undefined && path.isAbsolute(logical) && sameFile(logical, physical) ? logical : physical

  // process.execPath is where the binary is, not the link through which it was found.
  const searched = process.argv0.includes('/')
    ? [path.resolve(cwd, process.argv0)]
    : (process.env['PATH'] ?? '').split(path.delimiter).filter((folder) => path.isAbsolute(folder)).map((folder) => path.join(folder, process.argv0)).filter(isExecutable).slice(0, 1)
  const file = searched.find((candidate) => sameFile(candidate, process.execPath)) ?? process.execPath

  // process.argv[1] is absolute through the physical directory, even where a relative path was typed.
  const [, script, ...rest] = process.argv
  if (script === undefined) return { file, args: process.execArgv, cwd }
  const typed = typedArguments()?.[1 + process.execArgv.length]
  const relative = path.relative(physical, script)
  const inside = !relative.startsWith('..') && !path.isAbsolute(relative)
  const typedRelative = typed === undefined ? inside : !path.isAbsolute(typed) && path.resolve(physical, typed) === script
  return { file, args: [...process.execArgv, typedRelative ? path.join(cwd, typed ?? relative) : script, ...rest], cwd }
}

type Pair = readonly [number, number]

/** For messages, for descriptors and, if asked for, for stderr: all of them, or none where descriptors are short. */
function openPairs(addon: Native, forStderr: boolean): readonly [Pair, Pair, Pair | undefined] {
  const pairs: Pair[] = []
  const keep = (made: Pair): Pair => {
    pairs.push(made)
    return made
  }
  try {
    return [
      keep(check(addon.socketPair(), 'socketpair')),
      keep(check(addon.socketPair(), 'socketpair')),
      // A pipe, since /dev/stderr cannot be opened where it is a socket.
      forStderr ? keep(check(addon.pipe(), 'pipe')) : undefined
    ]
  } catch (error) {
    for (const fd of pairs.flat()) closeSync(fd)
    throw error
  }
}

const spawnError = (command: CommandLine, cause: unknown): HandoverError =>
  new HandoverError('HANDOVER_SPAWN', `${command.file} could not be started in ${command.cwd}: ${(cause as Error).message}.`, { cause })

/** Starts `command` as a successor of this process. Throws HANDOVER_SPAWN. */
async function launch(command: CommandLine, env: NodeJS.ProcessEnv): Promise<Launched> {
  if (!native) throw new Error('the addon is not loaded')
  // On a terminal the lines are seen anyway, and a program that asks isTTY must get the answer it got before.
  const [[messages, theirMessages], [descriptors, theirDescriptors], relayed] = openPairs(native, !isatty(2))
  const relay = relayed && new StderrRelay(relayed)

  let child: ChildProcess
  try {
    child = spawn(command.file, command.args, {
      cwd: command.cwd,
      argv0: process.argv0,
      env: { ...env, [marker]: relay ? '3,4,5,6' : '3,4' },
      stdio: ['inherit', 'inherit', relay ? relay.write : 'inherit', theirMessages, theirDescriptors, ...(relay ? [2, relay.read] : [])]
    })
  } catch (cause) {
    closeSync(messages)
    closeSync(descriptors)
    throw spawnError(command, cause)
  } finally {
    closeSync(theirMessages)
    closeSync(theirDescriptors)
    relay?.start()
  }
  const channel = new Channel(new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) })
  const ended = new Promise<Ended>((resolve) => {
    // 'close' would wait for every process that inherited its stdio.
    child.once('exit', (code, signal) => { resolve({ code, signal }) })
  })
  void ended.then(() => relay?.unref())
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', reject)
    })
  } catch (cause) {
    channel.close()
    relay?.stop()
    throw spawnError(command, cause)
  }
  child.on('error', () => undefined)
  return {
    channel,
    pid: child.pid ?? 0,
    child: {
      ended,
      stderr: () => relay?.lines() ?? '',
      kill: () => { child.kill('SIGKILL') },
      unref: () => {
        child.unref()
        relay?.unref()
      }
    }
  }
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
  const command = commandLine()
  const env = initialEnvironment()
  return {
    launch: () => launch(command, env),
    log,
    exit: (status) => process.exit(status)
  }
}
