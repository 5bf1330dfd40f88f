/**
 * Listeners that open late, listeners that only the new version has, and a process that needs its own listeners before it is ready: with
 * an adapter and under the command.
 */

import dgram from 'node:dgram'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { Keeping } from '../../helpers/keeping.js'
import { connects, freePorts, get } from '../../helpers/ask.js'
import { Folder } from '../../helpers/plan.js'
import { Program, programPath, waitFor, type ProgramEvent } from '../../helpers/program.js'

const host = '127.0.0.1'
const roofs = ['with an adapter', 'under the command'] as const

class App implements AsyncDisposable {
  readonly folder = new Folder()
  program!: Program
  #keeping: Keeping | undefined

  static async start(roof: (typeof roofs)[number], plan: object, env: Readonly<Record<string, string>> = {}, workers = 1): Promise<App> {
    const app = new App()
    app.next(plan)
    const all = { ...env, PLAN_FILE: app.folder.at('plan'), HANDOVER_LINGER: '200', HANDOVER_UNDO_WINDOW: '200' }
    if (roof === 'under the command') app.#keeping = await Keeping.start({ program: 'moments.cjs', env: all, workers })
    app.program = app.#keeping?.program ?? Program.start(programPath('moments.cjs'), { env: { ...all, ADAPTER: 'yes' } })
    return app
  }

  /** What the next version does. */
  next(plan: object): void {
    writeFileSync(this.folder.at('plan'), JSON.stringify({ gate: this.folder.at('gate'), ...plan }))
  }

  openGate(): void {
    writeFileSync(this.folder.at('gate'), '')
  }

  closeGate(): void {
    rmSync(this.folder.at('gate'))
  }

  /** Resolves with why it failed, or with the listeners of the report. */
  async reload(): Promise<string | { kept: string[]; added: string[]; dropped: string[] }> {
    if (!this.#keeping) {
      return await this.program.hangUp().then(
        ({ report }) => (report as { listeners: { kept: string[]; added: string[]; dropped: string[] } }).listeners,
        (error: Error) => error.message
      )
    }
    const { ok, error, reports } = await this.#keeping.reload('--bake', '0')
    const { kept, added, dropped } = reports.find(({ result }) => result === 'switched')?.listeners ?? { kept: [], added: [], dropped: [] }
    return ok ? { kept: [...kept], added: [...added], dropped: [...dropped] } : (error?.message ?? '')
  }

  /** Of the newest process, at most once for each address. */
  async opened(count: number, generation: number): Promise<number> {
    const found = (): ProgramEvent[] => this.program.events.filter((event) => event.event === 'open' && event.generation === generation)
    await this.program.until(() => found().length >= count)
    return found()[0]!.pid
  }

  /** How many workers have a checkpoint with their keeper. */
  async checkpoints(): Promise<number> {
    return (await this.#keeping!.status())?.keeper?.checkpoints.length ?? 0
  }

  async serves(): Promise<number[]> {
    return await this.#keeping!.serves()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (this.#keeping ?? this.program)[Symbol.asyncDispose]()
    this.folder[Symbol.dispose]()
  }
}

const answerer = async (port: number): Promise<number> => Number.parseInt((await get({ port, host })).body, 10)

test.for(roofs)('a listener that opens late is waited for, and the log says so, %s', async (roof) => {
  const [metrics, main] = await freePorts(2) as [number, number]
  const plan = { first: [{ port: metrics, host }], then: [{ port: main, host }] }
  await using app = await App.start(roof, plan, { HANDOVER_READY_TIMEOUT: '8000' })
  app.openGate()
  await app.opened(2, 1)
  await waitFor(async () => (await connects({ port: main })) === 'ok')
  app.closeGate()
  const reload = app.reload()
  await app.program.stderrMatching(new RegExp(`generation 2 .+ is not ready: it waits for its listen\\(\\) on tcp ${host}:${main}, which the version before listens on`))
  app.openGate()
  expect(await reload).toEqual({ kept: [`tcp ${host}:${metrics}`, `tcp ${host}:${main}`], added: [], dropped: [] })
})

test.for(roofs)('what a new version adds accepts and answers nothing before the commit, and nothing is left of it where that never comes, %s', async (roof) => {
  const [port, added, datagrams] = await freePorts(3) as [number, number, number]
  await using app = await App.start(roof, { first: [{ port, host }] })
  await app.opened(1, 1)
  const file = app.folder.at('added.sock')
  // It is not ready before it listens on what is kept.
  const plan = { first: [{ port: added, host }, { path: file }, { udp: datagrams }], then: [{ port, host }] }
  const socket = dgram.createSocket('udp4')
  for (const fails of [true, false]) {
    app.next({ ...plan, fails })
    const before = await answerer(port)
    const mark = app.program.events.length
    const reload = app.reload()
    await app.program.until(() => app.program.events.slice(mark).filter(({ event }) => event === 'open').length === 3)
    expect(await Promise.all([connects({ port: added }), connects(file)])).toEqual(['ECONNREFUSED', 'ECONNREFUSED'])
    await new Promise((resolve) => { socket.send(`fails: ${fails}`, datagrams, host, resolve) })
    expect(await answerer(port)).toBe(before)
    const pid = app.program.events.slice(mark).find(({ event }) => event === 'open')!.pid
    if (fails) {
      process.kill(pid, 'SIGUSR2')
      expect(await reload).toMatch(/ended with status 1|ended before it was ready, with status 1/)
      expect([await connects({ port: added }), existsSync(file), await answerer(port)]).toEqual(['ECONNREFUSED', false, before])
      continue
    }
    app.openGate()
    const listeners = await reload as { added: string[] }
    expect({ ...listeners, added: listeners.added.toSorted() }).toEqual({ kept: [`tcp ${host}:${port}`], added: [`tcp ${host}:${added}`, `udp ${host}:${datagrams}`, `unix ${file}`], dropped: [] })
    expect(await Promise.all([answerer(port), answerer(added)])).toEqual([pid, pid])
    expect(Number.parseInt((await get(file)).body, 10)).toBe(pid)
    expect(await app.program.event('got')).toMatchObject({ pid, message: 'fails: false', state: 'serving' })
  }
  socket.close()
})

test.for(roofs)('a UDP socket joins its multicast group in every generation and hears it, whatever the one before leaves, %s', async (roof) => {
  const [port, datagrams] = await freePorts(2) as [number, number]
  const group = '239.7.7.7'
  await using app = await App.start(roof, { first: [{ port, host }, { udp: datagrams, group }] })
  const sender = dgram.createSocket('udp4')
  onTestFinished(() => { sender.close() })
  await new Promise<void>((resolve) => { sender.bind(0, host, resolve) })
  sender.setMulticastInterface(host)
  for (const generation of [1, 2, 3]) {
    if (generation > 1) expect(await app.reload()).toEqual({ kept: expect.arrayContaining([`tcp ${host}:${port}`, `udp 0.0.0.0:${datagrams}`]) as unknown, added: [], dropped: [] })
    const pid = await app.opened(2, generation)
    if (generation > 1) await app.program.event('state', (event) => event.generation === generation - 1 && event['to'] === 'draining')
    sender.send(`to generation ${generation}`, datagrams, group)
    expect(await app.program.event('got', ({ message }) => message === `to generation ${generation}`)).toMatchObject({ pid })
  }
})

test('a program that tries each address of its port first, as detect-port and get-port do, finds it free in every generation', async () => {
  const [port] = await freePorts(1) as [number]
  const tries = [{ port }, { port, host: '0.0.0.0' }, { port, host }, { port, host: 'localhost' }]
  await using app = await App.start('under the command', { tries, first: [{ port }] })
  await app.opened(1, 1)
  for (const generation of [2, 3]) {
    expect(await app.reload()).toEqual({ kept: [expect.stringMatching(new RegExp(`:${port}$`))], added: [], dropped: [] })
    await app.opened(1, generation)
  }
  expect(app.program.events.filter(({ event }) => event === 'error')).toEqual([])
})

test('a new version may listen on another address of a port that the old one serves, and on addresses of one port that do not overlap', async () => {
  const [kept, port, other] = await freePorts(3) as [number, number, number]
  await using app = await App.start('with an adapter', { first: [{ port: kept, host }, { port, host: '0.0.0.0' }] })
  await app.opened(2, 1)
  const apart = [{ port: other, host: '::', ipv6Only: true }, { port: other, host: '0.0.0.0' }]
  app.next({ first: [{ port: kept, host }, { port, host }, ...apart] })
  const reload = app.reload()
  const successor = (await app.program.event('open', ({ generation }) => generation === 2)).pid
  await app.opened(4, 2)
  process.kill(successor, 'SIGUSR2')
  expect(await reload).toEqual({ kept: [`tcp ${host}:${kept}`], added: [`tcp ${host}:${port}`, `tcp [::]:${other}`, `tcp 0.0.0.0:${other}`], dropped: [`tcp 0.0.0.0:${port}`] })
  expect(await Promise.all([answerer(port), answerer(other)])).toEqual([successor, successor])
  expect(app.program.events.filter(({ event }) => event === 'error')).toEqual([])
})

test.for([1, 2])('where nobody serves any more, a worker that asks itself before it is ready comes back after a crash, with what was saved (%i workers)', async (workers) => {
  const [port] = await freePorts(1) as [number]
  const plan = { first: [{ port, host }], warms: port, memory: 'new' }
  await using app = await App.start('under the command', { ...plan, memory: 'saved' }, { HANDOVER_READY_WHEN: 'manual' }, workers)
  const before = await app.serves()
  const saved = async (): Promise<number> => (await app.checkpoints())
  await waitFor(async () => (await saved()) === workers)
  app.next(plan)
  const mark = app.program.events.length
  for (const pid of before) process.kill(pid, 'SIGKILL')
  await waitFor(async () => !(await app.serves()).some((pid) => before.includes(pid)))
  // What it answered itself: the state was there before it accepted.
  const warm = app.program.events.slice(mark).filter(({ event }) => event === 'warm')
  expect(warm.length).toBeGreaterThanOrEqual(workers)
  for (const { answer } of warm) expect(answer).toMatch(/ saved$/)
})
