/**
 * What systemd hears (sd_notify(3)) of a start, a reload and a stop, each from the process that it would believe.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { waitFor } from '../helpers/program.js'
import { start } from './draining.js'

interface Notice {
  readonly pid: number
  readonly fields: Readonly<Record<string, string>>
}

/** A socket such as systemd gives to a service, and what came through it. */
async function systemd(): Promise<{ socket: string; notices: Notice[]; until: (count: number) => Promise<void> }> {
  const directory = mkdtempSync(path.join(tmpdir(), 'handover-notify-'))
  const socket = path.join(directory, 'notify')
  const child = spawn('python3', [path.join(import.meta.dirname, 'systemd.py'), socket], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await once(child, 'exit')
    rmSync(directory, { recursive: true })
  })
  const notices: Notice[] = []
  const lines = createInterface({ input: child.stdout })
  await once(lines, 'line')
  lines.on('line', (line) => { notices.push(JSON.parse(line) as Notice) })
  return { socket, notices, until: (count) => waitFor(() => notices.length >= count) }
}

test('systemd is told of the start, the reload, the new main process and the stop, in this order', async () => {
  const { socket, notices, until } = await systemd()
  const { program } = await start({ options: { linger: 100, undoWindow: 100 }, env: { NOTIFY_SOCKET: socket } })
  await until(1)
  const before = process.hrtime.bigint() / 1000n
  await program.hangUp()
  const after = process.hrtime.bigint() / 1000n
  const first = program.pid
  const second = program.serving
  await until(4)
  await program.ended
  process.kill(second, 'SIGTERM')
  await waitFor(() => program.alive.length === 0)
  await until(5)

  expect(notices).toEqual([
    { pid: first, fields: { READY: '1', MAINPID: String(first) } },
    { pid: first, fields: { RELOADING: '1', MONOTONIC_USEC: expect.any(String) as string } },
    { pid: second, fields: { READY: '1', MAINPID: String(second) } },
    { pid: first, fields: { READY: '1', MAINPID: String(second) } },
    { pid: second, fields: { STOPPING: '1' } }
  ])
  const told = BigInt(notices[1]!.fields['MONOTONIC_USEC']!)
  expect(told >= before && told <= after).toBe(true)
})

test('systemd is told that the reload is over when it failed', async () => {
  const { socket, notices, until } = await systemd()
  const behaviour = path.join(path.dirname(socket), 'behaviour')
  writeFileSync(behaviour, 'ok')
  const { program } = await start({ env: { NOTIFY_SOCKET: socket, BEHAVIOUR_FILE: behaviour } })
  await until(1)
  writeFileSync(behaviour, 'throw')
  await expect(program.hangUp()).rejects.toThrow()
  await until(3)
  expect(notices.map(({ pid, fields }) => [pid, Object.keys(fields)])).toEqual([
    [program.pid, ['READY', 'MAINPID']],
    [program.pid, ['RELOADING', 'MONOTONIC_USEC']],
    [program.pid, ['READY']]
  ])
})
