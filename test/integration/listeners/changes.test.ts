/**
 * Listeners that change between two versions, and listeners that programs close, open again or fail to open.
 */

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import net from 'node:net'
import { expect, test } from 'vitest'
import { ask, connects, freePorts } from '../../helpers/ask.js'
import { Folder, Planned, type Plan } from '../../helpers/plan.js'
import { waitFor } from '../../helpers/program.js'
import { runModule } from '../../helpers/script.js'

const host = '127.0.0.1'
const at = (port: number | undefined): { port: number; host: string } => ({ port: port ?? 0, host })
const plan = (...ports: (number | undefined)[]): Plan => ({ listen: ports.map(at) })

test('the report says which listeners were kept, added and dropped', async () => {
  const [a, b, c] = await freePorts(3)
  await using planned = new Planned({ ...plan(a, b), udp: [{ port: a, address: host }] })
  await planned.addresses(1)
  planned.next({ ...plan(a, c), udp: [{ port: c, address: host }], ready: true })
  expect(await planned.reload()).toEqual({ kept: [`tcp ${host}:${a}`], added: [`tcp ${host}:${c}`, `udp ${host}:${c}`], dropped: [`tcp ${host}:${b}`, `udp ${host}:${a}`] })
  expect(await ask('http', at(a))).toBe(planned.program.serving)
  expect(await ask('http', at(c))).toBe(planned.program.serving)
})

test('a new version that listens twice on what it adds fails as in Node, and leaves nothing behind', async () => {
  using folder = new Folder()
  const [a, b] = await freePorts(2)
  await using planned = new Planned(plan(a))
  const { pid } = await planned.program.event('bound')
  for (const added of [at(b), { path: folder.at('added.sock') }]) {
    planned.next({ listen: [at(a), added, added] })
    await expect(planned.reload()).rejects.toThrow(/cannot serve: listen EADDRINUSE: address already in use/)
    await waitFor(() => planned.program.alive.length === 1)
  }
  expect(readdirSync(folder.path)).toEqual([])
  expect([await connects(at(b)), await ask('http', at(a))]).toEqual(['ECONNREFUSED', pid])
})

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)

test.skipIf(major < 22 || (major === 22 && minor < 12) || (major === 23 && minor < 1))(
  'a new version may have more servers at an address than the old one, with reusePort', async () => {
    const [a, b] = await freePorts(2)
    const shared = (port: number | undefined): object => ({ ...at(port), reusePort: true })
    await using planned = new Planned({ listen: [shared(a)] })
    await planned.addresses(1)
    const [kept, added] = [`tcp ${host}:${a}`, `tcp ${host}:${b}`]
    for (const listen of [[shared(a), at(a)], [shared(a), shared(b), at(b)]]) {
      planned.next({ listen })
      await expect(planned.reload()).rejects.toThrow(/cannot serve: listen EADDRINUSE: address already in use/)
    }
    planned.next({ listen: [shared(a), shared(a), shared(b), shared(b)] })
    expect(await planned.reload()).toEqual({ kept: [kept], added: [kept, added, added], dropped: [] })
    expect([await ask('http', at(a)), await ask('http', at(b))]).toEqual([planned.program.serving, planned.program.serving])
  }
)

test('a new version that cannot listen where the old one could not either is no worse, and takes over', async () => {
  const [a] = await freePorts(1)
  const listen = [at(a), { path: '/nowhere/to/be/found.sock' }]
  await using planned = new Planned({ listen })
  await planned.addresses(1)
  for (let reloads = 0; reloads < 2; reloads++) expect(await planned.reload()).toEqual({ kept: [`tcp ${host}:${a}`], added: [], dropped: [] })
  planned.next({ listen: [...listen, { path: '/nowhere/else.sock' }] })
  await expect(planned.reload()).rejects.toThrow(/cannot serve: listen EACCES: permission denied \/nowhere\/else\.sock/)
})

test('a dropped listener refuses connects from the commit on', async () => {
  const [a, b] = await freePorts(2)
  await using planned = new Planned(plan(a, b))
  await planned.addresses(1)
  planned.next({ ...plan(a), ready: true })
  await planned.reload()
  expect(await connects(at(b))).toBe('ECONNREFUSED')
  expect(await connects(at(a))).toBe('ok')
})

test('a listener that a version dropped is listened on again when that version dies in the undo window', async () => {
  const [a, b] = await freePorts(2)
  await using planned = new Planned({ ...plan(a, b), options: { undoWindow: 30_000 } })
  const { pid } = await planned.program.event('bound')
  planned.next({ ...plan(a), ready: true })
  await planned.reload()
  expect(await connects(at(b))).toBe('ECONNREFUSED')
  process.kill(planned.program.serving, 'SIGKILL')
  await planned.program.event('report', ({ report }) => (report as { result: string }).result === 'undone')
  await waitFor(async () => (await connects(at(b))) === 'ok')
  expect(await ask('http', at(b))).toBe(pid)
  planned.next(plan(a, b))
  expect(await planned.reload()).toEqual({ kept: [`tcp ${host}:${a}`, `tcp ${host}:${b}`], added: [], dropped: [] })
})

test.each([1, 2])('a program that closes its only server and listens again is reloaded as before (generation %i)', async (generation) => {
  const [port] = await freePorts(1)
  await using planned = new Planned(plan(port))
  const { pid } = await planned.program.event('bound')
  if (generation === 2) {
    await planned.reload()
    await waitFor(() => !planned.program.alive.includes(pid))
  }
  process.kill(planned.program.serving, 'SIGUSR2')
  await planned.program.event('again')
  expect((await planned.reload()).kept).toEqual([`tcp ${host}:${port}`])
})

test('a program that closes its last server ends by itself, with status 0', async () => {
  await using planned = new Planned({ ...plan(0), close: [0] })
  expect(await planned.program.ended).toEqual({ code: 0, signal: null })
  expect(planned.program.stderr).toBe('')
})

test('a successor that closes its last server ends by itself, and its predecessor does not come back', async () => {
  await using planned = new Planned({ ...plan(0), options: { undoWindow: 60_000 } })
  await planned.addresses(1)
  planned.next({ ...plan(0), close: [0], options: { undoWindow: 60_000 } })
  await planned.reload()
  expect(await planned.program.ended).toEqual({ code: 0, signal: null })
  await waitFor(() => planned.program.alive.length === 0)
  expect(planned.program.events.filter(({ event }) => event === 'failed')).toEqual([])
})

test('a larger backlog of the new version holds, a smaller one does not shrink it', async () => {
  const [port] = await freePorts(1)
  await using planned = new Planned({ listen: [{ ...at(port), backlog: 100 }] })
  const backlog = async (): Promise<number> => {
    return Number(execFileSync('ss', ['-H', '-ltn', `sport = :${port}`], { encoding: 'utf8' }).trim().split(/\s+/)[2])
  }
  await planned.addresses(1)
  expect(await backlog()).toBe(100)
  planned.next({ listen: [{ ...at(port), backlog: 900 }] })
  await planned.reload()
  expect(await backlog()).toBe(900)
  planned.next({ listen: [{ ...at(port), backlog: 10 }] })
  await planned.reload()
  expect(await backlog()).toBe(900)
})

test('an address that is in use fails in a first generation exactly as in Node', async () => {
  const busy = net.createServer().listen(0, host)
  await once(busy, 'listening')
  const { port } = busy.address() as net.AddressInfo
  const errors = []
  for (const env of [{ HANDOVER: 'off' }, {}]) {
    await using planned = new Planned({ listen: [at(port), { path: '/nowhere/to/be/found.sock' }, { port: 1, host: 'a..b' }] }, { env })
    await planned.addresses(1)
    errors.push(planned.program.events.filter(({ event }) => event === 'error').map(({ error }) => error))
  }
  busy.close()
  expect(errors[0]).toHaveLength(3)
  expect(errors[1]).toEqual(errors[0])
})

test('a UDP port that is in use is an uncaught error where nobody listens for it, as in Node', async () => {
  const script = `import dgram from 'node:dgram'
    import { handover } from '@handover/core'
    const first = dgram.createSocket('udp4').bind(0, '127.0.0.1', () => { handover(dgram.createSocket('udp4')).bind(first.address().port, '127.0.0.1') })`
  const run = runModule(script)
  expect(run.stderr).toMatch(/Unhandled 'error' event/)
  expect(run.stderr).toMatch(/EADDRINUSE/)
  expect(run.status).toBe(1)
})

test('arguments that Node refuses are refused the same way and count for nothing', async () => {
  const script = `import net from 'node:net'
    import dgram from 'node:dgram'
    import { handover } from '@handover/core'
    for (const wrong of [[70000], [-1], [{ port: '' }], [{ path: '' }], [{ backlog: 5 }], [{}, 1], [{ port: 1.5 }]]) {
      try { handover(net.createServer()).listen(...wrong); console.log('no error') } catch (error) { console.log(error.code, error.message) }
    }
    try { handover(dgram.createSocket('udp4')).bind(70000) } catch (error) { console.log(error.code, error.message) }
    console.log(handover.state)
    process.exit()`
  const [off, on] = [runModule(script, { HANDOVER: 'off' }), runModule(script)]
  expect(off.stdout.split('\n').length).toBeGreaterThan(8)
  expect(on.stdout).toBe(off.stdout)
})
