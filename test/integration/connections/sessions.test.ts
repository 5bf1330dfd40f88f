/**
 * Sessions of HTTP/2, in the clear and over TLS, move between two streams: their clients notice nothing, whatever their
 * settings and windows are.
 */

import { once } from 'node:events'
import { renameSync, symlinkSync } from 'node:fs'
import http2 from 'node:http2'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { programPath } from '../../helpers/program.js'
import { Generations } from '../../helpers/generations.js'
import { drained, type DrainReport } from '../../helpers/peers.js'
import { Folder } from '../../helpers/plan.js'
import { SessionLoad } from '../../helpers/session-load.js'

const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))
const sessions = 100
const script = programPath('sessions.mjs')
const options = JSON.stringify({ undoWindow: 100, drainTimeout: 60_000 })
type Kind = 'h2c' | 'h2'
const kinds: readonly Kind[] = ['h2c', 'h2']
const urlOf = (generations: Generations, kind: Kind): string => `http${kind === 'h2' ? 's' : ''}://127.0.0.1:${(generations.targets[0] as { port: number }).port}`

describe.for(kinds)(`${sessions} sessions of %s, reloaded ${reloads} times`, { timeout: 300_000 }, (kind) => {
  let generations: Generations
  let load: SessionLoad
  let reports: DrainReport[]

  beforeAll(async () => {
    generations = await Generations.start({ script, listen: '127.0.0.1:0', env: { KIND: kind, OPTIONS: options } })
    load = new SessionLoad(urlOf(generations, kind), { sessions, thinkMs: [0, 0, 20, 60, 500] })
    await load.until(() => load.served(1) === sessions)
    for (let index = 0; index < reloads; index++) {
      await generations.reload(index % 2 === 0 ? 'signal' : 'rendezvous')
      await load.until(() => load.served(generations.count) === sessions)
    }
    reports = await drained(generations)
    await load.stop()
    console.log(`${reloads} reloads, ${load.answers} streams answered, ${load.pings} pings answered, ${load.lost.length} lost, ${load.closed} closed, ${load.goaways.length} GOAWAYs`)
  }, 300_000)

  afterAll(async () => { await generations[Symbol.asyncDispose]() })

  test('no stream is lost, no session is closed or told to go', () => {
    expect(load).toMatchObject({ lost: [], goaways: [], closed: 0 })
    expect(load.pings).toBeGreaterThan(0)
  })

  test('every session moves at every reload', () => {
    const connections = { open: sessions, moved: sessions, drained: 0, cut: 0, stayed: {} }
    for (const report of reports) expect(report).toMatchObject({ connections, requestsCut: [] })
    expect(reports).toHaveLength(reloads)
  })

  test('no server sees an error', () => {
    expect(generations.events.filter(({ event }) => event === 'sessionError' || event === 'streamError')).toEqual([])
  })
})

const nodes = [process.execPath, ...(process.env['HANDOVER_TEST_NODES'] ?? '').split(':').filter((binary) => binary !== '')]

test.skipIf(nodes.length === 1).for(kinds)(`sessions of %s move through ${nodes.length} versions of Node and back`, { timeout: 300_000 }, async (kind) => {
  using folder = new Folder()
  const use = (binary: string): void => {
    symlinkSync(binary, folder.at('new'))
    renameSync(folder.at('new'), folder.at('node'))
  }
  use(nodes[0]!)
  await using generations = await Generations.start({
    script, listen: '127.0.0.1:0', node: 'node', env: { KIND: kind, OPTIONS: options, PATH: `${folder.at('.')}:${process.env['PATH'] ?? ''}` }
  })
  const load = new SessionLoad(urlOf(generations, kind), { sessions: 30, thinkMs: [0, 20, 200] })
  await load.until(() => load.served(1) === 30)
  for (const node of [...nodes.slice(1), ...nodes.toReversed().slice(1)]) {
    use(node)
    await generations.reload('signal')
    await load.until(() => load.served(generations.count) === 30)
  }
  for (const report of await drained(generations)) expect(report).toMatchObject({ connections: { open: 30, moved: 30, stayed: {} } })
  await load.stop()
  expect(load).toMatchObject({ lost: [], goaways: [], closed: 0 })
  expect(new Set(generations.events.filter(({ event }) => event === 'boot').map(({ node }) => node)).size).toBe(nodes.length)
})

/** A server of one generation, and what its drain says in the end. */
async function start(kind: Kind, settings: object): Promise<{ generations: Generations; report: () => Promise<DrainReport> }> {
  const generations = await Generations.start({ script, listen: '127.0.0.1:0', env: { KIND: kind, PRINT: '1', OPTIONS: JSON.stringify({ undoWindow: 100, ...settings }) } })
  onTestFinished(() => generations[Symbol.asyncDispose]())
  return { generations, report: async () => (await drained(generations))[0]! }
}

function connect(url: string): http2.ClientHttp2Session {
  const session = http2.connect(url, { rejectUnauthorized: false })
  session.on('error', () => undefined)
  onTestFinished(() => { session.destroy() })
  return session
}

async function ask(session: http2.ClientHttp2Session, path: string): Promise<http2.IncomingHttpHeaders> {
  const stream = session.request({ ':path': path, ':method': 'GET' })
  const answered = once(stream, 'response') as Promise<[http2.IncomingHttpHeaders]>
  await Promise.all([answered, stream.toArray()])
  return (await answered)[0]
}

test.for(kinds)('%s: a session that always has a stream open gets GOAWAY before the deadline', async (kind) => {
  const { generations, report } = await start(kind, { drainTimeout: 3_000 })
  const session = connect(urlOf(generations, kind))
  const goaway = once(session, 'goaway')
  session.request({ ':path': '/?ms=600000' }).on('error', () => undefined).resume()
  await generations.until(() => generations.events.some(({ event }) => event === 'request'))
  await generations.reload('signal')
  await goaway
  const connections = { open: 1, moved: 0, drained: 0, cut: 1, stayed: { 'HTTP/2, never between two streams': 1 } }
  expect(await report()).toMatchObject({ connections })
})

test.for(kinds)('%s: server-sent events end before the deadline, as their client expects it, with a hint when to come back', async (kind) => {
  const { generations, report } = await start(kind, { drainTimeout: 4_000 })
  const session = connect(urlOf(generations, kind))
  const stream = session.request({ ':path': '/?events' })
  const text = stream.setEncoding('utf8').toArray() as Promise<string[]>
  await once(stream, 'response')
  await generations.reload('signal')
  expect((await text).join('')).toMatch(/^(data: 1\n\n)+retry: 1000\n\n$/)
  expect(stream.rstCode).toBe(0)
  expect(await report()).toMatchObject({ connections: { open: 1, cut: 0 }, requestsCut: [] })
  expect(generations.events.filter(({ event }) => event === 'streamError')).toEqual([])
})

test.for(kinds)('%s: a session moves when its long stream has ended, and knows its peer', async (kind) => {
  const { generations, report } = await start(kind, {})
  const session = connect(urlOf(generations, kind))
  const stream = ask(session, '/?ms=1000')
  await generations.until(() => generations.events.some(({ event }) => event === 'request'))
  await generations.reload('signal')
  expect(await stream).toMatchObject({ 'x-version': '1' })
  expect(await report()).toMatchObject({ connections: { moved: 1, stayed: {} } })
  expect(await ask(session, '/')).toMatchObject({ 'x-version': '2', 'x-peer': `127.0.0.1 ${session.socket.localPort}` })
})

test.for(kinds)('%s: a client that leaves, before the move or after it, ends its session in the process that has it', async (kind) => {
  const { generations, report } = await start(kind, {})
  const [first, second] = [connect(urlOf(generations, kind)), connect(urlOf(generations, kind))]
  await Promise.all([ask(first, '/'), ask(second, '/')])
  const reload = generations.reload('signal')
  first.destroy()
  await reload
  await report()
  expect(await ask(second, '/')).toMatchObject({ 'x-version': '2' })
  second.close()
  await once(second, 'close')
  await generations.stop()
})

test.for(kinds)('%s: an undo while a stream is open: the session goes on here', async (kind) => {
  const { generations } = await start(kind, { undoWindow: 30_000 })
  const session = connect(urlOf(generations, kind))
  await ask(session, '/')
  // It is answered when it has been sent whole.
  const stream = session.request({ ':path': '/?bytes=100000', ':method': 'POST' })
  const answered = once(stream, 'response') as Promise<[http2.IncomingHttpHeaders]>
  stream.write('begun')
  await generations.until(() => generations.events.filter(({ event }) => event === 'request').length === 2)
  await generations.reload('signal')
  await new Promise((resolve) => { session.ping(resolve) })
  process.kill(generations.serving, 'SIGKILL')
  await generations.until(() => generations.events.some(({ event, report }) => event === 'report' && (report as DrainReport).result === 'undone'))
  stream.end()
  const [[headers]] = await Promise.all([answered, stream.toArray()])
  expect(headers).toMatchObject({ 'x-version': '1' })
  for (let count = 0; count < 5; count++) expect(await ask(session, '/?bytes=30000')).toMatchObject({ 'x-version': '1' })
  expect(session.destroyed).toBe(false)
  // It moves at the next reload.
  process.kill(generations.programs[0]!.pid, 'SIGHUP')
  while ((await ask(session, '/?bytes=30000'))['x-version'] !== '2') await new Promise((resolve) => { setTimeout(resolve, 20) })
})

test('the program reads of a session under TLS what it read before the move', async () => {
  const { generations, report } = await start('h2', {})
  const session = connect(urlOf(generations, 'h2'))
  const { 'x-tls': before } = await ask(session, '/')
  expect(JSON.parse(String(before))).toMatchObject({ encrypted: true, alpn: 'h2', socket: { isTlsSocket: true, isOfServer: true, encrypted: true, alpn: 'h2', protocol: 'TLSv1.3' } })
  await generations.reload('signal')
  await report()
  expect(await ask(session, '/')).toMatchObject({ 'x-version': '2', 'x-tls': before })
})
