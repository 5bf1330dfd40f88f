/** What a slot needs of its keeper, and what the files that a slot is made of share: the slot itself, a start in it, a reload of it. */

import { HandoverError, partsOf, repairTodo, type ProcessEnd, type Report } from '@handover/core/internal'
import { byWhat } from '../text.js'
import type { CheckpointStore } from './checkpoint-store.js'
import type { CountStore } from './count-store.js'
import type { ListenerMembers } from './listener-members.js'
import type { ServedFiles } from './served-files.js'
import type { SlotLifecycle } from './slot-state.js'
import type { StartCommand } from './start-paths.js'
import type { LaunchedWorker, ReloadWish, Worker } from './worker.js'

export interface SlotSide {
  readonly name: string
  readonly members: ListenerMembers
  readonly files: ServedFiles
  readonly checkpoints: CheckpointStore
  readonly counts: CountStore
  /** When the service began, as Date.now(); undefined before it did. */
  since(): number | undefined
  readonly env: NodeJS.ProcessEnv
  /** `inPlace`: also where the working directory is gone, since any worker is better than none. Throws HANDOVER_SPAWN. */
  command(inPlace: boolean): StartCommand
  readyTimeoutMs(first: boolean): number
  /** Whether no worker serves in any slot. Asks them: the end of one that was just killed may not have been noticed yet. */
  nobodyServes(): Promise<boolean>
  /** A worker serves, as far as is known. */
  hasServer(): boolean
  /** Who serves while this slot does not, for the second part of an error. */
  serves(): string
  /** What serves in the slot, or what it listens on, has changed. */
  changed(server: Worker | undefined): void
  /** The worker that served is gone, and no other one took over. */
  crashed(worker: Worker, how: ProcessEnd): void
  /** The worker that served died while it handed over, and the other one serves. */
  diedHandingOver(from: Worker, how: ProcessEnd, to: Worker): void
  /** The worker that served was told to stop, and not by the keeper: it drains. */
  left(worker: Worker): void
  /** Another keeper has the workers, or will. */
  leaving(): boolean
  wants(worker: Worker, wish: ReloadWish): void
  report(report: Report): void
  warn(line: string): void
}

/** A slot, as far as a start and a reload in it need it. */
export interface SlotContext {
  readonly index: number
  readonly side: SlotSide
  readonly lifecycle: SlotLifecycle
  /** The number of the last generation that served here. */
  generation: number
  /** The keeper stops. */
  isStopping: boolean
  /** Starts a process; `inPlace`: no worker serves. Throws a HandoverError where the keeper stops. */
  launch(inPlace: boolean): Promise<LaunchedWorker>
  /** The slot has just moved to a state in which this worker serves. */
  serverChanged(worker: Worker): void
}

/** How long a worker may take to begin, to end or to undo a handover. */
export const answerMs = 10_000
/** How long the end of a worker may take to be noticed by the other worker of its slot. */
export const noticeMs = 2_000

export const diedTodo = 'Another one is started at once, from the new build: see handover status, and the log for why it ended'

/** The error of a worker that is gone. `what`: without how it ended. */
export function workerGone(side: SlotSide, worker: Worker, what: string, as?: string, beside = ''): HandoverError {
  const how = worker.how ? `, ${byWhat(worker.how)}` : ''
  const todo = as ?? repairTodo(worker.stderr, worker.isKilled || worker.isEnding ? null : worker.how?.signal)
  const parts = { what: `${worker.who} ${what}${how}${beside}`, serving: side.serves(), todo, onLines: true }
  return new HandoverError('HANDOVER_SUCCESSOR_EXIT', parts, { stderr: worker.stderr })
}

/** `error` with what the worker wrote last, unless it has such lines. */
export function withStderr(error: HandoverError, { stderr }: Worker): HandoverError {
  return stderr === '' || (error.stderr ?? '') !== ''
    ? error
    : new HandoverError(error.code, partsOf(error), { stderr, cause: error.cause })
}
