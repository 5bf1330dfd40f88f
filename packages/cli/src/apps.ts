/**
 * Which apps run: every control socket in the directory is asked for its status, and the processes that belong together are put together: those of one
 * keeper, those of one name, and those that took over from each other.
 */

import { readdirSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { accepts, findPlaces, HandoverError, type AppStatus, type ControlRequest, type ProcessStatus } from '@handover/core/keeper'
import { ask, NobodyListens, Silent } from './ask.js'
import { Failure } from './failure.js'
import { serviceOf } from './service.js'

/** An app, and where it can be asked. */
export interface App extends AppStatus {
  /** Its keeper ended without it: a pid, else null. */
  readonly lostKeeper: number | null
  /** The control socket that can reload and stop it; undefined where nothing serves any more. */
  readonly file: string | undefined
  /** Of each process that has one, by pid. */
  readonly ownFiles: ReadonlyMap<number, string>
}

export interface Found {
  /** Where it was looked, for a message. */
  readonly looked: string
  readonly apps: readonly App[]
  /** Control sockets that did not answer in time. */
  readonly silent: readonly string[]
  /** Names whose process was killed. */
  readonly left: readonly string[]
}

/** What one control socket answered. */
export interface Answered {
  readonly file: string
  readonly status: AppStatus
}

const statusMs = 3_000
const ending = '.sock'

export const isOwn = (file: string): boolean => path.basename(file).startsWith('@')
const nameOf = (file: string): string => path.basename(file, ending)
/** `@4312-0a1b2c3d.sock` → 4312. */
export const pidOf = (file: string): number | undefined => {
  const pid = /^@(\d+)-/.exec(path.basename(file))?.[1]
  return pid === undefined ? undefined : Number(pid)
}

const serves = ({ state }: ProcessStatus): boolean => accepts(state)

/** Asks everybody. Removes what killed processes left of their own sockets. Throws a Failure where HANDOVER_DIR is given and cannot be used. */
export async function findApps(): Promise<Found> {
  let found: ReturnType<typeof findPlaces>
  try {
    found = findPlaces()
  } catch (error) {
    throw error instanceof HandoverError ? new Failure(`handover: ${error.message}`) : error
  }
  const files = found.folders.flatMap((folder) => readdirSync(folder).filter((name) => name.endsWith(ending)).sort().map((name) => path.join(folder, name)))
  const answered: Answered[] = []
  const silent: string[] = []
  const left: string[] = []
  await Promise.all(files.map(async (file) => {
    try {
      const status = await statusOf(file)
      if (status) answered.push({ file, status })
    } catch (error) {
      if (error instanceof Silent) silent.push(file)
      else if (!(error instanceof NobodyListens)) return // another program's socket, or another user's
      else if (isOwn(file)) remove(file)
      else left.push(nameOf(file))
    }
  }))
  return { looked: found.looked, apps: group(answered), silent: silent.sort(), left: left.sort() }
}

function remove(file: string): void {
  try {
    unlinkSync(file)
  } catch { /* somebody else did */ }
}

/** Undefined where it answers something else. Throws as `ask` does. */
export async function statusOf(file: string): Promise<AppStatus | undefined> {
  const request: ControlRequest = { type: 'request', verb: 'status' }
  for await (const answer of ask(file, request, () => statusMs)) if (answer.type === 'status') return answer.app
  return undefined
}

// ---- which belong together ----

interface Group {
  readonly key: string
  readonly processes: Map<number, ProcessStatus>
  readonly answers: Answered[]
}

/** Pure. */
export function group(answered: readonly Answered[]): App[] {
  const keepers = new Set(answered.map(({ status: { keeper } }) => keeper?.pid).filter((pid) => pid !== undefined))
  const heirs = new Map<number, number>()
  const pids = new Set(answered.flatMap(({ status }) => status.processes.map(({ pid }) => pid)))
  for (const { status: { processes } } of answered) {
    for (const { pid, lastReport } of processes) {
      const other = lastReport?.successor?.pid === pid ? lastReport.predecessor.pid : lastReport?.successor?.pid
      if (other !== undefined && other !== pid && pids.has(other)) heirs.set(pid, other)
    }
  }
  const lineOf = (pid: number): number => {
    const line = new Set([pid])
    for (;;) {
      const before = line.size
      for (const [one, other] of heirs) if (line.has(one) || line.has(other)) line.add(one).add(other)
      if (line.size === before) return Math.min(...line)
    }
  }
  const keyOf = ({ status }: Answered): string => {
    const [process] = status.processes
    const keeper = status.keeper?.pid ?? process?.keeper
    if (keeper !== undefined && keeper !== null) return `keeper ${keeper}`
    return status.name === null ? `line ${process ? lineOf(process.pid) : '?'}` : `name ${status.name}`
  }
  const groups = new Map<string, Group>()
  for (const answer of answered) {
    const key = keyOf(answer)
    const known = groups.get(key) ?? { key, processes: new Map<number, ProcessStatus>(), answers: [] }
    groups.set(key, known)
    known.answers.push(answer)
    // What a process says of itself is newer than what its keeper knows of it.
    for (const process of answer.status.processes) if (!known.processes.has(process.pid) || answer.status.keeper === null) known.processes.set(process.pid, process)
  }
  return [...groups.values()].map((found) => appOf(found, keepers)).sort((a, b) => titleOf(a).localeCompare(titleOf(b)))
}

function appOf({ processes, answers }: Group, keepers: ReadonlySet<number>): App {
  const kept = answers.find(({ status }) => status.keeper !== null)
  const all = [...processes.values()].sort((a, b) => Number(serves(b)) - Number(serves(a)) || (a.slot ?? 0) - (b.slot ?? 0) || b.generation - a.generation)
  const ownFiles = new Map(answers.filter(({ file, status }) => isOwn(file) && status.keeper === null).map(({ file, status }) => [status.processes[0]?.pid ?? 0, file]))
  const [first] = all
  // A name leads to whoever has it now; a process that drains has lost its own.
  const named = answers.find(({ file, status }) => !isOwn(file) && nameOf(file) === status.name)
  const own = first && serves(first) ? ownFiles.get(first.pid) : undefined
  const reloads = answers.map(({ status: { lastReload } }) => lastReload).filter((reload) => reload !== null).sort((a, b) => b.at - a.at)
  const keeper = first?.keeper ?? null
  return {
    name: answers.find(({ status: { name } }) => name !== null)?.status.name ?? null,
    keeper: kept?.status.keeper ?? null,
    service: kept ? kept.status.service : serviceOf(all),
    lostKeeper: keeper !== null && !keepers.has(keeper) ? keeper : null,
    processes: all,
    lastReload: kept ? kept.status.lastReload : (reloads[0] ?? null),
    file: (kept ?? named)?.file ?? own,
    ownFiles
  }
}

/** What an app is called where it must be told from others. */
export function titleOf({ name, keeper, processes }: App): string {
  return name ?? (keeper ? `keeper ${keeper.pid}` : `process ${processes[0]?.pid ?? '?'}`)
}

// ---- which one is meant ----

/** The app of this name or pid; without one the only app. Throws a Failure that says which there are. */
export function chooseApp({ looked, apps, silent, left }: Found, target: string | undefined): App {
  const running = apps.filter(({ file }) => file !== undefined)
  const list = (running.length > 0 ? running : apps).map((app) => (app.name === null ? titleOf(app) : `${app.name} (${app.keeper ? `keeper ${app.keeper.pid}` : `process ${app.processes[0]?.pid}`})`)).join(', ')
  const silently = silent.length > 0 ? ` ${silent.map((file) => (isOwn(file) ? `process ${pidOf(file)}` : nameOf(file))).join(', ')} did not answer: see whether its event loop is blocked.` : ''
  if (target === undefined) {
    const [only, second] = running.length > 0 ? running : apps
    if (second) throw new Failure(`handover: several apps run: ${list}. Say which one, by name or pid.`)
    if (only) return only
    throw new Failure(`handover: no app of this user runs (looked in ${looked}).${silently} Start one, or set HANDOVER_DIR to where it looks for its own.`)
  }
  const pid = /^\d+$/.test(target) ? Number(target) : undefined
  const app = apps.find(({ name }) => name === target) ?? apps.find(({ keeper, processes }) => pid !== undefined && (keeper?.pid === pid || processes.some((process) => process.pid === pid)))
  if (app) return app
  if (left.includes(target)) throw new Failure(`handover: ${target} does not run: its socket in ${looked} is left from a process that was killed. Start it again.`)
  throw new Failure(`handover: no app ${JSON.stringify(target)} runs (looked in ${looked}).${silently} ${apps.length > 0 ? `These run: ${list}.` : 'Start it, or set HANDOVER_DIR to where it looks for its own.'}`)
}

/** Where the app can be asked to do something. Throws a Failure where nothing serves any more. */
export function fileOf(app: App): string {
  if (app.file !== undefined) return app.file
  const [first] = app.processes
  throw new Failure(`handover: ${titleOf(app)} is ${first?.state ?? 'gone'}, and nothing serves in its place. Start it again.`)
}
