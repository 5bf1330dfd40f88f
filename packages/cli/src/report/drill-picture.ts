/**
 * A drill as a picture: the requests that were answered in each 10 ms, how long they took, what was lost, and below them which generation
 * accepted, all on one axis of time. Pure.
 */

import type { ReloadRecord } from '@handover/core/internal'
import { number } from '../text.js'
import { left, legend, right, svg, text, ticks, lanes, switchesOf, xOf, type Axis } from './picture.js'

/** By slices of `ms`, from the beginning of the load. */
export interface DrillSlices {
  readonly ms: number
  readonly answers: readonly number[]
  readonly lost: readonly number[]
  /** In milliseconds, of the answers of a slice: the longest and the sum. */
  readonly slowest: readonly number[]
  readonly sums: readonly number[]
}

export interface DrillFigures {
  readonly slices: DrillSlices
  /** When the first slice began, as Date.now(). */
  readonly beganAt: number
  /** In milliseconds since then. */
  readonly reload: { readonly from: number; readonly to: number }
  readonly record: ReloadRecord
}

const chartHeight = 90
/** Narrower bars than a pixel would hide each other. */
const mostBars = 700
const before = 300
const after = 500

interface Slice {
  readonly at: number
  readonly answers: number
  readonly lost: number
  readonly slowest: number
  readonly mean: number
}

function slicesIn({ slices: { ms, answers, lost, slowest, sums }, beganAt }: DrillFigures, { from, to }: Axis, times: number): Slice[] {
  const sum = (of: readonly number[], index: number): number => of.slice(index, index + times).reduce((all, each) => all + each, 0)
  const first = Math.max(0, Math.floor((from - beganAt) / ms / times) * times)
  const last = Math.min(answers.length, Math.ceil((to - beganAt) / ms))
  return Array.from({ length: Math.max(0, Math.ceil((last - first) / times)) }, (_, index) => {
    const start = first + index * times
    const count = sum(answers, start)
    const longest = Math.max(0, ...slowest.slice(start, start + times))
    const mean = count === 0 ? 0 : sum(sums, start) / count
    return { at: beganAt + start * ms, answers: count, lost: sum(lost, start), slowest: longest, mean }
  })
}

interface Series {
  readonly of: (slice: Slice) => number
  readonly colour: string
}

function chart(slices: readonly Slice[], axis: Axis, sliceMs: number, top: number, series: readonly Series[]): string {
  const most = Math.max(1, ...slices.flatMap((slice) => series.map(({ of }) => of(slice))))
  const bottom = top + chartHeight
  const wide = Math.max(0.5, (right - left) * sliceMs / (axis.to - axis.from) - 0.2)
  const bars = series.map(({ of, colour }) => {
    const path = slices.filter((slice) => of(slice) > 0).map((slice) => {
      const high = Math.max(1, Math.round(of(slice) / most * chartHeight * 10) / 10)
      const x = xOf(axis, slice.at)
      return `M${x} ${bottom}v-${high}h${Math.round(Math.min(wide, right - x) * 100) / 100}v${high}z`
    })
    return path.length === 0 ? '' : `<path d="${path.join('')}" fill="${colour}"/>`
  })
  const label = ' fill="#667" text-anchor="end" font-size="10"'
  return `${bars.join('')}<path d="M${left} ${bottom}H${right}" stroke="#9aa"/>${text(left - 6, top + 8, number(Math.round(most * 10) / 10), label)}${text(left - 6, bottom, '0', label)}`
}

/** Over the first switch, each 10 ms by itself. */
export function overSwitch(figures: DrillFigures): Axis {
  const { beganAt, reload, record } = figures
  const [first = beganAt + reload.to] = switchesOf(record).toSorted((one, other) => one - other)
  const from = Math.max(beganAt, Math.min(beganAt + reload.from, first) - before)
  return { zero: first, from: Math.max(from, first - 4 * after), to: first + after }
}

/** From the beginning of the load to its end. */
export function overAll({ beganAt, reload, slices: { ms, answers } }: DrillFigures): Axis {
  return { zero: beganAt + reload.from, from: beganAt, to: beganAt + Math.max(answers.length * ms, reload.to) }
}

export function drillSvg(title: string, figures: DrillFigures, axis: Axis): string {
  const { slices: { ms } } = figures
  const record = { ...figures.record, handovers: figures.record.handovers.filter(({ at }) => at > axis.from && at < axis.to) }
  const times = Math.max(1, Math.ceil((axis.to - axis.from) / ms / mostBars))
  const sliceMs = ms * times
  const slices = slicesIn(figures, axis, times)
  const [requests, latency, who] = [62, 62 + chartHeight + 34, 62 + 2 * chartHeight + 48]
  const drawn = lanes(record, axis, who)
  const bottom = who + drawn.height
  const marks = switchesOf(record).map((at) =>
    `<path d="M${xOf(axis, at)} ${requests - 4}V${bottom}" stroke="#c8553d" stroke-dasharray="3 2"/>`)
  const lost = slices.some((slice) => slice.lost > 0) ? [{ of: ({ lost: count }: Slice) => count, colour: '#c00' }] : []
  return svg(title, bottom + 46, [
    text(0, 20, title, ' font-weight="bold" font-size="14"'),
    ticks(axis, requests - 4, bottom),
    text(left, requests - 10, `requests answered in each ${sliceMs} ms${lost.length > 0 ? '; red: lost' : ''}`),
    chart(slices, axis, sliceMs, requests, [{ of: ({ answers }) => answers, colour: '#5b8db8' }, ...lost]),
    text(left, latency - 8, `milliseconds that they took: mean and slowest of each ${sliceMs} ms`),
    chart(slices, axis, sliceMs, latency, [
      { of: ({ slowest }) => slowest, colour: '#a9c4de' }, { of: ({ mean }) => mean, colour: '#5b8db8' }
    ]),
    drawn.svg, ...marks, legend(bottom + 34)
  ].join(''))
}
