/** Which apps run: asks every control socket for its status, and removes those that killed processes left. */

import { readdirSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  findPlaces, HandoverError, isAlive, listenerPid, statOf, whyDeaf, wordsOf, type Peer, type ProcessStatus
} from '@handover/core/internal'
import { NoListener, NoAnswer, statusOf } from '../control/ask.js'
import { removeSocket } from '../control/left-sockets.js'
import { ending, isOwn, nameOf, pidOf } from '../control/socket-names.js'
import { Failure } from '../failure.js'
import { group, type ControlSocketAnswer, type App, type DeafKeeper } from './group-apps.js'

const [tellsWithinMs, lookMs] = [1_000, 50]

export interface FoundApps {
  /** The directories that were searched, for a message. */
  readonly looked: string
  readonly apps: readonly App[]
  /** Control sockets that did not answer in time. */
  readonly silent: readonly Silence[]
  /** Names whose process was killed. */
  readonly left: readonly string[]
}

/** A control socket that did not answer in time. */
export interface Silence {
  readonly file: string
  /** Of the process that holds it, where that is known. */
  readonly pid: number | undefined
  /** For people: the rest of a sentence. */
  readonly why: string
}

/** Throws a Failure if HANDOVER_DIR is given and cannot be used. */
export async function findApps(): Promise<FoundApps> {
  let found: ReturnType<typeof findPlaces>
  try {
    found = findPlaces()
  } catch (error) {
    throw error instanceof HandoverError ? new Failure(error) : error
  }
  const socketsIn = (folder: string): string[] => readdirSync(folder).filter((name) => name.endsWith(ending)).sort()
  const files = found.folders.flatMap((folder) => socketsIn(folder).map((name) => path.join(folder, name)))
  const answered: ControlSocketAnswer[] = []
  const silent: Silence[] = []
  const left: string[] = []
  await Promise.all(files.map(async (file) => {
    try {
      const status = await statusOf(file)
      if (status) answered.push({ file, status })
    } catch (error) {
      if (error instanceof NoAnswer) silent.push(silenceOf(file))
      else if (!(error instanceof NoListener)) return // another program's socket, or another user's
      else if (isOwn(file)) removeSocket(file)
      else left.push(nameOf(file))
    }
  }))
  silent.sort((a, b) => (a.file < b.file ? -1 : 1))
  const hasDeafName = silent.some(({ file }) => !isOwn(file))
  const apps = group(answered, (keeper, worker, ownFile) => keeperOf(keeper, worker, ownFile, hasDeafName))
  return { looked: found.looked, apps, silent, left: left.sort() }
}

/**
 * What these processes say of themselves; undefined where one is gone or silent. Asks again until all of it suffices, for up to a second: a
 * successor can be asked only just after it serves.
 */
export async function statusesOf(
  peers: readonly Peer[], suffices: (status: ProcessStatus) => boolean = () => true
): Promise<(ProcessStatus | undefined)[]> {
  const until = performance.now() + tellsWithinMs
  for (;;) {
    const processes = (await findApps()).apps.flatMap((app) => app.processes)
    const found = peers.map((peer) => processes.find(({ pid, generation }) => pid === peer.pid && generation === peer.generation))
    if (found.every((status) => status && suffices(status)) || performance.now() > until) return found
    await sleep(lookMs)
  }
}

function silenceOf(file: string): Silence {
  const holder = pidOf(file) ?? listenerPid(file)
  const pid = holder !== undefined && isAlive(holder) ? holder : undefined
  return { file, pid, why: pid === undefined ? 'see whether its event loop is blocked' : whyDeaf(pid) }
}

/**
 * What became of a keeper that did not answer; undefined if it is gone. `worker`: one of its workers, with its own socket. `wasAsked`: the
 * socket of a keeper was found.
 */
export function keeperOf(keeper: number, worker: number, ownFile: string | undefined, wasAsked = true): DeafKeeper | undefined {
  // In another container the pid means another process here, or none.
  if (ownFile !== undefined && listenerPid(ownFile) !== worker) {
    return { pid: keeper, lives: false, what: `process ${keeper} did not answer, and cannot be seen from here: it runs in another container` }
  }
  if (!isAlive(keeper) || !isKeeper(keeper, worker)) return undefined
  const instead = 'and no control socket of it is found here: its log says why. SIGHUP reloads it, and SIGTERM stops it'
  return { pid: keeper, lives: true, what: `process ${keeper} lives, ${wasAsked ? `and does not answer: ${whyDeaf(keeper)}` : instead}` }
}

/** The pid may be another process's by now. */
function isKeeper(pid: number, worker: number): boolean {
  const [, parent] = statOf(worker)
  return parent === undefined ? process.platform !== 'linux' : Number(parent) === pid || wordsOf(pid).includes('run')
}

/** Of those that do not stand in the table of their keeper. */
export function silencesBeside({ silent }: FoundApps, apps: readonly App[]): string[] {
  const known = new Set(apps.flatMap(({ processes }) => processes.map(({ pid }) => pid)))
  return describeSilences(silent.filter(({ file, pid }) => !known.has(pidOf(file) ?? pid ?? 0)))
}

/** One sentence for each process: its own socket and that of its name are both silent. */
export function describeSilences(silent: readonly Silence[]): string[] {
  const named = silent.filter(({ file }) => !isOwn(file))
  const others = silent.filter(({ file, pid }) => isOwn(file) && !named.some((other) => other.pid !== undefined && other.pid === pid))
  return [...named, ...others].map(({ file, pid, why }) => {
    const process = `process ${pid ?? pidOf(file) ?? '?'}`
    const who = isOwn(file) ? process : pid === undefined ? nameOf(file) : `${nameOf(file)} (${process})`
    return `${who} did not answer: ${why}`
  })
}
