/** `handover reload` and `handover stop` of processes that were started without a keeper. */

import { describe, expect, it } from 'vitest'
import { get } from '../../helpers/ask.js'
import { lastLine, Place, portOf } from '../../helpers/command.js'
import { type Program, waitFor } from '../../helpers/program.js'

const answering = async (program: Program): Promise<number> => Number((await get({ port: portOf(program) })).body)
const one = async (place: Place) => (await place.status())[0]!

describe.each([['with a name', { name: 'shop' }], ['without a name', {}]])('a reload of a process %s', (_how, named) => {
  it('ends with 0 when the successor has served for the time that it is watched, and says who took over from whom', async () => {
    await using place = new Place()
    const program = await place.start({ ...named, env: { HANDOVER_VERSION: '1.2.3' } })
    const { stdout, stderr, status } = await place.run('reload', '--bake', '100ms')
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
    const { serving } = program
    expect(serving).not.toBe(program.pid)
    expect(stdout).toMatch(new RegExp(`^process ${program.pid} starts a successor\n(?:process ${serving} (?:boots|has booted and prepares|is ready, .*)\n)*generation 2 \\(process ${serving}\\) serves, and is watched for 0\\.1 s\ngeneration 2 \\(process ${serving}, version 1\\.2\\.3\\) serves in place of generation 1 \\(process ${program.pid}\\) after \\d+ m?s\n$`))
    expect(await answering(program)).toBe(serving)
  })

  it.each([['does not parse', 'syntax-error', 'HANDOVER_SUCCESSOR_EXIT', /SyntaxError/], ['throws at boot', 'throw', 'HANDOVER_SUCCESSOR_EXIT', /this build throws at boot/], ['exits with 0', 'exit:0', 'HANDOVER_SUCCESSOR_EXIT', /ended with status 0/]])(
    'to a build that %s ends with 1 and says why, what it wrote last, and who serves', async (_what, behaviour, code, says) => {
      await using place = new Place()
      const program = await place.start(named)
      place.behave(behaviour)
      const { stderr, status } = await place.run('reload')
      expect(status).toBe(1)
      expect(stderr).toMatch(new RegExp(`^handover: the reload failed \\(${code}\\): process \\d+ \\(generation 2\\) ended`))
      expect(stderr).toMatch(says)
      expect(stderr).toContain(`Process ${program.pid} (generation 1) keeps serving`)
      expect(await answering(program)).toBe(program.pid)
      expect(await one(place)).toMatchObject({ lastReload: { ok: false, error: { code }, serving: [{ pid: program.pid }] }, processes: [{ pid: program.pid, state: 'serving' }] })
      expect((await place.run('status')).stdout).toMatch(/ago, failed: process \d+ \(generation 2\)[^]*\(HANDOVER_SUCCESSOR_EXIT\)/)
      // What failed once works when it is repaired.
      place.behave('ok')
      expect(await place.reload('--bake', '0')).toMatchObject({ ok: true, switched: [{ from: { pid: program.pid }, to: { pid: program.serving } }] })
    })

  it('to a build that crashes after it was ready ends with 1: the predecessor serves again', async () => {
    await using place = new Place()
    const program = await place.start({ ...named, options: { undoWindow: 20_000 } })
    place.behave('usr2:exit')
    const reload = place.begin('reload', '--bake', '20s')
    const { pid } = await program.event('state', ({ generation, to }) => generation === 2 && to === 'serving')
    await program.event('draining')
    process.kill(pid, 'SIGUSR2')
    const { stderr, status } = await reload.ended
    expect(status).toBe(1)
    expect(stderr).toMatch(new RegExp(`\\(HANDOVER_UNDONE\\): process ${pid} \\(generation 2\\) died within the undo window\\.\n  Process ${program.pid} \\(generation 1\\) serves again`))
    expect(await answering(program)).toBe(program.pid)
    expect(await one(place)).toMatchObject({ lastReload: { ok: false, error: { code: 'HANDOVER_UNDONE' } }, processes: [{ pid: program.pid, state: 'serving' }] })
  })
})

it('what an app says of itself writes nothing else to the terminal than text', async () => {
  await using place = new Place()
  const program = await place.start({ env: { HANDOVER_VERSION: '1\u001b]0;title\u0007\u009b31m' } })
  const { stdout, status } = await place.run('reload', '--bake', '0')
  expect(status).toBe(0)
  expect(stdout).toContain(`(process ${program.serving}, version 1\u{fffd}]0;title\u{fffd}\u{fffd}31m) serves in place of`)
})

it('names the version of a successor that is busy as soon as it serves', async () => {
  await using place = new Place()
  const program = await place.start({ env: { HANDOVER_VERSION: '1.2.3' } })
  place.behave('busy-at:serving')
  expect(await place.reload('--bake', '0')).toMatchObject({ ok: true, switched: [{ to: { generation: 2 }, version: '1.2.3' }] })
  expect(program.serving).not.toBe(program.pid)
})

it('with --wait it ends when the predecessor has ended, with the report of the drain', async () => {
  await using place = new Place()
  const program = await place.start({ options: { undoWindow: 100, linger: 200, move: false } })
  const slow = get({ port: portOf(program) }, '/slow')
  await program.event('slow')
  const reload = place.begin('reload', '--wait', '--json')
  await program.event('draining')
  expect(await answering(program)).toBe(program.serving)
  process.kill(program.pid, 'SIGUSR1')
  const { stdout, status } = await reload.ended
  expect(status).toBe(0)
  expect(lastLine(stdout)).toMatchObject({ ok: true, reports: [{ result: 'drained', connections: { open: expect.any(Number), cut: 0 } }], serving: [{ pid: program.serving, generation: 2 }] })
  expect(await slow).toMatchObject({ status: 200 })
  expect(await program.ended).toEqual({ code: 0, signal: null })
})

it('a predecessor that ends before the time of watching is over answers all the same', async () => {
  await using place = new Place()
  const program = await place.start({ options: { undoWindow: 20_000, drainTimeout: 500 } })
  expect(await place.reload('--bake', '20s')).toMatchObject({ ok: true, reports: [{ result: 'drained' }] })
  expect(await answering(program)).toBe(program.serving)
})

it('a second reload while one runs is refused with the reason, and the first goes on', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop', options: { readyWhen: 'manual' } })
  const first = place.begin('reload')
  await program.event('state', ({ to }) => to === 'offering')
  expect(await place.reload()).toMatchObject({ ok: false, error: { code: 'HANDOVER_RELOAD_RUNNING' }, serving: [{ pid: program.pid }] })
  for (const pid of program.alive) if (pid !== program.pid) process.kill(pid, 'SIGKILL')
  expect(await first.ended).toMatchObject({ status: 1, stderr: expect.stringMatching(/HANDOVER_SUCCESSOR_EXIT/) })
})

it.each(['--canary 1', '--probe /healthz', '--parallel', '--workers 2', '--keeper'])('%s is refused without a keeper, and nothing is changed', async (option) => {
  await using place = new Place()
  const program = await place.start()
  expect(await place.run('reload', ...option.split(' '))).toEqual({
    stdout: '', status: 1,
    stderr: `handover: process ${program.pid} runs without a keeper, so ${option.split(' ')[0]} means nothing to it. Nothing was changed. Start it with \`handover run\` for that. (HANDOVER_OPTION)\n`
  })
  expect(await answering(program)).toBe(program.pid)
})

it('a process that dies while it reloads, and one that takes too long, are errors of one line', async () => {
  await using place = new Place()
  const program = await place.start({ options: { readyWhen: 'manual' } })
  const late = await place.run('reload', '--timeout', '100ms')
  expect(late).toMatchObject({ status: 1, stderr: `handover: process ${program.pid} did not say within 100 ms what became of the reload, which may go on. See handover status; give it longer with --timeout.\n` })
  expect((await place.run('reload')).stderr).toMatch(/HANDOVER_RELOAD_RUNNING/)

  const dying = await place.start({ name: 'dying', options: { readyWhen: 'manual' } })
  const reload = place.begin('reload', 'dying')
  await dying.event('state', ({ to }) => to === 'offering')
  process.kill(dying.pid, 'SIGKILL')
  expect(await reload.ended).toMatchObject({ status: 1, stderr: expect.stringMatching(new RegExp(`^handover: dying \\(process ${dying.pid}\\) ended before it could say what became of the reload\\. (Nobody is found that serves in its place|Process \\d+ \\(generation \\d\\) serves .+)\\. See handover status, and its log\\.\n$`)) })

  const watched = await place.start({ name: 'watched' })
  const bakes = place.begin('reload', 'watched', '--bake', '60s')
  await watched.event('state', ({ to, pid }) => to === 'serving' && pid !== watched.pid)
  const { serving } = watched
  await waitFor(() => bakes.output.stdout.includes('is watched'))
  process.kill(watched.pid, 'SIGKILL')
  expect(await bakes.ended).toMatchObject({ status: 1, stderr: expect.stringMatching(new RegExp(`^handover: watched \\(process ${watched.pid}\\) ended before it could say what became of the reload\\. Process ${serving} \\(generation 2\\) serves tcp \\S+\\. See handover status, and its log\\.\n$`)) })
})

describe('handover stop', () => {
  it('drains and ends every generation, and waits for it', async () => {
    await using place = new Place()
    const program = await place.start({ name: 'shop', options: { move: false, undoWindow: 20_000 } })
    const slow = get({ port: portOf(program) }, '/slow')
    await program.event('slow')
    const { pid: first } = program
    await place.run('reload', '--bake', '0')
    const second = program.serving
    const stop = place.begin('stop', 'shop')
    let said = ''
    stop.child.stdout?.on('data', (text) => { said += String(text) })
    await waitFor(() => [first, second].every((pid) => said.includes(`process ${pid} drains and ends\n`)))
    expect(stop.child.exitCode).toBeNull()
    process.kill(first, 'SIGUSR1')
    const { stdout, stderr, status } = await stop.ended
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
    expect(stdout.split('\n').sort()).toEqual(['', `process ${first} drains and ends`, `process ${second} drains and ends`, 'shop has ended'].sort())
    expect(await slow).toEqual({ status: 200, body: String(first) })
    expect(place.files).toEqual([])
    expect(await place.run('stop')).toMatchObject({ status: 1, stderr: expect.stringMatching(/^handover: no app of this user runs \(looked in .*\n$/) })
  })

  it('of one of several needs its name or pid', async () => {
    await using place = new Place()
    const [shop, other] = await Promise.all([place.start({ name: 'shop' }), place.start()])
    expect(await place.run('stop')).toMatchObject({ stdout: '', status: 1, stderr: `handover: several apps run: process ${other.pid}, shop (process ${shop.pid}). Say which one, by name or pid.\n` })
    expect(await place.run('stop', String(other.pid), '--json')).toEqual({ stdout: `{"ok":true,"stopped":[${other.pid}]}\n`, stderr: '', status: 0 })
    expect(await other.ended).toEqual({ code: 0, signal: null })
    expect(await answering(shop)).toBe(shop.pid)
  })
})
