/**
 * Moments at which a process dies or blocks while others count on it: afterwards each slot is served by one process, and the keeper knows
 * every process.
 */

import { chmodSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { get } from '../helpers/ask.js'
import { exists, programPath, waitFor } from '../helpers/program.js'
import { KeptApp } from '../helpers/kept-app.js'

const kept = programPath('kept.mjs')

/** Sockets that the keeper holds. */
const descriptors = ({ program: { pid } }: KeptApp): number => readdirSync(`/proc/${pid}/fd`).filter((fd) => {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:')
  } catch {
    return false // it was closed meanwhile
  }
}).length

/** What the next boots do (kept.mjs). */
const behave = (app: KeptApp, boot: object): void => { writeFileSync(path.join(app.folder, 'boot'), JSON.stringify(boot)) }
const starts = async (app: KeptApp, processes: number): Promise<void> => {
  await waitFor(async () => (await app.status()).processes.length === processes)
}

test('a successor that boots when the keeper is killed ends, and its predecessor serves on for the next keeper', async () => {
  await using app = await KeptApp.start(kept, { workers: 1 })
  const [worker] = await app.servers()
  behave(app, { gate: path.join(app.folder, 'boot') })
  const reload = app.begin('reload', app.name)
  await starts(app, 2)
  process.kill(app.program.pid, 'SIGKILL')
  await reload.ended
  behave(app, {})
  await using next = await KeptApp.start(kept, { workers: 1, after: app })
  expect((await next.servers()).map(({ pid, state }) => ({ pid, state }))).toEqual([{ pid: worker!.pid, state: 'serving' }])
  await waitFor(() => next.left.length === 2)
  expect(await next.reload('--bake', '0')).toMatchObject({ ok: true, switched: [{ from: { pid: worker!.pid } }] })
  expect(await next.stop()).toEqual({ code: 0, signal: null })
})

test('a worker whose control socket cannot be made says that the next keeper would not find it, and says no other thing when its keeper is killed', async () => {
  await using app = await KeptApp.start(kept, { workers: 1 })
  // As on a disk that is full: the path of the keeper stays.
  chmodSync(path.join(app.folder, 'sockets'), 0o755)
  expect(await app.hangUp()).toMatchObject({ ok: true })
  const [, pid] = await app.program.stderrMatching(/expected 0700\. If the keeper is killed, the next one does not find process (\d+), which has the port\. Give it that mode/)
  process.kill(app.program.pid, 'SIGKILL')
  await app.program.stderrMatching(/is gone\. Process (\d+) \(generation 2\) keeps serving .*; no connection was lost\. The next one does not find this process, .* \(kill \1\)\.$/m)
  expect(exists(Number(pid))).toBe(true)
  expect(app.stderr).not.toContain('it finds its workers')
})

test('a successor that must not serve and whose predecessor has died is ended, and another one is started', async () => {
  await using app = await KeptApp.start(kept, { workers: 1, env: { LISTEN: '127.0.0.1:$PORT,unix:$FOLDER/second.sock', HANDOVER_READY_TIMEOUT: '8000' } })
  const [worker] = await app.servers()
  behave(app, { places: 1 })
  const reload = app.reload('--bake', '0')
  await waitFor(async () => (await app.status()).processes.some(({ state }) => state === 'preparing'))
  behave(app, {})
  process.kill(worker!.pid, 'SIGKILL')
  expect(await reload).toMatchObject({ ok: false, error: { code: 'HANDOVER_SUCCESSOR_FAILED', message: expect.stringContaining('--allow-drop') } })
  const [next] = await app.serving(1)
  expect(next!.listeners).toHaveLength(2)
  expect(await app.stop()).toEqual({ code: 0, signal: null })
})

test('a predecessor that dies before its offer, of which the keeper hears late, leaves no successor that serves without it', async () => {
  await using app = await KeptApp.start(kept, { workers: 1, env: { LISTEN: '127.0.0.1:0' } })
  const [worker] = await app.servers()
  const gate = path.join(app.folder, 'boot')
  behave(app, { gate })
  const reload = app.reload()
  await starts(app, 2)
  const successor = (await app.status()).processes.find(({ pid }) => pid !== worker!.pid)!
  process.kill(app.program.pid, 'SIGSTOP')
  process.kill(worker!.pid, 'SIGKILL')
  rmSync(gate)
  await waitFor(() => !exists(successor.pid))
  process.kill(app.program.pid, 'SIGCONT')
  expect(await reload).toMatchObject({ ok: false, error: { message: expect.stringContaining('Nobody serves: the keeper') } })
  const [next] = await app.serving(1)
  expect(next).toMatchObject({ generation: 2, listeners: worker!.listeners })
  expect(await app.stop()).toEqual({ code: 0, signal: null })
})

test('listeners on ports that the system chose, which come and go, leave nothing open in the keeper', async () => {
  await using app = await KeptApp.start(kept, { workers: 2 })
  const [worker] = await app.servers()
  expect(worker!.listeners).toHaveLength(1)
  const before = descriptors(app)
  for (let round = 0; round < 20; round++) expect((await fetch(`${app.url}/passing`, { headers: { connection: 'close' } })).status).toBe(200)
  await waitFor(() => descriptors(app) <= before)
  expect(await app.stop()).toEqual({ code: 0, signal: null })
})

test('a program that closes its port and listens on it again does not find it in use, before a reload and after it', async () => {
  await using app = await KeptApp.start(programPath('reopen.mjs'))
  for (const round of [0, 1]) {
    for (const opened of [1, 2]) {
      expect((await get({ host: '127.0.0.1', port: app.port }, '/reopen')).body).toBe(String(opened))
      await app.program.until(() => app.program.lines.filter((line) => line === `open ${opened + 1}`).length === round + 1)
    }
    expect((await get({ host: '127.0.0.1', port: app.port }, '/')).body).toBe('3')
    if (round === 0) expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
  }
  expect((await app.status()).keeper).toMatchObject({ crashes: 0, down: [] })
  expect(await app.stop()).toEqual({ code: 0, signal: null })
})
