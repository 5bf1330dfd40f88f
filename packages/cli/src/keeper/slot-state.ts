/**
 * The states of one slot of the keeper, and the moves between them.
 *
 * A state's data lives only in that state. `slotMoves` is the one table: the table in PROTOCOL.md and the tests are checked against it, and
 * a move that is not in it does not compile. Pure.
 */

import { StateMachine, type HandoverError, type ProcessEnd, type WorkerMessage } from '@handover/core/internal'
import type { Worker } from './worker.js'

/** A worker to which the keeper itself makes the offer. */
export interface Start {
  /** Settles when the worker serves, or is gone. Absent until its process is being started. */
  over?: Promise<Worker>
  /** Absent until the process runs. */
  worker?: Worker
  /** It got its offer, and no other worker served: it accepts as soon as it listens. */
  accepts?: boolean
  /** The worker drains: it will not serve. Absent for the first worker of the app, whose end is waited for. */
  left?: () => void
  /** A newer build is to be started instead, or none. */
  givenUp: boolean
  /** Serves until the new worker does: one whose event loop is blocked, or that was found late. */
  server?: Worker | undefined
  /** The predecessor of a worker that died: it may still take over again. */
  readonly returning?: Worker | undefined
}

/** What a worker listens on, and what it does not any more. */
export type Claims = Extract<WorkerMessage, { type: 'booted' }>

/** One generation hands over to the next. */
export interface Handover {
  readonly from: Worker
  readonly to: Worker
  /** Why the successor was told that it must not serve. */
  vetoed?: string
  /** `from` has heard that it is to hand over. */
  began(): void
  /** `to` could serve now, and waits to be allowed to. */
  booted(claims: Claims): void
  /** `to` serves, or failed. The first call counts. */
  end(error?: HandoverError): void
}

/** A handover that the keeper has not settled: `from` can serve again. */
export interface Undo {
  readonly from: Worker
  readonly to: Worker
  /** How `from` ended, where it did so before all was handed over: what it left to its slot is still needed then. */
  readonly died: ProcessEnd | undefined
  /** Why it must be undone, or was. Called when it is shown, since who serves changes meanwhile. */
  failure?: () => HandoverError
  /** Called when `from` serves again, or never can. */
  over?: () => void
}

export type SlotState =
  /** No worker serves, and none is being started. */
  | { readonly is: 'empty' }
  | { readonly is: 'starting'; readonly start: Start }
  | { readonly is: 'serving'; readonly server: Worker }
  /** `from` serves. */
  | { readonly is: 'handing-over'; readonly handover: Handover }
  /** `from` died with the offer made: `to` serves by itself, or not at all. */
  | { readonly is: 'alone'; readonly handover: Handover }
  /** `to` serves; `from` can take over again, where it lives. */
  | { readonly is: 'undoable'; readonly undo: Undo }
  /** `to` does not serve any more; `from` notices that, and will. */
  | { readonly is: 'returning'; readonly undo: Undo }
  /** `from` serves again. */
  | { readonly is: 'undone'; readonly undo: Undo }

export type SlotStateName = SlotState['is']

export const slotMoves = {
  empty: ['starting', 'serving'],
  starting: ['serving', 'empty'],
  serving: ['serving', 'starting', 'handing-over', 'empty'],
  'handing-over': ['undoable', 'serving', 'alone', 'empty'],
  alone: ['undoable', 'empty'],
  undoable: ['serving', 'undone', 'returning', 'empty'],
  returning: ['undone', 'starting', 'empty'],
  undone: ['serving', 'empty']
} as const satisfies Record<SlotStateName, readonly SlotStateName[]>

/** The worker that accepts. */
export function serverOf(state: SlotState): Worker | undefined {
  switch (state.is) {
    case 'starting': return state.start.server
    case 'serving': return state.server
    case 'handing-over': return state.handover.from
    case 'undoable': return state.undo.to
    case 'undone': return state.undo.from
    case 'empty':
    case 'alone':
    case 'returning': return undefined
  }
}

/** The worker that is being started. */
export function bootingOf(state: SlotState): Worker | undefined {
  if (state.is === 'starting') return state.start.worker
  return state.is === 'handing-over' || state.is === 'alone' ? state.handover.to : undefined
}

/** The handover that runs. */
export const handoverOf = (state: SlotState): Handover | undefined => ('handover' in state ? state.handover : undefined)

/** The handover that is not settled. */
export const undoOf = (state: SlotState): Undo | undefined => ('undo' in state ? state.undo : undefined)

/** The state of one slot. */
export class SlotLifecycle extends StateMachine<SlotState, typeof slotMoves> {
  constructor(moved: (from: SlotStateName, to: SlotState) => void = () => undefined) {
    super('move of a slot', slotMoves, { is: 'empty' }, moved)
  }
}
