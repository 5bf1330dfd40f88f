/** No descriptor goes where it does not belong: not into children, not from reload to reload, and none is lost when they are short. */

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { Scene, aFailedReloadChangesNothing, isAsBefore, kindsOf, nothingIsWritten, settled } from '../helpers/invariants.js'
import { descriptorsOf, Program, programPath, waitFor } from '../helpers/program.js'

/** The loader of `sleep` has closed its libraries: the process sleeps. proc(5) */
async function isLoaded(pid: number): Promise<void> {
  await waitFor(() => readFileSync(`/proc/${pid}/stat`, 'utf8').includes('(sleep) S '))
}

/** What a child gets of which the program knows nothing: standard input, output and error, and what the test runner itself was given. */
async function inherited(): Promise<number[]> {
  const child = spawn('sleep', ['300'], { stdio: 'ignore' })
  await once(child, 'spawn')
  await isLoaded(child.pid!)
  const fds = [...descriptorsOf(child.pid!).keys()]
  child.kill('SIGKILL')
  return fds
}

it('a child of either generation, started at boot or while it serves, inherits standard input, output and error alone', async () => {
  const expected = (await inherited()).sort()
  await using scene = await Scene.start({ listen: '127.0.0.1:0,unix:DIR/app.sock', behaviour: 'spawn', options: { undoWindow: 5_000 } })
  await scene.hangUp(scene.program.pid)
  const children = await scene.until(() => {
    const found = scene.events.filter(({ event }) => event === 'spawned')
    return found.length === 4 && found
  })
  for (const { child } of children) {
    await isLoaded(child as number)
    expect([...descriptorsOf(child as number).keys()].sort()).toEqual(expected)
  }
})

it('a process that serves after ten reloads holds what one held after the first', async () => {
  await using scene = await Scene.start({ listen: '127.0.0.1:0,unix:DIR/app.sock', options: { undoWindow: 50 } })
  let serving = await scene.reload(scene.program.pid)
  await waitFor(() => scene.alive.length === 1)
  await nothingIsWritten(serving)
  const after = { first: kindsOf(serving), count: descriptorsOf(serving).size }
  for (let reload = 2; reload <= 10; reload++) serving = await scene.reload(serving)
  await waitFor(() => scene.alive.length === 1)
  await nothingIsWritten(serving)
  await waitFor(() => descriptorsOf(serving).size === after.count).catch(() => undefined)
  expect(kindsOf(serving)).toEqual(after.first)
})

it('a child that the successor started at boot still has a stderr after the predecessor has ended', async () => {
  await using scene = await Scene.start({ options: { undoWindow: 50 } })
  scene.behave('talk-later')
  await scene.hangUp(scene.program.pid)
  const { pid } = await scene.state('serving', (event) => event.pid !== scene.program.pid)
  await scene.program.ended
  process.kill(pid, 'SIGUSR2')
  await scene.program.stderrMatching(/^the child of the successor still has a stderr$/m)
})

it('a successor into which not all descriptors fit says so, and the predecessor serves on', async () => {
  const listen = Array.from({ length: 40 }, () => '127.0.0.1:0').join(',')
  await using scene = await Scene.start({ listen, options: { undoWindow: 100 } })
  await aFailedReloadChangesNothing(scene, scene.program.pid, { code: 'HANDOVER_SUCCESSOR_FAILED', says: /only \d+ of 41 descriptors arrived/, stderr: /HANDOVER_FD_TRUNCATED/ }, async () => {
    scene.behave('limit:20')
    return await scene.hangUp(scene.program.pid)
  })
})

it.runIf(process.getuid?.() === 0)('a user who may start no more processes is told of limits, not of paths', async () => {
  const asNobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
  await using program = Program.start(programPath('world.mjs'), { node: 'setpriv', execArgv: [...asNobody, process.execPath] })
  await program.event('listening')
  execFileSync('setpriv', [...asNobody, 'prlimit', '--pid', String(program.pid), '--nproc=1:1'])
  process.kill(program.pid, 'SIGHUP')
  expect(await program.event('failed')).toMatchObject({ code: 'HANDOVER_SPAWN', message: expect.stringMatching(/^a successor could not be started: spawn .* EAGAIN.*\n {2}Process \d+ .* keeps serving .*\n {2}Check the limits of this process/) })
})

it('a predecessor that is out of descriptors says so, holds none more than before, and reloads when it has some again', async () => {
  await using scene = await Scene.start({ options: { undoWindow: 100 } })
  const { pid } = scene.program
  const before = await settled(scene, pid)
  const limit = (files: number | string): void => { execFileSync('prlimit', ['--pid', String(pid), `--nofile=${files}:`]) }
  const usual = /^Max open files +(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1] ?? ''
  const open = descriptorsOf(pid)
  const free = Array.from({ length: 256 }, (_, fd) => fd).filter((fd) => !open.has(fd))
  // The three socket pairs of a launch.
  for (const spare of [0, 1, 2, 3, 4, 5]) {
    limit(free[spare]!)
    const event = await scene.hangUp(pid)
    expect(event, `${spare} to spare`).toMatchObject({ event: 'failed', code: 'HANDOVER_SPAWN' })
    expect(event['message']).toMatch(/\n {2}Process \d+ \(generation 1\) keeps serving .+; no connection was lost\.\n {2}[A-Z]/)
    await isAsBefore(scene, before)
  }
  limit(usual)
  await scene.reload(pid)
})
