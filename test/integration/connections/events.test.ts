/**
 * examples/events under reloads: the clients of server-sent events see one stream that does not break.
 */

import { once } from 'node:events'
import http from 'node:http'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { coreFile } from '../../helpers/built.js'
import { Client } from '../../helpers/client.js'
import { Program, waitFor } from '../../helpers/program.js'

const reloads = Math.min(5, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 5))
const script = fileURLToPath(new URL('../../../examples/events/server.mjs', import.meta.url))

interface Stream {
  /** Its events, in the order in which they came. */
  readonly events: { id: number; version: string; pid: number }[]
  /** It was told when to come back. */
  told: boolean
  /** What is not a whole event yet. */
  rest: string
  /** How it ended; undefined while it lives. */
  over: string | undefined
}

interface Events {
  readonly program: Program
  stream(): Promise<Stream>
  /** A connection on which nothing was asked yet. */
  client(): Promise<Client>
  /** From now on the program is another one: the example with this change. */
  change(from: string, to: string): void
  /** Reloads by signal; resolves with the process that serves then. */
  reload(generation: number): Promise<number>
}

async function start(env: Readonly<Record<string, string>> = {}): Promise<Events> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-events-'))
  const versionFile = path.join(folder, 'version.txt')
  writeFileSync(versionFile, '1')
  const file = path.join(folder, 'server.mjs')
  const core = pathToFileURL(coreFile).href
  let text = readFileSync(script, 'utf8').replace("'@handover/core'", JSON.stringify(core))
  writeFileSync(file, text)
  const program = Program.start(file, { env: { PORT: '0', HANDOVER_UNDO_WINDOW: '100', EVERY_MS: '10', APP_VERSION_FILE: versionFile, ...env } })
  onTestFinished(async () => {
    await program[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true })
  })
  const line = await program.until(() => program.lines.find((text) => text.includes('listening')))
  const port = Number(/port: (\d+)/.exec(line)?.[1])
  let { pid } = program
  return {
    program,
    async stream() {
      const request = http.get({ port, host: '127.0.0.1', path: '/events', agent: false })
      const [response] = await once(request, 'response') as [http.IncomingMessage]
      onTestFinished(() => { request.destroy() })
      expect(response.headers['content-type']).toBe('text/event-stream')
      const stream: Stream = { events: [], told: false, rest: '', over: undefined }
      response.setEncoding('utf8').on('data', (text: string) => {
        const events = (stream.rest + text).split('\n\n')
        stream.rest = events.pop() ?? ''
        for (const event of events) {
          const [, id, version, by] = /^id: (\d+)\ndata: event \1 of version (\d+), process (\d+)$/.exec(event) ?? []
          if (event === 'retry: 1000') stream.told = true
          else if (by === undefined) stream.over ??= `an event that nobody sent: ${JSON.stringify(event)}`
          else stream.events.push({ id: Number(id), version: version!, pid: Number(by) })
        }
      })
      response.on('end', () => { stream.over ??= 'ended' }).on('error', (error) => { stream.over ??= error.message })
      return stream
    },
    async client() {
      const client = await Client.connect({ address: '127.0.0.1', port })
      onTestFinished(() => { client[Symbol.dispose]() })
      return client
    },
    change(from, to) {
      expect(text).toContain(from)
      text = text.replace(from, to)
      writeFileSync(file, text)
    },
    async reload(generation) {
      writeFileSync(versionFile, String(generation))
      process.kill(pid, 'SIGHUP')
      const [, successor] = await program.stderrMatching(new RegExp(`generation ${generation} \\(process (\\d+)\\) serves`))
      return pid = Number(successor)
    }
  }
}

test(`over ${reloads} reloads every stream goes on in the new process: no event is missing, doubled or out of order, none ends`, async () => {
  const { program, stream, reload } = await start()
  const streams = await Promise.all(Array.from({ length: 20 }, stream))
  const pids = [program.pid]
  for (let generation = 2; generation < 2 + reloads; generation++) {
    await waitFor(() => streams.every(({ events }) => events.at(-1)?.pid === pids.at(-1)))
    pids.push(await reload(generation))
    // One that comes now begins in the new process, and moves at the next reload.
    streams.push(await stream())
  }
  await waitFor(() => streams.every(({ events }) => events.at(-1)?.pid === pids.at(-1)))
  for (const { events, over } of streams) {
    expect(over).toBeUndefined()
    expect(events.map(({ id }) => id)).toEqual(events.map((_, index) => index))
  }
  expect(new Set(streams[0]!.events.map(({ pid }) => pid))).toEqual(new Set(pids))
  expect(streams[0]!.events.at(-1)!.version).toBe(String(reloads + 1))
  await program.stderrMatching(/generation 1 \(process \d+\) has ended: 20 connections moved, 0 drained, 0 closed idle, 0 cut/)
})

/** They ended as their clients expect, with no event missing. */
function expectEnded(streams: readonly Stream[]): void {
  for (const { over, events, told, rest } of streams) {
    expect({ over, told, rest }).toEqual({ over: 'ended', told: true, rest: '' })
    expect(events.map(({ id }) => id)).toEqual(events.map((_, at) => at))
  }
}

test('where nobody can take them the streams go on, and end with a hint when to come back before the drain deadline', async () => {
  const { program, stream, reload } = await start({ HANDOVER_DRAIN_TIMEOUT: '4000', HANDOVER_MOVE: 'false' })
  const streams = await Promise.all([stream(), stream(), stream()])
  await reload(2)
  const before = streams.map(({ events }) => events.length)
  await waitFor(() => streams.every(({ events }, index) => events.length > before[index]!))
  await waitFor(() => streams.every(({ over }) => over !== undefined))
  expectEnded(streams)
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(program.stderr).toMatch(/generation 1 .* has ended: 0 connections moved, 3 drained, 0 closed idle, 0 cut/)
})

test('at a stop they end with a hint when to come back', async () => {
  const { program, stream } = await start({ HANDOVER_DRAIN_TIMEOUT: '2000' })
  const streams = await Promise.all([stream(), stream(), stream()])
  process.kill(program.pid, 'SIGTERM')
  await waitFor(() => streams.every(({ over }) => over !== undefined))
  expectEnded(streams)
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(program.stderr).toMatch(/has stopped: .*3 (connections )?drained, 0 closed idle, 0 cut/)
})

test('those that have moved end with a hint too when their new process is stopped', async () => {
  const { program, stream, reload } = await start()
  const streams = await Promise.all([stream(), stream(), stream()])
  const successor = await reload(2)
  await waitFor(() => streams.every(({ events }) => events.at(-1)?.pid === successor))
  process.kill(successor, 'SIGTERM')
  await waitFor(() => streams.every(({ over }) => over !== undefined))
  expectEnded(streams)
  await program.stderrMatching(/generation 2 .* has stopped: .*3 (connections )?drained, 0 closed idle, 0 cut/)
})

test('those that have moved end with a hint too before the drain deadline, where the process after that cannot take them', async () => {
  const { program, stream, change, reload } = await start({ HANDOVER_DRAIN_TIMEOUT: '4000' })
  const streams = await Promise.all([stream(), stream(), stream()])
  const second = await reload(2)
  await waitFor(() => streams.every(({ events }) => events.at(-1)?.pid === second))
  change("onMoved('events'", "onMoved('something else'")
  await reload(3)
  const before = streams.map(({ events }) => events.length)
  await waitFor(() => streams.every(({ events }, index) => events.length > before[index]!))
  await waitFor(() => streams.every(({ over }) => over !== undefined))
  expectEnded(streams)
  await program.stderrMatching(/generation 2 .* has ended: 0 connections moved, 3 drained, 0 closed idle, 0 cut/)
})

test('a client of HTTP/1.0 gets no chunks, before the move or after it, and the end of the connection at the end', async () => {
  const { program, client, reload } = await start()
  const old = await client()
  old.send('GET /events HTTP/1.0\r\n\r\n')
  await old.received(/\nid: 0\n/)
  const successor = await reload(2)
  await old.received(new RegExp(`process ${successor}\n\n`))
  process.kill(successor, 'SIGTERM')
  expect(await old.over).toBe('closed')
  const [, head = '', body = ''] = /^(.*?)\r\n\r\n(.*)$/s.exec(old.text) ?? []
  expect(head).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
  expect(head).not.toMatch(/^transfer-encoding:/im)
  const pids = [...body.matchAll(/id: (\d+)\ndata: event \1 of version \d, process (\d+)\n\n/g)].map(([, , pid]) => Number(pid))
  expect(new Set(pids)).toEqual(new Set([program.pid, successor]))
  expect(body.replaceAll(/id: (\d+)\ndata: event \1 of version \d, process \d+\n\n/g, '')).toBe('retry: 1000\n\n')
})

test('the new process notices that the client of a stream that has moved leaves', async () => {
  const { program, client, reload } = await start()
  const leaving = await client()
  leaving.request('/events')
  await leaving.received(/\nid: 0\n/)
  const successor = await reload(2)
  await leaving.received(new RegExp(`process ${successor}\n\n`))
  leaving.socket.end()
  expect(await leaving.over).toBe('closed')
  process.kill(successor, 'SIGTERM')
  await program.stderrMatching(/generation 2 .* has stopped: .*0 (connections )?drained, 0 closed idle, 0 cut/)
})
