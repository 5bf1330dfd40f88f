/**
 * The report that every handover ends in, and its one-line form for the log. Pure.
 */

import { withoutStop } from '../errors.js'
import { count, list, number, oneOf, optional, orNull, record, shape, string, type Check } from './json-lines.js'

/** A request that had no whole answer at the drain deadline. */
export interface CutRequest {
  /** Of the request: `GET`. */
  readonly method: string
  /** The request target without its query, which may hold secrets; cut after 200 characters. */
  readonly path: string
  /** How long it had been running, in milliseconds. */
  readonly ms: number
}

/** What became of the connections of one kind. */
export interface ConnectionCounts {
  /** Still open, and served by the successor. */
  readonly moved: number
  /** Ended by themselves, or after an answer that said `Connection: close` (or GOAWAY). */
  readonly drained: number
  /** Closed after they had been idle for `linger`, or until the drain deadline. */
  readonly closedIdle: number
  /** Closed in the middle of something at the drain deadline. */
  readonly cut: number
}

/** What became of the shared state at the switch, as the successor has it. */
export interface StateReport {
  /** Names of the sections that arrived. */
  readonly restored: readonly string[]
  /** Saved, but the new version has no share() of that name. */
  readonly unclaimed: readonly string[]
  /** Not restored; the section is optional, or the predecessor was gone. */
  readonly failed: readonly { readonly name: string; readonly reason: string }[]
}

export type StopSignal = 'SIGTERM' | 'SIGINT'

/** What a reload, an undo or a stop ended in. Numbers are connections, unless they say milliseconds. */
export interface Report {
  /**
   * `switched`: the successor serves, the predecessor drains. `drained`: the predecessor has ended its drain.
   * `undone`: the predecessor serves again, since the successor died, hung or was recalled. `stopped`: a drain without a successor.
   */
  readonly result: 'switched' | 'drained' | 'undone' | 'stopped'
  /** What asked for it: a signal, reload(), a second start of the program, the keeper, or a stop. */
  readonly trigger: 'signal' | 'call' | 'rendezvous' | 'keeper' | 'stop'
  /** The process that served before. */
  readonly predecessor: { readonly pid: number; readonly generation: number }
  /** The process that serves after it; null after a stop. */
  readonly successor: { readonly pid: number; readonly generation: number } | null
  /** Names of listeners: passed on, bound by the successor alone, given up. */
  readonly listeners: {
    readonly kept: readonly string[]
    readonly added: readonly string[]
    readonly dropped: readonly string[]
  }
  /** The shared state. Empty where there is none. */
  readonly state: StateReport
  /** Connections of the predecessor. After `switched` only `open` is known; then open = moved + drained + closedIdle + cut. */
  readonly connections: ConnectionCounts & {
    /** When the drain began, and those that came to this process since. */
    readonly open: number
    /** The same by kind: `http`, `https`, `http2`, `upgraded`, `socket`, and what the application names in move(). */
    readonly kinds: Readonly<Record<string, ConnectionCounts>>
    /** Why connections were not moved, and how many: `TLS`, `HTTP/2`, `vetoed by canMove` … Empty where there was no successor. */
    readonly stayed: Readonly<Record<string, number>>
  }
  /** The requests that the drain deadline cut: the first 1,000 of them. */
  readonly requestsCut: readonly CutRequest[]
  /** How many more there were. */
  readonly requestsCutBeside?: number
  /**
   * What of the program's cleanup had not ended in time, and was cut: its close hooks, or its own listeners for this signal. Absent where
   * all ended.
   */
  readonly cleanupCut?: 'close hooks' | StopSignal
  /** Milliseconds of each phase; null where a phase did not happen (yet). */
  readonly durations: {
    /** From the trigger to the successor's hello: Node starts, and the program boots up to its first listen(). */
    readonly launch: number | null
    /** From hello to ready: it claims its listeners, and whatever else comes before it is ready. */
    readonly prepare: number | null
    /** From ready to the predecessor's last accept. */
    readonly commit: number | null
    /** From the begin of the drain until all connections that could move at once were served by the successor. */
    readonly move: number | null
    readonly drain: number | null
  }
}

const names = list(string)
export const peerShape = shape({ pid: count, generation: count })
export const connectionCounts = { moved: count, drained: count, closedIdle: count, cut: count }
const phaseMs = orNull(number)
export const durationsShape = shape({ launch: phaseMs, prepare: phaseMs, commit: phaseMs, move: phaseMs, drain: phaseMs })
export const stateReportShape: Check<StateReport> = shape({
  restored: names, unclaimed: names, failed: list(shape({ name: string, reason: string }))
})
/** Whatever a later version adds must be optional. */
export const reportShape: Check<Report> = shape({
  result: oneOf('switched', 'drained', 'undone', 'stopped'),
  trigger: string as Check<Report['trigger']>,
  predecessor: peerShape,
  successor: orNull(peerShape),
  listeners: shape({ kept: names, added: names, dropped: names }),
  state: stateReportShape,
  connections: shape({ ...connectionCounts, open: count, kinds: record(shape(connectionCounts)), stayed: record(count) }),
  requestsCut: list(shape({ method: string, path: string, ms: number })),
  requestsCutBeside: optional(count),
  cleanupCut: optional(string as Check<'close hooks' | StopSignal>),
  durations: durationsShape
})

/** A report must fit into a message, and so must those of all workers in one reload together. */
export const mostCutNamed = 1_000
/** In one line for people: so many of a list, and so many characters of each and of all. */
const mostShown = 20
const longestShown = 240
const longestList = 2_000
const longestPath = 200

/** Of a request, without its query. */
export function pathOf(target: string): string {
  const [plain = ''] = target.split(/[?#]/, 1)
  return plain.length > longestPath ? `${plain.slice(0, longestPath)}…` : plain
}

/** Names at most so many of the requests that were cut; the others are counted. */
export function shortened(report: Report, most: number): Report {
  const { requestsCut, requestsCutBeside = 0 } = report
  if (requestsCut.length <= most) return report
  return { ...report, requestsCut: requestsCut.slice(0, most), requestsCutBeside: requestsCutBeside + requestsCut.length - most }
}

/** The same of several reports, which share what can be named. */
export function shortenedTogether(reports: readonly Report[]): Report[] {
  const cutting = reports.filter(({ requestsCut }) => requestsCut.length > 0).length
  return reports.map((report) => shortened(report, Math.floor(mostCutNamed / cutting)))
}

export const noState: StateReport = { restored: [], unclaimed: [], failed: [] }

/** How an error names a process. */
export const describeProcess = ({ pid, generation }: { readonly pid: number; readonly generation: number }): string =>
  `process ${pid || '?'} (generation ${generation})`

/** The same at the beginning of a sentence. */
export const processFirst = (process: Parameters<typeof describeProcess>[0]): string =>
  describeProcess(process).replace('process', 'Process')

/** The first of them, in a line that stays readable however many there are; `beside`: how many more there are than these. */
export function listed(all: readonly string[], beside = 0): string {
  const shown: string[] = []
  let characters = 0
  for (const text of all.slice(0, mostShown)) {
    const short = text.length > longestShown ? `${text.slice(0, longestShown)}…` : text
    characters += short.length
    if (characters > longestList) break
    shown.push(short)
  }
  const more = all.length - shown.length + beside
  return [...shown, ...(more > 0 ? [`and ${more} more`] : [])].join(', ')
}

const ms = (value: number | null): string => (value === null ? '-' : `${Math.round(value)} ms`)
const who = (peer: { pid: number; generation: number }): string => `generation ${peer.generation} (process ${peer.pid})`
export const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`

const cutText = ({ requestsCut, requestsCutBeside }: Report): string =>
  listed(requestsCut.map(({ method, path, ms: after }) => `${method} ${path} after ${after} ms`), requestsCutBeside)

/** Begins with a separator; empty where no state was shared. */
function stateText({ restored, unclaimed, failed }: StateReport): string {
  const parts = [
    ...(restored.length > 0 ? [`${plural(restored.length, 'section')} restored`] : []),
    ...(unclaimed.length > 0 ? [`not restored, the new version has no share() of that name: ${listed(unclaimed)}`] : []),
    ...(failed.length > 0 ? [`not restored: ${listed(failed.map(({ name, reason }) => `${name} (${withoutStop(reason)})`))}`] : [])
  ]
  return parts.map((part) => `; ${part}`).join('')
}

/** One line for people. */
export function describeReport(report: Report): string {
  const { connections, listeners, durations } = report
  const listenerText = [
    `${plural(listeners.kept.length, 'listener')} kept`,
    ...(listeners.added.length > 0 ? [`added ${listed(listeners.added)}`] : []),
    ...(listeners.dropped.length > 0 ? [`dropped ${listed(listeners.dropped)}`] : [])
  ].join(', ')
  const stayed = Object.entries(connections.stayed).map(([reason, count]) => `${count} ${reason}`)
  const moved = report.successor ? `${plural(connections.moved, 'connection')} moved, ${connections.drained}` : plural(connections.drained, 'connection')
  const end = `${moved} drained, ${connections.closedIdle} closed idle, ${connections.cut} cut` +
    ` in ${ms(durations.drain)}` +
    (stayed.length > 0 ? `; not moved: ${listed(stayed)}` : '') +
    (report.requestsCut.length > 0 ? `; cut: ${cutText(report)}` : '') +
    (report.cleanupCut === undefined ? '' : `; cleanup cut: ${report.cleanupCut === 'close hooks' ? report.cleanupCut : `listeners for ${report.cleanupCut}`}`)
  const successor = report.successor ? who(report.successor) : 'the successor'
  switch (report.result) {
    case 'switched':
      return `${successor} serves; ${listenerText}${stateText(report.state)}; launch ${ms(durations.launch)}, prepare ${ms(durations.prepare)}, commit ${ms(durations.commit)}; ` +
        `${who(report.predecessor)} drains ${plural(connections.open, 'connection')}`
    case 'drained':
      return `${who(report.predecessor)} has ended: ${end}`
    case 'undone':
      return `${who(report.predecessor)} serves again: the switch to ${successor} was undone`
    case 'stopped':
      return `${who(report.predecessor)} has stopped: ${end}`
  }
}
