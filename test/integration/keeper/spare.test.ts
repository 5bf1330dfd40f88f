/**
 * The spare of `handover run`: when it is used and when not, that a program cannot see it, and that it never outlives its keeper. The tests
 * run side by side: a spare starts when its keeper has been quiet for seconds.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { SpareStatus } from '@handover/core/internal'
import { describe, expect, test } from 'vitest'
import { Keeping, serving, type KeepingOptions } from '../../helpers/keeping.js'
import { exists, programPath, waitFor } from '../../helpers/program.js'
import { listeningPorts } from '../../helpers/net-tables.js'

const startWithSpare = async (options: KeepingOptions): Promise<Keeping> =>
  await Keeping.start({ ...options, words: ['--spare', 'on', ...(options.words ?? [])] })

const spareOf = async (app: Keeping): Promise<SpareStatus> => (await app.status())!.keeper!.spare!

/** The pid of a spare that waits, other than `before`. */
async function waiting(app: Keeping, before?: number): Promise<number> {
  let found: SpareStatus | undefined
  await waitFor(async () => {
    found = await spareOf(app)
    return found.ready && found.pid !== before
  })
  return found!.pid!
}

const seenBy = async (app: Keeping, pid: number): Promise<unknown> => await app.program.until(() => {
  const line = app.program.lines.find((each) => each.startsWith(`sees ${pid} `))
  if (line === undefined) return false
  const { ppid, ...seen } = JSON.parse(line.slice(`sees ${pid} `.length)) as Record<string, unknown>
  expect(ppid).toBe(app.program.pid)
  return JSON.parse(JSON.stringify(seen).replaceAll(app.folder, 'FOLDER')) as unknown
})

describe.concurrent('a program', () => {
  test.each(['sees.cjs', 'sees.mjs'])('sees nothing of it: %s', async (program) => {
    const seen: unknown[] = []
    for (const spare of ['on', 'off']) {
      await using app = new Keeping({ program, args: ['a', '--spare'], words: ['--spare', spare, '--title', 'shop', '--require', programPath('preloads.cjs'), '--import', programPath('preloads.cjs')], env: { NODE_OPTIONS: '--stack-trace-limit=20' } })
      const [first] = await app.serves()
      const pid = spare === 'on' ? await waiting(app) : 0
      await app.reload('--bake', '0')
      const [second] = await app.serves()
      if (spare === 'on') expect(second).toBe(pid)
      seen.push(await seenBy(app, first!), await seenBy(app, second!))
    }
    for (const other of seen.slice(1)) expect(other).toEqual(seen[0])
    expect(seen[0]).toMatchObject({ kind: program === 'sees.cjs' ? 'commonjs' : 'module', firesEarly: false, young: true })
  })
})

describe.concurrent('a spare', () => {
  test('that has waited for long is as warm: V8 does not reduce its memory in the midst of the switch', async () => {
    await using app = await startWithSpare({ program: 'traces-gc.cjs' })
    await waiting(app)
    // V8 does so when a program has been quiet for 8 s.
    await new Promise((resolve) => setTimeout(resolve, 9_000))
    const { switched } = await app.reload('--bake', '0')
    const { pid } = switched[0]!.to
    await app.program.until(() => app.program.lines.includes(`settled ${pid}`))
    expect(app.program.lines.filter((line) => line.startsWith(`[${pid}:`) && line.includes('(reduce)'))).toEqual([])
  })

  test('stays warm where the program collects its garbage as it starts', async () => {
    await using app = await startWithSpare({ program: 'optimized.cjs' })
    const pid = await waiting(app)
    await app.reload('--bake', '0')
    const line = await app.program.until(() => app.program.lines.find((each) => each.startsWith(`compiled ${pid} `)) ?? false)
    const [before, after] = line.split(' ').slice(2).map(Number)
    expect(before).toBeGreaterThan(20)
    // Without objects of each kind it is a third.
    expect(after).toBeGreaterThan(before! * 0.6)
  })

  test('is the next worker of a reload and of a crash, for whichever slot, and no worker before that', async () => {
    await using app = await startWithSpare({ workers: 2 })
    const first = await waiting(app)
    expect(listeningPorts(first)).toEqual([])
    expect(listeningPorts(app.program.pid)).not.toEqual([])
    expect((await app.status())!.processes).toHaveLength(2)
    const load = app.load()
    const { switched } = await app.reload('--bake', '0')
    expect(switched[0]!.to.pid).toBe(first)
    expect((await load.stop()).lost).toBe(0)

    const second = await waiting(app, first)
    const [, victim] = serving((await app.status())!)
    process.kill(victim!, 'SIGKILL')
    await waitFor(async () => (await app.serves())[1] === second)
    expect(await spareOf(app)).toMatchObject({ used: 2 })
  })

  test('that dies is replaced, and nobody hears of it', async () => {
    await using app = await startWithSpare({})
    const first = await waiting(app)
    process.kill(first, 'SIGKILL')
    await waiting(app, first)
    expect((await app.status())!.keeper!.crashes).toBe(0)
    expect(app.program.stderr).not.toMatch(new RegExp(`\\b${first}\\b`))
  })

  test('is not used after a file has changed that Node reads when it boots', async ({ onTestFinished }) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-spare-'))
    onTestFinished(() => { rmSync(folder, { recursive: true }) })
    const file = path.join(folder, 'certificates.pem')
    writeFileSync(file, '')
    await using app = await startWithSpare({ env: { NODE_EXTRA_CA_CERTS: file } })
    const first = await waiting(app)
    writeFileSync(file, '# another one')
    const { ok, switched } = await app.reload('--bake', '0')
    expect(ok).toBe(true)
    expect(switched[0]!.to.pid).not.toBe(first)
    await waitFor(() => !exists(first))
    await waiting(app, first)
  })

  test('ends with a keeper that is killed, and with one that stops', async () => {
    await using app = await startWithSpare({})
    const first = await waiting(app)
    process.kill(app.program.pid, 'SIGKILL')
    await waitFor(() => !exists(first))
    await using other = await startWithSpare({})
    const second = await waiting(other)
    expect((await other.run('stop')).status).toBe(0)
    expect(await other.program.ended).toEqual({ code: 0, signal: null })
    await waitFor(() => !exists(second))
  })

  test('does not exist where Node does more at its start than to boot, or is told not to', async () => {
    await using inspected = await startWithSpare({ words: ['--inspect=127.0.0.1:0'] })
    await waitFor(async () => (await spareOf(inspected)).off !== undefined)
    expect(await spareOf(inspected)).toEqual({ pid: null, ready: false, used: 0, off: 'with --inspect Node does more than to boot' })
    await using off = await Keeping.start()
    expect((await off.status())!.keeper).not.toHaveProperty('spare')
  })
})
