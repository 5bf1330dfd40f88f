/** `handover reload`: asks the app to hand over to its next version, and ends with 0 only when that serves. */

import {
  accepts, describeProcess, listed, type ControlAnswer, type Peer, type ReloadOutcome, type ReloadRequest
} from '@handover/core/internal'
import { chooseApp, fileOf } from '../client/choose-app.js'
import { findApps, statusesOf } from '../client/find-apps.js'
import { titleOf, type App } from '../client/group-apps.js'
import type { Command } from '../command-line/arguments.js'
import { version } from '../command-line/version.js'
import { ask, NoAnswer } from '../control/ask.js'
import { Failure } from '../failure.js'
import { cut, duration, number, plural, printable, printableLines } from '../text.js'
import { viewFor, type ReloadView } from './reload-view.js'
import { describeTiming, timingOf } from './reload-timing.js'

/** Of the names and reasons of sections, in one line. */
const mostShown = 8
const longestSection = 40
const longestReason = 200

export const reloadGoesOn = 'the reload goes on without this command. See handover status'

/** Answers the exit status. Throws a Failure if no process could be asked, or the request was refused. */
export async function reload({ target, options, timeoutMs, json, timing }: Extract<Command, { is: 'reload' }>): Promise<number> {
  const app = chooseApp(await findApps(), target)
  sayAtInterrupt(reloadGoesOn)
  const view = viewFor(titleOf(app), json)
  const outcome = await outcomeOf(fileOf(app), options, timeoutMs, view).catch((error: unknown) => {
    view.end()
    if (!(error instanceof NoAnswer)) throw error
    const what = `${titleOf(app)} did not say within ${duration(timeoutMs)} what became of the reload, which may go on`
    throw new Failure({ what, todo: 'See handover status; give it longer with --timeout' })
  })
  view.end()
  if (!outcome) throw await endedBefore(app)
  const known: ReloadOutcome = { ...outcome, switched: await withVersions(outcome.switched) }
  const times = timing && known.ok && !options.keeper ? await timingOf(known) : undefined
  if (json) process.stdout.write(`${JSON.stringify({ ...known, ...(times && { timing: times }) })}\n`)
  else if (known.ok) process.stdout.write(printableLines(`${describeReload(known, options.keeper)}${times ? describeTiming(times) : ''}`))
  if (!json) for (const note of known.notes ?? []) process.stderr.write(printableLines(`handover: warn: ${note}.\n`))
  if (!known.ok) process.stderr.write(printableLines(describeFailure(known)))
  return known.ok ? 0 : 1
}

/** The process that was asked was killed: others of the app may serve. */
async function endedBefore(app: App): Promise<Failure> {
  const [title, pid] = [titleOf(app), app.keeper?.pid ?? app.processes[0]?.pid]
  const who = app.keeper ? `the keeper of ${title} (process ${pid})` : app.name === null ? title : `${title} (process ${pid})`
  const served = app.processes.flatMap(({ listeners }) => listeners)
  const now = (await findApps()).apps.flatMap(({ processes }) => processes)
    .filter(({ pid: other, state, listeners }) => other !== pid && accepts(state) && listeners.some((name) => served.includes(name)))
  const names = [...new Set(now.flatMap(({ listeners }) => listeners))]
  const serving = `${listed(now.map(describeProcess)).replace(/^p/, 'P')} serve${now.length === 1 ? 's' : ''} ${listed(names)}`
  return new Failure({
    what: `${who} ended before it could say what became of the reload`,
    serving: now.length > 0 ? serving : 'Nobody is found that serves in its place', todo: 'See handover status, and its log'
  })
}

/** The app does what it was asked all the same: after Ctrl-C, or at the end of a CI job. */
export function sayAtInterrupt(text: string): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.stderr.write(`handover: ${text}.\n`)
      // The listener is gone by now: the process ends by the signal, as the shell expects.
      process.kill(process.pid, signal)
    })
  }
}

/** Undefined if the process ended before it could say. */
export async function outcomeOf(
  file: string, options: ReloadRequest, timeoutMs: number, view?: Pick<ReloadView, 'hear'>
): Promise<ReloadOutcome | undefined> {
  const deadline = performance.now() + timeoutMs
  for await (const answer of ask(file, { type: 'request', verb: 'reload', options }, () => Math.max(0, deadline - performance.now()))) {
    if (answer.type === 'reload') return answer.outcome
    if (answer.type !== 'progress') throw refusal(answer)
    view?.hear(answer.text, answer.event)
  }
  return undefined
}

/** Why a request was not done, or what else came in its place. */
export function refusal(answer: ControlAnswer): Failure {
  if (answer.type !== 'refused') {
    return new Failure({ what: `expected another answer than "${answer.type}"`, todo: 'The process may be of a version too far away' })
  }
  const { code, reason, what, serving, todo } = answer
  if (what !== undefined) return new Failure({ what, serving, todo }, { code })
  // It may not know this request.
  const versions = `This command is of version ${version}; the process may be of another one, which handover status shows for a keeper`
  return new Failure({ what: reason, todo: code === 'HANDOVER_PROTOCOL' ? versions : undefined }, { code })
}

/** A predecessor without a keeper does not know the version of its successor: the successor is asked. */
async function withVersions(switched: ReloadOutcome['switched']): Promise<ReloadOutcome['switched']> {
  if (switched.every(({ version }) => version !== null)) return switched
  const statuses = await statusesOf(switched.map(({ to }) => to)).catch(() => [])
  return switched.map((change, index) => ({ ...change, version: change.version ?? statuses[index]?.version ?? null }))
}

const named = ({ pid, generation }: Peer, version: string | null = null): string =>
  `generation ${generation} (process ${pid}${version === null ? '' : `, version ${version}`})`

function describeReload(known: ReloadOutcome, isKeeper = false): string {
  const lines = known.switched.map((change) => `${isKeeper ? describeKeeper(change) : describeSwitch(known, change)}\n`)
  const isRolling = known.switched.some(({ slot }) => slot !== null)
  return `${lines.join('')}${describeState(known)}${isRolling ? `reloaded in ${duration(known.ms)}\n` : ''}`
}

type SwitchedSlot = ReloadOutcome['switched'][number]

const describeKeeper = ({ from, to }: SwitchedSlot): string =>
  `process ${to.pid} is the keeper now${from ? ` in place of process ${from.pid}` : ''}; workers and connections are unaffected`

function describeSwitch({ reports, ms }: ReloadOutcome, { slot, from, to, version, died }: SwitchedSlot): string {
  const report = reports.find(({ successor }) => successor?.pid === to.pid)
  const { moved = 0, drained = 0, closedIdle = 0, cut = 0 } = report?.result === 'drained' ? report.connections : {}
  const counts = `; ${plural(moved, 'connection')} moved, ${number(drained)} drained, ${number(closedIdle)} closed idle, ${number(cut)} cut`
  const where = slot === null ? '' : `slot ${slot}: `
  const instead = from ? ` in place of ${named(from)}` : ''
  const lost = died === undefined ? '' : `, which ended ${died} while it handed over: its connections are lost, and what of its state had not arrived`
  // For several slots, `ms` is the time of all.
  const after = slot === null ? ` after ${duration(ms)}` : ''
  return `${where}${named(to, version)} serves${instead}${lost}${after}${report?.result === 'drained' ? counts : ''}`
}

/** What became of the shared state, in all slots; empty where there is none. */
function describeState({ reports, switched }: Pick<ReloadOutcome, 'reports' | 'switched'>): string {
  // Both reports of a handover have it.
  const states = switched.flatMap(({ to }) => reports.find(({ successor }) => successor?.pid === to.pid)?.state ?? [])
  const unclaimed = states.flatMap((state) => state.unclaimed.map((name) => cut(name, longestSection)))
  const failed = states.flatMap((state) => state.failed.map(({ name, reason }) => `${cut(name, longestSection)}: ${cut(reason, longestReason)}`))
  const restored = states.reduce((sum, state) => sum + state.restored.length, 0)
  const parts = [
    ...(restored > 0 ? [`${number(restored)} restored`] : []),
    ...(unclaimed.length > 0 ? [`${number(unclaimed.length)} unclaimed (${shownOnce(unclaimed)})`] : []),
    ...(failed.length > 0 ? [`${number(failed.length)} failed (${shownOnce(failed)})`] : [])
  ]
  return parts.length === 0 ? '' : `state: ${parts.join(', ')}\n`
}

/** What is the same in several slots is named once. */
function shownOnce(all: readonly string[]): string {
  const each = [...new Set(all)]
  const shown = each.slice(0, mostShown).map((text) => {
    const slots = all.filter((other) => other === text).length
    return `${printable(text)}${slots > 1 ? ` in ${slots} slots` : ''}`
  })
  return `${shown.join('; ')}${each.length > mostShown ? `; and ${number(each.length - mostShown)} more` : ''}`
}

/** What happened, who serves now, what to do, and what the successor wrote last. */
function describeFailure({ error, serving }: ReloadOutcome): string {
  const { code = '', message = 'no reason was given', stderr = '' } = error ?? {}
  const lines = [`handover: the reload failed (${code}): ${message}`]
  if (serving.length > 0 && !serving.some(({ pid }) => message.includes(`rocess ${pid}`))) {
    const who = serving.map(describeProcess).join(', ').replace(/^p/, 'P')
    lines.push(`  ${who} serve${serving.length === 1 ? 's' : ''}.`)
  }
  if (stderr !== '' && !message.includes(stderr.replace(/^/gm, '    '))) {
    lines.push('  It last wrote to stderr:', stderr.replace(/^/gm, '    '))
  }
  return `${lines.join('\n')}\n`
}
