/**
 * Signals of a keeper that is not PID 1: of a terminal, which go to its workers as well, and what systemd hears of it.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { expect, it, onTestFinished } from 'vitest'
import { commandFile } from '../../helpers/built.js'
import { get } from '../../helpers/ask.js'
import { exists, programPath, waitFor } from '../../helpers/program.js'
import { Keeping } from '../../helpers/keeping.js'

const stops = path.join(import.meta.dirname, '..', 'shutdown')
const problems = (stderr: string): string[] => stderr.split('\n').filter((line) => /^handover: (warn|error)/.test(line))

it('Ctrl-C, which all processes of the terminal get at once, drains once: what runs is answered, and the status is 0', async () => {
  await using app = await Keeping.start({ workers: 2 })
  const serving = await app.serves()
  const held = get(app.target, '/held')
  const { pid } = await app.program.event('held')
  process.kill(-app.program.pid, 'SIGINT')
  await app.program.event('state', (event) => event.pid === pid && event['to'] === 'draining')
  process.kill(pid, 'SIGUSR2')
  expect((await held).status).toBe(200)
  expect(await app.program.ended).toEqual({ code: 0, signal: null })
  await waitFor(() => app.program.alive.length === 0)
  expect(problems(app.program.stderr)).toEqual([])
  expect(app.program.stderr).not.toMatch(/ends at once/)
  expect(new Set(app.program.events.map((event) => event.pid))).toEqual(new Set(serving))
  expect(app.files).toEqual([])
})

it('Ctrl-C that npm passes on to the keeper once more, as any starter may, drains all the same', async () => {
  await using app = await Keeping.start()
  const held = get(app.target, '/held')
  const { pid } = await app.program.event('held')
  const starter = spawn('sh', ['-c', `read word; kill -INT -${app.program.pid}; read word`], { stdio: ['pipe', 'ignore', 'inherit'] })
  onTestFinished(() => { starter.stdin.end() })
  starter.stdin.write('now\n')
  await app.program.event('state', (event) => event.pid === pid && event['to'] === 'draining')
  process.kill(app.program.pid, 'SIGINT')
  process.kill(pid, 'SIGINT')
  // Read after both.
  expect((await app.run('reload', 'kept')).stderr).toMatch(/is stopping/)
  process.kill(pid, 'SIGUSR2')
  expect((await held).status).toBe(200)
  expect(await app.program.ended).toEqual({ code: 0, signal: null })
  expect(app.program.stderr).not.toMatch(/ends at once/)
})

it('a second Ctrl-C ends all of them at once', async () => {
  await using app = await Keeping.start({ workers: 2 })
  const held = get(app.target, '/held').catch((error: unknown) => error)
  await app.program.event('held')
  process.kill(-app.program.pid, 'SIGINT')
  // Two signals of a kind that nobody has heard yet are one.
  await waitFor(async () => /is stopping/.test((await app.run('reload', 'kept')).stderr))
  process.kill(-app.program.pid, 'SIGINT')
  expect(await app.program.ended).toEqual({ code: 130, signal: null })
  expect(await held).toBeInstanceOf(Error)
  await waitFor(() => app.program.alive.length === 0)
})

it('HUP to the whole group is one reload, in which nobody complains', async () => {
  await using app = await Keeping.start({ workers: 2, env: { HANDOVER_LINGER: '100' } })
  await app.serves()
  process.kill(-app.program.pid, 'SIGHUP')
  await app.program.stderrMatching(/reloaded: process \d+ \(generation 2\), process \d+ \(generation 2\) serve/)
  const after = await app.serves()
  await app.onlyLives(after)
  expect((await app.status())?.processes.filter(({ state }) => state === 'serving').map(({ generation }) => generation)).toEqual([2, 2])
  expect(problems(app.program.stderr)).toEqual([])
})

it('when its terminal goes away it drains and ends with 0, and all workers with it', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-terminal-'))
  const { NODE_OPTIONS: _options, VITEST: _vitest, ...env } = process.env
  const child = spawn('python3', [path.join(stops, 'terminal.py'), process.execPath, commandFile, 'run', '--workers', '2', '--name', 'kept', programPath('build.mjs')], {
    stdio: ['pipe', 'pipe', 'inherit', 'pipe'], env: { ...env, HANDOVER_DIR: path.join(folder, 'sockets'), HANDOVER_LINGER: '100' }
  })
  const lines: Record<string, unknown>[] = []
  for (const stream of [child.stdout!, child.stdio[3] as NodeJS.ReadableStream]) createInterface({ input: stream }).on('line', (line) => lines.push(JSON.parse(line) as Record<string, unknown>))
  onTestFinished(async () => {
    for (const { pid } of lines) if (typeof pid === 'number' && exists(pid)) process.kill(pid, 'SIGKILL')
    child.stdin!.end()
    if (child.exitCode === null) await once(child, 'exit')
    rmSync(folder, { recursive: true })
  })
  await waitFor(() => lines.filter(({ event }) => event === 'listening').length === 2)
  await waitFor(() => lines.filter(({ event, to }) => event === 'state' && to === 'serving').length === 2)
  child.stdin!.write('\n')
  await waitFor(() => lines.some((line) => 'code' in line && !('event' in line)))
  expect(lines.find((line) => 'code' in line && !('event' in line))).toEqual({ code: 0 })
  const pids = new Set(lines.flatMap(({ pid }) => (typeof pid === 'number' ? [pid] : [])))
  expect(pids.size).toBe(2)
  for (const pid of pids) await waitFor(() => !exists(pid))
})

it('systemd is told of the keeper alone: that it is ready when the first worker serves, of each reload, and of the stop', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-notify-'))
  const socket = path.join(folder, 'notify')
  const child = spawn('python3', [path.join(stops, 'systemd.py'), socket], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await once(child, 'exit')
    rmSync(folder, { recursive: true })
  })
  const notices: { readonly pid: number; readonly fields: Readonly<Record<string, string>> }[] = []
  const lines = createInterface({ input: child.stdout })
  await once(lines, 'line')
  // Of the watchdog come as many as time allows.
  let beats = 0
  lines.on('line', (line) => {
    const notice = JSON.parse(line) as typeof notices[number]
    if ('WATCHDOG' in notice.fields) beats++
    else notices.push(notice)
  })

  await using app = await Keeping.start({ workers: 2, env: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '1000000', HANDOVER_LINGER: '100' } })
  const { pid } = app.program
  expect(JSON.parse((await get(app.target, '/environment')).body)).toEqual({ NOTIFY_SOCKET: false, WATCHDOG_USEC: false, HANDOVER_KEEPER: false, HANDOVER_SUCCESSOR: false })
  await waitFor(() => notices.length === 1)
  process.kill(pid, 'SIGHUP')
  await waitFor(() => notices.length === 3)
  app.behave('throw')
  process.kill(pid, 'SIGHUP')
  await waitFor(() => notices.length === 5)
  await app.run('reload', '--bake', '0').then(({ status }) => { expect(status).toBe(1) })
  app.behave('ok')
  expect(await app.run('reload', '--bake', '0')).toMatchObject({ status: 0 })
  process.kill(pid, 'SIGTERM')
  expect(await app.program.ended).toEqual({ code: 0, signal: null })
  await waitFor(() => notices.some(({ fields }) => 'STOPPING' in fields))
  expect(new Set(notices.map((notice) => notice.pid))).toEqual(new Set([pid]))
  expect(notices.map(({ fields }) => Object.keys(fields).join(' '))).toEqual([
    'READY MAINPID', 'RELOADING MONOTONIC_USEC', 'READY', 'RELOADING MONOTONIC_USEC', 'READY',
    // By the command as well, whoever asks.
    'RELOADING MONOTONIC_USEC', 'READY', 'RELOADING MONOTONIC_USEC', 'READY', 'STOPPING'
  ])
  expect(notices[0]?.fields['MAINPID']).toBe(String(pid))
  expect(beats).toBeGreaterThan(0)
})
