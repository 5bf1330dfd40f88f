/**
 * What clients meet while an app is stopped: what they sent is answered, and who comes later is refused at once, under a keeper as without
 * one.
 */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { commandFile, statusOf } from '../../helpers/built.js'
import { connects, freePorts, get } from '../../helpers/ask.js'
import { Program, programPath, waitFor } from '../../helpers/program.js'

const clients = 8

/** How it is started, and asked to stop. `group`: as a terminal does it, all processes at once. */
const ways = [
  { name: 'with the adapter', workers: 0, group: false },
  { name: 'under handover run', workers: 1, group: false },
  { name: 'under handover run, of all its processes at once,', workers: 1, group: true },
  { name: 'under handover run with three workers', workers: 3, group: false }
]

describe.each(ways)('a stop $name', ({ workers, group }) => {
  test('answers what was queued at that moment, and refuses every later connect while it drains', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-refusing-'))
    onTestFinished(() => { rmSync(folder, { recursive: true, force: true }) })
    const sockets = path.join(folder, 'sockets')
    mkdirSync(sockets, { mode: 0o700 })
    const [port = 0] = await freePorts(1)
    const app = programPath('gated.cjs')
    const env = { PORT: String(port), GATES: folder, HANDOVER_DIR: sockets, ...(workers === 0 && { ADAPTER: '1' }) }
    await using program = workers === 0 ? Program.start(app, { env }) : Program.start(commandFile, { args: ['run', '--name', 'gated', '--workers', String(workers), app], env })
    await program.until(() => program.events.filter(({ event }) => event === 'listens').length === Math.max(1, workers))
    const listeners = async (): Promise<readonly string[] | undefined> => (await statusOf(path.join(sockets, 'gated.sock')).catch(() => undefined))?.keeper?.listeners
    if (workers > 0) await waitFor(async () => (await listeners())?.length === 1)
    // It keeps the drain going.
    const waiting = get({ port }, '/wait')
    const { pid: drains } = await program.event('waits')
    // The event loops are held: connects that come now wait in the queues.
    const blocked: Promise<unknown>[] = []
    await waitFor(() => {
      const held = new Set(program.events.filter(({ event }) => event === 'blocked').map(({ pid }) => pid)).size
      if (held < Math.max(1, workers)) blocked.push(get({ port }, '/block').catch((error: unknown) => error))
      return held === Math.max(1, workers)
    })

    for (const pid of group ? program.alive : [program.pid]) process.kill(pid, group ? 'SIGINT' : 'SIGTERM')
    // The kernel completes these, and nobody accepts them yet.
    const queued = Array.from({ length: clients }, () => get({ port }))
    await Promise.all([waitFor(async () => workers === 0 || (await listeners())?.length === 0), ...queued.map(() => connects({ port }))])
    writeFileSync(path.join(folder, 'block'), '')
    expect((await Promise.all(queued)).map(({ status }) => status)).toEqual(new Array(clients).fill(200))

    await waitFor(async () => (await connects({ port })) === 'ECONNREFUSED')
    expect(program.alive).toContain(drains)
    writeFileSync(path.join(folder, 'wait'), '')
    expect(await waiting).toMatchObject({ status: 200 })
    expect((await Promise.all(blocked)).filter((each) => each instanceof Error)).toEqual([])
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })
})
