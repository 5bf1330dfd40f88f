/**
 * Where an app serves that Handover cannot hand over: in a worker thread, in a process that the worker started, behind node:cluster, or
 * without the addon. Only listeners in the main thread of the process that `handover run` started can go to a successor.
 *
 * Read from proc(5), since such a process says nothing of it. Without it (macOS) nothing is found.
 */

import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import path from 'node:path'
import { listed, socketsOf, wordsOf } from '@handover/core/internal'
import { cut, printable } from '../text.js'

/** Names as in reports. */
interface ListeningProcess {
  readonly pid: number
  readonly names: readonly string[]
}

export interface OtherListeners {
  /** What the worker itself has opened and listens on, in any thread: not what its keeper has, too, as sockets of systemd. */
  readonly itself: readonly string[]
  /** Processes that it started, and those that they started. */
  readonly others: readonly ListeningProcess[]
}

const mostProcesses = 200
const longestCommand = 120
/** State 0A: LISTEN. */
const listeningTcp = /^ *\d+: \S+ \S+ 0A .*$/gm
/** Of the flags, __SO_ACCEPTCON (0x10000). */
const listeningUnix = /^\w+: \w+ \w+ \w{3}[13579BDF]\w{4} .*$/gm
/** With many connections the table of the sockets is megabytes, of which few lines matter. */
const pieceBytes = 32_768

/** What the worker `pid` listens on, and what the processes below it listen on and do not share with it. */
export function listensElsewhere(pid: number): OtherListeners {
  const sockets = listeningSockets(pid)
  if (sockets.size === 0) return { itself: [], others: [] }
  const own = socketsOf(pid)
  const others = below(pid)
    .map((child) => ({ pid: child, names: namesOf(socketsOf(child).filter((inode) => !own.includes(inode)), sockets) }))
    .filter(({ names }) => names.length > 0)
  const passed = socketsOf(process.pid)
  return { itself: namesOf(own.filter((inode) => !passed.includes(inode)), sockets), others }
}

const namesOf = (inodes: readonly string[], sockets: ReadonlyMap<string, string>): string[] =>
  [...new Set(inodes.flatMap((inode) => sockets.get(inode) ?? []))]

/** All listening sockets in the network namespace of this process, by inode. */
function listeningSockets(pid: number): Map<string, string> {
  const found = new Map<string, string>()
  for (const [file, address] of [['tcp', ipv4], ['tcp6', ipv6]] as const) {
    for (const line of linesOf(`/proc/${pid}/net/${file}`, listeningTcp)) {
      const [, local = '', , , , , , , , inode = ''] = line.trim().split(/\s+/)
      const [host = '', port = ''] = local.split(':')
      found.set(inode, `tcp ${address(host)}:${parseInt(port, 16)}`)
    }
  }
  for (const line of linesOf(`/proc/${pid}/net/unix`, listeningUnix)) {
    const [, , , , , , inode = '', file] = line.trim().split(/\s+/)
    if (file !== undefined) found.set(inode, `unix ${file}`)
  }
  return found
}

/** The kernel writes words in the byte order of the machine. All machines with Handover are little-endian. */
const bytesOf = (word: string): number[] => [6, 4, 2, 0].map((at) => parseInt(word.slice(at, at + 2), 16))
const ipv4 = (hex: string): string => bytesOf(hex).join('.')

function ipv6(hex: string): string {
  const bytes = [0, 8, 16, 24].flatMap((at) => bytesOf(hex.slice(at, at + 8)))
  const groups = Array.from({ length: 8 }, (_, index) => (bytes[2 * index]! * 256 + bytes[2 * index + 1]!).toString(16))
  // URL writes the shortest form.
  return new URL(`http://[${groups.join(':')}]`).hostname
}

function linesOf(file: string, wanted: RegExp): string[] {
  const found: string[] = []
  try {
    const fd = openSync(file, 'r')
    try {
      const piece = Buffer.allocUnsafe(pieceBytes)
      for (let kept = 0, bytes; (bytes = readSync(fd, piece, kept, pieceBytes - kept, null)) > 0;) {
        const end = kept + bytes
        const whole = piece.lastIndexOf(10, end - 1) + 1
        found.push(...piece.toString('utf8', 0, whole).match(wanted) ?? [])
        kept = end - whole
        piece.copyWithin(0, whole, end)
      }
    } finally {
      closeSync(fd)
    }
  } catch { /* this system has none */ }
  return found
}

/** Every process that this one started, and those that they started. */
function below(pid: number): number[] {
  const all = [pid]
  for (const one of all) {
    if (all.length > mostProcesses) break
    try {
      for (const thread of readdirSync(`/proc/${one}/task`)) {
        all.push(...readFileSync(`/proc/${one}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number))
      }
    } catch { /* it has ended */ }
  }
  return all.slice(1)
}

const optionsWithValue = ['--require', '-r', '--import', '--loader', '--experimental-loader', '-C', '--conditions']

/** A process, for people. Arguments may be secrets: only the program is shown. */
function whoOf(pid: number): string {
  const words = wordsOf(pid).slice(0, -1)
  const script = words.slice(1).find((word, at, rest) => !word.startsWith('-') && !optionsWithValue.includes(rest[at - 1] ?? ''))
  const shown = [path.basename(words[0] ?? ''), script].filter(Boolean).join(' ')
  return `process ${pid}${shown === '' ? '' : ` (${printable(cut(shown, longestCommand))})`}`
}

export interface WorkerFacts {
  readonly pid: number
  /** The addon and the line work in it. */
  readonly speaks: boolean
  /** Why the worker leaves its listeners to Node, as it says itself. */
  readonly plain: string | undefined
  /** How it was started. */
  readonly args: readonly string[]
}

/** Two sentences, without their full stops. */
export interface Place {
  readonly what: string
  readonly todo: string
}

/** Where the app serves if the worker never listened itself, and why that cannot be handed over. Undefined if nothing is found. */
export function whereItServes(worker: WorkerFacts, { itself, others }: OtherListeners): Place | undefined {
  const { pid } = worker
  if (itself.length > 0) {
    const [why, todo] = reasonFor(worker)
    return { what: `process ${pid} serves ${listed(itself)}, and cannot be handed over: ${why}`, todo }
  }
  const [first] = others
  if (!first) return undefined
  const names = [...new Set(others.flatMap((other) => other.names))]
  return {
    what: `process ${pid} listens on nothing itself: ${whoOf(first.pid)}, which it started, serves ${listed(names)}, ` +
      'and cannot be handed over: only the process that handover run starts can',
    todo: launcherTodo(worker.args)
  }
}

/** A launcher listens only for its own processes, on a path, and one of these has a port. Undefined if it is none. `listeners`: its own. */
export function whatItLaunched({ pid, args }: WorkerFacts, listeners: readonly string[], { others }: OtherListeners): Place | undefined {
  if (listeners.length === 0 || !listeners.every((name) => name.startsWith('unix '))) return undefined
  const isTcp = (name: string): boolean => name.startsWith('tcp ')
  const served = others.filter(({ names }) => names.some(isTcp))
  const [first] = served
  if (!first) return undefined
  return {
    what: `process ${pid} listens on ${listed(listeners)} alone, and ${whoOf(first.pid)}, which it started, ` +
      `serves ${listed(served.flatMap(({ names }) => names.filter(isTcp)))}: that process is not handed over`,
    todo: launcherTodo(args)
  }
}

function reasonFor({ speaks, plain, args }: WorkerFacts): readonly [why: string, todo: string] {
  if (plain !== undefined) return [plain, 'Else restart the app to load new code']
  const permission = [...args, ...(process.env['NODE_OPTIONS'] ?? '').split(' ')].some((arg) => /^--(experimental-)?permission\b/.test(arg))
  if (!speaks && permission) return ['--permission forbids the addon in it', 'Allow it with --allow-addons, or restart the app to load new code']
  if (!speaks) return ['Handover could not be loaded in it, and its log has the reason', 'Repair that, and start again']
  return ['it listens in a worker thread, and only what listens in the main thread can go to another process', 'Let the main thread listen, or restart the app to load new code']
}

const launchers = /(?:^|\/)(tsx|ts-node-dev|ts-node|nodemon|npm|npx|yarn|pnpm|concurrently|cross-env|dotenv)(?:$|[./-])/

/** What to start in place of a program that starts another one. */
function launcherTodo(args: readonly string[]): string {
  const launcher = args.map((arg) => launchers.exec(arg)?.[1]).find((name) => name !== undefined)
  switch (launcher) {
    case 'tsx': return 'Give node the loader, and handover run the program itself: handover run --import tsx app.ts'
    case 'ts-node':
    case 'ts-node-dev': return 'Give node the loader, and handover run the program itself: handover run --require ts-node/register app.ts'
    case undefined: return 'Give handover run the program that listens, or restart the app to load new code'
    default: return `Give handover run the program that ${launcher} starts, and not ${launcher} itself`
  }
}
