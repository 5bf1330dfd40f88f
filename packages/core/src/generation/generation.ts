/**
 * This process as one generation: the object behind the functions of the package.
 *
 * It does nothing until an adopted server listens: no signal handler, no file, no socket, no timer. What happens then is in the files
 * beside this one: listening.ts, commit.ts, reload.ts, under-keeper.ts and stop.ts.
 */

import type dgram from 'node:dgram'
import net from 'node:net'
import type { MoveOptions, OnMoved } from '../connections/application-moves.js'
import type { CanMove } from '../connections/connection.js'
import type { Host } from '../handover/host.js'
import { hookBind, installBindHook } from '../listeners/bind-hook.js'
import { installListenHook } from '../listeners/listen-hook.js'
import { checkReloadOptions, type HandoverOptions, type LogLevel } from '../options.js'
import { switchedOff } from '../platform/availability.js'
import { inspectorUrl } from '../platform/inspector-port.js'
import type { LifecycleState } from '../protocol/lifecycle.js'
import type { Report } from '../protocol/report.js'
import type { Aggregate, AggregateOptions } from '../sharing/aggregates/aggregate.js'
import type { PeerChannel, Restored, Section, Service } from '../sharing/sharing-api.js'
import { movedConnections, serve } from './commit.js'
import { GenerationContext } from './generation-context.js'
import type { Handover, ReloadOptions } from './handover-api.js'
import { Listening, tellKeeper } from './listening.js'
import { reload } from './reload.js'
import { stop, stopBySignal } from './stop.js'
import { keeperCalled, keptBy, reloadOrAsk } from './under-keeper.js'
import { warmUp } from './warm-up.js'

export class Generation implements Handover {
  readonly #context: GenerationContext
  readonly #listening: Listening
  #listensThroughHook = false

  constructor(host: Host) {
    const { inherited } = host
    const context: GenerationContext = new GenerationContext(host, {
      serve: () => serve(context),
      arrivals: movedConnections(() => context),
      warmUp: () => warmUp(context),
      closeSpares: () => { context.spares.close() },
      reload: (trigger, options) => reloadOrAsk(context, trigger, options),
      called: (caller) => {
        reload(context, { trigger: 'rendezvous', caller }).catch((error: unknown) => { context.log('error', String(error)) })
      },
      keeperCalled: (keeper) => { keeperCalled(context, keeper) },
      tellKeeper: () => { tellKeeper(context) },
      stop: () => stop(context),
      stopBySignal: (signal) => { stopBySignal(context, signal) }
    })
    this.#context = context
    this.#listening = new Listening(context)
    if (inherited.inspectorWanted !== undefined) {
      context.log('info', `the inspector of process ${host.pid} is ${inspectorUrl() ?? 'not open'}: ${inherited.inspectorWanted} belongs to another process`)
    }
    const seat = host.takeSeat()
    if (seat) keptBy(context, seat)
    // A successor will listen; a reload signal that comes before must not kill it.
    if (inherited.contact) context.signals.ignoreReload(context.settings.reloadSignal)
  }

  get events(): GenerationContext['events'] {
    return this.#context.events
  }

  get generation(): number {
    return this.#context.self.generation
  }

  get state(): LifecycleState {
    return this.#context.lifecycle.state.is
  }

  get lastReport(): Report | undefined {
    return this.#context.lastReport
  }

  /** Merges options; throws HANDOVER_OPTION. */
  configure(options: HandoverOptions): void {
    this.#context.configure(options)
  }

  replaceCloseHook(hook: () => unknown, left: (() => unknown) | undefined): void {
    const { closeHooks } = this.#context
    closeHooks.delete(hook)
    if (left) closeHooks.add(left)
  }

  closesApp(hook: () => unknown): void {
    this.#context.appHooks.add(hook)
  }

  /** A line where those of this process go. */
  log(level: LogLevel, line: string): void {
    this.#context.log(level, line)
  }

  // ---- which servers are handed over ----

  /** Throws HANDOVER_OPTION. */
  adopt(owner: net.Server | dgram.Socket, canMove?: CanMove): void {
    if (!this.#context.servers.adopt(owner, canMove)) return
    this.#installHook()
    if (!(owner instanceof net.Server)) hookBind(this.#listening, owner)
  }

  /** Adopts every HTTP server that listens from now on; an app answers with this function. */
  adoptRequestListener(listener: (...args: never[]) => unknown, mayFail: boolean, canMove?: CanMove): void {
    if (this.#context.servers.adoptRequestListener(listener, mayFail, canMove)) this.#installHook()
  }

  /** Adopts every server that listens from now on, and every UDP socket that is made from now on and bound to a port of its own. */
  adoptEverything(): void {
    if (!this.#context.servers.adoptEverything()) return
    this.#context.signals.hold()
    this.#installHook()
    installBindHook(this.#listening)
  }

  #installHook(): void {
    if (this.#listensThroughHook) return
    this.#listensThroughHook = true
    installListenHook(this.#listening)
  }

  // ---- reload and stop ----

  ready(): void {
    this.#context.startup.readiness.ready()
  }

  async reload(options: ReloadOptions = {}): Promise<Report> {
    checkReloadOptions(options)
    return await reloadOrAsk(this.#context, 'call', options)
  }

  async stop(): Promise<void> {
    await stop(this.#context)
  }

  // ---- state ----

  share<S, T = Restored<S>>(name: string, section: Section<S, T>): void {
    this.#context.state.share(name, section as Section)
  }

  aggregate<T>(name: string, options: AggregateOptions<T>): Aggregate<T> {
    return this.#context.state.aggregate(name, options)
  }

  get peer(): PeerChannel {
    return this.#context.state.peers
  }

  get service(): Service {
    return this.#context.state.service(this.generation)
  }

  // ---- connections ----

  get movesTls(): boolean {
    return this.#context.support.canMoveTls()
  }

  async move(socket: net.Socket, options: MoveOptions): Promise<boolean> {
    const { servers, registry, applicationMoves, shutdown } = this.#context
    const { server, connections } = servers.serverOf(socket) ?? {}
    return await applicationMoves.move(socket, options, shutdown?.mover, connections, (server && registry.of(server)?.about.name) ?? '')
  }

  onMoved(kind: string, take: OnMoved): void {
    const { applicationMoves, startup, lifecycle, log, host } = this.#context
    if (host.unavailable === switchedOff) applicationMoves.forget(kind)
    applicationMoves.onMoved(kind, take)
    if (startup.adopter && lifecycle.state.is === 'serving') {
      log('warn', `onMoved("${kind}") was called when this process served already: its predecessor kept the connections of this kind. Call it before listen().`)
    }
  }

  forgetMoved(kind: string): void {
    this.#context.applicationMoves.forget(kind)
  }

  /** Says more of why a connection stays than the drain can know. */
  noteStay(socket: net.Socket, reason: string): void {
    for (const connections of this.#context.connections.values()) connections.noteStay(socket, reason)
  }
}
