/** The last reload of an app as a picture, an SVG. Whatever comes from the app is escaped. Pure. */

import type { AppStatus, Report } from '@handover/core/internal'
import { duration, number } from '../text.js'

export const escaped = (text: string): string => text.replace(/[&<>"']/g, (each) => `&#${each.charCodeAt(0)};`)

const width = 900
const left = 190
const rowHeight = 34
const phases = [['launch', '#7aa2c8'], ['prepare', '#5b8db8'], ['commit', '#c86b4a'], ['move', '#8fb573'], ['drain', '#d9c58a']] as const

interface Bar {
  readonly title: string
  readonly pieces: readonly { readonly phase: string; readonly colour: string; readonly ms: number }[]
  readonly beside: string
}

function barOf({ predecessor, successor, durations, connections, result }: Report): Bar {
  const to = successor === null ? '' : ` → ${successor.generation} (${successor.pid})`
  const { moved, drained, closedIdle, cut } = connections
  const counts = result === 'drained' ? `${number(moved)} moved, ${number(drained)} drained, ${number(closedIdle)} closed idle, ${number(cut)} cut` : ''
  return {
    title: `${predecessor.generation} (${predecessor.pid})${to}`,
    pieces: phases.flatMap(([phase, colour]) => {
      const ms = durations[phase]
      return ms === null ? [] : [{ phase, colour, ms }]
    }),
    beside: counts
  }
}

const text = (x: number, y: number, of: string): string => `<text x="${x}" y="${y}">${escaped(of)}</text>`

export function svgOf(app: AppStatus): string {
  // The report of a drain has all that the report of its switch has.
  const reports = new Map((app.lastReload?.reports ?? []).map((report) => [report.predecessor.pid, report]))
  const bars = [...reports.values()].map(barOf)
  const longest = Math.max(1, ...bars.map(({ pieces }) => pieces.reduce((sum, { ms }) => sum + ms, 0)))
  const oldest = Math.max(1, ...app.processes.map(({ ageMs }) => ageMs))
  const scale = (ms: number, most: number): number => Math.round((width - left - 20) * ms / most * 10) / 10
  const rows = bars.map(({ title, pieces, beside }, index) => {
    const y = 50 + index * rowHeight
    let x = left
    const parts = pieces.map(({ phase, colour, ms }) => {
      const at = x
      x += scale(ms, longest)
      return `<rect x="${at}" y="${y}" width="${Math.max(1, x - at)}" height="14" fill="${colour}"><title>${phase}: ${duration(ms)}</title></rect>`
    })
    return `${text(0, y + 11, title)}${parts.join('')}${text(left, y + 27, `${pieces.map(({ phase, ms }) => `${phase} ${duration(ms)}`).join(' · ')}${beside === '' ? '' : `; ${beside}`}`)}`
  })
  const generationsAt = 80 + bars.length * rowHeight
  const generations = app.processes.map(({ pid, generation, state, ageMs }, index) => {
    const y = generationsAt + index * 22
    const bar = scale(ageMs, oldest)
    return `${text(0, y + 11, `generation ${generation} (${pid})`)}<rect x="${width - 20 - bar}" y="${y}" width="${Math.max(1, bar)}" height="14" fill="${state === 'serving' ? '#8fb573' : '#d9c58a'}"><title>${escaped(state)}, ${duration(ageMs)}</title></rect>`
  })
  const height = generationsAt + app.processes.length * 22 + 10
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="12" role="img"><title>${escaped(`The last reload of ${app.name ?? 'the app'}`)}</title>${text(0, 24, bars.length > 0 ? 'The last reload: each handover, by its phases' : 'No handover is known')}${rows.join('')}${text(0, generationsAt - 8, 'Generations that live, by their age')}${generations.join('')}</svg>`
}
