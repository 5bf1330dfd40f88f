/**
 * Starts a process that inherits the ends of a channel, the sockets of systemd, and what this process was started with. handover/ and the
 * keeper decide what becomes of it.
 *
 * Until it serves, its standard error leads through this process, which keeps its last lines. A failed start leaves no descriptor open.
 */

import { accessSync, closeSync, constants, openSync } from 'node:fs'
import { isatty } from 'node:tty'
import { HandoverError } from '../errors.js'
import { activation } from './activated-sockets.js'
import type { CommandLine } from './command-line.js'
import type { OwnInspector } from './inspector-port.js'
import { successorMark } from './marks.js'
import { openMemoryFile } from './memory-file.js'
import { native } from './native.js'
import { openPairs } from './socket-pairs.js'
import { spawnWithoutFork, type ProcessEnd, type SpawnRequest, type WatchedProcess } from './spawn-without-fork.js'
import { layOut, nothing } from './starter-descriptors.js'
import { StderrRelay } from './stderr-relay.js'
import { keepWaiting } from './waiting-writes.js'

export type { ProcessEnd } from './spawn-without-fork.js'

/** There is nothing wrong with the command: the system has no process, memory or descriptor left. */
const isShort = (cause: unknown): boolean =>
  ['EAGAIN', 'ENOMEM', 'EMFILE', 'ENFILE'].includes((cause as NodeJS.ErrnoException).code ?? '')

const spawnError = (command: CommandLine, cause: unknown): unknown => (isShort(cause) ? cause : new HandoverError('HANDOVER_SPAWN', {
  what: `${command.file} could not be started in ${command.cwd}: ${(cause as Error).message}`
}, { cause }))

/** Sockets that a process inherits beside its channel. The variable holds their numbers, followed by `words`. */
export interface InheritedEnds {
  readonly variable: string
  readonly fds: readonly number[]
  readonly words?: readonly string[]
}

/** A process that this one started. */
export interface SpawnedChild {
  readonly ended: Promise<ProcessEnd>
  /** The last lines that it wrote to stderr before it served; empty where stderr is a terminal. */
  stderr(): string
  kill(): void
  /** This process may end before the child. */
  unref(): void
}

/** A process that has the other ends of these two descriptors. The caller owns them. */
export interface SpawnedProcess {
  readonly messages: number
  readonly descriptors: number
  readonly pid: number
  readonly child: SpawnedChild
}

export interface StartOptions {
  readonly inherited?: InheritedEnds
  /** By spawnWithoutFork, where it can. */
  readonly withoutFork?: boolean
}

/** The start itself takes some milliseconds: what comes before and behind it is done in other turns of the event loop. */
const nextTurn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve) })

/** Starts `command` as a successor. Throws HANDOVER_SPAWN, or the system's error where that is short of something. */
export async function start(command: CommandLine, env: NodeJS.ProcessEnv, options: StartOptions = {}): Promise<SpawnedProcess> {
  await nextTurn()
  const empty = openNothing()
  try {
    return await startWith(command, env, options, empty)
  } finally {
    closeSync(empty)
  }
}

function openNothing(): number {
  try {
    return openSync(nothing, 'r+')
  } catch {
    return openMemoryFile('nothing') // a jail without /dev
  }
}

async function startWith(
  command: CommandLine, env: NodeJS.ProcessEnv, { inherited, withoutFork = false }: StartOptions, empty: number
): Promise<SpawnedProcess> {
  if (!native) throw new Error('the addon is not loaded')
  // Not on a terminal: its lines are seen there, and isTTY must stay true.
  const [[messages, theirMessages], [descriptors, theirDescriptors], relayed] = openPairs(native, !isatty(2))
  const relay = relayed && new StderrRelay(relayed)
  const passed = [theirMessages, theirDescriptors, ...(relay ? [2, relay.read] : [])]
  // Sockets of systemd come first: a program knows them by their numbers.
  const activated = activation().sockets.map(({ fd }) => fd)
  const { fds, numbers } = layOut([0, 1, relay ? relay.write : 2, ...activated], [...passed, ...(inherited?.fds ?? [])], empty)

  const argv0 = command.argv0 ?? process.argv0
  const wholeEnv = {
    ...activation().environment(env),
    [successorMark]: numbers.slice(0, passed.length).join(','),
    ...(inherited && { [inherited.variable]: [...numbers.slice(passed.length), ...(inherited.words ?? [])].join(',') })
  }
  const { file, args, cwd } = command
  const wait = keepWaiting()
  const { pid, ...child } = await spawnProcess({ file, args: [argv0, ...args], cwd, env: wholeEnv, fds }, withoutFork)
    .finally(() => {
      closeSync(theirMessages)
      closeSync(theirDescriptors)
      wait()
      relay?.start()
    })
    .catch((cause: unknown) => {
      closeSync(messages)
      closeSync(descriptors)
      relay?.stop()
      throw spawnError(command, cause)
    })
  void child.ended.then(() => {
    // At its end Node sets its standard streams back to what they were at its start.
    wait()
    relay?.unref()
  })
  // Not in a keeper, which serves no request: it hears of an end in the order of its promises.
  if (withoutFork) await nextTurn()
  const unref = (): void => {
    child.unref?.()
    relay?.unref()
  }
  return { messages, descriptors, pid, child: { ended: child.ended, kill: child.kill, stderr: () => relay?.lines() ?? '', unref } }
}

/** This is the directory of this process, which another user chose: that of root, for `sudo -u app`. A child that is not told gets it. */
function standsWhereItMayNotEnter(cwd: string): boolean {
  try {
    accessSync(cwd, constants.X_OK)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' && cwd === process.cwd()
  }
}

async function spawnProcess(request: SpawnRequest, withoutFork: boolean): Promise<WatchedProcess> {
  const stays = standsWhereItMayNotEnter(request.cwd)
  const watched = withoutFork && !stays ? spawnWithoutFork(request) : undefined
  if (watched) return watched
  const { file, args: [argv0, ...args], cwd, env, fds } = request
  const child = process.getBuiltinModule('node:child_process').spawn(file, args, { ...(!stays && { cwd }), argv0, env, stdio: [...fds] })
  // 'close' would wait for every process that inherited its stdio.
  const ended = new Promise<ProcessEnd>((resolve) => { child.once('exit', (code, signal) => { resolve({ code, signal }) }) })
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', reject)
  })
  child.on('error', () => undefined)
  return { pid: child.pid!, ended, kill: () => { child.kill('SIGKILL') }, unref: () => { child.unref() } }
}

/** Starts what was made of `inspected`. Throws as `start` does. */
export async function startInspected(inspected: OwnInspector, ...what: Parameters<typeof start>): Promise<SpawnedProcess> {
  try {
    const started = await start(...what)
    void started.child.ended.then(() => { inspected.over() })
    return started
  } catch (error) {
    inspected.over()
    throw error
  }
}
