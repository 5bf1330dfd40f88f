/**
 * An episode of chaos: a service under load, to which the steps of a plan happen, one after the other; then the promises are looked at,
 * each without what the episode itself took away (ledger.ts).
 */

import { nowMs, startLoad, type LoadOptions, type LoadResult } from '@handover/load'
import { expect } from 'vitest'
import { nothingLost, portNeverClosed } from '../helpers/invariants.js'
import { exists, waitFor } from '../helpers/program.js'
import { Chatters } from './clients.js'
import { Ledger, resume, suspend } from './ledger.js'
import { described, type Plan, type Step, type Trigger, type Victim } from './plan.js'
import { Service } from './service.js'

const traffic: LoadOptions = {
  keepAlive: [{ clients: 2, thinkMs: 5 }, { clients: 6, thinkMs: 20 }, { clients: 8, thinkMs: 400 }],
  newConnections: { clients: 2, thinkMs: 10 },
  slow: { clients: 2, ms: 150 },
  post: [{ clients: 2, pauseMs: 20 }, { clients: 3, bytes: 200, pauseMs: 0, thinkMs: 50 }],
  stream: { clients: 2, chunks: 5, ms: 25 }
}

const after = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export async function runEpisode(plan: Plan): Promise<void> {
  await using service = await Service.start(plan.roof)
  const beganMs = nowMs()
  const load = startLoad(service.target, { ...traffic, seed: plan.seed })
  const chatters = new Chatters(service.target, 3)
  try {
    await load.until(({ answers }) => answers > 100)
    await waitFor(() => chatters.echoes > 5)
    const episode = new Episode(service, chatters)
    for (const step of plan.steps) {
      await episode.take(step)
      await episode.settle()
    }
    // Whatever happened: the next reload works, and who serves then answers.
    const last = await service.reload('command')
    expect(last.ok, `a reload after all of it: ${last.said}`).toBe(true)
    const pids = await service.serving()
    await load.until(({ versions }) => pids.every((pid) => versions.some((seen) => seen.pid === pid)), 60_000)
    await chatters.stop()
    holds(plan, await load.stop(), beganMs, chatters, episode.ledger)
    expect(await service.stop()).toMatchObject({ status: 0 })
    await waitFor(() => service.left.length === 0)
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${described(plan)}\nrepeat it: npm run chaos -- --seed ${plan.seed} --episodes 1\nits log:\n${service.stderr}`, { cause: error })
  } finally {
    await chatters.stop()
    await load.stop()
  }
}

/** The promises about requests and connections. */
function holds({ roof, steps }: Plan, result: LoadResult, beganMs: number, { breaks, wrong }: Chatters, ledger: Ledger): void {
  nothingLost({ ...result, losses: result.losses.filter(({ atMs, afterMs, reason, localPort }) => !ledger.explains(
    { begunMs: beganMs + atMs - afterMs, atMs: beganMs + atMs, reason, port: localPort }
  )) })
  if (roof.keeper && !steps.some((step) => step.do === 'stop and start')) portNeverClosed(result)
  expect(
    { breaks: breaks.filter(({ begunMs, atMs, how, port }) => !ledger.explains({ begunMs, atMs, reason: how, port })), wrong }, ledger.text
  ).toEqual({ breaks: [], wrong: [] })
}

class Episode {
  readonly ledger = new Ledger()
  readonly #service: Service
  readonly #chatters: Chatters

  constructor(service: Service, chatters: Chatters) {
    this.#service = service
    this.#chatters = chatters
  }

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case 'reload': return await this.#reload(step.by)
      case 'bad build': return await this.#badBuild(step.build, step.by)
      case 'kill in a reload': return await this.#inReload(step.victim, step.afterMs, async (pid) => { await this.#kill(pid, step.victim) })
      case 'kill': return await this.#kill(await this.#outside(step.victim), step.victim)
      case 'pause in a reload': return await this.#inReload(step.victim, step.afterMs, async (pid) => { await pause(pid, step.forMs) })
      case 'pause': return await pause(await this.#outside(step.victim), step.forMs)
      case 'undo': return await this.#undo()
      case 'stop and start': return await this.#stopAndStart()
    }
  }

  /**
   * Until everything serves again, as whoever looks after the service would have it: a keeper that is gone is started, and so is a service
   * without one.
   */
  async settle(): Promise<void> {
    const service = this.#service
    service.behave('ok')
    if (service.roof.keeper) {
      if (service.keeper === undefined) await service.begin()
    } else {
      // One that boots as the successor of a process that was killed may still come to serve.
      await waitFor(async () => service.left.length === 0 || await service.answers())
      if (service.left.length === 0) await this.ledger.outage(() => service.begin())
    }
    await service.serving()
  }

  async #outside(victim: 'server' | 'keeper'): Promise<number> {
    return victim === 'keeper' ? this.#service.keeper! : (await this.#service.serving())[0]!
  }

  async #kill(pid: number, what: string): Promise<void> {
    const service = this.#service
    const others = service.holders.filter((holder) => holder !== pid)
    const killedMs = await this.ledger.kill(pid, what, service.target)
    // Nobody else has the port: it is gone with this process until somebody starts the service again.
    if (killedMs !== undefined && others.length === 0) await this.ledger.outage(() => this.settle(), killedMs)
  }

  async #reload(by: Trigger): Promise<void> {
    const service = this.#service
    if (by === 'started again') {
      const before = await service.serving()
      await service.begin()
      // The old process accepts until it has heard that the new one does.
      await waitFor(async () => (await service.serving()).join() !== before.join())
    } else if (by === 'two at once') {
      const outcomes = await Promise.all([service.reload('command'), service.reload('command')])
      expect(outcomes.some(({ ok }) => ok), JSON.stringify(outcomes)).toBe(true)
      for (const { ok, said } of outcomes) if (!ok) expect(said).toMatch(/HANDOVER_RELOAD_RUNNING/)
    } else if (by === 'another keeper') {
      const { keeper } = service
      const { status, stderr } = await service.ask('--keeper').ended
      expect(status, stderr).toBe(0)
      await waitFor(() => service.keeper !== undefined && service.keeper !== keeper)
    } else {
      const outcome = await service.reload(by)
      expect(outcome.ok, outcome.said).toBe(true)
    }
  }

  /** 2. A failed reload changes nothing. */
  async #badBuild(build: string, by: 'signal' | 'command'): Promise<void> {
    const service = this.#service
    const before = (await service.serving()).toSorted()
    service.behave(build)
    const outcome = await service.reload(by)
    service.behave('ok')
    expect(outcome.ok, outcome.said).toBe(false)
    expect((await service.serving()).toSorted()).toEqual(before)
  }

  /** Does something to a process that takes part in a reload, at some moment of it. What becomes of the reload is not said here. */
  async #inReload(victim: Victim, afterMs: number, act: (pid: number) => Promise<void>): Promise<void> {
    const service = this.#service
    const predecessors = await service.serving()
    const before = new Set(service.left)
    const command = service.ask()
    await after(afterMs)
    const successors = service.left.filter((pid) => !before.has(pid) && pid !== command.child.pid)
    const spare = service.left.find((pid) => service.isSpare(pid) && !predecessors.includes(pid))
    const { keeper } = service
    const pid = { keeper, predecessor: predecessors[0], successor: successors[0], spare, command: command.child.pid }[victim]
    if (pid !== undefined && exists(pid)) await act(pid)
    await command.ended
  }

  /** 5. A reload can be undone: the successor dies when it has just begun to serve. */
  async #undo(): Promise<void> {
    const service = this.#service
    const before = new Set(service.left)
    const outcome = await service.reload('command')
    expect(outcome.ok, outcome.said).toBe(true)
    const successor = (await service.serving()).find((pid) => !before.has(pid))
    if (successor !== undefined) await this.#kill(successor, 'successor that serves')
  }

  async #stopAndStart(): Promise<void> {
    const service = this.#service
    // A stop waits for WebSockets that nobody can take, up to its deadline.
    await this.#chatters.leave(() => this.ledger.outage(async () => {
      const { status, stderr } = await service.stop()
      expect(status, stderr).toBe(0)
      await waitFor(() => service.left.length === 0)
      await service.begin()
    }))
  }
}

async function pause(pid: number, ms: number): Promise<void> {
  if (!await suspend(pid)) return
  try {
    await after(ms)
  } finally {
    resume(pid)
  }
}
