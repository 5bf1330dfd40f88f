/**
 * The examples of shared state, as users copy them: real programs, real reloads. What they knew goes along, also what the predecessor
 * learns while it drains.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { startLoad, type LoadOptions } from '@handover/load'
import { expect, test } from 'vitest'
import { demoFile } from '../../helpers/built.js'
import { nothingLost } from '../../helpers/invariants.js'
import { Folder } from '../../helpers/plan.js'
import { Program, programPath } from '../../helpers/program.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))
const load: LoadOptions = { keepAlive: { clients: 4, thinkMs: 10 }, newConnections: { clients: 2, thinkMs: 20 } }

interface Answer {
  readonly status: number
  readonly pid: number
  readonly headers: http.IncomingHttpHeaders
  readonly body: Record<string, unknown>
}

/**
 * A client with one kept connection and the cookies of a browser: it stays with the process that it has reached for as long as that lets
 * it.
 */
class Browser implements Disposable {
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  readonly #port: number
  #cookie = ''

  constructor(port: number, cookie = '') {
    this.#port = port
    this.#cookie = cookie
  }

  /** The same person, on a connection of its own. */
  again(): Browser {
    return new Browser(this.#port, this.#cookie)
  }

  async ask(path: string, method = 'GET'): Promise<Answer> {
    const request = http.request({ port: this.#port, host: 'localhost', agent: this.#agent, path, method, headers: this.#cookie === '' ? {} : { cookie: this.#cookie } })
    const answer = await new Promise<http.IncomingMessage>((resolve, reject) => { request.once('response', resolve).once('error', reject).end() })
    const { statusCode: status = 0, headers } = answer
    const cookie = headers['set-cookie']?.[0]?.split(';')[0]
    if (cookie !== undefined) this.#cookie = cookie
    const text = Buffer.concat(await answer.toArray()).toString()
    return { status, pid: Number(headers['x-pid']), headers, body: text.startsWith('{') ? JSON.parse(text) as Record<string, unknown> : { text } }
  }

  [Symbol.dispose](): void {
    this.#agent.destroy()
  }
}

class Example implements AsyncDisposable {
  readonly program: Program
  readonly port: number

  private constructor(program: Program, port: number) {
    this.program = program
    this.port = port
  }

  static async start(name: string, env: Record<string, string> = {}): Promise<Example> {
    const program = Program.start(`examples/${name}/server.mjs`, {
      cwd: root,
      execArgv: ['--import', pathToFileURL(programPath('state-events.mjs')).href],
      env: { PORT: '0', HANDOVER_UNDO_WINDOW: '0', ...env }
    })
    const line = await program.until(() => program.lines.find((text) => text.includes('listening')))
    return new Example(program, Number(/port: (\d+)/.exec(line)?.[1] ?? /:(\d+)(?!.*:\d)/.exec(line)?.[1]))
  }

  browser(): Browser {
    return new Browser(this.port)
  }

  /** Resolves with the predecessor, which may drain still, and its successor. */
  async reload(): Promise<{ predecessor: number; successor: number }> {
    const { pid: predecessor, report } = await this.program.hangUp()
    const successor = (report as { successor: { pid: number } }).successor.pid
    await this.program.event('state', (event) => event.pid === successor && event['to'] === 'serving')
    return { predecessor, successor }
  }

  /** Its successor has all that it knew. */
  async ended(pid: number): Promise<void> {
    await this.program.event('report', ({ pid: by, report }) => {
      const { result, predecessor } = report as { result: string; predecessor: { pid: number } }
      return by !== pid && result === 'drained' && predecessor.pid === pid
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
  }
}

test(`a warm cache stays warm over ${reloads} reloads under load, and no request is lost`, async () => {
  await using example = await Example.start('cache')
  using browser = example.browser()
  const clients = startLoad({ host: 'localhost', port: example.port }, load)
  for (let index = 0; index < 200; index++) await browser.ask(`/items/of-before-${index}`)
  const first = example.program.pid
  for (let index = 0; index < reloads; index++) {
    const { predecessor, successor } = await example.reload()
    using other = example.browser()
    for (const id of [0, 77, 199]) expect(await other.ask(`/items/of-before-${id}`)).toMatchObject({ pid: successor, headers: { 'x-cache': 'hit' }, body: { loadedBy: first } })
    await example.ended(predecessor)
  }
  nothingLost(await clients.stop())
})

test('without the section the same cache is cold after a reload', async () => {
  await using example = await Example.start('cache', { SHARE: 'off' })
  using browser = example.browser()
  await browser.ask('/items/1')
  expect(await browser.ask('/items/1')).toMatchObject({ headers: { 'x-cache': 'hit' } })
  const { successor } = await example.reload()
  using other = example.browser()
  expect(await other.ask('/items/1')).toMatchObject({ pid: successor, headers: { 'x-cache': 'miss' } })
})

test('the demo ends with status 1 where the cache goes cold, and says so', async () => {
  const demo = spawn(process.execPath, [demoFile, '--app', 'cache', '--reloads', '1'], { cwd: root, env: { ...process.env, SHARE: 'off' } })
  const [output, [status]] = await Promise.all([demo.stdout.toArray(), once(demo, 'exit')])
  expect(Buffer.concat(output as Buffer[]).toString()).toMatch(/^the cache went cold in the reload to 1\.0\.1: hit rate \d+\.\d % before, \d+\.\d % after$/m)
  expect(status).toBe(1)
})

test('an item of the cache is fresh until the same moment after three reloads', async () => {
  await using example = await Example.start('cache', { TTL_MS: '60000' })
  using browser = example.browser()
  const freshUntil = async (who: Browser): Promise<number> => Number((await who.ask('/items/1')).headers['x-fresh-until'])
  const before = await freshUntil(browser)
  const reloadedAt = Date.now()
  for (let index = 0; index < 3; index++) await example.ended((await example.reload()).predecessor)
  using other = example.browser()
  const after = await freshUntil(other)
  expect((await other.ask('/items/1')).headers['x-cache']).toBe('hit')
  // A time to live that began again at a reload would differ by the start of two processes or more.
  expect(Math.abs(after - before)).toBeLessThan((Date.now() - reloadedAt) / 3)
})

const limiters = ['rate-limit-fastify', 'rate-limit-express'] as const

test.each(limiters)(`%s counts each request of ${reloads} reloads under load once, and loses none`, async (name) => {
  await using example = await Example.start(name, { LIMIT: '1000000' })
  const clients = startLoad({ host: 'localhost', port: example.port }, {
    keepAlive: { clients: 4, thinkMs: 10, path: '/limited' },
    newConnections: { clients: 2, thinkMs: 20, path: '/limited' }
  })
  for (let index = 0; index < reloads; index++) {
    const { answers } = clients.stats()
    const { predecessor } = await example.reload()
    await example.ended(predecessor)
    await clients.until((stats) => stats.answers > answers)
  }
  const result = await clients.stop()
  nothingLost(result)
  using browser = example.browser()
  const { headers } = await browser.ask('/limited')
  expect(1_000_000 - Number(headers['x-ratelimit-remaining'])).toBe(result.answers + 1)
})

test.each(limiters)('a client that %s limits stays limited over a reload, and is free when its window ends', async (name) => {
  using folder = new Folder()
  const start = Date.now()
  const clock = (ms: number): void => { writeFileSync(folder.at('clock'), String(start + ms)) }
  clock(0)
  await using example = await Example.start(name, { LIMIT: '3', CLOCK_FILE: folder.at('clock') })
  using browser = example.browser()
  for (const status of [200, 200, 200, 429]) expect(await browser.ask('/limited')).toMatchObject({ status })
  for (const at of [20_000, 40_000]) {
    clock(at)
    const { predecessor, successor } = await example.reload()
    await example.ended(predecessor)
    using other = example.browser()
    expect(await other.ask('/limited')).toMatchObject({ status: 429, pid: successor, headers: { 'retry-after': String(60 - at / 1000) } })
  }
  clock(59_999)
  using last = example.browser()
  expect(await last.ask('/limited')).toMatchObject({ status: 429, headers: { 'retry-after': '1' } })
  clock(60_000)
  expect(await last.ask('/limited')).toMatchObject({ status: 200, headers: { 'x-ratelimit-remaining': '2' } })
})

test.each(limiters)('what the predecessor of %s counts after its offer comes on top of what its successor has counted', async (name) => {
  await using example = await Example.start(name, { LIMIT: '20', HANDOVER_MOVE: 'off' })
  const stay = Array.from({ length: 3 }, () => example.browser())
  for (const browser of stay) await browser.ask('/limited')
  const { predecessor, successor } = await example.reload()
  using other = example.browser()
  expect(await other.ask('/limited')).toMatchObject({ pid: successor, headers: { 'x-ratelimit-remaining': '16' } })
  // Each tells its client to leave, and with the last of them the predecessor has ended.
  for (const browser of stay) expect(await browser.ask('/limited')).toMatchObject({ pid: predecessor, headers: { connection: 'close' } })
  await example.ended(predecessor)
  expect(await other.ask('/limited')).toMatchObject({ pid: successor, headers: { 'x-ratelimit-remaining': '12' } })
})

test.each(limiters)('of two windows that began on both sides of the switch, %s keeps the one that ends first, with the counts of both', async (name) => {
  using folder = new Folder()
  const start = Date.now()
  const clock = (ms: number): void => { writeFileSync(folder.at('clock'), String(start + ms)) }
  clock(0)
  await using example = await Example.start(name, { LIMIT: '20', HANDOVER_MOVE: 'off', CLOCK_FILE: folder.at('clock') })
  using stays = example.browser()
  await stays.ask('/')
  const { predecessor, successor } = await example.reload()
  expect(await stays.ask('/limited')).toMatchObject({ pid: predecessor, headers: { 'x-ratelimit-remaining': '19' } })
  clock(10_000)
  using other = example.browser()
  await other.ask('/limited')
  await example.ended(predecessor)
  expect(await other.ask('/limited')).toMatchObject({ pid: successor, headers: { 'x-ratelimit-remaining': '17' } })
  clock(60_000)
  expect(await other.ask('/limited')).toMatchObject({ headers: { 'x-ratelimit-remaining': '19' } })
})

test(`a session stays logged in over ${reloads} reloads under load, and no request is lost`, async () => {
  await using example = await Example.start('session')
  using ada = example.browser()
  await ada.ask('/login/ada', 'POST')
  const clients = startLoad({ host: 'localhost', port: example.port }, load)
  for (let index = 0; index < reloads; index++) {
    const { predecessor, successor } = await example.reload()
    using again = ada.again()
    expect(await again.ask('/')).toMatchObject({ pid: successor, body: { user: 'ada' } })
    await example.ended(predecessor)
    expect(await again.ask('/')).toMatchObject({ pid: successor, body: { user: 'ada' } })
  }
  nothingLost(await clients.stop())
})

test('sessions that are created, changed and destroyed while the predecessor drains are so in the successor', async () => {
  await using example = await Example.start('session', { HANDOVER_MOVE: 'off' })
  const names = ['created', 'changed', 'destroyed', 'destroyed-here', 'changed-here', 'seen-here'] as const
  const people = Object.fromEntries(names.map((name) => [name, example.browser()])) as Record<typeof names[number], Browser>
  for (const name of names) await (name === 'created' ? people[name].ask('/') : people[name].ask(`/login/${name}`, 'POST'))
  const { predecessor, successor } = await example.reload()
  const here = Object.fromEntries(names.map((name) => [name, people[name].again()])) as typeof people
  const at = (pid: number, user?: string): object => ({ pid, body: { user } })

  // In the successor, on new connections.
  expect(await here['destroyed-here'].ask('/logout', 'POST')).toMatchObject({ pid: successor, status: 200 })
  expect(await here['changed-here'].ask('/login/new', 'POST')).toMatchObject(at(successor, 'new'))
  expect(await here['seen-here'].ask('/')).toMatchObject(at(successor, 'seen-here'))
  // In the predecessor, each on its old connection, after which that is closed.
  expect(await people.created.ask('/login/created', 'POST')).toMatchObject(at(predecessor, 'created'))
  expect(await people.changed.ask('/login/changed-there', 'POST')).toMatchObject(at(predecessor, 'changed-there'))
  expect(await people.destroyed.ask('/logout', 'POST')).toMatchObject({ pid: predecessor, status: 200 })
  // Seen only: its cookie has more time, and that is no reason to come back.
  expect(await people['destroyed-here'].ask('/')).toMatchObject(at(predecessor, 'destroyed-here'))
  expect(await people['changed-here'].ask('/')).toMatchObject(at(predecessor, 'changed-here'))
  expect(await people['seen-here'].ask('/login/seen-there', 'POST')).toMatchObject(at(predecessor, 'seen-there'))
  await example.ended(predecessor)

  expect(await people.created.ask('/')).toMatchObject(at(successor, 'created'))
  expect(await people.changed.ask('/')).toMatchObject(at(successor, 'changed-there'))
  expect((await people.destroyed.ask('/')).body).toEqual({ version: expect.any(String) as string })
  expect((await people['destroyed-here'].ask('/')).body).toEqual({ version: expect.any(String) as string })
  expect(await people['changed-here'].ask('/')).toMatchObject(at(successor, 'new'))
  expect(await people['seen-here'].ask('/')).toMatchObject(at(successor, 'seen-there'))
  for (const browser of [...Object.values(people), ...Object.values(here)]) browser[Symbol.dispose]()
})
