/** Asks the process at one control socket for the status of its app. */

import type { AppStatus, ControlRequest } from '@handover/core/internal'
import { ask } from './ask.js'

const statusMs = 3_000

/** Undefined where it answers something else. Throws as `ask` does. */
export async function statusOf(file: string): Promise<AppStatus | undefined> {
  const request: ControlRequest = { type: 'request', verb: 'status' }
  for await (const answer of ask(file, request, () => statusMs)) if (answer.type === 'status') return answer.app
  return undefined
}
