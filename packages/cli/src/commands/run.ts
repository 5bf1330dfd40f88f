/**
 * `handover run`: this process becomes the keeper. Its signals, its name, its end; made to be PID 1.
 *
 * It is as small as it can be: whatever happens to the application happens in the workers.
 */

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { activation, ControlSocket, initialEnvironment, leaveTerminal, monotonicMicroseconds, native, nativeMissing, notifySystemd, terminalIsGone, unavailable } from '@handover/core/internal'
import type { RunOptions } from '../command-line/arguments.js'
import { version } from '../command-line/version.js'
import { Failure } from '../failure.js'
import { adoptLate, adoptWorkers } from '../keeper/find-workers.js'
import { follow, handKeeperOver } from '../keeper/keeper-handover.js'
import { takeKeeperName } from '../keeper/keeper-name.js'
import { controlSide, listenForSignals, log, ownChildren } from '../keeper/keeper-process.js'
import { Keeper } from '../keeper/keeper.js'
import { ListenerMembers } from '../keeper/listener-members.js'
import { reapOrphans } from '../keeper/reap-orphans.js'
import { StartPaths } from '../keeper/start-paths.js'
import { takeActivated, tellWatchdog } from '../keeper/systemd.js'
import { nameOfPackage } from '../text.js'

/**
 * They belong to the keeper: systemd talks to the main process alone. The sockets that it passes go on to each worker, with variables of
 * its own.
 */
const notInherited = ['NOTIFY_SOCKET', 'WATCHDOG_PID', 'WATCHDOG_USEC', 'LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']

const defaultReadyTimeoutMs = 60_000
const defaultHangTimeoutMs = 30_000
/** How long an answer that was written may take to leave. */
const lastWordMs = 200

/** Ends the process with the status of what it ran. Throws a Failure where nothing was started. */
export async function run(options: RunOptions): Promise<never> {
  const off = unavailable() ?? (native ? undefined : nativeMissing)
  if (off !== undefined) throw new Failure(`handover run: ${off}. Nothing was started. Start the script with node itself.`)
  const paths = new StartPaths()
  const { cwd } = paths
  const words = wordsFor(options, cwd)
  const given = options.name ?? (process.env['HANDOVER_NAME'] === '' ? undefined : process.env['HANDOVER_NAME'])
  const name = given ?? defaultName(cwd, options.script)
  takeActivated(process.env, log)
  const env = initialEnvironment()
  for (const variable of notInherited) Reflect.deleteProperty(env, variable)

  // Whatever happens from here on, no signal may find the default action.
  const children = ownChildren()
  reapOrphans((pid) => [...children].some((child) => child.pid === pid))

  const shared = options.shared || process.platform !== 'linux'
  // A socket of systemd's is not this user's: no other may be bound beside it.
  const isShared = (fd: number): boolean => activation().has(fd)
  const following = await follow()
  if (options.misplaced !== undefined && !following) log('warn', `${options.misplaced} stands after ${options.script}, which gets it. Put it before, if it is meant for handover, else put -- before ${options.script}.`)
  const membersOptions = { shared, isShared, warn: (line: string) => { log('warn', line) } }
  if (paths.note !== undefined) log('info', paths.note)
  let control: ControlSocket | undefined
  const keeper: Keeper = new Keeper({
      name: following?.kept.name ?? name,
      version,
      workers: options.workers,
      hangTimeoutMs: options.hangTimeoutMs ?? defaultHangTimeoutMs,
      readyTimeoutMs: readyTimeout(env),
      env,
      command: (inPlace) => paths.worker(words, options.nodeOptions.length, inPlace),
      log,
      handOver: async () => {
        control?.heal()
        const next = await handKeeperOver(paths.keeper(), keeper, control, () => { control?.pause() }, () => { control?.listen() })
        // Whoever asked hears of it first.
        setTimeout(() => {
          // Who asked this process to stop meant the app.
          if (keeper.stopWanted) process.kill(next.pid, 'SIGTERM')
          process.exit(0)
        }, lastWordMs)
        return next
      },
      served: () => { notifySystemd({ READY: 1, MAINPID: process.pid }) },
      reloads: (running) => {
        control?.heal()
        notifySystemd(running ? { RELOADING: 1, MONOTONIC_USEC: monotonicMicroseconds() } : { READY: 1 })
      },
      ended: (status) => {
        control?.close(true)
        paths.forget()
        if (terminalIsGone()) leaveTerminal()
        process.exit(status)
      }
    }, following ? ListenerMembers.restore(following.kept.members, following.fds, membersOptions) : new ListenerMembers(membersOptions), following?.kept)
  listenForSignals(keeper)
  // Whatever goes wrong here: a keeper that ends is worse, as PID 1 it takes the whole container along.
  process.on('uncaughtException', (error) => { log('error', `a defect of the keeper, which goes on: ${error.stack ?? error.message}`) })
  if (following) {
    following.remember(keeper)
    if (following.kept.control !== null && following.control !== undefined) control = new ControlSocket(following.kept.control, following.control, controlSide(keeper))
    await following.prepared()
    await adoptWorkers(keeper, (line) => { log('warn', line) })
    keeper.checkpoints.adopted(keeper.workers.map(({ pid }) => pid))
    control?.listen()
    following.ready()
    void keeper.goOn()
  } else {
    control = await takeKeeperName(name, given !== undefined, controlSide(keeper), (late) => {
      control = late
      adoptLate(keeper, (line) => { log('warn', line) })
    })
    const found = control ? await adoptWorkers(keeper, (line) => { log('warn', line) }) : 0
    if (found > 0) log('info', `${found} worker${found === 1 ? '' : 's'} of ${name} lived, and ${found === 1 ? 'is' : 'are'} kept from now on`)
    void (found > 0 ? keeper.goOn() : keeper.run())
  }
  tellWatchdog(keeper)
  if (control) adoptLate(keeper, (line) => { log('warn', line) })
  // The workers boot, and nothing is waited for here.
  setImmediate(() => { paths.remember() })
  // Nothing else keeps this process alive while no worker does.
  setInterval(() => undefined, 2 ** 31 - 1)
  return await new Promise<never>(() => undefined)
}

/** The words after `node`. Throws a Failure where there is no such script. */
function wordsFor({ script, args, nodeOptions }: RunOptions, cwd: string): string[] {
  try {
    createRequire(path.join(cwd, 'from-here.js')).resolve(path.resolve(cwd, script))
  } catch {
    const taken = nodeOptions.length > 0 ? ` (${nodeOptions.join(' ')} before it was taken for options of Node)` : ''
    throw new Failure(`handover run: ${script} does not exist in ${cwd}${taken}. Nothing was started. Give the path of a script, as to node.`)
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
