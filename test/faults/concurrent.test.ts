/** Reloads, stops and drains that meet each other. */

import { describe, expect, it } from 'vitest'
import { HeldRequest, Scene, nothingLost, resultOf, standing } from '../helpers/invariants.js'
import { waitFor } from '../helpers/program.js'

const switches = (scene: Scene): number => scene.events.filter((event) => resultOf(event) === 'switched').length

/** Starts a reload whose successor never gets ready. */
async function hold(scene: Scene): Promise<void> {
  scene.behave('never-listens')
  process.kill(scene.program.pid, 'SIGHUP')
  await booting(scene)
}

describe('two reloads at once', () => {
  it('the second signal is refused with the reason, and the first reload goes on', async () => {
    await using scene = await Scene.start()
    scene.behave('silent-then-boot')
    const load = scene.load()
    process.kill(scene.program.pid, 'SIGHUP')
    await scene.state('launching')
    process.kill(scene.program.pid, 'SIGHUP')
    await scene.program.stderrMatching(/HANDOVER_RELOAD_RUNNING\]: a reload already runs\. Process \d+ \(generation 1\) keeps serving tcp .+ Wait for its report\./)
    const second = (await scene.state('serving', ({ pid }) => pid !== scene.program.pid)).pid
    await load.until(({ versions }) => versions.some(({ pid }) => pid === second))
    nothingLost(await load.stop())
    expect(switches(scene)).toBe(1)
  })

  it('a process that calls while a reload runs is refused with the reason, and listens to nothing', async () => {
    await using scene = await Scene.start({ options: { readyTimeout: 100_000 } })
    await hold(scene)
    scene.behave('ok')
    const caller = scene.startAgain()
    expect((await caller.ended).code).not.toBe(0)
    expect(caller.stderr).toMatch(/HANDOVER_REFUSED\]: a reload already runs\..+\(HANDOVER_RELOAD_RUNNING\)/)
    expect(caller.events.some(({ event }) => event === 'listening')).toBe(false)
    expect(await scene.answering()).toBe(scene.program.pid)
  })

  it('of many processes that call at the same moment, each takes over or is told why not', async () => {
    await using scene = await Scene.start({ options: { undoWindow: 100 } })
    const load = scene.load()
    const callers = Array.from({ length: 4 }, () => scene.startAgain())
    // Whoever is refused ends; whoever took over serves, or has served.
    const became = await Promise.all(callers.map(async (caller) => await scene.until(() => {
      if (caller.stderr.includes('HANDOVER_REFUSED')) return 'refused'
      return caller.events.some(({ event, to }) => event === 'state' && to === 'serving') && 'served'
    })))
    expect(became).toContain('served')
    const served = became.filter((how) => how === 'served').length
    // What a process wrote may be read here after its end was seen.
    await scene.until(() => switches(scene) >= served)
    await waitFor(() => scene.alive.length === 1)
    expect(switches(scene)).toBe(served)
    nothingLost(await load.stop())
  })
})

describe('while older generations drain', () => {
  it('ten generations drain at once, and each answers the request that it has', async () => {
    await using scene = await Scene.start({ options: { undoWindow: 100, drainTimeout: 60_000 } })
    const load = scene.load({ keepAlive: { clients: 2, thinkMs: 10 }, newConnections: { clients: 1, thinkMs: 10 } })
    const held: HeldRequest[] = []
    const pids = [scene.program.pid]
    for (let generation = 1; generation <= 10; generation++) {
      held.push(new HeldRequest(scene.targets[0]!))
      // The same process has it before it drains.
      expect(await scene.answering()).toBe(pids.at(-1))
      pids.push(await scene.reload(pids.at(-1)!))
    }
    expect(scene.alive.toSorted()).toEqual(pids.toSorted())
    for (const pid of pids.slice(0, -1)) expect(standing(scene, pid).state).toBe('draining')
    expect((await Promise.all(held.map((request) => request.finish()))).map(({ pid }) => pid)).toEqual(pids.slice(0, -1))
    await waitFor(() => scene.alive.length === 1)
    nothingLost(await load.stop())
    // What a process wrote may be read here after its end was seen.
    await scene.until(() => pids.slice(0, -1).every((pid) => scene.events.some((event) => event.pid === pid && resultOf(event) === 'drained')))
  })
})

describe('signals during a reload', () => {
  it('SIGTERM gives the reload up, ends the successor, and then drains and ends with status 0', async () => {
    await using scene = await Scene.start()
    const held = new HeldRequest(scene.targets[0]!)
    await scene.answering()
    await hold(scene)
    process.kill(scene.program.pid, 'SIGTERM')
    expect(await scene.event('failed')).toMatchObject({ code: 'HANDOVER_STOPPED' })
    expect((await held.finish()).status).toBe(200)
    expect(await scene.program.ended).toEqual({ code: 0, signal: null })
    await waitFor(() => scene.alive.length === 0)
    expect(scene.events.filter((event) => resultOf(event) === 'stopped')).toHaveLength(1)
  })

  it('SIGHUP to a successor that boots neither ends it nor counts, and says so', async () => {
    await using scene = await Scene.start()
    scene.behave('silent-then-boot')
    const load = scene.load()
    process.kill(scene.program.pid, 'SIGHUP')
    const successor = await booting(scene)
    process.kill(successor, 'SIGHUP')
    await scene.program.stderrMatching(/listens on nothing yet in its main thread: the reload signal is ignored/)
    await scene.state('draining')
    expect(await scene.answering()).toBe(successor)
    nothingLost(await load.stop())
    expect(switches(scene)).toBe(1)
  })

  it('SIGTERM to a successor that boots fails the reload, and leaves the Unix path that its predecessor serves', async () => {
    await using scene = await Scene.start({ listen: '127.0.0.1:0,unix:DIR/app.sock', options: { readyWhen: 'manual' }, env: { READY_AFTER: '3000' } })
    await scene.event('listening')
    process.kill(scene.program.pid, 'SIGHUP')
    const { pid: successor } = await scene.event('listening', (event) => event.pid !== scene.program.pid && typeof event['address'] === 'string')
    process.kill(successor, 'SIGTERM')
    expect(await scene.event('failed')).toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT' })
    for (const target of scene.targets) expect(await scene.answering(target)).toBe(scene.program.pid)
  })
})

/** The successor, when it has loaded Handover and not yet listened. */
async function booting(scene: Scene): Promise<number> {
  return (await scene.event('booting', ({ pid }) => pid !== scene.program.pid)).pid
}
