/**
 * Waits as long as something moves on, and not for a fixed time: on a busy machine everything takes longer, and what stands still is over
 * sooner. Says what it waited for, what was seen last, and what to do.
 */

import { readFileSync } from 'node:fs'
import { nowMs, sleep } from './clock.js'

export interface Waiting<T> {
  /** What is waited for, as the subject of a sentence: `an answer of version 2`. */
  readonly what: string
  /** Undefined: not yet. May throw. */
  readonly look: () => T | undefined | Promise<T | undefined>
  /** Another text than before: something has moved. */
  readonly moves: () => string
  /** How long nothing may move, in milliseconds. */
  readonly quietMs: number
  /** In all, in milliseconds: what moves for ever comes to nothing. Ten minutes. */
  readonly mostMs?: number
  /** A sentence. */
  readonly todo: string
  /** The `cause` of the error: the last lines of the server. */
  readonly cause?: () => string
}

const lookMs = 20
const tenMinutesMs = 600_000

/** Throws an Error that says what did not come, what was seen last and what to do. */
export async function waitWhileItMoves<T>({ what, look, moves, quietMs, mostMs = tenMinutesMs, todo, cause }: Waiting<T>): Promise<T> {
  const begun = nowMs()
  let last = moves()
  let movedAt = begun
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    const now = moves()
    if (now !== last) movedAt = nowMs()
    last = now
    const quiet = nowMs() - movedAt
    const why = quiet > quietMs ? `nothing has moved for ${seconds(quiet)}` : nowMs() - begun > mostMs ? `it has moved all the time, and came to nothing in ${seconds(mostMs)}` : undefined
    if (why !== undefined) throw new Error(`${what} did not come: ${why} (last seen: ${last}). ${todo}`, { cause: cause?.() })
    await sleep(lookMs)
  }
}

const seconds = (ms: number): string => `${Math.round(ms / 100) / 10} s`

/** How much each of these processes has computed so far, for `moves`. proc(5); elsewhere only which of them there are. */
export function workOf(pids: readonly number[]): string {
  if (pids.length === 0) return 'no process lives'
  return pids.map((pid) => {
    try {
      const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
      // utime and stime, in clock ticks of 10 ms.
      return `process ${pid} in state ${fields[0]} after ${(Number(fields[11]) + Number(fields[12])) * 10} ms of work`
    } catch {
      return `process ${pid}`
    }
  }).join(', ')
}
