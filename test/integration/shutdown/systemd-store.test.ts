/** systemd's store of descriptors, as a place for checkpoints: what is sent to it, and what is taken from it at the next start. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, expect, it, onTestFinished } from 'vitest'
import { cannotStore, forgetCheckpoint, storeCheckpoint, storedCheckpoints } from '../../helpers/internals.js'
import { waitFor } from '../../helpers/program.js'

interface Notice {
  readonly fields: Readonly<Record<string, string>>
  readonly files?: readonly string[]
}

const { NOTIFY_SOCKET: before, FDSTORE: store } = process.env
afterEach(() => {
  for (const [name, value] of Object.entries({ NOTIFY_SOCKET: before, FDSTORE: store })) {
    if (value === undefined) Reflect.deleteProperty(process.env, name)
    else process.env[name] = value
  }
})

async function systemd(): Promise<{ folder: string; notices: Notice[] }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-store-'))
  const socket = path.join(folder, 'notify')
  const child = spawn('python3', [path.join(import.meta.dirname, 'systemd.py'), socket], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await once(child, 'exit')
    rmSync(folder, { recursive: true })
  })
  const notices: Notice[] = []
  const lines = createInterface({ input: child.stdout })
  await once(lines, 'line')
  lines.on('line', (line) => { notices.push(JSON.parse(line) as Notice) })
  process.env['NOTIFY_SOCKET'] = socket
  return { folder, notices }
}

it('a checkpoint goes there in place of the one before, and can be taken back', async () => {
  const { folder, notices } = await systemd()
  writeFileSync(path.join(folder, 'section'), 'what it knew')
  const fd = openSync(path.join(folder, 'section'), 'r')
  expect(storeCheckpoint('sessions: é', fd)).toBe(true)
  closeSync(fd)
  forgetCheckpoint('sessions: é')
  await waitFor(() => notices.length === 3)
  const FDNAME = 'handover-sessions%3A%20%C3%A9'
  expect(notices).toEqual([
    { pid: process.pid, fields: { FDSTOREREMOVE: '1', FDNAME } },
    { pid: process.pid, fields: { FDSTORE: '1', FDNAME }, files: ['what it knew'] },
    { pid: process.pid, fields: { FDSTOREREMOVE: '1', FDNAME } }
  ])
})

it('nothing is sent where there is no store, or a name that systemd refuses', async () => {
  const { notices } = await systemd()
  expect(storeCheckpoint('x'.repeat(247), 0)).toBe(false)
  process.env['FDSTORE'] = '0'
  expect(storeCheckpoint('sessions', 0)).toBe(false)
  expect(cannotStore(process.env, 'sessions')).toContain('FileDescriptorStoreMax')
  forgetCheckpoint('the last word')
  await waitFor(() => notices.length === 1)
  expect(notices[0]?.fields['FDNAME']).toBe('handover-the%20last%20word')
  Reflect.deleteProperty(process.env, 'NOTIFY_SOCKET')
  expect(storeCheckpoint('sessions', 0)).toBe(false)
})

it('what systemd held is found by its names, and what is not ours is left alone', () => {
  const env = { LISTEN_PID: String(process.pid), LISTEN_FDS: '4', LISTEN_FDNAMES: 'http:handover-sessions%3A%20%C3%A9:handover-%zz:handover-cache:handover-beyond' }
  expect(storedCheckpoints(env)).toEqual([{ name: 'sessions: é', fd: 4 }, { name: 'cache', fd: 6 }])
  expect(storedCheckpoints({ ...env, LISTEN_PID: '1' })).toEqual([])
  expect(storedCheckpoints({ ...env, LISTEN_FDS: 'many' })).toEqual([])
  expect(storedCheckpoints({})).toEqual([])
})
