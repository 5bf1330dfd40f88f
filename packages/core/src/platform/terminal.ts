/**
 * What a SIGHUP means to a process that began on a terminal: the end, if that terminal hangs up at this moment; else a reload. A deploy may
 * send one days later, when the terminal is long gone, and must not stop the service.
 *
 * The sender tells them apart: at a hangup the kernel sends one itself, and a shell sends one to each of its jobs. Where the sender is not
 * known, it is a hangup if the terminal was lost a moment ago.
 */

import { closeSync, openSync } from 'node:fs'
import { constants } from 'node:os'
import { isatty } from 'node:tty'
import { native } from './native.js'
import { nameOfProcess, statOf } from './processes.js'

const kernel = -1
const lookMs = 1_000
/** How long a shell may take to pass the hangup on. */
const momentMs = 3_000

/** Pure. `leader`: the first process of the session, mostly a shell; undefined where it is unknown, or this process. */
export function meansHangup(senders: readonly number[], leader: number | undefined, lostJustNow: boolean): boolean {
  if (senders.includes(kernel)) return true
  return lostJustNow && (senders.length === 0 || (leader !== undefined && senders.includes(leader)))
}

export class Terminal {
  readonly #leader = leaderOfSession()
  #timer: NodeJS.Timeout | undefined
  /** When the loss of the terminal was noticed. */
  #lostAt: number | undefined

  /** Requires a listener for SIGHUP. */
  watch(): void {
    native?.watchSenders(constants.signals.SIGHUP)
    this.#look()
    if (this.#lostAt === undefined) this.#timer ??= setInterval(() => { this.#look() }, lookMs).unref()
  }

  unwatch(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #look(): void {
    if (!terminalIsGone()) return
    this.#lostAt ??= performance.now()
    this.unwatch()
  }

  /** What the SIGHUP meant that has just come, and which programs sent it (`by`). After a hangup the terminal is released. */
  hangup(): { readonly isHangup: boolean; readonly by: string } {
    const senders = native?.takeSenders(constants.signals.SIGHUP) ?? []
    // A kill(1) lives for a moment, a shell mostly longer.
    const names = new Set(senders.map(nameOfProcess).filter((name) => name !== undefined))
    const by = names.size > 0 ? ` by ${[...names].join(', ')}` : ''
    // disassociate_ctty() of Linux: when the first process of the session ends, the kernel hangs up on a pseudo terminal that stays open.
    if (!terminalIsGone()) return { isHangup: onTerminal.length > 0 && senders.includes(kernel), by }
    const isHangup = meansHangup(senders, this.#leader, this.#lostAt === undefined || performance.now() - this.#lostAt < momentMs)
    this.#look()
    if (isHangup) leaveTerminal()
    return { isHangup, by }
  }
}

function leaderOfSession(): number | undefined {
  const session = Number(statOf('self')[3] ?? 0)
  return session === process.pid || session === 0 ? undefined : session
}

// Asked now: a terminal that has gone away answers no.
const onTerminal = [0, 1, 2].filter((fd) => isatty(fd))

/** This process began on a terminal that has gone away. */
export const terminalIsGone = (): boolean => onTerminal.length > 0 && !onTerminal.some((fd) => isatty(fd))

/** Replaces a terminal that is gone: Node restores its mode when the process ends, and aborts where that fails. */
export function leaveTerminal(): void {
  if (!native) return
  try {
    const nowhere = openSync('/dev/null', 'r+')
    for (const fd of onTerminal) native.duplicateTo(nowhere, fd)
    closeSync(nowhere)
  } catch { /* no descriptor is free: then the end is less orderly */ }
}
