/**
 * An app with shared state whose code a test writes, anew for every generation, under the traffic of the strict client.
 */

import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { startLoad, type Load, type LoadOptions, type LoadResult, type Target } from '@handover/load'
import { traffic } from './invariants.js'
import { Program, programPath, type ProgramEvent } from './program.js'

export interface SharingOptions {
  /** HandoverOptions. */
  readonly options?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
  readonly node?: string
  readonly execArgv?: readonly string[]
  /** Descriptors of the test that the first generation inherits, by their number there. */
  readonly descriptors?: Readonly<Record<number, number>>
  readonly load?: LoadOptions | false
}

export interface StateReport {
  readonly restored: readonly string[]
  readonly unclaimed: readonly string[]
  readonly failed: readonly { readonly name: string; readonly reason: string }[]
}

export class Sharing implements AsyncDisposable {
  readonly program: Program
  readonly folder: string
  readonly #load: Load | undefined

  private constructor(program: Program, folder: string, load: Load | undefined) {
    this.program = program
    this.folder = folder
    this.#load = load
  }

  /** `code`: the body of a function of what test/programs/state.mjs gives it, in the first generation. Resolves when that listens. */
  static async start(
    code: string, { options = {}, env = {}, node, execArgv = [], descriptors = {}, load = traffic }: SharingOptions = {}
  ): Promise<Sharing> {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-state-'))
    write(folder, code)
    const program = Program.start(programPath('state.mjs'), {
      env: { HANDOVER_DIR: folder, APP: path.join(folder, 'app.mjs'), OPTIONS: JSON.stringify(options), ...env },
      execArgv,
      descriptors,
      ...(node !== undefined && { node })
    })
    const sharing = new Sharing(program, folder, undefined)
    try {
      const { address } = await Promise.race([program.event('listening'), program.ended.then(() => { throw new Error(`it does not listen: ${program.stderr}`) })])
      const { port } = address as { port: number }
      return new Sharing(program, folder, load === false ? undefined : startLoad({ host: '127.0.0.1', port }, load))
    } catch (error) {
      await sharing[Symbol.asyncDispose]()
      throw error
    }
  }

  /** What the next generations are. */
  write(code: string): void {
    write(this.folder, code)
  }

  /** What says(name) does from now on: the body of a function of `args`. */
  say(name: string, code: string): void {
    const file = path.join(this.folder, name)
    writeFileSync(`${file}.new`, code)
    renameSync(`${file}.new`, file)
  }

  get target(): Target & { readonly host: string; readonly port: number } {
    const { address } = this.program.events.find(({ event }) => event === 'listening') as unknown as { address: { address: string; port: number } }
    return { host: address.address, port: address.port }
  }

  /** Reloads by signal to this code, where one is given. Resolves with the state of the report; rejects with the failure. */
  async reload(code?: string): Promise<StateReport> {
    if (code !== undefined) this.write(code)
    const { report } = await this.program.hangUp()
    return (report as { state: StateReport }).state
  }

  /** Reloads to this code, and expects that it fails. The event `failed`. */
  async fails(code?: string): Promise<ProgramEvent> {
    try {
      await this.reload(code)
    } catch (error) {
      return (error as { event: ProgramEvent }).event
    }
    throw new Error('the reload did not fail')
  }

  async get(url: string): Promise<{
    readonly pid: number; readonly generation: number; readonly body: Record<string, unknown> & { readonly text: string }
  }> {
    const answer = await new Promise<http.IncomingMessage>((resolve, reject) => { http.get({ ...this.target, path: url, agent: false }, resolve).once('error', reject) })
    const body = Buffer.concat(await answer.toArray()).toString()
    return { pid: Number(answer.headers['x-pid']), generation: Number(answer.headers['x-generation']), body: JSON.parse(body) as Record<string, unknown> & { text: string } }
  }

  /** Ends the traffic. */
  async loadResult(): Promise<LoadResult> {
    if (!this.#load) throw new Error('there was no traffic')
    return await this.#load.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
    await this.#load?.stop()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

function write(folder: string, code: string): void {
  const file = path.join(folder, 'app.mjs')
  writeFileSync(`${file}.new`, `export default async ({ handover, print, memory, server, routes, says }) => {\n${code}\n}\n`)
  renameSync(`${file}.new`, file)
}
