/**
 * Reloads of `handover run` to builds that are bad in every way: the reason is told, the old workers serve on, and the strict client
 * notices nothing.
 */

import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import net from 'node:net'
import type { ReloadOutcome } from '@handover/core/internal'
import type { Load } from '@handover/load'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connects, freePorts, get } from '../helpers/ask.js'
import { lastLine } from '../helpers/command.js'
import { childrenOf, nothingLost, portNeverClosed, traffic } from '../helpers/invariants.js'
import { Folder } from '../helpers/plan.js'
import { waitFor } from '../helpers/program.js'
import { Keeping } from '../helpers/keeping.js'
import { KeptApp } from '../helpers/kept-app.js'

interface Bad {
  readonly what: string
  readonly behaviour: string
  readonly words?: readonly string[]
  /** In what the command says. */
  readonly says: RegExp
  /** Some of its workers had served, and came back: their connections may have been ended politely. */
  readonly served?: boolean
}

const builds: Bad[] = [
  { what: 'that does not parse', behaviour: 'syntax-error', says: /\(HANDOVER_SUCCESSOR_EXIT\): process \d+ \(generation \d+\) ended before it was ready, with status 1\.[^]*SyntaxError/ },
  { what: 'that throws at boot', behaviour: 'throw', says: /ended before it was ready, with status 1\.[^]*Error: this build throws at boot/ },
  { what: 'that ends with status 0', behaviour: 'exit:0', says: /ended before it was ready, with status 0\./ },
  { what: 'that listens on another port', behaviour: 'port:ANOTHER', says: /listens on tcp 127\.0\.0\.1:ANOTHER and no more on tcp 127\.0\.0\.1:\d+, which is served now\. If that is meant, reload with --allow-drop/ },
  { what: 'whose port is in use', behaviour: 'also:TAKEN', says: /cannot serve: listen EADDRINUSE: address already in use 127\.0\.0\.1:TAKEN/ },
  { what: 'whose probe is answered with 500', behaviour: 'health:500', words: ['--probe', '/healthz'], says: /cannot serve: the probe GET \/healthz was answered 500, which is not 2xx/ },
  { what: 'whose probe is answered with a redirect', behaviour: 'health:302', words: ['--probe', '/healthz'], says: /the probe GET \/healthz was answered 302, which is not 2xx/ },
  { what: 'that crashes in the probe', behaviour: 'health:crash', words: ['--probe', '/healthz'], says: /(ended before it was ready, with status 9|the probe GET \/healthz was (closed without an answer|reset))/ },
  { what: 'that crashes as it begins to serve', behaviour: 'crash-after:0', served: true, says: /process \d+ \(generation \d+\) (died within the undo window|ended|before it served)/ },
  { what: 'that crashes a second after it began to serve', behaviour: 'crash-after:1000', served: true, says: /process \d+ \(generation \d+\) (died within the undo window|ended)[^]*this build crashes while it serves/ }
]

const slow: Bad[] = [
  { what: 'that never listens', behaviour: 'never-listens', says: /did not become ready within 7000 ms and was (killed|told to end)\./ },
  { what: 'that blocks its event loop at boot', behaviour: 'hang', says: /did not become ready within 7000 ms and was (killed|told to end)\./ },
  { what: 'that never says it is ready', behaviour: 'manual', says: /did not become ready within 7000 ms and was (killed|told to end)\./ }
]

/** Under this load, which must not notice. Where a successor has served, what it had begun may be lost with it. */
async function changesNothing(app: Keeping, load: Load, { behaviour, words = [], says, served = false }: Bad): Promise<void> {
  const before = await app.serves()
  await app.onlyLives(before)
  const { lost, closedByServer: closed } = load.stats()
  app.behave(behaviour)
  const { stdout, stderr, status } = await app.run('reload', ...words)
  app.behave('ok')
  expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(says) })
  expect(stderr).toMatch(/^handover: the reload failed \(HANDOVER_/)
  expect(stderr, 'its last words').toContain(`this build is bad: ${behaviour}`)
  expect(stderr, 'who serves now').toMatch(new RegExp(`[Pp]rocess ${before[0]} \\(generation \\d+\\)[^]*serv`))
  expect(stderr, 'who does not').not.toMatch(/Nobody serves|generation 0/)
  expect(stderr, 'what to do').toMatch(/(\n {2}|\. )(Repair|Raise|If that is meant)/)
  expect(stdout).not.toMatch(/ in place of /)
  expect(await app.serves()).toEqual(before)
  await app.onlyLives(before)
  const { answers } = load.stats()
  await load.until((stats) => stats.answers > answers + 50)
  if (!served) expect({ lost: load.stats().lost, closed: load.stats().closedByServer }).toEqual({ lost, closed })
}

describe.each([1, 4])('with %i workers', (workers) => {
  let app: Keeping
  let load: Load
  let another: number
  const taken = net.createServer()

  beforeAll(async () => {
    await once(taken.listen(0, '127.0.0.1'), 'listening')
    ;[another] = await freePorts(1) as [number]
    app = await Keeping.start({ workers, options: { readyTimeout: 20_000 } })
    load = app.load()
    await load.until(({ answers }) => answers > 50)
  })
  afterAll(async () => {
    await app[Symbol.asyncDispose]()
    taken.close()
  })

  const fill = (text: string): string => text.replaceAll('ANOTHER', String(another)).replaceAll('TAKEN', String((taken.address() as net.AddressInfo).port))

  // What several workers change is how much is taken back: one build of each sort.
  it.each(builds.filter((_, index) => workers === 1 || index % 3 === 0))('a reload to a build $what ends with 1 and the reason; those who served serve on, and no client notices', async (bad) => {
    await changesNothing(app, load, { ...bad, behaviour: fill(bad.behaviour), says: new RegExp(fill(bad.says.source)) })
  })

  it('a good reload works after all of them', async () => {
    const before = await app.serves()
    const outcome = await app.reload('--probe', '/healthz', '--bake', '300ms', '--wait')
    expect(outcome).toMatchObject({ ok: true, switched: before.map((pid, slot) => ({ slot, from: { pid } })) })
    const after = await app.serves()
    expect(outcome.serving.map(({ pid }) => pid)).toEqual(after)
    await app.onlyLives(after)
    // A process that crashes takes with it what it had begun; nothing else is lost.
    const { losses } = await load.stop()
    expect(losses.filter(({ reason }) => !['closed', 'reset', 'cut'].includes(reason))).toEqual([])
  })
})

// These wait for something, most of the time: they do it together.
describe.concurrent('past readyTimeout', () => {
  it.each([...slow.map((bad) => ({ workers: 1, ...bad })), { workers: 4, ...slow[0]! }])('a reload of $workers to a build $what is given up; those who served serve on, and no client notices', async ({ workers, ...bad }) => {
    await using app = await Keeping.start({ workers, options: { readyTimeout: 7_000 } })
    const load = app.load()
    await load.until(({ answers }) => answers > 50)
    await changesNothing(app, load, bad)
    nothingLost(await load.stop())
  })
})

/** What is taken back must drain before a test is over. */
const soon = { linger: 300 }

describe.concurrent('all or nothing', () => {
  it('a build that fails in the third of four workers is taken back from the first two, while connections move and requests run: all four old ones serve', async () => {
    // On a busy machine a client may take longer than `soon` to ask again, and write when its connection has just been closed.
    await using app = await Keeping.start({ workers: 4, options: { linger: 5_000 } })
    const before = await app.serves()
    const load = app.load({ ...traffic, keepAlive: { clients: 20, thinkMs: 20 }, slow: { clients: 6, ms: 200 } })
    await load.until(({ answers }) => answers > 100)
    app.behave('boots:2:throw')
    const { stderr, status } = await app.run('reload', '--bake', '0')
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/ended before it was ready, with status 1\.[^]*Error: this build throws at boot/) })
    expect(stderr).not.toMatch(/NOT taken back/)
    expect(await app.serves()).toEqual(before)
    await app.onlyLives(before)
    const { answers } = load.stats()
    await load.until((stats) => stats.answers > answers + 100)
    nothingLost(await load.stop())
    app.behave('ok')
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
  })

  it('a clock that is set forward while the new version boots leaves its probe as much time as before', async () => {
    using folder = new Folder()
    const [clock, forward] = [folder.at('clock.cjs'), folder.at('forward')]
    writeFileSync(clock, `const { existsSync } = require('node:fs'), { now } = Date\nDate.now = () => now() + (existsSync(${JSON.stringify(forward)}) ? 3_600_000 : 0)`)
    writeFileSync(folder.at('server.cjs'), "require('node:http').createServer((_, response) => { setTimeout(() => { response.end() }, 1_000) }).listen(process.env.PORT)")
    await using app = await KeptApp.start(folder.at('server.cjs'), { env: { NODE_OPTIONS: `--require ${clock}` } })
    const reload = app.begin('reload', '--probe', '/', '--bake', '0')
    await waitFor(() => childrenOf(app.program.pid).length === 2)
    writeFileSync(forward, '')
    expect(await reload.ended).toMatchObject({ stderr: '', status: 0 })
  })

  it('a request that runs in a canary is answered by it although the canary is taken back', async () => {
    await using app = await Keeping.start({ options: soon })
    const [old] = await app.serves()
    app.behave('health:late:2000')
    const reload = app.begin('reload', '--probe', '/healthz', '--bake', '20s')
    await waitFor(() => reload.output.stdout.includes('watching it'))
    const { pid: canary } = await app.program.event('state', ({ to, pid }) => to === 'serving' && pid !== old)
    const held = get(app.target, '/held')
    await app.program.event('held', ({ pid }) => pid === canary)
    const { status, stderr } = await reload.ended
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/served, and is taken back: the probe GET \/healthz was answered 500/) })
    expect(stderr).toMatch(new RegExp(`Process ${old} \\(generation 1\\) serves\\.`))
    expect(await app.serves()).toEqual([old])
    process.kill(canary, 'SIGUSR2')
    expect((await held).status).toBe(200)
    await app.onlyLives([old!])
  })

  it('a canary that answers three in ten with 500 is taken back, and its answers are all that a client sees of it', async () => {
    await using app = await Keeping.start({ workers: 2, options: soon })
    const before = await app.serves()
    const load = app.load({ keepAlive: { clients: 10, thinkMs: 10 }, newConnections: { clients: 2, thinkMs: 5 } })
    await load.until(({ answers }) => answers > 100)
    app.behave('fail:30')
    const { status, stderr } = await app.run('reload', '--canary', '1', '--bake', '20s')
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/is taken back: \d+ of its \d+ answers had a status of 500 or more \(before: 0\.0 %\)/) })
    expect(stderr).toContain('this build is bad: fail:30')
    expect(await app.serves()).toEqual(before)
    await app.onlyLives(before)
    const { losses } = await load.stop()
    expect(losses.filter(({ reason }) => reason !== 'status')).toEqual([])
  })
})

describe.concurrent('the probe', () => {
  it.each(['http', 'https', 'http2', 'http2-tls'])('lets a good successor that speaks %s through, and holds a bad one back', async (kind) => {
    await using app = await Keeping.start({ env: { KIND: kind } })
    const [first] = await app.serves()
    app.behave('health:500')
    const bad = await app.reload('--probe', '/healthz', '--bake', '0')
    expect(bad).toMatchObject({ ok: false, switched: [], serving: [{ pid: first }], error: { message: expect.stringMatching(/the probe GET \/healthz was answered 500, which is not 2xx/) } })
    app.behave('health:404')
    expect(await app.run('reload', '--probe', '/healthz', '--bake', '0')).toMatchObject({ status: 1, stderr: expect.stringMatching(/the probe GET \/healthz was answered 404/) })
    app.behave('health:200')
    expect(await app.reload('--probe', '/healthz', '--bake', '0')).toMatchObject({ ok: true, switched: [{ slot: 0, from: { pid: first, generation: 1 }, to: { generation: 2 } }] })
  })

  it('that hangs is given up before readyTimeout, and is told as the reason', async () => {
    await using app = await Keeping.start({ options: { readyTimeout: 5_000 }, env: { HANDOVER_READY_TIMEOUT: '5000' } })
    const before = await app.serves()
    app.behave('health:hang')
    const { status, stderr } = await app.run('reload', '--probe', '/healthz')
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/the probe GET \/healthz was not answered within \d+ ms/) })
    expect(await app.serves()).toEqual(before)
    await app.onlyLives(before)
  })

  it('of a server that speaks no HTTP has nowhere to go', async () => {
    await using app = await Keeping.start({ env: { KIND: 'net' } })
    expect(await app.run('reload', '--probe', '/', '--bake', '0')).toMatchObject({ status: 1, stderr: expect.stringMatching(/the probe GET \/ has nowhere to go: no listener speaks HTTP/) })
  })
})

describe.concurrent('what a reload is asked for', () => {
  it('--allow-drop lets a build through that listens elsewhere; the old port closes when the reload is done', async () => {
    await using app = await Keeping.start({ workers: 2 })
    const [port] = await freePorts(1)
    app.behave(`port:${port}`)
    const outcome = await app.reload('--allow-drop', '--bake', '0', '--wait')
    expect(outcome).toMatchObject({ ok: true, reports: expect.arrayContaining([expect.objectContaining({ listeners: { kept: [], added: [`tcp 127.0.0.1:${port}`], dropped: [`tcp 127.0.0.1:${app.target.port}`] } })]) })
    expect(await connects({ port: port! })).toBe('ok')
    expect(await connects({ port: app.target.port })).toBe('ECONNREFUSED')
  })

  it('--wait ends when the old processes have, and no sooner', async () => {
    await using app = await Keeping.start()
    const [old] = await app.serves()
    const held = get(app.target, '/held')
    await app.program.event('held')
    const reload = app.begin('reload', '--wait', '--bake', '0')
    await waitFor(() => reload.output.stdout.includes('waiting until the old generations have ended'))
    expect(reload.child.exitCode).toBe(null)
    process.kill(old!, 'SIGUSR2')
    expect((await held).status).toBe(200)
    expect(await reload.ended).toMatchObject({ status: 0 })
    expect(app.program.alive).not.toContain(old)
  })

  it('the last line of --json tells all of a reload in one object, of one that worked and of one that failed', async () => {
    await using app = await Keeping.start({ env: { HANDOVER_VERSION: '7.0.1' } })
    const [first] = await app.serves()
    const good = await app.run('reload', '--json', '--bake', '0')
    expect(good).toMatchObject({ status: 0, stderr: '' })
    const outcome = lastLine(good.stdout) as ReloadOutcome
    expect(Object.keys(outcome).sort()).toEqual(['at', 'ms', 'ok', 'reports', 'serving', 'switched'])
    expect(outcome).toEqual({
      ok: true, at: expect.any(Number), ms: expect.any(Number), reports: [expect.objectContaining({ result: 'switched', trigger: 'keeper' })],
      switched: [{ slot: 0, from: { pid: first, generation: 1 }, to: { pid: expect.any(Number), generation: 2 }, version: '7.0.1' }], serving: [{ pid: outcome.switched[0]!.to.pid, generation: 2 }]
    })
    app.behave('throw')
    const bad = await app.run('reload', '--json')
    expect(bad.status).toBe(1)
    const failed = lastLine(bad.stdout) as ReloadOutcome
    const { what = '', serving = '', todo = '' } = failed.error ?? {}
    expect(what).toMatch(/^process \d+ \(generation 3\) ended before it was ready, with status 1$/)
    expect(serving).toMatch(new RegExp(`^Process ${outcome.serving[0]!.pid} \\(generation 2\\) serves .*\\.$`))
    expect(todo).toBe('Repair the build and reload again')
    expect(failed).toEqual({
      ok: false, at: expect.any(Number), ms: expect.any(Number), reports: [], switched: [], serving: outcome.serving,
      error: {
        code: 'HANDOVER_SUCCESSOR_EXIT',
        message: `${what}.\n  ${serving}\n  ${todo}.`,
        what,
        serving,
        todo,
        stderr: expect.stringMatching(/this build is bad: throw[^]*Error: this build throws at boot/)
      }
    })
  })

  it('a second reload while one runs is refused in one line, and changes nothing of the first', async () => {
    await using app = await Keeping.start()
    let second = { stdout: '', stderr: '', status: 0 as number | null }
    // On a busy machine the first may be over before the second is asked for: then once more, for longer.
    for (let seconds = 4; second.status === 0 && seconds < 60; seconds *= 3) {
      const first = app.begin('reload', '--bake', `${seconds}s`)
      await waitFor(() => first.output.stdout.includes('watching it'))
      second = await app.run('reload', '--bake', '0')
      expect(await first.ended).toMatchObject({ status: 0 })
    }
    expect(second).toMatchObject({ stdout: '', status: 1, stderr: expect.stringMatching(/^handover: a reload already runs\. Process \d+ \(generation \d+\) serves [^\n]+ Wait for its report\. \(HANDOVER_RELOAD_RUNNING\)\n$/) })
  })

  it('a worker that is asked for a reload, by its signal or by its own code, asks the keeper', async () => {
    await using app = await Keeping.start({ workers: 2, env: { OPTIONS: JSON.stringify({ linger: 100 }) } })
    const before = await app.serves()
    const answer = await get(app.target, '/reload')
    expect({ status: answer.status, report: JSON.parse(answer.body) as unknown }).toMatchObject({ status: 200, report: { trigger: 'keeper', successor: { generation: 2 } } })
    const second = await app.serves()
    expect(second).not.toEqual(expect.arrayContaining([before[0]]))
    process.kill(second[1]!, 'SIGHUP')
    await waitFor(async () => (await app.status())?.lastReload?.switched[0]?.to.generation === 3)
    app.behave('throw')
    const refused = await get(app.target, '/reload')
    expect({ status: refused.status, error: JSON.parse(refused.body) as unknown }).toMatchObject({ status: 409, error: { code: 'HANDOVER_SUCCESSOR_EXIT' } })
  })
})

describe.concurrent('a predecessor', () => {
  it.each([['before its offer', 'taking'], ['after its offer', 'preparing'], ['when the successor is ready', 'ready'], ['when the successor serves', 'serving']])('that is killed %s takes nothing with it but itself: a new worker serves, and no connect is refused', async (_when, state) => {
    await using app = await Keeping.start({ workers: 2, options: soon })
    const before = await app.serves()
    const load = app.load({ newConnections: { clients: 4, thinkMs: 3 } })
    await load.until(({ answers }) => answers > 50)
    app.behave(`kills:${before[0]}@${state}`)
    const { status, stderr, stdout } = await app.run('reload', '--bake', '0')
    app.behave('ok')
    if (status !== 0) expect(stderr).toMatch(/^handover: the reload failed \(HANDOVER_[^]*Process \d+ \(generation \d+\)/)
    else expect(stdout).toMatch(/slot 0: generation 2/)
    const after = await app.serves()
    expect(after).not.toContain(before[0])
    await app.onlyLives(after)
    expect(await app.reload('--bake', '0', '--wait')).toMatchObject({ ok: true })
    portNeverClosed(await load.stop())
  })
})
