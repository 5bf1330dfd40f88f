/** What a keeper remembers of its last reloads, from the reports of its workers. */

import type { ReloadOutcome, Report } from '@handover/core/internal'
import { expect, it } from 'vitest'
import { ReloadHistory } from '../../helpers/internals.js'

const durations = { launch: 100, prepare: 10, commit: 5, move: null, drain: null }
const none = { moved: 0, drained: 0, closedIdle: 0, cut: 0 }
const report = (result: Report['result'], from: number, to: number, more: Partial<Report> = {}): Report => ({
  result, trigger: 'keeper', predecessor: { pid: from, generation: from }, successor: { pid: to, generation: to },
  listeners: { kept: [], added: [], dropped: [] }, state: { restored: [], unclaimed: [], failed: [] },
  connections: { ...none, open: 0, kinds: {}, stayed: {} }, requestsCut: [], durations, ...more
})
const outcome = (at: number, code?: string): ReloadOutcome => ({
  ok: code === undefined, at, ms: 200, switched: [], reports: [], serving: [], ...(code !== undefined && { error: { code, message: code, stderr: '' } })
})

it('remembers who handed over to whom in which slot, and the drain also when the reload is over', () => {
  const history = new ReloadHistory()
  history.begins()
  history.heard(report('switched', 1, 3), 0)
  history.heard(report('switched', 2, 4), 1)
  history.ended(outcome(1_000))
  history.heard(report('drained', 1, 3, {
    connections: { ...none, moved: 7, cut: 1, open: 8, kinds: {}, stayed: {} }, durations: { ...durations, move: 2, drain: 30 },
    requestsCut: [{ method: 'GET', path: '/', ms: 5 }], requestsCutBeside: 2
  }), 0)
  expect(history.records).toMatchObject([{ at: 1_000, ms: 200, handovers: [
    { slot: 0, from: { pid: 1 }, to: { pid: 3 }, connections: { ...none, moved: 7, cut: 1 }, requestsCut: 3, durations: { drain: 30 } },
    { slot: 1, from: { pid: 2 }, to: { pid: 4 } }
  ] }])
  const [first, second] = history.records[0]!.handovers
  expect(first!.endedAt).toBeGreaterThanOrEqual(first!.at)
  expect(second).not.toHaveProperty('endedAt')
})

it('knows what was taken back, and that the same process hands over again', () => {
  const history = new ReloadHistory()
  history.begins()
  history.heard(report('switched', 1, 2), 0)
  history.ended(outcome(1, 'HANDOVER_UNDONE'))
  history.heard(report('undone', 1, 2), 0)
  history.begins()
  history.heard(report('switched', 1, 3), 0)
  history.ended(outcome(2))
  history.heard(report('drained', 1, 3), 0)
  expect(history.records).toMatchObject([
    { code: 'HANDOVER_UNDONE', handovers: [{ to: { pid: 2 }, undoneAt: expect.any(Number) }] },
    { handovers: [{ to: { pid: 3 }, endedAt: expect.any(Number) }] }
  ])
})

it('keeps ten reloads and 64 handovers of each, goes on from those of the keeper before, and leaves out what no reload did', () => {
  const history = new ReloadHistory([{ at: 0, ms: 1, handovers: [] }])
  for (let reload = 1; reload <= 12; reload++) {
    history.heard(report('switched', 1, 2), 0)
    history.begins()
    for (let slot = 0; slot < 70; slot++) history.heard(report('switched', 100 + slot, 200 + slot), slot)
    history.ended(outcome(reload))
  }
  expect(history.records.map(({ at }) => at)).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
  expect(history.records[0]!.handovers).toHaveLength(64)
  expect(history.records[0]!.handovers[0]).toMatchObject({ from: { pid: 100 } })
})
