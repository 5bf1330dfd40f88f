/**
 * The face of this process for programs: what `handover` is beside a function. Types only.
 */

import type { EventEmitter } from 'node:events'
import type net from 'node:net'
import type { Aggregate, AggregateOptions } from '../sharing/aggregates/aggregate.js'
import type { Draining } from '../handover/shutdown.js'
import type { HandoverError } from '../errors.js'
import type { Report } from '../protocol/report.js'
import type { PeerChannel, Restored, Section, Service } from '../sharing/sharing-api.js'
import type { MoveOptions, OnMoved } from '../connections/application-moves.js'
import type { LifecycleState } from '../protocol/lifecycle.js'

/** The events of `handover.events`, with what each listener gets. */
export interface HandoverEvents {
  /** Every move of the state. */
  state: [change: { from: LifecycleState; to: LifecycleState; generation: number }]
  /** At the switch, at the end of the drain (in both processes), when a reload was undone, and after a stop. */
  report: [report: Report]
  /** The drain begins: the time to move() connections that only the application understands, or to say goodbye on them. */
  draining: [drain: Draining]
  /** A reload failed: this process serves on. */
  failed: [error: HandoverError]
}

/** This process, for the program that runs in it. */
export interface Handover {
  /** 1 in the first process, one more in each successor. */
  readonly generation: number
  /** Where this process stands: `serving` is the state in which it accepts. */
  readonly state: LifecycleState
  /** The last report that this process made or received. */
  readonly lastReport: Report | undefined
  /** The same events are on node:diagnostics_channel as `handover:state`, `handover:report`, `handover:draining`, `handover:failed`. */
  readonly events: EventEmitter<HandoverEvents>
  /**
   * Starts a successor and hands over to it. Resolves with the report when the successor serves; this process then drains and ends.
   * Rejects with a HandoverError where that failed: this process serves on and nothing has changed.
   */
  reload(options?: ReloadOptions): Promise<Report>
  /**
   * The application can serve, and listens on all that it will. Needed only with `readyWhen: 'manual'`; does nothing in a first generation,
   * which serves at once.
   */
  ready(): void
  /**
   * Drains and ends the process within `drainTimeout`, with status 0 or what the program set as process.exitCode. Do not await it in a
   * request: the drain waits for the answer.
   */
  stop(): Promise<void>
  /**
   * Moves a connection of the application's own protocol to the successor: call it in a drain (`events.on('draining', …)`), when no part of
   * a message is in the application's hands. `socket`: plain TCP or Unix. From the call on nothing is read from it, and what is written to
   * it does not leave.
   *
   * Resolves true when the successor has it: this copy then emits nothing any more. Resolves false where it stays, and goes on as before:
   * there is no successor, it does not know `kind`, the socket is TLS or ends. Rejects with HANDOVER_STATE or HANDOVER_OPTION.
   */
  move(socket: net.Socket, options: MoveOptions): Promise<boolean>
  /** Takes connections of this kind that a predecessor moves here. Call it before listen(). Throws HANDOVER_OPTION. */
  onMoved(kind: string, take: OnMoved): void
  /**
   * Declares a part of the application's state, which goes along at a reload: `save` runs in the predecessor, `restore` in the successor
   * before it is ready. Call it before listen(), or before ready() where readyWhen is manual. Throws HANDOVER_OPTION.
   */
  share<S, T = Restored<S>>(name: string, section: Section<S, T>): void
  /** The live channel to the generation before or after, from the switch until the predecessor ends. */
  readonly peer: PeerChannel
  /**
   * Declares something that every process of the app counts. Its total is over all processes and generations, each exactly once. Throws
   * HANDOVER_OPTION.
   */
  aggregate<T>(name: string, options: AggregateOptions<T>): Aggregate<T>
  /** The service, over all its processes and generations. */
  readonly service: Service
}

/** What reload() takes. */
export interface ReloadOptions {
  /** The successor begins without the shared state: for when a section cannot be saved or restored. Default: false. */
  withoutState?: boolean | undefined
  /** The successor may listen on nothing of what is served now; under a keeper: on less. Default: false. */
  allowDrop?: boolean | undefined
}
