/**
 * The end of a generation that others follow: the drain goes on where the program's log throws, and answers of a pipeline keep their order.
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
  await program.stderrMatching(/generation 2 \(process \d+\) serves.*\n.*the option log threw: Error: the log is closed/)
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
