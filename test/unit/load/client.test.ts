/**
 * The strict client finds nothing wrong with a right server, in each kind of traffic and over each kind of socket, and says
 * truly which version answered and when.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type Target, nowMs, referenceHandler, startLoad } from '@handover/load'
import { expect, onTestFinished, test } from 'vitest'
import { everyKind, names } from '../../helpers/every-kind.js'
import { rawServer, right } from '../../helpers/misbehaving.js'
import { certificate } from '../../programs/certificate.mjs'

async function listen(server: http.Server | https.Server, where: { host?: string; port?: number; path?: string } = { host: '127.0.0.1', port: 0 }): Promise<Target> {
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(where, resolve))
  return where.path === undefined ? { host: where.host!, port: (server.address() as AddressInfo).port } : { path: where.path }
}

function directory(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'handover-test-'))
  onTestFinished(() => rmSync(made, { recursive: true }))
  return made
}

async function expectNothingLost(target: Target): Promise<void> {
  const load = startLoad(target, everyKind)
  await load.until(({ kinds }) => names.every((kind) => (kinds[kind]?.answers ?? 0) >= 5))
  const result = await load.stop()
  expect(result.losses).toEqual([])
  expect(result).toMatchObject({ lost: 0, inFlight: 0, notes: [], closedByServer: { total: 0 } })
  expect(result.requests).toBe(result.answers)
  expect(result.kinds['keep-alive']).toMatchObject({ clients: 7, opened: 7 })
  expect(result.kinds.new?.opened).toBe(result.kinds.new?.requests)
  expect(result.versions).toMatchObject([{ version: '1.0.0', pid: process.pid, answers: result.answers }])
}

test('with sliceMs every answer is in the slice of its moment, with the time that it took', async () => {
  const target = await listen(http.createServer(referenceHandler('1.0.0')))
  const load = startLoad(target, { keepAlive: { clients: 3, thinkMs: 2 }, sliceMs: 10 })
  await load.until(({ answers, seconds }) => answers >= 50 && seconds > 0.1)
  const { answers, seconds, slices, latency } = await load.stop()
  const sum = (of: readonly number[]): number => of.reduce((all, each) => all + each, 0)
  expect(sum(slices!.answers)).toBe(answers)
  expect(sum(slices!.lost)).toBe(0)
  expect(Math.max(...slices!.slowest)).toBe(latency.outside.max)
  expect(slices!.answers.length).toBeLessThanOrEqual(Math.ceil(seconds * 100))
  for (const [index, count] of slices!.answers.entries()) expect(slices!.sums[index]).toBeLessThanOrEqual(count * slices!.slowest[index]!)
})

test('a right server loses nothing in any kind of traffic over IPv4', async () => {
  await expectNothingLost(await listen(http.createServer(referenceHandler('1.0.0'))))
})

test('a right server loses nothing in any kind of traffic over IPv6', async () => {
  await expectNothingLost(await listen(http.createServer(referenceHandler('1.0.0')), { host: '::1', port: 0 }))
})

test('a right server loses nothing in any kind of traffic over a Unix socket', async () => {
  await expectNothingLost(await listen(http.createServer(referenceHandler('1.0.0')), { path: path.join(directory(), 'load.sock') }))
})

test('a right server loses nothing in any kind of traffic over TLS', async () => {
  const server = https.createServer(certificate(), referenceHandler('1.0.0'))
  await expectNothingLost({ ...await listen(server), tls: true })
})

test('an answer is whole however it is cut into packets', async () => {
  const answer = 'HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n' +
    '8;some=thing\r\nchunk 0\n\r\n008\r\nchunk 1\n\r\n0\r\ntrailer: 1\r\n\r\n'
  let size = 0
  await using server = await rawServer(async (socket) => {
    size += 1
    for (let at = 0; at < answer.length; at += size) {
      socket.write(answer.slice(at, at + size))
      await new Promise((resolve) => setImmediate(resolve))
    }
  })
  const load = startLoad(server.target, { stream: { clients: 1, chunks: 2 } })
  await load.until(({ answers }) => answers > 30)
  expect((await load.stop()).losses).toEqual([])
})

test('a route that answers 404 from the start switches its kind off with a note and loses nothing', async () => {
  const answer = referenceHandler('1.0.0')
  const target = await listen(http.createServer((req, res) => {
    if (req.url?.startsWith('/stream') === true || req.url === '/echo') res.writeHead(404).end()
    else answer(req, res)
  }))
  const load = startLoad(target, everyKind)
  await load.until(({ notes, kinds }) => notes.length === 2 && (kinds['keep-alive']?.answers ?? 0) > 5)
  const { lost, kinds, notes } = await load.stop()
  expect(lost).toBe(0)
  expect(kinds.stream?.requests).toBe(0)
  expect(kinds.post?.requests).toBe(0)
  expect(notes.join()).toContain('stream is switched off')
})

test('a 404 after a right answer is a loss', async () => {
  await using server = await rawServer((socket, index) => {
    socket.write(index === 1 ? 'HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n' : right())
  })
  const load = startLoad(server.target, { keepAlive: { clients: 1 } })
  await load.until(({ answers }) => answers > 1)
  expect(await load.stop()).toMatchObject({ lost: 1, notes: [] })
})

test('a stop lets requests in flight finish', async () => {
  let answer: (() => void) | undefined
  await using server = await rawServer((socket) => { answer = () => socket.write(right()) })
  const load = startLoad(server.target, { keepAlive: { clients: 1 } })
  await expect.poll(() => answer).toBeDefined()
  const stopped = load.stop()
  answer!()
  expect(await stopped).toMatchObject({ requests: 1, answers: 1, lost: 0, inFlight: 0 })
})

test('a stop ends clients that think, and leaves no socket or timer behind', async () => {
  await using server = await rawServer((socket) => socket.write(right()))
  const before = handles()
  const load = startLoad(server.target, { keepAlive: { clients: 5, thinkMs: 1000 } })
  await load.until(({ answers }) => answers > 0)
  await load.stop()
  await expect.poll(handles).toEqual(before)
  await expect(load.until(() => false)).rejects.toThrow('stopped')
})

test('each version is counted apart, with the moment of its first answer', async () => {
  let version = '1.0.0'
  await using server = await rawServer((socket) => socket.write(right(`x-version: ${version}\r\nx-pid: ${version.length}\r\nx-generation: 7\r\n`)))
  const load = startLoad(server.target, { keepAlive: { clients: 2 } })
  await load.until(({ answers }) => answers > 3)
  const changedAt = nowMs()
  version = '1.0.1-b'
  await load.until(({ versions }) => versions.some((seen) => seen.version === '1.0.1-b'))
  const { versions, answers } = await load.stop()
  expect(versions).toMatchObject([{ version: '1.0.0', pid: 5, generation: '7' }, { version: '1.0.1-b', pid: 7 }])
  expect(versions[1]!.firstAt).toBeGreaterThan(changedAt)
  expect(versions[0]!.answers + versions[1]!.answers).toBe(answers)
})

test('a request belongs to a mark when any part of it lay within', async () => {
  const held: (() => void)[] = []
  await using server = await rawServer((socket) => held.push(() => socket.write(right())))
  const load = startLoad(server.target, { keepAlive: { clients: 1 } })
  for (const [index, mark] of (['none', 'begins before', 'ends after', 'none'] as const).entries()) {
    await expect.poll(() => held.length).toBe(index + 1)
    if (mark === 'begins before') await load.mark('reload')
    if (mark === 'ends after') await load.mark()
    held[index]!()
  }
  await expect.poll(() => held.length).toBe(5)
  expect(load.stats().latency).toMatchObject({ outside: { count: 2 }, reload: { count: 2 } })
  const stopped = load.stop()
  held[4]!()
  await stopped
})

test('the same seed sends the same bodies', async () => {
  const sent: string[] = []
  for (const seed of [5, 5, 6]) {
    let text = ''
    await using server = await rawServer((socket, _, chunk) => {
      text += chunk
      if (text.length > 2000) socket.destroy()
    })
    const load = startLoad(server.target, { post: { clients: 1, bytes: 2000, pauseMs: 0 }, seed })
    await load.until(({ lost }) => lost > 0)
    await load.stop()
    sent.push(text.slice(text.indexOf('\r\n\r\n'), 2000))
  }
  expect(sent[0]).toBe(sent[1])
  expect(sent[0]).not.toBe(sent[2])
})

function handles(): string[] {
  return process.getActiveResourcesInfo().filter((name) => /^(TCPSocketWrap|TCPConnectWrap)$/.test(name)).sort()
}
