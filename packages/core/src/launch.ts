/**
 * Starting a successor: the command line that a person would type, the channel that it inherits, standard error until it serves.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { accessSync, closeSync, constants, readFileSync, realpathSync } from 'node:fs'
import path from 'node:path'
import { isatty } from 'node:tty'
import { openChannel, type Channel } from './channel.js'
import { HandoverError } from './errors.js'
import { parseMessage } from './messages.js'
import { check, native, type Native } from './native.js'
import { StderrRelay } from './stderr.js'

/** Marks a successor: the descriptors of its end of the channel. Removed before any code of the program can run. */
export const successorMark = 'HANDOVER_SUCCESSOR'

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

/** Where this process was started, by the links that were followed, and the Node binary by the link through which it was found. */
export function startingPoint(): { readonly file: string; readonly cwd: string; readonly physical: string } {
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
  return { file, cwd, physical }
}

/** Call it at the start of the process: the links still lead to what runs now. */
export function commandLine(): CommandLine {
  const { file, cwd, physical } = startingPoint()
  // process.argv[1] is absolute through the physical directory, even where a relative path was typed.
  const [, script, ...rest] = process.argv
  if (script === undefined) return { file, args: process.execArgv, cwd }
  const typed = typedArguments()?.[1 + process.execArgv.length]
  const relative = path.relative(physical, script)
  const inside = !relative.startsWith('..') && !path.isAbsolute(relative)
  const typedRelative = typed === undefined ? inside : !path.isAbsolute(typed) && path.resolve(physical, typed) === script
  return { file, args: [...process.execArgv, typedRelative ? path.join(cwd, typed ?? relative) : script, ...rest], cwd }
}

export type Pair = readonly [number, number]

/** For messages, for descriptors and, if asked for, for stderr: all of them, or none where descriptors are short. */
export function openPairs(addon: Native, forStderr: boolean): readonly [Pair, Pair, Pair | undefined] {
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

/** Ends of sockets that a process inherits beside its channel; the variable holds their numbers, and what else is to be said. */
export interface Inherited {
  readonly variable: string
  readonly fds: readonly number[]
  readonly words?: readonly string[]
}

/** A process that has the other ends of these two descriptors, which nobody owns yet. */
export interface Started {
  readonly messages: number
  readonly descriptors: number
  readonly pid: number
  readonly child: NonNullable<Launched['child']>
}

/** Starts `command` as a successor. Throws HANDOVER_SPAWN. */
export async function start(command: CommandLine, env: NodeJS.ProcessEnv, inherited?: Inherited): Promise<Started> {
  if (!native) throw new Error('the addon is not loaded')
  // On a terminal the lines are seen anyway, and a program that asks isTTY must get the answer it got before.
  const [[messages, theirMessages], [descriptors, theirDescriptors], relayed] = openPairs(native, !isatty(2))
  const relay = relayed && new StderrRelay(relayed)
  const passed = [theirMessages, theirDescriptors, ...(relay ? [2, relay.read] : [])]
  const first = 3
  const own = first + passed.length

  let child: ChildProcess
  try {
    child = spawn(command.file, command.args, {
      cwd: command.cwd,
      argv0: process.argv0,
      env: {
        ...env,
        [successorMark]: passed.map((_, index) => first + index).join(','),
        ...(inherited && { [inherited.variable]: [...inherited.fds.map((_, index) => own + index), ...(inherited.words ?? [])].join(',') })
      },
      stdio: ['inherit', 'inherit', relay ? relay.write : 'inherit', ...passed, ...(inherited?.fds ?? [])]
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
    closeSync(messages)
    closeSync(descriptors)
    relay?.stop()
    throw spawnError(command, cause)
  }
  child.on('error', () => undefined)
  return {
    messages,
    descriptors,
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

/** Opens the channel to a process that was started. */
export function channelTo({ messages, descriptors }: Pick<Started, 'messages' | 'descriptors'>): Channel {
  return openChannel(messages, descriptors, parseMessage)
}

/** Starts `command` as a successor of this process. Throws HANDOVER_SPAWN. */
export async function launch(command: CommandLine, env: NodeJS.ProcessEnv): Promise<Launched> {
  const started = await start(command, env)
  return { channel: channelTo(started), pid: started.pid, child: started.child }
}
