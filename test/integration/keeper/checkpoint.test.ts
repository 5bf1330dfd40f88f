/** A worker that is killed comes back with what it last saved: real processes under a keeper. */

import { describe, expect, it } from 'vitest'
import { waitFor } from '../../helpers/program.js'
import { Checkpointed, section } from '../../helpers/checkpointed.js'

describe.for([1, 4])('of %i workers', { timeout: 120_000 }, (workers) => {
  it('each that is killed comes back with its own last checkpoint, and no connect is refused', async () => {
    await using scene = await Checkpointed.start(workers)
    const { app } = scene
    const first = await app.serves()
    await scene.saved(first)
    expect((await app.status())?.keeper?.checkpoints.map(({ slot, name }) => [slot, name])).toEqual(first.map((_, slot) => [slot, 'first']))
    const load = app.load({ newConnections: { clients: 4, thinkMs: 3 } })
    await load.until(({ answers }) => answers > 50)
    for (const pid of first) expect(await scene.kill(pid)).toMatchObject({ value: pid, phase: 'checkpoint' })
    const second = await app.serves()
    // Once more: what was restored is saved again.
    await scene.saved(second)
    for (const [slot, pid] of second.entries()) expect(await scene.kill(pid)).toMatchObject({ value: first[slot], phase: 'checkpoint' })
    await app.serves()
    const { losses, lost, requests } = await load.stop()
    expect(requests).toBeGreaterThan(50)
    expect(losses.filter(({ reason }) => reason !== 'reset' && reason !== 'closed' && reason !== 'cut')).toEqual([])
    // At most one of each client can be inside.
    expect(lost).toBeLessThanOrEqual(4 * 2 * workers)
  })
})

it('a build that crashes at boot takes no checkpoint away', { timeout: 120_000 }, async () => {
  await using scene = await Checkpointed.start(1)
  const { app } = scene
  const [first] = await app.serves()
  await scene.saved([first!])
  scene.write(`${section()}\nawait new Promise(setImmediate); throw new Error('this build is bad')`)
  process.kill(first!, 'SIGKILL')
  await waitFor(() => app.program.stderr.split('this build is bad').length > 3)
  scene.write(section())
  await app.serves()
  expect(scene.restored).toMatchObject([{ value: first, phase: 'checkpoint' }])
})

it('a reload leaves nothing of the generation before: the new one crashes with its own checkpoint, or with none', { timeout: 120_000 }, async () => {
  await using scene = await Checkpointed.start(1)
  const { app } = scene
  const [first] = await app.serves()
  await scene.saved([first!])
  scene.write('memory.first = 0')
  expect((await app.reload('--bake', '0', '--wait')).ok).toBe(true)
  expect((await app.status())?.keeper?.checkpoints).toEqual([])
  scene.write(section())
  const [second] = await app.serves()
  process.kill(second!, 'SIGKILL')
  await waitFor(async () => (await app.serves())[0] !== second)
  expect(scene.restored).toEqual([])
})

it('is text, since any version of Node may read it one day', { timeout: 120_000 }, async () => {
  await using scene = await Checkpointed.start(1, `
    handover.share('list', { checkpoint: 30, restore() {}, save: () => Object.defineProperty([0, new Map()], 0, { enumerable: true, get() {
      print('written', { plain: new Error().stack.includes('encodePlain') })
      return 1
    } }) })`)
  expect(await scene.app.program.event('written')).toMatchObject({ plain: false })
})

it('the next keeper has the checkpoints of the one before', { timeout: 120_000 }, async () => {
  await using scene = await Checkpointed.start(2, section(2))
  const { app } = scene
  const pids = await app.serves()
  await scene.saved(pids)
  await app.program.stderrMatching(/no checkpoint[^]*no checkpoint/)
  const before = await app.status()
  expect((await app.reload('--keeper')).ok).toBe(true)
  await waitFor(async () => (await app.status())?.keeper?.pid !== before?.keeper?.pid)
  const after = await app.status()
  expect(after?.keeper?.checkpoints.map(({ slot, name, bytes }) => ({ slot, name, bytes }))).toEqual(
    before?.keeper?.checkpoints.map(({ slot, name, bytes }) => ({ slot, name, bytes }))
  )
  expect(after?.service?.startedAt).toBe(before?.service?.startedAt)
  expect(await scene.kill(pids[1]!)).toMatchObject({ value: pids[1], phase: 'checkpoint' })
})

it('all processes say since when the service is up, also after a crash and a reload', { timeout: 120_000 }, async () => {
  await using scene = await Checkpointed.start(2)
  const { app } = scene
  const pids = await app.serves()
  const { processes, service } = (await app.status())!
  expect(new Set(processes.map(({ service: { startedAt } }) => startedAt))).toEqual(new Set([service?.startedAt]))
  process.kill(pids[0]!, 'SIGKILL')
  await waitFor(async () => !(await app.serves()).includes(pids[0]!))
  expect((await app.reload('--bake', '0')).ok).toBe(true)
  const now = (await app.status())!
  expect(now.service).toMatchObject({ startedAt: service?.startedAt })
  expect(new Set(now.processes.map((status) => status.service.startedAt))).toEqual(new Set([service?.startedAt]))
})
