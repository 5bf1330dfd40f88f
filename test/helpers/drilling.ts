/** handover drill, run inside a test: what it prints, and how often it reloads. */

import type { ReloadOutcome } from '@handover/core/internal'
import { drill, type DrillOptions, type DrillResult } from './internals.js'

type Reloaded = Extract<DrillResult, { reload: unknown }>

interface Drilled {
  readonly status: number
  readonly text: string
  readonly reloads: number
}

export async function drilled(options: Partial<DrillOptions>, reload: () => Promise<ReloadOutcome>): Promise<Drilled> {
  const printed: string[] = []
  let reloads = 0
  const status = await drill({ listeners: [], durationMs: 400, connections: 20, ...options }, {
    reload: () => {
      reloads += 1
      return reload()
    },
    print: (text) => printed.push(text)
  })
  return { status, text: printed.join('\n'), reloads }
}

export async function drilledJson(options: Partial<DrillOptions>, reload: () => Promise<ReloadOutcome>): Promise<{
  status: number; result: Reloaded
}> {
  const { status, text } = await drilled({ ...options, json: true }, reload)
  return { status, result: JSON.parse(text) as Reloaded }
}

export const outcome = (part: Partial<ReloadOutcome> = {}): ReloadOutcome =>
  ({ ok: true, at: Date.now(), ms: 1, switched: [], reports: [], serving: [{ pid: process.pid, generation: 2 }], ...part })
export const nothing = async (): Promise<ReloadOutcome> => outcome()
