/** An app under `handover run` whose workers share what a test writes, anew for every boot, and save it every moment. */

import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { waitFor } from './program.js'
import { Keeping } from './keeping.js'

export interface Restored {
  readonly pid: number
  readonly value: number
  readonly phase: string
}

/** Each slot knows the pid of its first process, from generation to generation. `mostSaves`: by one process. */
export const section = (mostSaves = 1e9): string => `
  memory.first = process.pid
  let saves = 0
  handover.share('first', {
    save: ({ phase }) => {
      if (phase === 'checkpoint' && saves++ >= ${mostSaves}) throw new Error('no more')
      print('saved', { phase })
      return memory.first
    },
    restore: (value, { phase }) => { memory.first = value; print('restored', { value, phase }) },
    checkpoint: 30
  })`

export class Checkpointed implements AsyncDisposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'handover-checkpoint-'))
  app!: Keeping

  static async start(workers: number, code = section(), env: Readonly<Record<string, string>> = {}): Promise<Checkpointed> {
    const made = new Checkpointed()
    made.write(code)
    made.app = await Keeping.start({ workers, program: 'state.mjs', env: { APP: path.join(made.folder, 'app.mjs'), ...env } })
    return made
  }

  /** What every boot from now on is. */
  write(code: string): void {
    const file = path.join(this.folder, 'app.mjs')
    writeFileSync(`${file}.new`, `export default async ({ handover, print, memory, server, routes }) => {\n${code}\n}\n`)
    renameSync(`${file}.new`, file)
  }

  /** Resolves when the keeper has a checkpoint of each: a second one is made when the first has been sent. */
  async saved(pids: readonly number[]): Promise<void> {
    const savesOf = (pid: number): number => this.app.program.events.filter((event) => event.pid === pid && event.event === 'saved' && event['phase'] === 'checkpoint').length
    await waitFor(() => pids.every((pid) => savesOf(pid) >= 2))
  }

  get restored(): Restored[] {
    return this.app.program.events.filter(({ event }) => event === 'restored') as unknown as Restored[]
  }

  /** Resolves when so many have begun to restore. */
  async restoredBy(count: number): Promise<void> {
    await waitFor(() => this.restored.length >= count)
  }

  /** Kills one without a word, and resolves with what the next one in its slot restored. */
  async kill(pid: number): Promise<Restored> {
    const before = this.restored.length
    process.kill(pid, 'SIGKILL')
    await waitFor(() => this.restored.length > before)
    return this.restored[before]!
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.app[Symbol.asyncDispose]()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
