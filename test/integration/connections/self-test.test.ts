/**
 * A Node that keeps connections in another way than this package knows: nothing is moved, one warning says why, and the polite drain does
 * the work.
 */

import { expect, onTestFinished, test } from 'vitest'
import { Client, type Address } from '../../helpers/client.js'
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
