/**
 * handover drill against servers of this process: what it counts as lost and names, and when it reloads nothing at all.
 */

import { once } from 'node:events'
import http from 'node:http'
import type net from 'node:net'
import type { ReloadOutcome } from '@handover/core/internal'
import { expect, onTestFinished, test } from 'vitest'
import { drilled, drilledJson, nothing, outcome } from '../../helpers/drilling.js'
import { Failure, placesOf, type DrillOptions } from '../../helpers/internals.js'
import { closedPort, rawServer } from '../../helpers/misbehaving.js'

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
  const waiting = await drilled({ url: `http://127.0.0.1:${silent.target.port}`, answerTimeoutMs: 1_000 }, nothing)
  expect(waiting).toMatchObject({ status: 1, reloads: 0 })
  expect(waiting.text).toContain('no whole answer within 1000 ms')
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
  for (const options of [{}, { listeners: ['udp 127.0.0.1:53'] }, { url: 'http://127.0.0.1:1', connections: 10_001 }] satisfies Partial<DrillOptions>[]) {
    const error: unknown = await drilled(options, () => Promise.reject(new Error('it is reloaded'))).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(Failure)
    expect(error).toMatchObject({ status: 2, message: expect.stringMatching(/^handover drill: .*\. Nothing was reloaded\.$/) as string })
  }
})

test.each([
  [{ listeners: ['tcp [::]:3000'] }, ['http://127.0.0.1:3000/', 'https://127.0.0.1:3000/']],
  [{ listeners: ['tcp [::1]:3000'] }, ['http://[::1]:3000/', 'https://[::1]:3000/']],
  [{ listeners: ['udp 0.0.0.0:53', 'unix @abstract', 'tcp 10.0.0.1:80'], path: '/health?a=b' },
    ['/health?a=b by unix @abstract', '/health?a=b by TLS on unix @abstract', 'http://10.0.0.1:80/health?a=b', 'https://10.0.0.1:80/health?a=b']],
  [{ url: 'https://[::1]/deep?q=1' }, ['https://[::1]:443/deep?q=1']],
  [{ url: 'http://localhost:8080/', path: '/health' }, ['http://localhost:8080/health']]
])('%j leads to %j', (where, names) => {
  expect(placesOf({ listeners: [], ...where }).map(({ name }) => name)).toEqual(names)
})
