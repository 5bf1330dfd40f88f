/** A report and a status with all their fields, for tests of the messages that hold one. */

import type { ProcessStatus, Report } from '@handover/core/internal'

export const exampleReport: Report = {
  result: 'drained',
  trigger: 'signal',
  predecessor: { pid: 4120, generation: 1 },
  successor: { pid: 4312, generation: 2 },
  listeners: { kept: ['tcp 0.0.0.0:3000'], added: [], dropped: [] },
  state: { restored: ['sessions'], unclaimed: [], failed: [{ name: 'cache', reason: 'it is too large' }] },
  connections: { open: 3, moved: 1, drained: 1, closedIdle: 1, cut: 0, kinds: {
    http: { moved: 1, drained: 1, closedIdle: 1, cut: 0 }
  }, stayed: { TLS: 2 } },
  requestsCut: [{ method: 'GET', path: '/slow', ms: 1.5 }],
  durations: { launch: 250.5, prepare: 3, commit: 1, move: null, drain: 30 }
}

export const exampleStatus: ProcessStatus = {
  pid: 4312, generation: 2, state: 'serving', name: 'shop', keeper: null, slot: null, version: '1.0.0', node: '24.1.0', ageMs: 61_000,
  listeners: ['tcp 0.0.0.0:3000'], connections: { http: 2 }, requests: { inFlight: 1, total: 7, failed: 0 }, waitsFor: [], endsInMs: null,
  memory: 95_000_000, loopDelayMs: 1.4, lastReport: exampleReport,
  service: { id: '4312-5f3a', startedAt: 1_700_000_000_000, requests: 7, includes: [] }, sections: [{ name: 'sessions', doing: 'saving', bytes: 4_096 }]
}

/** A copy without one field, or with another value of it; `path`: its names with dots between. */
export function different(example: object, path: string, value?: unknown): object {
  const copy = structuredClone(example) as Record<string, unknown>
  const fields = path.split('.')
  const last = fields.pop()!
  const holder = fields.reduce((found, field) => found[field] as Record<string, unknown>, copy)
  holder[last] = value
  return JSON.parse(JSON.stringify(copy)) as object
}
