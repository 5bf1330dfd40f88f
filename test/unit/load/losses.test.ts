/**
 * The strict client sees each kind of loss, once per request, and takes nothing else for a loss.
 */

import { type LoadOptions, type LoadResult, type Target, startLoad } from '@handover/load'
import { expect, test } from 'vitest'
import { closedPort, rawServer, right } from '../../helpers/misbehaving.js'

/** One client that thinks for long, so that a test sees one request, or few. */
const oneRequest: LoadOptions = { keepAlive: { clients: 1, thinkMs: 60_000 } }
const oneAfterAnother: LoadOptions = { keepAlive: { clients: 1 } }

async function untilLost(target: Target, options: LoadOptions = oneAfterAnother): Promise<LoadResult> {
  const load = startLoad(target, { answerTimeoutMs: 5000, ...options })
  try {
    await load.until(({ lost }) => lost > 0)
  } finally {
    await load.stop()
  }
  return load.stop()
}

test('a refused connect is a lost request', async () => {
  const { requests, answers, opened, losses } = await untilLost(await closedPort())
  expect(answers).toBe(0)
  expect(opened).toBe(0)
  expect(requests).toBe(losses.length)
  expect(losses[0]).toMatchObject({ kind: 'keep-alive', reason: 'refused', error: 'ECONNREFUSED', bytes: 0, request: 0 })
})

test('a Unix path that is gone is a refused connect', async () => {
  const { losses } = await untilLost({ path: '/nonexistent/handover.sock' })
  expect(losses[0]).toMatchObject({ reason: 'refused', error: 'ENOENT' })
})

test('a connection that is reset before the answer is a lost request', async () => {
  await using server = await rawServer((socket) => socket.resetAndDestroy())
  const { losses } = await untilLost(server.target)
  expect(losses[0]).toMatchObject({ reason: 'reset', error: 'ECONNRESET', bytes: 0, request: 1 })
})

test('a reset after the first byte of an answer is a lost request, and the byte is counted', async () => {
  await using server = await rawServer((socket) => socket.write('H', () => setTimeout(() => socket.resetAndDestroy(), 50)))
  const { losses } = await untilLost(server.target)
  expect(losses[0]).toMatchObject({ reason: 'reset', error: 'ECONNRESET', bytes: 1 })
})

test('a connection that is closed before the first byte of the answer is a lost request', async () => {
  await using server = await rawServer((socket) => socket.end())
  const { losses, closedByServer } = await untilLost(server.target)
  expect(losses[0]).toMatchObject({ reason: 'closed', bytes: 0 })
  expect(closedByServer.total).toBe(0)
})

test('a body that is cut by a close is a lost request', async () => {
  const head = 'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n'
  await using server = await rawServer((socket) => socket.end(`${head}only`))
  const { losses } = await untilLost(server.target)
  expect(losses[0]).toMatchObject({ reason: 'cut', bytes: head.length + 4 })
})

test('a chunked body without its last chunk is a lost request', async () => {
  await using server = await rawServer((socket) => socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n'))
  expect((await untilLost(server.target)).losses[0]).toMatchObject({ reason: 'cut' })
})

test('an answer of which nobody could tell whether it is whole is a lost request', async () => {
  await using server = await rawServer((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nthe end of the connection is the end of the body'))
  expect((await untilLost(server.target)).losses[0]).toMatchObject({ reason: 'malformed' })
})

test('bytes that are not HTTP are a lost request', async () => {
  await using server = await rawServer((socket) => socket.write('SSH-2.0-OpenSSH\r\n'))
  expect((await untilLost(server.target)).losses[0]).toMatchObject({ reason: 'malformed' })
})

test('a 503 is a lost request, and the connection goes on', async () => {
  await using server = await rawServer((socket, index) => {
    socket.write(index === 0 ? 'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n' : right())
  })
  const load = startLoad(server.target, oneAfterAnother)
  await load.until(({ answers }) => answers > 2)
  const { lost, opened, losses } = await load.stop()
  expect(lost).toBe(1)
  expect(losses[0]).toMatchObject({ reason: 'status', error: 'status 503', request: 1 })
  expect(opened).toBe(1)
})

test('an answer that never comes is a lost request at the deadline', async () => {
  await using server = await rawServer(() => {})
  const { losses } = await untilLost(server.target, { ...oneAfterAnother, answerTimeoutMs: 1_000 })
  expect(losses[0]).toMatchObject({ reason: 'timeout', error: 'no whole answer within 1000 ms', bytes: 0 })
})

test('an answer that stops in the middle is a lost request at the deadline', async () => {
  await using server = await rawServer((socket) => socket.write('HTTP/1.1 200 OK\r\n'))
  const { losses } = await untilLost(server.target, { ...oneAfterAnother, answerTimeoutMs: 1_000 })
  expect(losses[0]).toMatchObject({ reason: 'timeout', bytes: 17 })
})

test('a wrong digest is a lost request', async () => {
  await using server = await rawServer((socket, index) => {
    const body = JSON.stringify({ sha256: '0'.repeat(64), length: 4096 })
    if (index === 1) socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  })
  const { losses } = await untilLost(server.target, { post: { clients: 1, pauseMs: 20 } })
  expect(losses[0]).toMatchObject({ kind: 'post', reason: 'wrong' })
  expect(losses[0]?.error).toContain('sha256')
})

test('a close between the two halves of a body is a lost request, since bytes were written', async () => {
  await using server = await rawServer((socket) => socket.end())
  const { losses, closedByServer } = await untilLost(server.target, { post: { clients: 1, pauseMs: 1000 } })
  expect(losses[0]).toMatchObject({ kind: 'post', reason: 'closed', bytes: 0 })
  expect(closedByServer.total).toBe(0)
})

test('a stream that is whole for HTTP but lacks a chunk is a lost request', async () => {
  await using server = await rawServer((socket) => socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nchunk 0\n\r\n0\r\n\r\n'))
  const { losses } = await untilLost(server.target, { stream: { clients: 1, chunks: 2 } })
  expect(losses[0]).toMatchObject({ kind: 'stream', reason: 'wrong' })
})

test('the answer to another request is a lost request', async () => {
  await using server = await rawServer((socket) => socket.write(right('x-request-id: somebody-else\r\n')))
  expect((await untilLost(server.target)).losses[0]).toMatchObject({ reason: 'wrong' })
})

test('a body of one version under the header of another is a lost request', async () => {
  await using server = await rawServer((socket) => {
    socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-version: 2\r\ncontent-length: 15\r\n\r\n{"version":"1"}')
  })
  expect((await untilLost(server.target)).losses[0]).toMatchObject({ reason: 'wrong' })
})

test('a second answer to one request is a loss', async () => {
  await using server = await rawServer((socket) => socket.write(right() + right()))
  const { losses } = await untilLost(server.target, oneRequest)
  expect(losses[0]).toMatchObject({ reason: 'unexpected' })
})

test('requests that are pipelined behind Connection: close are lost, and told', async () => {
  await using server = await rawServer((socket) => socket.end(right('connection: close\r\n')))
  const { losses } = await untilLost(server.target, { pipelined: { clients: 1, depth: 4, thinkMs: 60_000 } })
  expect(losses.map(({ reason }) => reason)).toEqual(['told', 'told', 'told'])
})

test('a request that is written while the close is on its way is lost', async () => {
  // The close is sent with the answer: the client, which does not think, writes before it can see it.
  await using server = await rawServer((socket) => socket.end(right()))
  const load = startLoad(server.target, oneAfterAnother)
  await load.until(({ lost }) => lost > 0)
  const { losses, kinds } = await load.stop()
  expect(losses[0]).toMatchObject({ reason: expect.stringMatching(/closed|reset/), bytes: 0, request: 2 })
  expect(kinds['keep-alive']?.answers).toBeGreaterThan(0)
})

test('a close within the round trip after the decision to send is a lost request', async () => {
  await using server = await rawServer((socket) => socket.write(right()), (socket) => setTimeout(() => socket.end(), 300))
  const load = startLoad(server.target, { keepAlive: { clients: 1, roundTripMs: 10_000 } })
  await load.until(({ lost }) => lost > 0)
  const { losses } = await load.stop()
  expect(losses[0]).toMatchObject({ reason: 'closed', bytes: 0, request: 1 })
})

test('a close of an idle connection before anything is written is counted, and is no loss', async () => {
  await using server = await rawServer((socket) => socket.write(right(), () => setTimeout(() => socket.end(), 20)))
  const load = startLoad(server.target, { keepAlive: { clients: 1, thinkMs: 1000 } })
  await load.until(({ answers }) => answers === 2)
  const { lost, opened, closedByServer } = await load.stop()
  expect(lost).toBe(0)
  expect(opened).toBe(2)
  expect(closedByServer).toMatchObject({ announced: 0, idleReset: 0 })
  expect(closedByServer.idle).toBeGreaterThan(0)
})

test('a reset of an idle connection is counted apart, and is no loss', async () => {
  await using server = await rawServer((socket) => socket.write(right(), () => setTimeout(() => socket.resetAndDestroy(), 20)))
  const load = startLoad(server.target, oneRequest)
  await load.until(({ closedByServer }) => closedByServer.total > 0)
  const { lost, closedByServer } = await load.stop()
  expect(lost).toBe(0)
  expect(closedByServer).toEqual({ total: 1, announced: 0, idle: 0, idleReset: 1 })
})

test('a polite Connection: close is counted as announced, and is no loss', async () => {
  await using server = await rawServer((socket) => socket.end(right('connection: close\r\n')))
  const load = startLoad(server.target, { keepAlive: { clients: 2 } })
  await load.until(({ answers }) => answers >= 20)
  const { lost, closedByServer, answers, opened } = await load.stop()
  expect(lost).toBe(0)
  expect(closedByServer).toEqual({ total: answers, announced: answers, idle: 0, idleReset: 0 })
  expect(opened).toBe(answers)
})

test('nothing is sent twice: the server gets as many requests as the client counts', async () => {
  let received = 0
  await using server = await rawServer((socket, index) => {
    received += 1
    if (index === 3) socket.destroy()
    else socket.write(right())
  })
  const load = startLoad(server.target, { keepAlive: { clients: 3 } })
  await load.until(({ lost }) => lost >= 5)
  const { requests, answers, lost } = await load.stop()
  expect(requests).toBe(answers + lost)
  expect(received).toBe(requests)
})
