/** The process around a keeper: its log, its signals, the answers at its control socket, the processes that it has started. */

import type { ChildProcess } from 'node:child_process'
import { subscribe } from 'node:diagnostics_channel'
import {
  describeProcess, errorReport, listed, logLine, notifySystemd, StopSenders, Terminal, type Client, type ControlRequest, type ControlSide
} from '@handover/core/internal'
import { removeSocketsOf } from '../control/left-sockets.js'
import { statusOfApp } from './keeper-status.js'
import type { Keeper } from './keeper.js'
import type { Progress } from './rolling-reload.js'

/** These have a meaning to applications only. The default action of some would end the keeper. */
const forwarded: readonly NodeJS.Signals[] = ['SIGUSR1', 'SIGUSR2', 'SIGQUIT', 'SIGWINCH', 'SIGALRM', 'SIGPWR', 'SIGIO']

export function log(level: 'info' | 'warn' | 'error', line: string): void {
  process.stderr.write(logLine(level, line))
}

export const warn = (line: string): void => { log('warn', line) }

/** How long the reader of standard error may take. */
const lastLinesMs = 5_000

/** Ends this process when the last lines are written, its own and those that its workers wrote by way of it. */
export function exitWhenWritten(status: number): void {
  setTimeout(() => { process.exit(status) }, lastLinesMs)
  // What a worker wrote before it ended is still on its way.
  setImmediate(() => { process.stderr.write('', () => { process.exit(status) }) })
}

/** Every process that this one starts, from the first moment on. What those leave that are killed is removed. */
export function ownChildren(): ReadonlySet<ChildProcess> {
  const children = new Set<ChildProcess>()
  subscribe('child_process', (message) => {
    const { process: child } = message as { process: ChildProcess }
    children.add(child)
    child.once('exit', (_, signal) => {
      children.delete(child)
      if (signal !== null && child.pid !== undefined) removeLeft(child.pid)
    })
  })
  return children
}

function removeLeft(pid: number): void {
  try {
    removeSocketsOf(pid)
  } catch { /* no directory of control sockets can be used, or read */ }
}

export function controlSide(keeper: Keeper): ControlSide {
  return {
    called: () =>
      `the app is run by a keeper (process ${process.pid}), which starts its workers itself. ${keeper.serves()} Use handover reload`,
    asked: (request, client) => { void answer(keeper, request, client) },
    warn,
    note: (line) => { log('info', line) }
  }
}

async function answer(keeper: Keeper, request: ControlRequest, client: Client): Promise<void> {
  try {
    switch (request.verb) {
      case 'status':
        client.answer({ type: 'status', app: await statusOfApp(keeper) })
        break
      case 'reload': {
        const progress: Progress = (text, event) => { client.answer({ type: 'progress', text, event }) }
        client.answer({ type: 'reload', outcome: await keeper.reloads.begin(request.options, progress) })
        break
      }
      case 'stop':
        client.answer({ type: 'stopping', pids: [process.pid, ...keeper.workers.map(({ pid }) => pid)] })
        // The connection closes with the process.
        notifySystemd({ STOPPING: 1 })
        await keeper.stop()
    }
  } catch (error) {
    const { stderr: _, message: reason, ...parts } = errorReport(error)
    client.answer({ type: 'refused', reason, ...parts })
  }
  client.end()
}

export function listenForSignals(keeper: Keeper): void {
  const terminal = new Terminal()
  const stops = new StopSenders()
  const stop = (signal: NodeJS.Signals): void => {
    // A terminal that hangs up sends more than one.
    if (signal === 'SIGHUP' ? keeper.stopping : stops.isSameStop(signal as 'SIGTERM' | 'SIGINT')) return
    if (keeper.stopping) {
      keeper.end(signal)
      return
    }
    notifySystemd({ STOPPING: 1 })
    void keeper.stop(signal)
  }
  const reload = (signal: NodeJS.Signals): void => {
    const { isHangup, by } = signal === 'SIGHUP' ? terminal.hangup() : { isHangup: false, by: '' }
    if (isHangup) {
      log('info', `${signal}: the terminal of the keeper (process ${process.pid}) hung up, so it stops`)
      stop(signal)
      return
    }
    log('info', `${signal}: a reload was asked for${by}`)
    void keeper.reloads.together().then(({ ok, switched, error }) => {
      const now = switched.map(({ to }) => describeProcess(to))
      if (ok) log('info', `reloaded: ${listed(now)} serve${now.length === 1 ? 's' : ''}`)
      else log('error', `${error?.code}: ${error?.message}`)
    }, (error: unknown) => { log('error', String(error)) })
  }
  const reloadSignal = (process.env['HANDOVER_RELOAD_SIGNAL'] ?? 'SIGHUP') as NodeJS.Signals
  process.on('SIGTERM', stop).on('SIGINT', stop)
  stops.watch()
  listen(reloadSignal, reload)
  if (reloadSignal === 'SIGHUP') terminal.watch()
  // The keeper passes the others on, and must not end by them.
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
