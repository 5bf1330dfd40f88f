/**
 * `handover drill`: one reload of the user's own app under the strict load of @handover/load, and what was lost.
 *
 * The load is plain GETs of one path. Every whole answer with the status that the path had before is right. Nothing is reloaded if the app
 * does not answer, or loses requests before any reload: then the drill would say nothing about reloads.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { ReloadOutcome } from '@handover/core/internal'
import type { ClosedByServer, KindStats, LoadResult, LoadStats, Loss, Slices } from '@handover/load'
import { Failure } from '../failure.js'
import { type Place, type Where, placesOf } from './target.js'
import { type Connections, type DrillResult, type Phase, describeDrill } from './drill-text.js'

export interface DrillOptions extends Where {
  /** How many clients; a tenth of them open a new connection for each request. */
  readonly connections: number
  /** How long the load runs before the reload and how long after it, each, in milliseconds. */
  readonly durationMs: number
  /** A request without a whole answer is lost after this, in milliseconds. 10,000. */
  readonly answerTimeoutMs?: number
  /** Prints the DrillResult as JSON instead of text. */
  readonly json?: boolean
}

/** What a picture of a drill is made of. Times in milliseconds since the load began, which was at `beganAt` by Date.now(). */
export interface DrillTimes {
  readonly beganAt: number
  readonly slices: Slices
  readonly reload: { readonly from: number; readonly to: number }
}

/** What a drill does to the world apart from its requests. */
export interface DrillWorld {
  /** One reload. Resolves also if it failed; rejects if no process answers. */
  reload(): Promise<ReloadOutcome>
  /** Where a picture is wanted; `told`: the result for people. Not called where nothing was reloaded. */
  draw?(result: Reloaded, told: string, times: DrillTimes): Promise<void>
  /** For standard output. */
  print(text: string): void
}

type Reloaded = Extract<DrillResult, { readonly reload: unknown }>

const thinkMs = 100
const sliceMs = 10
const mostConnections = 10_000

/**
 * Answers the exit status: 0 where nothing was lost; 1 where something was, or where there was no (successful) reload. Throws a Failure
 * with status 2 for options that cannot be followed. Never rejects for anything that the app does.
 */
export async function drill(options: DrillOptions, world: DrillWorld): Promise<0 | 1> {
  const places = placesOf(options)
  const { listeners, connections } = options
  const among = listeners.length > 0 ? ` among ${listeners.join(', ')}` : ''
  if (places.length === 0) throw mistaken(`there is no listener to send requests to${among}: name a URL`)
  if (connections > mostConnections) throw mistaken(`the number of connections is from 1 to ${mostConnections}, not ${connections}`)
  const { result, times } = await drillAt(places, options, world)
  if (times && result.result !== 'not reloaded') await world.draw?.(result, describeDrill(result), times)
  const ok = result.result === 'reloaded' && result.lost === 0
  world.print(options.json === true ? JSON.stringify({ ok, ...result }, undefined, 2) : describeDrill(result))
  return ok ? 0 : 1
}

const mistaken = (what: string): Failure => new Failure({ what, serving: 'Nothing was reloaded' }, { status: 2, command: 'drill' })

/** The first place that answers, and with which status; else what was tried, and why it failed. */
async function findPlace(
  places: readonly Place[], answerTimeoutMs: number
): Promise<{ readonly place: Place; readonly status: number } | string[]> {
  const { probe } = await import('@handover/load') // an ES module; and only a drill needs it
  const tried: string[] = []
  for (const place of places) {
    const { answer, failure } = await probe(place.target, place.path, answerTimeoutMs)
    if (answer !== undefined) return { place, status: answer.status }
    tried.push(`${place.name} (${failure.error})`)
  }
  return tried
}

async function drillAt(
  places: readonly Place[], options: DrillOptions, world: DrillWorld
): Promise<{ readonly result: DrillResult; readonly times?: DrillTimes }> {
  const { connections, durationMs, answerTimeoutMs = 10_000 } = options
  const notReloaded = (name: string, what: string, todo: string, losses: readonly Loss[] = []): { result: DrillResult } =>
    ({ result: { result: 'not reloaded', name, because: `${what}. What runs is as it was. ${todo}.`, losses } })
  const found = await findPlace(places, answerTimeoutMs)
  if (Array.isArray(found)) {
    return notReloaded(found[0]!, `the app does not answer GET ${found.join(', ')}`, 'Start the app, or name a URL that answers')
  }
  const { place: { target, path, name }, status } = found
  if (status >= 500) return notReloaded(name, `GET ${name} is answered with ${status} already`, 'Name a path that works')

  const { startLoad } = await import('@handover/load')
  const fresh = connections > 1 ? Math.max(1, Math.round(connections / 10)) : 0
  const beganAt = Date.now()
  const load = startLoad(target, {
    ...(world.draw && { sliceMs }),
    keepAlive: { clients: connections - fresh, thinkMs, path },
    newConnections: { clients: fresh, thinkMs, path },
    connectFirst: true,
    answerTimeoutMs,
    expectStatus: status
  })
  await load.mark('before')
  await sleep(durationMs)
  const before = await load.until(({ answers, lost }) => answers > 0 || lost > 0, 2 * answerTimeoutMs + 1000)
  if (before.lost > 0) {
    const { lost, requests, losses } = await load.stop()
    return notReloaded(name, `${lost} of ${requests} requests were lost before any reload`, 'Find out why, or ask for fewer connections', losses)
  }

  await load.mark('reload')
  const from = Date.now() - beganAt
  const [reload, error] = await world.reload().then(
    (outcome) => [outcome, null] as const,
    (reason: unknown) => [null, reason instanceof Error ? reason.message : String(reason)] as const
  )
  await load.mark()
  const to = Date.now() - beganAt
  await sleep(durationMs)
  const result = await load.stop()

  const losses = result.losses.map((loss) => ({ ...loss, atMs: loss.atMs - before.seconds * 1000 }))
  const { requests, answers, lost } = result
  const drilled: Reloaded = {
    result: reload?.ok === true ? 'reloaded' : 'reload failed', name, status, requests, answers, lost, reload, error,
    phases: {
      before: phaseOf(result, losses, 'before'), reload: phaseOf(result, losses, 'reload'), after: phaseOf(result, losses, 'outside')
    },
    keptOpen: connectionsOf(before, result, 'keep-alive'),
    newEachTime: connectionsOf(before, result, 'new'),
    losses
  }
  return { result: drilled, ...(result.slices && { times: { beganAt, slices: result.slices, reload: { from, to } } }) }
}

function phaseOf({ latency, lost }: LoadResult, losses: readonly Loss[], mark: 'before' | 'reload' | 'outside'): Phase {
  const { count = 0, p50 = 0, p99 = 0, max = 0 } = latency[mark] ?? {}
  const others = losses.filter((loss) => loss.mark !== mark).length
  // Only the first losses are kept in detail: those beyond came last.
  return { answered: count, lost: mark === 'outside' ? lost - others : losses.length - others, p50, p99, max }
}

function connectionsOf(before: LoadStats, after: LoadStats, kind: 'keep-alive' | 'new'): Connections {
  const [first, last] = [before.kinds[kind], after.kinds[kind]]
  return {
    clients: last?.clients ?? 0,
    before: { opened: first?.opened ?? 0, closedByServer: closed(first) },
    since: { opened: (last?.opened ?? 0) - (first?.opened ?? 0), closedByServer: minus(closed(last), closed(first)) }
  }
}

const closed = (stats: KindStats | undefined): ClosedByServer => stats?.closedByServer ?? { total: 0, announced: 0, idle: 0, idleReset: 0 }

function minus(after: ClosedByServer, before: ClosedByServer): ClosedByServer {
  const less = (name: keyof ClosedByServer): number => after[name] - before[name]
  return { total: less('total'), announced: less('announced'), idle: less('idle'), idleReset: less('idleReset') }
}
