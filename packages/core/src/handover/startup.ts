/**
 * How a generation begins: whoever serves already is found and its offer taken, the program boots and claims, its state is restored, and
 * the process is ready.
 *
 * Nothing is accepted here: the commit is the generation's, which `serve()` calls back.
 */

import { ConnectionReceiver } from '../connections/connection-receiver.js'
import { HandoverError, withoutStop } from '../errors.js'
import { spoken } from '../keeper-link/cover-listeners.js'
import type { BlockingChannel } from '../protocol/blocking-channel.js'
import type { Timer } from '../platform/clock.js'
import { deadlineIn, left, type Deadline } from '../protocol/deadline.js'
import type { MessageOf, MovedConnection, Takes } from '../protocol/handover-messages.js'
import { listed, type Report } from '../protocol/report.js'
import { offerStored } from '../sharing/sections/systemd-offer.js'
import { storedCheckpoints } from '../sharing/sections/systemd-store.js'
import { keepsServing } from './announcements.js'
import type { ProcessContext } from './process-context.js'
import { succeed, takeOffer, type TakenOffer } from './successor.js'

/** How long a listen() may wait for the offer of a process that is alive. */
const offerMs = 10_000
/** A process that hangs up before its offer has died, and the next look finds nobody; or it has no descriptor for us. */
const mostTries = 10
const betweenTriesMs = 50
/** Where listeners are meant to be dropped, or may come and go: how long after the program's last listen() it counts as ready. */
const settleMs = (readyTimeoutMs: number): number => Math.min(10_000, readyTimeoutMs / 4)
/** What is left of readyTimeout when the program counts as ready although it does not listen on all that was offered. */
const lastCallMs = (readyTimeoutMs: number): number => Math.min(5_000, readyTimeoutMs / 4)
/** How long after the program's last listen() it is said which listeners are waited for. */
const silentMs = (readyTimeoutMs: number): number => Math.min(5_000, readyTimeoutMs / 8)

/** What a start sets off in the process that it runs in. */
export interface StartupActions {
  /** The commit: this process accepts from here on. Answers what it can take of the predecessor's connections. */
  serve(): Takes | undefined
  /** A connection of the predecessor. */
  adopt(fd: number, about: MovedConnection, refusable: boolean): boolean
  /** Copies of listeners that the boot may have needed are of no use any more. */
  closeSpares(): void
  stop(): void
}

export class Startup {
  readonly #context: ProcessContext
  readonly #actions: StartupActions
  #refusal: HandoverError | undefined
  #predecessor: { readonly taken: TakenOffer; readonly adopter: ConnectionReceiver; gone: boolean } | undefined
  #predecessorIsGone: () => void = () => undefined
  readonly #predecessorGone = new Promise<void>((resolve) => { this.#predecessorIsGone = resolve })
  #storeWasAsked = false
  #prepared: ((ready: MessageOf<'ready'>) => void) | undefined
  #saidReady = false
  /** Calls of listen() that have not come to their end. */
  #listening = 0
  #settling: Timer | undefined
  #saying: Timer | undefined
  /** When what was offered and is not claimed counts as dropped. */
  #lastCall: Deadline | undefined
  #readyMs = Infinity
  /** Nobody else serves, and what was offered of the state is restored: a listen() accepts at once. */
  #acceptsAtOnce = false
  #saidAwaited = false
  /** Booted; the state is being restored, or the keeper has not said yet whether this process may serve. */
  #isFinishing = false
  /** Told the predecessor that the state cannot be restored. */
  #lacksState = false

  constructor(context: ProcessContext, actions: StartupActions) {
    this.#context = context
    this.#actions = actions
  }

  /** Why nothing was taken over, although somebody serves: this process must not listen. */
  get refusal(): HandoverError | undefined {
    return this.#refusal
  }

  /** Of this process. */
  get generation(): number {
    return (this.#predecessor?.taken.predecessor.generation ?? 0) + 1
  }

  /** Somebody handed over to this process. */
  get isSuccessor(): boolean {
    return this.#predecessor !== undefined
  }

  /** While it lives: it drains, and could still come back. */
  get predecessor(): TakenOffer | undefined {
    return this.#predecessor && !this.#predecessor.gone ? this.#predecessor.taken : undefined
  }

  /** A listen() of now must not accept: somebody else serves, or the state of one that crashed is not restored yet. */
  get isQuiet(): boolean {
    const { is } = this.#context.lifecycle.state
    return (is === 'preparing' || is === 'ready') && !this.#acceptsAtOnce
  }

  /** Undefined where no older generation lives; resolves when it has ended. */
  get olderEnds(): Promise<void> | undefined {
    return this.predecessor && this.#predecessorGone
  }

  /** Takes the connections of the predecessor. */
  get adopter(): ConnectionReceiver | undefined {
    return this.#predecessor?.adopter
  }

  /** Tells the predecessor that it need not come back. */
  settled(): void {
    this.predecessor?.channel.send({ type: 'settled' })
  }

  // ---- the first listen() ----

  /** Looks for whoever serves already. Blocks this thread until that has made its offer. */
  find(): void {
    const { host: { inherited }, controlSockets } = this.#context
    try {
      let contact = inherited.contact ?? controlSockets.find() ?? this.#storedBySystemd()
      for (let tries = 1; contact && !this.#take(contact); tries++) {
        if (tries === mostTries) throw new HandoverError('HANDOVER_PREDECESSOR_SILENT', `whoever holds the control socket hung up ${tries} times. It may serve; this process listens to nothing. See what process that is, and whether it is out of descriptors.`)
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, betweenTriesMs)
        contact = controlSockets.find()
      }
    } catch (error) {
      this.#refusal = error instanceof HandoverError ? error : new HandoverError('HANDOVER_CONTROL_SOCKET', `${withoutStop((error as Error).message)}. This process listens to nothing.`, { cause: error })
      this.#context.log('error', this.#refusal.toString())
    }
  }

  /** Checkpoints of a process that crashed, whose descriptors can be taken once. A keeper has its own. */
  #storedBySystemd(): BlockingChannel | undefined {
    const stored = this.#context.keeper || this.#storeWasAsked ? [] : storedCheckpoints(this.#context.host.env)
    this.#storeWasAsked = true
    return stored.length > 0 ? offerStored(stored, (line) => { this.#context.log('warn', line) }) : undefined
  }

  /** False where the predecessor died before it offered anything. */
  #take(contact: BlockingChannel): boolean {
    const { lifecycle, registry, state, host } = this.#context
    lifecycle.move('idle', { is: 'taking' })
    const taken = takeOffer(contact, registry, Math.min(offerMs, this.#context.settings.readyTimeout), host.pid)
    if (!taken) {
      lifecycle.move('taking', { is: 'idle' })
      host.inherited.stderr?.passOn()
      return false
    }
    const { channel } = taken
    const adopter = new ConnectionReceiver(channel, { receive: (fd, about, refusable) => this.#actions.adopt(fd, about, refusable) })
    this.#predecessor = { taken, adopter, gone: false }
    lifecycle.move('taking', { is: 'preparing', predecessor: taken.predecessor })
    state.expect(taken.sections, taken.since, channel)
    // Nobody serves where the keeper itself makes the offer, or nobody.
    if ([this.#context.keeper?.keeper, host.pid].includes(taken.predecessor.pid)) state.restoring?.nobodyElseServes()
    this.#readyMs = Math.min(this.#context.settings.readyTimeout, taken.readyMs ?? Infinity)
    this.#lastCall = deadlineIn(this.#readyMs - lastCallMs(this.#readyMs), host.clock)
    if (taken.alone) void this.#acceptSoon()
    void succeed(taken, {
      prepared: new Promise((resolve) => { this.#prepared = resolve }),
      serve: () => this.#actions.serve(),
      take: (connections, fds, refusable) => adopter.take(connections, fds, refusable),
      allTaken: async () => { await state.restoring?.idle() },
      section: (message, fd) => { state.arrived(message, fd) },
      unsaved: (message) => { state.unsaved(message) },
      peer: (message, fd) => { state.peers.heard('predecessor', message, fd) },
      withdrawn: (error) => { this.#withdrawn(error) },
      predecessorEnded: (report, orderly) => { this.#predecessorEnded(report, orderly) }
    })
    return true
  }

  /** As at a first start, where nobody else would answer what the program asks of itself. */
  async #acceptSoon(): Promise<void> {
    const { registry } = this.#context
    if (this.#context.state.hasToRestore) await this.#context.state.restoring?.allRestored()
    if (!['taking', 'preparing', 'ready'].includes(this.#context.lifecycle.state.is)) return
    this.#acceptsAtOnce = true
    for (const listener of registry.listeners) registry.acceptOn(listener)
  }

  // ---- the boot ----

  /** A listen() has begun. */
  listens(): void {
    this.#listening++
    this.#context.host.clock.clear(this.#settling)
    this.#context.host.clock.clear(this.#saying)
  }

  /** It has come to its end. */
  listened(): void {
    this.#listening--
  }

  /** A listen() failed that the program cannot do without. */
  failed(error: Error): void {
    if (this.#context.lifecycle.state.is === 'preparing') this.#refuse(error.message)
  }

  /** The program says that it is ready, whatever it listens on. */
  ready(): void {
    this.#saidReady = true
    this.settle()
  }

  /** Ready, once the program listens on everything that was offered. */
  settle(): void {
    const { lifecycle, registry } = this.#context
    if (lifecycle.state.is !== 'preparing' || this.#listening > 0 || registry.listeners.length === 0) return
    const { readyWhen } = this.#context.settings
    this.#context.host.clock.clear(this.#settling)
    this.#context.host.clock.clear(this.#saying)
    if (this.#saidReady || (readyWhen === 'listening' && registry.unclaimed.every((name) => name === 'control'))) this.#booted()
    else if (readyWhen === 'listening') this.#awaitMore()
  }

  /** The new version may have dropped a listener, which nobody can tell from one that is still to come. */
  #awaitMore(): void {
    const awaited = this.#context.registry.awaited.map(({ name }) => name)
    if (awaited.length === 0 || this.#predecessor?.taken.mayDrop) {
      this.#settling = this.#context.host.clock.setTimeout(() => { this.#booted() }, Math.min(settleMs(this.#readyMs), left(this.#lastCall!)))
      return
    }
    this.#settling = this.#context.host.clock.setTimeout(() => { this.#booted() }, left(this.#lastCall!))
    this.#saying = this.#context.host.clock.setTimeout(() => { this.#sayAwaited(awaited) }, silentMs(this.#readyMs))
  }

  #sayAwaited(awaited: readonly string[]): void {
    if (this.#saidAwaited) return
    this.#saidAwaited = true
    const { kept, log } = { kept: this.#context.keeper, log: (line: string): void => { this.#context.log('info', line) } }
    const otherwise = `in ${Math.ceil(left(this.#lastCall!) / 1_000)} s ${kept ? 'the reload fails' : 'it counts as dropped'}`
    const todo = kept ? 'reload with --allow-drop' : 'call ready() when it listens on all that it needs'
    log(`generation ${this.generation} (process ${this.#context.host.pid}) is not ready: it waits for its listen() on ${listed(awaited)}, which the version before listens on. Without that ${otherwise}. Where the new version does without it, ${todo}.`)
  }

  #booted(): void {
    this.#context.host.clock.clear(this.#settling)
    this.#context.host.clock.clear(this.#saying)
    if (this.#context.lifecycle.state.is !== 'preparing' || this.#isFinishing) return
    if (!this.#context.keeper && !this.#context.state.hasToRestore) {
      this.#sayReady()
      return
    }
    this.#isFinishing = true
    void this.#finish()
  }

  async #finish(): Promise<void> {
    const { registry, state } = this.#context
    const lacks = await state.restoring?.finish()
    if (lacks !== undefined) {
      this.#lacksState = true
      this.#refuse(lacks, 'HANDOVER_STATE')
      return
    }
    const veto = await this.#context.keeper?.booted({ ...this.#claims, dropped: registry.unclaimed.filter((name) => name !== 'control') }, spoken(registry))
    if (veto === undefined) this.#sayReady()
    else this.#refuse(veto)
  }

  #refuse(reason: string, code?: 'HANDOVER_STATE'): void {
    this.#predecessor?.taken.channel.send({ type: 'failed', reason, ...(code && { code }) })
  }

  get #claims(): { kept: string[]; added: string[] } {
    const names = (kept: boolean): string[] => this.#context.registry.listeners.filter((listener) => listener.kept === kept).map((listener) => listener.about.name)
    return { kept: names(true), added: names(false) }
  }

  #sayReady(): void {
    const { lifecycle, registry, controlSockets, state } = this.#context
    if (lifecycle.state.is !== 'preparing') return
    if (!this.#context.keeper) this.#actions.closeSpares()
    controlSockets.inherit((isMeant) => registry.takeControl(isMeant))
    const claims = this.#claims
    const dropped = registry.drop()
    lifecycle.move('preparing', { is: 'ready', predecessor: lifecycle.state.predecessor })
    this.#prepared?.({ type: 'ready', ...claims, dropped, ...(state.restored && { state: state.restored }) })
  }

  // ---- the predecessor's end ----

  /** It took its offer back. */
  #withdrawn(error: HandoverError): void {
    const { lifecycle, registry, controlSockets } = this.#context
    // Also where the reason is its own: who asked for the reload may be the only other one to hear it.
    this.#context.log('error', error.toString())
    const { is } = lifecycle.state
    if (is === 'preparing' || is === 'ready') {
      lifecycle.move(is, { is: 'ended' })
      registry.unlinkFiles()
      this.#context.host.exit(1)
      return
    }
    // This process accepted already, and the predecessor never heard so: both serve. This one leaves, politely; that one stays, and is
    // nobody to wait for.
    registry.ownsFiles = false
    controlSockets.leave(false)
    this.#isGone()
    this.#actions.stop()
  }

  #predecessorEnded(report: Report | undefined, orderly: boolean): void {
    const { lifecycle, state, host } = this.#context
    this.#isGone()
    state.disconnect('predecessor', !orderly)
    state.restoring?.predecessorGone()
    if (!this.#context.keeper) host.inherited.stderr?.passOn()
    if (this.#lacksState) {
      this.#lacksState = false
      this.#context.log('warn', 'the predecessor ended before it heard that the state cannot be restored: this process serves without it.')
      void this.#finish()
    }
    // It has logged that itself, mostly to the same place.
    if (report) this.#context.publish(report)
    else if (!orderly) this.#context.log('warn', `the predecessor ended without a report. ${lifecycle.state.is === 'serving' ? keepsServing(this.#context) : 'This process serves as soon as it is ready.'}`)
  }

  #isGone(): void {
    const { paths, reloading } = this.#context
    if (this.#predecessor) this.#predecessor.gone = true
    this.#predecessorIsGone()
    paths.mend()
    if (!reloading) paths.release()
  }
}
