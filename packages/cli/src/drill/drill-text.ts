/**
 * What a drill found, and how it is told to people: what was sent, what was lost and how, what became of the connections. Pure.
 */

import { describeProcess, type ReloadOutcome } from '@handover/core/internal'
import type { ClosedByServer, Loss, LossReason } from '@handover/load'
import { number, plural } from '../text.js'

/** Latencies in milliseconds. A request belongs to `reload` if any part of it fell between the begin of the reload and its answer. */
export interface Phase {
  readonly answered: number
  readonly lost: number
  readonly p50: number
  readonly p99: number
  readonly max: number
}

/** Connections of one kind of client, before the reload and since it began. None of the closed ones was a loss. */
export interface Connections {
  readonly clients: number
  readonly before: { readonly opened: number; readonly closedByServer: ClosedByServer }
  readonly since: { readonly opened: number; readonly closedByServer: ClosedByServer }
}

export type DrillResult =
  | {
    readonly result: 'not reloaded'
    readonly name: string
    /** What happened and what to do. */
    readonly because: string
    readonly losses: readonly Loss[]
  }
  | {
    readonly result: 'reloaded' | 'reload failed'
    readonly name: string
    /** What every answer had to have: the status of the first one. */
    readonly status: number
    readonly requests: number
    readonly answers: number
    readonly lost: number
    /** Null if no process answered; then `error` says why. */
    readonly reload: ReloadOutcome | null
    readonly error: string | null
    readonly phases: { readonly before: Phase; readonly reload: Phase; readonly after: Phase }
    readonly keptOpen: Connections
    /** Clients with a connection for each request. */
    readonly newEachTime: Connections
    /** The first 1,000. `atMs` counts from the begin of the reload. */
    readonly losses: readonly Loss[]
  }

const linesOfLosses = 10

/** Many lines. The last one is the verdict. */
export function describeDrill(drill: DrillResult): string {
  if (drill.result === 'not reloaded') return [...lossLines(drill.losses), `Not reloaded: ${drill.because}`].join('\n')
  const { name, status, requests, answers, lost, phases, keptOpen, newEachTime, losses } = drill
  return [
    `GET ${name}: ${plural(keptOpen.clients, 'client')} on connections that stay open, ${newEachTime.clients} with a new one each time; ${status} is the right answer.`,
    '',
    reloadLine(drill),
    '',
    ...phaseTable([['before', phases.before], ['reload', phases.reload], ['after', phases.after]]),
    '',
    `Connections that stay open: ${number(keptOpen.before.opened)} were opened before the reload and ${keptOpen.since.opened} since; since then the server closed ${closedText(keptOpen.since.closedByServer)}.`,
    `New connections for one request each: ${number(newEachTime.before.opened)} before the reload, ${number(newEachTime.since.opened)} since.`,
    '',
    ...lossLines(losses),
    lost === 0
      ? `Nothing was lost: ${number(requests)} requests were sent and ${number(answers)} answered${drill.result === 'reloaded' ? '' : ', but the reload failed'}.`
      : `LOST: ${number(lost)} of ${plural(requests, 'request')}.${hints(losses)}`
  ].join('\n')
}

function reloadLine({ reload, error }: Extract<DrillResult, { reload: unknown }>): string {
  if (reload === null) return `The reload FAILED: ${error}`
  const took = `${number(Math.round(reload.ms))} ms`
  if (!reload.ok) return `The reload FAILED after ${took}: ${reload.error?.message ?? 'no reason was given'}`
  const serving = reload.serving.map(describeProcess)
  return `Reloaded in ${took}: ${serving.join(', ')} ${serving.length === 1 ? 'serves' : 'serve'} now.`
}

function phaseTable(phases: readonly (readonly [string, Phase])[]): string[] {
  const rows = [
    ['', 'answered', 'lost', 'p50 ms', 'p99 ms', 'slowest ms'],
    ...phases.map(([name, { answered, lost, p50, p99, max }]) =>
      [name, number(answered), number(lost), ...[p50, p99, max].map((ms) => ms.toFixed(1))])
  ]
  return rows.map(([name, ...cells]) => `  ${name!.padEnd(6)}${cells.map((cell) => cell.padStart(12)).join('')}`)
}

function closedText({ total, announced, idle, idleReset }: ClosedByServer): string {
  if (total === 0) return 'none'
  const silently = `${number(idle)} idle and unannounced, ${number(idleReset)} idle and reset`
  return `${number(total)} (${number(announced)} announced by Connection: close, ${silently})`
}

function lossLines(losses: readonly Loss[]): string[] {
  if (losses.length === 0) return []
  return ['Lost:', ...losses.slice(0, linesOfLosses).map((loss) => `  ${lossText(loss)}`), ...losses.length > linesOfLosses ? ['  … all of them with --json'] : [], '']
}

/** When, which connection, what was sent, what came. */
function lossText({ atMs, afterMs, kind, localPort, request, reason, error, bytes }: Loss): string {
  const when = `${atMs < 0 ? '-' : '+'}${(Math.abs(atMs) / 1000).toFixed(3)} s`
  const connection = `${kind === 'new' ? 'new connection' : 'connection that stays open'}${localPort === undefined ? '' : ` from port ${localPort}`}`
  const sent = request === 0 ? 'nothing could be sent' : `its request ${request} was sent`
  return `${when}  ${connection}: ${sent}; after ${afterMs.toFixed(1)} ms: ${whatCame(reason, error)}${bytes === 0 ? '' : ` (${plural(bytes, 'byte')} came)`}`
}

function whatCame(reason: LossReason, error: string): string {
  if (reason === 'refused' || reason === 'connect') return `no connection: ${error}`
  if (reason === 'reset') return `the connection was reset: ${error}`
  return reason === 'cut' ? `${error} within the answer` : error
}

/** What to look at first. */
function hints(losses: readonly Loss[]): string {
  const reasons = new Set(losses.map(({ reason }) => reason))
  const has = (...some: readonly LossReason[]): boolean => some.some((reason) => reasons.has(reason))
  return [
    has('refused', 'connect') ? ' For a while nobody listened: was the listener handed over, or closed and opened again?' : '',
    has('closed', 'cut', 'reset') ? ' Connections were closed under requests: does the app, or a library in it, close its server or exit by itself when a signal comes?' : '',
    has('status') ? ' The app answered otherwise than before: does it refuse requests while it closes, or before it is ready?' : '',
    has('timeout') ? ' Some answers did not come in time: what does the app wait for when it starts?' : ''
  ].join('')
}
