/**
 * The signals of a process that serves: one reloads, SIGTERM and SIGINT stop. Installed at the first listen(), and removed when nothing
 * listens any more. The program's own listeners for SIGTERM and SIGINT are held until the drain is over; where they are not, one warning
 * says that they may end the process before.
 */

import type { Host } from '../handover/host.js'
import type { LogLevel } from '../options.js'
import type { StopSignal } from '../protocol/report.js'
import { HeldListeners, stopSignalOf } from './held-signal-listeners.js'
import { yieldingListeners } from './yielding-listeners.js'

/** A stop of a process group or a service signals each of its processes: a signal so soon after the keeper's message is the same stop. */
const sameSignalMs = 500

interface SignalsSide {
  /** Whether to warn of the program's own listeners for the same signals: not where the program need not know of this package. */
  warnsOfOthers(): boolean
  /** Whether there is a keeper. It passes the signal of a stop on to a process that does not listen yet. */
  isKept(): boolean
  reload(): void
  stop(signal: NodeJS.Signals): void
  log(level: LogLevel, line: string): void
}

export class Signals {
  readonly #side: SignalsSide
  readonly #host: Host
  readonly #warned = new Set<string>()
  #reloadSignal: NodeJS.Signals | undefined
  #ignored: NodeJS.Signals | undefined
  /** The signal of the stop. */
  #stop: StopSignal | undefined
  #keeperStoppedAt = -Infinity
  #told = false
  readonly #held: HeldListeners

  constructor(host: Host, side: SignalsSide) {
    this.#host = host
    this.#side = side
    this.#held = new HeldListeners(host, (signal) => this.#hold(signal))
  }

  /** Until `install`: the default action of the reload signal would end a successor that boots. */
  ignoreReload(signal: NodeJS.Signals): void {
    this.#ignored = signal
    this.#host.signals.on(signal, this.#tooEarly)
  }

  install(reloadSignal: NodeJS.Signals): void {
    if (this.#reloadSignal !== undefined) return
    if (this.#ignored !== undefined) this.#host.signals.off(this.#ignored, this.#tooEarly)
    this.#reloadSignal = reloadSignal
    for (const signal of [reloadSignal, 'SIGTERM', 'SIGINT']) this.#warnOf(signal)
    this.#host.signals.on(reloadSignal, this.#onReload)
    if (reloadSignal === 'SIGHUP') this.#host.terminal.watch()
    this.#host.signals.on('SIGTERM', this.#onStop)
    this.#host.signals.on('SIGINT', this.#onStop)
    this.#host.stops.watch()
    this.#host.signals.on('newListener', this.#onListener)
  }

  remove(): void {
    if (this.#reloadSignal === undefined) return
    this.#host.signals.off(this.#reloadSignal, this.#onReload)
    this.#host.terminal.unwatch()
    this.#host.signals.off('SIGTERM', this.#onStop)
    this.#host.signals.off('SIGINT', this.#onStop)
    this.#host.signals.off('newListener', this.#onListener)
    this.#reloadSignal = undefined
  }

  /** From now on the program's own listeners for SIGTERM and SIGINT hear nothing before `tell`. */
  hold(): void {
    this.#held.hold()
  }

  /** The keeper stops this process, because it got this signal itself. */
  keeperStops(signal: string | undefined): void {
    this.#keeperStoppedAt = this.#host.clock.now()
    this.#stop ??= stopSignalOf(signal)
  }

  /** The signal that the program's own listeners wait for: that of the stop, else SIGTERM, or SIGINT where they are for SIGINT alone. */
  get awaited(): StopSignal | undefined {
    if (!this.#held.held || this.#told) return undefined
    const signals: readonly StopSignal[] = this.#stop ? [this.#stop] : ['SIGTERM', 'SIGINT']
    return signals.find((signal) => this.#host.signals.listeners(signal).some((listener) => listener !== this.#onStop))
  }

  /** The drain is over: the program's own listeners hear this signal and all later ones. */
  tell(signal: StopSignal): void {
    this.#told = true
    this.#host.signals.off('SIGTERM', this.#onStop)
    this.#host.signals.off('SIGINT', this.#onStop)
    this.#held.tell(signal, Math.max(0, this.#keeperStoppedAt + sameSignalMs - this.#host.clock.now()))
  }

  #hold(signal: StopSignal): boolean {
    if (this.#told) return this.#held.isEcho
    if (this.#reloadSignal !== undefined) {
      this.#onStop(signal)
      return true
    }
    if (!this.#side.isKept()) return false
    if (!this.#held.isEcho) this.#held.tell(signal, sameSignalMs)
    return true
  }

  readonly #tooEarly = (): void => {
    this.#side.log('warn', `process ${this.#host.pid} listens on nothing yet in its main thread: the reload signal is ignored. Send it to the process that serves.`)
  }

  readonly #onReload = (signal: NodeJS.Signals): void => {
    const { isHangup, by } = signal === 'SIGHUP' ? this.#host.terminal.hangup() : { isHangup: false, by: '' }
    this.#side.log('info', isHangup ? `${signal}: the terminal of process ${this.#host.pid} hung up, so it stops` : `${signal}: a reload was asked for${by}`)
    if (isHangup) this.#side.stop(signal)
    else this.#side.reload()
  }

  readonly #onStop = (signal: NodeJS.Signals): void => {
    if (this.#host.stops.isSameStop(signal as StopSignal)) return
    const isSame = this.#host.clock.now() - this.#keeperStoppedAt < sameSignalMs
    this.#keeperStoppedAt = -Infinity
    if (isSame) return
    this.#stop ??= stopSignalOf(signal)
    this.#side.stop(signal)
  }

  /** Programs add their listeners after listen() as well. */
  readonly #onListener = (event: string | symbol): void => {
    if (event === this.#reloadSignal || event === 'SIGTERM' || event === 'SIGINT') this.#warnOf(event)
  }

  /** Either ours is not there yet, or the one that is about to be added. */
  #warnOf(signal: string): void {
    if (this.#warned.has(signal) || !this.#side.warnsOfOthers()) return
    if (this.#host.signals.listenerCount(signal) <= yieldingListeners()) return
    this.#warned.add(signal)
    this.#side.log('warn', `something else in this program listens for ${signal} (close-with-grace is known to): it runs as well, and may end the process before the drain is over. Remove that listener.`)
  }
}
