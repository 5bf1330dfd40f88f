/**
 * How a generation ends: its connections move or drain, it can take over again while the undo window is open, older generations end before
 * it, the close hooks run, and the last message is sent. `run` reads like the sequence diagram; the undo is the only way back.
 */

import type net from 'node:net'
import type { ConnectionReceiver } from '../connections/connection-receiver.js'
import { ConnectionSender } from '../connections/connection-sender.js'
import { speaksHttp2 } from '../connections/connection.js'
import { sum } from '../connections/drain-result.js'
import { drainAll, type Drain, type DrainOptions } from '../connections/drain.js'
import { cutLeftIn } from '../connections/left-to-program.js'
import { HandoverError, textOf } from '../errors.js'
import { holdOpen } from '../platform/node/connection-handle.js'
import { movesKind } from '../options.js'
import { isTlsServer } from '../platform/on-demand.js'
import { deadlineIn, left, withDeadline, type Deadline } from '../protocol/deadline.js'
import type { Peer } from '../protocol/handover-messages.js'
import { withoutTls } from '../protocol/moved-connection.js'
import { mostCutNamed, noState, shortened, type Report, type StopSignal } from '../protocol/report.js'
import { announce } from './announcements.js'
import type { ProcessContext } from './process-context.js'
import { openUndoWindow, undo, type ServingSuccessor, type UndoWindow } from './undo.js'

/** What the event `draining` tells. */
export interface Draining {
  /** Null where the process is stopped: then nothing can move. */
  readonly successor: Peer | null
  /** What is still open is cut this many milliseconds from now. */
  readonly endsInMs: number
}

/** What a shutdown needs and sets off beside the context. */
export interface ShutdownSurroundings {
  /** An older generation that may still live: connections come from it. */
  readonly older: {
    /** Takes its connections; undefined where there never was one. */
    readonly adopter: ConnectionReceiver | undefined
    /** Undefined where none lives; resolves when it has ended. */
    readonly olderEnds: Promise<void> | undefined
    /** It serves: this process is stopped before it has. */
    readonly predecessorServesOn: boolean
  }
  /** Runs the program's close hooks. False where the deadline cut them. */
  runCloseHooks(deadline: Deadline): Promise<boolean>
  /** Whether the program itself says goodbye: in its listeners for the signal, or as its app closes. */
  programEnds(): boolean
  /** Lets the program's own listeners for this signal, if any, end the process. Resolves where they do not within `leftMs`. */
  farewell(leftMs: number): Promise<StopSignal | undefined>
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
  /** What the drain leaves of `drainTimeout` for the close hooks. */
  readonly #reserveMs: number
  readonly #deadline: Deadline
  readonly #drains: readonly Drain[]
  /** Moves connections to the successor. */
  readonly mover: ConnectionSender | undefined
  #undoWindow: UndoWindow | undefined

  /** Begins the drain. */
  constructor(context: ProcessContext, around: ShutdownSurroundings, served: ServingSuccessor | undefined) {
    const { host: { clock }, registry, controlSockets, support, settings: { drainTimeout, linger: lingerMs } } = context
    this.#context = context
    this.#around = around
    this.#served = served
    this.#begun = clock.now()
    this.#reserveMs = Math.min(500, drainTimeout / 10)
    this.#deadline = deadlineIn(drainTimeout - this.#reserveMs, clock)
    this.#keepServersForOlder()
    if (!served) {
      registry.close()
      registry.unlinkFiles()
      controlSockets.leave(!around.older.predecessorServesOn)
      // There is no successor for connections of an earlier generation: that generation drains them itself.
      around.older.adopter?.refuse()
    }
    const { launched, serving } = served ?? {}
    const takes = serving?.takes && !support.canMoveTls() ? withoutTls(serving.takes) : serving?.takes
    this.mover = launched && takes && support.canMove() ? new ConnectionSender(launched.channel, takes, (reason) => {
      for (const drain of this.#drains) drain.stopMoving(reason)
    }) : undefined
    const options = { lingerMs, deadline: this.#deadline, programEnds: () => around.programEnds() }
    this.#drains = [...context.connections].map(([server, connections]) => connections.drain({ ...options, ...this.#routeOf(server) }))
  }

  /** Where the connections of this server can go, or why nowhere. */
  #routeOf(server: net.Server): Pick<DrainOptions, 'route' | 'stays'> {
    const { mover } = this
    const { registry, support, settings } = this.#context
    const listener = registry.of(server)?.about.name
    const way = isTlsServer(server) ? 'tls' : speaksHttp2(server) ? 'http2' : 'listeners'
    const isOn = support.canMove() && (way !== 'http2' || movesKind(settings.move, way))
    if (isOn && mover && listener !== undefined && mover.takesListener(listener, way)) {
      return { route: { mover, listener, http2: movesKind(settings.move, 'http2') && mover.takesListener(listener, 'http2') } }
    }
    return { stays: !this.#served ? 'noSuccessor' : isOn ? 'notTaken' : 'movingIsOff' }
  }

  /** Connections still come from an older generation that lives: until it ends no server may emit 'close', also not one that is dropped. */
  #keepServersForOlder(): void {
    const older = this.#around.older.olderEnds
    if (!older) return
    const releases = [...this.#context.connections.keys()].map(holdOpen)
    void older.then(() => { for (const release of releases) release() })
  }

  /** When what is left is cut. */
  get endsInMs(): number {
    return Math.round(left(this.#deadline))
  }

  /** The undo window is over: this process need not come back. */
  settle(): void {
    this.#undoWindow?.end(undefined)
  }

  /** Takes over again from a successor that lives, where the undo window is still open. */
  recall(reason: string): void {
    this.#undoWindow?.end({ recalled: reason })
  }

  /** Resolves when the process has ended, or serves again. */
  async run(): Promise<void> {
    const { lifecycle, registry, controlSockets, host } = this.#context
    const { older } = this.#around
    this.#around.draining({ successor: this.#served?.report.successor ?? null, endsInMs: this.endsInMs })
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
      controlSockets.leave(this.#served.dropsName)
    }
    await drained
    // systemd, for one, ends all that is left of a service with the process that it stops. And where there is a successor, the older
    // generation's connections come through here, and so does its last state.
    if (older.olderEnds) await withDeadline(older.olderEnds, this.#deadline)
    older.adopter?.refuse()
    // Nothing more comes from here on. What came from the older generation after the drain seemed over is drained now.
    await older.adopter?.idle()
    await drainAll(this.#drains, this.#deadline)
    if (!older.predecessorServesOn) await this.#sendLast(this.#reserved())
    await this.mover?.closed()
    lifecycle.move('draining', { is: 'closing' })
    const closing = this.#reserved()
    const spare = cutLeftIn(left(closing) / 2, this.#drains, this.#context)
    const hooksEnded = await this.#around.runCloseHooks(closing)
    spare()
    const report = { ...this.#finalReport(), ...(!hooksEnded && { cleanupCut: 'close hooks' as const }) }
    lifecycle.move('closing', { is: 'ended' })
    announce(this.#context, report)
    if (this.#served) {
      const { channel } = this.#served.launched
      channel.send({ type: 'end', report })
      // Closing with something unread would take the last message away from the successor: it closes first.
      await channel.closed(deadlineIn(1_000, host.clock))
    }
    registry.unlinkFiles()
    for (const drain of this.#drains) drain.end()
    cutLeftIn(Math.max(1_000, left(this.#deadline) / 2), this.#drains, this.#context)
    const cleanupCut = await this.#around.farewell(left(this.#deadline) + this.#reserveMs)
    if (cleanupCut) this.#context.publish({ ...report, cleanupCut })
    host.exit()
  }

  /** What is left of `drainTimeout`, and at least the reserve. */
  #reserved(): Deadline {
    return deadlineIn(Math.max(this.#reserveMs, left(this.#deadline)), this.#deadline.clock)
  }

  /** The last request is answered: what was added to the shared state and to the sums goes to the next process. */
  async #sendLast(deadline: Deadline): Promise<void> {
    const { state, log } = this.#context
    const late = new AbortController()
    const timer = deadline.clock.setTimeout(() => { late.abort(new Error('the drain deadline came first')) }, left(deadline))
    await state.sendLast(this.#served?.launched.channel, late.signal, left(deadline))
      .catch((error: unknown) => { log('warn', `what was counted at last is lost: ${textOf(error)}`) })
    deadline.clock.clear(timer)
    state.disconnect('successor', false)
  }

  #finalReport(): Report {
    const { report } = this.#served ?? {}
    const { requestsCut, ...connections } = sum(this.#drains.map((drain) => drain.result))
    return shortened({
      result: report ? 'drained' : 'stopped',
      trigger: report?.trigger ?? 'stop',
      predecessor: this.#context.self,
      successor: report?.successor ?? null,
      listeners: report?.listeners ?? { kept: [], added: [], dropped: [] },
      state: report?.state ?? noState,
      connections,
      requestsCut,
      durations: {
        ...(report?.durations ?? { launch: null, prepare: null, commit: null }),
        move: this.mover?.firstPassMs ?? null, drain: this.#deadline.clock.now() - this.#begun
      }
    }, mostCutNamed)
  }
}
