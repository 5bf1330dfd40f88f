/**
 * The command line as data. Whatever cannot be understood is one line that says what was found, what is expected and where to look.
 * Pure but for the number of processors that `max` stands for.
 */

import { availableParallelism } from 'node:os'
import { parseArgs, type ParseArgsConfig } from 'node:util'
import type { ReloadRequest } from '@handover/core/internal'
import { Failure } from '../failure.js'
import { helpOf, overview, type CommandName } from './help.js'

export interface RunOptions {
  readonly workers: number
  readonly name?: string
  /** In milliseconds; absent: 30 s. 0: a worker may be busy for ever. */
  readonly hangTimeoutMs?: number
  /** One queue for all workers. */
  readonly shared: boolean
  /** Options of Node, as they were typed. */
  readonly nodeOptions: readonly string[]
  readonly script: string
  readonly args: readonly string[]
  /** An option of ours among the arguments, where no -- before the script says that it is meant so. */
  readonly misplaced?: string
}

export interface DrillOptions {
  readonly target?: string
  readonly url?: string
  readonly path?: string
  readonly connections: number
  readonly durationMs: number
  readonly json: boolean
}

/** `target`: a name or a pid. */
export type Command =
  | { readonly is: 'print'; readonly text: string }
  | { readonly is: 'version' }
  | { readonly is: 'run'; readonly options: RunOptions }
  | { readonly is: 'reload'; readonly target?: string; readonly options: ReloadRequest; readonly timeoutMs: number; readonly json: boolean }
  | { readonly is: 'status'; readonly target?: string; readonly watch: boolean; readonly json: boolean }
  | { readonly is: 'stop'; readonly target?: string; readonly json: boolean }
  | { readonly is: 'drill'; readonly options: DrillOptions }

const isCommand = (word: string): word is CommandName => Object.hasOwn(helpOf, word)

/** `words`: without node and the script. Throws a Failure with status 2. */
export function parseCommand(words: readonly string[]): Command {
  const [word, ...rest] = words
  if (word === undefined) throw misused('no command was given')
  if (word === '--version' || word === '-v') return { is: 'version' }
  if (word === 'help' || word === '--help' || word === '-h') return { is: 'print', text: rest[0] !== undefined && isCommand(rest[0]) ? helpOf[rest[0]] : overview }
  if (!isCommand(word)) throw misused(`unknown ${word.startsWith('-') ? 'option' : 'command'} ${shown(word)}, expected ${Object.keys(helpOf).join(', ')}`)
  return parsers[word](rest)
}

const parsers: Readonly<Record<CommandName, (words: readonly string[]) => Command>> = {
  run: parseRun,
  reload: (words) => {
    const { given, target, help } = parse('reload', words, {
      wait: { type: 'boolean' }, canary: { type: 'string' }, bake: { type: 'string' }, probe: { type: 'string' }, parallel: { type: 'boolean' },
      workers: { type: 'string' }, 'allow-drop': { type: 'boolean' }, 'without-state': { type: 'boolean' }, keeper: { type: 'boolean' }, json: { type: 'boolean' }, timeout: { type: 'string' }
    })
    if (help) return help
    const { canary, bake, probe, workers, timeout } = given
    if (probe !== undefined && !/^\/[\x21-\x7e]*$/.test(probe)) throw usageError('reload', '--probe', probe, 'a path that begins with "/"')
    return {
      is: 'reload',
      ...target,
      options: {
        ...(given.wait === true && { wait: true }),
        ...(canary !== undefined && { canary: count('reload', '--canary', canary) }),
        ...(bake !== undefined && { bakeMs: duration('reload', '--bake', bake) }),
        ...(probe !== undefined && { probe }),
        ...(given.parallel === true && { parallel: true }),
        ...(workers !== undefined && { workers: workerCount('reload', workers) }),
        ...(given['allow-drop'] === true && { allowDrop: true }),
        ...(given['without-state'] === true && { withoutState: true }),
        ...(given.keeper === true && { keeper: true })
      },
      timeoutMs: timeout === undefined ? 120_000 : duration('reload', '--timeout', timeout),
      json: given.json === true
    }
  },
  status: (words) => {
    const { given, target, help } = parse('status', words, { watch: { type: 'boolean' }, json: { type: 'boolean' } })
    return help ?? { is: 'status', ...target, watch: given.watch === true, json: given.json === true }
  },
  stop: (words) => {
    const { given, target, help } = parse('stop', words, { json: { type: 'boolean' } })
    return help ?? { is: 'stop', ...target, json: given.json === true }
  },
  drill: (words) => {
    const { given, target, help } = parse('drill', words, { duration: { type: 'string' }, connections: { type: 'string' }, path: { type: 'string' }, url: { type: 'string' }, json: { type: 'boolean' } })
    if (help) return help
    const { url, path } = given
    if (url !== undefined && !(URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) throw usageError('drill', '--url', url, 'an address such as http://127.0.0.1:3000/')
    if (path !== undefined && !/^\/[\x21-\x7e]*$/.test(path)) throw usageError('drill', '--path', path, 'a path that begins with "/"')
    return {
      is: 'drill',
      options: {
        ...target,
        ...(url !== undefined && { url }),
        ...(path !== undefined && { path }),
        connections: given.connections === undefined ? 50 : count('drill', '--connections', given.connections),
        durationMs: given.duration === undefined ? 2_000 : duration('drill', '--duration', given.duration),
        json: given.json === true
      }
    }
  }
}

type Options = NonNullable<ParseArgsConfig['options']>
type Given<O extends Options> = { readonly [Name in keyof O]?: O[Name] extends { type: 'boolean' } ? boolean : string }

/** Options in any order, and at most one word: whom it is about. */
function parse<O extends Options>(
  command: CommandName,
  words: readonly string[],
  options: O
): { given: Given<O>; target: { readonly target?: string }; help?: Command } {
  const { tokens } = parseArgs({ args: [...words], options: { ...options, help: { type: 'boolean', short: 'h' } }, strict: false, allowPositionals: true, tokens: true })
  const given: Record<string, string | boolean> = {}
  const targets: string[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') targets.push(token.value)
    if (token.kind !== 'option') continue
    if (token.name === 'help') return { given: {}, target: {}, help: { is: 'print', text: helpOf[command] } }
    const option = Object.hasOwn(options, token.name) ? options[token.name] : undefined
    if (!option) throw misused(`unknown option ${shown(token.rawName)}`, command)
    if (option.type === 'boolean' && token.value !== undefined) throw misused(`${token.rawName} takes no value, found ${shown(token.value)}`, command)
    // parseArgs takes the next option for the value where one is missing.
    const isMissing = token.value === undefined || token.value === '' || (!token.inlineValue && token.value.startsWith('-'))
    if (option.type === 'string' && isMissing) throw misused(`${token.rawName} needs a value`, command)
    given[token.name] = token.value ?? true
  }
  const [target, second] = targets
  if (second !== undefined) throw misused(`one name or pid is expected, found ${shown(targets.join(' '))}`, command)
  return { given: given as Given<O>, target: target === undefined ? {} : { target } }
}

// ---- run ----

/** Options of Node (20 to 26) whose value is the next word where no `=` stands. Any other option may be given with `=`. */
const withValue = new Set([
  '-r', '--require', '--import', '--loader', '--experimental-loader', '-C', '--conditions', '--env-file', '--env-file-if-exists', '--input-type', '--experimental-default-type', '--title', '--inspect-port',
  '--debug-port', '--inspect-publish-uid', '--disable-warning', '--disable-proto', '--redirect-warnings', '--unhandled-rejections', '--dns-result-order', '--diagnostic-dir', '--report-dir', '--report-directory',
  '--report-filename', '--report-signal', '--cpu-prof-dir', '--cpu-prof-interval', '--cpu-prof-name', '--heap-prof-dir', '--heap-prof-interval', '--heap-prof-name', '--heapsnapshot-near-heap-limit',
  '--heapsnapshot-signal', '--icu-data-dir', '--openssl-config', '--tls-cipher-list', '--tls-keylog', '--trace-event-categories', '--trace-event-file-pattern', '--trace-require-module', '--secure-heap',
  '--secure-heap-min', '--max-http-header-size', '--use-largepages', '--v8-pool-size', '--localstorage-file', '--network-family-autoselection-attempt-timeout', '--snapshot-blob', '--allow-fs-read',
  '--allow-fs-write', '--experimental-config-file', '--max-old-space-size-percentage'
])

/** Of Node too, but there is no script then, or Node starts the script itself, again and again. */
const withoutScript = new Set(['-e', '--eval', '-p', '--print', '-pe', '-i', '--interactive', '-c', '--check', '--run', '--test', '--watch', '--watch-path', '-v8-options', '--v8-options', '--build-snapshot'])

const nameShape = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/

function parseRun(words: readonly string[]): Command {
  const nodeOptions: string[] = []
  let workers = 1
  let name: string | undefined
  let hangTimeoutMs: number | undefined
  let shared = false
  let meant = false
  let at = 0
  for (; at < words.length; at++) {
    const word = words[at] ?? ''
    if (!word.startsWith('-') || word === '-') break
    if (word === '--') {
      meant = true
      at++
      break
    }
    const [option = '', inline] = word.split(/=(.*)/s)
    const value = (): string => {
      const found = inline ?? words[++at]
      if (found === undefined || found === '' || (inline === undefined && found.startsWith('-'))) throw misused(`${option} needs a value`, 'run')
      return found
    }
    switch (option) {
      case '--help':
      case '-h': return { is: 'print', text: helpOf.run }
      case '--workers': workers = workerCount('run', value()); break
      case '--name':
        name = value()
        if (!nameShape.test(name)) throw usageError('run', '--name', name, '1 to 64 letters, digits, ".", "_" or "-", not beginning with "."')
        break
      case '--hang-timeout': hangTimeoutMs = duration('run', '--hang-timeout', value()); break
      case '--shared':
        if (inline !== undefined) throw misused(`--shared takes no value, found ${shown(inline)}`, 'run')
        shared = true
        break
      default:
        if (withoutScript.has(option)) throw misused(`${option} of Node does not start a server from a script. Give a script`, 'run')
        nodeOptions.push(word)
        if (inline === undefined && withValue.has(option)) nodeOptions.push(value())
    }
  }
  const [script, ...args] = words.slice(at)
  if (script === undefined || script === '' || script === '-') throw misused('no script was given, as in: handover run server.js', 'run')
  const misplaced = meant ? undefined : args.find((word) => /^--(workers|name|hang-timeout|shared)(=|$)/.test(word))
  return { is: 'run', options: { ...(misplaced !== undefined && { misplaced }), workers, ...(name !== undefined && { name }), ...(hangTimeoutMs !== undefined && { hangTimeoutMs }), shared, nodeOptions, script, args } }
}

// ---- values ----

const shown = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text)

const misused = (what: string, command?: CommandName): Failure =>
  new Failure({ what, todo: `See handover ${command === undefined ? '' : `${command} `}--help` }, { status: 2, ...(command && { command }) })

const usageError = (command: CommandName, option: string, found: string, expected: string): Failure =>
  misused(`${option} is ${shown(found)}, expected ${expected}`, command)

function count(command: CommandName, option: string, text: string): number {
  const number = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (number < 1) throw usageError(command, option, text, 'a whole number from 1')
  return number
}

const mostWorkers = 1_024

function workerCount(command: CommandName, text: string): number {
  const number = text === 'max' ? availableParallelism() : /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (number < 1 || number > mostWorkers) throw usageError(command, '--workers', text, `a whole number from 1 to ${mostWorkers}, or max (one for each processor)`)
  return number
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

/** Milliseconds. A number alone would be seconds to one and milliseconds to another, so there must be a unit. */
function duration(command: CommandName, option: string, text: string): number {
  const [, number = '', unit = ''] = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)?$/.exec(text) ?? []
  const ms = Math.round(Number(number) * (units[unit] ?? 0))
  // A timer of Node holds a signed 32-bit number of milliseconds.
  if (number === '' || (unit === '' && Number(number) !== 0) || ms > 2_147_483_647) throw usageError(command, option, text, 'a time with its unit: 500ms, 30s, 2m, or 0')
  return ms
}
