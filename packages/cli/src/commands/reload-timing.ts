/** Where the time of a reload went, phase by phase, for `handover reload --timing`: each new process tells when it reached each step. */

import type { ProcessStatus, ReloadOutcome } from '@handover/core/internal'
import { statusesOf } from '../client/find-apps.js'

/** More columns would not fit into a terminal. */
const mostShown = 8

/** In milliseconds; null where it did not happen, or not yet. */
export interface Timing {
  readonly slot: number | null
  readonly pid: number
  readonly phases: Readonly<Record<Phase, number | null>>
}

const phases = {
  start: 'until its process starts',
  node: 'Node boots',
  load: 'Handover is loaded',
  app: "the app's modules, until listen()",
  offer: 'the offer comes',
  prepare: 'claims and restores, until ready',
  commit: 'commit, until it serves',
  answer: 'until its first answer is written'
}
type Phase = keyof typeof phases

/** Of each process that serves now, when it has answered a first request. One that is gone, or does not answer, is left out. */
export async function timingOf({ at, switched }: ReloadOutcome): Promise<Timing[]> {
  const statuses = await statusesOf(switched.map(({ to }) => to), ({ start }) => start?.answered !== undefined)
  return switched.flatMap(({ slot, to }, index) => {
    const start = statuses[index]?.start
    return start ? [{ slot, pid: to.pid, phases: phasesOf(start, at) }] : []
  })
}

/** Pure. `at`: when the reload began. What a process did before that, as a spare one, is no part of it. */
export function phasesOf(start: NonNullable<ProcessStatus['start']>, at: number): Timing['phases'] {
  const { node, load, loaded, hello, offered, ready, serving, answered } = start
  const booted = Math.min(node, load)
  // What is loaded by the app, after Node has booted, counts as loaded first: the rest is the app's.
  const ends: Record<Phase, number | undefined> = {
    start: 0, node: booted, load: booted + loaded - load, app: hello ?? serving, offer: offered, prepare: ready, commit: serving,
    answer: answered
  }
  let before = 0
  return Object.fromEntries(Object.entries(ends).map(([phase, end]) => {
    if (end === undefined) return [phase, null]
    const now = Math.max(before, start.at + end - at)
    const ms = Math.round((now - before) * 10) / 10
    before = now
    return [phase, ms]
  })) as Record<Phase, number | null>
}

/** A table with a column for each slot. */
export function describeTiming(all: readonly Timing[]): string {
  if (all.length === 0) return 'timing: the new version does not tell\n'
  const shown = all.slice(0, mostShown)
  const rows = [
    ['where the time went, in ms', ...shown.map(({ slot }) => (slot === null ? '' : `slot ${slot}`))],
    ...Object.entries(phases).map(([phase, text]) => [text, ...shown.map((each) => wholeMs(each.phases[phase as Phase]))])
  ]
  const width = Math.max(...rows.map(([text = '']) => text.length))
  const lines = rows.map(([text = '', ...cells]) => [text.padEnd(width), ...cells.map((cell) => cell.padStart(7))].join('  ').trimEnd())
  const more = all.length - shown.length
  return `${lines.join('\n')}\n${more > 0 ? `and ${more} more: see --json\n` : ''}`
}

const wholeMs = (ms: number | null): string => (ms === null ? '-' : ms.toFixed(0))
