/**
 * @handover/fastify: what a Fastify program may do, it may still do, and it is reloaded.
 */

import { expect, test } from 'vitest'
import { listening, startAdapter } from '../../helpers/adapted.js'
import { ask, connects, freePorts, get } from '../../helpers/ask.js'
import { Folder } from '../../helpers/plan.js'
import { runModule } from '../../helpers/script.js'
import { programPath, waitFor } from '../../helpers/program.js'

const host = '127.0.0.1'
const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))
const bothLocalhosts = ['--require', programPath('localhost.cjs')]

test('import and require() give the plugin as default and by name; its name and version range are those of a plugin for Fastify 5', () => {
  const script = `    import byDefault, { handover } from '@handover/fastify'
    const required = module.createRequire(import.meta.url)('@handover/fastify')
    const symbol = (name) => required[Symbol.for(name)]
    console.log(JSON.stringify([typeof required, [required.default, required.handover, byDefault, handover].every((each) => each === required), symbol('plugin-meta'), symbol('skip-override')]))`
  const { stdout, stderr } = runModule(script)
  expect(stderr).toBe('')
  expect(JSON.parse(stdout)).toEqual(['function', true, { name: '@handover/fastify', fastify: '5.x' }, true])
})

test.each([
  ['await', { listen: { port: 0, host } }],
  ['a callback', { listen: { port: 0, host }, callback: true }],
  ['registered after the routes', { listen: { port: 0, host }, late: true }],
  ['require()', { listen: { port: 0, host }, required: true }],
  ['serverFactory', { listen: { port: 0, host }, server: 'factory' }],
  ['a backlog', { listen: { port: 0, host, backlog: 77 } }]
])('app.listen with %s is reloaded and keeps its port', async (_name, shape) => {
  await using program = startAdapter('fastify', shape)
  const { address, addresses: [first] } = await listening(program)
  expect(await program.event('decorated')).toMatchObject({ same: true, plugin: true })
  await program.hangUp()
  const { pid, address: now } = await listening(program, 2)
  expect(now).toBe(address)
  expect(await ask('http', { port: first?.port ?? 0, host })).toBe(pid)
})

test.each([
  ['https', 'https', 'https'],
  ['http2', 'http2-clear', 'http2'],
  ['http2 and https', 'http2', 'http2s']
] as const)('%s is reloaded', async (_name, kind, server) => {
  await using program = startAdapter('fastify', { listen: { port: 0, host }, server })
  const { addresses: [first] } = await listening(program)
  await program.hangUp()
  const { pid } = await listening(program, 2)
  expect(await ask(kind, { port: first?.port ?? 0, host })).toBe(pid)
})

test('a Unix path is reloaded, and what app.listen answers stays the path', async () => {
  using folder = new Folder()
  const path = folder.at('app.sock')
  await using program = startAdapter('fastify', { listen: { path } })
  const { address } = await listening(program)
  await program.hangUp()
  const second = await listening(program, 2)
  expect(second.address).toBe(address)
  expect(await ask('http', path)).toBe(second.pid)
})

test(`on localhost both 127.0.0.1 and ::1 answer after ${reloads} reloads`, async () => {
  const [port = 0] = await freePorts(1)
  await using program = startAdapter('fastify', { listen: { port, host: 'localhost' } }, {}, bothLocalhosts)
  const { addresses } = await listening(program)
  expect(addresses.map(({ address }) => address).sort()).toEqual(['127.0.0.1', '::1'])
  for (let generation = 2; generation <= reloads + 1; generation++) {
    const { report } = await program.hangUp()
    expect((report as { listeners: object }).listeners).toEqual({ kept: expect.arrayContaining([`tcp 127.0.0.1:${port}`, `tcp [::1]:${port}`]) as unknown, added: [], dropped: [] })
  }
  const { pid } = await listening(program, reloads + 1)
  expect([await ask('http', { port, host }), await ask('http', { port, host: '::1' })]).toEqual([pid, pid])
})

test('both are kept, and another HTTP server of the program is, where socket.io has the server before the plugin', async () => {
  const [port = 0, metrics = 0] = await freePorts(2)
  const shape = { listen: { port, host: 'localhost' }, before: 'socket.io', beside: [metrics, host] }
  await using program = startAdapter('fastify', shape, {}, bothLocalhosts)
  await listening(program)
  for (const generation of [2, 3]) {
    const { report } = await program.hangUp()
    const kept = expect.arrayContaining([`tcp 127.0.0.1:${port}`, `tcp [::1]:${port}`, `tcp ${host}:${metrics}`]) as unknown
    expect((report as { listeners: object }).listeners).toEqual({ kept, added: [], dropped: [] })
    const { pid } = await listening(program, generation)
    const places = [{ port, host }, { port, host: '::1' }, { port: metrics, host }]
    for (const place of places) expect(await ask('http', place)).toBe(pid)
  }
})

test('without a host, and on port 0, it is localhost and keeps its port', async () => {
  await using program = startAdapter('fastify', { listen: { port: 0 } }, {}, bothLocalhosts)
  const { addresses } = await listening(program)
  await program.hangUp()
  const second = await listening(program, 2)
  expect(second.addresses).toEqual(addresses)
  for (const { address, port } of addresses) expect(await ask('http', { port, host: address })).toBe(second.pid)
})

test.each(['0.0.0.0', '::'])('on %s every address answers after a reload', async (everywhere) => {
  await using program = startAdapter('fastify', { listen: { port: 0, host: everywhere } })
  const { addresses: [first] } = await listening(program)
  await program.hangUp()
  const { pid } = await listening(program, 2)
  for (const address of everywhere === '::' ? ['127.0.0.1', '::1'] : ['127.0.0.1']) expect(await ask('http', { port: first?.port ?? 0, host: address })).toBe(pid)
})

test('registered twice, and in a nested context, it is one plugin', () => {
  const script = `import Fastify from 'fastify'
    import handover from '@handover/fastify'
    const app = Fastify()
    await app.register(handover)
    await app.register(handover)
    await app.register(async (inner) => { await inner.register(handover) })
    await app.ready()
    console.log(app.handover.generation, app.handover.state)`
  expect(runModule(script)).toMatchObject({ stdout: '1 idle\n', stderr: '', status: 0 })
})

test('registered a second time, its options count as well', () => {
  const script = `import Fastify from 'fastify'
    import handover from '@handover/fastify'
    for (const more of [{ linger: 6 }, { lingr: 5 }, { linger: 5, onClose: () => { console.log('closed') } }]) {
      const app = Fastify()
      try {
        await app.register(handover, { linger: 5 })
        await app.register(async (inner) => { await inner.register(handover, more) })
        await app.listen({ port: 0 })
        await app.handover.stop()
      } catch ({ code, what }) { console.log(code, what) }
    }`
  expect(runModule(script)).toMatchObject({
    stdout: `HANDOVER_OPTION the option linger is 6 here and 5 elsewhere in this process\nHANDOVER_OPTION the option "lingr" does not exist\nclosed\n`, status: 0
  })
})

test('close hooks run once, after the drain: a slow request is answered first', async () => {
  await using program = startAdapter('fastify', { listen: { port: 0, host } })
  const { pid, addresses: [first] } = await listening(program)
  let isAnswered = false
  const slow = get({ port: first?.port ?? 0, host }, '/slow').finally(() => { isAnswered = true })
  await program.event('slow')
  const closing = program.event('preClose')
  await Promise.race([closing, program.hangUp().then(() => slow)])
  // The answer came on another descriptor, before.
  await new Promise((resolve) => { setTimeout(resolve, 10) })
  expect(isAnswered).toBe(true)
  expect(await slow).toEqual({ status: 200, body: String(pid) })
  await closing
  await program.event('onClose')
  await waitFor(() => !program.alive.includes(pid))
  expect(program.events.filter((event) => event.pid === pid && event.event.endsWith('Close')).map(({ event }) => event)).toEqual(['preClose', 'onClose'])
  const { report } = await program.event('report', (event) => event.pid === pid && (event['report'] as { result: string }).result === 'drained')
  expect(report).toMatchObject({ connections: { cut: 0 }, requestsCut: [] })
})

test('SIGTERM runs the close hooks once and ends with status 0', async () => {
  await using program = startAdapter('fastify', { listen: { port: 0, host } })
  await listening(program)
  process.kill(program.pid, 'SIGTERM')
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(program.events.filter(({ event }) => event.endsWith('Close')).map(({ event }) => event)).toEqual(['preClose', 'onClose'])
})

test('the option onClose runs, and the process ends with status 0, where a hook of the app fails', async () => {
  await using program = startAdapter('fastify', { listen: { port: 0, host }, fails: true })
  await listening(program)
  process.kill(program.pid, 'SIGTERM')
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(program.events.filter(({ event }) => event.endsWith('Close')).map(({ event }) => event)).toEqual(['preClose', 'onClose', 'own onClose'])
  expect(program.stderr).toMatch(/a close hook failed: Error: the hook failed/)
})

test('app.close() by the program closes the port, runs the hooks once, and the process ends by itself', async () => {
  await using program = startAdapter('fastify', { listen: { port: 0, host: 'localhost' }, close: true }, {}, bothLocalhosts)
  await listening(program)
  await program.event('closed')
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(program.events.filter(({ event }) => event.endsWith('Close')).map(({ event }) => event)).toEqual(['preClose', 'onClose'])
  expect(program.stderr).toBe('')
})

test('app.close() in a successor means the same, also within the undo window', async () => {
  await using program = startAdapter('fastify', { listen: { port: 0, host } }, { undoWindow: 60_000 })
  const { addresses: [first] } = await listening(program)
  await program.hangUp()
  await listening(program, 2)
  const place = { port: first?.port ?? 0, host }
  await get(place, '/close')
  await program.event('closed', ({ generation }) => generation === 2)
  await waitFor(() => program.alive.length === 0)
  expect(await connects(place)).toBe('ECONNREFUSED')
  expect(program.events.filter(({ event }) => event === 'failed')).toEqual([])
})

test('with readyWhen manual the successor accepts when it says so, after listen() and its warm-up', async () => {
  await using program = startAdapter('fastify', { listen: { port: 0, host }, warmUp: true }, { readyWhen: 'manual' })
  const { addresses: [first] } = await listening(program)
  expect((await program.event('warm')).state).toBe('serving')
  await program.hangUp()
  const { pid } = await listening(program, 2)
  expect((await program.event('warm', ({ generation }) => generation === 2)).state).toBe('preparing')
  expect(await ask('http', { port: first?.port ?? 0, host })).toBe(pid)
})

test.each([false, true])('a port in use is reported as Fastify does (callback: %s)', async (callback) => {
  await using busy = startAdapter('fastify', { listen: { port: 0, host } })
  const { addresses: [first] } = await listening(busy)
  await using program = startAdapter('fastify', { listen: { port: first?.port, host }, callback })
  if (callback) expect((await program.event('listening')).error).toBe('EADDRINUSE')
  else {
    expect((await program.ended).code).toBe(1)
    expect(program.stderr).toMatch(/EADDRINUSE/)
  }
})

test('an app that the program has closed is kept by nothing, as tests make and close many; its option onClose runs all the same at the end', () => {
  const { stdout, stderr, status } = runModule(`import Fastify from 'fastify'
    import plugin from '@handover/fastify'
    const made = async (options) => {
      const app = Fastify()
      await app.register(plugin, options)
      await app.inject('/')
      await app.close()
      return new WeakRef(app)
    }
    const apps = [await made({ onClose() { console.log('own onClose') } })]
    while (apps.length < 10) apps.push(await made({}))
    const last = Fastify()
    await last.register(plugin)
    for (let turn = 0; turn < 5; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 20))
      gc()
    }
    console.log(apps.filter((app) => app.deref() !== undefined).length)
    process.exitCode = 3
    await last.handover.stop()`, {}, ['--expose-gc'])
  expect({ stdout, stderr, status }).toEqual({ stdout: '0\nown onClose\n', stderr: '', status: 3 })
})
