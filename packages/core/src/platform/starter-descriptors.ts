/**
 * Descriptors above 2 that this process was started with: `3>audit.log`, a lock of the shell, the pipe of a supervisor. Each process that
 * it starts finds them at the same numbers, and Handover's own descriptors at others. Not among them: the sockets of systemd
 * (activated-sockets.ts), and the IPC channel of fork().
 */

import { fstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { activation } from './activated-sockets.js'
import { keeperMark, successorMark } from './marks.js'
import { native } from './native.js'
import { isMainThread } from './on-demand.js'
import { firstListenFd } from './systemd-notify.js'

export const nothing = '/dev/null'
const eventLoop = 'anon_inode:[eventpoll]'
/** Node opens the event loops of its own threads and of the main one before it runs any code. Seen in 20, 22, 24 and 26. */
const loopsOfNode = 3
/**
 * A program that writes to 3 without looking must not meet ours. Node closes descriptors for its children (FD_CLOEXEC) up to 15, and beyond
 * that to the first gap (uv_disable_stdio_inheritance): from here on ours leave none.
 */
const firstOwn = 10
/** At most 252 descriptors are passed on in all (native.ts). */
const mostNumbers = 200

/** What V8 writes with --prof, --perf-basic-prof and the like: of a whole process, and of each of its threads. */
const isLogOfV8 = (target: string): boolean => /\/(isolate-?0x[0-9a-f]+-[^/]*|perf-\d+\.map|jit-\d+\.dump)$/.test(target)
const writesLogs = /--(prof|perf|log)/

interface StarterDescriptor {
  readonly number: number
  /** What it led to: the program may close it, and open something else there. */
  readonly dev: number
  readonly ino: number
}

/**
 * No flag tells them: Node sets FD_CLOEXEC on all. But the kernel gives the lowest free numbers. What stands below Node's first descriptor
 * was there before it, and so was what stands among its first ones and is nothing that Node opens.
 */
function find(withListeners: boolean): StarterDescriptor[] {
  const open = lowest()
  const all = [...open.values()]
  const [first = 0] = [...open].find(([, target]) => target === eventLoop) ?? []
  const isOfNode = (target: string): boolean =>
    target.startsWith('anon_inode:') || isLogOfV8(target) || (target.startsWith('pipe:') && all.indexOf(target) !== all.lastIndexOf(target))
  const begin = firstListenFd + activation().passed
  const numbers = [...open]
    .filter(([number, target]) => number >= begin && number < mostNumbers && target !== nothing && (number < first || !isOfNode(target)))
    .map(([number]) => number)
  if (numbers.length === 0) return []
  const others = notOfStarter()
  return numbers.filter((number) => !others.includes(number) && (withListeners || !listens(number))).map((number) => {
    const { dev, ino } = fstatSync(number)
    return { number, dev, ino }
  })
}

function listens(number: number): boolean {
  const described = native?.describe(number)
  return typeof described === 'object' && described.listening
}

/** Undefined: it is closed, as that of the directory that was read. */
function targetOf(number: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${number}`)
  } catch {
    return undefined
  }
}

/** V8 opens them without FD_CLOEXEC: each process would have those of all before it. */
function keepLogsOfV8(): void {
  if (![...process.execArgv, process.env['NODE_OPTIONS'] ?? ''].some((word) => writesLogs.test(word))) return
  for (const number of readdirSync('/proc/self/fd').map(Number)) if (isLogOfV8(targetOf(number) ?? '')) native?.closeOnExec(number)
}

/** What the lowest descriptors of this process lead to, by their numbers, up to the last one that surely was there before any code. */
function lowest(): Map<number, string> {
  const found = new Map<number, string>()
  let loops = 0
  for (const number of readdirSync('/proc/self/fd').map(Number).sort((a, b) => a - b)) {
    const target = targetOf(number)
    if (target === undefined) continue
    found.set(number, target)
    if (target === eventLoop && ++loops === loopsOfNode) return found
  }
  return new Map([...found].slice(0, [...found.values()].indexOf(eventLoop) + 1))
}

/** Ends of channels, by the variables of the start. */
function notOfStarter(): number[] {
  const variables = readFileSync('/proc/self/environ', 'latin1').split('\0')
  const valueOf = (name: string): string => variables.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1) ?? ''
  const words = [...valueOf(successorMark).split(','), ...valueOf(keeperMark).split(',').slice(0, 2), valueOf('NODE_CHANNEL_FD')]
  return words.filter((word) => word !== '').map(Number)
}

let found: readonly StarterDescriptor[] | undefined

/**
 * The first call finds them: it must come before the program can open or close descriptors. `withListeners`: in a keeper. Without one, what
 * the program listens on goes with the offer, and a copy at the old number would stay open when the program closes it.
 */
export function starterDescriptors(withListeners = false): readonly StarterDescriptor[] {
  try {
    return found ??= isMainThread() ? find(withListeners) : []
  } catch {
    return found = [] // there is no proc(5)
  }
}

/** It still leads where it did, and somebody reads it: a readiness pipe is read once, and the next process would end by EPIPE. */
function isOfUse({ number, dev, ino }: StarterDescriptor): boolean {
  try {
    const stat = fstatSync(number)
    if (stat.dev !== dev || stat.ino !== ino) return false
    return !stat.isFIFO() || !isWritten(number) || native?.pollReadable(number, 0) !== 1
  } catch {
    return false // it is closed
  }
}

/** Whether it was opened for writing alone. The flags in octal. proc(5), open(2) */
const isWritten = (number: number): boolean => /^flags:.*1$/m.test(readFileSync(`/proc/self/fdinfo/${number}`, 'utf8'))

/** What a started process has at 0, 1, …, and at which numbers it finds `own`. */
export interface Layout {
  readonly fds: readonly number[]
  readonly numbers: readonly number[]
}

/** `first`: at 0, 1, …; `empty`: for numbers at which there is nothing; a descriptor of /dev/null. */
export function layOut(first: readonly number[], own: readonly number[], empty: number): Layout {
  keepLogsOfV8()
  const fds: (number | undefined)[] = [...first]
  for (const each of starterDescriptors()) fds[each.number] = isOfUse(each) ? each.number : empty
  let next = firstOwn
  const numbers = own.map((fd) => {
    while (fds[next] !== undefined) next++
    fds[next] = fd
    return next
  })
  return { fds: Array.from(fds, (fd) => fd ?? empty), numbers }
}
