/**
 * What starts a stop, and what else in a program may be in its way.
 */

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Client } from '../../helpers/client.js'
import { Program, programPath } from '../../helpers/program.js'
import { endsWell, start } from '../../helpers/draining.js'

test.for(['SIGTERM', 'SIGINT'] as const)('%s drains and ends with status 0', async (signal) => {
  const { program, client, stop, release } = await start()
  const busy = await client()
  busy.request('/held')
  await program.event('request')
  await stop(signal)
  release()
  await busy.received(/answer to \/held/)
  await endsWell(program)
})

test.for([['SIGTERM', 143], ['SIGINT', 130]] as const)('a second %s ends at once with status %i', async ([signal, code]) => {
  const { program, client, stop } = await start({ options: { drainTimeout: 600_000 } })
  const busy = await client()
  busy.request('/held')
  await program.event('request')
  await stop(signal)
  process.kill(program.pid, signal)
  expect(await program.ended).toEqual({ code, signal: null })
  await busy.over
  expect(program.events.filter(({ event }) => event === 'closed')).toEqual([])
})

test('a Unix path is gone after a second signal', async () => {
  const file = path.join(directory(), 'server.sock')
  const { program, client, stop } = await start({ env: { LISTEN: `unix:${file}` }, options: { drainTimeout: 600_000 } })
  const busy = await client()
  busy.request('/held')
  await program.event('request')
  await stop()
  process.kill(program.pid, 'SIGTERM')
  await program.ended
  expect(existsSync(file)).toBe(false)
})

test('new connects to a Unix path are refused after a stop, and the path is gone at the end', async () => {
  const file = path.join(directory(), 'server.sock')
  const { program, address, idleClient, stop } = await start({ env: { LISTEN: `unix:${file}` } })
  const idle = await idleClient()
  await stop()
  await expect(Client.connect(address)).rejects.toSatisfy((error) => ['ECONNREFUSED', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? ''))
  idle.request('/')
  await endsWell(program)
  expect(existsSync(file)).toBe(false)
})

test('handover.stop() drains and ends with status 0, and the request that called it is answered', async () => {
  const { program, client } = await start()
  const caller = await client()
  caller.request('/stop')
  await caller.received(/Connection: close[^]*answer to \/stop/)
  expect(await endsWell(program)).toMatchObject({ trigger: 'stop', connections: { open: 1, drained: 1 } })
})

test('the end comes after the close hooks, which run once and after the drain', async () => {
  const { program, client, stop, release } = await start()
  const busy = await client()
  busy.request('/held')
  await program.event('request')
  await stop()
  expect(program.events.some(({ event }) => event === 'closed')).toBe(false)
  release()
  await busy.over
  await endsWell(program)
  expect(program.events.filter(({ event }) => event === 'closed')).toHaveLength(1)
})

test('a server listens, for its program, until a close hook closes it, and that succeeds once', async () => {
  await using program = Program.start(programPath('closes-itself.mjs'))
  await program.until(() => program.lines.includes('serves'))
  process.kill(program.pid, 'SIGTERM')
  expect(await program.ended).toEqual({ code: 0, signal: null })
  await program.closed
  expect(program.lines).toEqual(['serves', 'listens: true', 'closed, listens: false', 'again: ERR_SERVER_NOT_RUNNING'])
})

test('a stop in the middle of a drain after a reload does not cut it short', async () => {
  const { program, client, release } = await start({ options: { undoWindow: 60_000, drainTimeout: 60_000 } })
  const busy = await client()
  busy.request('/held')
  await program.event('request')
  await program.hangUp()
  process.kill(program.pid, 'SIGTERM')
  release()
  await busy.received(/answer to \/held/)
  expect(await program.ended).toEqual({ code: 0, signal: null })
  // The successor has the connection.
  await busy.request('/').received(/answer to \/$/)
})

test.for(['SIGTERM', 'SIGTERM:later', 'SIGINT', 'SIGINT:later', 'SIGHUP', 'SIGHUP:later'])('a listener of the program for %s is warned of', async (signals) => {
  const { program, stop } = await start({ env: { SIGNALS: signals } })
  const [signal] = signals.split(':')
  await program.stderrMatching(new RegExp(`warn: something else in this program listens for ${signal}`))
  await stop()
  await endsWell(program)
  expect(program.stderr.match(/something else/g)).toHaveLength(1)
})

test.for(['before', 'later'])('listeners that act only where nothing else listens are not warned of, and others beside them are (%s)', async (moment) => {
  const { program, stop } = await start({ env: { YIELDS: moment, SIGNALS: 'SIGINT:later' } })
  await program.stderrMatching(/something else in this program listens for SIGINT/)
  await stop()
  await endsWell(program)
  expect(program.stderr.match(/something else/g)).toHaveLength(1)
})

test('a program without listeners of its own is not warned of any', async () => {
  const { program, stop } = await start()
  await stop()
  await endsWell(program)
  expect(program.stderr).not.toMatch(/warn|something else/)
})

function directory(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'handover-stop-'))
  onTestFinished(() => { rmSync(made, { recursive: true }) })
  return made
}
