/**
 * How a generation ends: its connections move or drain, it can take over again while the undo window is open, older generations end before
 * it, the close hooks run, the last word is said. Top to bottom as in the sequence diagram; the undo is the only way back.
 */

import type net from 'node:net'
import type { ConnectionReceiver } from '../connections/connection-receiver.js'
import { ConnectionSender } from '../connections/connection-sender.js'
import { nothingDrained, sum } from '../connections/drain-result.js'
import { drainAll, type Drain, type DrainOptions } from '../connections/drain.js'
import { HandoverError, textOf } from '../errors.js'
import type { Timer } from '../platform/clock.js'
import { holdOpen } from '../platform/node/connection-handle.js'
import { deadlineIn, left, type Deadline } from '../protocol/deadline.js'
import type { Peer } from '../protocol/handover-messages.js'
import { mostCutNamed, noState, type Report } from '../protocol/report.js'
import { announce } from './announcements.js'
import type { ProcessContext } from './process-context.js'
import { countsOf, openUndoWindow, undo, type ServingSuccessor, type UndoWindow } from './undo.js'

/** What the drain leaves of `drainTimeout` for the close hooks. */
const closeReserve = (drainTimeoutMs: number): number => Math.min(500, drainTimeoutMs / 10)

/** What the program's own listeners for SIGTERM have at least, where the drain left less of `drainTimeout`; never more than that. */
const leastFarewellMs = 5_000

const noListeners = { kept: [], added: [], dropped: [] }

export interface Draining {
  /** Null where the process is stopped: then nothing can move. */
  readonly successor: Peer | null
  /** What is still open is cut this many milliseconds from now. */
  readonly endsInMs: number
}

/** An older generation that may still live: connections come from it. */
export interface OlderGeneration {
  /** Takes its connections; undefined where there never was one. */
  readonly adopter: ConnectionReceiver | undefined
  /** Undefined where none lives; resolves when it has ended. */
  readonly olderEnds: Promise<void> | undefined
}

type StopSignal = 'SIGTERM' | 'SIGINT'

/** The program's own listeners for SIGTERM and SIGINT, which wait for the end of the drain. */
export interface WaitingListeners {
  /** The signal that they wait for; undefined where there are none. */
  readonly awaited: StopSignal | undefined
  tell(signal: StopSignal): void
}

/** What a shutdown needs and sets off beside the context. */
export interface ShutdownSurroundings {
  readonly older: OlderGeneration
  readonly listeners: WaitingListeners
  draining(drain: Draining): void
  /** The process serves again. */
  undone(error: HandoverError, report: Report): void
}

export class Shutdown {
  readonly #context: ProcessContext
  readonly #around: ShutdownSurroundings
  /** Undefined after a stop. */
  readonly #served: ServingSuccessor | undefined
  readonly #begun: number
  readonly #deadline: Deadline
  readonly #drains: readonly Drain[]
  /** Moves connections to the successor. */
  readonly mover: ConnectionSender | undefined
  #undoWindow: UndoWindow | undefined

  /** Begins the drain. */
  constructor(context: ProcessContext, around: ShutdownSurroundings, served: ServingSuccessor | undefined) {
    const { host, registry, controlSockets, support } = context
    this.#context = context
    this.#around = around
    this.#served = served
    const { drainTimeout, linger: lingerMs } = context.settings
    this.#begun = host.clock.now()
    this.#deadline = deadlineIn(drainTimeout - closeReserve(drainTimeout), host.clock)
    this.#keepServersForOlder()
    if (!served) {
      registry.close()
      registry.unlinkFiles()
      controlSockets.leave(true)
      // Nobody goes on with what comes from a generation before: that one drains by itself.
      around.older.adopter?.refuse()
    }
    this.mover = served?.takes && support.canMove() ? new ConnectionSender(served.launched.channel, served.takes, (reason) => {
      for (const drain of this.#drains) drain.stopMoving(reason)
    }) : undefined
    this.#drains = [...context.connections].map(([server, connections]) => connections.drain({ lingerMs, deadline: this.#deadline, ...this.#routeOf(server) }))
  }

  /** Where the connections of this server can go, or why nowhere. */
  #routeOf(server: net.Server): Pick<DrainOptions, 'route' | 'stays'> {
    const { mover } = this
    const listener = this.#context.registry.of(server)?.about.name
    if (mover && listener !== undefined && mover.takesListener(listener)) return { route: { mover, listener } }
    return { stays: !this.#served ? 'noSuccessor' : this.#context.support.canMove() ? 'notTaken' : 'movingIsOff' }
  }

  /** When what is left is cut. */
  get endsInMs(): number {
    return Math.max(0, Math.round(left(this.#deadline)))
  }

  /** The undo window is over: nobody needs this process to come back. */
  settle(): void {
    this.#undoWindow?.end(undefined)
  }

  /** Takes over again from a successor that lives, where the undo window is still open. */
  recall(reason: string): void {
    this.#undoWindow?.end({ recalled: reason })
  }

  /** Resolves when the process has ended, or serves again. */
  async run(): Promise<void> {
    const { lifecycle, registry, controlSockets, settings, host } = this.#context
    const { adopter } = this.#around.older
    this.#around.draining({ successor: this.#served?.report.successor ?? null, endsInMs: Math.round(left(this.#deadline)) })
    const drained = drainAll(this.#drains, this.#deadline)
    if (this.#served) {
      this.#undoWindow = openUndoWindow(this.#context, this.#served, this.mover, this.#deadline)
      const lost = await this.#undoWindow.lost
      this.#undoWindow = undefined
      if (lost !== undefined) {
        const { error, report } = await undo(this.#context, this.#served, lost, this.mover, this.#drains)
        this.#around.undone(error, report)
        return
      }
      registry.close()
      controlSockets.leave(this.#served.report.listeners.dropped.includes('control'))
    }
    await drained
    await this.#outlastOlder()
    adopter?.refuse()
    // Nothing more comes from here on. What came from the older generation after the drain seemed over is drained now.
    await adopter?.idle()
    await drainAll(this.#drains, this.#deadline)
    await this.#sayLast(deadlineIn(Math.max(closeReserve(settings.drainTimeout), left(this.#deadline)), host.clock))

    lifecycle.move('draining', { is: 'closing' })
    const hooksEnded = await this.#runCloseHooks(deadlineIn(Math.max(closeReserve(settings.drainTimeout), left(this.#deadline)), host.clock))
    const report = { ...this.#finalReport(), ...(!hooksEnded && { cleanupCut: 'close hooks' as const }) }
    lifecycle.move('closing', { is: 'ended' })
    announce(this.#context, report)
    if (this.#served) {
      const { channel } = this.#served.launched
      channel.send({ type: 'end', report })
      // Closing with something unread would take the last word away from the successor: it closes first.
      await channel.closed(deadlineIn(1_000, host.clock))
    }
    registry.unlinkFiles()
    await this.#farewell(report)
    host.exit()
  }

  /** While an older generation lives, connections still come from it: a server that the successor does without must not end before. */
  #keepServersForOlder(): void {
    const older = this.#around.older.olderEnds
    if (!older) return
    const releases = [...this.#context.connections.keys()].map(holdOpen)
    void older.then(() => { for (const release of releases) release() })
  }

  /**
   * Waits for an older generation that still drains. Whoever stops this process, systemd for one, ends all that is left of the service with
   * it; and where there is a successor, the connections of that older one come through here, and what it knows at last.
   */
  async #outlastOlder(): Promise<void> {
    const older = this.#around.older.olderEnds
    if (!older) return
    await beforeDeadline(older, this.#deadline)
  }

  /** The last request is answered: what was added to the shared state and to the sums goes to whoever follows. */
  async #sayLast(deadline: Deadline): Promise<void> {
    const { state, log } = this.#context
    const late = new AbortController()
    const timer = deadline.clock.setTimeout(() => { late.abort(new Error('the drain deadline came first')) }, left(deadline))
    await state.sendLast(this.#served?.launched.channel, late.signal)
      .catch((error: unknown) => { log('warn', `what was counted at last is lost: ${textOf(error)}`) })
    deadline.clock.clear(timer)
    state.disconnect('successor', false)
  }

  /** False where they were cut. */
  async #runCloseHooks(deadline: Deadline): Promise<boolean> {
    const { closeHooks, log } = this.#context
    const hooks = Promise.all(closeHooks.map(async (hook) => {
      try {
        await hook()
      } catch (error) {
        log('error', `a close hook failed: ${textOf(error)}`)
      }
    }))
    const ended = await beforeDeadline(hooks, deadline)
    if (!ended) log('warn', 'the close hooks did not end within drainTimeout; the process ends without them')
    return ended
  }

  /**
   * A program that knows nothing of us cleans up in listeners of its own. It ends the process when it is done, or lets go of all that keeps
   * it alive; where it does neither, the deadline does.
   */
  async #farewell(report: Report): Promise<void> {
    const { settings: { drainTimeout }, self, host, log } = this.#context
    const signal = this.#around.listeners.awaited
    if (signal === undefined) return
    for (const drain of this.#drains) drain.end()
    const begun = host.clock.now()
    const timeMs = Math.max(left(this.#deadline) + closeReserve(drainTimeout), Math.min(leastFarewellMs, drainTimeout))
    // In a turn of its own: what a listener throws is the program's, as without us.
    host.clock.setImmediate(() => { this.#around.listeners.tell(signal) })
    await new Promise<void>((resolve) => { host.clock.setTimeout(resolve, timeMs).unref() })
    log('warn', `the program's own listeners for ${signal} have not ended process ${self.pid} (generation ${self.generation}) within ${Math.round(host.clock.now() - begun)} ms: it is ended now, whatever they still had to do. Raise drainTimeout (HANDOVER_DRAIN_TIMEOUT) where they need longer.`)
    this.#context.publish({ ...report, cleanupCut: signal })
  }

  #finalReport(): Report {
    const { report } = this.#served ?? {}
    const result = sum(this.#drains.map((drain) => drain.result))
    return {
      result: report ? 'drained' : 'stopped',
      trigger: report?.trigger ?? 'stop',
      predecessor: this.#context.self,
      successor: report?.successor ?? null,
      listeners: report?.listeners ?? noListeners,
      state: report?.state ?? noState,
      connections: countsOf(result),
      requestsCut: result.requestsCut.slice(0, mostCutNamed),
      ...(result.requestsCut.length > mostCutNamed && { requestsCutBeside: result.requestsCut.length - mostCutNamed }),
      durations: { ...(report?.durations ?? { launch: null, prepare: null, commit: null }), move: this.mover?.firstPassMs ?? null, drain: this.#context.host.clock.now() - this.#begun }
    }
  }
}

/** Of a report in which the drain has only begun. */
export const openCounts = (open: number): Report['connections'] => countsOf({ ...nothingDrained(), open })

/** False where the deadline came first. */
async function beforeDeadline(work: Promise<unknown>, deadline: Deadline): Promise<boolean> {
  let timer: Timer | undefined
  const late = new Promise<boolean>((resolve) => { timer = deadline.clock.setTimeout(() => { resolve(false) }, left(deadline)) })
  const inTime = await Promise.race([work.then(() => true), late])
  deadline.clock.clear(timer)
  return inTime
}
