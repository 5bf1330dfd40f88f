/**
 * Workers that are killed while their state is on its way to the next generation, under a keeper; and what a reload says of shared state.
 */

import { describe, expect, it } from 'vitest'
import { get } from '../helpers/ask.js'
import { waitFor } from '../helpers/program.js'
import { Checkpointed } from '../helpers/checkpointed.js'

/** `small` arrives whole. Of `large` the first worker that is asked for it never sends the end; the others do. */
const halfway = (folder: string): string => `
  const { mkdirSync } = await import('node:fs')
  memory.small = 'fresh'
  handover.share('small', { save: () => 'from ' + process.pid, restore: (value, { phase }) => { memory.small = value; print('restored', { value, phase }) } })
  handover.share('large', {
    async *save() {
      yield 1
      try { mkdirSync(${JSON.stringify(folder)} + '/asked') } catch { return }
      print('streaming')
      await new Promise(() => undefined)
    },
    async restore(items) { for await (const item of items) memory.large = item }
  })`

describe.for([1, 3])('where the first of %i workers is killed halfway through a reload', (workers) => {
  it('its successor serves with what had arrived, the reload says so, and no connect is refused', { timeout: 120_000 }, async () => {
    await using scene = await Checkpointed.start(workers, 'memory.small = 0')
    const { app, folder } = scene
    scene.write(halfway(folder))
    expect((await app.reload('--bake', '0')).ok).toBe(true)
    const before = await app.serves()
    const load = app.load({ newConnections: { clients: 4, thinkMs: 3 } })
    await load.until(({ answers }) => answers > 50)
    const reload = app.begin('reload', '--bake', '0')
    const { pid } = await app.program.event('streaming')
    expect(pid).toBe(before[0])
    await scene.restoredBy(1)
    process.kill(pid, 'SIGKILL')
    const { stdout, stderr, status } = await reload.ended
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
    const successor = scene.restored[0]!.pid
    expect(stdout).toMatch(new RegExp(`^slot 0: generation 3 \\(process ${successor}\\b.*\\) serves in place of generation 2 \\(process ${pid}\\), which ended by SIGKILL while it handed over: its connections are lost, and what of its state had not arrived$`, 'm'))
    expect(app.program.stderr).toMatch(new RegExp(`process ${pid} \\(generation 2\\) ended by SIGKILL while it handed over to process ${successor} \\(generation 3\\), which serves with what had arrived by then\\.`))
    expect(app.program.stderr).toContain('section "large" is not restored: the predecessor ended before it was sent')
    const after = await app.serves()
    expect(after[0]).toBe(successor)
    expect(after.filter((each) => before.includes(each))).toEqual([])
    const known = await app.status()
    expect(known?.lastReload?.switched.map(({ died }) => died)).toEqual(after.map((_, slot) => (slot === 0 ? 'by SIGKILL' : undefined)))
    expect(known?.keeper).toMatchObject({ crashes: 1, down: [] })
    // The workers behind the first restore at the same time.
    expect(scene.restored.map(({ value }) => value).sort()).toEqual(before.map((each) => `from ${each}`).sort())
    if (workers === 1) expect(JSON.parse((await get(app.target, '/memory')).body)).toMatchObject({ small: `from ${pid}` })
    const { losses, lost } = await load.stop()
    expect(losses.filter(({ reason }) => reason !== 'reset' && reason !== 'closed' && reason !== 'cut')).toEqual([])
    expect(lost).toBeLessThanOrEqual(4)
  })
})

it('where the successor is killed as well, the error names both, and the next worker serves', { timeout: 120_000 }, async () => {
  await using scene = await Checkpointed.start(1, `handover.share('small', { save: () => 1, restore: async (value, { phase }) => { print('restored', { value, phase }); await new Promise(() => undefined) }, timeout: 60_000 })`)
  const { app } = scene
  const [first] = await app.serves()
  const reload = app.begin('reload', '--bake', '0')
  await scene.restoredBy(1)
  const { pid } = scene.restored[0]!
  process.kill(first!, 'SIGKILL')
  await app.program.stderrMatching(/the predecessor ended without a report/)
  process.kill(pid, 'SIGKILL')
  const { stderr, status } = await reload.ended
  expect(status).toBe(1)
  expect(stderr).toContain(`process ${pid} (generation 2) ended before it served, by SIGKILL; process ${first} (generation 1), which handed over to it, had ended by SIGKILL.`)
  await waitFor(async () => ![first, pid].includes((await app.serves())[0]!))
})

it('a reload says how many sections were restored, and names those that nobody wanted or that failed', { timeout: 120_000 }, async () => {
  const gives = (names: readonly string[]): string => names.map((name) => `handover.share('${name}', { save: () => 1 })`).join('\n')
  const takes = `handover.share('kept', { restore: () => undefined })\nhandover.share('bad', { optional: true, restore: () => { throw new Error('no room') } })`
  await using scene = await Checkpointed.start(2, gives(['kept', 'gone', 'bad']))
  const { app } = scene
  scene.write(takes)
  expect((await app.run('reload', '--bake', '0')).stdout).toMatch(/^state: 2 restored, 2 unclaimed \(gone in 2 slots\), 2 failed \(bad: no room in 2 slots\)\nreloaded in /m)
  // What was given to nobody is not said of a reload without any.
  expect((await app.run('reload', '--bake', '0')).stdout).not.toContain('state:')
})
