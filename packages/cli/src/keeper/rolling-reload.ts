/**
 * A careful reload of all slots: some workers go first and are watched, then the others follow. Until all of them serve, each can be taken
 * back. So in the end either all workers are of the new generation, or all of the old one.
 */

import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  HandoverError, listed, partsOf, reloadBegins, reloadOutcome, watchBoots, withoutStop, type Boot, type ProcessStatus, type ReloadEvent,
  type ReloadOutcome, type ReloadRequest, type Report
} from '@handover/core/internal'
import { byWhat } from '../text.js'
import type { Fleet } from './fleet.js'
import type { Slot } from './slot.js'
import { probeWorker, type Demands, type Replacement as SlotReplacement } from './slot-reload.js'
import { statusMs, type Worker } from './worker.js'

const defaultBakeMs = 3_000
/** How often the workers that went first are checked. */
const lookMs = 200
/** Fewer failed answers of a canary say nothing. */
const fewFailures = 5
/** How often it is told how long a drain may still take. */
const drainsMs = 1_000
/** How long a worker that only has to live may be silent. */
const silentMs = 3_000
/** How long it may take until it is known why a worker has ended. */
const reasonMs = 1_000
const hangs = 'it does not answer: its event loop is blocked'

type Replacement = SlotReplacement & { readonly slot: Slot }
/** `text`: for people; empty where the event has no line of its own. */
export type Progress = (text: string, event: ReloadEvent) => void
/** Fills in when it was. */
type Tell = (text: string, event: Omit<ReloadEvent, 'ms'>) => void

/**
 * Resolves as `wait` says. `only`: no other slot. `over` is called when all workers are of one generation, and nothing can be undone any
 * more.
 */
export async function reload(
  fleet: Fleet, request: ReloadRequest, progress: Progress, over: () => void, only?: Slot
): Promise<ReloadOutcome> {
  const begun = reloadBegins()
  const tell: Tell = (text, event) => { progress(text, { ...event, ms: Math.round(performance.now() - begun.since) }) }
  const done: Replacement[] = []
  const reports: Report[] = []
  const hear = (report: Report): void => { reports.push(report) }
  fleet.reported.add(hear)
  const endWatch = watchBoots(() => fleet.slots.flatMap(bootOf), (event) => { tell('', event) })
  // What a worker has closed since may be open in the next version: its port must be free.
  fleet.settleMembers()
  const error = await replaceAll(fleet, request, tell, done, only).then(() => undefined, (cause: unknown) => takeBack(fleet, done, cause))
  endWatch()
  if (!error) {
    for (const { slot } of done) slot.settle()
    if (request.workers !== undefined && request.workers !== fleet.count) fleet.setCount(request.workers)
  }
  // What only the new version listened on, or only the old one, is closed.
  fleet.settleMembers()
  over()
  if (!error && request.wait) {
    tell('waiting until the old generations have ended', { event: 'drains' })
    const timer = setInterval(() => { for (const replacement of done) void tellDrain(replacement, tell) }, drainsMs)
    await Promise.all(done.map(async ({ from }) => { await from?.ended }))
    clearInterval(timer)
  }
  fleet.reported.delete(hear)
  return reloadOutcome(begun, {
    switched: error ? [] : await Promise.all(done.toSorted((one, other) => one.slot.index - other.slot.index).map(switched)),
    reports,
    serving: fleet.servers.map(({ peer }) => peer),
    notes: fleet.startNotes,
    error
  })
}

function bootOf({ index: slot, booting }: Slot): Boot[] {
  if (!booting || booting.how || booting.state === 'serving') return []
  const step = booting.state === 'ready' ? 'ready' : booting.state === 'preparing' ? 'prepares' : 'boots'
  return [{ slot, pid: booting.pid, step, stderr: booting.stderr }]
}

/** How long a predecessor may still drain, where it answers. */
async function tellDrain({ slot, from }: Replacement, tell: Tell): Promise<void> {
  const status = from && !from.how ? await from.ask() : undefined
  if (!from || !status) return
  tell('', { event: 'drains', slot: slot.index, ...from.peer, ...(status.endsInMs !== null && { forMs: status.endsInMs }) })
}

/** `done`: gets each replacement when it serves. Throws the first failure; then some slots have new workers and some have not. */
async function replaceAll(fleet: Fleet, request: ReloadRequest, tell: Tell, done: Replacement[], only?: Slot): Promise<void> {
  const { allowDrop = false, withoutState = false, probe, canary = 1, bakeMs = defaultBakeMs, workers: count = fleet.count } = request
  const before = await failureRate(fleet.servers)
  const demands: Demands = { allowDrop, withoutState, probe }
  const replace = async (slot: Slot): Promise<void> => {
    fleet.forgetTrouble(slot)
    const place = { slot: slot.index, slots: count }
    tell(`slot ${slot.index}: ${slot.server ? `${slot.server.who} hands over` : 'is started'}`, { event: 'starts', ...place })
    const replacement = await slot.replace(demands)
    done.push({ slot, ...replacement })
    refuseTwoReleases(done)
    const { from, to, died } = replacement
    const although = died ? `, although ${from?.who ?? 'its predecessor'} ended ${byWhat(died)}` : ''
    tell(`slot ${slot.index}: ${to.who} serves${although}`, { event: 'serves', ...place, ...to.peer })
  }

  const slots = only ? [only] : fleet.active.slice(0, count)
  const first = slots.splice(0, Math.max(1, canary))
  for (const slot of first) await replace(slot)
  if (bakeMs > 0) {
    tell(`watching ${first.length === 1 ? 'it' : 'them'} for ${bakeMs / 1_000} s`, { event: 'bakes', forMs: bakeMs })
    await bake(done, bakeMs, request, before)
  }
  const more = Array.from({ length: Math.max(0, count - fleet.count) }, (_, index) => fleet.count + index)
  const rest = [...slots.map(({ index }) => index), ...more]
  // A boot takes a core: more at once would only take longer, and leave less to those that serve.
  await each(rest, request.parallel ? rest.length : availableParallelism(), (index) => replace(fleet.slot(index)))
  check(done)
}

/** A deploy has come in between: some workers run its code, and those that were replaced before do not. */
function refuseTwoReleases(done: readonly Replacement[]): void {
  const [first, ...others] = done.filter(({ to }) => to.release !== undefined).map(({ to }) => to)
  const other = others.find(({ release }) => release?.id !== first?.release?.id)
  if (!first?.release || !other?.release) return
  const from = other.release.file === first.release.file ? `from an earlier version of ${first.release.file}` : `from ${first.release.file}`
  throw new HandoverError('HANDOVER_SUCCESSOR_FAILED', {
    what: `a deploy changed the code while the reload ran: ${first.who} was started ${from}, and ${other.who} from ${other.release.file}`,
    serving: 'The generation before serves again in all slots; no connection was lost',
    todo: 'Reload again when the deploy is done', onLines: true
  })
}

async function switched({ slot, from, to, died }: Replacement): Promise<ReloadOutcome['switched'][number]> {
  const status = await to.ask()
  return { slot: slot.index, from: from?.peer ?? null, to: to.peer, version: status?.version ?? null, ...(died && { died: byWhat(died) }) }
}

/** Whatever was thrown, as an error with three parts. */
function inParts(cause: unknown, fleet: Fleet): HandoverError {
  if (cause instanceof HandoverError && cause.code !== 'HANDOVER_SPAWN') return cause
  const [what, todo] = cause instanceof HandoverError
    ? [cause.message, 'Check that Node and the working directory are there']
    : [`a successor could not be started: ${withoutStop((cause as Error).message)}`, 'Check the limits of the keeper and of its container (ulimit -n, ulimit -u, memory)']
  return new HandoverError('HANDOVER_SPAWN', {
    what, serving: fleet.serves(), todo: `${todo}, then reload again`, onLines: true
  }, { cause })
}

/** Takes back all that was replaced. Answers `cause` with who serves now, and with the workers that could not be taken back. */
async function takeBack(fleet: Fleet, done: readonly Replacement[], cause: unknown): Promise<HandoverError> {
  const failure = (): HandoverError => (cause instanceof LateFailure ? cause.replacement.failure() : undefined) ?? inParts(cause, fleet)
  const { code } = failure()
  const kept: Worker[] = []
  await Promise.all(done.map(async ({ slot, from, to }) => {
    if (from === null) {
      // The slot is one of those that the reload would have added.
      if (slot.index >= fleet.count) to.stop(false)
      return
    }
    if (!(await slot.recall(`the reload failed (${code})`)) && slot.server === to) kept.push(to)
    slot.settle()
  }))
  // Made anew: who serves has changed since.
  const error = failure()
  if (kept.length === 0) return error
  const { text, ...parts } = partsOf(error)
  const stayed = `NOT taken back: ${listed(kept.map(({ who }) => who))}, whose predecessors are gone.`
  const serving = `${parts.serving ?? ''} ${stayed}`.trim()
  return new HandoverError(code, { ...parts, serving, text: `${text}\n  ${stayed}` }, { stderr: error.stderr ?? '', cause: error.cause })
}

/** Does `work` for all, `atOnce` at a time. After a failure none is begun, and those that run are awaited; then it throws. */
async function each<T>(all: readonly T[], atOnce: number, work: (one: T) => Promise<void>): Promise<void> {
  const left = [...all]
  const failures: unknown[] = []
  const next = async (): Promise<void> => {
    while (left.length > 0 && failures.length === 0) await work(left.shift()!).catch((cause: unknown) => failures.push(cause))
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, all.length) }, next))
  if (failures.length > 0) throw failures[0]
}

/** A worker failed after it had taken over. */
class LateFailure extends Error {
  readonly replacement: Replacement

  constructor(replacement: Replacement) {
    super('a worker failed after it had taken over')
    this.replacement = replacement
  }
}

function check(done: readonly Replacement[]): void {
  const failed = done.find((replacement) => replacement.failure() !== undefined)
  if (failed) throw new LateFailure(failed)
}

/** One that has ended does not answer either, and did not hang: who serves in its place says why it ended. */
async function reasonOfEnd(replacement: Replacement): Promise<void> {
  const { to } = replacement
  const until = performance.now() + reasonMs
  while ((to.hungUp || to.how) && replacement.failure() === undefined && performance.now() < until) await sleep(10)
}

/** Watches the workers that went first. Throws what speaks against going on. `before`: the failure rate of those that they replaced. */
async function bake(done: readonly Replacement[], bakeMs: number, request: ReloadRequest, before: number): Promise<void> {
  const { canary, probe } = request
  const until = performance.now() + bakeMs
  const isCounted = canary !== undefined || request.bakeMs !== undefined
  const problemOf = async (replacement: Replacement): Promise<string | undefined> => {
    const { slot, to } = replacement
    const problem = probe === undefined ? undefined : await probeWorker(slot, to, probe)
    if (problem !== undefined) return problem
    const status = await to.ask(isCounted ? statusMs : silentMs)
    if (!status) await reasonOfEnd(replacement)
    return !status ? hangs : isCounted ? failing(status, before) : undefined
  }
  for (let left = bakeMs; left > 0; left = until - performance.now()) {
    await sleep(Math.min(lookMs, left))
    check(done)
    for (const replacement of done) {
      const problem = await problemOf(replacement)
      check(done)
      if (problem === undefined) continue
      const what = `${replacement.to.who} served, and is taken back: ${withoutStop(problem)}`
      const fate = problem === hangs ? 'what the other one has accepted is lost, unless it goes on soon' : 'no connection was lost'
      const serving = `The generation before serves again; ${fate}`
      throw new HandoverError('HANDOVER_SUCCESSOR_FAILED', {
        what, serving, todo: 'Repair it and reload again', onLines: true
      }, { stderr: replacement.to.stderr })
    }
  }
}

/** The share of answers with a status of 500 or more. */
async function failureRate(workers: readonly Worker[]): Promise<number> {
  const counts = (await Promise.all(workers.map((worker) => worker.ask()))).map((status) => status?.requests)
  const sum = (key: 'total' | 'failed'): number => counts.reduce((all, requests) => all + (requests?.[key] ?? 0), 0)
  return sum('failed') / Math.max(1, sum('total'))
}

/** More than twice as many failures as before, and more than one in a hundred. */
function failing({ requests: { total, failed } }: ProcessStatus, before: number): string | undefined {
  if (failed < fewFailures || failed / total <= 0.01 + 2 * before) return undefined
  return `${failed} of its ${total} answers had a status of 500 or more (before: ${(before * 100).toFixed(1)} %)`
}
