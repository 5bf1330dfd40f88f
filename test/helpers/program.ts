/**
 * A real program under test with all its generations: they share its standard output, on which the programs in test/programs
 * print one JSON object a line. Ends everything it started, by process group.
 */

import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** What the programs print: `listening`, `state`, `report`, `failed`, `draining`, `closed`, `exit`, and whatever a test adds. */
export interface ProgramEvent {
  readonly event: string
  readonly pid: number
  readonly generation: number
  readonly [detail: string]: unknown
}

export interface ProgramOptions {
  readonly args?: readonly string[]
  readonly execArgv?: readonly string[]
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** The Node binary; the one that runs the tests by default. */
  readonly node?: string
  /** Descriptors of this process that the program inherits, by their number there. */
  readonly descriptors?: Readonly<Record<number, number>>
}

export const programPath = (name: string): string => fileURLToPath(new URL(`../programs/${name}`, import.meta.url))

export class Program implements AsyncDisposable {
  readonly events: ProgramEvent[] = []
  /** Lines of standard output that are not events. */
  readonly lines: string[] = []
  stderr = ''
  /** How the first process ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  /** Nobody writes to its standard output or error any more: all that was written has been read. */
  readonly closed: Promise<unknown>
  readonly #child: ChildProcess
  readonly #watchers = new Set<() => void>()

  private constructor(child: ChildProcess) {
    this.#child = child
    this.ended = once(child, 'exit').then(([code, signal]) => ({ code: code as number | null, signal: signal as NodeJS.Signals | null }))
    this.closed = once(child, 'close')
    if (!child.stdout || !child.stderr) throw new Error('no pipes')
    createInterface({ input: child.stdout }).on('line', (line) => {
      try {
        const value = JSON.parse(line) as ProgramEvent
        if (typeof value === 'object' && typeof value.event === 'string') this.events.push(value)
        else this.lines.push(line)
      } catch {
        this.lines.push(line)
      }
      this.#changed()
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
      this.#changed()
    })
    void this.ended.then(() => { this.#changed() })
  }

  /** `script` is a path; the program runs in a process group of its own. */
  static start(script: string, options: ProgramOptions = {}): Program {
    const env: NodeJS.ProcessEnv = { ...process.env, ...options.env }
    for (const key of ['NODE_OPTIONS', 'VITEST', 'NODE_ENV', 'HANDOVER_SUCCESSOR']) if (options.env?.[key] === undefined) Reflect.deleteProperty(env, key)
    const child = spawn(options.node ?? process.execPath, [...(options.execArgv ?? []), script, ...(options.args ?? [])], {
      detached: true,
      env,
      stdio: standardStreamsAnd(options.descriptors),
      ...(options.cwd !== undefined && { cwd: options.cwd })
    })
    return new Program(child)
  }

  /** The first process. */
  get pid(): number {
    return this.#child.pid ?? 0
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher()
  }

  /**
   * Resolves with what `look` finds, looked for anew at every line of output. The test's own time limit is the deadline.
   * One turn of the loop later: what the program had written before to its other stream has been read by then, too.
   */
  async until<T>(look: () => T | undefined | false): Promise<T> {
    for (;;) {
      const found = look()
      if (found !== undefined && found !== false) {
        await nextTurn()
        return found
      }
      await new Promise<void>((resolve) => {
        const watcher = (): void => {
          this.#watchers.delete(watcher)
          resolve()
        }
        this.#watchers.add(watcher)
      })
    }
  }

  /** The first event of this name for which `where` holds, past or future. */
  async event(name: string, where: (event: ProgramEvent) => boolean = () => true): Promise<ProgramEvent> {
    return await this.until(() => this.events.find((event) => event.event === name && where(event)))
  }

  async stderrMatching(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.until(() => pattern.exec(this.stderr) ?? undefined)
  }

  /** The process of the newest generation that said it serves. */
  get serving(): number {
    return this.events.findLast((event) => event.event === 'state' && event['to'] === 'serving')?.pid ?? this.pid
  }

  /** Reloads by signal; resolves with the report of the switch, rejects with the failure. */
  async hangUp(pid = this.serving): Promise<ProgramEvent> {
    const before = this.events.length
    process.kill(pid, 'SIGHUP')
    const found = await this.until(() => this.events.slice(before).find((event) => event.pid === pid && ((event.event === 'report' && (event['report'] as { result: string }).result === 'switched') || event.event === 'failed')))
    if (found.event === 'failed') throw Object.assign(new Error(String(found['message'])), { event: found })
    return found
  }

  /** Everything in the process group that still lives. */
  get alive(): number[] {
    return groupOf(this.#child)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await endGroup(this.#child)
    await this.ended
  }
}

/** Kills a process that was started as a group of its own, with all of the group; resolves when none of it lives. */
export async function endGroup(child: ChildProcess): Promise<void> {
  await waitFor(() => {
    if (groupOf(child).length === 0) return true
    try {
      process.kill(-child.pid!, 'SIGKILL')
    } catch { /* all have ended */ }
    return false
  })
}

/**
 * Those of its group that live. Where it has ended and its pid is in use again, the group is another one: no process gets the number of a
 * group that is there.
 */
function groupOf(child: ChildProcess): number[] {
  const { pid = 0, exitCode, signalCode } = child
  const members = processGroup(pid)
  return (exitCode !== null || signalCode !== null) && members.includes(pid) ? [] : members
}

/**
 * Polls what has no event: another process, /proc. The longer it waits, the less often it looks: what it looks at needs the machine too.
 */
export async function waitFor(condition: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  const end = performance.now() + ms
  for (let pause = 5; !(await condition()); pause = Math.min(50, pause * 1.5)) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${condition.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}

function standardStreamsAnd(descriptors: Readonly<Record<number, number>> = {}): StdioOptions {
  const stdio: (number | 'ignore' | 'pipe')[] = ['ignore', 'pipe', 'pipe']
  for (const [at, fd] of Object.entries(descriptors)) stdio[Number(at)] = fd
  return Array.from(stdio, (each) => each ?? 'ignore')
}

function processGroup(pgid: number): number[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const stat = readStat(pid)
      return stat.pgid === pgid && stat.state !== 'Z'
    } catch {
      return false
    }
  })
}

function readStat(pid: number): { state: string; pgid: number } {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const [state = '', , pgid = ''] = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { state, pgid: Number(pgid) }
}

/** What the descriptors of a process lead to, as in `ls -l /proc/PID/fd`. */
export function descriptorsOf(pid: number): Map<number, string> {
  const found = new Map<number, string>()
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    try {
      found.set(Number(name), readlinkSync(`/proc/${pid}/fd/${name}`))
    } catch { /* closed meanwhile */ }
  }
  return found
}

export const exists = (pid: number): boolean => {
  try {
    return readStat(pid).state !== 'Z'
  } catch {
    return false
  }
}
