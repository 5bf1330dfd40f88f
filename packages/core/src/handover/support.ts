/**
 * What this Node, with this addon, can do: hand over at all, and move live connections. Each is looked for once, and only when it is
 * needed.
 */

import type { LogLevel, Settings } from '../options.js'
import { native, nativeMissing } from '../platform/native.js'
import { cannotMove, missing } from '../platform/node/support-check.js'

/** The answer of a look; `reason` is undefined where nothing stands in the way. */
interface Finding {
  readonly reason: string | undefined
}

export class Support {
  readonly #unavailable: string | undefined
  readonly #settings: () => Settings
  readonly #log: (level: LogLevel, line: string) => void
  #reload: Finding | undefined
  #move: Finding | undefined

  /** `unavailable`: why nothing of this process can be handed over, where that is known without a look. */
  constructor(unavailable: string | undefined, settings: () => Settings, log: (level: LogLevel, line: string) => void) {
    this.#unavailable = unavailable
    this.#settings = settings
    this.#log = log
  }

  /** Why no successor can take over from this process. */
  cannotReload(): string | undefined {
    this.#reload ??= { reason: this.#unavailable ?? (native ? unsupported() : nativeMissing) }
    return this.#reload.reason
  }

  /** Whether connections can move to and from this process, and are meant to. Logged once where this Node cannot. */
  canMove(): boolean {
    if (!this.#settings().move) return false
    if (!this.#move) {
      this.#move = { reason: cannotMove() }
      const { reason } = this.#move
      if (reason !== undefined) {
        this.#log('warn', `live connections are not moved: this version of Node (${process.version}) keeps them in another way: ${reason}. ` +
          'At a reload they are drained politely.')
      }
    }
    return this.#move.reason === undefined
  }
}

function unsupported(): string | undefined {
  const part = missing()
  return part === undefined ? undefined : `this version of Node (${process.version}) is not supported: ${part}`
}
