/**
 * Runs test/programs/places.mjs, whose listeners are in a file that a test rewrites between two reloads.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Program, programPath, type ProgramOptions } from './program.js'

export interface Plan {
  readonly listen?: readonly object[]
  readonly udp?: readonly object[]
  readonly unlink?: readonly string[]
  readonly close?: readonly number[]
  /** It says ready() when it listens on all that it has: what it does without is dropped at once. */
  readonly ready?: boolean
  readonly options?: object
}

/** A folder of its own for one test. */
export class Folder implements Disposable {
  readonly path = mkdtempSync(path.join(tmpdir(), 'handover-'))

  at(name: string): string {
    return path.join(this.path, name)
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

export class Planned implements AsyncDisposable {
  readonly #folder = new Folder()
  readonly program: Program

  constructor(plan: Plan, options: ProgramOptions = {}) {
    this.next(plan)
    this.program = Program.start(programPath('places.mjs'), { ...options, env: { ...options.env, PLAN_FILE: this.#folder.at('plan.json') } })
  }

  /** What the next generation listens on. */
  next(plan: Plan): void {
    writeFileSync(this.#folder.at('plan.json'), JSON.stringify(plan))
  }

  async addresses(generation: number): Promise<readonly unknown[]> {
    const { addresses } = await this.program.event('bound', (event) => event.generation === generation)
    return addresses as unknown[]
  }

  /** Reloads; resolves with the listeners of the report. */
  async reload(): Promise<{ kept: string[]; added: string[]; dropped: string[] }> {
    const { report } = await this.program.hangUp()
    return (report as { listeners: { kept: string[]; added: string[]; dropped: string[] } }).listeners
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
    this.#folder[Symbol.dispose]()
  }
}
