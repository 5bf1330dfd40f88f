/**
 * HTTP/2, secure and clear, where its sessions do not move: over TLS, or because that is off. The client is told with GOAWAY, and no stream
 * is lost. Sessions that move: test/integration/connections/sessions.test.ts.
 */

import http2 from 'node:http2'
import https from 'node:https'
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { Program, programPath, waitFor } from '../../helpers/program.js'
import { Generations } from '../../helpers/generations.js'
import { Http2Load, type Http2Result } from '../../helpers/http2-load.js'

const reloads = Math.min(20, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 20))
const script = programPath('protocols.mjs')
const urlOf = (kind: string, { port }: { port: number }): string => `${kind === 'h2c' ? 'http' : 'https'}://127.0.0.1:${port}`

describe.for(['h2', 'h2c', 'h2-allow1'])(`%s, reloaded ${reloads} times under load`, { timeout: 300_000 }, (kind) => {
  let generations: Generations
  let result: Http2Result

  beforeAll(async () => {
    generations = await Generations.start({ script, listen: '127.0.0.1:0', env: { KIND: kind, OPTIONS: '{"move":{"http2":false}}' } })
    const load = new Http2Load(urlOf(kind, generations.targets[0] as { port: number } & object), 20, 30)
    await load.until(() => load.versions.has('1'))
    for (let index = 0; index < reloads; index++) {
      await generations.reload(index % 2 === 0 ? 'signal' : 'rendezvous')
      await load.until(() => load.versions.has(String(generations.count)))
    }
    result = await load.stop()
    console.log(`${kind}: ${reloads} reloads, ${result.answers} streams answered, ${result.lost.length} lost, ${result.told.length} told, ${result.sessions} sessions, ${result.goaways} GOAWAYs`)
  }, 300_000)

  afterAll(async () => { await generations[Symbol.asyncDispose]() })

  test('no stream is lost', () => {
    expect(result).toMatchObject({ lost: [] })
    expect(result.answers).toBeGreaterThan(20 * reloads)
  })

  test('what was refused by a GOAWAY was not begun', async () => {
    const begun = (): Set<unknown> => new Set(generations.events.filter(({ event }) => event === 'request').map(({ url }) => url))
    await generations.until(() => begun().size >= result.answers)
    expect(begun().size).toBe(result.answers)
    expect(result.told.filter((path) => begun().has(path))).toEqual([])
  })

  test('every session is told with GOAWAY before it ends', () => {
    expect(result).toMatchObject({ untold: 0 })
    expect(result.goaways).toBeGreaterThanOrEqual(reloads)
    expect(result.sessions).toBe(reloads + 1)
  })

  test('every version answered, each from a process of its own', () => {
    expect(result.versions.size).toBe(reloads + 1)
    expect(result.pids.size).toBe(reloads + 1)
  })

  test('one process is left, every other has ended with status 0, and no drain cut anything', async () => {
    await waitFor(() => generations.alive.length === 1)
    const exits = (): unknown[] => generations.events.filter(({ event }) => event === 'exit').map(({ code }) => code)
    await generations.until(() => exits().length === reloads)
    expect(new Set(exits())).toEqual(new Set([0]))
    for (const { event, report } of generations.events) if (event === 'report') expect(report).toMatchObject({ connections: { cut: 0 }, requestsCut: [] })
  })
})

async function start(kind: string, options: object = {}): Promise<{ program: Program; url: string }> {
  const program = Program.start(script, { env: { KIND: kind, OPTIONS: JSON.stringify(options) } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening')
  return { program, url: urlOf(kind, address as { port: number }) }
}

function connect(url: string): http2.ClientHttp2Session {
  const session = http2.connect(url, { rejectUnauthorized: false })
  session.on('error', () => undefined)
  onTestFinished(() => { session.destroy() })
  return session
}

const bodyOf = async (stream: http2.ClientHttp2Stream): Promise<string> => (await stream.setEncoding('utf8').toArray()).join('')

describe.for(['h2', 'h2c'])('%s, when it stops', (kind) => {
  test('an idle session gets GOAWAY, and the process ends with status 0', async () => {
    const { program, url } = await start(kind, { linger: 60_000, drainTimeout: 60_000 })
    const session = connect(url)
    await bodyOf(session.request({ ':path': '/' }))
    process.kill(program.pid, 'SIGTERM')
    const [code] = await once(session, 'goaway') as [number]
    expect(code).toBe(http2.constants.NGHTTP2_NO_ERROR)
    expect(await program.ended).toEqual({ code: 0, signal: null })
    expect((await program.event('report'))['report']).toMatchObject({ result: 'stopped', connections: { open: 1, drained: 1, closedIdle: 0, cut: 0 } })
  })

  test('streams in flight get their whole answers', async () => {
    const { program, url } = await start(kind)
    const session = connect(url)
    const bodies = Array.from({ length: 10 }, (_, index) => bodyOf(session.request({ ':path': `/?ms=500&id=${index}` })))
    await program.event('request', ({ url: path }) => String(path).endsWith('id=9'))
    process.kill(program.pid, 'SIGTERM')
    expect(await Promise.all(bodies)).toEqual(Array.from({ length: 10 }, () => `1 ${program.pid}`))
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })

  test('a stream in flight at the deadline is cut and named', async () => {
    const { program, url } = await start(kind, { drainTimeout: 1_000 })
    const stream = connect(url).request({ ':path': '/slow?ms=600000' })
    stream.on('error', () => undefined)
    await program.event('request')
    process.kill(program.pid, 'SIGTERM')
    expect(await program.ended).toEqual({ code: 0, signal: null })
    expect((await program.event('report'))['report']).toMatchObject({
      connections: { open: 1, drained: 0, closedIdle: 0, cut: 1 },
      requestsCut: [{ method: 'GET', path: '/slow', ms: expect.any(Number) as number }]
    })
  })
})

test('a session whose TLS handshake comes in the drain has its first streams answered', async () => {
  const { program, url } = await start('h2')
  const { port } = new URL(url)
  const idle = connect(url)
  const plain = net.connect(Number(port), '127.0.0.1')
  await once(plain, 'connect')
  await bodyOf(idle.request({ ':path': '/' })) // the plain one was accepted before this one was answered
  process.kill(program.pid, 'SIGTERM')
  await program.event('draining')
  const session = http2.connect(url, { createConnection: () => tls.connect({ socket: plain, ALPNProtocols: ['h2'], rejectUnauthorized: false }) })
  onTestFinished(() => { session.destroy() })
  const bodies = [1, 2, 3].map((id) => bodyOf(session.request({ ':path': `/?id=${id}` })))
  const goaway = once(session, 'goaway')
  expect(await Promise.all(bodies)).toEqual([1, 2, 3].map(() => `1 ${program.pid}`))
  await goaway
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect((await program.event('report'))['report']).toMatchObject({ connections: { open: 2, drained: 2, closedIdle: 0, cut: 0 } })
})

test('an HTTP/1 client of an HTTP/2 server is told with Connection: close', async () => {
  const { program, url } = await start('h2-allow1')
  const agent = new https.Agent({ keepAlive: true, rejectUnauthorized: false })
  onTestFinished(() => { agent.destroy() })
  const ask = async (path: string): Promise<{ connection: string | undefined; body: string }> => {
    const [answer] = await once(https.get(`${url}${path}`, { agent }), 'response') as [import('node:http').IncomingMessage]
    return { connection: answer.headers.connection, body: (await answer.setEncoding('utf8').toArray()).join('') }
  }
  expect((await ask('/')).connection).toBe('keep-alive')
  const slow = ask('/?ms=2000')
  await program.event('request', ({ url: path }) => path === '/?ms=2000')
  process.kill(program.pid, 'SIGTERM')
  expect(await slow).toEqual({ connection: 'close', body: `1 ${program.pid}` })
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect((await program.event('report'))['report']).toMatchObject({ connections: { open: 1, drained: 1, closedIdle: 0, cut: 0 } })
})
