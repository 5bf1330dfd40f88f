/**
 * The options, their defaults, and the environment variables of the same names. Pure but for reading `env`.
 *
 * A variable wins over the program, since the deployment has the last word. Options belong to the process, since one process has one
 * generation; two calls that ask for different values get an error.
 */

import type { Socket } from 'node:net'
import { constants } from 'node:os'
import { inspect } from 'node:util'
import { optionError, type HandoverError } from './errors.js'
import { isTypo } from './typo.js'

/** `info`: what happened. `warn`: what should be looked at. `error`: what failed. */
export type LogLevel = 'info' | 'warn' | 'error'

/** The connections beside plain HTTP/1.1 that move. */
export interface MoveChoice {
  /** Connections under TLS. Default: true. */
  readonly tls?: boolean | undefined
  /** Sessions of HTTP/2. Default: true. */
  readonly http2?: boolean | undefined
}

/**
 * Options of a process, each with its default and its environment variable, which wins. A value that cannot be used, an unknown name, or
 * two calls that disagree throw HANDOVER_OPTION.
 */
export interface HandoverOptions {
  /** A name under which a second process finds this one and takes over. Letters, digits, `.`, `_`, `-`. Variable: HANDOVER_NAME. */
  name?: string | undefined
  /** How long a successor may take to be ready, in milliseconds. Default: 60,000. Variable: HANDOVER_READY_TIMEOUT. */
  readyTimeout?: number | undefined
  /** How long a drain may take in all, in milliseconds. Default: 30,000. Variable: HANDOVER_DRAIN_TIMEOUT. */
  drainTimeout?: number | undefined
  /** How long the predecessor can serve again after the switch, in milliseconds. Default: 10,000. Variable: HANDOVER_UNDO_WINDOW. */
  undoWindow?: number | undefined
  /**
   * How long a draining process waits for the next request of an idle connection, in milliseconds. Default: 10,000. Variable:
   * HANDOVER_LINGER.
   */
  linger?: number | undefined
  /** The signal that asks for a reload. Default: SIGHUP. Variable: HANDOVER_RELOAD_SIGNAL. */
  reloadSignal?: NodeJS.Signals | undefined
  /** `listening` (the default): ready when the app listens. `manual`: when it calls ready(). Variable: HANDOVER_READY_WHEN. */
  readyWhen?: 'listening' | 'manual' | undefined
  /**
   * Paths, each with its query, that a successor answers up to 5,000 GET requests for before it serves, so that V8 has compiled its code by
   * then. It takes up to 5 s, in which the predecessor serves. Default: none. Variable: HANDOVER_WARM_UP, with spaces between paths.
   */
  warmUp?: string | readonly string[] | false | undefined
  /**
   * Whether live connections move to the successor instead of being ended politely; or false for some of them: `{ http2: false }`. Default:
   * true. Variable: HANDOVER_MOVE, where `plain` stands for plain HTTP/1.1 alone.
   */
  move?: boolean | MoveChoice | undefined
  /**
   * Whether this process tells systemd's watchdog (WatchdogSec=) that it lives: false where the program does so itself, on conditions
   * of its own. Default: true. Variable: HANDOVER_WATCHDOG.
   */
  watchdog?: boolean | undefined
  /** Runs once, after the drain, before the process ends. */
  onClose?: (() => unknown) | undefined
  /**
   * Whether a plain HTTP/1.1 connection may move to the successor: false where the application keeps something about this very
   * connection. Asked once for each in a reload; it belongs to the server that it is given with, not to the process.
   */
  canMove?: ((socket: Socket) => boolean) | undefined
  /** Where log lines go; standard error by default. */
  log?: ((level: LogLevel, line: string) => void) | undefined
}

type Known<T> = { readonly [K in keyof T]-?: Exclude<T[K], undefined> }

/** The options that have a value in every process. */
export type Settings =
  Known<Omit<HandoverOptions, 'name' | 'move' | 'warmUp' | 'onClose' | 'canMove' | 'log'>> &
  {
    readonly name: string | undefined
    readonly move: boolean | Known<MoveChoice>
    /** Paths with spaces between them; empty: none. */
    readonly warmUp: string
  }

const defaults: Settings = {
  name: undefined,
  readyTimeout: 60_000,
  drainTimeout: 30_000,
  undoWindow: 10_000,
  linger: 10_000,
  reloadSignal: 'SIGHUP',
  readyWhen: 'listening',
  warmUp: '',
  move: true,
  watchdog: true
}

type Key = keyof Settings

const wrongValue = (where: string, found: unknown, expected: string): HandoverError =>
  optionError(`${where} is ${inspect(found)}, expected ${expected}`, 'Correct the value')

function unknownOption(key: string, all: readonly string[]): HandoverError {
  const meant = all.find((known) => isTypo(key, known))
  return optionError(`the option "${key}" does not exist`, `${meant === undefined ? '' : `Did you mean ${meant}? `}Known options: ${all.join(', ')}`)
}

// Node's timers take a signed 32-bit number of milliseconds.
const milliseconds = (where: string, value: unknown): number => {
  const number = typeof value === 'string' && /^\d+$/.test(value.trim()) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isInteger(number) || number < 0 || number > 2_147_483_647) {
    throw wrongValue(where, value, 'a whole number of milliseconds from 0 to 2147483647')
  }
  return number
}

const taken = new Set(['SIGKILL', 'SIGSTOP', 'SIGTERM', 'SIGINT', 'SIGCHLD', 'SIGPROF', 'SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGABRT'])

const words = new Map([
  ...['true', 'on', 'yes', '1'].map((word) => [word, true] as const), ...['false', 'off', 'no', '0'].map((word) => [word, false] as const)
])

const yesOrNo = (where: string, value: unknown, expected = 'true or false'): boolean => {
  const word = typeof value === 'string' ? words.get(value.trim().toLowerCase()) : value
  if (typeof word !== 'boolean') throw wrongValue(where, value, expected)
  return word
}

const paths = (where: string, value: unknown): string => {
  if (value === false || (typeof value === 'string' && words.get(value.trim().toLowerCase()) === false)) return ''
  const all: unknown[] = Array.isArray(value) ? value : typeof value === 'string' ? value.trim().split(/\s+/) : []
  const isPath = (each: unknown): boolean => typeof each === 'string' && /^\/[\x21-\x7e]{0,2000}$/.test(each)
  if (all.length === 0 || !all.every(isPath)) throw wrongValue(where, value, 'a path that begins with "/", or several, without spaces in them')
  return all.join(' ')
}

/** One object for each choice, so that two calls that ask for the same agree. */
const choices = [true, false].flatMap((tls) => [true, false].map((http2): Known<MoveChoice> => ({ tls, http2 })))

const whatMoves = (where: string, value: unknown): Settings['move'] => {
  if (typeof value === 'string' && value.trim().toLowerCase() === 'plain') return choices.at(-1)!
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return yesOrNo(where, value, 'true, false or "plain"')
  const keys = Object.keys(value)
  if (keys.length === 0 || keys.some((key) => key !== 'tls' && key !== 'http2')) throw wrongValue(where, value, 'an object of tls and http2')
  const { tls = true, http2 = true } = value as MoveChoice
  const wanted = { tls: yesOrNo(`${where}.tls`, tls), http2: yesOrNo(`${where}.http2`, http2) }
  return (wanted.tls && wanted.http2) || choices.find((choice) => choice.tls === wanted.tls && choice.http2 === wanted.http2)!
}

/** Whether connections of this kind move; without a kind, whether any do. */
export function movesKind(move: Settings['move'], kind?: keyof MoveChoice): boolean {
  if (typeof move === 'boolean') return move
  return kind === undefined || move[kind]
}

const readers: { readonly [K in Key]: (where: string, value: unknown) => Settings[K] } = {
  name: (where, value) => {
    if (typeof value !== 'string' || !/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/.test(value)) {
      throw wrongValue(where, value, '1 to 64 letters, digits, ".", "_" or "-", not beginning with "."')
    }
    return value
  },
  readyTimeout: milliseconds,
  drainTimeout: milliseconds,
  undoWindow: milliseconds,
  linger: milliseconds,
  reloadSignal: (where, value) => {
    if (value === 'SIGUSR1') throw wrongValue(where, value, 'another signal: SIGUSR1 opens the inspector of Node')
    if (typeof value !== 'string' || !Object.hasOwn(constants.signals, value) || taken.has(value)) {
      throw wrongValue(where, value, 'a signal such as SIGHUP or SIGUSR2 that has no other meaning')
    }
    return value as NodeJS.Signals
  },
  readyWhen: (where, value) => {
    if (value !== 'listening' && value !== 'manual') throw wrongValue(where, value, '"listening" or "manual"')
    return value
  },
  warmUp: paths,
  move: whatMoves,
  watchdog: yesOrNo
}

const reloadOptions = ['withoutState', 'allowDrop']

/** Of reload(). Throws HANDOVER_OPTION: a word that is mistyped would take the state along that was to stay behind. */
export function checkReloadOptions(options: unknown): void {
  // What an event gives to its listener, process.on('SIGUSR2', handover.reload), is no object of options.
  if (typeof options !== 'object' || options === null) return
  if (![Object.prototype, null].includes(Object.getPrototypeOf(options) as object | null)) return
  for (const [key, value] of Object.entries(options)) {
    if (!reloadOptions.includes(key)) throw unknownOption(key, reloadOptions)
    if (value !== undefined && typeof value !== 'boolean') throw wrongValue(`the option ${key}`, value, 'true or false')
  }
}

const keys = Object.keys(defaults) as Key[]
const notSettings = new Set(['onClose', 'canMove', 'log'])

/** `readyTimeout` → `HANDOVER_READY_TIMEOUT`. */
export function variableOf(key: Key): string {
  return `HANDOVER_${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}

/** Those that are no option of a program. */
const otherVariables = ['HANDOVER_DIR', 'HANDOVER_LOG', 'HANDOVER_VERSION']

/** What to say of variables that mean nothing and look like one of these, mistyped: nothing else would tell that they are ignored. */
export function mistypedVariables(env: NodeJS.ProcessEnv): string[] {
  const known = [...keys.map(variableOf), ...otherVariables]
  const lines = Object.keys(env).filter((name) => name.startsWith('HANDOVER_') && !known.includes(name)).flatMap((name) => {
    const meant = known.find((variable) => isTypo(name, variable))
    return meant === undefined ? [] : [`the variable ${name} means nothing, and is ignored. Did you mean ${meant}?`]
  })
  const { HANDOVER: choice = '' } = env
  if (choice.trim() !== '' && !words.has(choice.trim().toLowerCase())) lines.push(`the variable HANDOVER is ${JSON.stringify(choice)}, and is ignored: only HANDOVER=off means something.`)
  return lines
}

/**
 * Collects the settings of the process: defaults, then what programs set, then the environment.
 * Throws HANDOVER_OPTION on an unknown key, a value out of range, or two calls that disagree.
 */
export class SettingsOfProcess {
  readonly #set: Partial<Record<Key, unknown>> = {}
  readonly #environment: Partial<Record<Key, unknown>> = {}

  constructor(env: NodeJS.ProcessEnv) {
    for (const key of keys) {
      const text = env[variableOf(key)]?.trim()
      if (text !== undefined && text !== '') this.#environment[key] = readers[key](variableOf(key), text)
    }
  }

  add(options: HandoverOptions): void {
    // A program in JavaScript may give anything.
    if (typeof options !== 'object' || (options as object | null) === null || Array.isArray(options)) {
      throw wrongValue('what was given as options', options, 'an object')
    }
    const added: Partial<Record<Key, unknown>> = {}
    for (const [key, value] of Object.entries(options)) {
      if (value === undefined) continue
      if (notSettings.has(key)) {
        if (typeof value !== 'function') throw wrongValue(`the option ${key}`, value, 'a function')
        continue
      }
      if (!Object.hasOwn(defaults, key)) {
        throw unknownOption(key, [...keys, ...notSettings])
      }
      const read = readers[key as Key](`the option ${key}`, value)
      const before = this.#set[key as Key]
      if (before !== undefined && before !== read) {
        const what = `the option ${key} is ${JSON.stringify(read)} here and ${JSON.stringify(before)} elsewhere in this process`
        throw optionError(what, 'Give it once', 'Options belong to the process')
      }
      added[key as Key] = read
    }
    // Only now: where one is wrong, nothing is changed.
    Object.assign(this.#set, added)
  }

  get(): Settings {
    return { ...defaults, ...this.#set, ...this.#environment } as Settings
  }
}
