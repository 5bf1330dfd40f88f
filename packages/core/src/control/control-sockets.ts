/**
 * The control sockets of a process. By the named one another process finds it: the name is taken where it is free, inherited with the
 * listeners, and left to the successor. By its own one, `@<pid>-<random>.sock`, `handover status` sees processes without a name and
 * generations that drain, and a keeper finds its workers again. No listener is handed over by that, and no successor inherits it.
 *
 * Where no directory can be used, or another process has the name, this process serves without. It says so where it has a name, and tries
 * again every ten seconds.
 */

import path from 'node:path'
import { HandoverError, withoutStop } from '../errors.js'
import type { Clock, Timer } from '../platform/clock.js'
import { fileId } from '../platform/file-id.js'
import { uniqueWord } from '../platform/on-demand.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import type { OfferedListener, OfferedSocket } from '../protocol/handover-messages.js'
import { findOrBecome, takeName, type TakenName } from './control-client.js'
import { listenAt } from './control-files.js'
import { inFirstUsablePlace, PlaceProblem, places } from './control-places.js'
import { ControlSocket, type ControlSide } from './control-socket.js'

const againMs = 10_000

// Processes in two containers that share the directory may have the same pid.
const ownName = (pid: number): string => `@${pid}-${uniqueWord().slice(4)}`

export interface ControlSocketsSide extends Pick<Required<ControlSide>, 'keeperCalled'> {
  /** The process that can be found. */
  readonly host: { readonly pid: number; readonly clock: Clock; readonly signals: NodeJS.EventEmitter }
  /** The name by which other processes find this one; undefined without one, and under a keeper: then the keeper has it. */
  name(): string | undefined
  /** Whether this process was given a name, and so wants to be found. */
  hasName(): boolean
  /** Whether it belongs to a keeper, which finds it. */
  isKept(): boolean
  /** Whether that keeper may be followed by another one, which finds it by its own socket alone. */
  outlivesKeeper(): boolean
  /** Of the named socket. */
  readonly named: Required<Omit<ControlSide, 'keeperCalled' | 'userChanged'>>
}

/** Warns of a failure, once until it is another one, and tries again now and then. */
class Retry {
  readonly #clock: Clock
  readonly #warn: (line: string) => void
  readonly #act: () => void
  #timer: Timer | undefined
  #said = ''

  constructor(clock: Clock, warn: (line: string) => void, act: () => void) {
    this.#clock = clock
    this.#warn = warn
    this.#act = act
  }

  failed(line: string): void {
    if (line !== this.#said) this.#warn(line)
    this.#said = line
    this.#timer ??= this.#clock.setInterval(this.#act, againMs).unref()
  }

  stop(): void {
    this.#clock.clear(this.#timer)
    this.#timer = undefined
  }
}

export class ControlSockets {
  readonly #side: ControlSocketsSide
  readonly #nameRetry: Retry
  #named: ControlSocket | undefined
  readonly #ownName: string
  readonly #ownRetry: Retry
  #own: ControlSocket | undefined
  /** A second one, of the user that this process became after it had served as root. */
  #ownOfUser: ControlSocket | undefined

  constructor(side: ControlSocketsSide) {
    const { host: { pid, clock }, named } = side
    this.#side = side
    this.#ownName = ownName(pid)
    this.#nameRetry = new Retry(clock, (line) => { named.warn(line) }, () => { if (named.mayHeal()) this.take() })
    this.#ownRetry = new Retry(clock, (line) => { this.#warnOfOwn(line) }, () => { this.openOwn() })
  }

  // ---- the named one ----

  /**
   * A process that serves under the name. Where there is none the answer is undefined, and this process takes the name if a directory can
   * be used. Throws HANDOVER_CONTROL_SOCKET for a relative HANDOVER_DIR, and HANDOVER_PREDECESSOR_SILENT.
   */
  find(): BlockingChannel | undefined {
    const name = this.#side.name()
    if (name === undefined) return undefined
    try {
      const found = findOrBecome(name)
      if ('predecessor' in found) return found.predecessor
      this.#has(name, found)
    } catch (error) {
      // Without a directory this process cannot be found, but it can serve.
      if (error instanceof HandoverError && error.code !== 'HANDOVER_PEER_UID') throw error
      this.#goWithout(error)
    }
    return undefined
  }

  /** Takes the name, where this process has one and no other process listens under it. */
  take(): void {
    const name = this.#side.name()
    if (this.#named || name === undefined) return
    try {
      const found = takeName(name)
      if ('takenBy' in found) {
        this.#nameRetry.failed(`process ${found.takenBy} serves under the name ${name}. This one cannot be found by it. Choose another name.`)
        return
      }
      this.#nameRetry.stop()
      this.#has(name, found)
    } catch (error) {
      this.#goWithout(error)
    }
  }

  #has(name: string, { file, listening, insteadOf, hidden }: TakenName): void {
    if (insteadOf !== undefined) this.#side.named.note(`${insteadOf}: the control socket of ${name} is ${file} instead`)
    if (hidden !== undefined) this.#side.named.warn(`process ${hidden} has the name ${name} as well, and its control socket is gone: it hangs, or is stopped. From now on the name leads to process ${this.#side.host.pid}`)
    this.#named = new ControlSocket(file, listening, this.#side.named)
    this.#named.listen()
  }

  #goWithout(error: unknown): void {
    const todo = error instanceof PlaceProblem ? ` ${error.todo}` : ''
    this.#nameRetry.failed(`${withoutStop((error as Error).message)}. This process serves without its name: no other process takes over from it by that, and the commands do not find it.${todo}`)
  }

  /**
   * Inherits the control socket of an offer, where this program still goes by the same name. It is quiet until `serve()`.
   * `take`: takes out of the offer the control socket that is meant.
   */
  inherit(take: (isMeant: (about: OfferedListener) => boolean) => OfferedSocket | undefined): void {
    const name = this.#side.name()
    if (name === undefined) return
    try {
      const { given, folders } = places()
      const own = given ? path.join(folders[0] ?? '', `${name}.sock`) : undefined
      // Two containers may write the path of one directory differently.
      const offered = take(({ address, file: id }) =>
        path.basename(address) === `${name}.sock` && (own === undefined || own === address || (id !== undefined && fileId(own) === id)))
      if (offered) this.#named = new ControlSocket(own ?? offered.about.address, offered.fd, this.#side.named, offered.about.file)
    } catch (error) {
      this.#goWithout(error)
    }
  }

  /** Can be found from now on, or again. A program that has a name since this version, or another one, takes it. */
  serve(): void {
    if (!this.#named) {
      this.take()
      return
    }
    try {
      this.#named.listen()
    } catch (error) {
      this.#side.named.warn(`the control socket cannot be used: ${(error as Error).message}. This process serves, and cannot be found by its name.`)
    }
  }

  /** Makes the path of the named socket again, where it is gone. */
  heal(): void {
    this.#named?.heal()
  }

  /** Cannot be found by its name until `serve()`. */
  pause(): void {
    this.#named?.pause()
  }

  /** Gives the name up. `last`: no other process has it. */
  leave(last: boolean): void {
    this.#nameRetry.stop()
    this.#named?.close(last)
    this.#named = undefined
  }

  /** What a successor is offered. */
  get offered(): OfferedSocket | undefined {
    if (!this.#named) return undefined
    const { file: address, fd, id } = this.#named
    const words = { name: 'control', kind: 'control', asked: 'control' } as const
    return { about: { ...words, address, port: 0, ipv6: false, ipv6Only: false, backlog: 128, ...(id !== undefined && { file: id }) }, fd }
  }

  // ---- its own one ----

  /** Can be asked from now on, or as soon as a directory can be used. */
  openOwn(): void {
    if (this.#own) return
    try {
      this.#own = this.#makeOwn(this.#ownName)
      this.#side.host.signals.once('exit', this.#onExit)
      this.#own.listen()
      this.#ownRetry.stop()
    } catch (error) {
      this.closeOwn()
      this.#ownRetry.failed(this.#withoutOwn(error as Error))
    }
  }

  /** Whether the next keeper finds this process. */
  get hasOwn(): boolean {
    return this.#own !== undefined
  }

  #withoutOwn(error: Error): string {
    if (!this.#side.outlivesKeeper()) return `this process is not seen by \`handover status\` while it drains: ${error.message}`
    const todo = error instanceof PlaceProblem ? ` ${error.todo}` : ''
    return `${withoutStop(error.message)}. If the keeper is killed, the next one does not find process ${this.#side.host.pid}, which has the port.${todo}`
  }

  closeOwn(): void {
    this.#ownRetry.stop()
    this.#side.host.signals.off('exit', this.#onExit)
    this.#own?.close(true)
    this.#ownOfUser?.close(true)
    this.#own = undefined
    this.#ownOfUser = undefined
  }

  #makeOwn(name: string): ControlSocket {
    const [file, fd] = inFirstUsablePlace(name, (found) => [found, listenAt(found)] as const)
    return new ControlSocket(file, fd, {
      called: () => `this is the socket by which process ${this.#side.host.pid} is asked for its status; nothing is handed over by it. Give the program a name.`,
      keeperCalled: (keeper) => { this.#side.keeperCalled(keeper) },
      asked: (request, client) => { this.#side.named.asked(request, client) },
      warn: (line) => { this.#warnOfOwn(line) },
      userChanged: () => { if (!this.#side.isKept()) this.#openOwnOfUser() }
    })
  }

  /** It was made as root, in a directory of root: the user that this process has now finds it by another one. */
  #openOwnOfUser(): void {
    this.#ownOfUser?.close(true)
    this.#ownOfUser = undefined
    const user = `process ${this.#side.host.pid} runs as uid ${process.geteuid?.()} now`
    try {
      this.#ownOfUser = this.#makeOwn(ownName(this.#side.host.pid))
      this.#ownOfUser.listen()
      this.#side.named.note(`${user}: that user finds it by ${this.#ownOfUser.file}`)
    } catch (error) {
      this.#side.named.warn(`${user}, and that user cannot find it: ${(error as Error).message}. ${this.#side.hasName() ? 'Root finds it by its name.' : 'Give it a name: by that root finds it after a reload, too.'}`)
    }
  }

  #warnOfOwn(line: string): void {
    if (this.#side.hasName() || this.#side.outlivesKeeper()) this.#side.named.warn(line)
  }

  readonly #onExit = (): void => { this.closeOwn() }
}
