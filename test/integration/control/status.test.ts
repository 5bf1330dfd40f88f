/** `handover status`: every generation that lives, put together to apps. */

import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import type { AppStatus, KeeperStatus, ProcessStatus } from '@handover/core/internal'
import { chooseApp, coreFile, describeApps, group } from '../../helpers/internals.js'
import { get, getHttp2 } from '../../helpers/ask.js'
import { Place, portOf } from '../../helpers/command.js'
import { Program, waitFor } from '../../helpers/program.js'

const only = <T>(list: readonly T[]): T => {
  expect(list).toHaveLength(1)
  return list[0]!
}

describe('of a process without a keeper', () => {
  it('shows what it is, what it has open, and what it answered', async () => {
    await using place = new Place()
    const program = await place.start({ name: 'shop', env: { HANDOVER_VERSION: '2.4.1', SECRET_VARIABLE: 'secret-value' }, args: ['--secret-argument'] })
    const port = portOf(program)
    await get({ port })
    await get({ port }, '/fail')
    const upgraded = net.connect(port, '127.0.0.1')
    upgraded.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
    await once(upgraded, 'data')
    const slow = get({ port }, '/slow?token=secret-token')
    await program.event('slow')
    const app = only(await place.status())
    expect(app).toMatchObject({ name: 'shop', keeper: null, lastReload: null })
    const status = only(app.processes)
    expect(status).toMatchObject({
      pid: program.pid, generation: 1, state: 'serving', name: 'shop', keeper: null, slot: null, version: '2.4.1', node: process.versions.node, listeners: [`tcp 127.0.0.1:${port}`],
      connections: { http: 1, upgraded: 1 }, requests: { inFlight: 1, total: 3, failed: 1 }, waitsFor: [], endsInMs: null, lastReport: null
    })
    expect(status.memory).toBeGreaterThan(10_000_000)
    expect(status.ageMs).toBeGreaterThan(0)
    expect(only(only(await place.status('shop')).processes).loopDelayMs).toEqual(expect.any(Number))
    const { stdout, status: exit } = await place.run('status')
    expect(exit).toBe(0)
    expect(stdout).toMatch(/^shop\n {2}listens +tcp 127\.0\.0\.1:\d+\n/)
    expect(stdout).toMatch(new RegExp(`${program.pid} +1 +serving +2\\.4\\.1 .*\\n +1 http, 1 upgraded · 3 requests · 1 failed · Node`))
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
    expect(stdout).not.toContain('\u{1b}')
    for (const text of [stdout, JSON.stringify(app)]) expect(text).not.toMatch(/secret|SECRET|command\.mjs/)
    process.kill(program.pid, 'SIGUSR1')
    await slow
    upgraded.destroy()
  })

  it('is answered where Node cannot read its memory: there is no /proc, or no descriptor is free', async () => {
    await using place = new Place()
    const preload = path.join(place.folder, 'no-proc.cjs')
    writeFileSync(preload, "process.memoryUsage.rss = () => { throw new Error('ENOENT: no such file or directory, uv_resident_set_memory') }")
    const program = await place.start({ name: 'shop', env: { NODE_OPTIONS: `--require ${preload}` } })
    expect(only(only(await place.status('shop')).processes)).toMatchObject({ pid: program.pid, memory: 0 })
  })

  it('has the version of the package.json next to the script or above, as it was when it began', async () => {
    await using place = new Place()
    const script = path.join(place.folder, 'app.mjs')
    writeFileSync(script, `import ${JSON.stringify(path.resolve('test/programs/command.mjs'))}`)
    writeFileSync(path.join(place.folder, 'package.json'), '{"version":"1.0.0"}')
      await using program = Program.start(script, { env: { HANDOVER_DIR: place.sockets } })
    await program.event('listening')
    writeFileSync(path.join(place.folder, 'package.json'), '{"version":"2.0.0"}')
    expect(only(only(await place.status()).processes).version).toBe('1.0.0')
  })

  it.each([['with a name', { name: 'shop' }], ['without a name', {}]])('shows generations that drain, and what they wait for: %s', async (_how, options) => {
    await using place = new Place()
    const program = await place.start({ ...options, options: { undoWindow: 100, linger: 10_000, move: false } })
    const port = portOf(program)
    const slow = get({ port }, '/slow?token=secret-token')
    await program.event('slow')
    const idle = net.connect(port, '127.0.0.1')
    await once(idle, 'connect')
    await get({ port })
    await program.hangUp()
    await get({ port })
    const app = only(await place.status())
    expect(app).toMatchObject({ lastReload: {
      ok: true, switched: [{ slot: null, from: { pid: program.pid, generation: 1 }, to: { pid: program.serving, generation: 2 } }],
      serving: [{ pid: program.serving }]
    } })
    const [serving, draining] = app.processes
    expect(serving).toMatchObject({ pid: program.serving, generation: 2, state: 'serving', waitsFor: [], endsInMs: null })
    expect(draining).toMatchObject({ pid: program.pid, generation: 1, state: 'draining', waitsFor: [expect.stringMatching(/^GET \/slow for \d+ m?s$/), '1 idle'], endsInMs: expect.any(Number) })
    const { stdout } = await place.run('status')
    expect(stdout).toMatch(/ago, done in .*: generation 1 to 2\n/)
    expect(stdout).toMatch(/draining[^]*waits for GET \/slow for \d+ m?s, 1 idle;\s+ends in \d+ s at the latest/)
    expect(stdout).not.toContain('secret-token')
    process.kill(program.pid, 'SIGUSR1')
    await slow
    idle.destroy()
    await program.ended
    // What the predecessor said at its end is known to the one that serves.
    await waitFor(async () => only(await place.status()).processes.length === 1)
    expect(only(await place.status()).lastReload).toMatchObject(
      { ok: true, switched: [{ from: { pid: program.pid }, to: { pid: program.serving } }] }
    )
  })

  it('shows all apps where there are several, one by name or pid, and takes away what killed ones left', async () => {
    await using place = new Place()
    const [shop, nameless, killed] = await Promise.all([place.start({ name: 'shop' }), place.start(), place.start({ name: 'killed' })])
    process.kill(killed.pid, 'SIGKILL')
    await killed.ended
    expect(place.files.filter((file) => file.startsWith('@'))).toHaveLength(3)
    expect((await place.status()).map(({ name, processes }) => [name, processes.map(({ pid }) => pid)])).toEqual([[null, [nameless.pid]], ['shop', [shop.pid]]])
    expect(place.files).toEqual([path.basename(place.ownFile(shop.pid)), path.basename(place.ownFile(nameless.pid)), 'killed.sock', 'shop.sock'].sort())
    expect(only(await place.status('shop')).processes).toMatchObject([{ pid: shop.pid }])
    expect(only(await place.status(String(nameless.pid))).processes).toMatchObject([{ pid: nameless.pid }])
    expect(await place.run('status', 'killed')).toMatchObject({ stdout: '', status: 1, stderr: expect.stringMatching(/^handover: killed does not run: its socket in .* is left from a process that was killed\. Start it again\.\n$/) })
    expect(await place.run('status', 'shops')).toMatchObject({ stdout: '', status: 1, stderr: `handover: no app "shops" runs (looked in ${place.sockets}). Did you mean shop? These run: process ${nameless.pid}, shop (process ${shop.pid}).\n` })
    // Its name is free for the next one.
    await using again = await place.start({ name: 'killed' })
    expect(only(await place.status('killed')).processes).toMatchObject([{ pid: again.pid }])
  })

  it('says which process does not answer, and shows the others', async () => {
    await using place = new Place()
    const [deaf, other] = await Promise.all([place.start(), place.start()])
    process.kill(deaf.pid, 'SIGSTOP')
    const { stdout, status } = await place.run('status')
    expect(status).toBe(0)
    expect(stdout).toContain(`process ${other.pid}\n`)
    const says = `process ${deaf.pid} did not answer: it was stopped by a signal (SIGSTOP or the like); kill -CONT ${deaf.pid} lets it go on`
    expect(stdout).toContain(`${says}\n`)
    expect(await place.run('status', String(deaf.pid))).toMatchObject({ status: 1, stderr: `handover: ${says}. Nothing was asked.\n` })
    process.kill(deaf.pid, 'SIGCONT')
  })

  it('--watch shows it again and again until ctrl-C, and also where nothing runs', async () => {
    await using place = new Place()
    const watching = place.begin('status', '--watch', '--json')
    await waitFor(() => watching.output.stdout.includes('\n'))
    const program = await place.start({ name: 'shop' })
    await waitFor(() => watching.output.stdout.includes(`"pid":${program.pid}`))
    watching.child.kill('SIGINT')
    const { stdout, status, stderr } = await watching.ended
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    for (const line of stdout.trimEnd().split('\n')) expect(Object.keys(JSON.parse(line) as object)).toEqual(['ok', 'apps'])
  })
})

describe('an HTTP/2 stream', () => {
  it('counts as a request, and as a failed one', async () => {
    await using place = new Place()
    const script = path.join(place.folder, 'app.mjs')
    writeFileSync(script, `import http2 from 'node:http2'
      import { handover } from ${JSON.stringify(coreFile)}
      const server = handover(http2.createServer((request, response) => { response.statusCode = request.url === '/fail' ? 503 : 200; response.end() }))
      server.listen(0, '127.0.0.1', () => { console.log(JSON.stringify({ event: 'listening', port: server.address().port })) })`)
      await using program = Program.start(script, { env: { HANDOVER_DIR: place.sockets } })
    await program.event('listening')
    for (const url of ['/', '/fail']) await getHttp2({ port: portOf(program) }, false, url)
    expect(only(only(await place.status()).processes).requests).toEqual({ inFlight: 0, total: 2, failed: 1 })
  })
})

// ---- what belongs together, and how it is written ----

const processOf = (pid: number, more: Partial<ProcessStatus> = {}): ProcessStatus => ({
  pid, generation: 1, state: 'serving', name: null, keeper: null, slot: null, version: '1.0.0', node: '24.1.0', ageMs: 61_000, listeners: ['tcp 0.0.0.0:3000'], connections: { http: 2 },
  requests: { inFlight: 1, total: 1_234_567, failed: 0 }, waitsFor: [],
  endsInMs: null, memory: 95_000_000, loopDelayMs: 1.4, lastReport: null,
  service: { id: String(pid), startedAt: 100_000, requests: 1_234_567, includes: [] }, sections: [], ...more
})
const keeperOf = (pid: number): KeeperStatus => ({ pid, version: '0.1.0', node: '24.1.0', ageMs: 300_000_000, workers: 2, listeners: ['tcp 0.0.0.0:3000'], crashes: 3, down: [{ slot: 1, reason: 'exited with status 1', nextTryInMs: 4_000 }], checkpoints: [] })
const answer = (file: string, processes: ProcessStatus[], more: Partial<AppStatus> = {}) => ({ file: `/run/handover/${file}`, status: { name: processes[0]?.name ?? null, keeper: null, service: null, processes, lastReload: null, ...more } })

describe('what belongs together', () => {
  it('a keeper and its workers are one app, whose keeper is asked', () => {
    const workers = [0, 1].map((slot) => processOf(20 + slot, { keeper: 10, slot, name: 'shop' }))
    const apps = group([answer('@20-00000000.sock', [workers[0]!]), answer('@21-00000000.sock', [workers[1]!]), answer('shop.sock', workers, { name: 'shop', keeper: keeperOf(10) })])
    expect(apps).toMatchObject([{ name: 'shop', keeper: { pid: 10 }, lostKeeper: null, file: '/run/handover/shop.sock', processes: [{ pid: 20 }, { pid: 21 }] }])
  })

  it('the last reload of an app under a keeper is the one that its keeper tells, of which a worker knows only its own part', () => {
    const reload = (at: number, ms: number) => ({ ok: true, at, ms, switched: [], reports: [], serving: [] })
    const worker = processOf(20, { keeper: 10, slot: 0, name: 'shop' })
    const apps = group([answer('@20-00000000.sock', [worker], { lastReload: reload(2_000, 300) }), answer('shop.sock', [worker], { name: 'shop', keeper: keeperOf(10), lastReload: reload(1_000, 4_000) })])
    expect(apps).toMatchObject([{ lastReload: { at: 1_000, ms: 4_000 } }])
  })

  it('workers whose keeper is gone are one app', () => {
    const apps = group([20, 21].map((pid) => answer(`@${pid}-00000000.sock`, [processOf(pid, { keeper: 10, slot: pid - 20 })])))
    expect(apps).toMatchObject([{ keeper: null, lostKeeper: 10, processes: [{ pid: 20 }, { pid: 21 }] }])
  })

  it('processes without a name are one app where one took over from the other, and several else', () => {
    const lastReport = (from: number, to: number) =>
      ({ predecessor: { pid: from, generation: 1 }, successor: { pid: to, generation: 2 } }) as never
    const apps = group([
      answer('@1-00000000.sock', [processOf(1, { state: 'draining', lastReport: lastReport(1, 2) })]),
      answer('@2-00000000.sock', [processOf(2, { state: 'draining', generation: 2, lastReport: lastReport(2, 3) })]),
      answer('@3-00000000.sock', [processOf(3, { generation: 3 })]),
      answer('@4-00000000.sock', [processOf(4)])
    ])
    expect(apps.map(({ file, processes }) => [file, processes.map(({ pid }) => pid)])).toEqual([['/run/handover/@3-00000000.sock', [3, 2, 1]], ['/run/handover/@4-00000000.sock', [4]]])
  })
})

describe('containers that share the directory, whose pids are the same', () => {
  const keepers = ['api', 'web'].flatMap((name) => {
    const worker = processOf(13, { keeper: 1, slot: 0, name })
    return [answer(`@13-0000${name}.sock`, [worker]), answer(`${name}.sock`, [worker], { name, keeper: keeperOf(1) })]
  })
  const generation = (id: string, more: Partial<ProcessStatus>) =>
    processOf(1, { name: 'shop', service: { id, startedAt: 0, requests: 1, includes: [] }, ...more })

  it('each keeper is an app of its own', () => {
    expect(group(keepers)).toMatchObject(['api', 'web'].map((name) => ({ name, keeper: { pid: 1 }, file: `/run/handover/${name}.sock`, processes: [{ pid: 13, name }] })))
  })

  it('a worker whose keeper does not answer is not taken for one of another keeper', () => {
    const seen: number[] = []
    const apps = group(keepers.filter(({ file }) => !file.endsWith('/web.sock')), (keeper) => ({ pid: seen[seen.push(keeper) - 1]!, lives: false, what: 'deaf' }))
    expect(apps).toMatchObject([{ name: 'api', deafKeeper: null }, { name: 'web', deafKeeper: { pid: 1 } }])
  })

  it('both generations of a rendezvous are seen, and stopped', () => {
    const [next, drains] = [generation('b', { generation: 2 }), generation('a', { state: 'draining' })]
    const app = only(group([answer('@1-0000000b.sock', [next]), answer('@1-0000000a.sock', [drains]), answer('shop.sock', [next])]))
    expect(app.processes.map(({ generation, state }) => [generation, state])).toEqual([[2, 'serving'], [1, 'draining']])
    expect([...app.ownFiles.values()]).toEqual(['/run/handover/@1-0000000b.sock', '/run/handover/@1-0000000a.sock'])
  })

  it('a pid that two apps have names none of them', () => {
    const found = { looked: '/run/handover', apps: group(keepers), silent: [], left: [] }
    expect(() => chooseApp(found, '13')).toThrow('several apps have a process 13, in different containers: api (keeper 1), web (keeper 1). Nothing was asked. Say which one, by name.')
    expect(chooseApp(found, 'web')).toMatchObject({ name: 'web' })
  })
})

describe('the service', () => {
  const count = (id: string, requests: number, more: Partial<ProcessStatus['service']> = {}) => ({ service: { id, requests, startedAt: 5_000, includes: [], ...more } })

  it('has each process once, however many of the others have its count in theirs', () => {
    const apps = group([
      answer('@1-00000000.sock', [processOf(1, { name: 'shop', state: 'draining', ...count('a', 100, { startedAt: 1_000 }) })]),
      answer('@2-00000000.sock', [processOf(2, { name: 'shop', generation: 2, ...count('b', 130, { includes: ['a', 'gone'] }) })]),
      answer('@3-00000000.sock', [processOf(3, { name: 'shop', generation: 2, ...count('c', 7, { includes: ['gone'] }) })])
    ])
    expect(only(apps).service).toEqual({ startedAt: 1_000, generation: 2, requests: 137 })
  })

  it('under a keeper is what that one says, which knows those that are gone', () => {
    const service = { startedAt: 1_000, generation: 3, requests: 5_000 }
    const worker = processOf(20, { keeper: 10, slot: 0, name: 'shop' })
    const apps = group([answer('@20-00000000.sock', [worker]), answer('shop.sock', [worker], { name: 'shop', keeper: keeperOf(10), service })])
    expect(only(apps).service).toEqual(service)
  })

  it('is unknown where no process answers', () => {
    const silent = processOf(1, { service: { id: '', startedAt: 0, requests: 0, includes: [] } })
    expect(only(group([answer('@1-00000000.sock', [silent])])).service).toBeNull()
  })
})

describe('the line of the last reload', () => {
  it('says of each slot from which generation to which it went: after another number of workers they differ', () => {
    const switched = [[3, 4], [3, 4], [1, 2], [null, 1]].map(([from, to], slot) =>
      ({ slot, from: from == null ? null : { pid: slot, generation: from }, to: { pid: 20 + slot, generation: to! }, version: null }))
    const lastReload = { ok: true, at: 0, ms: 900, switched, reports: [], serving: [] }
    const apps = group([answer('shop.sock', [processOf(20, { slot: 0, keeper: 10, name: 'shop' })], { name: 'shop', keeper: keeperOf(10), lastReload })])
    const text = describeApps(apps, { width: 80, colours: false, now: 5_000 }).replace(/\s+/g, ' ')
    expect(text).toContain('generation 3 to 4 in 2 slots, 1 to 2 in 1 slot, 1 was started in 1 slot')
  })
})

describe('the text', () => {
  const app = () => group([answer('shop.sock', [
    processOf(1_234_567, { slot: 0, keeper: 10, generation: 12, version: '10.20.30-rc.1+build', connections: { http: 12_345, upgraded: 678, http2: 90 }, loopDelayMs: 1_234 }),
    processOf(1_234_568, { slot: 1, keeper: 10, generation: 11, state: 'committing' }),
    processOf(1_234_500, { slot: 0, keeper: 10, generation: 11, state: 'draining', endsInMs: 17_400, waitsFor: ['GET /export/of/everything for 12 s', 'POST /upload for 3 s', '14 upgraded', '3 idle', '1 http2'] })
  ], { name: 'shop', keeper: keeperOf(10), lastReload: { ok: false, at: 0, ms: 900, switched: [], reports: [], serving: [], error: { code: 'HANDOVER_SUCCESSOR_EXIT', message: 'process 5 (generation 13) ended with status 1 before it was ready.\n  Process 1 keeps serving.\n  Repair it.', stderr: '' } } })])

  it('is at most 80 columns wide, also with long values, and aligned', () => {
    const text = describeApps(app(), { width: 80, colours: false, now: 125_000 })
    const lines = text.split('\n')
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80)
    expect(text).toContain('version 10.20.30-rc.1+build')
    expect(text).toMatch(/^shop\n {2}listens {3}tcp 0\.0\.0\.0:3000\n {2}keeper {4}process 10, version 0\.1\.0, Node 24\.1\.0, up 3 d; 2 workers,\s+3 crashes\n {2}down {6}slot 1: exited with status 1; next try in 4 s\n {2}reload {4}2 min ago, failed: process 5/)
    const at = lines.find((line) => line.includes('STATE'))!.indexOf('STATE')
    for (const state of ['serving', 'committing', 'draining']) expect(lines.find((line) => line.includes(` ${state} `))?.indexOf(state)).toBe(at)
  })

  it('says since when the service is up, and how far the state on its way has come', () => {
    const checkpoints = Array.from({ length: 10 }, (_, index) => ({ slot: index % 2, name: `section-${index}`, bytes: 3 * 1_048_576, ageMs: 4_000 }))
    const apps = group([answer('shop.sock', [processOf(1, { keeper: 10, slot: 0, sections: [{ name: 'sessions', doing: 'saving', bytes: 5_000_000 }, { name: 'cache', doing: 'failed', bytes: 12 }] })], {
      name: 'shop', keeper: { ...keeperOf(10), checkpoints }, service: { startedAt: 1_700_000_000_000, generation: 12, requests: 1_234_567 }
    })])
    const text = describeApps(apps, { width: 80, colours: false, now: 1_700_000_000_000 + 300_000_000 })
    for (const line of text.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80)
    const flat = text.replace(/\s+/g, ' ')
    expect(flat).toContain(' service up 3 d (since 2023-11-14 22:13 UTC), generation 12, 1,234,567 requests ')
    expect(flat).toContain(' state: sessions saving (5 MB), cache failed (12 B) ')
    expect(flat).toContain(' state checkpoints of slot 0: section-0 (3 MB, 4 s ago), slot 1: section-1 (3 MB, 4 s ago),')
    expect(flat).toContain(' and 2 more ')
  })

  it('names no generation of a service where none serves', () => {
    const text = describeApps(group([answer('shop.sock', [], { name: 'shop', keeper: keeperOf(10), service: { startedAt: 1_700_000_000_000, generation: 0, requests: 3 } })]), { width: 80, colours: false, now: 1_700_000_000_000 })
    expect(text).toContain('(since 2023-11-14 22:13 UTC), 3 requests\n')
  })

  it('has colours only where they are asked for, and what a terminal would obey is taken out of names and paths', () => {
    expect(describeApps(app(), { width: 80, colours: true, now: 0 })).toContain('\u{1b}[32mserving')
    const evil = group([answer('@1-00000000.sock', [processOf(1, { state: 'draining', waitsFor: ['GET /\u{1b}]0;owned\u{7} for 1 s'], listeners: ['unix /tmp/\n'] })])])
    const text = describeApps(evil, { width: 80, colours: false, now: 0 })
    for (const sign of ['\u{1b}', '\u{7}']) expect(text).not.toContain(sign)
  })
})
