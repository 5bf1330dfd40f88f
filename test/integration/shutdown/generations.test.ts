/**
 * The end of a generation among others: the drain goes on where the program's log throws, answers of a pipeline keep their order, and ends
 * have theirs.
 */

import net from 'node:net'
import { expect, test } from 'vitest'
import { ask } from '../../helpers/ask.js'
import { startHardy } from '../../helpers/hardy.js'
import { waitFor } from '../../helpers/program.js'

const host = '127.0.0.1'

test('a log of the program that throws stops neither the reload nor the drain', async () => {
  await using running = await startHardy({ env: { WHAT: 'throwing-log' } })
  const { program, port } = running
  await program.hangUp()
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(await ask('http', { port, host })).toBe(program.serving)
  expect(program.stderr).toMatch(/generation 2 \(process \d+\) serves.*\n.*the option log threw: Error: the log is closed/)
})

test('a pipelined answer that is ready before the slow one in front of it is not lost in a drain', async () => {
  await using running = await startHardy()
  const { program, port } = running
  const first = program.pid
  const socket = net.connect(port, host)
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  socket.write('GET /held HTTP/1.1\r\nHost: a\r\n\r\nGET /quick HTTP/1.1\r\nHost: a\r\n\r\n')
  await program.event('held')
  await program.hangUp()
  process.kill(first, 'SIGUSR2')
  await waitFor(() => text.includes(`quick ${first}`))
  expect(text).toMatch(/held[^]*quick/)
  socket.write('GET /quick HTTP/1.1\r\nHost: a\r\n\r\n')
  await waitFor(() => text.endsWith(`quick ${program.serving}`))
  socket.destroy()
})

test('a process that is stopped waits for the generation before it, which still answers', async () => {
  await using running = await startHardy({ env: { OPTIONS: '{"undoWindow":0,"linger":0,"drainTimeout":20000}' } })
  const { program, port } = running
  const first = program.pid
  const answer = fetch(`http://${host}:${port}/held`)
  await program.event('held')
  await program.hangUp()
  const second = program.serving
  process.kill(second, 'SIGTERM')
  await program.event('state', ({ pid, to }) => pid === second && to === 'draining')
  process.kill(first, 'SIGUSR2')
  expect(await (await answer).text()).toBe('held')
  await program.event('report', ({ pid, report }) => pid === first && (report as { result: string }).result === 'drained')
  await program.event('report', ({ pid, report }) => pid === second && (report as { result: string }).result === 'stopped')
  const ends = program.events.filter(({ event, report }) => event === 'report' && ['drained', 'stopped'].includes((report as { result: string }).result)).map(({ pid }) => pid)
  expect(ends.indexOf(first)).toBeLessThan(ends.lastIndexOf(second))
})
