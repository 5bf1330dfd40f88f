/**
 * The states of one process and the moves between them. A state's data lives only in that state.
 *
 * `moves` is the one table: the picture in docs/reload.md, the table in PROTOCOL.md and the tests are checked against it, and a move that
 * is not in it does not compile. Pure.
 */

import type { Peer } from './handover-messages.js'
import { StateMachine } from './state-machine.js'

export type State =
  /** Nothing listens yet. */
  | { readonly is: 'idle' }
  /** Said hello to the predecessor; the offer is awaited. */
  | { readonly is: 'taking' }
  /** Holds the offer. listen() claims from it; nothing is accepted. */
  | { readonly is: 'preparing'; readonly predecessor: Peer }
  /** Said ready; nothing is accepted until the predecessor knows. */
  | { readonly is: 'ready'; readonly predecessor: Peer }
  | { readonly is: 'serving' }
  /** A successor was started (or connected); it has not said hello. */
  | { readonly is: 'launching' }
  /** The offer is out. This process goes on serving. */
  | { readonly is: 'offering'; readonly successor: Peer }
  /** Told the successor to accept; goes on accepting until it says that it does. */
  | { readonly is: 'committing'; readonly successor: Peer }
  /** Accepts nothing; answers what it has. `successor` is absent after a stop. */
  | { readonly is: 'draining'; readonly successor?: Peer }
  /** The drain is over; close hooks run. */
  | { readonly is: 'closing' }
  | { readonly is: 'ended' }

export type LifecycleState = State['is']

export const moves = {
  idle: ['taking', 'serving'],
  taking: ['preparing', 'idle', 'ended'],
  preparing: ['ready', 'draining', 'ended'],
  ready: ['serving', 'draining', 'ended'],
  serving: ['launching', 'draining'],
  launching: ['offering', 'serving'],
  offering: ['committing', 'serving'],
  committing: ['draining', 'serving'],
  draining: ['closing', 'serving'],
  closing: ['ended'],
  ended: []
} as const satisfies Record<LifecycleState, readonly LifecycleState[]>

/** Whether a process in this state accepts connections. */
export const accepts = (state: LifecycleState): boolean =>
  state === 'serving' || state === 'launching' || state === 'offering' || state === 'committing'

/** Whether it has not served yet. */
export const isStarting = (state: LifecycleState): boolean =>
  state === 'idle' || state === 'taking' || state === 'preparing' || state === 'ready'

/** Whether it has accepted its last connection, unless an undo makes it serve again. */
export const isLeaving = (state: LifecycleState): boolean => state === 'draining' || state === 'closing' || state === 'ended'

/** The lifecycle of this process. */
export class Lifecycle extends StateMachine<State, typeof moves> {
  constructor(moved: (from: LifecycleState, to: State) => void) {
    super('move', moves, { is: 'idle' }, moved)
  }
}
