/**
 * This process as one generation: the object that users hold, and the only place where roles, listeners, connections and signals meet.
 *
 * It does nothing until an adopted server listens: no signal handler, no file, no socket, no timer.
 */

import type dgram from 'node:dgram'
import { channel as diagnosticsChannel } from 'node:diagnostics_channel'
import { captureRejectionSymbol, EventEmitter } from 'node:events'
import { closeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { constants } from 'node:os'
import { ApplicationMoves, type MoveOptions, type OnMoved } from '../connections/application-moves.js'
import { HasSpoken } from '../connections/connection-receiver.js'
import type { CanMove } from '../connections/connection.js'
import { requestCounts } from '../connections/request-counts.js'
import type { Caller, CallingKeeper } from '../control/control-server.js'
import { NamedSocket } from '../control/named-socket.js'
import { ProcessSocket } from '../control/process-socket.js'
import { RequestHandler } from '../control/request-handler.js'
import { HandoverError, textOf, withoutStop } from '../errors.js'
import { announce, keepsServing, sayNotServed } from '../handover/announcements.js'
import type { Host } from '../handover/host.js'
import { channelTo, type LaunchedSuccessor } from '../handover/launch.js'
import { handOver, keeperIsGone, type SwitchResult } from '../handover/predecessor.js'
import { openCounts, Shutdown, type ServingSuccessor } from '../handover/shutdown.js'
import type { ProcessContext } from '../handover/process-context.js'
import { Startup } from '../handover/startup.js'
import { Support } from '../handover/support.js'
import { CoveredListeners, serveProbe } from '../keeper-link/cover-listeners.js'
import { KeeperLink, type KeeperSeat } from '../keeper-link/keeper-link.js'
import type { PassedListener } from '../keeper-link/passed-listener.js'
import { hookBind, installBindHook } from '../listeners/bind-hook.js'
import { installListenHook, type ListenHook } from '../listeners/listen-hook.js'
import type { AskedAddress } from '../listeners/listener-match.js'
import { ListenerRegistry, type Listener, type OfferedSocket } from '../listeners/listener-registry.js'
import { ServedPaths } from '../listeners/served-paths.js'
import { SettingsOfProcess, type HandoverOptions, type LogLevel } from '../options.js'
import { descriptorRoom } from '../platform/descriptor-room.js'
import { debug } from '../platform/debug.js'
import { native } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { writeStderr } from '../platform/stderr-relay.js'
import { monotonicMicroseconds, notifySystemd } from '../platform/systemd-notify.js'
import type { ProcessStatus } from '../protocol/control-messages.js'
import type { MovedConnection, OfferedListener, Peer, Takes } from '../protocol/handover-messages.js'
import { accepts, Lifecycle, type LifecycleState } from '../protocol/lifecycle.js'
import { listed, noState, type Report } from '../protocol/report.js'
import type { Aggregate, AggregateOptions } from '../sharing/aggregates/aggregate.js'
import { SharedState } from '../sharing/shared-state.js'
import type { PeerChannel, Restored, Section, Service } from '../sharing/sharing-api.js'
import { AdoptedServers } from './adopted-servers.js'
import type { Handover, HandoverEvents, ReloadOptions } from './handover-api.js'
import { StatusReader } from './process-status.js'
import { Signals } from './signals.js'
import { Watchdog } from './watchdog.js'

/** `allowDrop`: that the successor listens on less is meant. */
interface ReloadWishes extends ReloadOptions {
  readonly allowDrop?: boolean
}

export class Generation implements Handover {
  readonly events = new EventEmitter<HandoverEvents>({ captureRejections: true })
  readonly #settings: SettingsOfProcess
  readonly #machine: Lifecycle
  readonly #inventory = new ListenerRegistry()
  readonly #host: Host
  readonly #servers: AdoptedServers
  /** Copies of what they claimed, until this process is ready. */
  readonly #spares = new Set<OfferedSocket>()
  readonly #socketMoves = new ApplicationMoves()
  /** Kinds of connections of which it was logged that they go back. */
  readonly #saidGivenBack = new Set<string>()
  readonly #closeHooks: (() => unknown)[] = []
  #log: Host['log']
  #lastReport: Report | undefined
  #entered = false
  #resting = false
  /** The keeper that is gone. */
  #lost: { readonly keeper: number; readonly slot: number; readonly name: string } | undefined
  /** What the keeper wants to be offered to a successor beside what this process has. */
  #more: readonly PassedListener[] = []
  readonly #covering = new CoveredListeners(this.#inventory, (line) => { this.#log('warn', line) })
  // Under a keeper that one has the name.
  readonly #name = new NamedSocket(() => (this.#context.keeper ? undefined : this.#settings.get().name), {
    called: (caller) => { this.#reload('rendezvous', caller).catch((error: unknown) => { this.#log('error', String(error)) }) },
    asked: (request, client) => { this.#answers.answer(request, client) },
    warn: (line) => { this.#log('warn', line) },
    note: (line) => { this.#log('info', line) },
    // Before and after, a predecessor or a successor may have the same socket.
    mayHeal: () => this.#machine.state.is === 'serving'
  })
  readonly #ownSocket = new ProcessSocket({
    isNamed: () => this.#settings.get().name !== undefined,
    isKept: () => this.#context.keeper !== undefined || this.#lost !== undefined,
    note: (line) => { this.#log('info', line) },
    keeperCalled: (keeper) => { this.#keeperCalled(keeper) },
    asked: (request, client) => { this.#answers.answer(request, client) },
    warn: (line) => { this.#log('warn', line) }
  })
  readonly #portrait: StatusReader
  readonly #answers: RequestHandler
  readonly #state = new SharedState({
    author: () => ({ version: this.#portrait.version, generation: this.generation }),
    kept: () => this.#context.keeper,
    requests: () => requestCounts.total,
    warn: (line) => { this.#log('warn', line) }
  })
  readonly #watchdog: Watchdog
  #doorIsOpen = false
  readonly #context: ProcessContext
  readonly #support: Support
  readonly #beginning: Startup
  readonly #paths: ServedPaths
  /** The listeners of a move of the state are being called. */
  #telling = false
  // While it ends.
  readonly #stopped = new AbortController()
  /** Gives up a reload of a keeper that dies. */
  #orphaned = new AbortController()
  #ending: Shutdown | undefined
  #running: Promise<Report> | undefined
  #finished: Promise<void> | undefined

  constructor(host: Host) {
    const { env, inherited } = host
    this.#host = host
    this.#log = (level, line) => { host.log(level, line) }
    this.#servers = new AdoptedServers(host.unavailable, (line) => { this.#log('warn', line) })
    this.#settings = new SettingsOfProcess(env)
    this.#portrait = new StatusReader(host)
    const settings = this.#settings
    this.#answers = new RequestHandler({
      name: () => this.#appName,
      get undoWindowMs() { return settings.get().undoWindow },
      status: () => this.status(),
      serving: () => this.#servingNow(),
      reload: (options) => this.reload(options),
      stop: () => this.stop()
    })
    // What an async listener of the application rejects with must not end a process that drains.
    Object.assign(this.events, { [captureRejectionSymbol]: (error: unknown, event: string) => { this.#log('error', `a listener of "${event}" rejected: ${textOf(error)}`) } })
    this.#signals = new Signals(host, { warnsOfOthers: () => !this.#servers.everything, reload: this.#onReload, stop: this.#onStop, log: (level, line) => { this.#log(level, line) } })
    this.#watchdog = new Watchdog(host, () => settings.get().watchdog)
    this.#machine = new Lifecycle((from, to) => {
      debug(() => `lifecycle: ${from} to ${to.is}`)
      this.#watchdog.moved(to)
      this.#telling = true
      this.#context.keeper?.state(to.is, this.generation)
      this.#emit('state', { from, to: to.is, generation: this.generation })
      this.#telling = false
    })
    this.#paths = new ServedPaths(env, inherited.contact !== undefined, {
      inventory: this.#inventory,
      place: () => this.#placeOfPaths,
      rebound: () => { this.#tellKeeper() },
      warn: (line) => { this.#log('warn', line) }
    })
    this.#support = new Support(host.unavailable, () => settings.get(), (level, line) => { this.#log(level, line) })
    this.#context = this.#contextOf(host)
    this.#beginning = new Startup(this.#context, {
      serve: () => this.#serve(),
      adopt: (fd, about, refusable) => this.#adopt(fd, about, refusable),
      closeSpares: () => { this.#closeSpares() },
      stop: () => { void this.stop() }
    })
    if (inherited.inspectorWanted !== undefined) {
      const url = process.getBuiltinModule('node:inspector').url()
      this.#log('info', `the inspector of process ${host.pid} is ${url ?? 'not open'}: ${inherited.inspectorWanted} belongs to another process`)
    }
    const held = host.takeSeat()
    if (held) this.#context.keeper = this.#keptBy(held)
    // A successor will listen; a reload signal that comes before must not kill it.
    if (inherited.contact) this.#signals.ignoreReload(this.#settings.get().reloadSignal)
  }

  #contextOf(host: Host): ProcessContext {
    const self = (): Peer => this.#self
    const settings = this.#settings
    return {
      host,
      get self() { return self() },
      lifecycle: this.#machine,
      registry: this.#inventory,
      paths: this.#paths,
      namedSocket: this.#name,
      state: this.#state,
      get settings() { return settings.get() },
      connections: this.#servers.connections,
      closeHooks: this.#closeHooks,
      support: this.#support,
      keeper: undefined,
      reloading: false,
      stopRequested: false,
      log: (level, line) => { this.#log(level, line) },
      publish: (report) => { this.#publish(report) }
    }
  }

  get generation(): number {
    return this.#beginning.generation
  }

  get state(): LifecycleState {
    return this.#machine.state.is
  }

  get lastReport(): Report | undefined {
    return this.#lastReport
  }

  get #self(): Peer {
    return { pid: this.#host.pid, generation: this.generation }
  }

  #emit<E extends keyof HandoverEvents>(event: E, ...[detail]: HandoverEvents[E]): void {
    // A listener of the application that throws must not break a handover.
    try {
      ;(this.events as EventEmitter).emit(event, detail)
    } catch (error) {
      this.#log('error', `a listener of "${event}" threw: ${String(error)}`)
    }
    diagnosticsChannel(`handover:${event}`).publish(detail)
  }

  // ---- what programs call ----

  /** Merges options; throws HANDOVER_OPTION. */
  configure(options: HandoverOptions): void {
    this.#settings.add(options)
    if (options.onClose) this.#closeHooks.push(options.onClose)
    if (options.log) this.#log = guarded(options.log)
  }

  /** A line where those of this process go. */
  log(level: LogLevel, line: string): void {
    this.#log(level, line)
  }

  /** Throws HANDOVER_OPTION. */
  adopt(owner: net.Server | dgram.Socket, canMove?: CanMove): void {
    if (!this.#servers.adopt(owner, canMove)) return
    this.#openDoor()
    if (!(owner instanceof net.Server)) hookBind(this.#doorkeeper, owner)
  }

  /** Adopts every server, of now or later, that answers with this function. */
  adoptRequestListener(listener: (...args: never[]) => unknown, mayFail: boolean, canMove?: CanMove): void {
    if (this.#servers.adoptRequestListener(listener, mayFail, canMove)) this.#openDoor()
  }

  /** Adopts every server that listens from now on, and every UDP socket that is made from now on and bound to a port of its own. */
  adoptEverything(): void {
    if (!this.#servers.adoptEverything()) return
    this.#signals.hold()
    this.#openDoor()
    installBindHook(this.#doorkeeper)
  }

  ready(): void {
    this.#beginning.ready()
  }

  async reload(options: ReloadOptions = {}): Promise<Report> {
    return await this.#reloadOrAsk('call', options)
  }

  share<S, T = Restored<S>>(name: string, section: Section<S, T>): void {
    this.#state.share(name, section as Section)
  }

  aggregate<T>(name: string, options: AggregateOptions<T>): Aggregate<T> {
    return this.#state.aggregate(name, options)
  }

  get peer(): PeerChannel {
    return this.#state.peers
  }

  get service(): Service {
    return this.#state.service(this.generation)
  }

  async stop(): Promise<void> {
    this.#context.stopRequested = true
    this.#ending?.settle()
    // A reload that runs is given up where it still can be; a stop from within a state event comes after what it interrupts.
    this.#stopped.abort()
    if (this.#context.reloading || this.#telling) await this.#running?.catch(() => undefined)
    const { is } = this.#machine.state
    if (is === 'serving') {
      this.#covering.close(true)
      this.#closeSpares()
      this.#paths.release()
      if (this.#inventory.filesAreKept) this.#inventory.passOn()
      this.#state.servesNoMore()
      this.#machine.move('serving', { is: 'draining' })
      this.#beginning.settled()
      notifySystemd({ STOPPING: 1 })
      this.#finish(undefined)
    } else if (is === 'idle' || is === 'taking' || is === 'preparing' || is === 'ready') {
      this.#host.exit(0)
    }
    await this.#finished
  }

  async move(socket: net.Socket, options: MoveOptions): Promise<boolean> {
    const { server, connections } = this.#servers.serverOf(socket) ?? {}
    return await this.#socketMoves.move(socket, options, this.#ending?.mover, connections, (server && this.#inventory.of(server)?.about.name) ?? '')
  }

  onMoved(kind: string, take: OnMoved): void {
    this.#socketMoves.onMoved(kind, take)
    if (this.#beginning.isSuccessor && this.#machine.state.is === 'serving') this.#log('warn', `onMoved("${kind}") was called when this process served already: its predecessor kept the connections of this kind. Call it before listen().`)
  }

  forgetMoved(kind: string): void {
    this.#socketMoves.forget(kind)
  }

  /** As its keeper calls it, else as the program or the environment does. */
  get #appName(): string | undefined {
    return (this.#context.keeper ?? this.#lost)?.name ?? this.#settings.get().name
  }

  /** What `handover status` shows of this process. */
  status(): ProcessStatus {
    const place = this.#context.keeper ?? this.#lost
    return this.#portrait.status({
      generation: this.generation,
      state: this.#machine.state.is,
      name: this.#appName,
      listeners: this.#inventory.names,
      connections: this.#servers.connections.values(),
      endsInMs: this.#ending?.endsInMs,
      lastReport: this.#lastReport,
      plain: this.#servers.plain,
      service: this.#state.serviceCount,
      sections: this.#state.progress
    }, place)
  }

  /** Says more of why a connection stays than the drain can know. */
  noteStay(socket: net.Socket, reason: string): void {
    for (const connections of this.#servers.connections.values()) connections.noteStay(socket, reason)
  }

  // ---- the door ----

  #openDoor(): void {
    if (this.#doorIsOpen) return
    this.#doorIsOpen = true
    installListenHook(this.#doorkeeper)
  }

  readonly #doorkeeper: ListenHook = {
    isQuiet: () => this.#beginning.isQuiet,
    isBoundQuietly: (address, port) => this.#inventory.isBoundQuietly(address, port),
    isOurs: (owner, asked) => this.#servers.isOurs(owner, asked),
    before: (_owner, asked) => {
      this.#enter()
      if (asked?.kind === 'unix') this.#paths.guard()
      if (this.#beginning.refusal) return this.#beginning.refusal
      this.#beginning.listens()
      return asked && this.#inventory.claim(asked)
    },
    after: (owner, asked, claimed, backlog) => { this.#bound(owner, asked, claimed, backlog) },
    failed: (owner, asked, claimed, error) => { this.#notBound(owner, asked, claimed, error) }
  }

  /** The first listen() of the process: signals, and whoever serves already. */
  #enter(): void {
    if (this.#resting) this.#wake()
    if (this.#entered) return
    this.#entered = true
    const cannot = this.#support.cannotReload()
    this.#signals.install(this.#settings.get().reloadSignal)
    if (cannot !== undefined) {
      this.#log('warn', `${cannot}. The server listens as usual, drains politely and cannot be reloaded.`)
      return
    }
    // Logged now, not in the first reload.
    this.#support.canMove()
    this.#beginning.find()
  }

  #bound(owner: net.Server | dgram.Socket, asked: AskedAddress | undefined, claimed: OfferedSocket | undefined, backlog: number): void {
    this.#beginning.listened()
    const listener = this.#inventory.add(owner, asked, claimed?.about, backlog)
    if (listener && claimed && !this.#beginning.isQuiet) this.#inventory.acceptOn(listener)
    if (!this.#host.signals.listeners('exit').includes(this.#onExit)) this.#host.signals.once('exit', this.#onExit)
    if (this.#machine.state.is === 'idle') {
      this.#machine.move('idle', { is: 'serving' })
      this.#state.began()
      this.#state.serves()
      notifySystemd({ READY: 1, MAINPID: this.#host.pid })
    }
    this.#tellKeeper()
    if (this.#machine.state.is === 'serving') this.#canBeAsked()
    this.#servers.listens(owner)
    this.#keepSpare(owner, listener, claimed)
    owner.once('close', () => {
      this.#servers.closed(owner)
      this.#host.clock.setImmediate(() => { this.#rest() })
    })
    // The 'listening' event, and what the program does in it, comes before this.
    this.#host.clock.setImmediate(() => {
      if (listener) this.#inventory.noteFiles((each) => each === listener)
      this.#beginning.settle()
    })
  }

  /** Who else depends on the Unix paths of this process. */
  get #placeOfPaths(): 'waits' | 'kept' | 'neighbour' | 'alone' {
    const { is } = this.#machine.state
    if (is === 'taking' || is === 'preparing' || is === 'ready' || (is === 'idle' && this.#host.inherited.contact)) return 'waits'
    if (this.#inventory.filesAreKept) return 'kept'
    return this.#beginning.predecessor !== undefined && !this.#context.stopRequested ? 'neighbour' : 'alone'
  }

  /**
   * What is closed and listened on again finds its port in use where somebody else has a copy: a stranger that only looked whether the port is free, before
   * this process serves; and under a keeper at any time. The next listen() gets the spare copy.
   */
  #keepSpare(owner: net.Server | dgram.Socket, listener: Listener | undefined, claimed: OfferedSocket | undefined): void {
    const { about } = listener ?? {}
    const isKept = this.#context.keeper !== undefined && owner instanceof net.Server && about?.kind === 'tcp' && !/^fd |:0$/.test(about.asked)
    const isProbe = claimed !== undefined && this.#servers.isStranger(owner) && this.#machine.state.is === 'preparing'
    const fd = fdOf(owner)
    if (!native || !about || fd === undefined || !(isKept || isProbe)) return
    const copy = native.duplicate(fd)
    if (copy < 0) return
    const spare = { about: claimed?.about ?? about, fd: copy }
    this.#spares.add(spare)
    owner.once('close', () => { if (this.#spares.delete(spare)) this.#inventory.giveBack(spare) })
  }

  /** Also those that were given back. */
  #closeSpares(): void {
    for (const { fd } of this.#spares) closeSync(fd)
    this.#spares.clear()
    if (this.#machine.state.is !== 'preparing') this.#inventory.drop()
  }

  /** It accepts, and nothing is being stopped. */
  get #accepts(): boolean {
    return accepts(this.#machine.state.is)
  }

  #notBound(owner: net.Server | dgram.Socket, asked: AskedAddress | undefined, claimed: OfferedSocket | undefined, error: Error | undefined): void {
    this.#beginning.listened()
    if (claimed) this.#inventory.giveBack(claimed)
    if (!error || this.#servers.mayFail(owner) || (this.#servers.isStranger(owner) && this.#listensOn(asked?.port))) {
      this.#host.clock.setImmediate(() => { this.#beginning.settle() })
      return
    }
    this.#beginning.failed(error)
  }

  /** Another server has this port: a framework's second one for `localhost`, whose error it keeps to itself, can do without. */
  #listensOn(port: number | undefined): boolean {
    return port !== undefined && port > 0 && this.#inventory.listeners.some(({ about }) => about.kind === 'tcp' && about.port === port)
  }

  /** The commit: from here on this process accepts. Answers what it can take of the predecessor's connections. */
  #serve(): Takes | undefined {
    this.#machine.move('ready', { is: 'serving' })
    this.#inventory.accept((listener, error) => { sayNotServed(this.#context, listener, error) })
    this.#state.began()
    const { predecessor } = this.#beginning
    // What it does at its end must not take away what this process serves.
    if (predecessor) this.#paths.hold()
    if (predecessor) this.#state.connect('predecessor', predecessor.channel, predecessor.predecessor)
    this.#state.serves()
    this.#name.serve()
    // Under a keeper it leads there until the reload is done: what this process says as it crashes belongs into the error.
    if (!this.#context.keeper) this.#host.inherited.stderr?.restore()
    this.#tellKeeper()
    this.#canBeAsked()
    notifySystemd({ READY: 1, MAINPID: this.#host.pid })
    return this.#takes()
  }

  #canBeAsked(): void {
    this.#portrait.noteVersion()
    if (native) this.#ownSocket.open()
  }

  #takes(): Takes | undefined {
    if (!this.#support.canMove()) return undefined
    const listeners = this.#inventory.listeners.filter(({ owner }) => owner instanceof http.Server).map(({ about }) => about.name)
    return { listeners, kinds: this.#socketMoves.kinds, room: descriptorRoom() }
  }

  /** A connection of the predecessor. False where it is given back. */
  #adopt(fd: number, about: MovedConnection, refusable: boolean): boolean {
    const connections = this.#servers.connectionsOf(this.#inventory.named(about.listener)?.owner)
    try {
      if (about.kind !== 'http') this.#socketMoves.take(fd, about, connections)
      else if (connections) connections.adopt(fd, about)
      else {
        closeSync(fd)
        throw new Error(`nothing listens as "${about.listener}" any more`)
      }
      return true
    } catch (error) {
      const closed = !refusable || error instanceof HasSpoken
      if (closed) this.#log('error', `a connection of kind "${about.kind}" that was moved here is closed: ${textOf(error)}`)
      else if (!this.#saidGivenBack.has(about.kind)) this.#log('warn', `a connection of kind "${about.kind}" is given back to process ${this.#beginning.predecessor?.predecessor.pid ?? '?'}, which drains it (others are not logged): ${textOf(error)}`)
      if (!closed) this.#saidGivenBack.add(about.kind)
      return closed
    }
  }

  // ---- as a predecessor ----

  #servingNow(): Peer[] {
    const { state } = this.#machine
    if (state.is === 'draining') return state.successor ? [state.successor] : []
    if ('predecessor' in state) return [state.predecessor]
    return this.#accepts ? [this.#self] : []
  }

  /** Why a reload cannot begin now. */
  #refuseReload(): HandoverError | undefined {
    const cannot = this.#support.cannotReload()
    const context = { role: 'predecessor', state: this.#machine.state.is, generation: this.generation } as const
    if (cannot !== undefined) return new HandoverError('HANDOVER_UNAVAILABLE', `${cannot}. ${keepsServing(this.#context)} Restart it to load new code.`, context)
    // A successor of it would be nobody's worker: the next keeper would not find it, and find its port taken.
    if (this.#lost && this.#host.isAlive(this.#lost.keeper)) return new HandoverError('HANDOVER_UNAVAILABLE', `process ${this.#lost.keeper}, the keeper, has let go of this process, and only that one starts successors. ${keepsServing(this.#context)} See the log of the keeper: it looks for its workers every 10 seconds. Then reload.`, context)
    if (this.#lost) return new HandoverError('HANDOVER_UNAVAILABLE', `the keeper (process ${this.#lost.keeper}) is gone, which starts successors. ${keepsServing(this.#context)} Start it again, in the same way: it finds its workers. Then reload.`, context)
    if (this.#context.reloading) return new HandoverError('HANDOVER_RELOAD_RUNNING', `a reload already runs. ${keepsServing(this.#context)} Wait for its report.`, context)
    const { state } = this.#machine
    if (state.is === 'serving' && !this.#context.stopRequested) return undefined
    const server = state.is === 'draining' ? state.successor : 'predecessor' in state ? state.predecessor : undefined
    return new HandoverError('HANDOVER_NOT_SERVING', server
      ? `process ${this.#host.pid} (generation ${this.generation}) is ${state.is}. Process ${server.pid} (generation ${server.generation}) serves. Ask that one.`
      : `process ${this.#host.pid} (generation ${this.generation}) is ${this.#context.stopRequested ? 'stopping' : state.is} and does not serve. ${state.is === 'idle' ? 'Call listen() first.' : 'Ask the process that does.'}`, context)
  }

  async #reload(trigger: Report['trigger'], caller?: Caller, options: ReloadWishes = {}): Promise<Report> {
    const refusal = this.#refuseReload() ?? (this.#host.pid === 1 && !caller
      ? new HandoverError('HANDOVER_UNAVAILABLE', `this is PID 1: its end would end the container. ${keepsServing(this.#context)} Start a second container with the same name and a shared HANDOVER_DIR, or restart this one.`)
      : undefined)
    if (refusal) {
      caller?.channel.send({ type: 'refused', code: refusal.code, reason: refusal.message })
      caller?.channel.close()
      throw refusal
    }
    this.#context.reloading = true
    this.#orphaned = new AbortController()
    this.#running = this.#answers.record(this.#handOverTo(trigger, caller, options))
    return await this.#running
  }

  async #handOverTo(trigger: Report['trigger'], caller: Caller | undefined, { withoutState = false, allowDrop = false }: ReloadWishes): Promise<Report> {
    const begun = this.#host.clock.now()
    this.#paths.hold()
    notifySystemd({ RELOADING: 1, MONOTONIC_USEC: monotonicMicroseconds() })
    this.#name.heal()
    this.#machine.move('serving', { is: 'launching' })
    let launched: LaunchedSuccessor
    let switched: SwitchResult
    try {
      launched = caller ?? (await this.#launch())
      switched = await handOver({
        machine: this.#machine,
        clock: this.#host.clock,
        self: this.#self,
        readyTimeoutMs: this.#settings.get().readyTimeout,
        stopped: AbortSignal.any([this.#stopped.signal, this.#orphaned.signal]),
        offer: () => {
          // From here on this process or its successor serves: a predecessor that came back as well would be one too many.
          this.#beginning.settled()
          return this.#offer()
        },
        sections: this.#state.toSend(withoutState),
        since: this.#state.startedAt,
        mayDrop: allowDrop,
        serves: () => keepsServing(this.#context),
        stopAccepting: (dropped) => {
          this.#state.servesNoMore()
          this.#covering.close(false)
          this.#closeSpares()
          // From here on its files are the successor's.
          this.#paths.release()
          const late = this.#inventory.silence(dropped)
          this.#name.pause()
          return late
        }
      }, launched, begun)
    } catch (error) {
      this.#context.reloading = false
      this.#paths.mend()
      if (this.#beginning.predecessor === undefined) this.#paths.release()
      // It may not listen for long, or ever: nobody else is left to end it.
      if (caller && this.#orphaned.signal.aborted) this.#host.kill(caller.pid)
      notifySystemd({ READY: 1 })
      const failure = error as HandoverError
      this.#emit('failed', failure)
      throw failure
    } finally {
      for (const { fd } of this.#more) closeSync(fd)
      this.#state.transferIsOver()
    }
    this.#context.reloading = false
    // This process may itself have a predecessor that still could undo: its turn is over.
    this.#beginning.settled()
    // READY once more: with NotifyAccess=main nobody listened to the successor yet.
    // A pid that the successor only says itself may be one of another namespace.
    notifySystemd({ READY: 1, ...(launched.pid > 0 && { MAINPID: launched.pid }), ...this.#watchdog.word })
    const report: Report = {
      result: 'switched',
      trigger,
      predecessor: this.#self,
      successor: switched.successor,
      listeners: { kept: switched.ready.kept, added: switched.ready.added, dropped: switched.ready.dropped },
      state: switched.ready.state ?? noState,
      connections: openCounts(this.#servers.openConnections),
      requestsCut: [],
      durations: { ...switched.durations, move: null, drain: null }
    }
    announce(this.#context, report)
    this.#finish({ launched, takes: switched.takes, pongs: switched.pongs, report })
    return report
  }

  async #launch(): Promise<LaunchedSuccessor> {
    try {
      return await this.#host.launch(this.#paths.marked, (line) => { this.#log('warn', line) })
    } catch (error) {
      this.#machine.move('launching', { is: 'serving' })
      throw error instanceof HandoverError
        ? new HandoverError(error.code, `${error.message}\n  ${keepsServing(this.#context)}\n  Check the paths, then reload again.`, { role: 'predecessor', state: 'launching', generation: this.generation, cause: error.cause })
        : new HandoverError('HANDOVER_SPAWN', `a successor could not be started: ${withoutStop((error as Error).message)}.\n  ${keepsServing(this.#context)}\n  Check the limits of this process (ulimit -n, ulimit -u), then reload again.`, { role: 'predecessor', state: 'launching', generation: this.generation, cause: error })
    }
  }

  #offer(): { listeners: OfferedListener[]; fds: number[] } {
    const { listeners, fds } = this.#inventory.offer()
    const control = this.#name.offered
    const all = [...listeners.map((about, index) => ({ about, fd: fds[index]! })), ...(control ? [control] : []), ...this.#more]
    return { listeners: all.map(({ about }) => about), fds: all.map(({ fd }) => fd) }
  }

  // ---- under a keeper ----

  #keptBy(held: KeeperSeat): KeeperLink {
    this.#inventory.filesAreKept = true
    return new KeeperLink(held, {
      reload: (pid, [messages, descriptors], more, options) => {
        this.#more = more
        this.#reload('keeper', { channel: channelTo({ messages, descriptors }), pid }, options).catch((error: unknown) => { this.#context.keeper?.failed(error as HandoverError, pid) })
      },
      recall: (reason) => { this.#ending?.recall(reason) },
      settle: () => {
        this.#ending?.settle()
        this.#host.inherited.stderr?.restore()
      },
      // One that drains accepts nothing any more.
      cover: (listeners) => { this.#covering.cover(listeners, this.#accepts) },
      probe: (listener, fd) => { serveProbe(this.#inventory, listener, fd) },
      stop: (last, signal) => {
        if (last) this.#inventory.filesAreKept = false
        if (!this.#context.stopRequested) this.#signals.keeperStops(signal)
        void this.stop()
      },
      status: () => this.status(),
      tell: (topic, answer) => { this.#state.tell(topic, answer) },
      inherit: (topic, of, fd) => { this.#state.inherit(topic, of, fd) },
      gone: (expected) => {
        this.#lost = { keeper: held.keeper, slot: held.slot, name: held.name }
        this.#context.keeper = undefined
        this.#inventory.filesAreKept = false
        this.#host.inherited.stderr?.passOn()
        this.#ending?.settle()
        this.#orphaned.abort(keeperIsGone)
        this.#closeSpares()
        if (!expected) this.#log('warn', `the keeper (process ${held.keeper}) is gone. ${this.#machine.state.is === 'serving' ? `${keepsServing(this.#context)} ` : ''}Start it again, in the same way: it finds its workers.`)
      },
      warn: (line) => { this.#log('warn', line) }
    })
  }

  /** A keeper wants this process for a worker: one that was started after the former was gone, or is to follow it. */
  #keeperCalled({ line, pid, slot }: CallingKeeper): void {
    const name = this.#context.keeper?.name ?? this.#lost?.name
    if (name === undefined) {
      this.#log('warn', `process ${pid} wants to be the keeper of this process, which never had one. It is not heard.`)
      line.close()
      return
    }
    this.#context.keeper?.replace()
    this.#lost = undefined
    this.#context.keeper = this.#keptBy({ line, slot, keeper: pid, name })
    this.#context.keeper.state(this.#machine.state.is, this.generation)
    this.#tellKeeper()
  }

  /** Copies of what this process listens on, so that it outlives the process. */
  #tellKeeper(): void {
    if (!this.#context.keeper || !this.#accepts) return
    const { listeners, fds } = this.#inventory.copies()
    try {
      this.#context.keeper.serves(listeners, fds)
    } catch (error) {
      this.#log('warn', `the keeper does not get copies of ${listed(listeners.map(({ name }) => name))}: ${(error as Error).message}`)
    }
  }

  /** Under a keeper it is that one which reloads. */
  async #reloadOrAsk(trigger: Report['trigger'], options: ReloadOptions = {}): Promise<Report> {
    return this.#context.keeper ? await this.#askKeeper(this.#context.keeper, options) : await this.#reload(trigger, undefined, options)
  }

  async #askKeeper(kept: KeeperLink, { withoutState = false, allowDrop = false }: ReloadOptions): Promise<Report> {
    const error = await kept.wants({ withoutState, allowDrop })
    if (error) throw error
    if (!this.#lastReport) throw new HandoverError('HANDOVER_NOT_SERVING', `process ${this.#host.pid} has no part in the reload. Ask the process that serves.`)
    return this.#lastReport
  }

  // ---- the drain and the end ----

  #finish(served: ServingSuccessor | undefined): void {
    const ending = new Shutdown(this.#context, {
      older: this.#beginning,
      listeners: this.#signals,
      draining: (drain) => { this.#emit('draining', drain) },
      undone: (error, report) => {
        this.#ending = undefined
        this.#state.disconnect('successor', true)
        this.#state.serves()
        this.#tellKeeper()
        this.#context.keeper?.failed(error, report.successor?.pid ?? 0)
        this.#log('error', error.toString())
        this.#emit('failed', error)
        announce(this.#context, report)
        this.#answers.undone(error)
        if (this.#context.stopRequested) void this.stop()
      }
    }, served)
    this.#ending = ending
    if (served?.report.successor) this.#state.connect('successor', served.launched.channel, served.report.successor)
    if (!served && this.#servers.openConnections > 0) {
      this.#log('info', `generation ${this.generation} (process ${this.#host.pid}) drains ${this.#servers.openConnections} connection${this.#servers.openConnections === 1 ? '' : 's'}; signal again to end at once`)
    }
    this.#finished = ending.run().catch((error: unknown) => {
      this.#log('error', `the drain failed, and the process ends: ${textOf(error)}`)
      this.#host.exit(1)
    })
  }

  #publish(report: Report): void {
    this.#lastReport = report
    this.#context.keeper?.report(report)
    this.#answers.reported(report)
    this.#emit('report', report)
  }

  /** Every listener was closed by the program itself: nothing of ours stays, and the predecessor need not come back. */
  #rest(): void {
    this.#tellKeeper()
    if (this.#inventory.listeners.length > 0 || this.#machine.state.is !== 'serving' || this.#context.reloading) return
    this.#resting = true
    this.#beginning.settled()
    this.#signals.remove()
    this.#name.leave(true)
    this.#ownSocket.close()
  }

  /** It listens again. */
  #wake(): void {
    this.#resting = false
    this.#signals.install(this.#settings.get().reloadSignal)
    if (this.#support.cannotReload() === undefined) this.#name.take()
  }

  readonly #onExit = (): void => {
    this.#paths.release()
    // While the predecessor could still come back, the paths must stay.
    const mayComeBack = this.#beginning.predecessor !== undefined && !this.#context.stopRequested
    const { is } = this.#machine.state
    if (is === 'preparing' || is === 'ready' || (is === 'serving' && !mayComeBack)) this.#inventory.unlinkFiles()
  }

  // ---- signals ----

  readonly #onReload = (): void => {
    this.#reloadOrAsk('signal').catch((error: unknown) => { this.#log('error', String(error)) })
  }

  readonly #onStop = (signal: NodeJS.Signals): void => {
    const { is } = this.#machine.state
    if (this.#context.stopRequested || is === 'taking' || is === 'preparing' || is === 'ready' || is === 'idle') {
      this.#log('info', `generation ${this.generation} (process ${this.#host.pid}) ends at once on ${signal}`)
      this.#inventory.unlinkFiles()
      this.#host.exit(128 + constants.signals[signal])
      return
    }
    void this.stop()
  }

  readonly #signals: Signals
}

/** A log of the program's that throws must not stop a handover half way. */
function guarded(log: Host['log']): Host['log'] {
  return (level, line) => {
    try {
      log(level, line)
    } catch (error) {
      writeStderr(`handover: ${level}: ${line}\nhandover: warn: the option log threw: ${String(error)}\n`)
    }
  }
}
