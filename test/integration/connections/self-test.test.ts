/**
 * A Node that keeps connections in another way than this package knows: nothing is moved, one warning says why, and the polite drain does
 * the work.
 */

import { expect, onTestFinished, test } from 'vitest'
import { get } from '../../helpers/ask.js'
import { Client, type Address } from '../../helpers/client.js'
import { Folder } from '../../helpers/plan.js'
import { Program, programPath } from '../../helpers/program.js'

test.for([
  ['no-list', 'a connection that has sent nothing is not listed'],
  ['no-parser', 'a connection has no parser that reads it']
] as const)('where a connection is kept in another way (%s), it is ended politely, and one warning says why', async ([other, reason]) => {
  const program = Program.start(programPath('drain.mjs'), { execArgv: ['--import', programPath('other-node.mjs')], env: { OTHER: other, OPTIONS: JSON.stringify({ linger: 20_000, undoWindow: 0 }) } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening') as unknown as { address: Address }
  using client = await Client.connect(address)
  await client.request('/').received(/answer to \//)
  client.text = ''
  await program.hangUp()
  await client.request('/').received(/Connection: close[^]*answer to \//)
  expect(await client.over).toBe('closed')
  expect(await program.ended).toEqual({ code: 0, signal: null })
  const drained = await program.event('report', ({ pid, report }) => pid === program.pid && (report as { result: string }).result === 'drained')
  expect(drained['report']).toMatchObject({ connections: { open: 1, moved: 0, drained: 1, stayed: { 'moving is off': 1 } } })
  const warnings = program.stderr.split('\n').filter((line) => line.includes('live connections are not moved'))
  // One of each generation.
  expect(warnings).toHaveLength(2)
  expect(warnings[0]).toContain(`this version of Node (${process.version}) stores them differently: ${reason}. At a reload they are drained politely.`)
})

test.each(['127.0.0.1', 'a Unix path'])('where servers have no handle that this package knows, one at %s listens and drains as usual, and the log says why it is not reloaded', async (where) => {
  using folder = new Folder()
  const file = folder.at('app.sock')
  await using program = Program.start(programPath('drain.mjs'), { execArgv: ['--import', programPath('other-node.mjs')], env: { OTHER: 'no-handle', LISTEN: where.startsWith('a') ? `unix:${file}` : where } })
  const { address } = await program.event('listening') as unknown as { address: string | { port: number } }
  expect(program.stderr).toContain(`this version of Node (${process.version}) is not supported: a socket has no _handle. The server listens as usual, drains politely and cannot be reloaded.`)
  expect((await get(typeof address === 'string' ? address : { ...address, host: where })).body).toBe('answer to /')
  process.kill(program.pid, 'SIGTERM')
  expect(await program.ended).toEqual({ code: 0, signal: null })
})
