/** `handover status` for people: 80 columns, what serves before what drains, and nothing that needs a legend. Pure. */

import type { ProcessStatus } from '@handover/core/internal'
import { titleOf, type App } from '../client/group-apps.js'
import type { Sheet } from '../report/page.js'
import { cut, duration, megabytes, moment, number, plural, printable, size, whole, wrap } from '../text.js'

export interface Paper {
  readonly width: number
  readonly colours: boolean
  /** As Date.now(). */
  readonly now: number
}

type Ink = 'bold' | 'dim' | NonNullable<Sheet['facts'][number]['ink']>
const codes: Readonly<Record<Ink, number>> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 }

interface Column {
  readonly head: string
  readonly align: 'left' | 'right'
  readonly of: (process: ProcessStatus) => string
}

const openOf = ({ connections }: ProcessStatus): number => Object.values(connections).reduce((sum, count) => sum + count, 0)

/** It did not answer: only what its keeper knows is known. */
const isDeaf = ({ node }: ProcessStatus): boolean => node === ''

const widestVersion = 10
/** With its comma, one line of its own. */
const longestWait = 60
/** Of checkpoints, and of sections on their way. */
const mostShown = 8
const longestSection = 40

const slot: Column = { head: 'SLOT', align: 'right', of: (process) => String(process.slot ?? '-') }
const columns: readonly Column[] = [
  { head: 'PID', align: 'right', of: ({ pid }) => String(pid) },
  { head: 'GEN', align: 'right', of: ({ generation }) => String(generation) },
  { head: 'STATE', align: 'left', of: ({ state }) => state },
  { head: 'VERSION', align: 'left', of: ({ version }) => cut(version ?? '-', widestVersion) },
  { head: 'AGE', align: 'right', of: ({ ageMs }) => duration(ageMs) },
  { head: 'CONNS', align: 'right', of: (process) => (isDeaf(process) ? '-' : number(openOf(process))) },
  { head: 'BUSY', align: 'right', of: (process) => (isDeaf(process) ? '-' : number(process.requests.inFlight)) },
  { head: 'MEMORY', align: 'right', of: (process) => (isDeaf(process) ? '-' : megabytes(process.memory)) },
  { head: 'DELAY', align: 'right', of: ({ loopDelayMs }) => (loopDelayMs === null ? '-' : duration(loopDelayMs)) }
]

const inkOf: Partial<Record<ProcessStatus['state'], 'green' | 'yellow'>> = { serving: 'green', draining: 'yellow', closing: 'yellow' }

/** All apps, with an empty line between two. */
export function describeApps(apps: readonly App[], paper: Paper): string {
  return sheetsOf(apps, paper.now).map((sheet) => describeSheet(sheet, paper)).join('\n')
}

/** For text and for a page. */
export function sheetsOf(apps: readonly App[], now: number): Sheet[] {
  const clean = JSON.parse(JSON.stringify(apps), (_key, value: unknown) => (typeof value === 'string' ? printable(value) : value)) as App[]
  return clean.map((app) => sheetOf(app, now))
}

function describeSheet({ title, facts, heads, rows }: Sheet, { width, colours }: Paper): string {
  const paint = (ink: Ink | undefined, text: string): string => (colours && ink ? `\u{1b}[${codes[ink]}m${text}\u{1b}[0m` : text)
  const indented = (text: string, by: number): string => wrap(text, width - by, ' '.repeat(by))
  const lines = [paint('bold', title), ...facts.map(({ label, text, ink }) => `  ${paint('dim', label.padEnd(10))}${paint(ink, indented(text, 12))}`)]
  const widths = heads.map(({ head }, index) => Math.max(head.length, ...rows.map(({ cells }) => cells[index]?.length ?? 0)))
  const row = (texts: readonly string[], inks: readonly (Ink | undefined)[] = []): string => texts.map((text, index) => {
    const wide = widths[index] ?? 0
    return paint(inks[index], heads[index]?.align === 'left' ? text.padEnd(wide) : text.padStart(wide))
  }).join('  ').trimEnd()
  if (rows.length > 0) lines.push('', `  ${paint('dim', row(heads.map(({ head }) => head)))}`)
  for (const { cells, ink, details } of rows) {
    lines.push(`  ${row(cells, heads.map(({ head }) => (head === 'STATE' ? ink : undefined)))}`)
    for (const detail of details) lines.push(paint('dim', `      ${indented(detail, 6)}`))
  }
  return `${lines.join('\n')}\n`
}

function sheetOf(app: App, now: number): Sheet {
  const facts: Sheet['facts'][number][] = []
  const fact = (label: string, text: string, ink?: 'red' | 'yellow'): void => { facts.push({ label, text, ...(ink && { ink }) }) }

  const serving = app.processes.filter(({ state }) => state !== 'draining' && state !== 'closing')
  const { keeper, lostKeeper, deafKeeper } = app
  const listeners = [...new Set(serving.flatMap((process) => process.listeners))]
  if (listeners.length > 0) fact('listens', listeners.join(', '))
  else if (keeper && keeper.listeners.length > 0) {
    const kept = keeper.listeners.join(', ')
    if (serving.some(({ state }) => state === 'serving')) fact('listens', kept)
    else fact('listens', `${kept}: kept, but nobody serves; connects wait`, 'red')
  }
  const { service } = app
  if (service) fact('service', [`up ${duration(Math.max(0, now - service.startedAt))} (since ${moment(service.startedAt)})`, ...(service.generation > 0 ? [`generation ${service.generation}`] : []), plural(service.requests, 'request')].map(whole).join(', '))
  if (keeper) {
    fact('keeper', `process ${keeper.pid}, version ${keeper.version}, Node ${keeper.node}, up ${duration(keeper.ageMs)}; ${plural(keeper.workers, 'worker')}, ${whole(keeper.crashes === 0 ? 'no crash' : keeper.crashes === 1 ? '1 crash' : `${number(keeper.crashes)} crashes`)}`)
    for (const place of keeper.elsewhere ?? []) fact('serves', `${place}.`, 'yellow')
    for (const shares of keeper.shared ?? []) fact('shared', `${shares}.`, 'yellow')
    for (const { slot, reason, nextTryInMs, starting = false } of keeper.down) {
      const next = nextTryInMs > 0 ? `; next try in ${duration(nextTryInMs)}` : starting ? '' : '; the next one is started'
      fact('down', `slot ${slot}: ${reason}${next}`, 'red')
    }
  }
  const checkpoints = keeper?.checkpoints ?? []
  if (checkpoints.length > 0) {
    const said = checkpoints.slice(0, mostShown).map(({ slot, name, bytes, ageMs }) => whole(`${keeper?.workers === 1 ? '' : `slot ${slot}: `}${cut(name, longestSection)} (${size(bytes)}, ${duration(ageMs)} ago)`))
    fact('state', `checkpoints of ${said.join(', ')}${checkpoints.length > mostShown ? ` and ${number(checkpoints.length - mostShown)} more` : ''}`)
  }
  if (deafKeeper !== null) fact('keeper', `${deafKeeper.what}; its workers serve meanwhile`, 'red')
  if (lostKeeper !== null) fact('keeper', `process ${lostKeeper} is gone; its workers go on without it`, 'red')
  const { lastReload } = app
  if (lastReload) {
    const ago = `${duration(Math.max(0, now - lastReload.at))} ago`
    if (lastReload.ok) fact('reload', `${ago}, done in ${duration(lastReload.ms)}: ${describeSwitches(app)}`)
    else fact('reload', `${ago}, failed: ${lastReload.error?.message.split(/\n|\u{fffd}/u, 1)[0] ?? ''}${lastReload.error ? ` (${lastReload.error.code})` : ''}`, 'red')
  }

  const shown = keeper || lostKeeper !== null || deafKeeper !== null ? [slot, ...columns] : columns
  const rows = app.processes.map((process) => {
    const ink = inkOf[process.state]
    return { cells: shown.map(({ of }) => of(process)), details: detailsOf(process), ...(ink && { ink }) }
  })
  return { title: titleOf(app), facts, heads: shown.map(({ head, align }) => ({ head, align })), rows }
}

/** What the table has no room for. */
function detailsOf(process: ProcessStatus): string[] {
  const { connections, requests, sections, waitsFor, endsInMs, version, node, state, pid } = process
  if (isDeaf(process)) return state === 'idle' ? ['does not answer yet'] : [`does not answer: its event loop is blocked. If that lasts, kill -9 ${pid}`]
  const kinds = Object.entries(connections).filter(([, count]) => count > 0).sort()
    .map(([kind, count]) => whole(`${number(count)} ${kind}`))
  const facts = [
    ...(kinds.length > 0 ? [kinds.join(', ')] : []),
    plural(requests.total, 'request'),
    ...(requests.failed > 0 ? [`${number(requests.failed)} failed`] : []),
    ...((version?.length ?? 0) > widestVersion ? [`version ${version}`] : []),
    `Node ${node}`
  ]
  const drains = state === 'draining' || state === 'closing'
  const waits = waitsFor.length > 0 ? `waits for ${waitsFor.map((each) => whole(cut(each, longestWait))).join(', ')}` : 'waits for nothing but its undo window'
  const moving = sections.slice(0, mostShown).map(({ name, doing, bytes }) => whole(`${cut(name, longestSection)} ${doing} (${size(bytes)})`))
  const underway = moving.length > 0 ? [`state: ${moving.join(', ')}${sections.length > mostShown ? ` and ${number(sections.length - mostShown)} more` : ''}`] : []
  const ends = endsInMs === null ? '' : `; ${whole(`ends in ${duration(endsInMs)} at the latest`)}`
  return [facts.map(whole).join(' · '), ...underway, ...(drains ? [`${waits}${ends}`] : [])]
}

function describeSwitches({ lastReload }: App): string {
  const { switched = [], reports = [] } = lastReload ?? {}
  // Each slot counts its own generations.
  const slots = new Map<string, number>()
  for (const { from, to } of switched) {
    const change = from ? `${from.generation} to ${to.generation}` : `${to.generation} was started`
    slots.set(change, (slots.get(change) ?? 0) + 1)
  }
  const moved = reports.reduce((sum, { connections }) => sum + connections.moved, 0)
  const cuts = reports.reduce((sum, { connections }) => sum + connections.cut, 0)
  const changes = [...slots].map(([change, count]) => `${change}${switched.length > 1 ? ` in ${plural(count, 'slot')}` : ''}`)
  const what = changes.length > 0 ? `generation ${changes.join(', ')}` : 'nothing was switched'
  return [what, ...(moved > 0 ? [whole(`${plural(moved, 'connection')} moved`)] : []), ...(cuts > 0 ? [`${cuts} cut`] : [])].join(', ')
}
