/**
 * The predecessor is killed: the successor that has the offer commits alone; one that has none is a first generation. No connect is
 * refused.
 */

import { existsSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Scene, ask, portNeverClosed, type SceneOptions } from '../helpers/invariants.js'
import { waitFor } from '../helpers/program.js'

const listen = '127.0.0.1:0,unix:DIR/app.sock'

/** Each starts a reload and answers the process of the successor when it serves. */
const triggers = {
  async signal(scene: Scene) {
    process.kill(scene.program.pid, 'SIGHUP')
    return (await scene.state('serving', ({ pid }) => pid !== scene.program.pid)).pid
  },
  async rendezvous(scene: Scene) {
    const second = scene.startAgain()
    return (await scene.state('serving', ({ pid }) => pid === second.pid)).pid
  }
} as const

async function start(options: SceneOptions, firstBoot: string, secondBoot: (predecessor: number) => string = () => 'ok'): Promise<Scene> {
  const scene = await Scene.start({ listen, ...options, behaviour: firstBoot })
  scene.behave(secondBoot(scene.program.pid))
  return scene
}

const killedBySuccessor = (state: string) => (predecessor: number): string => `kills:${predecessor}@${state}`

describe.each(Object.entries(triggers))('in a reload by %s', (_name, trigger) => {
  it.each<[when: string, first: string, second?: (predecessor: number) => string]>([
    ['when its offer is out', 'ok', killedBySuccessor('preparing')],
    ['before it hears that the successor is ready', 'ok', killedBySuccessor('ready')],
    ['before it commits', 'kill-at:committing'],
    ['when its commit is out', 'ok', killedBySuccessor('serving')],
    ['right after the switch', 'kill-at:draining']
  ])('the successor serves alone when the predecessor is killed %s', async (_when, first, second) => {
    await using scene = await start({}, first, second)
    const load = scene.load()
    await load.until(({ answers }) => answers > 0)
    const successor = await trigger(scene)
    await load.until(({ versions }) => versions.some(({ pid, answers }) => pid === successor && answers > 20))
    portNeverClosed(await load.stop())
    expect(scene.events.findLast((event) => event.event === 'state' && event.pid === successor)).toMatchObject({ to: 'serving', generation: 2 })
    for (const target of scene.targets) expect((await ask(target, '/')).pid).toBe(successor)
    expect(scene.alive).toEqual([successor])
    await scene.reload(successor)
  })
})

it('a process that called is a first generation with the name of the predecessor when that one is killed before its offer', async () => {
  // A port of its own: the predecessor's is gone with it, as it would be without a reload.
  await using scene = await start({ listen: '127.0.0.1:0' }, 'kill-at:offering')
  const second = scene.startAgain()
  const listening = await scene.event('listening', ({ pid }) => pid === second.pid)
  expect(listening.generation).toBe(1)
  expect((await ask({ host: '127.0.0.1', port: (listening['address'] as { port: number }).port }, '/')).pid).toBe(second.pid)
  // It holds the name: a third process takes over from it.
  const third = scene.startAgain()
  expect((await scene.state('serving', ({ pid }) => pid === third.pid)).generation).toBe(2)
  await second.ended
})

it('a successor that was started by the predecessor is a first generation when that one dies before its offer', async () => {
  await using scene = await start({ listen: '127.0.0.1:0' }, 'kill-at:offering')
  process.kill(scene.program.pid, 'SIGHUP')
  const listening = await scene.event('listening', ({ pid }) => pid !== scene.program.pid)
  expect(listening.generation).toBe(1)
  expect((await ask({ host: '127.0.0.1', port: (listening['address'] as { port: number }).port }, '/')).pid).toBe(listening.pid)
  await waitFor(() => existsSync(scene.controlSocket))
  const third = scene.startAgain()
  expect((await scene.state('serving', ({ pid }) => pid === third.pid)).generation).toBe(2)
})

it('a successor that writes more to stderr than a pipe holds, after its predecessor was killed, still comes to serve', async () => {
  await using scene = await start({ options: { readyWhen: 'manual' }, env: { READY_AFTER: '400' } }, 'ok', (predecessor) => `chatter:${predecessor}`)
  const successor = await triggers.signal(scene)
  expect(await scene.answering()).toBe(successor)
})
