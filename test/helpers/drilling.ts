/** handover drill, run inside a test: what it prints, what it complains of, and how often it reloads. */

import type { ReloadOutcome } from '@handover/core/internal'
import { drill, type DrillOptions, type DrillResult, type DrillStatus } from './internals.js'

type Reloaded = Extract<DrillResult, { reload: unknown }>

interface Drilled {
  readonly status: DrillStatus
  readonly text: string
  readonly complaints: string
  readonly reloads: number
}

export async function drilled(options: DrillOptions, reload: () => Promise<ReloadOutcome>): Promise<Drilled> {
  const printed: string[] = []
  const complained: string[] = []
  let reloads = 0
  const status = await drill({ durationMs: 400, connections: 20, ...options }, {
    reload: () => {
      reloads += 1
      return reload()
    },
    print: (text) => printed.push(text),
    complain: (text) => complained.push(text)
  })
  return { status, text: printed.join('\n'), complaints: complained.join('\n'), reloads }
}

export async function drilledJson(options: DrillOptions, reload: () => Promise<ReloadOutcome>): Promise<{
  status: DrillStatus; result: Reloaded
}> {
  const { status, text } = await drilled({ ...options, json: true }, reload)
  return { status, result: JSON.parse(text) as Reloaded }
}

export const outcome = (part: Partial<ReloadOutcome> = {}): ReloadOutcome =>
  ({ ok: true, at: Date.now(), ms: 1, switched: [], reports: [], serving: [{ pid: process.pid, generation: 2 }], ...part })
export const nothing = async (): Promise<ReloadOutcome> => outcome()
