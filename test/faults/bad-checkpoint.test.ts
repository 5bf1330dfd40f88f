/**
 * Starts that fail where something was left to them: a checkpoint that kills keeps no service down, and a build that does not start costs
 * no state.
 */

import { describe, expect, it } from 'vitest'
import { get } from '../helpers/ask.js'
import { waitFor } from '../helpers/program.js'
import { Checkpointed, section } from '../helpers/checkpointed.js'

/** Restores what it gets from a process, and dies of a checkpoint. */
const dying = (how: string): string => `
  memory.first = process.pid
  handover.share('first', {
    save: ({ phase }) => { print('saved', { phase }); return memory.first },
    restore: async (value, { phase }) => { print('restored', { value, phase }); if (phase === 'checkpoint') { ${how} } },
    checkpoint: 30
  })`

/** Ends with its offer taken, whatever that was. */
const failing = `${section()}
  handover.events.on('state', ({ to }) => { if (to === 'preparing') { print('offered'); process.exit(4) } })`

describe.for([
  ['ends the process', 'process.exit(3)', {}],
  ['throws where nobody catches it', `setImmediate(() => { throw new Error('stray') }); await new Promise(() => undefined)`, {}],
  ['kills the process', `process.kill(process.pid, 'SIGKILL')`, {}],
  ['blocks the event loop', 'for (;;);', { HANDOVER_READY_TIMEOUT: '5000' }]
] as const)('a checkpoint whose restore %s', ([, how, env]) => {
  it('is given to two starts; the third one serves without it, and the log says so', { timeout: 120_000 }, async () => {
    await using scene = await Checkpointed.start(1, dying(how), env)
    const { app } = scene
    const [first] = await app.serves()
    await scene.saved([first!])
    process.kill(first!, 'SIGKILL')
    await scene.restoredBy(1)
    const waiting = get(app.target, '/memory')
    const [next] = await app.serves()
    expect(JSON.parse((await waiting).body)).toMatchObject({ first: next })
    expect(scene.restored).toMatchObject([{ value: first, phase: 'checkpoint' }, { value: first, phase: 'checkpoint' }])
    const age = /\(\d+ m?s old\)/.source
    expect(app.program.stderr).toMatch(new RegExp(`process ${first} \\(generation 1\\) ended by SIGKILL; the next one is started with the checkpoint of first ${age}\\. Nobody serves`))
    expect(app.program.stderr).toMatch(new RegExp(`2 starts in a row in slot 0 ended before they served, with the checkpoint of first ${age}: the next one goes without`))
    expect(app.program.stderr).toMatch(new RegExp(`the next try is in 0\\.2 s, without the checkpoint of first ${age}\\.`))
    await app.program.stderrMatching(new RegExp(`slot 0 serves without the checkpoint of first ${age}, with which its starts had ended before they served: it is dropped`))
    // From then on all is as ever.
    await scene.saved([next!])
    expect((await app.status())?.keeper?.checkpoints.map(({ name }) => name)).toEqual(['first'])
  })
})

it('a start without the checkpoint that fails as well brings it back: repaired, the worker has its state', { timeout: 120_000 }, async () => {
  await using scene = await Checkpointed.start(1)
  const { app } = scene
  const [first] = await app.serves()
  await scene.saved([first!])
  scene.write(failing)
  process.kill(first!, 'SIGKILL')
  await app.program.stderrMatching(/a start in slot 0 without the checkpoint of first \(\d+ m?s old\) ended before it served as well: something else is wrong, and the checkpoint is kept and offered again/)
  scene.write(section())
  await app.serves()
  expect(scene.restored).toMatchObject([{ value: first, phase: 'checkpoint' }])
})

describe('where no start succeeds', () => {
  /** Nobody serves, and the keeper waits long for the next try. */
  async function down(): Promise<{ scene: Checkpointed; first: number }> {
    const scene = await Checkpointed.start(1)
    const [first] = await scene.app.serves()
    await scene.saved([first!])
    scene.write(failing)
    process.kill(first!, 'SIGKILL')
    await scene.app.program.stderrMatching(/It does not start: 5 tries in a row failed, 4 of them with the checkpoint of first \(\d+ m?s old\)\. Nobody serves/)
    expect(scene.app.program.events.filter(({ event }) => event === 'offered')).toHaveLength(5)
    return { scene, first: first! }
  }

  it('the status names no generation, and a reload says that the checkpoint was offered; one with the repaired build has the state', { timeout: 120_000 }, async () => {
    const { first, ...made } = await down()
    await using scene = made.scene
    const { app } = scene
    expect((await app.run('status')).stdout).not.toContain('generation 0')
    const { stderr, status } = await app.run('reload', '--bake', '0')
    expect(status).toBe(1)
    expect(stderr).toMatch(/ended with status 4 before it was ready\.\n {2}Nobody serves: .*, and connects wait\. The one that failed was started with the checkpoint of first \(\d+ m?s old\): handover reload --without-state starts one without\.\n/)
    scene.write(section())
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true, switched: [{ from: null }] })
    expect(scene.restored).toMatchObject([{ value: first, phase: 'checkpoint' }])
  })

  it('a reload --without-state starts without what was left, and drops it when it serves', { timeout: 120_000 }, async () => {
    const { first, ...made } = await down()
    await using scene = made.scene
    const { app } = scene
    // It fails like the others: nothing is dropped.
    expect(await app.reload('--bake', '0', '--without-state')).toMatchObject({ ok: false })
    expect((await app.status())?.keeper?.checkpoints.map(({ name }) => name)).toEqual(['first'])
    scene.write('memory.first = 0\nhandover.share(\'first\', { save: () => memory.first, restore: (value, { phase }) => { memory.first = value; print(\'restored\', { value, phase }) } })')
    const outcome = await app.reload('--bake', '0', '--without-state')
    expect(outcome).toMatchObject({ ok: true, switched: [{ from: null }] })
    expect((await app.status())?.keeper?.checkpoints).toEqual([])
    process.kill(outcome.serving[0]!.pid, 'SIGKILL')
    await waitFor(async () => ![first, outcome.serving[0]!.pid].includes((await app.serves())[0]!))
    expect(scene.restored).toEqual([])
  })
})
