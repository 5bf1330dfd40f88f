/**
 * The signals of a process that serves: one reloads, SIGTERM and SIGINT stop. Installed at the first listen(), and removed when nothing
 * listens any more. It warns once of listeners of the program's own for the same signals: they may end the process before the drain is over.
 */

import { leaveTerminal, terminalIsGone } from './host.js'
import type { LogLevel } from './options.js'

interface SignalsSide {
  /** Whether its own listeners for the same signals are to be warned of. A program that knows nothing of us cannot do without. */
  warnsOfOthers(): boolean
  reload(): void
  stop(signal: NodeJS.Signals): void
  log(level: LogLevel, line: string): void
}

export class Signals {
  readonly #side: SignalsSide
  readonly #warned = new Set<string>()
  #reloadSignal: NodeJS.Signals | undefined
  #ignored: NodeJS.Signals | undefined
  #stopped = false

  constructor(side: SignalsSide) {
    this.#side = side
  }

  /** Until `install`: the default action of the reload signal would end a successor that boots. */
  ignoreReload(signal: NodeJS.Signals): void {
    this.#ignored = signal
    process.on(signal, this.#tooEarly)
  }

  install(reloadSignal: NodeJS.Signals): void {
    if (this.#reloadSignal !== undefined) return
    if (this.#ignored !== undefined) process.off(this.#ignored, this.#tooEarly)
    this.#reloadSignal = reloadSignal
    for (const signal of [reloadSignal, 'SIGTERM', 'SIGINT']) if (process.listenerCount(signal) > 0) this.#warnOf(signal)
    process.on(reloadSignal, this.#onReload)
    process.on('SIGTERM', this.#onStop)
    process.on('SIGINT', this.#onStop)
    process.on('newListener', this.#onListener)
  }

  remove(): void {
    if (this.#reloadSignal === undefined) return
    process.off(this.#reloadSignal, this.#onReload)
    process.off('SIGTERM', this.#onStop)
    process.off('SIGINT', this.#onStop)
    process.off('newListener', this.#onListener)
    this.#reloadSignal = undefined
  }

  /** The program's own listeners for SIGTERM, where it has not had that signal, nor SIGINT: it cleans up there and nowhere else. */
  get unheard(): NodeJS.SignalsListener[] {
    return this.#stopped ? [] : process.listeners('SIGTERM').filter((listener) => listener !== this.#onStop)
  }

  readonly #tooEarly = (): void => {
    this.#side.log('warn', `process ${process.pid} listens on nothing yet in its main thread: the reload signal is ignored. Send it to the process that serves.`)
  }

  readonly #onReload = (signal: NodeJS.Signals): void => {
    if (signal === 'SIGHUP' && terminalIsGone()) {
      leaveTerminal()
      this.#side.stop(signal)
    } else {
      this.#side.reload()
    }
  }

  readonly #onStop = (signal: NodeJS.Signals): void => {
    this.#stopped = true
    this.#side.stop(signal)
  }

  /** Programs add their listeners after listen() as well. */
  readonly #onListener = (event: string | symbol): void => {
    if (event === this.#reloadSignal || event === 'SIGTERM' || event === 'SIGINT') this.#warnOf(event)
  }

  #warnOf(signal: string): void {
    if (this.#warned.has(signal) || !this.#side.warnsOfOthers()) return
    this.#warned.add(signal)
    this.#side.log('warn', `something else in this program listens for ${signal} (close-with-grace is known to): it runs as well, and may end the process before the drain is over. Remove that listener.`)
  }
}
