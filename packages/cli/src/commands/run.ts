/**
 * `handover run`: this process becomes the keeper. Its signals, its name, its end; made to be PID 1.
 *
 * It is as small as it can be: whatever happens to the application happens in the workers.
 */

import { subscribe } from 'node:diagnostics_channel'
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { activation, ControlServer, HandoverError, initialEnvironment, leaveTerminal, listed, monotonicMicroseconds, native, nativeMissing, notifySystemd, Terminal, terminalIsGone, unavailable, type Client, type ControlRequest, type ControlSide } from '@handover/core/internal'
import { adoptLate, adoptWorkers } from '../keeper/find-workers.js'
import type { RunOptions } from '../command-line/arguments.js'
import { Failure } from '../failure.js'
import { Keeper } from '../keeper/keeper.js'
import { takeKeeperName } from '../keeper/keeper-name.js'
import { Members } from '../keeper/listener-members.js'
import { reapOrphans } from '../keeper/reap-orphans.js'
import { StartPaths } from '../keeper/start-paths.js'
import { takeActivated, tellWatchdog } from '../keeper/systemd.js'
import { follow, handKeeperOver } from '../keeper/keeper-handover.js'
import { version } from '../command-line/version.js'
import { nameOfPackage } from '../text.js'

/** They belong to the keeper: systemd talks to the main process alone. The sockets that it passes go on to each worker, with variables of its own. */
const notInherited = ['NOTIFY_SOCKET', 'WATCHDOG_PID', 'WATCHDOG_USEC', 'LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']

/** What has a meaning to applications only, and the default action of some would end the keeper. */
const forwarded: readonly NodeJS.Signals[] = ['SIGUSR1', 'SIGUSR2', 'SIGQUIT', 'SIGWINCH', 'SIGALRM', 'SIGPWR', 'SIGIO']

const defaultReadyTimeoutMs = 60_000
const defaultHangTimeoutMs = 30_000
/** How long an answer that was written may take to leave. */
const lastWordMs = 200

function log(level: 'info' | 'warn' | 'error', line: string): void {
  process.stderr.write(`handover: ${level === 'info' ? '' : `${level}: `}${line}\n`)
}

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
  let control: ControlServer | undefined
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
    }, following ? Members.restore(following.kept.members, following.fds, membersOptions) : new Members(membersOptions), following?.kept)
  listenForSignals(keeper)
  // Whatever goes wrong here: a keeper that ends is worse, as PID 1 it takes the whole container along.
  process.on('uncaughtException', (error) => { log('error', `a defect of the keeper, which goes on: ${error.stack ?? error.message}`) })
  if (following) {
    following.remember(keeper)
    if (following.kept.control !== null && following.control !== undefined) control = new ControlServer(following.kept.control, following.control, controlSide(keeper))
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

/** Every process that this one starts, from the first moment on. */
function ownChildren(): ReadonlySet<ChildProcess> {
  const children = new Set<ChildProcess>()
  subscribe('child_process', (message) => {
    const { process: child } = message as { process: ChildProcess }
    children.add(child)
    child.once('exit', () => { children.delete(child) })
  })
  return children
}

// ---- the name ----

function controlSide(keeper: Keeper): ControlSide {
  return {
    called: ({ channel }) => {
      channel.send({ type: 'refused', code: 'HANDOVER_REFUSED', reason: `the app is run by a keeper (process ${process.pid}), which starts its workers itself. ${keeper.serves()} Use handover reload` })
      channel.close()
    },
    asked: (request, client) => { void answer(keeper, request, client) },
    warn: (line) => { log('warn', line) },
    note: (line) => { log('info', line) }
  }
}

async function answer(keeper: Keeper, request: ControlRequest, client: Client): Promise<void> {
  try {
    switch (request.verb) {
      case 'status':
        client.answer({ type: 'status', app: await keeper.status() })
        break
      case 'reload':
        client.answer({ type: 'reload', outcome: await keeper.reload(request.options, (text) => { client.answer({ type: 'progress', text }) }) })
        break
      case 'stop':
        client.answer({ type: 'stopping', pids: [process.pid, ...keeper.workers.map(({ pid }) => pid)] })
        // The connection closes with the process.
        notifySystemd({ STOPPING: 1 })
        await keeper.stop()
    }
  } catch (error) {
    const { code, message } = error instanceof HandoverError ? error : { code: 'HANDOVER_PROTOCOL', message: String(error) }
    client.answer({ type: 'refused', code, reason: message })
  }
  client.end()
}

// ---- signals ----

function listenForSignals(keeper: Keeper): void {
  const terminal = new Terminal()
  const stop = (signal: NodeJS.Signals): void => {
    if (keeper.stopping) {
      keeper.end(signal)
      return
    }
    notifySystemd({ STOPPING: 1 })
    void keeper.stop(signal)
  }
  const reload = (signal: NodeJS.Signals): void => {
    const { isHangup, by } = signal === 'SIGHUP' ? terminal.hangup() : { isHangup: false, by: '' }
    log('info', isHangup ? `${signal}: the terminal of the keeper (process ${process.pid}) hung up, so it stops` : `${signal}: a reload was asked for${by}`)
    if (isHangup) {
      stop(signal)
      return
    }
    void keeper.reloadTogether().then(({ ok, switched, error }) => {
      if (ok) log('info', `reloaded: ${listed(switched.map(({ to }) => `process ${to.pid} (generation ${to.generation})`))} serve${switched.length === 1 ? 's' : ''}`)
      else log('error', `${error?.code}: ${error?.message}`)
    }, (error: unknown) => { log('error', String(error)) })
  }
  const reloadSignal = (process.env['HANDOVER_RELOAD_SIGNAL'] ?? 'SIGHUP') as NodeJS.Signals
  process.on('SIGTERM', stop).on('SIGINT', stop)
  listen(reloadSignal, reload)
  if (reloadSignal === 'SIGHUP') terminal.watch()
  // Without a meaning to us it must not end us either.
  for (const signal of [...forwarded, 'SIGHUP' as const]) {
    if (signal !== reloadSignal) listen(signal, () => { for (const worker of keeper.servers) worker.signal(signal) })
  }
}

/** Not every system has every signal. */
function listen(signal: NodeJS.Signals, hear: (signal: NodeJS.Signals) => void): void {
  try {
    process.on(signal, hear)
  } catch {
    log('warn', `this system has no signal ${signal}`)
  }
}
