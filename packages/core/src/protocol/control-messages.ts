/**
 * Requests and answers of a control socket, and the status of a process and of an app. Pure.
 *
 * A request is one line of JSON; the answer is any number of `progress` lines and one other line, and then the connection closes. Nothing
 * here holds a command line, an environment variable or data of the application.
 */

import type { Peer } from './handover-messages.js'
import { boolean, count, list, number, optional, orNull, reader, record, shape, string, type Shapes } from './json-lines.js'
import { connectionCounts, durationsShape, peerShape, reportShape, type ConnectionCounts, type Report } from './report.js'
import type { LifecycleState } from './lifecycle.js'

export interface ProcessStatus {
  readonly pid: number
  readonly generation: number
  readonly state: LifecycleState
  /** The name of the app; null where it has none. */
  readonly name: string | null
  /** Under a keeper: the pid of that, and which of the workers it is, from 0. Else null. */
  readonly keeper: number | null
  readonly slot: number | null
  /** HANDOVER_VERSION, else of the package.json next to the script or above; null where there is none. */
  readonly version: string | null
  /** Of Node, without the v. */
  readonly node: string
  readonly ageMs: number
  /** The names of its listeners: `tcp 0.0.0.0:3000`. */
  readonly listeners: readonly string[]
  /** Open connections by kind: `http`, `https`, `http2`, `upgraded`, `socket`. */
  readonly connections: Readonly<Record<string, number>>
  /** `failed`: those that were answered with a status of 500 or more. */
  readonly requests: { readonly inFlight: number; readonly total: number; readonly failed: number }
  /** What a drain still waits for, for people: `GET /slow for 12 s`, `3 upgraded`. Empty in any other state. */
  readonly waitsFor: readonly string[]
  /** While it drains: when what is left is cut, in milliseconds. */
  readonly endsInMs: number | null
  /** Resident set, in bytes. */
  readonly memory: number
  /** Its inspector is open: it may stand at a breakpoint. Absent where it is not. */
  readonly debugged?: boolean
  /** The longest delay of the event loop since the last status, in milliseconds; null the first time. */
  readonly loopDelayMs: number | null
  readonly lastReport: Report | null
  /** Why something that listens in this process is left to Node: it is neither drained nor reloaded. Absent where nothing is. */
  readonly plain?: string
  readonly service: ServiceCount
  /** Absent where the keeper answers for a process that does not. */
  readonly start?: StartReport
  /** The state on its way to this process or from it, while a handover runs; else empty. */
  readonly sections: readonly SectionStatus[]
}

/** When a process reached each step of its start, in milliseconds since `at`. Without a predecessor some never come. */
export interface StartReport {
  /** The start of the process, in milliseconds since the epoch. */
  readonly at: number
  /** Node had booted, and loaded what --require names. */
  readonly node: number
  /** This package began to load, and was loaded: before `node` where it is preloaded. */
  readonly load: number
  readonly loaded: number
  /** The first listen(): it said hello to its predecessor. */
  readonly hello?: number
  readonly offered?: number
  readonly ready?: number
  readonly serving?: number
  /** The first answer of an HTTP/1.1 server was written. */
  readonly answered?: number
}

/** What a process knows of the service that it is a part of. */
export interface ServiceCount {
  /** Of this process, unique over all generations. */
  readonly id: string
  /** When the first generation of the service began to listen, in milliseconds since the epoch. */
  readonly startedAt: number
  /** Begun here, and in processes that are gone and whose count is this one's now. */
  readonly requests: number
  /** The ids of those. */
  readonly includes: readonly string[]
}

/** How far the transfer of a section is. */
export interface SectionStatus {
  readonly name: string
  readonly doing: 'saving' | 'saved' | 'restoring' | 'restored' | 'failed'
  /** Written or read so far. */
  readonly bytes: number
}

/** What the keeper holds for the next process of a slot, where this one crashes. */
export interface CheckpointStatus {
  readonly slot: number
  readonly name: string
  readonly bytes: number
  readonly ageMs: number
}

/** A worker that has booted before it is needed, and waits for its turn. */
export interface SpareStatus {
  /** Null: there is none now. */
  readonly pid: number | null
  /** It has booted, and waits. */
  readonly ready: boolean
  /** How many workers began as one. */
  readonly used: number
  /** Why there is never one. */
  readonly off?: string
}

export interface KeeperStatus {
  readonly pid: number
  readonly version: string
  readonly node: string
  readonly ageMs: number
  /** How many workers there should be. */
  readonly workers: number
  /** The names of what it holds, whether anybody serves it or not. */
  readonly listeners: readonly string[]
  /** How many workers ended without being asked to, since the keeper began. */
  readonly crashes: number
  /** Workers that do not live: since when, and when the next try is. */
  readonly down: readonly { readonly slot: number; readonly reason: string; readonly nextTryInMs: number; readonly starting?: boolean }[]
  readonly checkpoints: readonly CheckpointStatus[]
  /** Processes that serve in the place of a worker and cannot be handed over, why, and what to do. May be absent. */
  readonly elsewhere?: readonly string[]
  /** Listeners that several workers accept from together, instead of one each, and why. May be absent. */
  readonly shared?: readonly string[]
  /** Absent where none is wanted. */
  readonly spare?: SpareStatus
}

/** Over all processes and generations. */
export interface ServiceStatus {
  /** When the first generation began to listen, in milliseconds since the epoch. */
  readonly startedAt: number
  /** The newest that serves. */
  readonly generation: number
  /** Begun in any generation. */
  readonly requests: number
}

/** One handover of a reload. Times are those of Date.now(). */
export interface HandoverRecord {
  readonly slot: number
  readonly from: Peer
  readonly to: Peer | null
  /** When the successor took over. */
  readonly at: number
  /** When it was taken back. */
  readonly undoneAt?: number
  /** When the predecessor ended its drain. */
  readonly endedAt?: number
  readonly durations: Report['durations']
  /** What became of the connections of the predecessor; absent while it drains. */
  readonly connections?: ConnectionCounts
  readonly requestsCut?: number
}

/** A reload that is over, in short. */
export interface ReloadRecord {
  readonly at: number
  readonly ms: number
  /** Of its error; absent where it succeeded. */
  readonly code?: string
  readonly handovers: readonly HandoverRecord[]
}

export interface AppStatus {
  /** Null where it has none. */
  readonly name: string | null
  /** Null where the processes run without one. */
  readonly keeper: KeeperStatus | null
  /** Null where no process could be asked. */
  readonly service: ServiceStatus | null
  /** Every generation that lives, the serving ones first. */
  readonly processes: readonly ProcessStatus[]
  readonly lastReload: ReloadOutcome | null
  /** The last ten, oldest first. Absent without a keeper. */
  readonly reloads?: readonly ReloadRecord[]
}

/** The options of `handover reload`. Without a keeper all but `wait` and `bakeMs` are refused. */
export interface ReloadRequest {
  /** Answer only when the old generations have ended. */
  readonly wait?: boolean
  /** How many workers go first and are watched. 1. */
  readonly canary?: number
  /** How long those are watched before the rest follows, in milliseconds. 3,000. */
  readonly bakeMs?: number
  /** A path that must answer 2xx in every successor before it accepts anything. */
  readonly probe?: string
  /** After the canary, all workers at once instead of as many as there are cores. */
  readonly parallel?: boolean
  /** Another number of workers from now on. */
  readonly workers?: number
  /** The new version may listen on less than the old one. */
  readonly allowDrop?: boolean
  /** The successor begins without the shared state of its predecessor. */
  readonly withoutState?: boolean
  /** Not the app: the keeper itself. */
  readonly keeper?: boolean
}

/** One step of a reload that runs. */
export interface ReloadEvent {
  /** `stderr`: a line that a successor wrote while it boots. `drains` comes again each second. */
  readonly event: 'starts' | 'boots' | 'prepares' | 'ready' | 'stderr' | 'serves' | 'bakes' | 'drains'
  /** Since the reload began. */
  readonly ms: number
  /** Absent without a keeper. */
  readonly slot?: number
  /** How many slots are reloaded. */
  readonly slots?: number
  readonly pid?: number
  readonly generation?: number
  readonly line?: string
  /** How long it is watched; how long it may still drain. */
  readonly forMs?: number
}

/** An error as another process reads it. Without `serving` and `todo`, `what` is the whole message. */
export interface ErrorReport {
  readonly code: string
  /** The whole text for people. */
  readonly message: string
  readonly what?: string
  readonly serving?: string
  readonly todo?: string
  /** The last lines that the successor wrote to stderr. */
  readonly stderr: string
}

export interface ReloadOutcome {
  readonly ok: boolean
  /** When it began, as Date.now(). */
  readonly at: number
  readonly ms: number
  /**
   * Which process took over from which; `slot` is null without a keeper. `died`: how the predecessor ended (`by SIGKILL`), where that was
   * before all was handed over.
   */
  readonly switched: readonly {
    readonly slot: number | null
    readonly from: Peer | null
    readonly to: Peer
    readonly version: string | null
    readonly died?: string
  }[]
  /** Of each handover; the drains are in it where `wait` was asked for. */
  readonly reports: readonly Report[]
  /** Who serves now. */
  readonly serving: readonly Peer[]
  /** What was not started as it had been typed, because that is gone: each a clause for people. Absent where nothing. */
  readonly notes?: readonly string[]
  /** Where it is not ok. */
  readonly error?: ErrorReport
}

export type ControlRequest =
  | { readonly type: 'request'; readonly verb: 'status' }
  | { readonly type: 'request'; readonly verb: 'reload'; readonly options: ReloadRequest }
  /** Answered when the drain has begun; the connection closes when the process has ended. */
  | { readonly type: 'request'; readonly verb: 'stop' }

export type ControlAnswer =
  /** `text` is for people; empty where the event has no line of its own. */
  | { readonly type: 'progress'; readonly text: string; readonly event: ReloadEvent }
  | { readonly type: 'status'; readonly app: AppStatus }
  | { readonly type: 'reload'; readonly outcome: ReloadOutcome }
  | { readonly type: 'stopping'; readonly pids: readonly number[] }
  /** `reason` is the whole text. Its parts are absent where they are not known. */
  | { readonly type: 'refused'; readonly code: string; readonly reason: string
    readonly what?: string; readonly serving?: string; readonly todo?: string }

const service = { startedAt: number, requests: count }
/** Whatever a later version adds must be optional. */
export const processStatusShape = shape({
  pid: count, generation: count, state: string, name: orNull(string), keeper: orNull(count), slot: orNull(count),
  version: orNull(string), node: string, ageMs: number, listeners: list(string), connections: record(count),
  requests: shape({ inFlight: count, total: count, failed: count }), waitsFor: list(string), endsInMs: orNull(number),
  memory: count, debugged: optional(boolean), loopDelayMs: orNull(number), lastReport: orNull(reportShape), plain: optional(string),
  service: shape({ ...service, id: string, includes: list(string) }),
  start: optional(shape({
    at: number, node: number, load: number, loaded: number, hello: optional(number), offered: optional(number), ready: optional(number),
    serving: optional(number), answered: optional(number)
  })),
  sections: list(shape({ name: string, doing: string, bytes: count }))
})
export const reloadOutcomeShape = shape({
  ok: boolean, at: number, ms: number,
  switched: list(shape({ slot: orNull(count), from: orNull(peerShape), to: peerShape, version: orNull(string), died: optional(string) })),
  reports: list(reportShape), serving: list(peerShape), notes: optional(list(string)),
  error: optional(shape({
    code: string, message: string, what: optional(string), serving: optional(string), todo: optional(string), stderr: string
  }))
})
export const reloadRecordShape = shape({
  at: number, ms: number, code: optional(string),
  handovers: list(shape({
    slot: count, from: peerShape, to: orNull(peerShape), at: number, undoneAt: optional(number), endedAt: optional(number),
    durations: durationsShape, connections: optional(shape(connectionCounts)), requestsCut: optional(count)
  }))
})
const keeperStatus = shape({
  pid: count, version: string, node: string, ageMs: number, workers: count, listeners: list(string), crashes: count,
  down: list(shape({ slot: count, reason: string, nextTryInMs: number, starting: optional(boolean) })),
  checkpoints: list(shape({ slot: count, name: string, bytes: count, ageMs: number })),
  elsewhere: optional(list(string)), shared: optional(list(string)),
  spare: optional(shape({ pid: orNull(count), ready: boolean, used: count, off: optional(string) }))
})
const appStatus = shape({
  name: orNull(string), keeper: orNull(keeperStatus), service: orNull(shape({ ...service, generation: count })),
  processes: list(processStatusShape), lastReload: orNull(reloadOutcomeShape), reloads: optional(list(reloadRecordShape))
})

const answers: Shapes<ControlAnswer> = {
  progress: { text: string, event: shape({
    event: string, ms: number, slot: optional(count), slots: optional(count), pid: optional(count), generation: optional(count),
    line: optional(string), forMs: optional(number)
  }) },
  status: { app: appStatus },
  reload: { outcome: reloadOutcomeShape },
  stopping: { pids: list(count) },
  refused: { code: string, reason: string, what: optional(string), serving: optional(string), todo: optional(string) }
}

export const parseControlAnswer = reader<ControlAnswer>(answers)
