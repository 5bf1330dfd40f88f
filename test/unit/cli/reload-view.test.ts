/* eslint-disable no-control-regex -- a terminal is written with them */
/** What a reload looks like while it runs: on a terminal, in a pipe, as JSON. */

import { describe, expect, it, vi } from 'vitest'
import type { ReloadEvent } from '@handover/core/internal'
import { fitted, jsonView, linesView, liveView, ReloadPicture } from '../../helpers/internals.js'

const boot: readonly ReloadEvent[] = [
  { event: 'starts', ms: 2, slot: 0, slots: 2 },
  { event: 'boots', ms: 10, slot: 0, pid: 71 },
  { event: 'stderr', ms: 900, slot: 0, pid: 71, line: 'connecting to \u001b[31mpostgres' }
]
const served: readonly ReloadEvent[] = [
  ...boot,
  { event: 'prepares', ms: 1_200, slot: 0, pid: 71 },
  { event: 'ready', ms: 1_300, slot: 0, pid: 71 },
  { event: 'serves', ms: 1_400, slot: 0, slots: 2, pid: 71, generation: 2 },
  { event: 'bakes', ms: 1_401, forMs: 3_000 }
]

function pictureOf(events: readonly ReloadEvent[], colours = false): ReloadPicture {
  const picture = new ReloadPicture('shop', colours)
  for (const event of events) picture.hear(event)
  return picture
}

describe('the picture', () => {
  it('shows which slot of how many boots, for how long, and the last line of its stderr, whose escapes are not obeyed', () => {
    expect(pictureOf(boot).lines(2_510)).toEqual([
      '⠴ reload of shop · 2.5 s · 0 of 2 slots serve the new version',
      '  slot 0 (1 of 2) process 71 boots 2.5 s  connecting to \u{fffd}[31mpostgres'
    ])
  })

  it('shows how long the new version is still watched, and how long the old one may still drain', () => {
    const picture = pictureOf(served)
    expect(picture.lines(2_401)).toEqual([
      expect.stringContaining('1 of 2 slots serve the new version'), '  slot 0 (1 of 2) process 71 (generation 2) serves after 1.4 s', '  is watched: 2.0 s left'
    ])
    picture.hear({ event: 'drains', ms: 5_000, slot: 0, pid: 70, generation: 1, forMs: 30_000 })
    expect(picture.lines(6_000)).toEqual([expect.anything(), '  slot 0 (1 of 2) process 70 (generation 1) drains: 29.0 s left at most'])
  })

  it('leaves out the slots that are done where the terminal is too low for all', () => {
    const picture = new ReloadPicture('shop', false)
    for (let slot = 0; slot < 9; slot++) picture.hear({ event: slot < 8 ? 'serves' : 'boots', ms: slot, slot, slots: 9, pid: 70 + slot })
    expect(picture.lines(10, 4)).toEqual([expect.stringContaining('8 of 9'), expect.stringContaining('slot 8 (9 of 9)')])
  })

  it('has colours only where they are wanted', () => {
    expect(pictureOf(served).lines(2_000).join('')).not.toContain('\u001b')
    expect(pictureOf(served, true).lines(2_000).join('')).toContain('\u001b[')
  })

  it('cuts its lines to the width of the terminal, wide characters counted', () => {
    expect(fitted('connecting', 20)).toBe('connecting')
    expect(fitted('connecting', 5)).toBe('conn…')
    expect(fitted('日本語日本語', 5)).toBe('日本…')
    expect(fitted('\u001b[1mconnecting\u001b[22m', 5)).toBe('\u001b[1mconn…\u001b[0m')
  })
})

it('a terminal that was made narrower has wrapped the lines: the next drawing begins above all of them', () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
  try {
    let written = ''
    const screen = { columns: 80, rows: 24, write: (text: string) => { written = text } }
    const view = liveView('shop', screen, false)
    for (const event of boot) view.hear('', event)
    expect(written.split('\n')).toHaveLength(2)
    for (const line of written.split('\n')) expect(line.length).toBeLessThan(90)
    screen.columns = 20
    vi.advanceTimersByTime(100)
    // Lines of 61 and of 72 columns took 4 rows each.
    expect(written).toMatch(/^\r\u001b\[7A\u001b\[J/)
    for (const line of written.replace(/^\r\u001b\[7A\u001b\[J/, '').split('\n')) expect(line.length).toBeLessThan(20)
    view.end()
    expect(written).toBe('\r\u001b[1A\u001b[J')
    written = ''
    vi.advanceTimersByTime(1_000)
    expect(written).toBe('')
  } finally {
    vi.useRealTimers()
  }
})

it('in a pipe each change is one line, and none comes twice', () => {
  let text = ''
  const view = linesView((line) => { text += line })
  view.hear('slot 0: process 70 hands over', served[0]!)
  for (const event of served.slice(1)) view.hear('', event)
  view.hear('slot 0: process 71 serves', served[5]!)
  for (const event of served) view.hear('', event)
  expect(text).toBe('slot 0: process 70 hands over\nslot 0: process 71 boots\nslot 0: process 71 has booted and prepares\nslot 0: process 71 is ready, 1 s after the reload began\nslot 0: process 71 serves\n')
})

it('as JSON each event is one line', () => {
  const lines: unknown[] = []
  const view = jsonView((line) => lines.push(JSON.parse(line)))
  view.hear('watching it for 3 s', served.at(-1)!)
  view.hear('', boot[2]!)
  expect(lines).toEqual([{ event: 'bakes', ms: 1_401, forMs: 3_000, text: 'watching it for 3 s' }, boot[2]])
})
