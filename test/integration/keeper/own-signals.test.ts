/**
 * A program that knows nothing of Handover cleans up where it always did: in its own listeners for SIGTERM.
 */

import { expect, test } from 'vitest'
import { get } from '../../helpers/ask.js'
import { programPath, waitFor } from '../../helpers/program.js'
import { KeptApp } from '../../helpers/kept-app.js'

test('the program\'s own listeners for SIGTERM run at the end of each generation, to their end, and nothing warns of them', async () => {
  await using app = await KeptApp.start(programPath('own-sigterm.mjs'))
  const [first] = await app.servers()
  expect(await app.reload('--bake', '0', '--wait')).toMatchObject({ ok: true })
  const [second] = await app.servers()
  expect(app.program.lines.filter((line) => line.includes('clean'))).toEqual([`cleans up: ${first!.pid}`, `is clean: ${first!.pid}`])
  expect(await app.stop()).toEqual({ code: 0, signal: null })
  expect(app.program.lines.filter((line) => line.includes('clean')).slice(2)).toEqual([`cleans up: ${second!.pid}`, `is clean: ${second!.pid}`])
  expect(app.stderr).not.toContain('something else in this program listens')
})

test('a worker that accepts after a crash, and is not ready, answers what it has at a stop, and cleans up once', async () => {
  await using app = await KeptApp.start(programPath('late-listener.mjs'), { env: { MARK: '$FOLDER/started' } })
  const [first] = await app.servers()
  process.kill(first!.pid, 'SIGKILL')
  const answer = get({ host: '127.0.0.1', port: app.port }, '/held')
  const { pid } = await app.program.event('held')
  const { processes } = await app.status()
  expect(processes.map((status) => [status.pid, status.state])).toEqual([[pid, 'preparing']])
  process.kill(app.program.pid, 'SIGTERM')
  await app.program.event('state', (event) => event.pid === pid && event['to'] === 'draining')
  await waitFor(async () => await get({ host: '127.0.0.1', port: app.port }).then(() => false, () => true))
  process.kill(pid, 'SIGUSR2')
  expect((await answer).body).toBe('whole')
  expect(await app.program.ended).toEqual({ code: 0, signal: null })
  expect(app.program.lines.filter((line) => line.includes('clean'))).toEqual([`cleans up: ${pid}`, `is clean: ${pid}`])
})
