/**
 * The last reloads of an app as a picture, an SVG: in each slot who accepted when, by generation, with the phases of the handover and what
 * became of connections. Whatever comes from the app is escaped. Pure.
 */

import type { AppStatus, HandoverRecord, ReloadOutcome, ReloadRecord, Report } from '@handover/core/internal'
import { duration, number, plural } from '../text.js'

export const escaped = (text: string): string => text.replace(/[&<>"']/g, (each) => `&#${each.charCodeAt(0)};`)

const width = 900
export const left = 195
export const right = width - 25
const laneHeight = 18
/** Of one reload. */
const mostHandovers = 16

const colours = {
  launch: '#a9c4de', prepare: '#5b8db8', commit: '#c8553d', accepts: '#86b06a', move: '#4f8a4b', drains: '#e3cf95'
} as const
type Doing = keyof typeof colours

export const text = (x: number, y: number, of: string, more = ''): string => `<text x="${x}" y="${y}"${more}>${escaped(of)}</text>`
const dim = ' fill="#667"'

export interface Drawing {
  readonly svg: string
  readonly height: number
}

/** Milliseconds on the horizontal axis. */
export interface Axis {
  readonly from: number
  readonly to: number
  /** Which of them the labels count from. */
  readonly zero: number
}

export const xOf = ({ from, to }: Axis, at: number): number =>
  Math.round((left + Math.min(1, Math.max(0, (at - from) / (to - from))) * (right - left)) * 10) / 10

export function ticks(axis: Axis, top: number, bottom: number): string {
  const rough = (axis.to - axis.from) / 6
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)))
  const step = power * ([1, 2, 5].find((times) => times * power >= rough) ?? 10)
  const lines: string[] = []
  for (let ms = Math.ceil((axis.from - axis.zero) / step) * step; axis.zero + ms <= axis.to; ms += step) {
    const x = xOf(axis, axis.zero + ms)
    const label = ms === 0 ? '0' : step < 100 ? `${ms} ms` : `${Math.round(ms / 100) / 10} s`
    lines.push(`<path d="M${x} ${top}V${bottom}" stroke="#e3e5ea"/>`, text(x, bottom + 12, label, `${dim} text-anchor="middle" font-size="10"`))
  }
  return lines.join('')
}

function bar(axis: Axis, y: number, doing: Doing, from: number, to: number): string {
  if (to <= axis.from || from >= axis.to || to < from) return ''
  const x = xOf(axis, from)
  const wide = Math.max(1, Math.round((xOf(axis, to) - x) * 10) / 10)
  const long = Number.isFinite(from) && Number.isFinite(to) ? `: ${duration(to - from)}` : ''
  return `<rect x="${x}" y="${y}" width="${wide}" height="12" fill="${colours[doing]}"><title>${doing}${long}</title></rect>`
}

export const switchesOf = ({ handovers }: ReloadRecord): number[] => handovers.map(({ at }) => at)

/** Two lanes for each slot, a bar a generation, and a line of figures. */
export function lanes({ handovers }: ReloadRecord, axis: Axis, top: number): Drawing {
  let y = top
  const parts: string[] = []
  for (const handover of handovers.slice(0, mostHandovers)) {
    const { slot, from, to, at, undoneAt, endedAt = Infinity, durations: { launch, prepare, commit, move } } = handover
    const ready = at - (commit ?? 0)
    const hello = ready - (prepare ?? 0)
    const drainEnd = undoneAt ?? endedAt
    const lane = (generation: number, pid: number, bars: readonly string[]): void => {
      parts.push(text(0, y + 10, `slot ${slot}: generation ${generation} (${pid})`), ...bars)
      y += laneHeight
    }
    lane(from.generation, from.pid, [
      bar(axis, y, 'accepts', -Infinity, at), bar(axis, y, 'drains', at, drainEnd), bar(axis, y, 'move', at, at + (move ?? 0)),
      undoneAt === undefined ? '' : bar(axis, y, 'accepts', undoneAt, Infinity)
    ])
    if (to) lane(to.generation, to.pid, [
      bar(axis, y, 'launch', hello - (launch ?? 0), hello), bar(axis, y, 'prepare', hello, ready), bar(axis, y, 'commit', ready, at),
      bar(axis, y, 'accepts', at, undoneAt ?? Infinity)
    ])
    parts.push(text(left, y + 9, figuresOf(handover), `${dim} font-size="11"`))
    y += laneHeight + 4
  }
  if (handovers.length > mostHandovers) {
    parts.push(text(left, y + 9, `and ${plural(handovers.length - mostHandovers, 'more handover')}`, dim))
    y += laneHeight
  }
  return { svg: parts.join(''), height: y - top }
}

function figuresOf({ durations, connections, requestsCut = 0, undoneAt }: HandoverRecord): string {
  const phases = Object.entries(durations).flatMap(([phase, ms]) => (ms === null ? [] : [`${phase} ${duration(ms)}`])).join(' · ')
  if (undoneAt !== undefined) return `${phases}; it was taken back`
  if (!connections) return `${phases}; it drains`
  const { moved, drained, closedIdle, cut } = connections
  const cuts = requestsCut > 0 ? ` (${plural(requestsCut, 'request')})` : ''
  return `${phases}; ${number(moved)} moved, ${number(drained)} drained, ${number(closedIdle)} closed idle, ${number(cut)} cut${cuts}`
}

/** Long drains go beyond the right edge: what is seen is the switch. */
function axisOf({ at: zero, ms, handovers }: ReloadRecord): Axis {
  const last = Math.max(...handovers.map(({ at }) => at), zero)
  const span = Math.max(last - zero, handovers.length > 0 ? 50 : ms)
  const ends = Math.max(...handovers.map(({ endedAt = Infinity }) => endedAt))
  return { zero, from: zero - span * 0.05, to: Math.max(last + span * 0.15, Math.min(ends + span * 0.05, last + span)) }
}

/**
 * Of a keeper that keeps no history, and of a process without one. When each slot switched is not known then: all begin with the reload.
 * `later`: reports that may have come since.
 */
export function recordOf({ at: begun, ms, error, reports }: ReloadOutcome, later: readonly Report[] = []): ReloadRecord {
  // The report of a drain has all that the report of its switch has.
  const known = new Map(reports.map((report) => [report.predecessor.pid, report]))
  for (const report of later) {
    if (report.result === 'drained' && known.has(report.predecessor.pid)) known.set(report.predecessor.pid, report)
  }
  const handovers = [...known.values()].map((report, slot) => {
    const { result, predecessor: from, successor: to, durations, requestsCut, requestsCutBeside = 0 } = report
    const at = begun + (durations.launch ?? 0) + (durations.prepare ?? 0) + (durations.commit ?? 0)
    const { moved, drained, closedIdle, cut } = report.connections
    const became = { connections: { moved, drained, closedIdle, cut }, requestsCut: requestsCut.length + requestsCutBeside }
    return { slot, from, to, at, durations, ...(result === 'drained' && { endedAt: at + (durations.drain ?? 0), ...became }) }
  })
  return { at: begun, ms, ...(error && { code: error.code }), handovers }
}

/** Newest first. */
export function recordsOf({ reloads, lastReload, processes }: AppStatus): ReloadRecord[] {
  if (reloads && (reloads.length > 0 || !lastReload)) return reloads.toReversed()
  return lastReload ? [recordOf(lastReload, processes.flatMap(({ lastReport }) => lastReport ?? []))] : []
}

export function legend(y: number): string {
  return Object.entries(colours).map(([doing, colour], index) => {
    const x = left + index * 90
    return `<rect x="${x}" y="${y - 9}" width="10" height="10" fill="${colour}"/>${text(x + 15, y, doing)}`
  }).join('')
}

export function svg(title: string, height: number, body: string): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 ${width + 10} ${height}" width="${width + 10}" height="${height}" font-family="system-ui, sans-serif" font-size="12" fill="#1f2430" role="img"><title>${escaped(title)}</title><rect x="-10" width="${width + 10}" height="${height}" fill="#fff"/>${body}</svg>`
}

export function svgOf(app: AppStatus): string {
  const records = recordsOf(app)
  const parts = records.length > 0 ? [legend(20)] : [text(0, 20, 'No reload is known')]
  let y = 44
  for (const record of records) {
    const { at, ms, code, handovers } = record
    const became = code === undefined ? `reloaded in ${duration(ms)}` : `the reload failed after ${duration(ms)} (${code})`
    parts.push(text(0, y, `${new Date(at).toISOString().slice(0, 19).replace('T', ' ')} UTC: ${became}`, ' font-weight="bold"'))
    y += 12
    if (handovers.length > 0) {
      const axis = axisOf(record)
      const drawn = lanes(record, axis, y)
      parts.push(ticks(axis, y, y + drawn.height), drawn.svg)
      y += drawn.height + 14
    }
    y += 22
  }
  const { processes } = app
  if (processes.length > 0) parts.push(text(0, y, 'Generations that live, by their age', ' font-weight="bold"'))
  const oldest = Math.max(1, ...processes.map(({ ageMs }) => ageMs))
  for (const { pid, generation, state, ageMs } of processes) {
    y += laneHeight
    const wide = Math.max(1, Math.round((right - left) * ageMs / oldest))
    const colour = colours[state === 'serving' ? 'accepts' : 'drains']
    parts.push(text(0, y, `generation ${generation} (${pid})`), `<rect x="${right - wide}" y="${y - 10}" width="${wide}" height="12" fill="${colour}"><title>${escaped(state)}, ${duration(ageMs)}</title></rect>`)
  }
  return svg(`The last reloads of ${app.name ?? 'the app'}`, y + 15, parts.join(''))
}
