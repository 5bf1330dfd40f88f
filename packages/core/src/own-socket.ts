/**
 * The control socket that every serving process has for itself, `@<pid>-<random>.sock`: `handover status` sees by it what has no name, and generations that
 * drain, and a keeper finds its workers again. No listener is handed over by it, and it is not handed over.
 *
 * Where nobody asked for a name, a directory that cannot be used is no news: the process is then seen by nobody, as before.
 */

import { randomBytes } from 'node:crypto'
import { controlPath, ControlServer, listenAt, type CallingKeeper, type ControlSide } from './control.js'

export interface OwnSocketSide extends Pick<ControlSide, 'asked' | 'warn'> {
  keeperCalled(keeper: CallingKeeper): void
  /** Whether this process was given a name, and so wants to be found. */
  isNamed(): boolean
}

export class OwnSocket {
  readonly #side: OwnSocketSide
  #control: ControlServer | undefined
  #failed = false

  constructor(side: OwnSocketSide) {
    this.#side = side
  }

  /** Can be asked from now on. Does nothing where it can be already, or could not be before. */
  open(): void {
    if (this.#control || this.#failed) return
    try {
      // Processes in two containers that share the directory may have the same pid.
      const file = controlPath(`@${process.pid}-${randomBytes(4).toString('hex')}`)
      const control = new ControlServer(file, listenAt(file), {
        asked: (request, client) => { this.#side.asked(request, client) },
        keeperCalled: (keeper) => { this.#side.keeperCalled(keeper) },
        called: ({ channel }) => {
          channel.send({ type: 'refused', code: 'HANDOVER_REFUSED', reason: `this is the socket by which process ${process.pid} is asked for its status; nothing is handed over by it. Give the program a name.` })
          channel.close()
        },
        warn: (line) => { this.#warn(line) }
      })
      this.#control = control
      process.once('exit', this.#onExit)
      control.listen()
    } catch (error) {
      this.#failed = true
      this.close()
      this.#warn(`this process is not seen by \`handover status\` while it drains: ${(error as Error).message}`)
    }
  }

  close(): void {
    process.off('exit', this.#onExit)
    this.#control?.close(true)
    this.#control = undefined
  }

  #warn(line: string): void {
    if (this.#side.isNamed()) this.#side.warn(line)
  }

  readonly #onExit = (): void => { this.close() }
}
