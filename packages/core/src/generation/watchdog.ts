/**
 * systemd's watchdog (WatchdogSec=), without a keeper: WATCHDOG=1 comes from the event loop of the process that serves, so that systemd
 * ends a service that hangs.
 *
 * At a reload the predecessor says it until its successor serves, and the successor from then on: systemd believes the main process alone
 * (NotifyAccess=main). WATCHDOG_PID is for programs; systemd does not look at it. In a stop it is said to the end.
 */

import type { Host } from '../handover/host.js'
import type { Clock, Timer } from '../platform/clock.js'
import { notifySystemd } from '../platform/systemd-notify.js'
import { accepts, type State } from '../protocol/lifecycle.js'

/** Half of what systemd waits, as sd_watchdog_enabled(3) wants it, in milliseconds. Undefined where systemd does not watch this process. */
export function watchdogBeatMs(env: NodeJS.ProcessEnv, own = process.pid): number | undefined {
  const { NOTIFY_SOCKET: socket = '', WATCHDOG_USEC: usec = '', WATCHDOG_PID: pid = String(own) } = env
  if (socket === '' || pid !== String(own) || !/^[1-9]\d{0,14}$/.test(usec)) return undefined
  // A timer of Node holds a signed 32-bit number of milliseconds.
  return Math.min(Math.max(1, Math.floor(Number(usec) / 2_000)), 2 ** 31 - 1)
}

/** Whether systemd waits for this process. */
const isWatched = (state: State): boolean => accepts(state.is) || (state.is === 'draining' && state.successor === undefined)

export class Watchdog {
  readonly #beatMs: number | undefined
  readonly #isOn: () => boolean
  readonly #clock: Clock
  #timer: Timer | undefined

  constructor({ env, pid, clock }: Pick<Host, 'env' | 'pid' | 'clock'>, isOn: () => boolean) {
    this.#beatMs = watchdogBeatMs(env, pid)
    this.#clock = clock
    this.#isOn = isOn
  }

  /** For what the predecessor says last as the main process: the next one counts from there. */
  get word(): { readonly WATCHDOG?: 1 } {
    return this.#beatMs !== undefined && this.#isOn() ? { WATCHDOG: 1 } : {}
  }

  /** The state is another one. */
  moved(to: State): void {
    // The close hooks change nothing: after a stop it goes on.
    if (this.#beatMs === undefined || to.is === 'closing') return
    if (!isWatched(to) || !this.#isOn()) {
      this.#clock.clear(this.#timer)
      this.#timer = undefined
    } else if (!this.#timer) {
      this.#timer = this.#clock.setInterval(beat, this.#beatMs).unref()
      beat()
    }
  }
}

const beat = (): void => { notifySystemd({ WATCHDOG: 1 }) }
