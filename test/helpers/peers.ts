/**
 * What the tests of reloads under load share: a program that is reloaded while something else keeps connections to it, the invariants that
 * hold then, and other people's programs (proxies, load tools) as processes that are ended by their pid.
 */

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { LoadResult } from '@handover/load'
import { expect } from 'vitest'
import { nothingLostNothingClosed } from './invariants.js'
import { programPath, waitFor } from './program.js'
import { Generations, type Trigger } from './generations.js'
import type { Folder } from './plan.js'

/** A server of test/programs/peer-server.mjs on one TCP port. `node`: as in GenerationsOptions. */
export async function startGenerations(kind: string, env: Readonly<Record<string, string>> = {}, node?: string): Promise<Generations> {
  const options = JSON.stringify({ undoWindow: 100, drainTimeout: 30_000 })
  return await Generations.start({ script: programPath('peer-server.mjs'), listen: '127.0.0.1:0', env: { KIND: kind, OPTIONS: options, ...env }, ...(node !== undefined && { node }) })
}

export const portOf = (generations: Generations): number => (generations.targets[0] as { port: number }).port

/** How many connections all generations together have accepted. */
export const accepted = (generations: Generations): number => generations.events.filter(({ event }) => event === 'accepted').length

export interface DrainReport {
  readonly result: string
  readonly predecessor: { readonly pid: number; readonly generation: number }
  readonly connections: {
    readonly open: number; readonly moved: number; readonly drained: number; readonly closedIdle: number; readonly cut: number;
    readonly stayed: object
  }
  readonly requestsCut: readonly unknown[]
}

/** The reports of the drains that have ended, in order of generation. */
export function drains(generations: Generations): DrainReport[] {
  return generations.events
    .filter(({ event, pid, report }) => event === 'report' && (report as DrainReport).result === 'drained' && (report as DrainReport).predecessor.pid === pid)
    .map(({ report }) => report as DrainReport)
    .toSorted((a, b) => a.predecessor.generation - b.predecessor.generation)
}

/** Resolves when every generation but the one that serves has ended. */
export async function drained(generations: Generations): Promise<DrainReport[]> {
  await generations.until(() => drains(generations).length === generations.count - 1)
  await waitFor(() => generations.alive.length === 1, 60_000)
  return drains(generations)
}

/** `count` reloads by turns; `settled` is awaited after each. */
export async function reload(
  generations: Generations, count: number, triggers: readonly Trigger[], settled: () => Promise<unknown>
): Promise<void> {
  for (let index = 0; index < count; index++) {
    await generations.reload(triggers[index % triggers.length]!)
    await settled()
  }
}

// ---- the invariants ----

/** No request is lost and no connection is closed: as many were opened as there are clients. */
export function eachClientKeptItsConnection(result: LoadResult): void {
  nothingLostNothingClosed(result)
  expect(result.opened).toBe(result.clients)
}

/** Every generation but the last moved that many connections and left none behind, apart from those that clients closed themselves. */
export function everyConnectionMoved(generations: Generations, connections: number): void {
  const reports = drains(generations)
  expect(reports.length).toBe(generations.count - 1)
  for (const { predecessor: { generation }, connections: counts, requestsCut } of reports) {
    const { open, moved, drained: ended, closedIdle, cut, stayed } = counts
    expect({ generation, moved, left: open - moved - ended, closedIdle, cut, stayed, requestsCut }).toEqual(
      { generation, moved: connections, left: 0, closedIdle: 0, cut: 0, stayed: {}, requestsCut: [] }
    )
  }
}

// ---- other people's programs ----

/** Where a program is installed: on PATH, or in the folders for system programs, which are not on everybody's. */
export function installed(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/sbin', '/usr/local/sbin']
  return folders.map((folder) => path.join(folder, name)).find((file) => {
    try {
      accessSync(file, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Compiles a program of Go that needs the standard library alone; answers its file. */
export function compileGo(go: string, source: string, folder: Folder): string {
  const [from, to] = [folder.at('client.go'), folder.at('client')]
  writeFileSync(from, source)
  const env = { ...process.env, GO111MODULE: 'off', CGO_ENABLED: '0', GOFLAGS: '' }
  execFileSync(go, ['build', '-o', to, from], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  return to
}

export class Tool implements AsyncDisposable {
  readonly ended: Promise<number | null>
  output = ''
  running = true
  readonly #child

  private constructor(file: string, args: readonly string[], env: Readonly<Record<string, string>>) {
    this.#child = spawn(file, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => { this.output += text })
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => { this.output += text })
    // 'close' comes after the last of its output.
    this.ended = once(this.#child, 'close').then(([code]) => {
      this.running = false
      return code as number | null
    })
  }

  static start(file: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Tool {
    return new Tool(file, args, env)
  }

  /** Asks it to sum up; resolves with all that it wrote. */
  async interrupt(): Promise<string> {
    this.#child.kill('SIGINT')
    await this.ended
    return this.output
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) this.#child.kill('SIGKILL')
    await this.ended
  }
}
