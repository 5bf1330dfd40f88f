/**
 * What the parts of a generation share: the context of the handover, and the objects beside it.
 *
 * It decides nothing. What the outside sets off (a signal, a keeper, a call at a control socket) goes to the entries that the generation
 * gives it.
 */

import { channel as diagnosticsChannel } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import { ApplicationMoves } from '../connections/application-moves.js'
import { requestCounts } from '../connections/request-counts.js'
import { testTls } from '../connections/tls-cargo.js'
import type { Boot } from '../control/boot-watch.js'
import type { Caller, CallingKeeper } from '../control/control-connections.js'
import { ControlSockets } from '../control/control-sockets.js'
import { RequestHandler } from '../control/request-handler.js'
import { textOf } from '../errors.js'
import type { Host } from '../handover/host.js'
import type { LaunchedSuccessor } from '../handover/launch.js'
import type { ProcessContext } from '../handover/process-context.js'
import type { Shutdown } from '../handover/shutdown.js'
import { Startup, type StartupActions } from '../handover/startup.js'
import { CoveredListeners } from '../keeper-link/cover-listeners.js'
import type { KeeperLink, KeeperSeat } from '../keeper-link/keeper-link.js'
import { ListenerRegistry } from '../listeners/listener-registry.js'
import { ServedPaths } from '../listeners/served-paths.js'
import { movesKind, SettingsOfProcess, type HandoverOptions, type LogLevel, type Settings } from '../options.js'
import { switchedOff } from '../platform/availability.js'
import { debug } from '../platform/debug.js'
import { isTlsServer } from '../platform/on-demand.js'
import { writeStderr } from '../platform/stderr-relay.js'
import { Support } from '../platform/support.js'
import { watchTls } from '../platform/tls-records.js'
import type { Peer } from '../protocol/handover-messages.js'
import { accepts, isStarting, Lifecycle, type LifecycleState, type State } from '../protocol/lifecycle.js'
import type { Report } from '../protocol/report.js'
import { SharedState } from '../sharing/shared-state.js'
import { AdoptedServers } from './adopted-servers.js'
import type { HandoverEvents, ReloadOptions } from './handover-api.js'
import { StatusReader } from './process-status.js'
import { Signals } from './signals.js'
import { SpareListeners } from './spare-listeners.js'
import { StartTimes } from './start-times.js'
import { Watchdog } from './watchdog.js'

/** What the outside can set off in a generation. */
export interface Entries extends Omit<StartupActions, 'stop'> {
  /** A reload was asked for: this process makes it, or its keeper does. */
  reload(trigger: 'signal' | 'call', options?: ReloadOptions): Promise<Report>
  /** Another process, which this one has not started, asks to take over. */
  called(caller: Caller): undefined
  keeperCalled(keeper: CallingKeeper): void
  stop(): Promise<void>
  stopBySignal(signal: NodeJS.Signals): void
  /** Its keeper gets copies of what this process listens on now. */
  tellKeeper(): void
}

/** How far a successor is, by the state of its predecessor. */
const bootSteps: Readonly<Partial<Record<LifecycleState, Boot['step']>>> = { launching: 'boots', offering: 'prepares', committing: 'ready' }

export class GenerationContext implements ProcessContext {
  readonly host: Host
  readonly events = new EventEmitter<HandoverEvents>()
  readonly options: SettingsOfProcess
  /** The successor of the reload that runs. */
  launched: LaunchedSuccessor | undefined
  readonly closeHooks = new Set<() => unknown>()
  /** Of these: each closes an app, which says goodbye on its WebSockets then. */
  readonly appHooks = new WeakSet<() => unknown>()
  readonly support: Support
  readonly lifecycle = new Lifecycle((from, to) => { this.#moved(from, to) })
  readonly registry = new ListenerRegistry()
  /** Why a listen() failed. Where this process serves all the same, the next version may lack the same. */
  readonly failures = new Set<string>()
  readonly startTimes = new StartTimes()
  readonly spares = new SpareListeners(this.registry, this.lifecycle)
  readonly covered = new CoveredListeners(this.registry, (line) => { this.log('warn', line) })
  readonly paths: ServedPaths
  readonly servers: AdoptedServers
  readonly applicationMoves = new ApplicationMoves()
  readonly state: SharedState
  readonly controlSockets: ControlSockets
  readonly requests: RequestHandler
  readonly statusReader: StatusReader
  readonly signals: Signals
  readonly watchdog: Watchdog
  readonly startup: Startup

  keeper: KeeperLink | undefined
  /** The keeper that is gone, until another one comes. */
  lostKeeper: Omit<KeeperSeat, 'line'> | undefined
  lastReport: Report | undefined
  reloading = false
  /** The last reload, and what gives it up while it still can be. */
  running: { report?: Promise<Report>; readonly giveUp: AbortController } | undefined
  stopRequested = false
  /** While this process drains and ends. */
  shutdown: Shutdown | undefined
  /** Resolves when it has ended, or serves again. */
  finished: Promise<void> | undefined
  /** True while listeners of a 'state' event run. */
  isTelling = false
  #log: Host['log']

  constructor(host: Host, entries: Entries) {
    this.host = host
    this.#log = (level, line) => { host.log(level, line) }
    this.options = new SettingsOfProcess(host.env)
    // Before the program makes its first SecureContext.
    if (movesKind(this.settings.move, 'tls')) watchTls()
    this.support = new Support(host.unavailable, (of) => movesKind(this.settings.move, of), this.#warn)
    this.servers = new AdoptedServers(host.unavailable, this.#warn)
    this.statusReader = new StatusReader(host)
    this.state = new SharedState({
      author: () => ({ version: this.statusReader.version, generation: this.self.generation }),
      kept: () => this.keeper,
      requests: () => requestCounts.total,
      isOff: host.unavailable === switchedOff,
      warn: this.#warn
    })
    this.requests = this.#requestHandler(entries)
    this.controlSockets = this.#makeControlSockets(entries)
    this.signals = new Signals(host, {
      warnsOfOthers: () => !this.servers.everything,
      isKept: () => this.keeper !== undefined,
      reload: () => { entries.reload('signal').catch((error: unknown) => { this.log('error', String(error)) }) },
      stop: (signal) => { entries.stopBySignal(signal) },
      log: this.log
    })
    this.watchdog = new Watchdog(host, () => this.settings.watchdog)
    this.paths = new ServedPaths(host.env, host.inherited.contact !== undefined, {
      inventory: this.registry,
      place: () => this.#placeOfPaths,
      rebound: () => { entries.tellKeeper() },
      warn: this.#warn
    })
    this.startup = new Startup(this, { ...entries, stop: () => { void entries.stop() } })
  }

  #requestHandler(entries: Entries): RequestHandler {
    return new RequestHandler({
      name: () => this.appName,
      undoWindowMs: () => this.settings.undoWindow,
      status: () => this.statusReader.status(this),
      serving: () => this.serving,
      booting: () => this.#booting(),
      reload: (options) => entries.reload('call', options),
      stop: () => entries.stop(),
      lostKeeper: () => this.lostKeeper !== undefined
    })
  }

  #booting(): Boot[] {
    const { state } = this.lifecycle
    const step = bootSteps[state.is]
    if (!this.launched || !step) return []
    return [{ pid: this.launched.pid, step, stderr: this.launched.child?.stderr() ?? '' }]
  }

  #makeControlSockets(entries: Entries): ControlSockets {
    return new ControlSockets({
      host: this.host,
      name: () => (this.keeper ? undefined : this.settings.name),
      hasName: () => this.settings.name !== undefined,
      isKept: () => this.keeper !== undefined || this.lostKeeper !== undefined,
      // The end of PID 1 is that of its container.
      outlivesKeeper: () => ((this.keeper ?? this.lostKeeper)?.keeper ?? 1) !== 1,
      keeperCalled: (keeper) => { entries.keeperCalled(keeper) },
      named: {
        called: (caller) => entries.called(caller),
        asked: (request, client) => { this.requests.answer(request, client) },
        warn: this.#warn,
        note: this.#note,
        // Before and after, a predecessor or a successor may have the same socket.
        mayHeal: () => this.lifecycle.state.is === 'serving'
      }
    })
  }

  // ---- what it is now ----

  get self(): Peer {
    return { pid: this.host.pid, generation: this.startup.generation }
  }

  get settings(): Settings {
    return this.options.get()
  }

  get connections(): AdoptedServers['connections'] {
    return this.servers.connections
  }

  /** As its keeper calls it, else as the program or the environment does. */
  get appName(): string | undefined {
    return (this.keeper ?? this.lostKeeper)?.name ?? this.settings.name
  }

  /** Which processes serve, as far as this one knows. */
  get serving(): Peer[] {
    const { state } = this.lifecycle
    if (state.is === 'draining') return state.successor ? [state.successor] : []
    if ('predecessor' in state) return [state.predecessor]
    return accepts(state.is) ? [this.self] : []
  }

  /** Which other process depends on the Unix paths of this one. */
  get #placeOfPaths(): 'waits' | 'kept' | 'neighbour' | 'alone' {
    const { is } = this.lifecycle.state
    const waits = is === 'idle' ? this.host.inherited.contact !== undefined : isStarting(is) || this.startup.predecessorServesOn
    if (waits) return 'waits'
    if (this.registry.filesAreKept) return 'kept'
    return this.startup.predecessor !== undefined && !this.stopRequested ? 'neighbour' : 'alone'
  }

  // ---- what it tells ----

  readonly log = (level: LogLevel, line: string): void => { this.#log(level, line) }
  readonly #warn = (line: string): void => { this.#log('warn', line) }
  readonly #note = (line: string): void => { this.#log('info', line) }

  readonly publish = (report: Report): void => {
    this.lastReport = report
    this.keeper?.report(report)
    this.requests.reported(report)
    this.emit('report', report)
  }

  emit<E extends keyof HandoverEvents>(event: E, ...[detail]: HandoverEvents[E]): void {
    // What a listener of the application throws, or rejects with, must neither break a handover nor keep others from hearing of it.
    for (const listener of this.events.rawListeners(event)) {
      const failed = (how: string) => (error: unknown): void => { this.log('error', `a listener of "${event}" ${how}: ${textOf(error)}`) }
      try {
        const answer: unknown = Reflect.apply(listener, this.events, [detail])
        if (answer instanceof Promise) answer.catch(failed('rejected'))
      } catch (error) {
        failed('threw')(error)
      }
    }
    diagnosticsChannel(`handover:${event}`).publish(detail)
  }

  #moved(from: LifecycleState, to: State): void {
    debug(() => `lifecycle: ${from} to ${to.is}`)
    this.startTimes.moved(to.is)
    if (to.is === 'launching' || to.is === 'offering') this.#prepareTlsMoves()
    this.watchdog.moved(to)
    this.isTelling = true
    this.keeper?.state(to.is, this.self.generation)
    this.emit('state', { from, to: to.is, generation: this.self.generation })
    this.isTelling = false
  }

  /** So that the first connection under TLS does not wait for it. */
  #prepareTlsMoves(): void {
    if (this.support.canMoveTls() && this.registry.listeners.some(({ owner }) => isTlsServer(owner))) void testTls()
  }

  // ---- options ----

  /** Merges options; throws HANDOVER_OPTION. */
  configure(options: HandoverOptions): void {
    this.options.add(options)
    if (options.onClose) this.closeHooks.add(options.onClose)
    if (options.log) this.#log = guarded(options.log)
  }
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
