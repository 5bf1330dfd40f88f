/**
 * An app under `handover run`, in a process group and a directory of control sockets of its own: started, asked, reloaded, and ended with
 * all its processes.
 */

import { mkdtempSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { AppStatus, ReloadOutcome } from '@handover/core/internal'
import { startLoad, type Load, type LoadOptions, type Target } from '@handover/load'
import { commandFile, NoAnswer, statusOf } from './built.js'
import { command, lastLine, type Ran, type Running } from './command.js'
import { traffic } from './invariants.js'
import { Program, programPath, waitFor } from './program.js'

/** What makes a process PID 1 of a namespace of its own. */
export const namespace: readonly string[] = ['--pid', '--fork', '--mount-proc', '--kill-child']

export interface KeepingOptions {
  /** 1. */
  readonly workers?: number
  /** Options of `handover run`. */
  readonly words?: readonly string[]
  /** Of test/programs; build.mjs. */
  readonly program?: string
  readonly args?: readonly string[]
  /** HandoverOptions. */
  readonly options?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Of the first boots. */
  readonly behaviour?: string
  readonly isFirst?: boolean
  /** The words of a command that starts it. */
  readonly through?: readonly string[]
  /** Descriptors of this process that the keeper inherits, by their number there. */
  readonly descriptors?: Readonly<Record<number, number>>
}

/** The processes of a status that serve, by slot. */
export const serving = ({ processes }: AppStatus): number[] =>
  processes.filter(({ state }) => ['serving', 'launching', 'offering', 'committing'].includes(state)).sort((a, b) => (a.slot ?? 0) - (b.slot ?? 0)).map(({ pid }) => pid)

export class Keeping implements AsyncDisposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'handover-kept-'))
  readonly sockets = path.join(this.folder, 'sockets')
  readonly program: Program
  readonly workers: number
  readonly #loads: Load[] = []

  /** Does not wait for anything. */
  constructor({ workers = 1, words = [], program = 'build.mjs', args = [], options, env, behaviour = 'ok', isFirst = false, through = [], descriptors }: KeepingOptions = {}) {
    this.workers = workers
    mkdirSync(this.sockets, { mode: 0o700 })
    this.behave(behaviour)
    this.program = Program.start(commandFile, {
      ...(through[0] !== undefined && { node: through[0], execArgv: [...through.slice(1), process.execPath] }),
      ...(isFirst && { node: 'unshare', execArgv: [...namespace, process.execPath] }),
      args: ['run', '--workers', String(workers), '--name', 'kept', '--spare', 'off', ...words, programPath(program), ...args],
      ...(descriptors && { descriptors }),
      env: { HANDOVER_DIR: this.sockets, BEHAVIOUR_FILE: this.#behaviour, OPTIONS: JSON.stringify(options ?? {}), ...env }
    })
  }

  /** Resolves when all workers serve. */
  static async start(options: KeepingOptions = {}): Promise<Keeping> {
    const app = new Keeping(options)
    await app.serves()
    return app
  }

  get #behaviour(): string {
    return path.join(this.folder, 'behaviour')
  }

  get socket(): string {
    return path.join(this.sockets, 'kept.sock')
  }

  /** Of the sockets, with the workers' own left out. */
  get files(): string[] {
    return readdirSync(this.sockets).filter((name) => !/^[@.]/.test(name)).sort()
  }

  get target(): { host: string; port: number } {
    const { address: host, port } = this.program.events.find(({ event }) => event === 'listening')?.['address'] as { address: string; port: number }
    return { host, port }
  }

  /** What every boot from now on does: see test/programs/build.mjs. */
  behave(word: string): void {
    rmSync(`${this.#behaviour}.boots`, { force: true })
    writeFileSync(`${this.#behaviour}.new`, word)
    renameSync(`${this.#behaviour}.new`, this.#behaviour)
  }

  /** Undefined while the keeper has no name yet, or no more. */
  async status(): Promise<AppStatus | undefined> {
    for (let tries = 0; ; tries++) {
      try {
        return await statusOf(this.socket)
      } catch (error) {
        // A busy machine is no answer.
        if (!(error instanceof NoAnswer) || tries === 10) return undefined
      }
    }
  }

  /** Resolves with the processes that serve, by slot, when there is one for each worker. */
  async serves(count = this.workers): Promise<number[]> {
    let pids: number[] = []
    await waitFor(async () => {
      const status = await this.status()
      pids = status ? serving(status) : []
      return pids.length === count && status?.keeper?.down.length === 0
    })
    return pids
  }

  /** Resolves when no process lives but the keeper and these. */
  async onlyLives(pids: readonly number[], others = 1): Promise<void> {
    await waitFor(() => this.program.alive.length === pids.length + others)
  }

  begin(...words: string[]): Running {
    return command(words, { HANDOVER_DIR: this.sockets })
  }

  async run(...words: string[]): Promise<Ran> {
    return await this.begin(...words).ended
  }

  async reload(...words: string[]): Promise<ReloadOutcome> {
    return lastLine((await this.run('reload', '--json', ...words)).stdout) as ReloadOutcome
  }

  load(options: LoadOptions = traffic, target: Target = this.target): Load {
    const load = startLoad(target, options)
    this.#loads.push(load)
    return load
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
    for (const load of this.#loads) await load.stop()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
