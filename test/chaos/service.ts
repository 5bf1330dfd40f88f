/**
 * The service that an episode of chaos is about, under both roofs: with the adapter (processes that start their successors), or under
 * `handover run`.
 */

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { KeptApp } from '../helpers/kept-app.js'
import { connects, freePorts } from '../helpers/ask.js'
import { command, type Ran, type Running } from '../helpers/command.js'
import { ask, holdsListener } from '../helpers/invariants.js'
import { Program, exists, programPath, waitFor } from '../helpers/program.js'
import type { Roof } from './plan.js'

/** Long enough for a machine that is busy, and what a build that hangs costs. */
const readyTimeoutMs = 15_000

/** Empty where it is gone, or another user's. */
function readOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1')
  } catch {
    return ''
  }
}
const environmentOf = (pid: number): string => `\0${readOf(pid, 'environ')}`
const wordsOf = (pid: number): string[] => readOf(pid, 'cmdline').split('\0')

export interface Outcome {
  readonly ok: boolean
  readonly said: string
}

export abstract class Service implements AsyncDisposable {
  readonly roof: Roof
  readonly folder = mkdtempSync(path.join(tmpdir(), 'handover-chaos-'))
  readonly target: { readonly host: string; readonly port: number }

  protected constructor(roof: Roof, port: number) {
    this.roof = roof
    this.target = { host: '127.0.0.1', port }
    mkdirSync(this.sockets, { mode: 0o700 })
    this.behave('ok')
  }

  /** Resolves when it serves. */
  static async start(roof: Roof): Promise<Service> {
    const [port = 0] = await freePorts(1)
    const service = roof.keeper ? new Kept(roof, port) : new Adapted(roof, port)
    try {
      await service.begin()
    } catch (error) {
      await service[Symbol.asyncDispose]()
      throw error
    }
    return service
  }

  /** Starts the program, for the first time or again; resolves when it serves. */
  abstract begin(): Promise<void>
  /** Resolves with the processes that serve when they are as many as they should be. */
  abstract serving(): Promise<number[]>
  /** Undefined where there is none, or none that lives. */
  abstract get keeper(): number | undefined
  abstract reload(by: 'signal' | 'command'): Promise<Outcome>
  abstract get programs(): readonly Program[]

  protected get sockets(): string {
    return path.join(this.folder, 'sockets')
  }

  protected get env(): Record<string, string> {
    return {
      KIND: this.roof.kind,
      PORT: String(this.target.port),
      BEHAVIOUR_FILE: path.join(this.folder, 'behaviour'),
      HANDOVER_DIR: this.sockets,
      HANDOVER_READY_TIMEOUT: String(readyTimeoutMs),
      HANDOVER_UNDO_WINDOW: '400',
      // Beyond an episode on a slow machine: WebSockets that cannot move are cut at the deadline, and that would be no fault.
      HANDOVER_DRAIN_TIMEOUT: '170000',
      KEPT_FOLDER: this.folder
    }
  }

  get stderr(): string {
    return this.programs.map(({ stderr }) => stderr).join('')
  }

  /** What every boot from now on does. */
  behave(word: string): void {
    const file = path.join(this.folder, 'behaviour')
    writeFileSync(`${file}.new`, word)
    renameSync(`${file}.new`, file)
  }

  protected async reloadByCommand(): Promise<Outcome> {
    const { status, stdout, stderr } = await this.ask().ended
    return { ok: status === 0, said: `${stdout}${stderr}` }
  }

  /** `handover reload`, as this roof needs it or with these words. */
  ask(...words: string[]): Running {
    const { keeper, workers } = this.roof
    const usual = keeper ? ['--bake', '0', ...(workers > 1 ? ['--parallel'] : [])] : []
    return command(['reload', ...(words.length > 0 ? words : usual), 'chaos'], { HANDOVER_DIR: this.sockets })
  }

  /** Whether the process waits, or has waited, as a keeper's next worker. */
  isSpare(pid: number): boolean {
    return environmentOf(pid).includes('\0HANDOVER_SPARE=')
  }

  async stop(): Promise<Ran> {
    return await command(['stop', 'chaos'], { HANDOVER_DIR: this.sockets }).ended
  }

  /** Every process of the service that lives, a keeper too. */
  get left(): number[] {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
      try {
        return exists(pid) && environmentOf(pid).includes(`KEPT_FOLDER=${this.folder}\0`)
      } catch {
        return false // it is gone, or another user's
      }
    })
  }

  /** Those that have the port, listening or silent. */
  get holders(): number[] {
    return this.left.filter((pid) => {
      try {
        return holdsListener(pid, this.target.port)
      } catch {
        return false
      }
    })
  }

  async answers(): Promise<boolean> {
    return await connects(this.target) === 'ok' && await ask(this.target, '/').then(({ status }) => status === 200, () => false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A keeper first: it would start the next worker in the place of one that is killed.
    for (const program of this.programs) await program[Symbol.asyncDispose]()
    await waitFor(() => {
      for (const pid of this.left) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch { /* it is gone */ }
      }
      return this.left.length === 0
    })
    rmSync(this.folder, { recursive: true, force: true })
  }
}

class Adapted extends Service {
  readonly programs: Program[] = []

  constructor(roof: Roof, port: number) {
    super(roof, port)
  }

  async begin(): Promise<void> {
    const program = Program.start(programPath('chaos.mjs'), { execArgv: ['--require', programPath('tell.cjs')], env: { ...this.env, HANDOVER_NAME: 'chaos' } })
    this.programs.push(program)
    const serves = program.until(() => program.events.some(({ event, to, pid }) => event === 'state' && to === 'serving' && pid === program.pid))
    const ended = program.ended.then((how) => { throw new Error(`the program ended before it served (${JSON.stringify(how)}): ${program.stderr}`) })
    ended.catch(() => undefined)
    await Promise.race([serves, ended])
  }

  async serving(): Promise<number[]> {
    await waitFor(() => this.answers())
    return [(await ask(this.target, '/')).pid]
  }

  get keeper(): undefined {
    return undefined
  }

  async reload(by: 'signal' | 'command'): Promise<Outcome> {
    if (by === 'command') return await this.reloadByCommand()
    const [pid = 0] = await this.serving()
    const from = new Map(this.programs.map((program) => [program, program.events.length]))
    process.kill(pid, 'SIGHUP')
    let outcome: Outcome | undefined
    // Where it is killed meanwhile it says nothing.
    await waitFor(() => {
      const said = this.programs.flatMap((program) => program.events.slice(from.get(program) ?? 0)).filter((event) => event.pid === pid)
      const failed = said.find(({ event }) => event === 'failed')
      const switched = said.find(({ event, report }) => event === 'report' && (report as { result: string }).result === 'switched')
      if (failed) outcome = { ok: false, said: String(failed['message']) }
      else if (switched) outcome = { ok: true, said: '' }
      else if (!exists(pid)) outcome = { ok: false, said: `process ${pid} is gone` }
      return outcome !== undefined
    })
    return outcome!
  }
}

class Kept extends Service {
  readonly #apps: KeptApp[] = []

  constructor(roof: Roof, port: number) {
    super(roof, port)
  }

  get #app(): KeptApp {
    return this.#apps.at(-1)!
  }

  get programs(): readonly Program[] {
    return this.#apps.map(({ program }) => program)
  }

  async begin(): Promise<void> {
    this.#apps.push(await KeptApp.start(programPath('chaos.mjs'), { name: 'chaos', workers: this.roof.workers, env: this.env, after: { port: this.target.port, folder: this.folder } }))
  }

  async serving(): Promise<number[]> {
    let found: number[] = []
    await waitFor(async () => {
      const status = await this.#app.findStatus()
      const servers = (status?.processes ?? []).filter(({ state }) => state === 'serving')
      found = servers.map(({ pid }) => pid)
      return status?.keeper?.down.length === 0 && servers.length === this.roof.workers &&
        new Set(servers.map(({ slot }) => slot)).size === this.roof.workers
    })
    return found
  }

  get keeper(): number | undefined {
    return this.left.find((pid) => !environmentOf(pid).includes('\0HANDOVER_KEEPER=') && wordsOf(pid).includes('run'))
  }

  async reload(by: 'signal' | 'command'): Promise<Outcome> {
    if (by === 'command') return await this.reloadByCommand()
    const { program } = this.#app
    const from = program.stderr.length
    const pid = this.keeper!
    process.kill(pid, 'SIGHUP')
    const said = program.until(() => /^handover: (?:(reloaded: )|error: HANDOVER_).*/m.exec(program.stderr.slice(from)) ?? undefined)
    const found = await Promise.race([said, waitFor(() => !exists(pid))])
    return { ok: found?.[1] !== undefined, said: found?.[0] ?? 'the keeper is gone' }
  }
}
