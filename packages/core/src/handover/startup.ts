/**
 * How a generation begins: it takes the offer of its predecessor, the program boots and claims, its state is restored, and the process is
 * ready.
 *
 * Nothing is accepted here: `serve()` does that, which is the commit (generation/commit.ts).
 */

import { ConnectionReceiver, type Arrivals } from '../connections/connection-receiver.js'
import type { HandoverError } from '../errors.js'
import { spoken } from '../keeper-link/cover-listeners.js'
import { Readiness } from '../listeners/readiness.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import type { MessageOf, Takes } from '../protocol/handover-messages.js'
import { isStarting } from '../protocol/lifecycle.js'
import type { Report } from '../protocol/report.js'
import { whoServes } from './announcements.js'
import type { ProcessContext } from './process-context.js'
import { succeed, takeOffer, type TakenOffer } from './successor.js'

/** How long a listen() may wait for the offer of a process that is alive. */
const offerMs = 10_000

/** What a start sets off in the process that it runs in. */
export interface StartupActions {
  /** The commit: this process accepts from here on. Answers what it can take of the predecessor's connections. */
  serve(): Takes | undefined
  /** The connections of the predecessor. */
  readonly arrivals: Arrivals
  /** Copies of listeners that the boot may have needed are of no use any more. */
  closeSpares(): void
  /** The requests that the option `warmUp` asks for, while another process serves. */
  warmUp(): Promise<void>
  stop(): void
}

export class Startup {
  readonly #context: ProcessContext
  readonly #actions: StartupActions
  readonly readiness: Readiness
  #predecessor: { readonly taken: TakenOffer; readonly adopter: ConnectionReceiver; gone: boolean } | undefined
  #predecessorIsGone: () => void = () => undefined
  readonly #predecessorGone = new Promise<void>((resolve) => { this.#predecessorIsGone = resolve })
  #prepared: (ready: MessageOf<'ready'>) => void = () => undefined
  /** No other process serves, and what was offered of the state is restored: a listen() accepts at once. */
  #acceptsAtOnce = false
  /** Booted; the state is being restored, or the keeper has not answered yet whether this process may serve. */
  #isFinishing = false
  /** Told the predecessor that the state cannot be restored. */
  #lacksState = false
  /** This process was stopped before it served. */
  #left = false
  /** This process was stopped before it served, and its predecessor serves on. */
  predecessorServesOn = false

  constructor(context: ProcessContext, actions: StartupActions) {
    this.#context = context
    this.#actions = actions
    this.readiness = new Readiness(context, () => { this.#booted() })
  }

  get generation(): number {
    return (this.#predecessor?.taken.predecessor.generation ?? 0) + 1
  }

  /** Undefined once it is gone. While it drains, it may still take over again. */
  get predecessor(): TakenOffer | undefined {
    return this.#predecessor && !this.#predecessor.gone ? this.#predecessor.taken : undefined
  }

  /** There is no predecessor, or the offer is the keeper's own, or what systemd held. */
  get nobodyServes(): boolean {
    const { host, keeper } = this.#context
    return !this.predecessor || [keeper?.keeper, host.pid].includes(this.predecessor.predecessor.pid)
  }

  /** A listen() of now must not accept: another process serves, or the state of a crashed one is not restored yet. */
  get isQuiet(): boolean {
    const { is } = this.#context.lifecycle.state
    return (is === 'preparing' || is === 'ready' || this.predecessorServesOn) && !this.#acceptsAtOnce
  }

  /** Undefined where no older generation lives; resolves when it has ended. */
  get olderEnds(): Promise<void> | undefined {
    return this.predecessor && this.#predecessorGone
  }

  /** Takes the connections of the predecessor; undefined where there never was one. */
  get adopter(): ConnectionReceiver | undefined {
    return this.#predecessor?.adopter
  }

  /** Tells the predecessor that it need not come back. */
  settled(): void {
    this.predecessor?.channel.send({ type: 'settled' })
  }

  /**
   * This process ends before it has served. Its predecessor sees the process end; one that may wait for `serving` by now learns it at once,
   * from the closed channel.
   */
  leave(): void {
    this.#left = true
    this.predecessorServesOn = !this.nobodyServes
    this.readiness.end()
    if (this.#context.lifecycle.state.is === 'ready') this.predecessor?.channel.close()
    else this.predecessor?.channel.unref()
    this.#isGone()
  }

  // ---- the first listen() ----

  /** Takes the offer of the predecessor. Blocks this thread. False where it died before it offered anything. Throws a HandoverError. */
  take(contact: BlockingChannel): boolean {
    const { lifecycle, registry, state, host, support, keeper, settings: { readyTimeout } } = this.#context
    lifecycle.move('idle', { is: 'taking' })
    contact.meanwhile = () => { support.prepare() }
    const taken = takeOffer(contact, registry, Math.min(offerMs, readyTimeout), host.pid)
    if (!taken) {
      lifecycle.move('taking', { is: 'idle' })
      host.inherited.stderr?.passOn()
      return false
    }
    const { predecessor, channel, offer: { sections = [], since, readyMs = Infinity, mayDrop = false, alone = false } } = taken
    const adopter = new ConnectionReceiver(channel, this.#actions.arrivals)
    this.#predecessor = { taken, adopter, gone: false }
    lifecycle.move('taking', { is: 'preparing', predecessor })
    state.expect(sections, since, channel)
    if (this.nobodyServes) state.restoring.nobodyElseServes()
    this.readiness.begin(Math.min(readyTimeout, readyMs), mayDrop, keeper !== undefined && keeper.keeper !== predecessor.pid)
    if (alone) void this.#acceptSoon()
    void succeed(channel, {
      hasLeft: () => this.#left,
      prepared: new Promise((resolve) => { this.#prepared = resolve }),
      serve: () => this.#actions.serve(),
      take: (connections, fds) => adopter.take(connections, fds),
      allTaken: async () => { await state.restoring.idle() },
      section: (message, fd) => { state.restoring.arrived(message, fd) },
      unsaved: (message) => { state.restoring.unsaved(message) },
      peer: (message, fd) => { state.peers.heard('predecessor', message, fd) },
      withdrawn: (error) => { this.#withdrawn(error) },
      predecessorEnded: (report, orderly) => { this.#predecessorEnded(report, orderly) }
    })
    return true
  }

  /** Accepts before it is ready, as at a first start: a program may connect to itself while it boots, and no other process would answer. */
  async #acceptSoon(): Promise<void> {
    const { registry, state, lifecycle } = this.#context
    if (!state.restoring.isEmpty) await state.restoring.allRestored()
    if (!isStarting(lifecycle.state.is)) return
    this.#acceptsAtOnce = true
    for (const listener of registry.listeners) registry.acceptOn(listener)
  }

  // ---- the boot ----

  /** A listen() failed that the program cannot do without. */
  failed(error: Error): void {
    if (this.#context.lifecycle.state.is === 'preparing') this.#refuse(error.message, (error as NodeJS.ErrnoException).code)
  }

  #booted(): void {
    const { lifecycle, keeper, state, settings: { warmUp } } = this.#context
    if (lifecycle.state.is !== 'preparing' || this.#isFinishing) return
    if (keeper || warmUp !== '' || !state.restoring.isEmpty) void this.#finish()
    else this.#sayReady()
  }

  async #finish(): Promise<void> {
    const { registry, state } = this.#context
    this.#isFinishing = true
    const lacks = await state.restoring.finish()
    if (lacks === undefined) await this.#actions.warmUp()
    if (this.#left) return
    if (lacks !== undefined) {
      this.#lacksState = true
      this.#refuse(lacks, 'HANDOVER_STATE')
      return
    }
    const claims = { ...this.#claims, dropped: registry.unclaimed.map(({ name }) => name) }
    const veto = await this.#context.keeper?.booted(claims, spoken(registry))
    if (veto === undefined) this.#sayReady()
    else this.#refuse(veto)
  }

  #refuse(reason: string, code?: string): void {
    this.#predecessor?.taken.channel.send({ type: 'failed', reason, ...(code && { code }) })
  }

  get #claims(): { kept: string[]; added: string[] } {
    const { listeners } = this.#context.registry
    const names = (wanted: boolean): string[] => listeners.filter(({ kept }) => kept === wanted).map(({ about }) => about.name)
    return { kept: names(true), added: names(false) }
  }

  #sayReady(): void {
    const { lifecycle, registry, controlSockets, state, keeper } = this.#context
    if (lifecycle.state.is !== 'preparing') return
    if (!keeper) this.#actions.closeSpares()
    controlSockets.inherit((isMeant) => registry.takeControl(isMeant))
    const claims = this.#claims
    const dropped = registry.dropUnclaimed()
    lifecycle.move('preparing', { is: 'ready', predecessor: lifecycle.state.predecessor })
    this.#prepared({ type: 'ready', ...claims, dropped, ...(state.restored && { state: state.restored }) })
  }

  // ---- the predecessor's end ----

  #withdrawn(error: HandoverError): void {
    const { lifecycle, registry, controlSockets, host, log } = this.#context
    // Logged even where this process gave the reason itself: otherwise perhaps only the caller of the reload would learn it.
    log('error', error.toString())
    const { is } = lifecycle.state
    if ((is === 'preparing' || is === 'ready') && !this.#acceptsAtOnce) {
      lifecycle.move(is, { is: 'ended' })
      registry.unlinkFiles()
      host.exit(1)
      return
    }
    // This process accepted already, and another one serves or will. This one leaves, politely, and waits for nobody.
    registry.ownsFiles = false
    controlSockets.leave(false)
    this.#isGone()
    this.#actions.stop()
  }

  #predecessorEnded(report: Report | undefined, orderly: boolean): void {
    const { state, host, keeper, log } = this.#context
    this.#isGone()
    state.disconnect('predecessor', !orderly)
    state.restoring.predecessorGone()
    if (!keeper) host.inherited.stderr?.passOn()
    if (this.#lacksState) {
      this.#lacksState = false
      log('warn', 'the predecessor ended before it heard that the state cannot be restored: this process serves without it.')
      void this.#finish()
    }
    // The predecessor has logged it, mostly to the same place.
    if (report) this.#context.publish(report)
    else if (!orderly) log('warn', `the predecessor ended without a report. ${whoServes(this.#context)}.`)
  }

  #isGone(): void {
    const { paths, reloading } = this.#context
    if (this.#predecessor) this.#predecessor.gone = true
    this.#predecessorIsGone()
    paths.mend()
    if (!reloading) paths.release()
  }
}
