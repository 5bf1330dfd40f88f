/**
 * Starts a process that inherits the ends of a channel, and the sockets of systemd. handover/ and the keeper decide what becomes of it.
 *
 * Until it serves, its standard error leads through this process, which keeps its last lines. A failed start leaves no descriptor open.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync } from 'node:fs'
import { isatty } from 'node:tty'
import { HandoverError } from '../errors.js'
import { activation } from './activated-sockets.js'
import type { CommandLine } from './command-line.js'
import type { OwnInspector } from './inspector-port.js'
import { successorMark } from './marks.js'
import { native } from './native.js'
import { openPairs } from './socket-pairs.js'
import { StderrRelay } from './stderr-relay.js'

export interface ProcessEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

const spawnError = (command: CommandLine, cause: unknown): HandoverError =>
  new HandoverError('HANDOVER_SPAWN', { what: `${command.file} could not be started in ${command.cwd}: ${(cause as Error).message}` }, { cause })

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

/** Starts `command` as a successor. Throws HANDOVER_SPAWN. */
export async function start(command: CommandLine, env: NodeJS.ProcessEnv, inherited?: InheritedEnds): Promise<SpawnedProcess> {
  if (!native) throw new Error('the addon is not loaded')
  // Not on a terminal: its lines are seen there, and isTTY must stay true.
  const [[messages, theirMessages], [descriptors, theirDescriptors], relayed] = openPairs(native, !isatty(2))
  const relay = relayed && new StderrRelay(relayed)
  const passed = [theirMessages, theirDescriptors, ...(relay ? [2, relay.read] : [])]
  // Sockets of systemd come first: a program knows them by their numbers.
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
  const spawned = childOf(child, relay)
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
  return { messages, descriptors, pid: child.pid ?? 0, child: spawned }
}

function childOf(child: ChildProcess, relay: StderrRelay | undefined): SpawnedChild {
  const ended = new Promise<ProcessEnd>((resolve) => {
    // 'close' would wait for every process that inherited its stdio.
    child.once('exit', (code, signal) => { resolve({ code, signal }) })
  })
  void ended.then(() => relay?.unref())
  return {
    ended,
    stderr: () => relay?.lines() ?? '',
    kill: () => { child.kill('SIGKILL') },
    unref: () => {
      child.unref()
      relay?.unref()
    }
  }
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
