/**
 * The keeper itself: killed, followed by another one, replaced on purpose. Its workers and their clients notice nothing.
 */

import { chmodSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type LoadOptions, type LoadProcess, startLoadProcess } from '@handover/load'
import { describe, expect, test } from 'vitest'
import { programPath, waitFor } from '../../helpers/program.js'
import { KeptApp } from '../../helpers/kept-app.js'

const kept = programPath('kept.mjs')
const traffic: LoadOptions = {
  connectFirst: true, keepAlive: [{ clients: 10, thinkMs: 20 }, { clients: 30, thinkMs: 300 }], newConnections: { clients: 2, thinkMs: 10 },
  slow: { clients: 3, thinkMs: 20 }, post: { clients: 3, thinkMs: 20 }
}

const pidsOf = async (app: KeptApp): Promise<number[]> => (await app.servers()).map(({ pid }) => pid)

/** Every worker answers some requests more. */
async function more(load: LoadProcess, count = 200): Promise<void> {
  let first: number | undefined
  await load.until(({ answers }) => answers >= (first ??= answers) + count)
}

async function nothingLost(load: LoadProcess): Promise<void> {
  const { lost, losses, closedByServer } = await load.stop()
  expect({ lost, losses, closed: closedByServer.total }).toEqual({ lost: 0, losses: [], closed: 0 })
}

describe('a keeper that is killed', () => {
  test('is missed by no client: its workers serve on, and the same command again keeps them, starts what is missing, and reloads', async () => {
    await using app = await KeptApp.start(kept, { workers: 2 })
    const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, traffic)
    await more(load)
    const before = await pidsOf(app)
    process.kill(app.program.pid, 'SIGKILL')
    await app.program.ended
    await more(load)
    const { stdout } = await app.run('status')
    expect(stdout).toContain(`process ${app.program.pid} is gone`)

    await using next = await KeptApp.start(kept, { workers: 3, after: app })
    expect(next.stderr).toContain('2 workers of kept lived, and are kept from now on')
    expect((await pidsOf(next)).slice(0, 2)).toEqual(before)
    expect(await next.reload('--bake', '0')).toMatchObject({ ok: true, switched: [{ slot: 0, from: { pid: before[0], generation: 1 }, to: { generation: 2 } }, { slot: 1 }, { slot: 2 }] })
    await more(load)
    await nothingLost(load)
    // It is a keeper like any other: what crashes is started again.
    const [victim] = await next.servers()
    process.kill(victim!.pid, 'SIGKILL')
    await waitFor(async () => (await pidsOf(next)).length === 3 && !(await pidsOf(next)).includes(victim!.pid))
    expect(await next.stop()).toEqual({ code: 0, signal: null })
  })

  test('and its workers can be stopped by the command; a reload of any kind says that the keeper is gone', async () => {
    await using app = await KeptApp.start(kept, { workers: 2 })
    process.kill(app.program.pid, 'SIGKILL')
    await app.program.ended
    for (const option of [[], ['--keeper'], ['--probe', '/']]) {
      expect(await app.run('reload', 'kept', ...option)).toMatchObject({ status: 1, stderr: expect.stringMatching(/the keeper \(process \d+\) is gone, which starts successors.*Start it again, in the same way/s) })
    }
    expect(await app.run('stop', 'kept')).toMatchObject({ status: 0 })
    await waitFor(() => app.left.length === 0)
  })

  test('with fewer workers the next time: those that are too many drain, and what waited for them is answered', async () => {
    await using app = await KeptApp.start(kept, { workers: 3 })
    const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, traffic)
    await more(load)
    process.kill(app.program.pid, 'SIGKILL')
    await app.program.ended
    await using next = await KeptApp.start(kept, { workers: 1, after: app, env: { HANDOVER_LINGER: '500' } })
    await waitFor(async () => (await next.status()).processes.length === 1)
    await more(load)
    const { lost, losses, closedByServer } = await load.stop()
    expect({ lost, losses }).toEqual({ lost: 0, losses: [] })
    expect(closedByServer.announced).toBe(closedByServer.total)
    expect(await next.stop()).toEqual({ code: 0, signal: null })
  })
})

describe('reload --keeper', () => {
  test('hands the keeper\'s job to a new process three times under load: no worker and no connection notices', async () => {
    await using app = await KeptApp.start(kept, { workers: 2 })
    const load = startLoadProcess({ host: '127.0.0.1', port: app.port }, traffic)
    await more(load)
    const before = await pidsOf(app)
    const keepers = [app.program.pid]
    for (let round = 0; round < 3; round++) {
      const outcome = await app.reload('--keeper')
      expect(outcome).toMatchObject({ ok: true, switched: [{ slot: null, from: { pid: keepers.at(-1) } }] })
      keepers.push(outcome.switched[0]!.to.pid)
      await waitFor(async () => (await app.findStatus())?.keeper?.pid === keepers.at(-1))
      expect(await pidsOf(app)).toEqual(before)
      await more(load)
    }
    expect(await app.program.ended).toEqual({ code: 0, signal: null })
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true, switched: [{ from: { pid: before[0] } }, { from: { pid: before[1] } }] })
    await more(load)
    await nothingLost(load)
    const [victim] = await app.servers()
    process.kill(victim!.pid, 'SIGKILL')
    await waitFor(async () => (await pidsOf(app)).length === 2 && !(await pidsOf(app)).includes(victim!.pid))
    const { keeper } = await app.status()
    expect(keeper).toMatchObject({ workers: 2, crashes: 1 })
    await app.run('stop', 'kept')
    await waitFor(() => app.left.length === 0)
  })

  test.each([
    ['does not start', '#!/bin/sh\necho "no such node" >&2\nexit 7\n', 'with status 7'],
    ['dies when it should take the workers', '#!/bin/sh\nexec "$REAL_NODE" --require "$KEPT_FOLDER/dies.cjs" "$@"\n', 'with status 9']
  ])('to a keeper that %s changes nothing: the old one says why, and goes on', async (_what, script, how) => {
    await using place = await KeptApp.start(kept, { workers: 1, name: 'place' })
    const link = path.join(place.folder, 'node')
    symlinkSync(process.execPath, link)
    writeFileSync(path.join(place.folder, 'dies.cjs'), 'require("node:fs").readdirSync = () => process.exit(9)\n')
    await using app = await KeptApp.start(kept, { workers: 2, node: link, env: { REAL_NODE: process.execPath, KEPT_FOLDER: place.folder } })
    const before = await pidsOf(app)
    rmSync(link)
    writeFileSync(link, script)
    chmodSync(link, 0o755)
    const outcome = await app.reload('--keeper')
    expect(outcome).toMatchObject({ ok: false, error: { code: 'HANDOVER_SUCCESSOR_FAILED', message: expect.stringContaining(how) } })
    expect(outcome.error?.message).toContain(`Process ${app.program.pid} goes on as the keeper`)
    expect(await pidsOf(app)).toEqual(before)
    rmSync(link)
    symlinkSync(process.execPath, link)
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true, switched: [{ from: { pid: before[0] } }, { from: { pid: before[1] } }] })
    const [victim] = await app.servers()
    process.kill(victim!.pid, 'SIGKILL')
    await waitFor(async () => (await pidsOf(app)).length === 2 && !(await pidsOf(app)).includes(victim!.pid))
    expect(await app.stop()).toEqual({ code: 0, signal: null })
  })

  test('goes alone: with another option of a reload it is refused', async () => {
    await using app = await KeptApp.start(kept)
    const { status, stderr } = await app.run('reload', '--keeper', '--wait', 'kept')
    expect(status).toBe(1)
    expect(stderr).toMatch(/--keeper goes alone.*Nothing was changed.*HANDOVER_OPTION/)
    expect(await app.stop()).toEqual({ code: 0, signal: null })
  })
})
