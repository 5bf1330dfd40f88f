/**
 * Which apps run: every control socket in the directory is asked for its status, and the processes that belong together are put together: those of one
 * keeper, those of one name, and those that took over from each other.
 */

import { readdirSync, readFileSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { accepts, findPlaces, HandoverError, isAlive, listenerPid, whyDeaf, type AppStatus, type ControlRequest, type ProcessStatus } from '@handover/core/internal'
import { ask, NobodyListens, Silent } from './ask.js'
import { Failure } from '../failure.js'
import { serviceOf } from '../service.js'
import { nameOfPackage } from '../text.js'

/** An app, and where it can be asked. */
export interface App extends AppStatus {
  /** Its keeper ended without it: a pid, else null. */
  readonly lostKeeper: number | null
  /** Its keeper did not answer, and is not known to be gone. Else null. */
  readonly deafKeeper: DeafKeeper | null
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
  readonly silent: readonly Silence[]
  /** Names whose process was killed. */
  readonly left: readonly string[]
}

export interface DeafKeeper {
  readonly pid: number
  /** False where it cannot be seen from here. */
  readonly lives: boolean
  /** For people: a sentence without its full stop. */
  readonly what: string
}

/** A control socket that did not answer in time. */
export interface Silence {
  readonly file: string
  /** Of the process that holds it, where that is known. */
  readonly pid: number | undefined
  /** For people: the rest of a sentence. */
  readonly why: string
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
  const silent: Silence[] = []
  const left: string[] = []
  await Promise.all(files.map(async (file) => {
    try {
      const status = await statusOf(file)
      if (status) answered.push({ file, status })
    } catch (error) {
      if (error instanceof Silent) silent.push(silenceOf(file))
      else if (!(error instanceof NobodyListens)) return // another program's socket, or another user's
      else if (isOwn(file)) remove(file)
      else left.push(nameOf(file))
    }
  }))
  return { looked: found.looked, apps: group(answered, keeperOf), silent: silent.sort((a, b) => (a.file < b.file ? -1 : 1)), left: left.sort() }
}

function silenceOf(file: string): Silence {
  const holder = pidOf(file) ?? listenerPid(file)
  const pid = holder !== undefined && isAlive(holder) ? holder : undefined
  return { file, pid, why: pid === undefined ? 'see whether its event loop is blocked' : whyDeaf(pid) }
}

/** What became of a keeper that did not answer: undefined where it is gone. `worker`: one of its own, and the socket of that. */
function keeperOf(keeper: number, worker: number, ownFile: string | undefined): DeafKeeper | undefined {
  // Its pid means another process here, or none.
  if (ownFile !== undefined && listenerPid(ownFile) !== worker) {
    return { pid: keeper, lives: false, what: `process ${keeper} did not answer, and cannot be seen from here: it runs in another container` }
  }
  if (!isAlive(keeper) || !isKeeper(keeper, worker)) return undefined
  return { pid: keeper, lives: true, what: `process ${keeper} lives, and does not answer: ${whyDeaf(keeper)}` }
}

/** The pid may be another process's by now. */
function isKeeper(pid: number, worker: number): boolean {
  try {
    const text = readFileSync(`/proc/${worker}/stat`, 'utf8')
    const parent = Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1])
    return parent === pid || readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes('run')
  } catch {
    return process.platform !== 'linux'
  }
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

type KeeperOf = (keeper: number, worker: number, ownFile: string | undefined) => DeafKeeper | undefined

interface Group {
  readonly key: string
  readonly processes: Map<number, ProcessStatus>
  readonly answers: Answered[]
}

/** Pure. `keeperOf`: what is known of a keeper that did not answer; undefined where it is gone. */
export function group(answered: readonly Answered[], keeperOf: KeeperOf = () => undefined): App[] {
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
  return [...groups.values()].map((found) => appOf(found, keepers, keeperOf)).sort((a, b) => titleOf(a).localeCompare(titleOf(b)))
}

function appOf({ processes, answers }: Group, keepers: ReadonlySet<number>, keeperOf: KeeperOf): App {
  const kept = answers.find(({ status }) => status.keeper !== null)
  const all = [...processes.values()].sort((a, b) => Number(serves(b)) - Number(serves(a)) || (a.slot ?? 0) - (b.slot ?? 0) || b.generation - a.generation)
  const ownFiles = new Map(answers.filter(({ file, status }) => isOwn(file) && status.keeper === null).map(({ file, status }) => [status.processes[0]?.pid ?? 0, file]))
  const [first] = all
  // A name leads to whoever has it now; a process that drains has lost its own.
  const named = answers.find(({ file, status }) => !isOwn(file) && nameOf(file) === status.name)
  const own = first && serves(first) ? ownFiles.get(first.pid) : undefined
  const reloads = answers.map(({ status: { lastReload } }) => lastReload).filter((reload) => reload !== null).sort((a, b) => b.at - a.at)
  const keeper = first?.keeper ?? null
  const isMissing = first !== undefined && keeper !== null && !keepers.has(keeper)
  const deafKeeper = isMissing ? (keeperOf(keeper, first.pid, ownFiles.get(first.pid)) ?? null) : null
  return {
    name: answers.find(({ status: { name } }) => name !== null)?.status.name ?? null,
    keeper: kept?.status.keeper ?? null,
    service: kept ? kept.status.service : serviceOf(all),
    lostKeeper: isMissing && deafKeeper === null ? keeper : null,
    deafKeeper,
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

/** The app of this name, package or pid; without one the only app. Throws a Failure that says which there are. */
export function chooseApp({ looked, apps, silent, left }: Found, target: string | undefined): App {
  const running = apps.filter(({ file }) => file !== undefined)
  const list = (running.length > 0 ? running : apps).map((app) => (app.name === null ? titleOf(app) : `${app.name} (${app.keeper ? `keeper ${app.keeper.pid}` : `process ${app.processes[0]?.pid}`})`)).join(', ')
  const silently = describeSilences(silent).map((text) => ` ${text}.`).join('')
  if (target === undefined) {
    const [only, second] = running.length > 0 ? running : apps
    if (second) throw new Failure(`handover: several apps run: ${list}. Say which one, by name or pid.`)
    if (only) return only
    if (silently !== '') throw new Failure(`handover: nobody answers (looked in ${looked}).${silently} Nothing was asked.`)
    throw new Failure(`handover: no app of this user runs (looked in ${looked}). Start one, or set HANDOVER_DIR to where it looks for its own.`)
  }
  const pid = /^\d+$/.test(target) ? Number(target) : undefined
  const wanted = nameOfPackage(target)
  const app = apps.find(({ name }) => name === target) ?? (target.startsWith('@') ? apps.find(({ name }) => name === wanted) : undefined) ?? apps.find(({ keeper, processes }) => pid !== undefined && (keeper?.pid === pid || processes.some((process) => process.pid === pid)))
  if (app) return app
  const deaf = silent.filter(({ file, pid: holder }) => (pid === undefined ? [target, wanted].includes(nameOf(file)) : (pidOf(file) ?? holder) === pid))
  if (deaf.length > 0) throw new Failure(`handover: ${describeSilences(deaf).join('. ')}. Nothing was asked.`)
  if (left.includes(target)) throw new Failure(`handover: ${target} does not run: its socket in ${looked} is left from a process that was killed. Start it again.`)
  throw new Failure(`handover: no app ${JSON.stringify(target)} runs (looked in ${looked}).${silently} ${apps.length > 0 ? `These run: ${list}.` : 'Start it, or set HANDOVER_DIR to where it looks for its own.'}`)
}

/** One for each process: its own socket and the one of its name are both silent. */
export function describeSilences(silent: readonly Silence[]): string[] {
  const named = silent.filter(({ file }) => !isOwn(file))
  const others = silent.filter(({ file, pid }) => isOwn(file) && !named.some((other) => other.pid !== undefined && other.pid === pid))
  return [...named, ...others].map(({ file, pid, why }) => {
    const process = `process ${pid ?? pidOf(file) ?? '?'}`
    const who = isOwn(file) ? process : pid === undefined ? nameOf(file) : `${nameOf(file)} (${process})`
    return `${who} did not answer: ${why}`
  })
}

/** Where the app can be asked to do something. Throws a Failure where nothing serves any more. */
export function fileOf(app: App): string {
  // A worker would ask it, and wait; one that is stopped would be started again.
  if (app.deafKeeper?.lives) throw new Failure(`handover: the keeper of ${titleOf(app)}, ${app.deafKeeper.what}. Its workers serve. Nothing was asked.`)
  if (app.file !== undefined) return app.file
  const [first] = app.processes
  throw new Failure(`handover: ${titleOf(app)} is ${first?.state ?? 'gone'}, and nothing serves in its place. Start it again.`)
}
