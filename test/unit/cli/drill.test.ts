/**
 * handover drill against real servers: what it counts as lost and names, and when it reloads nothing at all.
 */

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import type net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { ReloadOutcome } from '@handover/core/internal'
import type { Report } from '@handover/core'
import { expect, onTestFinished, test } from 'vitest'
import { drill, type DrillOptions, type DrillResult, type DrillStatus, placesOf } from '../../helpers/internals.js'
import { Program, programPath } from '../../helpers/program.js'
import { closedPort, rawServer } from '../../helpers/misbehaving.js'

type Reloaded = Extract<DrillResult, { reload: unknown }>

interface Drilled {
  readonly status: DrillStatus
  readonly text: string
  readonly complaints: string
  readonly reloads: number
}

async function drilled(options: DrillOptions, reload: () => Promise<ReloadOutcome>): Promise<Drilled> {
  const printed: string[] = []
  const complained: string[] = []
  let reloads = 0
  const status = await drill({ durationMs: 400, connections: 20, ...options }, {
    reload: () => {
      reloads += 1
      return reload()
    },
    print: (text) => printed.push(text),
    complain: (text) => complained.push(text)
  })
  return { status, text: printed.join('\n'), complaints: complained.join('\n'), reloads }
}

async function drilledJson(options: DrillOptions, reload: () => Promise<ReloadOutcome>): Promise<{ status: DrillStatus; result: Reloaded }> {
  const { status, text } = await drilled({ ...options, json: true }, reload)
  return { status, result: JSON.parse(text) as Reloaded }
}

const outcome = (part: Partial<ReloadOutcome> = {}): ReloadOutcome => ({ ok: true, at: Date.now(), ms: 1, switched: [], reports: [], serving: [{ pid: process.pid, generation: 2 }], ...part })
const nothing = async (): Promise<ReloadOutcome> => outcome()

/** A server without Handover, in this process. */
async function plainServer(listener: http.RequestListener): Promise<{ server: http.Server; url: string; port: number }> {
  const server = http.createServer({ keepAliveTimeout: 65_000 }, listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as net.AddressInfo
  return { server, port, url: `http://127.0.0.1:${port}/` }
}

/** A server with Handover, in a process of its own, and a reload of it by signal. */
async function reloadable(env: Record<string, string>): Promise<{ program: Program; listener: string; reload: () => Promise<ReloadOutcome> }> {
  const program = Program.start(programPath('server.mjs'), { env })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening')
  const listener = typeof address === 'string' ? `unix ${address}` : `tcp 127.0.0.1:${(address as net.AddressInfo).port}`
  const reload = async (): Promise<ReloadOutcome> => {
    const at = Date.now()
    const report = (await program.hangUp()).report as Report
    return outcome({ at, ms: Date.now() - at, reports: [report], serving: [report.successor!] })
  }
  return { program, listener, reload }
}

test('a reload by Handover loses nothing and keeps every connection open, and the drill ends with 0', async () => {
  const { listener, reload } = await reloadable({})
  const { status, result } = await drilledJson({ listeners: ['udp 127.0.0.1:1', listener] }, reload)
  expect(result).toMatchObject({ result: 'reloaded', status: 200, lost: 0, losses: [], error: null })
  expect(result.keptOpen).toMatchObject({ clients: 18, before: { opened: 18 }, since: { opened: 0, closedByServer: { total: 0 } } })
  expect(result.newEachTime.since.opened).toBeGreaterThan(0)
  expect(result.requests).toBe(result.answers)
  expect(result.phases.before.answered + result.phases.reload.answered + result.phases.after.answered).toBe(result.answers)
  for (const phase of Object.values(result.phases)) expect(phase.answered).toBeGreaterThan(0)
  expect(result.reload?.serving[0]?.generation).toBe(2)
  expect(status).toBe(0)
})

test('a reload over TLS loses nothing, nobody has to say that it is TLS, and a path of its own may be named', async () => {
  const { listener, reload } = await reloadable({ KIND: 'https' })
  const { status, text } = await drilled({ listeners: [listener], path: '/slow?ms=20' }, reload)
  expect(text).toMatch(/^GET https:\/\/127\.0\.0\.1:\d+\/slow\?ms=20: 18 clients on connections that stay open, 2 with a new one each time; 200 is the right answer\.$/m)
  expect(text).toMatch(/^Nothing was lost: [\d,]+ requests were sent and [\d,]+ answered\.$/m)
  expect(status).toBe(0)
})

test('a reload on a Unix socket loses nothing', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-drill-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const { listener, reload } = await reloadable({ LISTEN: `unix:${path.join(folder, 'app.sock')}` })
  const { status, text } = await drilled({ listeners: [listener], https: false }, reload)
  expect(text).toContain(`GET / by unix ${path.join(folder, 'app.sock')}: `)
  expect(text).toMatch(/^Reloaded in [\d,]+ ms: process \d+ \(generation 2\) serves now\.$/m)
  expect(status).toBe(0)
})

test('a server that closes and starts again loses requests; each is named with its time, its connection and what came, and the drill ends with 1', async () => {
  const pending = new Set<http.ServerResponse>()
  let arrived: () => void = () => {}
  const { server, url, port } = await plainServer((_, response) => {
    pending.add(response)
    arrived()
    setTimeout(() => {
      pending.delete(response)
      response.end('ok')
    }, 20)
  })
  const restart = async (): Promise<ReloadOutcome> => {
    while (pending.size === 0) await new Promise<void>((resolve) => { arrived = resolve })
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
    await once(server.listen(port, '127.0.0.1'), 'listening')
    return outcome()
  }
  const { status, result } = await drilledJson({ url }, restart)
  expect(result.lost).toBeGreaterThan(0)
  expect(result.answers + result.lost).toBe(result.requests)
  expect(result.phases.before.lost).toBe(0)
  expect(result.phases.reload.lost + result.phases.after.lost).toBe(result.lost)
  const loss = result.losses.find(({ request }) => request > 0)!
  expect(loss.reason).toMatch(/^(closed|reset)$/)
  expect(loss.localPort).toBeGreaterThan(0)
  expect(result.keptOpen.since.opened).toBeGreaterThan(0)
  expect(status).toBe(1)

  const again = await drilled({ url }, restart)
  expect(again.text).toMatch(/^ {2}[+-]\d\.\d{3} s {2}(new connection|connection that stays open) from port \d+: its request \d+ was sent; after [\d.]+ ms: the (server closed the connection|connection was reset: ECONNRESET)$/m)
  expect(again.text).toMatch(/^LOST: \d+ of [\d,]+ requests\. .*Connections were closed under requests/m)
  expect(again.status).toBe(1)
})

test('a port that closes for a while is refused connects, which are lost requests', async () => {
  const { server, url, port } = await plainServer((_, response) => response.end('ok'))
  const { status, result } = await drilledJson({ url, durationMs: 300 }, async () => {
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
    setTimeout(() => server.listen(port, '127.0.0.1'), 200) // longer than any client thinks
    await once(server, 'listening')
    return outcome()
  })
  expect(result.losses.filter(({ reason }) => reason === 'refused').length).toBeGreaterThan(0)
  expect(status).toBe(1)
})

test('another status than before the reload is a lost request, be it a 404 or a 200', async () => {
  for (const [before, later] of [[200, 503], [200, 404], [302, 200]] as const) {
    let changed: (() => void) | undefined
    const { url } = await plainServer((_, response) => {
      response.writeHead(changed === undefined ? before : later).end()
      changed?.()
    })
    const { status, result } = await drilledJson({ url, durationMs: 200 }, async () => {
      await new Promise<void>((resolve) => { changed = resolve })
      return outcome()
    })
    expect(result.status).toBe(before)
    expect(result.losses[0]).toMatchObject({ reason: 'status', error: `status ${later} instead of ${before}` })
    expect(result.phases.before).toMatchObject({ lost: 0 })
    expect(status).toBe(1)
  }
})

test('an app that answers 404 or says its own things in headers is answered all the same, where it does so before the reload', async () => {
  const { url } = await plainServer((_, response) => {
    response.writeHead(404, { 'x-request-id': 'its own', 'x-version': '2', 'content-type': 'application/json' }).end('not even JSON')
  })
  const { status, text } = await drilled({ url, durationMs: 200 }, nothing)
  expect(text).toContain('404 is the right answer.')
  expect(status).toBe(0)
})

test('an announced close is counted and is no loss', async () => {
  let closing = 0
  let enough: (() => void) | undefined
  const { url } = await plainServer((_, response) => {
    if (enough !== undefined) {
      response.setHeader('connection', 'close')
      if (++closing === 30) enough()
    }
    response.end('ok')
  })
  const { status, text } = await drilled({ url, durationMs: 300 }, async () => {
    await new Promise<void>((resolve) => { enough = resolve })
    return outcome()
  })
  expect(text).toMatch(/since then the server closed (\d+) \(\1 announced by Connection: close, 0 idle and unannounced, 0 idle and reset\)\.$/m)
  expect(text).toMatch(/^Nothing was lost:/m)
  expect(status).toBe(0)
})

test('a reload that fails ends the drill with 1 although nothing was lost, and its own words are printed', async () => {
  const { url } = await plainServer((_, response) => response.end('ok'))
  const message = 'process 7 exited with 1. Process 6 keeps serving. See its stderr.'
  const failed = await drilled({ url, durationMs: 100 }, async () => outcome({ ok: false, error: { code: 'HANDOVER_SUCCESSOR_EXIT', message, stderr: '' } }))
  expect(failed.text).toContain(`The reload FAILED after 1 ms: ${message}`)
  expect(failed.text).toMatch(/^Nothing was lost: .*, but the reload failed\.$/m)
  expect(failed.status).toBe(1)
  const unheard = await drilled({ url, durationMs: 100 }, () => Promise.reject(new Error('nobody answers at the control socket')))
  expect(unheard.text).toContain('The reload FAILED: nobody answers at the control socket')
  expect(unheard.status).toBe(1)
})

test('an app that does not answer is not reloaded, and neither is one that answers with a failure or is not HTTP', async () => {
  const { port } = await closedPort()
  const dead = await drilled({ listeners: [`tcp 0.0.0.0:${port}`] }, nothing)
  expect(dead).toMatchObject({ status: 1, reloads: 0 })
  expect(dead.text).toBe(`Not reloaded: the app does not answer GET http://127.0.0.1:${port}/ (ECONNREFUSED), https://127.0.0.1:${port}/ (ECONNREFUSED). What runs is as it was. Start the app, or name a URL that answers.`)

  const { url } = await plainServer((_, response) => response.writeHead(500).end())
  const failing = await drilled({ url }, nothing)
  expect(failing).toMatchObject({ status: 1, reloads: 0 })
  expect(failing.text).toContain('is answered with 500 already')

  await using silent = await rawServer(() => {})
  const waiting = await drilled({ url: `http://127.0.0.1:${silent.target.port}`, answerTimeoutMs: 50 }, nothing)
  expect(waiting).toMatchObject({ status: 1, reloads: 0 })
  expect(waiting.text).toContain('no whole answer within 50 ms')
})

test('an app that loses requests before any reload is not reloaded, and the losses are named', async () => {
  let requests = 0
  const { url } = await plainServer((request, response) => {
    if (++requests > 5) request.socket.resetAndDestroy()
    else response.end('ok')
  })
  const { status, text, reloads } = await drilled({ url }, nothing)
  expect({ status, reloads }).toEqual({ status: 1, reloads: 0 })
  expect(text).toMatch(/connection was reset: ECONNRESET/)
  expect(text).toMatch(/^Not reloaded: \d+ of \d+ requests were lost before any reload\./m)
})

test('mistaken options end the drill with 2, and nothing is sent or reloaded', async () => {
  for (const options of [{}, { url: 'ftp://localhost/' }, { url: 'nonsense' }, { listeners: ['udp 127.0.0.1:53'] }, { url: 'http://127.0.0.1:1', path: 'no-slash' },
    { url: 'http://127.0.0.1:1', connections: 0 }, { url: 'http://127.0.0.1:1', connections: NaN }, { url: 'http://127.0.0.1:1', durationMs: -1 }] satisfies DrillOptions[]) {
    const { status, complaints, text, reloads } = await drilled(options, nothing)
    expect({ status, text, reloads }).toEqual({ status: 2, text: '', reloads: 0 })
    expect(complaints).toMatch(/^handover drill: .*\. Nothing was reloaded\.$/)
  }
})

test.each([
  [{ listeners: ['tcp 0.0.0.0:3000'], https: false }, ['http://127.0.0.1:3000/']],
  [{ listeners: ['tcp [::]:3000'] }, ['http://127.0.0.1:3000/', 'https://127.0.0.1:3000/']],
  [{ listeners: ['tcp [::1]:3000'], https: true }, ['https://[::1]:3000/']],
  [{ listeners: ['udp 0.0.0.0:53', 'unix @abstract', 'tcp 10.0.0.1:80'], https: false, path: '/health?a=b' }, ['/health?a=b by unix @abstract', 'http://10.0.0.1:80/health?a=b']],
  [{ url: 'https://[::1]/deep?q=1' }, ['https://[::1]:443/deep?q=1']],
  [{ url: 'http://localhost:8080/', path: '/health' }, ['http://localhost:8080/health']]
])('%j leads to %j', (where, names) => {
  const places = placesOf(where)
  expect(typeof places === 'string' ? places : places.map(({ name }) => name)).toEqual(names)
})
