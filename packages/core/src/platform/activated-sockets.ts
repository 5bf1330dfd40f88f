/**
 * The sockets that systemd opened for this service (a socket unit; LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES of sd_listen_fds(3)).
 *
 * This process keeps copies. Every process that it starts finds them at 3, 4, … in the same order, with its own pid in LISTEN_PID, as if
 * systemd had started it. Other descriptors (checkpoints, files of the descriptor store, connections) are not passed on.
 */

import { fstatSync } from 'node:fs'
import path from 'node:path'
import { isExecutable } from './command-line.js'
import { native, type SocketDescription } from './native.js'
import { isMainThread } from './on-demand.js'
import { nameOf } from './socket-name.js'
import { firstListenFd, storedName } from './systemd-notify.js'

/** Stands for the pid of a process that is about to be started. */
const ownPid = 'handover'
/** These hold the pid of the process that they are meant for. */
const pidVariables = ['LISTEN_PID', 'WATCHDOG_PID'] as const
const listenVariables = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES'] as const
/** The name of a descriptor without a name. sd_listen_fds(3) */
const unnamed = 'unknown'

export interface ActivatedSocket {
  readonly name: string
  /** For people: the address where it has one, else the name. */
  readonly title: string
  /** Where the program finds it: 3, 4, … */
  readonly number: number
  /** A copy that stays open as long as this process lives. */
  readonly fd: number
  /** Undefined for a FIFO or a special file: ListenFIFO=, ListenSpecial=. */
  readonly about: SocketDescription | undefined
}

class ActivatedSockets {
  readonly sockets: readonly ActivatedSocket[]
  /** LISTEN_FDS has a connection: the unit says Accept=yes. */
  readonly hasConnection: boolean
  /** How many descriptors systemd passed, from 3 on, whatever they are. */
  readonly passed: number

  /** Each process asks once: see `activation()`. */
  constructor(env: NodeJS.ProcessEnv) {
    for (const variable of pidVariables) if (env[variable] === ownPid) env[variable] = String(process.pid)
    const { LISTEN_PID: pid, LISTEN_FDS: count = '', LISTEN_FDNAMES: names = '' } = env
    this.passed = pid === String(process.pid) && /^\d{1,4}$/.test(count) && isMainThread() ? Number(count) : 0
    const words = names === '' ? [] : names.split(':')
    const all = Array.from({ length: this.passed }, (_, index) => socketAt(firstListenFd + index, words[index] ?? unnamed))
    this.hasConnection = all.includes('connection')
    this.sockets = all.filter((each) => typeof each === 'object')
  }

  /** Whether this descriptor leads to one of them. */
  has(fd: number): boolean {
    if (this.sockets.length === 0) return false
    const { dev, ino } = fstatSync(fd)
    return this.sockets.some((socket) => {
      const own = fstatSync(socket.fd)
      return own.ino === ino && own.dev === dev
    })
  }

  /** `env` as systemd would make it for a process that is started by this one and finds the sockets at 3, 4, … */
  environment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
    const passed = { ...env }
    for (const variable of pidVariables) if (passed[variable] === String(process.pid)) passed[variable] = ownPid
    if (this.sockets.length > 0) {
      const names = this.sockets.map(({ name }) => name).join(':')
      return { ...passed, LISTEN_PID: ownPid, LISTEN_FDS: String(this.sockets.length), LISTEN_FDNAMES: names }
    }
    // All that there was has been taken (checkpoints), or is not passed on.
    if (passed['LISTEN_PID'] === ownPid) for (const variable of listenVariables) Reflect.deleteProperty(passed, variable)
    return passed
  }
}

/** The socket at this number; undefined where it is not from a socket unit. */
function socketAt(number: number, name: string): ActivatedSocket | 'connection' | undefined {
  if (!native || name.startsWith(storedName)) return undefined
  try {
    const found = fstatSync(number)
    const described = native.describe(number)
    const about = typeof described === 'object' ? described : undefined
    if (about && (about.type === 'stream' || about.type === 'seqpacket') && !about.listening) return 'connection'
    // A file comes from the descriptor store, and belongs to the first process that reads it.
    if (!about && !found.isFIFO() && !found.isCharacterDevice()) return undefined
    const fd = native.duplicate(number)
    return fd < 0 ? undefined : { name, title: about ? nameOf(about) : name, number, fd, about }
  } catch {
    return undefined // it is not open
  }
}

let own: ActivatedSockets | undefined

/** What systemd opened for this process. The first call puts its own pid into `process.env`. */
export const activation = (): ActivatedSockets => (own ??= new ActivatedSockets(process.env))

// ---- a process that knows its pid before any of its code runs ----

export interface ShellCommand {
  readonly file: string
  readonly args: readonly string[]
  readonly argv0: string
}

const shell = '/bin/sh'
/** What some shells set by themselves. */
const ofShell = ['PWD', 'OLDPWD', 'SHLVL']

/**
 * `file` with `args`, started through a shell: exec keeps its pid, so the pid is in the environment before the program reads it. Undefined
 * where no variable holds a pid, or a shell would not start the same program: then the core sets the pid when it is loaded.
 */
export function throughShell(file: string, args: readonly string[], argv0: string, env: NodeJS.ProcessEnv): ShellCommand | undefined {
  const variables = pidVariables.filter((variable) => env[variable] === ownPid)
  // A shell drops variables whose names are not valid in it.
  const keepsAll = Object.keys(env).every((name) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
  // Of a Node that has no path any more only this process knows where it is (nodeNow): in the shell it would be the shell.
  const isAnywhere = !file.startsWith('/proc/self/')
  if (variables.length === 0 || !keepsAll || !isAnywhere || !isExecutable(shell) || !isExecutable(file)) return undefined
  const unset = ofShell.filter((variable) => env[variable] === undefined).map((variable) => `unset ${variable}; `).join('')
  const script = `${unset}${variables.map((variable) => `${variable}=$$ `).join('')}exec "$0" "$@"`
  return { file: shell, argv0: 'sh', args: ['-c', script, wordFor(file, argv0, env), ...args] }
}

/** A shell sets argv0 to the word by which it found the program. */
function wordFor(file: string, argv0: string, env: NodeJS.ProcessEnv): string {
  if (argv0.includes('/')) return path.isAbsolute(argv0) && path.resolve(argv0) === file ? argv0 : file
  const found = (env['PATH'] ?? '').split(path.delimiter).map((folder) => path.join(folder, argv0)).find(isExecutable)
  return found === file ? argv0 : file
}
