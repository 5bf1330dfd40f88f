/**
 * The control socket that every serving process has for itself, `@<pid>-<random>.sock`: `handover status` sees by it what has no name,
 * and generations that drain, and a keeper finds its workers again. No listener is handed over by it, and it is not handed over.
 *
 * Where nobody asked for a name, a directory that cannot be used is no news: the process is then seen by nobody, as before.
 */

import { randomBytes } from 'node:crypto'
import type { Clock, Timer } from '../platform/clock.js'
import { ControlServer, type CallingKeeper, type ControlSide } from './control-server.js'
import { listenAt } from './control-files.js'
import { inFirstUsablePlace } from './control-places.js'

export interface ProcessSocketSide extends Pick<ControlSide, 'asked' | 'warn'> {
  /** The process that can be asked. */
  readonly host: { readonly pid: number; readonly clock: Clock; readonly signals: NodeJS.EventEmitter }
  note(line: string): void
  keeperCalled(keeper: CallingKeeper): void
  /** Whether this process was given a name, and so wants to be found. */
  isNamed(): boolean
  /** Whether a keeper finds it. */
  isKept(): boolean
}

const againMs = 10_000

// Processes in two containers that share the directory may have the same pid.
const nameOf = (pid: number): string => `@${pid}-${randomBytes(4).toString('hex')}`

export class ProcessSocket {
  readonly #side: ProcessSocketSide
  readonly #name: string
  #control: ControlServer | undefined
  /** Of the user that this process became after it had served as root. */
  #second: ControlServer | undefined
  #again: Timer | undefined
  #said = ''

  constructor(side: ProcessSocketSide) {
    this.#side = side
    this.#name = nameOf(side.host.pid)
  }

  /** Can be asked from now on, or as soon as a directory can be used. Does nothing where it can be already. */
  open(): void {
    if (this.#control) return
    try {
      this.#control = this.#serverFor(this.#name)
      this.#side.host.signals.once('exit', this.#onExit)
      this.#control.listen()
      this.#stopTrying()
    } catch (error) {
      this.#close()
      this.#warn(`this process is not seen by \`handover status\` while it drains: ${(error as Error).message}`)
      this.#again ??= this.#side.host.clock.setInterval(() => { this.open() }, againMs).unref()
    }
  }

  #serverFor(name: string): ControlServer {
    const [file, fd] = inFirstUsablePlace(name, (found) => [found, listenAt(found)] as const)
    return new ControlServer(file, fd, {
      asked: (request, client) => { this.#side.asked(request, client) },
      keeperCalled: (keeper) => { this.#side.keeperCalled(keeper) },
      called: ({ channel }) => {
        channel.send({ type: 'refused', code: 'HANDOVER_REFUSED', reason: `this is the socket by which process ${this.#side.host.pid} is asked for its status; nothing is handed over by it. Give the program a name.` })
        channel.close()
      },
      warn: (line) => { this.#warn(line) },
      userChanged: () => { this.#openSecond() }
    })
  }

  /** It was made as root, in a directory of root: the user that this process is now finds it by another one. */
  #openSecond(): void {
    if (this.#side.isKept()) return
    this.#second?.close(true)
    this.#second = undefined
    const user = `process ${this.#side.host.pid} runs as uid ${process.geteuid?.()} now`
    try {
      const second = this.#serverFor(nameOf(this.#side.host.pid))
      this.#second = second
      second.listen()
      this.#side.note(`${user}: that user finds it by ${second.file}`)
    } catch (error) {
      this.#side.warn(`${user}, and that user cannot find it: ${(error as Error).message}. ${this.#side.isNamed() ? 'Root finds it by its name.' : 'Give it a name: by that root finds it after a reload, too.'}`)
    }
  }

  close(): void {
    this.#stopTrying()
    this.#close()
  }

  #close(): void {
    this.#side.host.signals.off('exit', this.#onExit)
    for (const control of [this.#control, this.#second]) control?.close(true)
    this.#control = undefined
    this.#second = undefined
  }

  #stopTrying(): void {
    this.#side.host.clock.clear(this.#again)
    this.#again = undefined
  }

  #warn(line: string): void {
    if (this.#side.isNamed() && line !== this.#said) this.#side.warn(line)
    this.#said = line
  }

  readonly #onExit = (): void => { this.close() }
}
