/**
 * What systemd hears (sd_notify(3)) of a start, a reload and a stop, each from the process that it would believe.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { ask } from '../../helpers/ask.js'
import { coreFile } from '../../helpers/built.js'
import { forgetCheckpoint } from '../../helpers/internals.js'
import { startHardy } from '../../helpers/hardy.js'
import { Keeping } from '../../helpers/keeping.js'
import { Folder } from '../../helpers/plan.js'
import { Program, programPath, waitFor } from '../../helpers/program.js'
import { start } from '../../helpers/draining.js'

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

/** How many notices there are, with one of this process, which comes after all that was said before. */
async function heardSoFar(socket: string, notices: readonly Notice[]): Promise<number> {
  const own = (): number => notices.filter(({ pid }) => pid === process.pid).length
  const before = own()
  process.env['NOTIFY_SOCKET'] = socket
  forgetCheckpoint('none')
  Reflect.deleteProperty(process.env, 'NOTIFY_SOCKET')
  await waitFor(() => own() > before)
  return notices.length
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

test('systemd hears that the main process is the old one again when the reload is undone: else it ends the service with the new one', async () => {
  const { socket, notices } = await systemd()
  const { program } = await start({ options: { undoWindow: 30_000 }, env: { NOTIFY_SOCKET: socket } })
  const first = program.pid
  await program.hangUp()
  const second = program.serving
  const mains = (): string[] => notices.filter(({ pid, fields }) => pid === first && 'MAINPID' in fields).map(({ fields }) => fields['MAINPID']!)
  await waitFor(() => mains().length === 2)
  process.kill(second, 'SIGKILL')
  await waitFor(() => mains().length === 3)
  expect(mains()).toEqual([first, second, first].map(String))
  expect(notices.at(-1)).toEqual({ pid: first, fields: { READY: '1', MAINPID: String(first) } })
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

test('systemd does not wait for a reload that is refused', async () => {
  const { socket, notices, until } = await systemd()
  using folder = new Folder()
  // As a Node that is not supported: the server that is looked at has no handle.
  writeFileSync(folder.at('server.cjs'), `
    const http = require('node:http'), net = require('node:net'), { Server } = net
    net.Server = function (...args) { return !new.target ? Server.apply(this, args) : args.length > 0 ? new Server(...args) : {} }
    const { handover } = require(${JSON.stringify(coreFile)})
    net.Server = Server
    handover(http.createServer())
      .listen(0, '127.0.0.1', () => { console.log('{"event":"ready"}') })`)
  await using program = Program.start(folder.at('server.cjs'), { env: { NOTIFY_SOCKET: socket } })
  await program.until(() => program.events.some(({ event }) => event === 'ready'))
  const before = await heardSoFar(socket, notices)
  process.kill(program.pid, 'SIGHUP')
  await until(before + 2)
  await program.stderrMatching(/HANDOVER_UNAVAILABLE/)
  expect(notices.slice(before).map(({ pid, fields }) => [pid, Object.keys(fields)])).toEqual([
    [program.pid, ['RELOADING', 'MONOTONIC_USEC']],
    [program.pid, ['READY']]
  ])
})

test('a service whose Node was removed is reloaded with what runs, also where its pid is in the environment', async () => {
  using folder = new Folder()
  const node = folder.at('node')
  copyFileSync(process.execPath, node)
  await using program = Program.start(programPath('world.mjs'), { node: 'sh', execArgv: ['-c', 'WATCHDOG_PID=$$ exec "$0" "$@"', node], env: { WATCHDOG_USEC: '30000000' } })
  await program.event('listening')
  rmSync(node)
  process.kill(program.pid, 'SIGHUP')
  expect(await program.event('listening', ({ generation }) => generation === 2)).toMatchObject({ execPath: `${node} (deleted)` })
  await program.stderrMatching(/is gone: Node .* is started from what runs now/)
})

/** What comes at half of it. */
const watched = { WATCHDOG_USEC: '300000' }
const beats = (notices: readonly Notice[], pid: number): number => notices.filter(({ fields, pid: from }) => from === pid && Object.keys(fields).join() === 'WATCHDOG').length

test('the watchdog hears the process that serves: the predecessor until the switch, then its successor, to the end of the stop', async () => {
  const { socket, notices } = await systemd()
  const { program } = await start({ options: { linger: 300, undoWindow: 300 }, env: { NOTIFY_SOCKET: socket, ...watched } })
  const first = program.pid
  await waitFor(() => beats(notices, first) > 2)
  await program.hangUp()
  const second = program.serving
  const switched = (): number => notices.findIndex(({ pid, fields }) => pid === first && fields['MAINPID'] === String(second))
  await waitFor(() => switched() >= 0)
  // The time that systemd waits begins anew with the main process.
  expect(notices[switched()]!.fields).toEqual({ READY: '1', MAINPID: String(second), WATCHDOG: '1' })
  await waitFor(() => beats(notices.slice(switched()), second) > 3)
  expect(beats(notices.slice(switched()), first)).toBe(0)
  await program.ended
  process.kill(second, 'SIGTERM')
  await waitFor(() => program.alive.length === 0)
})

test('HANDOVER_WATCHDOG=off leaves the watchdog to the program, and WATCHDOG_PID of another process is not for this one', async () => {
  const { socket, notices, until } = await systemd()
  for (const [index, env] of [{ HANDOVER_WATCHDOG: 'off' }, { WATCHDOG_PID: '1' }].entries()) {
    const { program } = await start({ env: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '2000', ...env } })
    await until(2 * index + 1)
    process.kill(program.pid, 'SIGTERM')
    await program.ended
  }
  await until(4)
  expect(notices.filter(({ fields }) => 'WATCHDOG' in fields)).toEqual([])
})

test('the watchdog hears the keeper while a worker answers, not while all are blocked for good, and then the next keeper', async () => {
  const { socket, notices } = await systemd()
  await using app = await Keeping.start({ program: 'activated.cjs', behaviour: 'elsewhere', words: ['--hang-timeout', '0'], env: { NOTIFY_SOCKET: socket, ...watched } })
  const { program } = app
  await waitFor(() => beats(notices, program.pid) > 2)
  const blocked = path.join(app.folder, 'blocked')
  writeFileSync(blocked, '')
  void fetch(`http://127.0.0.1:${app.target.port}/block?${blocked}`).catch(() => undefined)
  await program.stderrMatching(/no worker \(process \d+\) has answered for 300 ms/)
  // The keeper itself goes on, and answers when the worker has not for a second.
  let silence = 0
  await waitFor(async () => {
    silence = await heardSoFar(socket, notices)
    const isBlocked = (await app.status())?.processes[0]?.waitsFor.includes('it does not answer')
    return isBlocked === true && await heardSoFar(socket, notices) === silence + 1
  })
  rmSync(blocked)
  await waitFor(() => beats(notices.slice(silence), program.pid) > 0)

  expect(await app.reload('--keeper')).toMatchObject({ ok: true })
  await waitFor(() => notices.some(({ pid, fields }) => pid !== program.pid && 'WATCHDOG' in fields))
  const next = notices.findLast(({ fields }) => 'MAINPID' in fields)!
  expect(next).toMatchObject({ pid: program.pid, fields: { WATCHDOG: '1' } })
  await waitFor(() => beats(notices, Number(next.fields['MAINPID'])) > 2)
})

test('a reader of NOTIFY_SOCKET that never reads does not hold a server up', async () => {
  using folder = new Folder()
  const at = folder.at('notify.sock')
  const reader = spawn('python3', ['-c', 'import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print("bound", flush=True); sys.stdin.read()', at], { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    await once(reader.stdout, 'data')
    await using running = await startHardy({ env: { NOTIFY_SOCKET: at, OPTIONS: '{"undoWindow":0,"linger":0}' } })
    const { program, port } = running
    // More than the kernel keeps for a reader (net.unix.max_dgram_qlen).
    for (let generation = 2; generation <= 6; generation++) {
      await program.hangUp()
      await waitFor(() => program.alive.length === 1)
    }
    expect(await ask('http', { port, host: '127.0.0.1' })).toBe(program.serving)
  } finally {
    reader.kill('SIGKILL')
  }
})
