/**
 * The control socket that every serving process has for itself, `@<pid>-<random>.sock`: `handover status` sees by it what has no name, and generations that
 * drain, and a keeper finds its workers again. No listener is handed over by it, and it is not handed over.
 *
 * Where nobody asked for a name, a directory that cannot be used is no news: the process is then seen by nobody, as before.
 */

import { randomBytes } from 'node:crypto'
import { ControlServer, type CallingKeeper, type ControlSide } from './control.js'
import { listenAt } from './control-files.js'
import { inFirstPlace } from './places.js'

export interface OwnSocketSide extends Pick<ControlSide, 'asked' | 'warn'> {
  keeperCalled(keeper: CallingKeeper): void
  /** Whether this process was given a name, and so wants to be found. */
  isNamed(): boolean
}

const againMs = 10_000

export class OwnSocket {
  readonly #side: OwnSocketSide
  // Processes in two containers that share the directory may have the same pid.
  readonly #name = `@${process.pid}-${randomBytes(4).toString('hex')}`
  #control: ControlServer | undefined
  #again: NodeJS.Timeout | undefined
  #said = ''

  constructor(side: OwnSocketSide) {
    this.#side = side
  }

  /** Can be asked from now on, or as soon as a directory can be used. Does nothing where it can be already. */
  open(): void {
    if (this.#control) return
    try {
      const [file, fd] = inFirstPlace(this.#name, (found) => [found, listenAt(found)] as const)
      this.#control = new ControlServer(file, fd, {
        asked: (request, client) => { this.#side.asked(request, client) },
        keeperCalled: (keeper) => { this.#side.keeperCalled(keeper) },
        called: ({ channel }) => {
          channel.send({ type: 'refused', code: 'HANDOVER_REFUSED', reason: `this is the socket by which process ${process.pid} is asked for its status; nothing is handed over by it. Give the program a name.` })
          channel.close()
        },
        warn: (line) => { this.#warn(line) }
      })
      process.once('exit', this.#onExit)
      this.#control.listen()
      this.#stopTrying()
    } catch (error) {
      this.#close()
      this.#warn(`this process is not seen by \`handover status\` while it drains: ${(error as Error).message}`)
      this.#again ??= setInterval(() => { this.open() }, againMs).unref()
    }
  }

  close(): void {
    this.#stopTrying()
    this.#close()
  }

  #close(): void {
    process.off('exit', this.#onExit)
    this.#control?.close(true)
    this.#control = undefined
  }

  #stopTrying(): void {
    clearInterval(this.#again)
    this.#again = undefined
  }

  #warn(line: string): void {
    if (this.#side.isNamed() && line !== this.#said) this.#side.warn(line)
    this.#said = line
  }

  readonly #onExit = (): void => { this.close() }
}
