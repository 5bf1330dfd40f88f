/**
 * Which servers and UDP sockets are handed over, how they were adopted, and the connections of those that listen. Where listeners belong to
 * another process (a cluster) or another runtime, everything is left to Node, and the log says so once.
 *
 * Once an adapter has an app, every HTTP server of the process is adopted, and not only the one on which the app itself answers. Packages
 * such as socket.io put a function of their own in the place of the app before listen(). And a second server (for metrics), if it were left
 * out, would keep its port from the successor.
 */

import type dgram from 'node:dgram'
import net from 'node:net'
import { inspect } from 'node:util'
import { ConnectionTracker } from '../connections/connection-tracker.js'
import type { CanMove } from '../connections/connection.js'
import { optionError, textOf } from '../errors.js'
import type { AskedAddress } from '../listeners/listener-match.js'
import { switchedOff } from '../platform/availability.js'
import { sharesPort } from '../platform/node/datagram-handle.js'
import { hasClusterWorkers, isClusterWorker, isMainThread, isUdpSocket } from '../platform/on-demand.js'

type Owner = net.Server | dgram.Socket

/** Whether a UDP socket is a server's. Those of clients have no port of their own, and must get the answers that are on their way. */
const isServing = (socket: dgram.Socket, asked: AskedAddress | undefined): boolean =>
  asked?.fd !== undefined || ((asked?.port ?? 0) > 0 && !sharesPort(socket))

export class AdoptedServers {
  readonly #off: string | undefined
  readonly #warn: (line: string) => void
  readonly #ours = new WeakSet<Owner>()
  readonly #requestListeners = new WeakMap<object, { readonly mayFail: boolean; readonly canMove: CanMove | undefined }>()
  readonly #mayFail = new WeakSet<Owner>()
  /** Not given to handover(): they are adopted because everything is, or all that speaks HTTP. */
  readonly #strangers = new WeakSet<Owner>()
  #everything = false
  /** An adapter has an app. `canMove`: the first that was given with one. */
  #app: { readonly canMove: CanMove | undefined } | undefined
  readonly #trackers = new WeakMap<net.Server, ConnectionTracker>()
  /** Of the servers that listen, or still have connections. */
  readonly #connections = new Map<net.Server, ConnectionTracker>()
  /** Why a server that was given to us is left to Node. */
  #plain: string | undefined

  /** `off`: why nothing of this process can be handed over. */
  constructor(off: string | undefined, warn: (line: string) => void) {
    this.#off = off
    this.#warn = warn
  }

  // ---- what programs give ----

  /** False where it is left to Node, or known already. Throws HANDOVER_OPTION. */
  adopt(owner: Owner, canMove: CanMove | undefined): boolean {
    if (!(owner instanceof net.Server) && !isUdpSocket(owner)) {
      const what = 'handover() was given something else than a server of http, https, http2 or net, or a dgram socket'
      throw optionError(what, 'For an Express app use @handover/express, for Fastify register @handover/fastify')
    }
    if (this.#isOff()) return false
    if (this.#ours.has(owner)) {
      if (canMove) throw optionError('canMove was given for a server that handover() knows already', 'Give it with the first call')
      return false
    }
    if (owner instanceof net.Server && owner.listening) {
      throw optionError('the server listens already, and so cannot inherit a listener', 'Call handover(server) before listen()')
    }
    this.#take(owner, canMove)
    return true
  }

  /**
   * The function by which an app answers. From now on every HTTP server that listens is adopted. `mayFail`: a successor can serve although
   * a server with this function does not listen. False where it is left to Node.
   */
  adoptRequestListener(listener: object, mayFail: boolean, canMove: CanMove | undefined): boolean {
    if (this.#isOff()) return false
    this.#requestListeners.set(listener, { mayFail, canMove })
    this.#app = { canMove: this.#app?.canMove ?? canMove }
    return true
  }

  /** All that listens from now on. False where it is left to Node, or was called before. */
  adoptEverything(): boolean {
    if (this.#everything || this.#isOff()) return false
    this.#everything = true
    return true
  }

  // ---- what they are ----

  /** Why something that listens in this process is left to Node; undefined where nothing is. */
  get plain(): string | undefined {
    return this.#plain
  }

  get everything(): boolean {
    return this.#everything
  }

  /**
   * Whether a listen() or bind() goes through Handover. Adopts a server or socket that the program has not given to handover(), where all
   * are adopted. `asked`: of a UDP socket, of which many belong to clients.
   */
  adopts(owner: Owner, asked: AskedAddress | undefined): boolean {
    if (this.#ours.has(owner)) return !this.#listensPlainly()
    const answers = owner.listeners('request')
    const found = answers.map((listener) => this.#requestListeners.get(listener)).find((known) => known !== undefined)
    const app = found ?? (answers.length > 0 ? this.#app : undefined)
    if (!app && !(this.#everything && (owner instanceof net.Server || isServing(owner, asked)))) return false
    if (this.#listensPlainly()) return false
    if (!found) this.#strangers.add(owner)
    else if (found.mayFail) this.#mayFail.add(owner)
    this.#take(owner, app?.canMove)
    return true
  }

  isStranger(owner: Owner): boolean {
    return this.#strangers.has(owner)
  }

  /** A failure to listen of these is the framework's business: Fastify's second server for localhost. */
  mayFail(owner: Owner): boolean {
    return this.#mayFail.has(owner)
  }

  // ---- their connections ----

  listens(owner: Owner): void {
    if (!(owner instanceof net.Server)) return
    const connections = this.#trackers.get(owner)
    if (connections) this.#connections.set(owner, connections)
  }

  closed(owner: Owner): void {
    if (owner instanceof net.Server) this.#connections.delete(owner)
  }

  get connections(): ReadonlyMap<net.Server, ConnectionTracker> {
    return this.#connections
  }

  connectionsOf(owner: Owner | undefined): ConnectionTracker | undefined {
    return owner instanceof net.Server ? this.#trackers.get(owner) : undefined
  }

  serverOf(socket: net.Socket): { readonly server: net.Server; readonly connections: ConnectionTracker } | undefined {
    for (const [server, connections] of this.#connections) if (connections.get(socket)) return { server, connections }
    return undefined
  }

  get openConnections(): number {
    let open = 0
    for (const connections of this.#connections.values()) open += connections.open
    return open
  }

  #take(owner: Owner, canMove: CanMove | undefined): void {
    this.#ours.add(owner)
    if (owner instanceof net.Server) this.#trackers.set(owner, new ConnectionTracker(owner, canMove && this.#guard(canMove)))
  }

  /** Anything but true keeps a connection here. An answer that is no boolean is logged once. */
  #guard(canMove: CanMove): CanMove {
    let said = false
    const say = (what: string): false => {
      if (!said) this.#warn(`canMove ${what}: the connection stays, and is drained politely. It must answer true or false at once. This is said once.`)
      said = true
      return false
    }
    return (socket) => {
      try {
        const answer: unknown = canMove(socket)
        return typeof answer === 'boolean' ? answer : say(`answered ${inspect(answer)}`)
      } catch (error) {
        return say(`threw ${textOf(error)}`)
      }
    }
  }

  // ---- what is left to Node ----

  /** Logs it once, where HANDOVER=off was not the reason. */
  #isOff(): boolean {
    if (this.#off !== undefined && this.#off !== switchedOff) this.#sayPlain(this.#off)
    return this.#off !== undefined
  }

  #listensPlainly(): boolean {
    const reason = isClusterWorker() ? 'this is a cluster worker: its listeners belong to the primary'
      : !isMainThread() ? 'this is a worker thread: only the main thread can hand a process over'
      : this.#everything && hasClusterWorkers() ? 'this program has cluster workers, which share its listeners: run it without cluster, and let Handover start the workers'
      : undefined
    if (reason !== undefined) this.#sayPlain(reason)
    return reason !== undefined
  }

  #sayPlain(reason: string): void {
    if (this.#plain === undefined) this.#warn(`${reason}. The server listens as usual; it is neither drained nor reloaded.`)
    this.#plain ??= reason
  }
}
