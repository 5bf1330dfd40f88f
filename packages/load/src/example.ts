/**
 * An example server as a real process that can be reloaded: start, reload with visibly new code, end.
 *
 * The server listens on PORT, reads its version from APP_VERSION_FILE at boot and tells both it and its pid in every answer
 * (see reference.ts). No process is left behind: a token in the environment, which successors inherit, tells on Linux which
 * processes are its own; elsewhere these are the ones that answered. Only they are signalled, each by its pid.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, readdirSync, rmSync } from 'node:fs'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Report } from '@handover/core'
import { nowMs, sleep } from './client/clock.js'
import { waitWhileItMoves, workOf } from './client/progress.js'
import { reportMarker } from './client/messages.js'
import type { VersionStats } from './client/tally.js'

type Answered = Pick<VersionStats, 'version' | 'pid' | 'firstAt'>
/** A load, as far as it says who has answered. */
export interface Answering {
  stats(): { readonly versions: readonly Answered[] }
}

export const apps = ['fastify', 'express', 'http'] as const
export type App = typeof apps[number]

/** Where the programs of the examples are. */
export function scriptOf(app: App): string {
  return fileURLToPath(new URL(`../../../examples/${app}/server.mjs`, import.meta.url))
}

export interface ExampleOptions {
  readonly script: string
  readonly args?: readonly string[]
  readonly version: string
  readonly env?: Readonly<Record<string, string>>
  /** The Node of the first process, which starts the next by the same name: this one by default. */
  readonly node?: string
  readonly onStderr?: (line: string) => void
  /** Every report that one of its processes makes. */
  readonly onReport?: (report: Report) => void
  /** The start has failed where the process does not work for so long, and the port is not open. Default 30 000. */
  readonly startTimeoutMs?: number
}

export interface Reloaded {
  readonly version: string
  readonly pid: number
  /** When the signal was sent, on the clock of nowMs(). */
  readonly signalledAt: number
  /** From the signal to the first whole answer of the new version. */
  readonly firstAnswerMs: number
}

const tokenName = 'HANDOVER_LOAD_TOKEN'
const linesKept = 20
const lastLinesMs = 1_000
const withReporter = { NODE_OPTIONS: `${process.env['NODE_OPTIONS'] ?? ''} --import=${new URL('reporter.js', import.meta.url).href}` }

export class Example {
  readonly target: { readonly host: string; readonly port: number }
  readonly #child: ChildProcess
  readonly #directory: string
  readonly #token: string
  readonly #pids = new Set<number>()
  readonly #stderr: string[] = []
  readonly #allIsRead: Promise<unknown>
  readonly #onExit = (): void => {
    this.kill()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  /** Resolves when the port is open. */
  static async start(options: ExampleOptions): Promise<Example> {
    const directory = await mkdtemp(path.join(tmpdir(), 'handover-load-'))
    const example = new Example(options, directory, await freePort())
    try {
      await example.writeVersion(options.version)
      await example.#whenListening(options.startTimeoutMs ?? 30_000)
      return example
    } catch (error) {
      await example.end(0)
      throw error
    }
  }

  private constructor(options: ExampleOptions, directory: string, port: number) {
    const { script, args = [], env, node = process.execPath, onStderr, onReport } = options
    this.#directory = directory
    this.#token = randomUUID()
    this.target = { host: '127.0.0.1', port }
    process.on('exit', this.#onExit)
    this.#child = spawn(node, [script, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true, // Ctrl-C is for the parent, which ends everything in order
      env: {
        ...process.env, ...env, ...(onReport && withReporter), PORT: String(port), APP_VERSION_FILE: this.#versionFile,
        [tokenName]: this.#token
      }
    })
    if (this.#child.pid !== undefined) this.#pids.add(this.#child.pid)
    this.#child.on('error', (error) => this.#stderr.push(error.message))
    const lines = readline.createInterface({ input: this.#child.stderr! })
    this.#allIsRead = once(lines, 'close')
    lines.on('line', (line) => {
      if (onReport && line.startsWith(reportMarker)) {
        onReport(JSON.parse(line.slice(reportMarker.length)) as Report)
        return
      }
      this.#stderr.push(line)
      if (this.#stderr.length > linesKept) this.#stderr.shift()
      onStderr?.(line)
    })
  }

  get #versionFile(): string {
    return path.join(this.#directory, 'version.txt')
  }

  /** Where the first process is; 0 when it could not be started. */
  get firstPid(): number {
    return this.#child.pid ?? 0
  }

  /** The last lines that its processes wrote to stderr. */
  get stderr(): string {
    return this.#stderr.join('\n')
  }

  /** Whole or not at all: a server that boots just now reads the old version or the new one. */
  async writeVersion(version: string): Promise<void> {
    await writeFile(`${this.#versionFile}.new`, version)
    await rename(`${this.#versionFile}.new`, this.#versionFile)
  }

  /** A process that answered with its pid. */
  saw(pid: number): void {
    if (Number.isInteger(pid) && pid > 1) this.#pids.add(pid)
  }

  /**
   * New code, then SIGHUP to `pid`; resolves at the first answer of the new version that `load` sees. `timeoutMs`: how long nothing may
   * move on the way there.
   */
  async reload(load: Answering, pid: number, version: string, timeoutMs = 30_000): Promise<Reloaded> {
    await this.writeVersion(version)
    const signalledAt = nowMs()
    if (!this.#signal(pid, 'SIGHUP')) throw new Error(`process ${pid} is not there any more, so it cannot be reloaded`)
    const first = await waitWhileItMoves<Answered>({
      what: `an answer of version ${version} after SIGHUP to process ${pid}`,
      look: () => {
        const seen = load.stats().versions.find((one) => one.version === version)
        if (seen === undefined && this.living().length === 0) throw new Error(`no process of the server lives ${Math.round(nowMs() - signalledAt)} ms after SIGHUP to ${pid}`)
        return seen
      },
      // The one that serves works all the time.
      moves: () => `beside process ${pid} ${workOf(this.living().filter((other) => other !== pid))}`,
      quietMs: timeoutMs,
      todo: 'See what the server wrote; where the machine is busy, stop what else runs on it.',
      cause: () => this.stderr
    })
    this.saw(first.pid)
    return { version, pid: first.pid, signalledAt, firstAnswerMs: first.firstAt - signalledAt }
  }

  /** The processes of this server that live, seen in an answer or not. */
  living(): number[] {
    let pids: number[]
    try {
      pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number)
    } catch {
      pids = [...this.#pids] // not Linux: the ones that answered
    }
    return pids.filter((pid) => this.isLiving(pid))
  }

  isLiving(pid: number): boolean {
    try {
      process.kill(pid, 0)
    } catch {
      return false
    }
    try {
      // Empty for a zombie, which has ended. proc(5)
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`${tokenName}=${this.#token}`)
    } catch {
      return process.platform !== 'linux' && this.#pids.has(pid)
    }
  }

  /**
   * SIGTERM to each of `pids`. Then waits for the end of all processes, and kills those that are left where none has ended for `timeoutMs`:
   * answers these.
   */
  async end(timeoutMs: number, pids: readonly number[] = this.living()): Promise<number[]> {
    for (const pid of pids) this.#signal(pid, 'SIGTERM')
    let late = this.living()
    // Of three processes that drain one after the other, each may take its time.
    for (let deadline = nowMs() + timeoutMs; late.length > 0 && nowMs() < deadline;) {
      await sleep(20) // they are no children of this process: their end cannot be waited for
      const now = this.living()
      if (now.length < late.length) deadline = nowMs() + timeoutMs
      late = now
    }
    this.kill()
    while (this.living().length > 0) await sleep(5)
    process.off('exit', this.#onExit)
    // Their last lines may not be read yet; what they started may hold the pipe.
    await Promise.race([this.#allIsRead, sleep(lastLinesMs)])
    this.#child.stderr?.destroy()
    await rm(this.#directory, { recursive: true, force: true })
    return late
  }

  /** At once and synchronously. Also happens when this process exits. */
  kill(): void {
    for (const pid of this.living()) this.#signal(pid, 'SIGKILL')
  }

  #signal(pid: number, signal: NodeJS.Signals): boolean {
    return this.isLiving(pid) && process.kill(pid, signal)
  }

  async #whenListening(timeoutMs: number): Promise<void> {
    await waitWhileItMoves({
      what: `a listener on port ${this.target.port}`,
      look: async () => {
        if (await this.#connects()) return true
        const { exitCode, signalCode, pid } = this.#child
        if (pid === undefined || exitCode !== null || signalCode !== null) {
          throw new Error(`the server ended before it listened: ${signalCode ?? `exit ${exitCode}`}`, { cause: this.stderr })
        }
        return undefined
      },
      moves: () => workOf(this.living()),
      quietMs: timeoutMs,
      todo: 'See what the server wrote; where the machine is busy, stop what else runs on it.',
      cause: () => this.stderr
    })
  }

  #connects(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = net.connect(this.target)
      socket.on('error', () => resolve(false)).on('connect', () => {
        socket.destroy()
        resolve(true)
      })
    })
  }
}

/** Of 127.0.0.1, free just now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer().on('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo
      server.close(() => resolve(port))
    })
  })
}
