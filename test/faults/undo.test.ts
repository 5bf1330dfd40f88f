/**
 * The successor dies after the switch: within the undo window the predecessor serves again, afterwards nothing of it is left that could.
 */

import { existsSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { HeldRequest, Scene, ask, holdsListener, portNeverClosed, resultOf } from '../helpers/invariants.js'
import { waitFor } from '../helpers/program.js'

const listen = '127.0.0.1:0,unix:DIR/app.sock'
const wide = { undoWindow: 30_000, drainTimeout: 40_000 }

describe('within the undo window', () => {
  it.each<[how: string, behaviour: string, end: NodeJS.Signals]>([
    ['is killed', 'ok', 'SIGKILL'],
    ['exits with status 7', 'usr2:exit', 'SIGUSR2'],
    ['throws', 'usr2:throw', 'SIGUSR2']
  ])('the predecessor serves again when the successor %s', async (_how, behaviour, end) => {
    await using scene = await Scene.start({ listen, options: wide })
    const first = scene.program.pid
    scene.behave(behaviour)
    const loads = scene.targets.map((target) => scene.load(undefined, target))
    await scene.hangUp(first)
    const second = (await scene.state('serving', ({ pid }) => pid !== first)).pid
    for (const load of loads) await load.until(({ versions }) => versions.some(({ pid }) => pid === second))

    process.kill(second, end)
    const failed = await scene.event('failed', ({ pid }) => pid === first)
    expect(failed).toMatchObject({ code: 'HANDOVER_UNDONE', generation: 1 })
    expect(failed['message']).toMatch(new RegExp(`^process ${second} \\(generation 2\\) died within the undo window\\.\\n  Process ${first} \\(generation 1\\) serves again tcp .+\\.\\n  Repair`))
    await scene.event('report', (event) => event.pid === first && resultOf(event) === 'undone')
    for (const target of scene.targets) expect(await scene.answering(target)).toBe(first)
    expect(existsSync(path.join(scene.directory, 'app.sock'))).toBe(true)

    // The control socket is there and answered by the predecessor: a rendezvous is the next reload.
    scene.behave('ok')
    const third = scene.startAgain()
    await scene.state('serving', ({ pid }) => pid === third.pid)
    for (const load of loads) {
      await load.until(({ versions }) => versions.some(({ pid }) => pid === third.pid))
      portNeverClosed(await load.stop())
    }
  })

  it.each<[how: string, behaviour: string, hang: NodeJS.Signals]>([
    ['loops', 'usr2:loop', 'SIGUSR2'],
    ['is stopped', 'ok', 'SIGSTOP']
  ])('the predecessor serves again, and the successor is killed, when that one %s', async (_how, behaviour, hang) => {
    await using scene = await Scene.start({ options: wide })
    const first = scene.program.pid
    scene.behave(behaviour)
    const load = scene.load()
    await scene.hangUp(first)
    const second = (await scene.state('serving', ({ pid }) => pid !== first)).pid
    await load.until(({ versions }) => versions.some(({ pid }) => pid === second))

    process.kill(second, hang)
    const failed = await scene.event('failed', ({ pid }) => pid === first)
    expect(failed).toMatchObject({ code: 'HANDOVER_UNDONE', generation: 1 })
    expect(failed['message']).toMatch(new RegExp(`^process ${second} \\(generation 2\\) hangs within the undo window: it has not answered for \\d+ ms, and it was killed\\.\\n  Process ${first} \\(generation 1\\) serves again`))
    await waitFor(() => scene.alive.length === 1)
    for (const target of scene.targets) expect(await scene.answering(target)).toBe(first)
    portNeverClosed(await load.stop())
  })

  it('a successor that is busy for a second, in a window that ends meanwhile, is not undone', async () => {
    await using scene = await Scene.start({ options: { undoWindow: 1_000, drainTimeout: 40_000 } })
    const first = scene.program.pid
    scene.behave('usr2:busy')
    await scene.hangUp(first)
    const second = (await scene.state('serving', ({ pid }) => pid !== first)).pid
    process.kill(second, 'SIGUSR2')
    await scene.event('was busy', ({ pid }) => pid === second)
    await scene.event('report', (event) => event.pid === first && resultOf(event) === 'drained')
    expect(await scene.answering(scene.targets[0]!)).toBe(second)
  })

  it('the predecessor serves again, and ends the successor, when that one breaks the channel with garbage', async () => {
    await using scene = await Scene.start({ options: wide })
    scene.behave(`fake ${JSON.stringify({ until: 'serving', then: 'say:so long' })}`)
    const load = scene.load()
    await scene.hangUp(scene.program.pid)
    await scene.event('failed', ({ code }) => code === 'HANDOVER_UNDONE')
    await waitFor(() => scene.alive.length === 1)
    await scene.reload(scene.program.pid)
    portNeverClosed(await load.stop())
  })

  it('connections that wait in the queue of a successor that never accepted are answered by the predecessor', async () => {
    await using scene = await Scene.start({ options: wide })
    scene.behave(`fake ${JSON.stringify({ until: 'serving', then: 'wait' })}`)
    const report = await scene.hangUp(scene.program.pid)
    const waiting = [1, 2, 3].map(() => ask(scene.targets[0]!, '/'))
    process.kill((report['report'] as { successor: { pid: number } }).successor.pid, 'SIGKILL')
    for (const { pid } of await Promise.all(waiting)) expect(pid).toBe(scene.program.pid)
  })

  it('the drain that was begun ends with the undo: no connection is cut at its deadline, and answers keep connections open again', async () => {
    await using scene = await Scene.start({ options: { undoWindow: 30_000, drainTimeout: 2_000, linger: 100 } })
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const { port } = scene.targets[0] as { port: number }
    const get = (url: string): Promise<http.IncomingMessage> => new Promise((resolve, reject) => {
      http.get({ host: '127.0.0.1', port, path: url, agent }, (answer) => { answer.resume().once('end', () => { resolve(answer) }) }).once('error', reject)
    })
    const report = await scene.hangUp(scene.program.pid)
    process.kill((report['report'] as { successor: { pid: number } }).successor.pid, 'SIGKILL')
    await scene.event('report', (event) => resultOf(event) === 'undone')
    // Begun after the undo, it is still running when the drain would have ended.
    const answer = await get('/slow?ms=2500')
    expect(answer.headers['connection']).toBe('keep-alive')
    expect((await get('/')).headers['x-pid']).toBe(String(scene.program.pid))
    agent.destroy()
  })

  it('the predecessor does not come back when the successor is stopped on purpose', async () => {
    await using scene = await Scene.start({ listen, options: wide })
    await scene.hangUp(scene.program.pid)
    const second = (await scene.state('serving', ({ pid }) => pid !== scene.program.pid)).pid
    process.kill(second, 'SIGTERM')
    await waitFor(() => scene.alive.length === 0)
    expect(scene.events.some(({ event }) => event === 'failed')).toBe(false)
    expect(await scene.program.ended).toEqual({ code: 0, signal: null })
    expect(existsSync(path.join(scene.directory, 'app.sock'))).toBe(false)
    expect(existsSync(scene.controlSocket)).toBe(false)
  })

  it('the second generation serves again, and not the first, when the third dies', async () => {
    await using scene = await Scene.start({ listen, options: wide })
    const first = scene.program.pid
    const held = new HeldRequest(scene.targets[0]!)
    await scene.answering()
    const load = scene.load()
    const second = await scene.reload(first)
    await scene.state('serving', ({ pid }) => pid === second)
    const third = await scene.reload(second)
    await load.until(({ versions }) => versions.some(({ pid }) => pid === third))
    process.kill(third, 'SIGKILL')
    await scene.event('report', (event) => event.pid === second && resultOf(event) === 'undone')
    expect((await held.finish()).pid).toBe(first)
    for (const target of scene.targets) expect(await scene.answering(target)).toBe(second)
    await waitFor(() => scene.alive.length === 1)
    expect(scene.events.some((event) => event.event === 'failed' && event.pid === first)).toBe(false)
    portNeverClosed(await load.stop())
  })
})

it('one generation serves, and not two, when the second is killed within the undo window of the first while a third boots', async () => {
  await using scene = await Scene.start({ options: wide })
  const first = scene.program.pid
  const second = await scene.reload(first)
  // The channel to the second has ended for both: the third commits alone, and the first must not come back as well.
  scene.behave(`kills:${second}@preparing`)
  process.kill(second, 'SIGHUP')
  const { pid: third } = await scene.state('serving', ({ generation }) => generation === 3)
  const load = scene.load()
  await scene.event('report', (event) => event.pid === first && resultOf(event) === 'drained')
  expect(scene.events.filter((event) => resultOf(event) === 'undone')).toEqual([])
  await load.until(({ versions }) => versions.some(({ pid }) => pid === third))
  portNeverClosed(await load.stop())
})

describe('after the undo window', () => {
  it('the predecessor holds no listener while it still drains', async () => {
    await using scene = await Scene.start({ options: { undoWindow: 2_000, drainTimeout: 20_000 } })
    const first = scene.program.pid
    const { port } = scene.targets[0] as { port: number }
    const held = new HeldRequest(scene.targets[0]!)
    await scene.answering()
    const second = await scene.reload(first)
    expect(holdsListener(first, port), 'within the window').toBe(true)
    await waitFor(() => !holdsListener(first, port))
    expect(scene.events.findLast((event) => event.event === 'state' && event.pid === first)).toMatchObject({ to: 'draining' })
    expect(holdsListener(second, port)).toBe(true)
    expect((await held.finish()).pid).toBe(first)
  })
})
