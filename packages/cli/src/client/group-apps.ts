/**
 * Puts the answers of control sockets together into apps: the processes of one keeper, of one name, and those that took over from each
 * other. A process knows itself better than its keeper does. Pure.
 *
 * A pid is unique in one container only, and several may share the directory: in each of them the keeper is PID 1.
 */

import { accepts, type AppStatus, type ProcessStatus } from '@handover/core/internal'
import { isOwn, nameOf } from '../control/socket-names.js'
import { serviceOf } from '../service.js'

/** An app, and where it can be asked. */
export interface App extends AppStatus {
  /** Its keeper ended without it: a pid, else null. */
  readonly lostKeeper: number | null
  /** Its keeper did not answer, and is not known to be gone. Else null. */
  readonly deafKeeper: DeafKeeper | null
  /** The control socket that can reload and stop it. Undefined if nothing serves any more. */
  readonly file: string | undefined
  /** The own control sockets of its processes, by `identityOf`. */
  readonly ownFiles: ReadonlyMap<string, string>
}

/** What one control socket answered. */
export interface ControlSocketAnswer {
  readonly file: string
  readonly status: AppStatus
}

export interface DeafKeeper {
  readonly pid: number
  /** False if it cannot be seen from here. */
  readonly lives: boolean
  /** For people: a sentence without its full stop. */
  readonly what: string
}

type KeeperOf = (keeper: number, worker: number, ownFile: string | undefined) => DeafKeeper | undefined

const serves = ({ state }: ProcessStatus): boolean => accepts(state)

/** The processes of one keeper are in one container. */
export const identityOf = ({ pid, keeper, service: { id } }: ProcessStatus): string => (keeper !== null || id === '' ? String(pid) : id)

/** Of those that share a directory only one has the name. */
const keeperKey = (pid: number, name: string | null): string => `keeper ${pid} ${name ?? ''}`

interface Group {
  readonly processes: Map<string, ProcessStatus>
  readonly answers: ControlSocketAnswer[]
}

/** `keeperOf`: what is known of a keeper that did not answer; undefined if it is gone. */
export function group(answered: readonly ControlSocketAnswer[], keeperOf: KeeperOf = () => undefined): App[] {
  const lineOf = linesOf(answered)
  const keyOf = ({ status }: ControlSocketAnswer): string => {
    const [process] = status.processes
    const keeper = status.keeper?.pid ?? process?.keeper
    if (keeper !== undefined && keeper !== null) return keeperKey(keeper, status.name)
    return status.name === null ? `line ${process ? lineOf(process) : '?'}` : `name ${status.name}`
  }
  const groups = new Map<string, Group>()
  for (const answer of answered) {
    const key = keyOf(answer)
    const known = groups.get(key) ?? { processes: new Map<string, ProcessStatus>(), answers: [] }
    groups.set(key, known)
    known.answers.push(answer)
    // What a process says of itself is newer than what its keeper knows of it.
    for (const process of answer.status.processes) {
      const identity = identityOf(process)
      if (!known.processes.has(identity) || answer.status.keeper === null) known.processes.set(identity, process)
    }
  }
  return [...groups.values()].map((found) => appOf(found, keeperOf)).sort((a, b) => titleOf(a).localeCompare(titleOf(b)))
}

/** Processes that took over from each other are one line, which is called by the first of their identities. */
function linesOf(answered: readonly ControlSocketAnswer[]): (process: ProcessStatus) => string {
  const all = answered.flatMap(({ status }) => status.processes)
  const pairs = all.flatMap((process) => {
    const { pid, lastReport } = process
    const other = lastReport?.successor?.pid === pid ? lastReport.predecessor.pid : lastReport?.successor?.pid
    return all.filter((found) => found.pid === other && other !== pid).map((found) => [identityOf(process), identityOf(found)] as const)
  })
  return (process) => {
    const line = new Set([identityOf(process)])
    for (;;) {
      const before = line.size
      for (const [one, other] of pairs) if (line.has(one) || line.has(other)) line.add(one).add(other)
      if (line.size === before) return [...line].sort()[0]!
    }
  }
}

function appOf({ processes, answers }: Group, keeperOf: KeeperOf): App {
  const kept = answers.find(({ status }) => status.keeper !== null)
  const all = [...processes.values()].sort((a, b) =>
    Number(serves(b)) - Number(serves(a)) || (a.slot ?? 0) - (b.slot ?? 0) || b.generation - a.generation)
  const own = answers.filter(({ file, status }) => isOwn(file) && status.keeper === null)
  const ownFiles = new Map(own.flatMap(({ file, status }) => status.processes.map((process) => [identityOf(process), file] as const)))
  const [first] = all
  const ownFile = first && ownFiles.get(identityOf(first))
  // The socket of a name leads to the process that has it now. A process that drains has lost it.
  const named = answers.find(({ file, status }) => !isOwn(file) && nameOf(file) === status.name)
  const servingFile = first && serves(first) ? ownFile : undefined
  const reloads = answers.map(({ status: { lastReload } }) => lastReload).filter((reload) => reload !== null).sort((a, b) => b.at - a.at)
  const keeper = first?.keeper ?? null
  const isMissing = first !== undefined && keeper !== null && !kept
  const deafKeeper = isMissing ? (keeperOf(keeper, first.pid, ownFile) ?? null) : null
  return {
    name: answers.find(({ status: { name } }) => name !== null)?.status.name ?? null,
    keeper: kept?.status.keeper ?? null,
    service: kept ? kept.status.service : serviceOf(all),
    lostKeeper: isMissing && deafKeeper === null ? keeper : null,
    deafKeeper,
    processes: all,
    lastReload: kept ? kept.status.lastReload : (reloads[0] ?? null),
    ...(kept?.status.reloads && { reloads: kept.status.reloads }),
    file: (kept ?? named)?.file ?? servingFile,
    ownFiles
  }
}

/** What an app is called, to tell it from others. */
export const titleOf = ({ name, keeper, processes }: App): string =>
  name ?? (keeper ? `keeper ${keeper.pid}` : `process ${processes[0]?.pid ?? '?'}`)
