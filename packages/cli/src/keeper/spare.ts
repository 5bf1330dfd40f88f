/**
 * The spare: the next worker, started while nothing else is to do, for whichever slot needs one first. It has booted Node and loaded this
 * package, and waits (@handover/core, platform/spare.ts); a reload or a crash has it run the program at once.
 *
 * It is no worker before that: no slot has it, it serves nothing, and its end means nothing. It is not used where a worker that is started
 * now would be another one: another Node, another package, another working directory. It ends with the keeper.
 */

import { closeSync, readSync, realpathSync, statSync, writeSync } from 'node:fs'
import os from 'node:os'
import { activation, addon, pathsMark, spareMark, type CommandLine, type SpareStatus, type SpareTurn } from '@handover/core/internal'
import { startProcess, workerOf, type StartedProcess, type StartWorker } from './worker.js'

/** Nothing was started for so long: after a reload its operator may count the processes, and take a spare for a worker too many. */
const quietMs = 8_000
const lookMs = 1_000
/** Half a processor must be free while the spare boots; but not for ever. */
const idleShare = 0.5
const patienceMs = 10_000
/** Spares that end by themselves are replaced so many times in a row, each time later. */
const mostDeaths = 5
const stableMs = 60_000

export interface SpareSide {
  readonly options: {
    readonly name: string
    readonly env: NodeJS.ProcessEnv
    /** Of the next worker. Throws HANDOVER_SPAWN. */
    command(inPlace: boolean): CommandLine
  }
  /** All workers serve, no reload runs, and the keeper does not leave. */
  readonly isQuiet: boolean
}

interface WaitingProcess extends StartedProcess {
  /** The command and the environment. */
  readonly key: string
  /** What it depends on, as it was. */
  readonly files: Map<string, string>
  readonly startedAt: number
  isReady: boolean
  unwatch: () => void
}

export class Spare {
  readonly #side: SpareSide
  readonly #startProcess: typeof startProcess
  #waiting: WaitingProcess | undefined
  #isStarting = false
  #used = 0
  #deaths = 0
  #off: string | undefined
  #timer: NodeJS.Timeout | undefined
  #quietSince: number | undefined
  #notBefore = 0
  #idle = { at: 0, ms: 0 }

  constructor(side: SpareSide, start = startProcess) {
    this.#side = side
    this.#startProcess = start
  }

  get status(): SpareStatus {
    const { started, isReady = false } = this.#waiting ?? {}
    return { pid: started?.pid ?? null, ready: isReady, used: this.#used, ...(this.#off !== undefined && { off: this.#off }) }
  }

  /** From now on there is one, whenever there can be. */
  begin(): void {
    this.#timer ??= setInterval(() => { this.#look() }, lookMs).unref()
  }

  /** The keeper ends, or its workers are another keeper's. */
  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#discard()
  }

  /** Takes the spare where it may be used, else starts a process. */
  readonly startWorker: StartWorker = async (command, env, slot, name, side) => {
    this.#quietSince = undefined
    this.#deaths = 0
    const spare = this.#take(command, env, slot)
    return workerOf(spare ?? await this.#startProcess(command, env, slot, name), slot, side)
  }

  #take(command: CommandLine, env: NodeJS.ProcessEnv, slot: number): StartedProcess | undefined {
    const spare = this.#waiting
    if (!spare?.isReady) return undefined
    const [line] = spare.line
    const turn: SpareTurn = { slot, paths: env[pathsMark] ?? '[]' }
    try {
      if (spare.key !== keyOf(command, env) || !isUnchanged(spare.files)) throw new Error('it is of another build')
      // It says nothing more: this would be its end, which was not noticed yet.
      if (addon().pollReadable(line, 0) !== 0) throw new Error('it has ended')
      writeSync(line, `${JSON.stringify(turn)}\n`)
    } catch {
      this.#discard()
      return undefined
    }
    this.#waiting = undefined
    this.#used++
    return spare
  }

  #look(): void {
    const now = performance.now()
    const spare = this.#waiting
    const isIdle = !spare && this.#machineIsIdle(now)
    if (spare) {
      if (now - spare.startedAt > stableMs) this.#deaths = 0
      if (!this.#isCurrent(spare)) this.#discard()
    }
    if (!this.#timer || !this.#side.isQuiet) {
      this.#quietSince = undefined
      return
    }
    this.#quietSince ??= now
    const quietFor = now - this.#quietSince
    if (this.#waiting || this.#isStarting || quietFor < quietMs || now < this.#notBefore) return
    if (isIdle || quietFor >= patienceMs) void this.#start()
  }

  #isCurrent({ key, files }: WaitingProcess): boolean {
    try {
      return key === keyOf(this.#side.options.command(false), this.#side.options.env) && isUnchanged(files)
    } catch {
      return false
    }
  }

  async #start(): Promise<void> {
    this.#isStarting = true
    try {
      const { name, env, ...options } = this.#side.options
      const command = options.command(false)
      this.#off = this.#deaths < mostDeaths ? whyNone(command, env) : `${mostDeaths} in a row ended by themselves`
      if (this.#off !== undefined) return
      const files = identities([command.file, command.cwd, ...filesOf(env), ...command.args.slice(1, 2)])
      const process = await this.#startProcess(command, { ...env, [spareMark]: '1' }, 0, name)
      this.#keep({ ...process, key: keyOf(command, env), files, startedAt: performance.now(), isReady: false, unwatch: () => undefined })
    } catch {
      this.#died()
    } finally {
      this.#isStarting = false
    }
  }

  #keep(spare: WaitingProcess): void {
    this.#waiting = spare
    void spare.started.child.ended.then(() => {
      if (this.#waiting !== spare) return
      this.#discard()
      this.#died()
    })
    const [line] = spare.line
    const unwatch = addon().watchOnce(line, 'readable', () => { this.#hear(spare) }, false)
    if (typeof unwatch === 'function') spare.unwatch = unwatch
    if (typeof unwatch === 'number' || !this.#timer) this.#discard()
  }

  /** It has booted, and names the files that it has loaded. */
  #hear(spare: WaitingProcess): void {
    try {
      const chunk = Buffer.alloc(65_536)
      const files = JSON.parse(chunk.toString('utf8', 0, readSync(spare.line[0], chunk))) as string[]
      for (const [file, identity] of identities(files)) spare.files.set(file, identity)
      spare.isReady = true
    } catch { /* it has ended, which is noticed */ }
  }

  #died(): void {
    this.#deaths++
    this.#notBefore = performance.now() + lookMs * 2 ** this.#deaths
  }

  #discard(): void {
    const spare = this.#waiting
    if (!spare) return
    this.#waiting = undefined
    spare.unwatch()
    spare.started.child.kill()
    for (const fd of [...spare.line, spare.started.messages, spare.started.descriptors]) closeSync(fd)
  }

  #machineIsIdle(now: number): boolean {
    const ms = os.cpus().reduce((sum, { times }) => sum + times.idle, 0)
    const before = this.#idle
    this.#idle = { at: now, ms }
    return before.at > 0 && ms - before.ms >= (now - before.at) * idleShare
  }
}

function keyOf({ file, args, cwd, nodeOptions, argv0 }: CommandLine, { [pathsMark]: _, ...env }: NodeJS.ProcessEnv): string {
  return JSON.stringify([file, args, cwd, nodeOptions, argv0, env])
}

/** Which file this is now, and of when. A folder changes with every file in it. */
function identityOf(file: string): string {
  const stat = statSync(file)
  return [realpathSync(file), stat.dev, stat.ino, ...(stat.isDirectory() ? [] : [stat.size, stat.ctimeMs])].join(' ')
}

const identities = (files: readonly string[]): Map<string, string> => new Map(files.map((file) => [file, identityOf(file)]))

const isUnchanged = (files: ReadonlyMap<string, string>): boolean => [...files].every(([file, identity]) => identityOf(file) === identity)

/** Files that Node may read while it boots. */
function filesOf(env: NodeJS.ProcessEnv): string[] {
  const named = ['NODE_EXTRA_CA_CERTS', 'OPENSSL_CONF', 'SSL_CERT_FILE'].flatMap((name) => env[name] ?? [])
  return named.filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile())
}

/**
 * Options of Node that do the same whenever it booted. Others open a port, read a file, measure from the start, or run code of the program
 * before this package is loaded: then there is no spare.
 */
const timeless = new RegExp(`^--?(${[
  'title', 'C', 'conditions', 'enable-source-maps', 'expose[-_]gc', 'unhandled-rejections', 'dns-result-order', 'stack-trace-limit',
  'max[-_](old|semi)[-_]space[-_]size', 'max-http-header-size', 'preserve-symlinks(-main)?', 'v8-pool-size',
  '(no-)?(warnings|deprecation)', '(trace|throw)-(deprecation|warnings|uncaught)', 'disable-warning', 'import', 'no-addons', 'stack-size',
  '(no-)?experimental-(strip-types|transform-types|require-module|detect-module|sqlite|websocket|fetch)', 'use-(openssl|bundled)-ca'
].join('|')})(=|$)`)
/** After ours on the command line, and before it in NODE_OPTIONS. */
const requires = /^(-r|--require)(=|$)/

/** Why there can be no spare of this command; undefined: there can. */
function whyNone({ args, nodeOptions = 0 }: CommandLine, env: NodeJS.ProcessEnv): string | undefined {
  if (activation().sockets.length > 0) return 'it would inherit the sockets of systemd'
  // The first two load this package.
  const typed = args.slice(2, nodeOptions).filter((word) => !requires.test(word))
  const options = [...(env['NODE_OPTIONS'] ?? '').split(/\s+/), ...typed].filter((word) => word.startsWith('-'))
  const other = options.find((word) => !timeless.test(word))
  return other === undefined ? undefined : `with ${other.split('=')[0]} Node does more than to boot`
}
