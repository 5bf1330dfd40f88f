/**
 * Programs that know nothing of Handover, started and reloaded as a user of the command does it. How that is done stands in `start` and
 * `reload` alone.
 */

import { preloadFile } from './built.js'
import { freePorts } from './ask.js'
import { Program, type ProgramEvent, programPath, waitFor } from './program.js'

const folder = programPath('frameworks')

export interface AppOptions {
  /** What a user gives to node before the script: `--import tsx`. */
  readonly execArgv?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly node?: string
}

interface Report {
  readonly result: string
  readonly predecessor: { readonly pid: number }
  readonly successor: { readonly pid: number } | null
  readonly listeners: { readonly kept: readonly string[]; readonly added: readonly string[]; readonly dropped: readonly string[] }
  readonly connections: {
    readonly open: number; readonly moved: number; readonly drained: number; readonly closedIdle: number; readonly cut: number;
    readonly kinds: Readonly<Record<string, object>>; readonly stayed: Readonly<Record<string, number>>
  }
  readonly requestsCut: readonly unknown[]
}

export class App implements AsyncDisposable {
  readonly program: Program
  readonly port: number

  private constructor(program: Program, port: number) {
    this.program = program
    this.port = port
  }

  /** A program of test/programs/frameworks, or a path, that listens on the PORT of its environment. Resolves when it serves. */
  static async start(script: string, options: AppOptions = {}): Promise<App> {
    const app = await App.spawn(script, options)
    await app.program.until(() => {
      if (!app.program.alive.includes(app.program.pid)) throw new Error(`${script} ended: ${app.program.stderr}`)
      return app.serving !== undefined
    })
    return app
  }

  static async spawn(script: string, { execArgv = [], env = {}, node }: AppOptions = {}): Promise<App> {
    const [port = 0] = await freePorts(1)
    return new App(start(script, {
      execArgv,
      env: {
        PORT: String(port),
        NODE_OPTIONS: `--require ${programPath('tell.cjs')}`,
        HANDOVER_UNDO_WINDOW: '100',
        HANDOVER_LINGER: '1000',
        ...env
      },
      ...(node !== undefined && { node })
    }), port)
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** The process of the newest generation that serves. */
  get serving(): number | undefined {
    return this.program.events.findLast((event) => event.event === 'state' && event['to'] === 'serving')?.pid
  }

  /** Resolves with the report of the switch; rejects where the reload failed. */
  async reload(): Promise<Report> {
    return (await reload(this.program))['report'] as Report
  }

  /** Of the drains that have ended, oldest first. */
  get drains(): Report[] {
    return this.program.events
      .filter(({ event, pid, report }) => event === 'report' && (report as Report).result === 'drained' && (report as Report).predecessor.pid === pid)
      .map(({ report }) => report as Report)
  }

  /** Resolves when `count` generations have ended and one process is left. */
  async drained(count: number): Promise<Report[]> {
    await this.program.until(() => this.drains.length >= count)
    await waitFor(() => this.program.alive.length === 1)
    return this.drains
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
  }
}

/** With the command: `packages/cli/dist/main.js` as the script, and `run` before this one. */
function start(script: string, { execArgv, env, node }: Required<Pick<AppOptions, 'execArgv' | 'env'>> & Pick<AppOptions, 'node'>): Program {
  return Program.start(script, { cwd: folder, execArgv: ['--require', preloadFile, ...execArgv], env: { HANDOVER_PRELOAD: '1', ...env }, ...(node !== undefined && { node }) })
}

/** With the command: `handover reload`. */
async function reload(program: Program): Promise<ProgramEvent> {
  return await program.hangUp()
}
