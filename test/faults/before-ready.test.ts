/** Whatever happens to a successor before it serves: the predecessor serves on as if nothing had happened, and the next reload works. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Scene, aFailedReloadChangesNothing, type Failure } from '../helpers/invariants.js'

let scene: Scene
/** The process that serves; a test leaves its successor here for the next one. */
let serving: number

const fails = async (behaviour: string, expected: Failure): Promise<void> => {
  serving = await aFailedReloadChangesNothing(scene, serving, expected, async () => {
    scene.behave(behaviour)
    return await scene.hangUp(serving)
  })
}

const fake = (until: string, then: string, protocol?: number): string => `fake ${JSON.stringify({ until, then, protocol })}`

describe('before it is ready', () => {
  beforeAll(async () => {
    scene = await Scene.start({ listen: '127.0.0.1:0,unix:DIR/app.sock', options: { undoWindow: 100 } })
    serving = scene.program.pid
  })
  afterAll(async () => { await scene[Symbol.asyncDispose]() })

  it.each<[how: string, behaviour: string, expected: Failure]>([
    ['exits with status 0', 'exit:0', { code: 'HANDOVER_SUCCESSOR_EXIT', says: /ended with status 0 before it was ready/ }],
    ['exits with status 3', 'exit:3', { code: 'HANDOVER_SUCCESSOR_EXIT', says: /ended with status 3 before it was ready/ }],
    ['throws', 'throw', { code: 'HANDOVER_SUCCESSOR_EXIT', says: /status 1/, stderr: /Error: this build throws at boot/ }],
    ['rejects a promise that nobody handles', 'reject', { code: 'HANDOVER_SUCCESSOR_EXIT', says: /status 1/, stderr: /this build rejects at boot/ }],
    ['does not parse', 'syntax-error', { code: 'HANDOVER_SUCCESSOR_EXIT', says: /status 1/, stderr: /SyntaxError/ }],
    ['says why on stderr and ends', 'write:no database', { code: 'HANDOVER_SUCCESSOR_EXIT', says: /status 1/, stderr: /no database/ }],
    ['cannot listen', 'listen-fails', { code: 'HANDOVER_SUCCESSOR_FAILED', says: /EADDRINUSE/ }]
  ])('changes nothing when the successor %s', async (_how, behaviour, expected) => {
    await fails(behaviour, expected)
  })

  it.each(['taking', 'preparing', 'ready', 'serving'])('changes nothing when the successor ends as it enters "%s"', async (state) => {
    await fails(`exit-at:${state}`, { code: 'HANDOVER_SUCCESSOR_EXIT', says: /ended with status 7 before it (was ready|served)/ })
  })

  const steps = ['start', 'hello', 'offer', 'ready', 'commit'] as const
  const mishaps: readonly [how: string, then: string, expected: Failure][] = [
    ['is killed', 'kill', { code: 'HANDOVER_SUCCESSOR_EXIT', says: /SIGKILL/ }],
    ['sends a line that is no message', 'say:what?', { code: 'HANDOVER_PROTOCOL', says: /expected one of hello.+found "what\?"/ }],
    ['sends a message with a wrong field', 'say:{"type":"ready","kept":1,"added":[],"dropped":[]}', { code: 'HANDOVER_PROTOCOL', says: /valid "kept"/ }],
    ['sends a message that only a predecessor sends', 'say:{"type":"commit"}', { code: 'HANDOVER_PROTOCOL', says: /expected "(hello|ready|serving)", found "commit"/ }],
    ['sends a line that is too long', 'overlong', { code: 'HANDOVER_PROTOCOL', says: /at most 1048576 bytes/ }],
    ['says that it cannot serve', 'failed:the cache is cold', { code: 'HANDOVER_SUCCESSOR_FAILED', says: /the cache is cold/ }]
  ]
  it.each(steps.flatMap((step) => mishaps.map(([how, then, expected]) => [how, step, then, expected] as const)))('changes nothing when the successor %s after "%s"', async (_how, step, then, expected) => {
    await fails(fake(step, then), expected)
  })

  it.each(['start', 'ready'])('kills a successor that closes the channel after "%s" and lives on', async (step) => {
    await fails(fake(step, 'close'), { code: 'HANDOVER_SUCCESSOR_EXIT', says: /ended by SIGKILL/ })
  })

  it('refuses a successor whose protocol is two versions ahead, and names both versions', async () => {
    await fails(fake('offer', 'exit:0', 3), { code: 'HANDOVER_PROTOCOL_VERSION', says: /this process speaks protocol 1, process \d+ speaks 3/ })
  })

  it.each([0, 2])('makes its offer to a successor that speaks protocol %i', async (protocol) => {
    await fails(fake('offer', 'failed:only asking', protocol), { code: 'HANDOVER_SUCCESSOR_FAILED', says: /only asking/ })
  })
})

describe('past readyTimeout', () => {
  it('kills a successor that blocks its event loop, and changes nothing', async () => {
    await using scene = await Scene.start({ options: { readyTimeout: 8_000, undoWindow: 100 } })
    await aFailedReloadChangesNothing(scene, scene.program.pid, { code: 'HANDOVER_SUCCESSOR_TIMEOUT', says: /did not become ready within 8000 ms and was killed/ }, async () => {
      scene.behave('hang')
      return await scene.hangUp(scene.program.pid)
    })
  })
})

describe('a Unix path that a successor adds', () => {
  it.each(['1', 'kill'])('does not stand in the way of the next reload when the successor fails (%s)', async (status) => {
    await using scene = await Scene.start({ options: { undoWindow: 100 } })
    const { pid } = scene.program
    scene.behave(`adds:${scene.directory}/added.sock:${status}`)
    for (const attempt of ['first', 'second']) expect(await scene.hangUp(pid), `${attempt} attempt`).toMatchObject({ event: 'failed', code: 'HANDOVER_SUCCESSOR_EXIT' })
  })
})

describe('what reload() and the caller learn', () => {
  it('rejects reload() with the error that is emitted', async () => {
    await using scene = await Scene.start()
    scene.behave('write:no database')
    const { status, body } = await fetch(`http://127.0.0.1:${(scene.targets[0] as { port: number }).port}/reload`).then(async (answer) => ({ status: answer.status, body: await answer.json() as { code: string; message: string } }))
    expect(status).toBe(409)
    expect(body.code).toBe('HANDOVER_SUCCESSOR_EXIT')
    expect(body.message).toMatch(/no database/)
    expect(scene.events.find(({ event }) => event === 'failed')).toMatchObject(body)
  })
})
