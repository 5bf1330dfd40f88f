/** A keeper and its workers in one process: a fake machine (fake-host.ts) runs what the keeper starts, and the time is the test's. */

import type { ReloadOutcome } from '@handover/core/internal'
import { vi } from 'vitest'
import { freePorts } from './ask.js'
import { FakeMachine, type FakeProcess } from './fake-host.js'
import { spawnOn } from './fake-spawn.js'
import { Keeper, ListenerMembers } from './internals.js'

export class FakeApp implements AsyncDisposable {
  readonly port: number
  readonly machine: FakeMachine
  /** The keeper's log. */
  readonly lines: string[] = []
  /** The status with which the keeper would have ended. */
  readonly ended: number[] = []
  /** Where the code of the next process is. */
  release = '/releases/1/server.mjs'
  readonly #keepers: Keeper[] = []
  readonly #putBack: () => void

  /** Its program serves at `port`. */
  static async make(): Promise<FakeApp> {
    return new FakeApp((await freePorts(1))[0]!)
  }

  private constructor(port: number) {
    this.port = port
    this.machine = new FakeMachine(async (process) => {
      process.generation.configure({ linger: 0 })
      await process.listen(process.serve(), port)
    })
    this.#putBack = spawnOn(this.machine)
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'] })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // From here on it starts nothing.
    for (const keeper of this.#keepers) {
      keeper.leave()
      keeper.members.close()
    }
    await this.machine[Symbol.asyncDispose]()
    await this.machine.settle()
    vi.useRealTimers()
    vi.restoreAllMocks()
    this.#putBack()
  }

  keep(workers: number): Keeper {
    const options: ConstructorParameters<typeof Keeper>[0] = {
      name: 'shop', version: '1.0.0', workers, hangTimeoutMs: 0, readyTimeoutMs: 60_000, spare: false, env: {},
      command: () => ({ file: 'node', args: ['server.mjs'], cwd: '/', notes: [], release: { file: this.release, id: this.release } }),
      log: (level, line) => { this.lines.push(`${level}: ${line}`) },
      handOver: () => Promise.reject(new Error('nobody asks')),
      served: () => undefined,
      reloads: () => undefined,
      ended: (status) => { this.ended.push(status) }
    }
    const keeper = new Keeper(options, new ListenerMembers())
    this.#keepers.push(keeper)
    return keeper
  }

  /** A keeper whose workers all serve. */
  async running(workers = 2): Promise<Keeper> {
    const keeper = this.keep(workers)
    await keeper.run()
    return keeper
  }

  processOf(number: number): FakeProcess {
    return this.machine.processes[number - 1]!
  }

  /** Resolves when this process is in that state. */
  async processIn(number: number, state: string): Promise<FakeProcess> {
    await this.advance(50)
    await this.machine.until(() => this.machine.processes[number - 1]?.state === state, `process ${number} in ${state}`)
    return this.processOf(number)
  }

  serving(keeper: Keeper): number[] {
    return keeper.servers.map(({ pid }) => this.machine.processes.find((process) => process.pid === pid)!.number)
  }

  /** The time of the keeper and of its workers. */
  async advance(ms: number): Promise<void> {
    const stepMs = 50
    await this.machine.settle()
    for (let left = ms; left > 0; left -= stepMs) {
      vi.advanceTimersByTime(Math.min(stepMs, left))
      await this.machine.advance(Math.min(stepMs, left))
    }
  }

  /** Lets time pass until this is done. */
  async done<T>(work: Promise<T>): Promise<T> {
    let isDone = false
    const settled = (): void => { isDone = true }
    work.then(settled, settled)
    for (let turns = 0; !isDone && turns < 1_000; turns++) await this.advance(50)
    return await work
  }

  async reload(keeper: Keeper): Promise<ReloadOutcome> {
    return await this.done(keeper.reloads.begin({ bakeMs: 0 }))
  }

  /** The keeper's own lines of this kind. */
  linesWith(text: string): string[] {
    return this.lines.filter((line) => line.includes(text))
  }
}
