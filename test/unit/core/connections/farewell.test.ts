/** An event stream that a drain ends: its program goes on writing until it hears of that. */

import { socketPair } from '@handover/core/fd'
import { closeSync, readSync, writeSync } from 'node:fs'
import http from 'node:http'
import { expect, onTestFinished, test, vi } from 'vitest'
import { ConnectionTracker, deadlineIn } from '../../../helpers/internals.js'
import { waitFor } from '../../../helpers/program.js'

test('events that a program writes behind the end of a stream do not end the process, however late a slow client lets it hear', async () => {
  const [client, accepted] = socketPair()
  let stream: http.ServerResponse | undefined
  const server = http.createServer((_request, response) => { stream = response })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const socket = connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
  onTestFinished(() => {
    socket.destroy()
    server.close()
    closeSync(client)
  })
  writeSync(client, 'GET /events HTTP/1.1\r\nHost: a\r\n\r\n')
  await waitFor(() => stream !== undefined)
  const response = stream!
  let closed = false
  response.on('close', () => { closed = true })
  response.writeHead(200, { 'Content-Type': 'text/event-stream' })
  // More than the kernel takes.
  response.write(`data: ${'x'.repeat(4_194_304)}\n\n`)
  const drain = connections.drain({ lingerMs: 60_000, deadline: deadlineIn(1_000) })
  onTestFinished(() => { drain.end() })
  await waitFor(() => response.writableEnded)
  expect(closed).toBe(false)
  const error = await new Promise((resolve) => { response.write('data: one more\n\n', resolve) })
  expect(error).toMatchObject({ code: 'ERR_STREAM_WRITE_AFTER_END' })
  // Node tells the response after the callback: with nobody to hear it, the process ends.
  await new Promise(setImmediate)
  const bytes = Buffer.alloc(1_048_576)
  let last = ''
  await waitFor(() => {
    try {
      last = (last + bytes.toString('latin1', 0, readSync(client, bytes))).slice(-100)
    } catch { /* it has nothing for now */ }
    return closed
  })
  expect(last).toContain('retry: 1000\n\n')
})

/** Where timers stand still. */
const until = async (condition: () => boolean): Promise<void> => { while (!condition()) await new Promise(setImmediate) }

test('in a stop a client that comes back on the connection that it has is sent away again, and then has none', async () => {
  const [client, accepted] = socketPair()
  const streams: http.ServerResponse[] = []
  const server = http.createServer((_request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    response.write('data: 1\n\n')
    streams.push(response)
  })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const socket = connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
  vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval'] })
  onTestFinished(() => {
    vi.useRealTimers()
    socket.destroy()
    server.close()
    closeSync(client)
  })
  const ask = async (): Promise<void> => {
    const { length } = streams
    writeSync(client, 'GET /events HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => streams.length > length)
  }
  await ask()
  const drain = connections.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000) })
  onTestFinished(() => { drain.end() })
  await vi.advanceTimersByTimeAsync(1_900)
  await until(() => streams[0]!.writableFinished)
  expect(socket.destroyed).toBe(false)
  await ask()
  await vi.advanceTimersByTimeAsync(4_000)
  await until(() => socket.destroyed)
  expect(drain.result).toMatchObject({ drained: 1, cut: 0, requestsCut: [] })
})

test.each([
  ['comes', 'lo\r\n\r\n', 'data: hello\r\n\r\nretry: 1000\n\n'],
  ['does not come', '', 'data: hel']
])('an event of which half was written is not mixed with the hint: its rest %s', async (_what, rest, last) => {
  const [client, accepted] = socketPair()
  let stream: http.ServerResponse | undefined
  const server = http.createServer((_request, response) => { stream = response.writeHead(200, { 'Content-Type': 'text/event-stream' }) })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const socket = connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
  vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval'] })
  vi.spyOn(Math, 'random').mockReturnValue(1)
  onTestFinished(() => {
    vi.useRealTimers()
    vi.restoreAllMocks()
    socket.destroy()
    server.close()
    closeSync(client)
  })
  writeSync(client, 'GET /events HTTP/1.0\r\n\r\n')
  await until(() => stream !== undefined)
  stream!.write('data: one\n\n')
  const drain = connections.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000) })
  onTestFinished(() => { drain.end() })
  stream!.write('data: ')
  stream!.write(Buffer.from('hel'))
  // The time of the end, in a stop, is over.
  await vi.advanceTimersByTimeAsync(1_700)
  if (rest !== '') stream!.write(rest)
  await vi.advanceTimersByTimeAsync(2_000)
  await until(() => socket.destroyed)
  const bytes = Buffer.alloc(65_536)
  expect(bytes.toString('latin1', 0, readSync(client, bytes)).split('data: one\n\n')[1]).toBe(last)
})

test.each([
  ['one drain that is undone', [true], 'keep-alive'],
  ['a second one that is not', [true, false], 'close'],
  ['two that are undone', [true, true], 'keep-alive']
])('a request that runs through %s: its answer says so', async (_, drains, connection) => {
  const [client, accepted] = socketPair()
  let response: http.ServerResponse | undefined
  const server = http.createServer((_request, answer) => { response = answer })
  const connections = new ConnectionTracker(server)
  const socket = connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
  onTestFinished(() => {
    socket.destroy()
    closeSync(client)
  })
  writeSync(client, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await waitFor(() => response !== undefined)
  for (const isUndone of drains) {
    const drain = connections.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000) })
    if (isUndone) drain.undo()
    else onTestFinished(() => { drain.end() })
  }
  response!.end()
  const bytes = Buffer.alloc(1_024)
  await waitFor(() => socket.bytesWritten > 0)
  expect(bytes.toString('latin1', 0, readSync(client, bytes))).toContain(`\r\nConnection: ${connection}\r\n`)
})
