/** Reports in what is sent over a channel or a control socket: however many requests a drain has cut, all of it fits. */

import type { Report } from '@handover/core/internal'
import { expect, test } from 'vitest'
import { exampleReport, exampleStatus } from '../../../helpers/example-words.js'
import { maxLineBytes, reloadBegins, reloadOutcome, StatusReader, svgOf } from '../../../helpers/internals.js'

const cutRequest = { method: 'GET', path: `/${'x'.repeat(200)}`, ms: 30_000 }
const cutting = (pid: number, beside?: number): Report => ({
  ...exampleReport, predecessor: { pid, generation: 1 }, requestsCut: Array.from({ length: 1_000 }, () => cutRequest),
  ...(beside !== undefined && { requestsCutBeside: beside })
})
const cutIn = ({ requestsCut, requestsCutBeside = 0 }: Report): number => requestsCut.length + requestsCutBeside

test('the outcome of a reload of 16 workers whose drains cut 1,100 requests each fits into a message, and counts each request', () => {
  const reports = Array.from({ length: 16 }, (_, index) => cutting(index + 1, 100))
  const { reports: told } = reloadOutcome(reloadBegins(), { serving: [], reports })
  expect(JSON.stringify(told).length).toBeLessThan(maxLineBytes / 2)
  expect(told.map(cutIn)).toEqual(reports.map(() => 1_100))
  expect(told.map(({ requestsCut: [first] }) => first)).toEqual(reports.map(() => cutRequest))
})

test('one report keeps the names of the 1,000 requests that it has, also beside reports of drains that cut nothing', () => {
  const reports = [cutting(1), { ...exampleReport, requestsCut: [] }]
  expect(reloadOutcome(reloadBegins(), { serving: [], reports }).reports).toEqual(reports)
})

test('the status of a process names some requests of its last report, so that those of 64 workers fit into one answer', () => {
  const source = {
    self: { pid: 1, generation: 2 }, lifecycle: { state: { is: 'serving' } }, registry: { names: [] }, connections: new Map(),
    servers: {}, state: { serviceCount: exampleStatus.service, progress: [] }, startTimes: {}, lastReport: cutting(2)
  }
  const status = new StatusReader({ env: {} } as never).status(source as never)
  expect(JSON.stringify(status).length).toBeLessThan(10_000)
  expect(cutIn(status.lastReport!)).toBe(1_000)
})

test('a picture counts also the requests that a report does not name', () => {
  const lastReload = reloadOutcome(reloadBegins(), { serving: [], reports: [cutting(5, 100)] })
  expect(svgOf({ name: 'shop', keeper: null, service: null, processes: [exampleStatus], lastReload })).toContain('(1,100 requests)')
})
