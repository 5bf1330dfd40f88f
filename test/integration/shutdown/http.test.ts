/**
 * The polite drain of HTTP/1 connections, in a program that is stopped and was never reloaded.
 */

import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Client } from '../../helpers/client.js'
import { endsWell, start } from '../../helpers/draining.js'

describe.for(['http', 'https', 'fastify', 'express5', 'express4'])('%s', (kind) => {
  test('a request in flight gets its whole answer, with Connection: close, and the process ends with status 0', async () => {
    const { program, client, stop, release } = await start({ kind })
    const busy = await client()
    busy.request('/held')
    await program.event('request')
    await stop()
    release()
    expect(await busy.over).toBe('closed')
    expect(busy.text).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*Connection: close\r\n[^]*answer to \/held$/i)
    expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1, closedIdle: 0, cut: 0 }, requestsCut: [] })
  })

  test('an idle connection gets the answer to its next request, with Connection: close', async () => {
    const { program, idleClient, stop } = await start({ kind })
    const idle = await idleClient()
    await stop()
    idle.request('/')
    expect(await idle.over).toBe('closed')
    expect(idle.text).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*Connection: close\r\n[^]*answer to \/$/i)
    expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1, closedIdle: 0, cut: 0 } })
  })

  test('an idle connection is closed after linger', async () => {
    const { program, idleClient, stop } = await start({ kind, options: { linger: 200, drainTimeout: 60_000 } })
    const idle = await idleClient()
    await stop()
    expect(await idle.over).toBe('closed')
    expect(idle.text).toBe('')
    const report = await endsWell(program)
    expect(report).toMatchObject({ connections: { open: 1, drained: 0, closedIdle: 1, cut: 0 } })
    expect(report.durations.drain).toBeGreaterThanOrEqual(200)
    expect(report.durations.drain).toBeLessThan(30_000)
  })

  test('a request in flight at the deadline is cut and named, without its query', async () => {
    const { program, client, stop } = await start({ kind, options: { drainTimeout: 1_000 } })
    const busy = await client()
    busy.request('/held?token=secret')
    await program.event('request')
    await stop()
    await busy.over
    expect(busy.text).toBe('')
    const report = await endsWell(program)
    expect(report).toMatchObject({ connections: { open: 1, drained: 0, closedIdle: 0, cut: 1 }, requestsCut: [{ method: 'GET', path: '/held' }] })
    expect(report.requestsCut[0]!.ms).toBeGreaterThan(500)
    expect(program.stderr).toContain('GET /held after')
    expect(program.stderr).not.toContain('secret')
  })
})

test('an answer whose head went out before the stop is finished', async () => {
  const { program, client, stop, release } = await start({ options: { linger: 200 } })
  const reader = await client()
  reader.request('/streaming')
  await reader.received(/first\n/)
  await stop()
  release()
  await reader.receivedEnd('last\n\r\n0\r\n\r\n')
  expect(await reader.over).toBe('closed')
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, closedIdle: 1 } })
})

test('a connection whose answer ended in the drain stays open for linger from then on', async () => {
  const { program, idleClient, client, stop, release } = await start({ options: { linger: 4_000 } })
  const idle = await idleClient()
  const reader = await client()
  reader.request('/streaming')
  await reader.received(/first\n/)
  await stop()
  await idle.over // linger is over for those that were idle from the beginning
  release()
  await reader.receivedEnd('0\r\n\r\n')
  await wait(500) // the client thinks, for less than linger
  reader.request('/')
  await reader.received(/Connection: close[^]*answer to \/$/)
  expect(await endsWell(program)).toMatchObject({ connections: { open: 2, drained: 1, closedIdle: 1, cut: 0 } })
})

test('a client that never stops asking is told to go by its first answer in the drain', async () => {
  const { program, idleClient, stop } = await start()
  const idle = await idleClient()
  await stop()
  idle.request('/').request('/')
  expect(await idle.over).not.toBe('')
  expect(idle.text.match(/HTTP\/1\.1 200/g)).toHaveLength(1)
  await endsWell(program)
})

test.for(['/keep-alive', '/list', '/pairs'])('a program that writes the head of an answer in its own way is heard, and its client is told to go: %s', async (path) => {
  const { program, idleClient, stop } = await start()
  const idle = await idleClient()
  await idle.request(path).received(/(ok|answer to \/keep-alive)$/)
  const before = idle.text
  idle.text = ''
  await stop()
  idle.request(path)
  expect(await idle.over).toBe('closed')
  const lines = (text: string): string[] => text.split('\r\n').filter((line) => !/^(date|connection|keep-alive):/i.test(line))
  expect(lines(idle.text)).toEqual(lines(before))
  expect(idle.text.match(/^connection:.*|^keep-alive:.*/gim)).toEqual(['Connection: close'])
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1, closedIdle: 0, cut: 0 } })
})

test('a connection that never sent a byte is closed after linger', async () => {
  const { program, client, idleClient, stop } = await start({ options: { linger: 200, drainTimeout: 60_000 } })
  const silent = await client()
  await idleClient() // the silent one was accepted before this one
  await stop()
  expect(await silent.over).toBe('closed')
  expect(await endsWell(program)).toMatchObject({ connections: { open: 2, closedIdle: 2, cut: 0 } })
})

test('a TLS connection that never sent a byte is closed after linger', async () => {
  const { program, address, idleClient, stop } = await start({ kind: 'https', options: { linger: 200, drainTimeout: 60_000 } })
  using silent = await Client.connect(address)
  await idleClient()
  await stop()
  expect(await silent.over).toBe('closed')
  expect(await endsWell(program)).toMatchObject({ connections: { open: 2, closedIdle: 2, cut: 0 } })
})

test('a TLS connection that never sent a request is closed after linger', async () => {
  const { program, client, idleClient, stop } = await start({ kind: 'https', options: { linger: 200, drainTimeout: 60_000 } })
  const silent = await client()
  await idleClient()
  await stop()
  expect(await silent.over).toBe('closed')
  expect(await endsWell(program)).toMatchObject({ connections: { open: 2, closedIdle: 2, cut: 0 } })
})

test('a connection whose TLS handshake comes in the drain is served, and counted once', async () => {
  const { program, address, idleClient, stop } = await start({ kind: 'https' })
  const plain = await Client.connect(address)
  const idle = await idleClient() // the other one was accepted before this one
  await stop()
  using secure = await Client.secure(plain.socket)
  await secure.request('/').received(/Connection: close[^]*answer to \//)
  idle.request('/')
  expect(await endsWell(program)).toMatchObject({ connections: { open: 2, drained: 2, closedIdle: 0, cut: 0 } })
})

test('half a request head does not hold the end beyond the deadline', async () => {
  const { program, client, idleClient, stop } = await start({ options: { linger: 100, drainTimeout: 1_500 } })
  const half = await client()
  half.send('GET / HTTP/1.1\r\nHost: te')
  const idle = await idleClient()
  await stop()
  await idle.over
  expect(await endsWell(program)).toMatchObject({ connections: { open: 2, closedIdle: 1, cut: 1 }, requestsCut: [] })
})

test('half a request head behind an answered request in the same write is not taken for an idle connection', async () => {
  const { program, client, idleClient, stop } = await start({ options: { linger: 200 } })
  const half = await client()
  await half.send('GET / HTTP/1.1\r\nHost: test\r\n\r\nGET /held HT').received(/answer to \//)
  const idle = await idleClient()
  await stop()
  await idle.over
  half.text = ''
  await half.send('TP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
  await program.event('request')
  process.kill(program.pid, 'SIGUSR2')
  await half.received(/answer to \/held/)
  expect(await endsWell(program)).toMatchObject({ connections: { open: 2, drained: 1, closedIdle: 1, cut: 0 } })
})

test('half a request head gets the rest of its time in the drain, and then its answer', async () => {
  const { program, client, idleClient, stop } = await start({ options: { linger: 100 } })
  const half = await client()
  half.send('GET / HTTP/1.1\r\nHost: te')
  const idle = await idleClient()
  await stop()
  await idle.over
  half.send('st\r\n\r\n')
  await half.received(/Connection: close[^]*answer to \/$/)
  expect(await endsWell(program)).toMatchObject({ connections: { drained: 1, closedIdle: 1, cut: 0 } })
})

test('headersTimeout goes on running in the drain: half a request head gets 408', async () => {
  const { program, client, idleClient, stop } = await start(
    { options: { linger: 100, drainTimeout: 60_000 }, server: { headersTimeout: 1_000, connectionsCheckingInterval: 100 } }
  )
  const half = await client()
  half.send('GET / HTTP/1.1\r\nHost: te')
  await idleClient()
  await stop()
  await half.received(/^HTTP\/1\.1 408 /)
  expect((await endsWell(program)).durations.drain).toBeLessThan(30_000)
})

test('requestTimeout goes on running in the drain: half a body gets 408', async () => {
  const { program, client, stop } = await start(
    { options: { drainTimeout: 60_000 }, server: { requestTimeout: 1_000, headersTimeout: 1_000, connectionsCheckingInterval: 100 } }
  )
  const half = await client()
  half.request('/body', { method: 'POST', headers: 'Content-Length: 10\r\n' }).send('half')
  await program.event('request')
  await stop()
  await half.received(/^HTTP\/1\.1 408 /)
  expect((await endsWell(program)).durations.drain).toBeLessThan(30_000)
})

test('a body of which half had arrived is read to its end', async () => {
  const { program, client, stop } = await start()
  const half = await client()
  half.request('/body', { method: 'POST', headers: 'Content-Length: 10\r\n' }).send('first')
  await program.event('request')
  await stop()
  half.send('other')
  await half.received(/Connection: close[^]*10 bytes/)
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1 } })
})

test('a chunked upload in progress is read to its end', async () => {
  const { program, client, stop } = await start()
  const uploading = await client()
  uploading.request('/body', { method: 'POST', headers: 'Transfer-Encoding: chunked\r\n' }).send('5\r\nfirst\r\n')
  await program.event('request')
  await stop()
  uploading.send('6\r\nsecond\r\n')
  uploading.send('0\r\n\r\n')
  await uploading.received(/Connection: close[^]*11 bytes/)
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1 } })
})

test('an upload that is answered before it ends does not make its connection busy for ever', async () => {
  const { program, client, stop } = await start({ options: { linger: 300, drainTimeout: 60_000 } })
  const uploading = await client()
  uploading.request('/early', { method: 'POST', headers: 'Content-Length: 10\r\n' }).send('first')
  await uploading.received(/answer to \/early/)
  uploading.text = ''
  await uploading.send('other').request('/').received(/answer to \/$/)
  uploading.text = ''
  await uploading.request('/early', { method: 'POST', headers: 'Content-Length: 10\r\n' }).send('first').received(/answer to \/early/)
  uploading.send('other')
  await stop()
  await uploading.over
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, closedIdle: 1, cut: 0 } })
})

test('a request that expects 100 Continue in the drain gets it, and its answer', async () => {
  const { program, idleClient, stop } = await start()
  const idle = await idleClient()
  await stop()
  idle.request('/body', { method: 'POST', headers: 'Expect: 100-continue\r\nContent-Length: 4\r\n' })
  await idle.received(/^HTTP\/1\.1 100 Continue\r\n\r\n/)
  idle.send('body')
  await idle.received(/Connection: close[^]*4 bytes/)
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1 } })
})

test('an HTTP/1.0 client that asked for keep-alive gets Connection: close', async () => {
  const { program, client, stop } = await start()
  const old = await client()
  await old.send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n').received(/Connection: keep-alive[^]*answer to \//)
  old.text = ''
  await stop()
  old.send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
  expect(await old.over).toBe('closed')
  expect(old.text).toMatch(/Connection: close[^]*answer to \/$/)
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1 } })
})

test('pipelined requests that are in flight at the stop are all answered, and only the last one says close', async () => {
  const { program, client, stop, release } = await start()
  const pipelining = await client()
  pipelining.request('/held?1').request('/held?2').request('/held?3')
  await program.event('request', ({ url }) => url === '/held?3')
  await stop()
  release()
  expect(await pipelining.over).toBe('closed')
  expect(pipelining.text.match(/answer to \S+?(?=HTTP|$)/g)).toEqual(['answer to /held?1', 'answer to /held?2', 'answer to /held?3'])
  expect(pipelining.text.match(/Connection: (\S+)/g)).toEqual(['Connection: keep-alive', 'Connection: keep-alive', 'Connection: close'])
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1 } })
})

test('a request that is pipelined in the drain behind one in flight is answered too', async () => {
  const { program, client, stop, release } = await start()
  const pipelining = await client()
  pipelining.request('/held?1')
  await program.event('request')
  await stop()
  pipelining.request('/held?2')
  await program.event('request', ({ url }) => url === '/held?2')
  release()
  expect(await pipelining.over).toBe('closed')
  expect(pipelining.text.match(/answer to \S+?(?=HTTP|$)/g)).toEqual(['answer to /held?1', 'answer to /held?2'])
  expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1 } })
})

describe('an upgraded connection', () => {
  const upgrade = 'Connection: Upgrade\r\nUpgrade: echo\r\n'

  test('lives until the deadline', async () => {
    const { program, client, idleClient, stop } = await start({ options: { linger: 100, drainTimeout: 4_000 } })
    const upgraded = await client()
    await upgraded.request('/echo', { headers: upgrade }).received(/\r\n\r\n$/)
    const idle = await idleClient()
    await stop()
    await idle.over
    await upgraded.send('still here').received(/still here/)
    await upgraded.over
    expect(await endsWell(program)).toMatchObject({ connections: { open: 2, drained: 0, closedIdle: 1, cut: 1 }, requestsCut: [] })
  })

  test('lives until the deadline also where it was upgraded in the same write as an earlier request', async () => {
    const { program, client, idleClient, stop } = await start({ options: { linger: 100, drainTimeout: 4_000 } })
    const upgraded = await client()
    await upgraded.send(`GET / HTTP/1.1\r\nHost: test\r\n\r\nGET /echo HTTP/1.1\r\nHost: test\r\n${upgrade}\r\n`).received(/ 101 [^]*\r\n\r\n$/)
    const idle = await idleClient()
    await stop()
    await idle.over
    await upgraded.send('still here').received(/still here/)
    expect(await endsWell(program)).toMatchObject({ connections: { closedIdle: 1, cut: 1 } })
  })

  test('that says goodbye itself lets the process end before the deadline', async () => {
    const { program, client, stop } = await start({ options: { drainTimeout: 60_000 } })
    const upgraded = await client()
    await upgraded.request('/echo', { headers: upgrade }).received(/\r\n\r\n$/)
    await stop()
    upgraded.socket.end()
    expect(await endsWell(program)).toMatchObject({ connections: { open: 1, drained: 1, cut: 0 } })
  })
})

test('a stop without connections ends at once', async () => {
  const { program, stop } = await start({ options: { linger: 60_000, drainTimeout: 60_000 } })
  await stop()
  expect((await endsWell(program)).durations.drain).toBeLessThan(30_000)
})

test('new connections are refused once the drain has begun', async () => {
  const { program, address, idleClient, stop } = await start()
  const idle = await idleClient()
  await stop()
  await expect(Client.connect(address)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  idle.request('/')
  await endsWell(program)
})
