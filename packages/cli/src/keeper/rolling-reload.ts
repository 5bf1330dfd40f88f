/**
 * A careful reload: some workers go first and are watched, then the others; until all of them serve, every one can be taken back. So in the
 * end either all workers are of the new generation, or all of the old one.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { HandoverError, listed, partsOf, reloadBegins, reloadOutcome, withoutStop, type ProcessStatus, type ReloadOutcome, type ReloadRequest, type Report } from '@handover/core/internal'
import type { Fleet } from './fleet.js'
import type { Demands, Replacement, Slot } from './slot.js'
import { byWhat } from '../text.js'
import type { Worker } from './worker.js'

const defaultBakeMs = 3_000
/** How often those that went first are looked at. */
const lookMs = 200
/** Of the answers of a canary: fewer failures than that say nothing. */
const fewFailures = 5
const statusMs = 1_000
/** How long one that is watched only for its life may be silent. */
const silentMs = 3_000
const hangs = 'it does not answer: its event loop is blocked'

/** Resolves as `wait` says. `over` is called when all workers are of one generation, and nothing can be undone any more. */
export async function reload(fleet: Fleet, request: ReloadRequest, progress: (text: string) => void, over: () => void): Promise<ReloadOutcome> {
  const begun = reloadBegins()
  const done: Replacement[] = []
  const reports: Report[] = []
  const ended: Promise<unknown>[] = []
  const forget = fleet.onReport((report) => { reports.push(report) })
  const before = await rates(fleet.servers)
  const demands: Demands = { allowDrop: request.allowDrop ?? false, withoutState: request.withoutState ?? false, probe: request.probe }
  const count = request.workers ?? fleet.count
  const slots = fleet.active.slice(0, count)
  const first = slots.slice(0, Math.max(1, request.canary ?? 1))
  const bakeMs = request.bakeMs ?? defaultBakeMs

  const replace = async (slot: Slot): Promise<void> => {
    fleet.forgetTrouble(slot)
    progress(`slot ${slot.index}: ${slot.server ? `${slot.server.who} hands over` : 'is started'}`)
    const replacement = await slot.replace(demands)
    done.push(replacement)
    if (replacement.from) ended.push(replacement.from.ended)
    progress(`slot ${slot.index}: ${replacement.to.who} serves${replacement.died ? `, although ${replacement.from?.who ?? 'its predecessor'} ended ${byWhat(replacement.died)}` : ''}`)
  }

  let error: HandoverError | undefined
  try {
    for (const slot of first) await replace(slot)
    if (bakeMs > 0) {
      progress(`watching ${first.length === 1 ? 'it' : 'them'} for ${bakeMs / 1_000} s`)
      await bake(done, bakeMs, request, before)
    }
    const rest = slots.slice(first.length)
    if (request.parallel) await allOf(rest.map(replace))
    else for (const slot of rest) await replace(slot)
    if (count > fleet.count) {
      const more = Array.from({ length: count - fleet.count }, (_, index) => fleet.slot(fleet.count + index))
      await allOf(more.map(replace))
    }
    check(done)
  } catch (cause) {
    error = told(cause, fleet)
  }

  if (error) {
    const { message } = error
    const culprit = done.find((replacement) => replacement.failure()?.message === message)
    const kept = await takeBack(fleet, done, error)
    // Who serves now, and not at the moment of the crash.
    error = culprit?.failure() ?? error
    if (kept.length > 0) {
      const parts = partsOf(error)
      const stayed = `NOT taken back: ${listed(kept.map(({ to }) => to.who))}, whose predecessors are gone.`
      const serving = `${parts.serving ?? ''} ${stayed}`.trim()
      error = new HandoverError(error.code, { ...parts, serving, text: `${parts.text}\n  ${stayed}` }, { stderr: error.stderr ?? '', cause: error.cause })
    }
  } else {
    for (const { slot } of done) slot.settle()
    if (count !== fleet.count) fleet.setCount(count)
  }
  // What only the new version listened on, or only the old one, is closed.
  fleet.settleMembers()
  over()
  if (!error && request.wait) {
    progress('waiting until the old generations have ended')
    await Promise.all(ended)
  }
  forget()
  return reloadOutcome(begun, {
    switched: error ? [] : await Promise.all(done.map(async ({ slot, from, to, died }) => ({ slot: slot.index, from: from?.peer ?? null, to: to.peer, version: (await to.ask(statusMs))?.version ?? null, ...(died && { died: byWhat(died) }) }))),
    reports,
    serving: fleet.servers.map(({ peer }) => peer),
    notes: fleet.startNotes,
    error
  })
}

/** In three parts, whatever it was. */
function told(cause: unknown, fleet: Fleet): HandoverError {
  if (cause instanceof HandoverError && cause.code !== 'HANDOVER_SPAWN') return cause
  const [what, todo] = cause instanceof HandoverError
    ? [cause.message, 'Check that Node and the working directory are there']
    : [`a successor could not be started: ${withoutStop((cause as Error).message)}.`, 'Check the limits of the keeper (ulimit -n, ulimit -u)']
  return new HandoverError('HANDOVER_SPAWN', `${what}\n  ${fleet.serves()}\n  ${todo}, then reload again.`, { cause })
}

/** Those that could not be taken back. */
async function takeBack(fleet: Fleet, done: readonly Replacement[], error: HandoverError): Promise<Replacement[]> {
  const reason = `the reload failed (${error.code})`
  const kept: Replacement[] = []
  await Promise.all(done.map(async (replacement) => {
    const { slot, from, to } = replacement
    if (from === null) {
      // A worker of a slot that is to be: without it all is as before.
      if (slot.index >= fleet.count) to.stop(false)
      return
    }
    if (!(await slot.recall(reason)) && slot.server === to) kept.push(replacement)
    slot.settle()
  }))
  return kept
}

/** Waits for all, and throws the first that failed. */
async function allOf(work: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}

function check(done: readonly Replacement[]): void {
  for (const replacement of done) {
    const error = replacement.failure()
    if (error) throw error
  }
}

/** Watches those that went first. Throws what speaks against going on. */
async function bake(done: readonly Replacement[], bakeMs: number, request: ReloadRequest, before: Rates): Promise<void> {
  const until = performance.now() + bakeMs
  const watched = request.canary !== undefined || request.bakeMs !== undefined
  for (let left = bakeMs; left > 0; left = until - performance.now()) {
    await sleep(Math.min(lookMs, left))
    check(done)
    for (const { slot, to } of done) {
      const reason = (request.probe === undefined ? undefined : await slot.probe(to, request.probe)) ?? (watched ? failing(await to.ask(statusMs), before) : await to.ask(silentMs) ? undefined : hangs)
      check(done)
      if (reason !== undefined) throw new HandoverError('HANDOVER_SUCCESSOR_FAILED', `${to.who} served, and is taken back: ${withoutStop(reason)}.\n  The generation before serves again; no connection was lost.\n  Repair it and reload again.`, { stderr: to.stderr })
    }
  }
}

/** How the workers of before did: the share of answers with a status of 500 or more. */
interface Rates {
  readonly failed: number
}

async function rates(workers: readonly Worker[]): Promise<Rates> {
  const all = (await Promise.all(workers.map((worker) => worker.ask(statusMs)))).filter((status) => status !== undefined)
  const total = all.reduce((sum, { requests }) => sum + requests.total, 0)
  return { failed: total === 0 ? 0 : all.reduce((sum, { requests }) => sum + requests.failed, 0) / total }
}

/** More than twice as many failures as before, and more than one in a hundred. */
function failing(status: ProcessStatus | undefined, before: Rates): string | undefined {
  if (!status) return hangs
  const { total, failed } = status.requests
  const share = total === 0 ? 0 : failed / total
  if (failed < fewFailures || share <= 0.01 + 2 * before.failed) return undefined
  return `${failed} of its ${total} answers had a status of 500 or more (before: ${(before.failed * 100).toFixed(1)} %)`
}
