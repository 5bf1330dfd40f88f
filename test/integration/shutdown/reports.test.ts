/**
 * What the reports say: true counts, numbers, names; to both processes, on the log, on `events` and on node:diagnostics_channel.
 */

import net from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { waitFor } from '../../helpers/program.js'
import { endsWell, type FinalReport, reportOf, start } from '../../helpers/draining.js'

const upgrade = { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' }

test('the final report of a stop counts every connection by what became of it', async () => {
  const { program, client, idleClient, stop, release } = await start({ options: { linger: 500, drainTimeout: 4_000 } })
  const [answered, streaming, upgraded, idle] = [await client(), await client(), await client(), await idleClient()]
  answered.request('/held')
  streaming.request('/streaming')
  upgraded.request('/echo', upgrade)
  await program.event('request', ({ url }) => url === '/held')
  await program.event('upgrade')
  await streaming.received(/first/)
  await stop()
  release()
  await Promise.all([answered.over, streaming.over, idle.over, upgraded.over])
  const report = await endsWell(program)
  expect(report).toMatchObject({
    result: 'stopped',
    trigger: 'stop',
    predecessor: { pid: program.pid, generation: 1 },
    successor: null,
    listeners: { kept: [], added: [], dropped: [] },
    connections: { open: 4, moved: 0, drained: 1, closedIdle: 2, cut: 1, kinds: {
      http: { moved: 0, drained: 1, closedIdle: 2, cut: 0 }, upgraded: { cut: 1 }
    }, stayed: {} },
    requestsCut: [],
    durations: { launch: null, prepare: null, commit: null, move: null, drain: expect.any(Number) as number }
  })
})

test('after a reload both processes get the final report of the predecessor', async () => {
  const { program, client, idleClient, release } = await start({ options: { linger: 500, drainTimeout: 4_000 } })
  const [answered, upgraded] = [await client(), await client()]
  await idleClient()
  answered.request('/held')
  upgraded.request('/echo', upgrade)
  await program.event('request')
  await program.event('upgrade')
  const switched = (await program.hangUp())['report'] as FinalReport
  const successor = program.serving
  expect(switched).toMatchObject({
    result: 'switched',
    trigger: 'signal',
    predecessor: { pid: program.pid, generation: 1 },
    successor: { pid: successor, generation: 2 },
    connections: { open: 3, moved: 0, drained: 0, closedIdle: 0, cut: 0, kinds: {}, stayed: {} },
    durations: {
      launch: expect.any(Number) as number, prepare: expect.any(Number) as number, commit: expect.any(Number) as number, drain: null
    }
  })
  release()
  expect(await program.ended).toEqual({ code: 0, signal: null })
  const [own, theirs] = await Promise.all([program.pid, successor].map((pid) => program.event('report', (event) => event.pid === pid && reportOf(event).result === 'drained')))
  expect(theirs!['report']).toEqual(own!['report'])
  expect(own!['report']).toMatchObject({
    trigger: 'signal',
    connections: { open: 3, moved: 2, drained: 0, closedIdle: 0, cut: 1, kinds: {
      http: { moved: 2 }, upgraded: { cut: 1 }
    }, stayed: { upgraded: 1 } },
    durations: {
      launch: expect.any(Number) as number, prepare: expect.any(Number) as number, commit: expect.any(Number) as number,
      move: expect.any(Number) as number, drain: expect.any(Number) as number
    }
  })
})

test('a request that the drain deadline cuts after a reload is named in the report that the successor gets', async () => {
  const { program, client } = await start({ options: { linger: 100, drainTimeout: 1_000 } })
  const busy = await client()
  busy.request('/held?token=secret', { method: 'DELETE' })
  await program.event('request')
  await program.hangUp()
  await busy.over
  const theirs = await program.event('report', (event) => event.pid === program.serving && reportOf(event).result === 'drained')
  expect(theirs['report']).toMatchObject({ connections: { open: 1, cut: 1 }, requestsCut: [{ method: 'DELETE', path: '/held', ms: expect.any(Number) as number }] })
})

test('where the deadline cuts thousands of requests the report names the first of them, and still comes to the successor after the close hooks', async () => {
  const { program, address } = await start({ options: { linger: 100, drainTimeout: 4_000, move: false }, env: { CLOSE_MS: '100' } })
  const path = `/held/${'x'.repeat(1_000)}`
  const sockets = Array.from({ length: 1_100 }, () => net.connect(address as net.TcpNetConnectOpts).on('error', () => undefined))
  onTestFinished(() => { for (const socket of sockets) socket.destroy() })
  for (const socket of sockets) socket.write(`GET ${path}?token=secret HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  await program.until(() => program.events.filter(({ event }) => event === 'request').length === sockets.length)
  await program.hangUp()
  const theirs = await program.event('report', (event) => event.pid === program.serving && reportOf(event).result === 'drained')
  const report = reportOf(theirs)
  expect(report).toMatchObject({ connections: { open: 1_100, cut: 1_100 }, requestsCutBeside: 100 })
  expect(report).not.toHaveProperty('cleanupCut')
  await program.event('closed', ({ pid }) => pid === program.pid)
  expect(report.requestsCut).toHaveLength(1_000)
  expect(report.requestsCut[999]).toEqual({ method: 'GET', path: `${path.slice(0, 200)}…`, ms: expect.any(Number) as number })
  await program.stderrMatching(/; cut: (GET \/held\/x{194}… after \d+ ms, ){9}and 1091 more$/m)
})

test('node:diagnostics_channel carries the same events as handover.events', async () => {
  const { program } = await start({ options: { linger: 100 } })
  await program.hangUp()
  await program.ended
  process.kill(program.serving, 'SIGTERM')
  await waitFor(() => program.alive.length === 0)
  await program.until(() => program.events.filter(({ event }) => event === 'exit').length === 2)
  for (const name of ['state', 'report', 'draining']) {
    const events = program.events.filter(({ event }) => event === name).map(({ event: _event, ...detail }) => name === 'report' ? { pid: detail.pid, message: detail['report'] } : { pid: detail.pid, message: 'to' in detail ? { from: detail['from'], to: detail['to'], generation: detail.generation } : { successor: detail['successor'], endsInMs: detail['endsInMs'] } })
    const published = program.events.filter((event) => event.event === 'diagnostics' && event['name'] === name).map(({ pid, message }) => ({ pid, message }))
    expect(published.length).toBeGreaterThan(0)
    expect(published).toEqual(events)
  }
})

test('the last report is kept for who asks later', async () => {
  const { program, stop } = await start()
  await stop()
  await endsWell(program)
  expect(program.stderr).toMatch(/generation 1 \(process \d+\) has stopped: 0 connections drained, 0 closed idle, 0 cut in \d+ ms/)
})
