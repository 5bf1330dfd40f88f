/** Workers that are blocked, by a loop or by SIGSTOP, and new versions that block: none keeps a service from being reloaded. */

import { expect, test } from 'vitest'
import { get } from '../helpers/ask.js'
import { programPath, waitFor } from '../helpers/program.js'
import { KeptApp } from '../helpers/kept-app.js'

const soon = { HANDOVER_READY_TIMEOUT: '5000' }

test.each(['loops', 'is stopped by a signal'])('a reload of a worker that %s says so and replaces it, with its losses named', async (how) => {
  await using app = await KeptApp.start(programPath('kept.mjs'), { env: soon })
  const [before] = await app.servers()
  const lost = how === 'loops' ? get({ port: app.port }, '/hang').catch((error: unknown) => error) : undefined
  if (how === 'loops') await waitFor(async () => (await app.findStatus())?.processes[0]?.waitsFor.includes('it does not answer') === true)
  else process.kill(before!.pid, 'SIGSTOP')
  const { status, stdout, stderr } = await app.run('reload', '--bake', '0')
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  expect(stdout).toMatch(new RegExp(`generation 2 .* serves in place of generation 1 \\(process ${before!.pid}\\), which ended by SIGKILL .*: its connections are lost`))
  expect(app.stderr).toMatch(new RegExp(`process ${before!.pid} \\(generation 1\\) does not answer: its event loop is blocked, or it was stopped`))
  const [after] = await app.serving(1)
  expect(after!.pid).not.toBe(before!.pid)
  expect((await get({ port: app.port })).status).toBe(200)
  if (lost) expect(await lost).toBeInstanceOf(Error)
  expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
})

test('a new version that blocks while it is watched is taken back: the one before serves', async () => {
  await using app = await KeptApp.start(programPath('kept.mjs'))
  const [before] = await app.servers()
  process.kill(app.program.pid, 'SIGHUP')
  await app.program.event('draining')
  void get({ port: app.port }, '/hang').catch(() => undefined)
  await app.program.until(() => app.stderr.includes('it does not answer: its event loop is blocked'))
  await app.program.stderrMatching(/The generation before serves again; what the other one has accepted is lost, unless it goes on soon\./)
  await waitFor(async () => (await app.servers())[0]?.pid === before!.pid)
  expect((await get({ port: app.port })).status).toBe(200)
})

test('a worker is not taken for blocked while a debugger can attach to it', async () => {
  await using app = await KeptApp.start(programPath('kept.mjs'), { run: ['--hang-timeout', '600ms', '--inspect=127.0.0.1:0'] })
  const [before] = await app.servers()
  await waitFor(async () => (await app.findStatus())?.processes[0]?.debugged === true)
  process.kill(before!.pid, 'SIGSTOP')
  await new Promise((resolve) => setTimeout(resolve, 2_500))
  process.kill(before!.pid, 'SIGCONT')
  expect((await app.serving(1))[0]?.pid).toBe(before!.pid)
  expect(app.stderr).not.toContain('is blocked')
})
