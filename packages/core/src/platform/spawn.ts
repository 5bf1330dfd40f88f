/**
 * Starting a successor: the command line that a person would type, the channel that it inherits, standard error until it serves.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync } from 'node:fs'
import { isatty } from 'node:tty'
import { activation, throughShell } from '../listeners/socket-activation.js'
import { builtFile } from './native-binary.js'
import { openChannel, type Channel } from '../protocol/channel.js'
import { HandoverError } from '../errors.js'
import { withOwnInspector, type Inspected } from './inspector-port.js'
import { parseMessage } from '../protocol/handover-messages.js'
import { check, native, type Native } from './native.js'
import { pathsMark } from './path-guard.js'
import type { CommandLine } from './command-line.js'
import { StderrRelay } from './stderr-relay.js'

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
  // Sockets that systemd opened come first: a program knows them by their numbers.
  const activated = activation().sockets.map(({ fd }) => fd)
  const first = 3 + activated.length
  const own = first + passed.length

  let child: ChildProcess
  try {
    child = spawn(command.file, command.args, {
      cwd: command.cwd,
      argv0: command.argv0 ?? process.argv0,
      env: {
        ...activation().environment(env),
        [successorMark]: passed.map((_, index) => first + index).join(','),
        ...(inherited && { [inherited.variable]: [...inherited.fds.map((_, index) => own + index), ...(inherited.words ?? [])].join(',') })
      },
      stdio: ['inherit', 'inherit', relay ? relay.write : 'inherit', ...activated, ...passed, ...(inherited?.fds ?? [])]
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

/** Starts what was made of `inspected`. Throws as `start` does. */
export async function startInspected(inspected: Inspected, ...what: Parameters<typeof start>): Promise<Started> {
  try {
    const started = await start(...what)
    void started.child.ended.then(() => { inspected.over() })
    return started
  } catch (error) {
    inspected.over()
    throw error
  }
}

/**
 * With the guard, which is loaded before the program, so that this leaves Unix paths alone that are served. Behind the options of Node: where packages lie in an
 * archive, those make that it is found.
 */
function guarded(command: CommandLine): CommandLine {
  const { args, nodeOptions = 0 } = command
  const guardFile = builtFile('guard.js')
  return guardFile !== undefined ? { ...command, args: [...args.slice(0, nodeOptions), '--require', guardFile, ...args.slice(nodeOptions)], nodeOptions: nodeOptions + 2 } : command
}

/** Starts `command` as a successor of this process, which serves these Unix `paths`. Throws HANDOVER_SPAWN. */
export async function launch(command: CommandLine, env: NodeJS.ProcessEnv, paths: readonly string[]): Promise<Launched> {
  const inspected = await withOwnInspector(command, env)
  const [whole, itsEnv] = paths.length > 0 ? [guarded(inspected.command), { ...inspected.env, [pathsMark]: JSON.stringify(paths) }] : [inspected.command, inspected.env]
  const byShell = throughShell(whole.file, whole.args, process.argv0, activation().environment(itsEnv))
  const started = await startInspected(inspected, byShell ? { ...byShell, cwd: whole.cwd } : whole, itsEnv)
  return { channel: channelTo(started), pid: started.pid, child: started.child }
}
