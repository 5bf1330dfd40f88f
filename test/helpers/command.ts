/**
 * The command `handover` as a user types it, and apps that it can find: each test has a directory of control sockets of its own.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { AppStatus, ReloadOutcome } from '@handover/core/internal'
import { commandFile } from './built.js'
import { Program, programPath } from './program.js'

export interface Ran {
  readonly stdout: string
  readonly stderr: string
  readonly status: number | null
}

export interface Running {
  readonly child: ChildProcess
  readonly output: { stdout: string; stderr: string }
  readonly ended: Promise<Ran>
}

/** Starts `handover …words`. */
export function command(words: readonly string[], env: Readonly<Record<string, string>>, uid?: number): Running {
  const { NODE_OPTIONS: _options, VITEST: _vitest, ...inherited } = process.env
  const child = spawn(process.execPath, [commandFile, ...words], { env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'], ...(uid !== undefined && { uid, gid: uid }) })
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => { output.stdout += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { output.stderr += text })
  const ended = new Promise<Ran>((resolve) => { child.once('close', (status) => { resolve({ ...output, status }) }) })
  return { child, output, ended }
}

/** Of `handover reload --json`: the lines before it are events. */
export const lastLine = (stdout: string): unknown => JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '')

export interface AppOptions {
  readonly name?: string
  readonly options?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
  readonly args?: readonly string[]
}

/** A directory of control sockets with the apps that a test starts in it. */
export class Place implements AsyncDisposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'handover-cli-'))
  readonly sockets = path.join(this.folder, 'sockets')
  readonly #programs: Program[] = []

  constructor() {
    mkdirSync(this.sockets, { mode: 0o700 })
  }

  /** Resolves when it listens. Its next boots do what `behave` says. */
  async start({ name, options, env, args }: AppOptions = {}): Promise<Program> {
    const program = Program.start(programPath('command.mjs'), {
      ...(args && { args }),
      env: {
        HANDOVER_DIR: this.sockets,
        HANDOVER_NAME: name,
        BEHAVIOUR_FILE: path.join(this.folder, 'behaviour'),
        OPTIONS: JSON.stringify(options ?? {}),
        ...env
      }
    })
    this.#programs.push(program)
    await program.event('listening')
    return program
  }

  behave(word: string): void {
    const file = path.join(this.folder, 'behaviour')
    writeFileSync(`${file}.new`, word)
    renameSync(`${file}.new`, file)
  }

  begin(...words: string[]): Running {
    return command(words, { HANDOVER_DIR: this.sockets })
  }

  async run(...words: string[]): Promise<Ran> {
    return await this.begin(...words).ended
  }

  async status(...words: string[]): Promise<readonly AppStatus[]> {
    const { stdout } = await this.run('status', '--json', ...words)
    return (JSON.parse(stdout) as { apps: AppStatus[] }).apps
  }

  async reload(...words: string[]): Promise<ReloadOutcome> {
    return lastLine((await this.run('reload', '--json', ...words)).stdout) as ReloadOutcome
  }

  get files(): string[] {
    return readdirSync(this.sockets).filter((name) => !name.startsWith('.')).sort()
  }

  ownFile(pid: number): string {
    const name = this.files.find((file) => file.startsWith(`@${pid}-`))
    if (name === undefined) throw new Error(`process ${pid} has no socket of its own`)
    return path.join(this.sockets, name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await program[Symbol.asyncDispose]()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export const portOf = (program: Program): number => Number(program.events.find(({ event }) => event === 'listening')?.['port'])
