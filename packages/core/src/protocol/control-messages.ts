/**
 * Requests and answers of a control socket, and the status of a process and of an app. Pure.
 *
 * A request is one line of JSON; the answer is any number of `progress` lines and one other line, and then the connection closes. Nothing
 * here holds a command line, an environment variable or data of the application.
 */

import {
  boolean, count, list, number, optional, orNull, reader, record, shape, string, type Check, type Checked, type MessagesOf, type Shapes
} from './json-lines.js'
import { connectionCounts, durationsShape, peerShape, reportShape } from './report.js'
import type { LifecycleState } from './lifecycle.js'

/** What a process knows of the service that it is a part of. */
const serviceCountShape = shape({
  /** Of this process, unique over all generations. */
  id: string,
  /** When the first generation of the service began to listen, in milliseconds since the epoch. */
  startedAt: number,
  /** Begun here, and in processes that are gone and whose count is this one's now. */
  requests: count,
  /** The ids of those. */
  includes: list(string)
})
export type ServiceCount = Checked<typeof serviceCountShape>

/** When a process reached each step of its start, in milliseconds since `at`. Without a predecessor some never come. */
const startReportShape = shape({
  /** The start of the process, in milliseconds since the epoch. */
  at: number,
  /** Node had booted, and loaded what --require names. */
  node: number,
  /** This package began to load, and was loaded: before `node` where it is preloaded. */
  load: number,
  loaded: number,
  /** The first listen(): it said hello to its predecessor. */
  hello: optional(number),
  offered: optional(number),
  ready: optional(number),
  serving: optional(number),
  /** The first answer of an HTTP/1.1 server was written. */
  answered: optional(number)
})
export type StartReport = Checked<typeof startReportShape>

/** How far the transfer of a section is. */
const sectionStatusShape = shape({
  name: string,
  doing: string as Check<'saving' | 'saved' | 'restoring' | 'restored' | 'failed'>,
  /** Written or read so far. */
  bytes: count
})
export type SectionStatus = Checked<typeof sectionStatusShape>

export const lifecycleState = string as Check<LifecycleState>

export const processStatusShape = shape({
  pid: count,
  generation: count,
  state: lifecycleState,
  /** The name of the app; null where it has none. */
  name: orNull(string),
  /** Under a keeper: the pid of that, and which of the workers it is, from 0. Else null. */
  keeper: orNull(count),
  slot: orNull(count),
  /** HANDOVER_VERSION, else of the package.json next to the script or above; null where there is none. */
  version: orNull(string),
  /** Of Node, without the v. */
  node: string,
  ageMs: number,
  /** The names of its listeners: `tcp 0.0.0.0:3000`. */
  listeners: list(string),
  /** Open connections by kind: `http`, `https`, `http2`, `upgraded`, `socket`. */
  connections: record(count),
  /** `failed`: those that were answered with a status of 500 or more. */
  requests: shape({ inFlight: count, total: count, failed: count }),
  /** What a drain still waits for, for people: `GET /slow for 12 s`, `3 upgraded`. Empty in any other state. */
  waitsFor: list(string),
  /** While it drains: when what is left is cut, in milliseconds. */
  endsInMs: orNull(number),
  /** Resident set, in bytes. */
  memory: count,
  /** Its inspector is open: it may stand at a breakpoint. Absent where it is not. */
  debugged: optional(boolean),
  /** The longest delay of the event loop since the last status, in milliseconds; null the first time. */
  loopDelayMs: orNull(number),
  /** With the first few of the requests that were cut. */
  lastReport: orNull(reportShape),
  /** Why something that listens in this process is left to Node: it is neither drained nor reloaded. Absent where nothing is. */
  plain: optional(string),
  service: serviceCountShape,
  /** Absent where the keeper answers for a process that does not. */
  start: optional(startReportShape),
  /** The state on its way to this process or from it, while a handover runs; else empty. */
  sections: list(sectionStatusShape)
})
export type ProcessStatus = Checked<typeof processStatusShape>

/** What the keeper holds for the next process of a slot, where this one crashes. */
const checkpointStatusShape = shape({ slot: count, name: string, bytes: count, ageMs: number })
export type CheckpointStatus = Checked<typeof checkpointStatusShape>

/** A worker that has booted before it is needed, and waits for its turn. */
const spareStatusShape = shape({
  /** Null: there is none now. */
  pid: orNull(count),
  /** It has booted, and waits. */
  ready: boolean,
  /** How many workers began as one. */
  used: count,
  /** Why there is never one. */
  off: optional(string)
})
export type SpareStatus = Checked<typeof spareStatusShape>

const keeperStatusShape = shape({
  pid: count,
  version: string,
  node: string,
  ageMs: number,
  /** How many workers there should be. */
  workers: count,
  /** The names of what it holds, whether anybody serves it or not. */
  listeners: list(string),
  /** How many workers ended without being asked to, since the keeper began. */
  crashes: count,
  /** Workers that do not live: since when, and when the next try is. */
  down: list(shape({ slot: count, reason: string, nextTryInMs: number, starting: optional(boolean) })),
  checkpoints: list(checkpointStatusShape),
  /** Processes that serve in the place of a worker and cannot be handed over, why, and what to do. May be absent. */
  elsewhere: optional(list(string)),
  /** Listeners that several workers accept from together, instead of one each, and why. May be absent. */
  shared: optional(list(string)),
  /** Absent where none is wanted. */
  spare: optional(spareStatusShape)
})
export type KeeperStatus = Checked<typeof keeperStatusShape>

/** Over all processes and generations. */
const serviceStatusShape = shape({
  /** When the first generation began to listen, in milliseconds since the epoch. */
  startedAt: number,
  /** The newest that serves. */
  generation: count,
  /** Begun in any generation. */
  requests: count
})
export type ServiceStatus = Checked<typeof serviceStatusShape>

/** One handover of a reload. Times are those of Date.now(). */
const handoverRecordShape = shape({
  slot: count,
  from: peerShape,
  to: orNull(peerShape),
  /** When the successor took over. */
  at: number,
  /** When it was taken back. */
  undoneAt: optional(number),
  /** When the predecessor ended its drain. */
  endedAt: optional(number),
  durations: durationsShape,
  /** What became of the connections of the predecessor; absent while it drains. */
  connections: optional(shape(connectionCounts)),
  requestsCut: optional(count)
})
export type HandoverRecord = Checked<typeof handoverRecordShape>

/** A reload that is over, in short. */
export const reloadRecordShape = shape({
  at: number,
  ms: number,
  /** Of its error; absent where it succeeded. */
  code: optional(string),
  handovers: list(handoverRecordShape)
})
export type ReloadRecord = Checked<typeof reloadRecordShape>

/** An error as another process reads it. Without `serving` and `todo`, `what` is the whole message. */
export const errorFields = {
  code: string,
  /** The whole text for people. */
  message: string,
  what: optional(string),
  serving: optional(string),
  todo: optional(string),
  /** The last lines that the successor wrote to stderr. */
  stderr: string
}
const errorShape = shape(errorFields)
export type ErrorReport = Checked<typeof errorShape>

export const reloadOutcomeShape = shape({
  ok: boolean,
  /** When it began, as Date.now(). */
  at: number,
  ms: number,
  /**
   * Which process took over from which; `slot` is null without a keeper. `died`: how the predecessor ended (`by SIGKILL`), where that was
   * before all was handed over.
   */
  switched: list(shape({ slot: orNull(count), from: orNull(peerShape), to: peerShape, version: orNull(string), died: optional(string) })),
  /** Of each handover; the drains are in it where `wait` was asked for. In all of them at most 1,000 requests that were cut are named. */
  reports: list(reportShape),
  /** Who serves now. */
  serving: list(peerShape),
  /** What was not started as it had been typed, because that is gone: each a clause for people. Absent where nothing. */
  notes: optional(list(string)),
  /** Where it is not ok. */
  error: optional(errorShape)
})
export type ReloadOutcome = Checked<typeof reloadOutcomeShape>

const appStatusShape = shape({
  /** Null where it has none. */
  name: orNull(string),
  /** Null where the processes run without one. */
  keeper: orNull(keeperStatusShape),
  /** Null where no process could be asked. */
  service: orNull(serviceStatusShape),
  /** Every generation that lives, the serving ones first. */
  processes: list(processStatusShape),
  lastReload: orNull(reloadOutcomeShape),
  /** The last ten, oldest first. Absent without a keeper. */
  reloads: optional(list(reloadRecordShape))
})
export type AppStatus = Checked<typeof appStatusShape>

/** The options of `handover reload`. Without a keeper `canary`, `probe`, `parallel`, `workers` and `keeper` are refused. */
export interface ReloadRequest {
  /** Answer only when the old generations have ended. */
  readonly wait?: boolean
  /** How many workers go first and are watched. Default: 1. */
  readonly canary?: number
  /** How long those are watched before the rest follows, in milliseconds. Default: 3,000. */
  readonly bakeMs?: number
  /** A path that must answer 2xx in every successor before it accepts anything. */
  readonly probe?: string
  /** After the canary, all workers at once instead of as many as there are cores. */
  readonly parallel?: boolean
  /** Another number of workers from now on. */
  readonly workers?: number
  /** The new version may listen on less than the old one; without a keeper: on nothing of what that listens on. */
  readonly allowDrop?: boolean
  /** The successor begins without the shared state of its predecessor. */
  readonly withoutState?: boolean
  /** Not the app: the keeper itself. */
  readonly keeper?: boolean
}

/** One step of a reload that runs. */
const reloadEventShape = shape({
  /** `stderr`: a line that a successor wrote while it boots. `drains` comes again each second. */
  event: string as Check<'starts' | 'boots' | 'prepares' | 'ready' | 'stderr' | 'serves' | 'bakes' | 'drains'>,
  /** Since the reload began. */
  ms: number,
  /** Absent without a keeper. */
  slot: optional(count),
  /** How many slots are reloaded. */
  slots: optional(count),
  pid: optional(count),
  generation: optional(count),
  line: optional(string),
  /** How long it is watched; how long it may still drain. */
  forMs: optional(number)
})
export type ReloadEvent = Checked<typeof reloadEventShape>

export type ControlRequest =
  | { readonly type: 'request'; readonly verb: 'status' }
  | { readonly type: 'request'; readonly verb: 'reload'; readonly options: ReloadRequest }
  /** Answered when the drain has begun; the connection closes when the process has ended. */
  | { readonly type: 'request'; readonly verb: 'stop' }

const answers = {
  /** `text` is for people; empty where the event has no line of its own. */
  progress: { text: string, event: reloadEventShape },
  status: { app: appStatusShape },
  reload: { outcome: reloadOutcomeShape },
  stopping: { pids: list(count) },
  /** `reason` is the whole text. Its parts are absent where they are not known. */
  refused: { code: string, reason: string, what: optional(string), serving: optional(string), todo: optional(string) }
} satisfies Shapes
export type ControlAnswer = MessagesOf<typeof answers>

export const parseControlAnswer = reader<ControlAnswer>(answers)
