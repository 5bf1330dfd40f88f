/**
 * An app under `handover run`: a keeper with its workers, in a directory of control sockets of its own, reloaded and asked as a user of
 * the command does it.
 * Its end kills what it started, by pid, and proves that no process of it is left.
 */

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { AppStatus, ControlAnswer, KeeperStatus, ProcessStatus, ReloadOutcome, Report } from '@handover/core/internal'
import { commandFile } from './built.js'
import { freePorts } from './ask.js'
import { command, lastLine, type Ran, type Running } from './command.js'
import { Program, programPath, waitFor } from './program.js'

export interface KeptOptions {
  readonly workers?: number
  /** Of `handover run`, or of node, before the script: `--shared`, `--hang-timeout 1s`, `--import tsx`. */
  readonly run?: readonly string[]
  /** Of the program. */
  readonly args?: readonly string[]
  /** `$PORT` stands for the app's port, `$FOLDER` for its folder. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly name?: string
  /** The Node binary of the keeper, and so of its workers. */
  readonly node?: string
  /** A keeper that follows this one: with its port, its folder and its control sockets. */
  readonly after?: Pick<KeptApp, 'port' | 'folder'>
}

export class KeptApp implements AsyncDisposable {
  /** The keeper, whose pid is `program.pid`. On its standard output the workers print their events (tell.cjs). */
  readonly program: Program
  /** The PORT in the environment of the workers; nobody listens there but the app. */
  readonly port: number
  readonly name: string
  readonly workers: number
  /** For files of a test; removed at the end. */
  readonly folder: string
  readonly #sockets: string

  private constructor(program: Program, about: { port: number; name: string; workers: number; folder: string; sockets: string }) {
    this.program = program
    this.port = about.port
    this.name = about.name
    this.workers = about.workers
    this.folder = about.folder
    this.#sockets = about.sockets
  }

  /** `script`: a path, or a program of test/programs. Resolves when every worker serves; rejects where the keeper ends before. */
  static async start(script: string, options: KeptOptions = {}): Promise<KeptApp> {
    const app = await KeptApp.spawn(script, options)
    try {
      await app.serving(app.workers)
    } catch (error) {
      await app[Symbol.asyncDispose]()
      throw error
    }
    return app
  }

  /** Resolves when the keeper is started. */
  static async spawn(script: string, { workers = 1, run = [], args = [], env = {}, cwd = programPath('frameworks'), name = 'kept', node, after }: KeptOptions = {}): Promise<KeptApp> {
    const [port = 0] = after ? [after.port] : await freePorts(1)
    const folder = after?.folder ?? mkdtempSync(path.join(tmpdir(), 'handover-kept-'))
    const sockets = path.join(folder, 'sockets')
    mkdirSync(sockets, { mode: 0o700, recursive: true })
    const words = ['run', '--workers', String(workers), '--name', name, '--require', programPath('tell.cjs'), ...run, script, ...args]
    const program = Program.start(commandFile, {
      args: words,
      cwd,
      env: {
        PORT: String(port), HANDOVER_DIR: sockets, KEPT_FOLDER: folder,
        ...Object.fromEntries(Object.entries(env).map(([variable, value]) => [variable, value.replaceAll('$PORT', String(port)).replaceAll('$FOLDER', folder)]))
      },
      ...(node !== undefined && { node })
    })
    return new KeptApp(program, { port, name, workers, folder, sockets })
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** What the keeper and its workers wrote to standard error. */
  get stderr(): string {
    return this.program.stderr
  }

  get stderrLines(): string[] {
    return this.program.stderr.split('\n').filter((line) => line !== '')
  }

  /** The reports of the drains that have ended, oldest first. */
  get drains(): Report[] {
    const drained = this.program.events.map(({ event, pid, report }) => ({ event, pid, report: report as Report })).filter(({ event, pid, report }) => event === 'report' && report.result === 'drained' && report.predecessor.pid === pid)
    // A program that prints its own events prints each twice.
    return [...new Map(drained.map(({ pid, report }) => [pid, report])).values()]
  }

  /** `handover …words` in the app's directory. */
  begin(...words: string[]): Running {
    return command(words, { HANDOVER_DIR: this.#sockets })
  }

  async run(...words: string[]): Promise<Ran> {
    return await this.begin(...words).ended
  }

  /** Undefined where nothing answers (yet). As `handover status` asks, without the price of a process. */
  async findStatus(): Promise<AppStatus | undefined> {
    const socket = net.connect(path.join(this.#sockets, `${this.name}.sock`)).setEncoding('utf8')
    socket.write(`${JSON.stringify({ type: 'request', verb: 'status' })}\n`)
    let text = ''
    try {
      for await (const chunk of socket) text += String(chunk)
    } catch {
      return undefined
    }
    const answer = text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as ControlAnswer).find(({ type }) => type === 'status')
    return answer?.type === 'status' ? answer.app : undefined
  }

  async status(): Promise<AppStatus & { readonly keeper: KeeperStatus }> {
    const status = await this.findStatus()
    if (!status?.keeper) throw new Error(`no keeper answers: ${this.stderr}`)
    return { ...status, keeper: status.keeper }
  }

  /** The workers that serve, by slot. */
  async servers(): Promise<ProcessStatus[]> {
    return ((await this.findStatus())?.processes ?? []).filter(({ state }) => state === 'serving').sort((a, b) => (a.slot ?? 0) - (b.slot ?? 0))
  }

  /** Resolves when exactly so many slots are served, each by one worker. */
  async serving(count: number): Promise<ProcessStatus[]> {
    let servers: ProcessStatus[] = []
    await waitFor(async () => {
      if (!this.program.alive.includes(this.program.pid)) throw new Error(`the keeper ended: ${this.stderr}`)
      servers = await this.servers()
      return servers.length === count && new Set(servers.map(({ slot }) => slot)).size === count
    })
    return servers
  }

  /** `handover reload …words`. */
  async reload(...words: string[]): Promise<ReloadOutcome> {
    const { stdout, stderr } = await this.run('reload', '--json', ...words, this.name)
    const outcome = lastLine(stdout) as Partial<ReloadOutcome>
    if (outcome.at === undefined) throw new Error(`the reload was refused: ${stderr}`)
    return outcome as ReloadOutcome
  }

  /** A reload by SIGHUP to the keeper, which is then as a user gets it: with the default bake. Resolves with the outcome. */
  async hangUp(): Promise<ReloadOutcome> {
    const before = this.program.stderr.length
    process.kill(this.program.pid, 'SIGHUP')
    await this.program.until(() => /^handover: (reloaded: |error: HANDOVER_)/m.exec(this.program.stderr.slice(before)) ?? undefined)
    const { lastReload } = await this.status()
    if (!lastReload) throw new Error(`no reload is known: ${this.stderr}`)
    return lastReload
  }

  /** `handover stop`. Resolves with how the keeper ended, when no process of the app is left. */
  async stop(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    await this.run('stop', this.name)
    const ended = await this.program.ended
    await waitFor(() => this.left.length === 0)
    return ended
  }

  /** Every process that this app started and that lives, in whatever process group. */
  get left(): number[] {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`KEPT_FOLDER=${this.folder}\0`)
      } catch {
        return false // it is gone, a zombie, or another user's
      }
    })
  }

  /** Whether the process is a worker, and neither the keeper nor a command. */
  isWorker(pid: number): boolean {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes('\0HANDOVER_KEEPER=')
    } catch {
      return false
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The keeper first: it would start the next worker in the place of one that is killed.
    await this.program[Symbol.asyncDispose]()
    for (const pid of this.left) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch { /* it is gone */ }
    }
    await waitFor(() => this.left.length === 0)
    rmSync(this.folder, { recursive: true, force: true })
  }
}
