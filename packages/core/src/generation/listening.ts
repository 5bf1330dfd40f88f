/**
 * What a generation answers to the listen hook: which listen() inherits, what follows when it has succeeded or failed, and when nothing
 * listens any more.
 *
 * The first listen() wakes the generation: it installs its signal handlers and looks for a process that serves already. When the program
 * has closed all its listeners, nothing of ours stays.
 */

import type dgram from 'node:dgram'
import net from 'node:net'
import type { HandoverError } from '../errors.js'
import type { ListenHook } from '../listeners/listen-hook.js'
import { isByDescriptor, isEphemeral, type AskedAddress } from '../listeners/listener-match.js'
import type { Listener } from '../listeners/listener-registry.js'
import { listensAnew, onceClosed } from '../listeners/listening-end.js'
import { mistypedVariables } from '../options.js'
import { native } from '../platform/native.js'
import { standGuard } from '../platform/path-guard.js'
import { notifySystemd } from '../platform/systemd-notify.js'
import type { OfferedSocket } from '../protocol/handover-messages.js'
import { accepts } from '../protocol/lifecycle.js'
import { listed } from '../protocol/report.js'
import { findPredecessor } from './find-predecessor.js'
import type { GenerationContext } from './generation-context.js'

type Owner = net.Server | dgram.Socket

/** How many failures of listen() the next version is told of: a program may try one port after the other. */
const mostFailures = 100

export class Listening implements ListenHook {
  readonly #context: GenerationContext
  #hasListened = false
  /** Why nothing was taken over from the process that serves: this process must not listen. */
  #refusal: HandoverError | undefined
  /** The program has closed every listener. */
  #isResting = false
  /** What has listened in this turn of the loop. */
  readonly #fresh = new Set<Listener | undefined>()

  constructor(context: GenerationContext) {
    this.#context = context
  }

  adopts(owner: Owner, asked?: AskedAddress): boolean {
    return this.#context.servers.adopts(owner, asked)
  }

  isQuiet(): boolean {
    return this.#context.startup.isQuiet
  }

  knowsHandles(): boolean {
    return this.#context.support.knowsHandles()
  }

  isBoundQuietly(address: string, port: number, asked?: AskedAddress): boolean {
    return this.#context.registry.isBoundQuietly(address, port, asked)
  }

  bindBeside(asked: AskedAddress): number | undefined {
    return this.#context.registry.bindBeside(asked)
  }

  before(owner: Owner, asked: AskedAddress | undefined): OfferedSocket | HandoverError | undefined {
    const { startup, registry } = this.#context
    listensAnew(owner)
    registry.forgetClosed()
    this.#enter()
    if (asked?.kind === 'unix') standGuard()
    if (this.#refusal) return this.#refusal
    startup.readiness.listens()
    return asked && registry.claim(asked)
  }

  #enter(): void {
    const { support, signals, settings, keeper, host, log } = this.#context
    if (this.#isResting) this.#wake()
    if (this.#hasListened) return
    this.#hasListened = true
    // A keeper has said it once for all of its workers.
    if (!keeper) for (const line of mistypedVariables(host.env)) log('warn', line)
    const cannot = support.cannotReload()
    signals.install(settings.reloadSignal)
    if (cannot !== undefined) {
      log('warn', `${cannot}. The server listens as usual, drains politely and cannot be reloaded.`)
      return
    }
    this.#refusal = findPredecessor(this.#context)
    // Logged now, and not in the first reload.
    support.prepare()
  }

  after(owner: Owner, asked: AskedAddress | undefined, claimed: OfferedSocket | undefined, backlog: number): void {
    const { host, startup, registry, lifecycle, state, servers } = this.#context
    startup.readiness.listened()
    if (lifecycle.state.is === 'preparing') startup.predecessor?.channel.ref()
    const listener = registry.add(owner, asked, claimed?.about, backlog)
    if (listener && !startup.isQuiet) {
      if (claimed) registry.acceptOn(listener)
      else registry.dropInTheWay(listener)
    }
    if (!host.signals.listeners('exit').includes(this.#onExit)) host.signals.once('exit', this.#onExit)
    if (lifecycle.state.is === 'idle') {
      lifecycle.move('idle', { is: 'serving' })
      state.began()
      state.serves()
      notifySystemd({ READY: 1, MAINPID: host.pid })
    }
    tellKeeper(this.#context)
    if (lifecycle.state.is === 'serving') beAskable(this.#context)
    servers.listens(owner)
    if (listener && this.#needsSpare(listener, claimed)) {
      this.#context.spares.keep(owner, claimed?.about ?? listener.about, claimed !== undefined)
    }
    onceClosed(owner, () => {
      servers.closed(owner)
      host.clock.setImmediate(() => { this.#rest() })
    })
    this.#settleSoon(listener)
  }

  /** Once for all that listen in this turn of the loop. Their 'listening' events, and what the program does in them, come before. */
  #settleSoon(listener: Listener | undefined): void {
    const { host, startup, registry } = this.#context
    if (this.#fresh.size === 0) {
      host.clock.setImmediate(() => {
        const fresh = new Set(this.#fresh)
        this.#fresh.clear()
        registry.noteFiles((each) => fresh.has(each))
        startup.readiness.settle()
      })
    }
    this.#fresh.add(listener)
  }

  /** Before this process serves, a program may only test whether the port is free, or close it and listen again. A keeper has copies. */
  #needsSpare({ about }: Listener, claimed: OfferedSocket | undefined): boolean {
    const { keeper, lifecycle } = this.#context
    const isKept = keeper !== undefined && !isByDescriptor(about) && !isEphemeral(about)
    return isKept || (claimed !== undefined && lifecycle.state.is === 'preparing')
  }

  failed(owner: Owner, asked: AskedAddress | undefined, claimed: OfferedSocket | undefined, error: Error | undefined): void {
    const { startup, registry, servers, host } = this.#context
    startup.readiness.listened()
    if (claimed) registry.giveBack(claimed)
    const isHarmless = !error || servers.mayFail(owner) || (servers.isStranger(owner) && this.#listensOn(asked?.port))
    if (!isHarmless && !this.#mayGoOnWithout(error)) startup.failed(error)
    else host.clock.setImmediate(() => { startup.readiness.settle() })
  }

  /**
   * Whether the program decides what follows from a listen() that failed, as it does without Handover: where no other process serves, or
   * where the same listen() had failed in the one that does.
   */
  #mayGoOnWithout(error: Error): boolean {
    const { startup, host, failures, registry, log } = this.#context
    const isFirst = failures.size === 0
    if (failures.size < mostFailures) failures.add(error.message)
    const { nobodyServes } = startup
    if (!nobodyServes && !startup.predecessor?.offer.lacks?.includes(error.message)) return false
    // Nothing of ours keeps a program alive that has nothing more to do.
    if (registry.listeners.length === 0) startup.predecessor?.channel.unref()
    if (isFirst && registry.listeners.length === 0) {
      // If the program ends for that reason, this is what the keeper says.
      host.signals.once('exit', () => { if (registry.listeners.length === 0) startup.failed(error) })
      host.clock.setImmediate(() => {
        if (nobodyServes && registry.listeners.length === 0) log('warn', `${error.message}. The program goes on; nobody serves until it listens.`)
      })
    }
    return true
  }

  /** Another server has this port: a framework may have a second one for `localhost`, and hides its error. */
  #listensOn(port: number | undefined): boolean {
    return port !== undefined && port > 0 &&
      this.#context.registry.listeners.some(({ about }) => about.kind === 'tcp' && about.port === port)
  }

  /** Where the program has closed every listener, nothing of ours stays, and the predecessor need not come back. */
  #rest(): void {
    const { registry, lifecycle, reloading, startup, signals, controlSockets } = this.#context
    tellKeeper(this.#context)
    if (registry.listeners.length > 0 || reloading) return
    // Before it serves the program may have nothing more to do: it only looked whether a port is free.
    if (lifecycle.state.is === 'preparing') startup.predecessor?.channel.unref()
    if (lifecycle.state.is !== 'serving') return
    this.#isResting = true
    startup.settled()
    signals.remove()
    controlSockets.leave(true)
    controlSockets.closeOwn()
  }

  #wake(): void {
    const { signals, settings, support, controlSockets } = this.#context
    this.#isResting = false
    signals.install(settings.reloadSignal)
    if (support.cannotReload() === undefined) controlSockets.take()
  }

  readonly #onExit = (): void => {
    const { paths, startup, stopRequested, lifecycle, registry } = this.#context
    paths.release()
    // The paths must stay for the predecessor.
    const mayComeBack = startup.predecessor !== undefined && !stopRequested
    const { is } = lifecycle.state
    if (is === 'preparing' || is === 'ready' || (is === 'serving' && !mayComeBack)) registry.unlinkFiles()
  }
}

/** Gives the keeper copies of what this process listens on, so that the listeners outlive the process. */
export function tellKeeper({ keeper, lifecycle, registry, log }: GenerationContext): void {
  if (!keeper || !accepts(lifecycle.state.is)) return
  const { listeners, fds } = registry.copies()
  try {
    keeper.serves(listeners, fds)
  } catch (error) {
    log('warn', `the keeper does not get copies of ${listed(listeners.map(({ name }) => name))}: ${(error as Error).message}`)
  }
}

/** Opens the control socket of this process. */
export function beAskable({ statusReader, controlSockets }: GenerationContext): void {
  statusReader.noteVersion()
  if (native) controlSockets.openOwn()
}
