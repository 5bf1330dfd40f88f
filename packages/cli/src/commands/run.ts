/**
 * `handover run`: this process becomes the keeper, with its signals, its name and its end. Made to be PID 1.
 *
 * It is as small as it can be: whatever happens to the application happens in the workers.
 */

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import {
  activation, ControlSocket, HandoverError, initialEnvironment, isClusterWorker, leaveTerminal, makePool, mistypedVariables, native,
  nativeMissing, notifySystemd, reloadNotice, SettingsOfProcess, starterDescriptors, terminalIsGone, unavailable
} from '@handover/core/internal'
import type { RunOptions } from '../command-line/arguments.js'
import { version } from '../command-line/version.js'
import { notStarted } from '../failure.js'
import { findLateWorkers, findWorkers } from '../keeper/find-workers.js'
import type { KeeperOptions } from '../keeper/fleet.js'
import { follow, handKeeperOver, type KeeperSuccession } from '../keeper/keeper-handover.js'
import { takeKeeperName } from '../keeper/keeper-name.js'
import { controlSide, exitWhenWritten, listenForSignals, log, ownChildren, warn } from '../keeper/keeper-process.js'
import { Keeper } from '../keeper/keeper.js'
import { ListenerMembers } from '../keeper/listener-members.js'
import { watchProgramPages } from '../keeper/program-pages.js'
import { reapOrphans } from '../keeper/reap-orphans.js'
import { StartPaths } from '../keeper/start-paths.js'
import { takeActivated, tellWatchdog } from '../keeper/systemd.js'
import { nameOfPackage } from '../text.js'

/** These belong to the keeper: systemd talks to the main process alone. Each worker gets the passed sockets with variables of its own. */
const notInherited = ['NOTIFY_SOCKET', 'WATCHDOG_PID', 'WATCHDOG_USEC', 'LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']

const defaultReadyTimeoutMs = 60_000
const defaultHangTimeoutMs = 30_000
/** How long an answer that was written may take to leave. */
const lastWordMs = 200

/** The control socket of this process; it may come late. */
interface ControlHolder {
  socket: ControlSocket | undefined
}

/** Ends the process with the status of what it ran. Throws a Failure if nothing was started. */
export async function run(options: RunOptions): Promise<never> {
  if (options.log !== undefined) process.env['HANDOVER_LOG'] = options.log
  const off = unavailable() ?? (native ? undefined : nativeMissing)
  if (off !== undefined) throw notStarted(off, 'Start the script with node itself')
  if (isClusterWorker()) {
    // It would keep this process from its end.
    process.channel?.unref()
    const todo = 'With pm2, start it in fork mode: without -i, or with exec_mode "fork"'
    throw notStarted('this process is a worker of node:cluster, which keeps all listeners in its primary', todo)
  }
  requireVariables()
  const { script, misplaced } = options
  const paths = new StartPaths()
  const words = wordsFor(options, paths.cwd)
  const given = options.name ?? (process.env['HANDOVER_NAME'] === '' ? undefined : process.env['HANDOVER_NAME'])
  starterDescriptors(true)
  makePool()
  takeActivated(process.env, log)

  // From here on no signal may find its default action.
  const children = ownChildren()
  reapOrphans((pid) => [...children].some((child) => child.pid === pid))
  const following = await follow()
  if (misplaced !== undefined && !following) {
    warn(`${misplaced} stands after ${script}, which gets it. Put it before, if it is meant for handover, else put -- before ${script}.`)
  }
  if (paths.note !== undefined) log('info', paths.note)
  const name = following?.kept.name ?? given ?? defaultName(paths.cwd, script)
  const control: ControlHolder = { socket: undefined }
  const settings = keeperOptions(name, options, paths, words, control, () => keeper)
  const keeper: Keeper = new Keeper(settings, membersFor(options, following), following?.kept)
  listenForSignals(keeper)
  // Never exit on an internal error: as PID 1 the keeper would take the container down with it.
  process.on('uncaughtException', (error) => { log('error', `a defect of the keeper, which goes on: ${error.stack ?? error.message}`) })
  await (following ? goOn(keeper, following, control) : begin(keeper, given !== undefined, control))
  tellWatchdog(keeper)
  if (control.socket) findLateWorkers(keeper, warn)
  watchProgramPages(() => keeper.isQuiet)
  // Later, while the workers boot.
  setImmediate(() => { paths.remember() })
  // Nothing else keeps this process alive while no worker lives.
  setInterval(() => undefined, 2 ** 31 - 1)
  return await new Promise<never>(() => undefined)
}

/** Each worker would refuse them anew. Throws a Failure. */
function requireVariables(): void {
  for (const line of mistypedVariables(process.env)) warn(line)
  try {
    new SettingsOfProcess(process.env)
  } catch (error) {
    throw error instanceof HandoverError ? notStarted(error.what, 'Correct the value') : error
  }
}

function keeperOptions(
  name: string,
  { workers, hangTimeoutMs = defaultHangTimeoutMs, spare, maxMemoryBytes, metrics, log: logForm, nodeOptions }: RunOptions,
  paths: StartPaths,
  words: readonly string[], control: ControlHolder, keeper: () => Keeper
): KeeperOptions {
  const env = initialEnvironment()
  if (logForm !== undefined) env['HANDOVER_LOG'] = logForm
  for (const variable of notInherited) Reflect.deleteProperty(env, variable)
  return {
    name, version, workers, hangTimeoutMs, spare, maxMemoryBytes, metrics, readyTimeoutMs: readyTimeout(env), env, log,
    command: (inPlace) => paths.worker(words, nodeOptions.length, inPlace),
    handOver: async () => {
      control.socket?.heal()
      const command = paths.keeper()
      const next = await handKeeperOver(command, keeper(), control.socket)
      paths.forget(command)
      // The answer to the request goes out first.
      setTimeout(() => {
        // A stop of this process was meant for the app.
        if (keeper().stopWanted) process.kill(next.pid, 'SIGTERM')
        process.exit(0)
      }, lastWordMs)
      return next
    },
    served: () => { notifySystemd({ READY: 1, MAINPID: process.pid }) },
    reloads: (running) => {
      control.socket?.heal()
      notifySystemd(running ? reloadNotice() : { READY: 1 })
    },
    ended: (status) => {
      control.socket?.close(true)
      control.socket = undefined
      paths.forget()
      if (terminalIsGone()) leaveTerminal()
      exitWhenWritten(status)
    }
  }
}

function membersFor({ shared }: RunOptions, following: KeeperSuccession | undefined): ListenerMembers {
  // No other socket can be bound beside a socket of systemd, which is not this user's.
  const options = { shared: shared || process.platform !== 'linux', isShared: (fd: number) => activation().has(fd), warn }
  return following ? ListenerMembers.restore(following.kept.members, following.fds, options) : new ListenerMembers(options)
}

/** Takes over from another keeper. */
async function goOn(keeper: Keeper, following: KeeperSuccession, control: ControlHolder): Promise<void> {
  following.remember(keeper)
  const { kept: { control: file }, control: fd } = following
  if (file !== null && fd !== undefined) control.socket = new ControlSocket(file, fd, controlSide(keeper))
  await keeper.countOn(await following.prepared())
  await findWorkers(keeper, warn)
  keeper.checkpoints.adopted(keeper.workers.map(({ pid }) => pid))
  control.socket?.listen()
  following.ready()
  void keeper.goOn()
}

/** Starts the app, or goes on with workers whose keeper was killed. */
async function begin(keeper: Keeper, isGiven: boolean, control: ControlHolder): Promise<void> {
  const { name } = keeper.options
  control.socket = await takeKeeperName(name, isGiven, controlSide(keeper), (late) => {
    control.socket = late
    findLateWorkers(keeper, warn)
  })
  const found = control.socket ? await findWorkers(keeper, warn) : 0
  if (found > 0) log('info', `${found} worker${found === 1 ? '' : 's'} of ${name} lived, and ${found === 1 ? 'is' : 'are'} kept from now on`)
  // A stop may have been asked while the name was looked for.
  if (!keeper.stopping) void (found > 0 ? keeper.goOn() : keeper.run())
}

/** The words after `node`. Throws a Failure if there is no such script. */
function wordsFor({ script, args, nodeOptions }: RunOptions, cwd: string): string[] {
  try {
    createRequire(path.join(cwd, 'from-here.js')).resolve(path.resolve(cwd, script))
  } catch {
    const taken = nodeOptions.length > 0 ? ` (${nodeOptions.join(' ')} before it was taken for options of Node)` : ''
    throw notStarted(`${script} does not exist in ${cwd}${taken}`, 'Give the path of a script, as to node')
  }
  return [...nodeOptions, script, ...args]
}

/** The package's name, else the script's. */
function defaultName(cwd: string, script: string): string {
  let name: unknown
  try {
    name = (JSON.parse(readFileSync(path.join(cwd, 'package.json'), 'utf8')) as { name?: unknown }).name
  } catch { /* there is none, or it is broken */ }
  const text = typeof name === 'string' && name !== '' ? name : path.basename(script, path.extname(script))
  return nameOfPackage(text) || 'app'
}

function readyTimeout(env: NodeJS.ProcessEnv): number {
  const text = env['HANDOVER_READY_TIMEOUT'] ?? ''
  return /^\d+$/.test(text) ? Number(text) : defaultReadyTimeoutMs
}
