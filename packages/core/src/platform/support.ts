/**
 * What this process can do with this Node and this addon: hand over at all, and move live connections. Each is tested once, when it is
 * first needed.
 */

import { native, nativeMissing } from './native.js'
import { cannotMove, missing } from './node/support-check.js'
import { tlsUnavailable } from './tls-records.js'
import { loadForListen } from './on-demand.js'
import { makePool } from './pool.js'

export class Support {
  readonly #unavailable: string | undefined
  readonly #wantsMoves: (of?: 'tls') => boolean
  readonly #warn: (line: string) => void
  /** What the tests found; undefined until they ran. */
  #reload: { readonly obstacle: string | undefined } | undefined
  #move: { readonly obstacle: string | undefined } | undefined
  #knowsHandles = true

  /** `unavailable`: why nothing of this process can be handed over, where that is known without a test. `wantsMoves`: the option move. */
  constructor(unavailable: string | undefined, wantsMoves: (of?: 'tls') => boolean, warn: (line: string) => void) {
    this.#unavailable = unavailable
    this.#wantsMoves = wantsMoves
    this.#warn = warn
  }

  /** Why no successor can take over from this process. */
  cannotReload(): string | undefined {
    this.#reload ??= { obstacle: this.#unavailable ?? (native ? this.#unsupported() : nativeMissing) }
    return this.#reload.obstacle
  }

  #unsupported(): string | undefined {
    try {
      const part = missing()
      this.#knowsHandles = part === undefined
      return part === undefined ? undefined : `this version of Node (${process.version}) is not supported: ${part}`
    } catch (error) {
      return `this process can make no channel to another one (${(error as Error).message})`
    }
  }

  /** Whether a server can be given a handle. Else Node must open whatever it listens on. */
  knowsHandles(): boolean {
    this.cannotReload()
    return this.#knowsHandles
  }

  /** What a process that listens needs, and takes some milliseconds: for while another process is waited for. */
  prepare(): void {
    makePool()
    loadForListen()
    this.canMove()
  }

  /** Whether connections can move to and from this process, and the program wants that. Logs once why this Node cannot. */
  canMove(): boolean {
    if (!this.#wantsMoves() || this.cannotReload() !== undefined) return false
    if (!this.#move) {
      const obstacle = cannotMove()
      this.#move = { obstacle }
      if (obstacle !== undefined) {
        this.#warn(`live connections are not moved: this version of Node (${process.version}) stores them differently: ${obstacle}. At a reload they are drained politely.`)
      }
    }
    return this.#move.obstacle === undefined
  }

  /** The same for connections under TLS. The first move tests more (checkTls). */
  canMoveTls(): boolean {
    return this.#wantsMoves('tls') && tlsUnavailable() === undefined && this.canMove()
  }
}
