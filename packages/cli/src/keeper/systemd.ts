/** What systemd gives to a keeper, the sockets of a socket unit, and what it wants from it: WATCHDOG=1 (WatchdogSec=). */

import { activation, notifySystemd, watchdogBeatMs } from '@handover/core/internal'
import { notStarted } from '../failure.js'
import type { Keeper } from './keeper.js'

/** Call it before anything is opened. Throws a Failure for a unit with Accept=yes. */
export function takeActivated(env: NodeJS.ProcessEnv, log: (level: 'info' | 'warn', line: string) => void): void {
  const { sockets, hasConnection } = activation()
  if (hasConnection) {
    throw notStarted('systemd passes a connection, and not the socket that listens (Accept=yes)', 'Set Accept=no in the socket unit')
  }
  const { LISTEN_PID: pid = '', LISTEN_FDS: count = '0' } = env
  if (sockets.length > 0) {
    log('info', `systemd passes ${sockets.map(({ number, title }) => `${title} (descriptor ${number})`).join(', ')}: each worker finds the same`)
  } else if (count !== '0' && /^\d+$/.test(pid) && pid !== String(process.pid)) {
    log('warn', `LISTEN_FDS=${count} is meant for process ${pid}, and this is process ${process.pid}: no worker gets a socket of systemd's. Start handover itself, not through npx, npm or a shell (ExecStart=/path/to/node_modules/.bin/handover run …).`)
  }
}

/**
 * Says WATCHDOG=1 while a worker answers, or the keeper can still help: it starts a worker if none serves, and ends one that hangs
 * (--hang-timeout, which gets twice its time). So systemd restarts the service if the keeper itself hangs, or cannot help.
 */
export function tellWatchdog(keeper: Keeper): void {
  const beatMs = watchdogBeatMs(process.env)
  if (beatMs === undefined) return
  const silentMs = Math.max(2 * beatMs, 2 * keeper.options.hangTimeoutMs)
  let answeredAt = performance.now()
  let wasSilent = false
  const answered = (): void => { answeredAt = performance.now() }
  const beat = (): void => {
    const { servers } = keeper
    if (servers.length === 0 || keeper.stopping) answered()
    else for (const worker of servers) void worker.ask(silentMs).then((status) => { if (status) answered() })
    const isSilent = performance.now() - answeredAt > silentMs
    if (isSilent && !wasSilent) {
      const who = servers.map(({ pid }) => `process ${pid}`).join(', ')
      keeper.options.log('error', `no worker (${who}) has answered for ${silentMs} ms: the event loops are blocked, and connects wait. systemd's watchdog is told no more, so that it starts the service anew.`)
    }
    wasSilent = isSilent
    if (!isSilent) notifySystemd({ WATCHDOG: 1 })
  }
  setInterval(beat, beatMs)
  beat()
}
