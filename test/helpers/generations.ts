/**
 * A program that is reloaded again and again, by every trigger in turn, with a new version on disk each time.
 *
 * A rendezvous starts the program a second time, so this is a list of programs: the events of all of them, and all their processes.
 */

import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Target } from '@handover/load'
import { Program, type ProgramEvent, programPath, waitFor } from './program.js'
import { ProgramGroup } from './program-group.js'

export const triggers = ['signal', 'call', 'rendezvous'] as const
export type Trigger = typeof triggers[number]

export interface GenerationsOptions {
  readonly script?: string
  /** As in test/programs/server.mjs; `DIR` stands for the temporary directory. */
  readonly listen: string
  readonly env: Readonly<Record<string, string>>
  readonly tls?: boolean
  /** The Node binary, or its name in the PATH of `env`. */
  readonly node?: string
}

export class Generations extends ProgramGroup implements AsyncDisposable {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'handover-reload-'))
  /** How many processes there have been. */
  count = 0
  readonly #options: GenerationsOptions

  private constructor(options: GenerationsOptions) {
    super()
    this.#options = options
  }

  /** Resolves when the first generation listens everywhere. */
  static async start(options: GenerationsOptions): Promise<Generations> {
    const generations = new Generations(options)
    generations.#writeVersion()
    generations.#startProgram()
    const { length } = options.listen.split(',')
    await generations.until(() => generations.#listening(1).length === length)
    return generations
  }

  /** Where the first generation listens, in the order of `listen`. */
  get targets(): Target[] {
    const tls = this.#options.tls === true
    return this.#listening(1).map(({ address }) => {
      if (typeof address === 'string') return { path: address, tls }
      const { address: host, port } = address as { address: string; port: number }
      return { host, port, tls }
    })
  }

  get serving(): number {
    return this.events.findLast(({ event, to, generation }) => event === 'state' && to === 'serving' && generation === this.count)?.pid ?? 0
  }

  #listening(generation: number): ProgramEvent[] {
    return this.events.filter((event) => event.event === 'listening' && event.generation === generation)
  }

  /** Whole or not at all: a process that boots just now reads the one or the other. */
  #writeVersion(): void {
    this.count++
    const file = path.join(this.directory, 'version')
    writeFileSync(`${file}.new`, String(this.count))
    renameSync(`${file}.new`, file)
  }

  #startProgram(): void {
    this.programs.push(Program.start(this.#options.script ?? programPath('server.mjs'), {
      ...(this.#options.node !== undefined && { node: this.#options.node }),
      env: {
        HANDOVER_NAME: 'generations',
        HANDOVER_DIR: this.directory,
        VERSION_FILE: path.join(this.directory, 'version'),
        LISTEN: this.#options.listen.replaceAll('DIR', this.directory),
        ...this.#options.env
      }
    }))
  }

  /** Resolves with the report of the switch. Rejects when the reload failed. */
  async reload(trigger: Trigger): Promise<Record<string, unknown>> {
    const predecessor = this.serving
    this.#writeVersion()
    if (trigger === 'signal') process.kill(predecessor, 'SIGHUP')
    else if (trigger === 'call') await this.#call()
    else this.#startProgram()
    const generation = this.count - 1
    return await this.until(() => {
      const failed = this.events.find((event) => event.event === 'failed' && event.generation === generation)
      if (failed) throw new Error(String(failed['message']))
      const reports = this.events.filter((event) => event.event === 'report' && event.pid === predecessor).map(({ report }) => report as Record<string, unknown>)
      return this.serving !== 0 && reports.find(({ result }) => result === 'switched')
    })
  }

  /** The program's own route, which calls reload() and answers with the report. */
  async #call(): Promise<void> {
    const { tls, ...where } = this.targets[0]!
    const options = { ...('host' in where ? where : { socketPath: where.path }), path: '/reload', agent: false, rejectUnauthorized: false } as const
    const answer = await new Promise<http.IncomingMessage>((resolve, reject) => {
      (tls ? https : http).get(options, resolve).on('error', reject)
    })
    const body = await answer.toArray()
    if (answer.statusCode !== 200) throw new Error(`/reload answered ${answer.statusCode}: ${Buffer.concat(body).toString()}`)
  }

  /** Ends the generation that serves, and resolves when no process is left. */
  async stop(): Promise<void> {
    process.kill(this.serving, 'SIGTERM')
    await Promise.all(this.programs.map((program) => program.ended))
    await waitFor(() => this.alive.length === 0, 60_000)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.programs) await program[Symbol.asyncDispose]()
    rmSync(this.directory, { recursive: true, force: true })
  }
}
