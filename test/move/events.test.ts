/**
 * examples/events under reloads: the clients of server-sent events see one stream that does not break.
 */

import { once } from 'node:events'
import http from 'node:http'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { Program, waitFor } from '../helpers/program.js'

const reloads = Math.min(5, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 5))
const script = fileURLToPath(new URL('../../examples/events/server.mjs', import.meta.url))

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

async function start(env: Readonly<Record<string, string>> = {}): Promise<{ program: Program; stream(): Promise<Stream>; reload(generation: number): Promise<number> }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-events-'))
  const versionFile = path.join(folder, 'version.txt')
  writeFileSync(versionFile, '1')
  const program = Program.start(script, { env: { PORT: '0', HANDOVER_UNDO_WINDOW: '100', EVERY_MS: '10', APP_VERSION_FILE: versionFile, ...env } })
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

test('where nobody can take them the streams go on, and end as their clients expect before the drain deadline', async () => {
  const { program, stream } = await start({ HANDOVER_DRAIN_TIMEOUT: '2000' })
  const streams = await Promise.all([stream(), stream(), stream()])
  const before = streams.map(({ events }) => events.length)
  process.kill(program.pid, 'SIGTERM')
  await program.stderrMatching(/drains 3 connections/)
  await waitFor(() => streams.every(({ over }) => over !== undefined))
  for (const [index, { over, events, told, rest }] of streams.entries()) {
    expect({ over, told, rest }).toEqual({ over: 'ended', told: true, rest: '' })
    expect(events.length).toBeGreaterThan(before[index]!)
    expect(events.map(({ id }) => id)).toEqual(events.map((_, at) => at))
  }
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(program.stderr).toMatch(/has stopped: .*3 (connections )?drained, 0 closed idle, 0 cut/)
})
