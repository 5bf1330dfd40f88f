/**
 * The command line as data. A word that cannot be understood is one line that says what was found, what is expected and where to look.
 * Pure but for the number of processors that `max` stands for, and the version of this package.
 */

import { availableParallelism } from 'node:os'
import { parseArgs, type ParseArgsConfig } from 'node:util'
import type { ReloadRequest } from '@handover/core/internal'
import { Failure } from '../failure.js'
import {
  commands, isCommand, optionsOf, synopsis, type CommandName, type OptionsOf, type OptionText, type Placeholder
} from './commands.js'
import { helpOf, overview } from './help.js'
import { nearest } from './suggest.js'
import { version } from './version.js'

export interface HostAndPort {
  readonly host: string
  readonly port: number
}

/** What is undefined was not given. */
export interface RunOptions {
  readonly workers: number
  readonly name: string | undefined
  /** In milliseconds; undefined: 30 s. 0: without a limit. */
  readonly hangTimeoutMs: number | undefined
  /** One queue for all workers. */
  readonly shared: boolean
  /** Keep the next worker booted. */
  readonly spare: boolean
  readonly maxMemoryBytes: number | undefined
  readonly metrics: HostAndPort | undefined
  readonly log: 'text' | 'json' | undefined
  /** Options of Node, as they were typed. */
  readonly nodeOptions: readonly string[]
  readonly script: string
  readonly args: readonly string[]
  /** An option of ours among the arguments of the script, without a -- before the script. */
  readonly misplaced: string | undefined
}

export interface DrillOptions {
  readonly target?: string
  readonly url?: string
  readonly path?: string
  readonly connections: number
  readonly durationMs: number
  /** Where a picture is written, as a page or as SVG by the end of the name. */
  readonly report?: string
  readonly json: boolean
}

export type Shell = (typeof commands)['completion']['words'][number]

/** `target`: a name or a pid. */
export type Command =
  | { readonly is: 'print'; readonly text: string }
  | { readonly is: 'completion'; readonly shell: Shell }
  | { readonly is: 'run'; readonly options: RunOptions }
  | {
    readonly is: 'reload'; readonly target?: string; readonly options: ReloadRequest; readonly timeoutMs: number; readonly json: boolean
    /** Where the time went is asked of the new processes, and printed. */
    readonly timing?: true
  }
  | {
    readonly is: 'status'; readonly target?: string; readonly watch: boolean; readonly json: boolean
    /** Where a page is served. */
    readonly web?: HostAndPort
  }
  | { readonly is: 'report'; readonly target?: string; readonly svg: boolean; readonly open: boolean }
  | { readonly is: 'stop'; readonly target?: string; readonly json: boolean }
  | { readonly is: 'drill'; readonly options: DrillOptions }

/** `words`: without node and the script. Throws a Failure with status 2. */
export function parseCommand(words: readonly string[]): Command {
  const [word, ...rest] = words
  if (word === undefined) return { is: 'print', text: overview }
  if (word === '--version' || word === '-v') return { is: 'print', text: `${version}\n` }
  if (word === 'help' || word === '--help' || word === '-h') {
    const [about] = rest
    if (about === undefined || about.startsWith('-')) return { is: 'print', text: overview }
    if (!isCommand(about)) throw unknownWord(about)
    return { is: 'print', text: helpOf[about] }
  }
  if (!isCommand(word)) throw unknownWord(word)
  return parsers[word](rest)
}

function unknownWord(word: string): Failure {
  const known = Object.keys(commands)
  const meant = nearest(word, word.startsWith('-') ? ['--help', '--version'] : known)
  return misused(`unknown ${word.startsWith('-') ? 'option' : 'command'} ${shown(word)}, expected ${known.join(', ')}`, undefined, meant)
}

const parsers: Readonly<Record<CommandName, (words: readonly string[]) => Command>> = {
  run: parseRun,
  reload: (words) => {
    const { given, target, help } = parse('reload', words)
    if (help) return help
    const { json = false, timing, timeout: timeoutMs = 120_000, ...wishes } = given
    const { bake, 'allow-drop': allowDrop, 'without-state': withoutState, ...same } = wishes
    const renamed = { ...(bake !== undefined && { bakeMs: bake }), ...(allowDrop && { allowDrop }), ...(withoutState && { withoutState }) }
    return { is: 'reload', ...target, options: { ...same, ...renamed }, timeoutMs, json, ...(timing && { timing }) }
  },
  status: (words) => {
    const { given: { watch = false, json = false, web }, target, help } = parse('status', words)
    if (web && (watch || json)) throw misused('--web goes without --watch and --json', 'status')
    return help ?? { is: 'status', ...target, watch, json, ...(web && { web }) }
  },
  stop: (words) => {
    const { given: { json = false }, target, help } = parse('stop', words)
    return help ?? { is: 'stop', ...target, json }
  },
  drill: (words) => {
    const { given: { json = false, connections = 50, duration: durationMs = 2_000, ...place }, target, help } = parse('drill', words)
    return help ?? { is: 'drill', options: { ...target, ...place, connections, durationMs, json } }
  },
  report: (words) => {
    const { given: { svg = false, open = false }, target, help } = parse('report', words)
    return help ?? { is: 'report', ...target, svg, open }
  },
  completion: (words) => {
    const { target: { target: word = '' }, help } = parse('completion', words)
    if (help) return help
    const shells = commands.completion.words
    const shell = shells.find((each) => each === word)
    if (!shell) throw misused(`${word === '' ? 'no shell was given' : `unknown shell ${shown(word)}`}, expected ${shells.join(', ')}`, 'completion', nearest(word, shells))
    return { is: 'completion', shell }
  }
}

/** Reads a value. Throws what `wrong` makes of what is expected. */
type Reader<Value> = (text: string, wrong: (expected: string) => Failure) => Value
type ValueOf<Option> = Option extends { readonly value: infer Value extends Placeholder } ? Values[Value] : true
/** Of each option that was given, by name. */
type GivenOptions<Name extends CommandName> = { readonly [Option in keyof OptionsOf<Name>]?: ValueOf<OptionsOf<Name>[Option]> }

/** Options in any order, and at most one other word: a name or a pid. */
function parse<const Name extends CommandName>(
  command: Name, words: readonly string[]
): { readonly given: GivenOptions<Name>; readonly target: { readonly target?: string }; readonly help?: Command } {
  const types: ParseArgsConfig['options'] = { help: { type: 'boolean', short: 'h' } }
  const options = new Map(optionsOf(command))
  for (const [name, { value }] of options) types[name] = { type: value === undefined ? 'boolean' : 'string' }
  const { tokens } = parseArgs({ args: [...words], options: types, strict: false, allowPositionals: true, tokens: true })
  const read: (readonly [name: string, read: () => unknown])[] = []
  const targets: string[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') targets.push(token.value)
    if (token.kind !== 'option') continue
    const { name, rawName, value, inlineValue } = token
    if (name === 'help') return { given: {}, target: {}, help: { is: 'print', text: helpOf[command] } }
    const option = options.get(name)
    if (!option) throw unknownOption(command, rawName, [...options])
    if (option.value === undefined) {
      if (value !== undefined) throw misused(`${rawName} takes no value, found ${shown(value)}`, command)
      read.push([name, () => true])
      continue
    }
    // parseArgs takes the next option for the value if there is none.
    if (value === undefined || value === '' || (!inlineValue && value.startsWith('-'))) throw misused(`${rawName} needs a value`, command)
    const reader: Reader<unknown> = readers[option.value]
    read.push([name, () => reader(value, (expected) => usageError(command, rawName, value, expected))])
  }
  const [target, second] = targets
  if (second !== undefined) throw misused(`one name or pid is expected, found ${shown(targets.join(' '))}`, command)
  const given = Object.fromEntries(read.map(([name, of]) => [name, of()])) as GivenOptions<Name>
  return { given, target: target === undefined ? {} : { target } }
}

function unknownOption(command: CommandName, found: string, options: readonly [string, OptionText][]): Failure {
  const known = options.map(([name, option]) => synopsis(name, option)).join(', ')
  const what = `unknown option ${shown(found)}, expected ${known === '' ? 'none' : known}`
  return misused(what, command, nearest(found, [...options.map(([name]) => `--${name}`), '--help']))
}

// ---- run ----

/** Options of Node (20 to 26) whose value is the next word where no `=` stands. Any other option may be given with `=`. */
const withValue = new Set([
  '-r', '--require', '--import', '--loader', '--experimental-loader', '-C', '--conditions', '--env-file', '--env-file-if-exists',
  '--input-type', '--experimental-default-type', '--title', '--inspect-port',
  '--debug-port', '--inspect-publish-uid', '--disable-warning', '--disable-proto', '--redirect-warnings', '--unhandled-rejections',
  '--dns-result-order', '--diagnostic-dir', '--report-dir', '--report-directory',
  '--report-filename', '--report-signal', '--cpu-prof-dir', '--cpu-prof-interval', '--cpu-prof-name', '--heap-prof-dir',
  '--heap-prof-interval', '--heap-prof-name', '--heapsnapshot-near-heap-limit',
  '--heapsnapshot-signal', '--icu-data-dir', '--openssl-config', '--tls-cipher-list', '--tls-keylog', '--trace-event-categories',
  '--trace-event-file-pattern', '--trace-require-module', '--secure-heap',
  '--secure-heap-min', '--max-http-header-size', '--use-largepages', '--v8-pool-size', '--localstorage-file',
  '--network-family-autoselection-attempt-timeout', '--snapshot-blob', '--allow-fs-read',
  '--allow-fs-write', '--experimental-config-file', '--max-old-space-size-percentage', '--experimental-policy', '--policy-integrity',
  '--security-revert', '--experimental-package-map', '--vfs-load', '--vfs-mount'
])

/** Options of Node with which there is no script, or with which Node itself starts the script again and again. */
const withoutScript = new Set([
  '-e', '--eval', '-p', '--print', '-pe', '-i', '--interactive', '-c', '--check', '--run', '--test', '--watch', '--watch-path',
  '-v8-options', '--v8-options', '--build-snapshot'
])

/** Ours and those of Node may stand in any order. Everything behind the first other word belongs to the script. */
function parseRun(words: readonly string[]): Command {
  const own = new Map(optionsOf('run').map(([name, option]) => [`--${name}`, option]))
  const ours: string[] = []
  const nodeOptions: string[] = []
  let at = 0
  for (; at < words.length && /^-./.test(words[at]!) && words[at] !== '--'; at++) {
    const word = words[at]!
    const [option = '', inline] = word.split(/=(.*)/s)
    const isOurs = own.has(option) || option === '--help' || option === '-h'
    if (!isOurs) refuseForRun(option, [...own.keys()])
    const list = isOurs ? ours : nodeOptions
    list.push(word)
    if (inline !== undefined || !(own.get(option)?.value ?? withValue.has(option))) continue
    const value = words[++at] ?? ''
    if (value === '' || value.startsWith('-')) throw misused(`${option} needs a value`, 'run')
    list.push(value)
  }
  const { given, help } = parse('run', ours)
  if (help) return help
  const isMeant = words[at] === '--'
  const [script, ...args] = words.slice(isMeant ? at + 1 : at)
  if (script === undefined || script === '' || script === '-') throw misused('no script was given, as in: handover run server.js', 'run')
  const misplaced = isMeant ? undefined : args.find((word) => own.has(word.replace(/=.*/s, '')))
  const {
    workers = 1, shared = false, spare = 'on', name, 'hang-timeout': hangTimeoutMs, 'max-memory': maxMemoryBytes, metrics, log
  } = given
  const ourOptions = { workers, shared, spare: spare === 'on', name, hangTimeoutMs, maxMemoryBytes, metrics, log }
  return { is: 'run', options: { ...ourOptions, misplaced, nodeOptions, script, args } }
}

function refuseForRun(option: string, own: readonly string[]): void {
  if (withoutScript.has(option)) throw misused(`${option} of Node does not start a server from a script. Give a script`, 'run')
  const meant = process.allowedNodeEnvironmentFlags.has(option) ? undefined : nearest(option, own)
  if (meant !== undefined) throw misused(`${option} is an option neither of handover nor of Node`, 'run', meant)
}

// ---- values ----

const shown = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text)

const misused = (what: string, command?: CommandName, meant?: string): Failure =>
  new Failure({
    what, serving: meant === undefined ? undefined : `Did you mean ${meant}?`, todo: `See handover ${command === undefined ? '' : `${command} `}--help`
  }, { status: 2, ...(command && { command }) })

const usageError = (command: CommandName, option: string, found: string, expected: string): Failure =>
  misused(`${option} is ${shown(found)}, expected ${expected}`, command)

const matching = (pattern: RegExp, expected: string): Reader<string> => (text, wrong) => {
  if (!pattern.test(text)) throw wrong(expected)
  return text
}

const oneOf = <const Word extends string>(first: Word, second: Word): Reader<Word> => (text, wrong) => {
  const meant = [first, second].find((word) => word === text)
  if (meant === undefined) throw wrong(`${first} or ${second}`)
  return meant
}

const wholeNumber = (most: number, expected: string): Reader<number> => (text, wrong) => {
  const number = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (number < 1 || number > most) throw wrong(expected)
  return number
}

const mostWorkers = 1_024
const workers = wholeNumber(mostWorkers, `a whole number from 1 to ${mostWorkers}, or max (one for each processor)`)

const byteUnits: Readonly<Record<string, number>> = { K: 1_024, M: 1_048_576, G: 1_073_741_824 }

/** Bytes. There must be a unit. */
const byteSize: Reader<number> = (text, wrong) => {
  const [, number = '', unit = ''] = /^(\d{1,9}(?:\.\d{1,3})?)([KMG])i?B?$/i.exec(text) ?? []
  const bytes = Math.round(Number(number) * (byteUnits[unit.toUpperCase()] ?? 0))
  if (bytes < 1_048_576) throw wrong('a size with its unit, from 1M: 512M, 1G')
  return bytes
}

const hostAndPort: Reader<HostAndPort> = (text, wrong) => {
  const [, bracketed, plain, digits = ''] = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):)?(\d{1,5})$/.exec(text) ?? []
  if (digits === '' || Number(digits) > 65_535) throw wrong('a port, or an address and a port: 9100, 0.0.0.0:9100, [::]:9100')
  return { host: bracketed ?? plain ?? '127.0.0.1', port: Number(digits) }
}

const address: Reader<string> = (text, wrong) => {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) throw wrong('an address such as http://127.0.0.1:3000/')
  return text
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

/** Milliseconds. There must be a unit: some readers would take a plain number for seconds, and others for milliseconds. */
const duration: Reader<number> = (text, wrong) => {
  const [, number = '', unit = ''] = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)?$/.exec(text) ?? []
  const ms = Math.round(Number(number) * (units[unit] ?? 0))
  // A timer of Node holds a signed 32-bit number of milliseconds.
  if (number === '' || (unit === '' && Number(number) !== 0) || ms > 2_147_483_647) throw wrong('a time with its unit: 500ms, 30s, 2m, or 0')
  return ms
}

interface Values {
  readonly TIME: number
  readonly N: number
  readonly 'N|max': number
  readonly NAME: string
  readonly '/PATH': string
  readonly URL: string
  readonly 'on|off': 'on' | 'off'
  readonly SIZE: number
  readonly PORT: HostAndPort
  readonly 'text|json': 'text' | 'json'
  readonly FILE: string
}

const readers: { readonly [Name in Placeholder]: Reader<Values[Name]> } = {
  TIME: duration,
  N: wholeNumber(999_999, 'a whole number from 1 to 999999'),
  'N|max': (text, wrong) => (text === 'max' ? availableParallelism() : workers(text, wrong)),
  NAME: matching(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/, '1 to 64 letters, digits, ".", "_" or "-", not beginning with "."'),
  '/PATH': matching(/^\/[\x21-\x7e]*$/, 'a path that begins with "/"'),
  URL: address,
  'on|off': oneOf('on', 'off'),
  SIZE: byteSize,
  PORT: hostAndPort,
  'text|json': oneOf('text', 'json'),
  FILE: matching(/\.(html|svg)$/, 'the name of a file that ends in .html or .svg')
}
