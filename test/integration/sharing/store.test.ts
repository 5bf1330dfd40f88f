/** A start by systemd after a crash: what its store of descriptors holds is restored before the process accepts anything. */

import { closeSync, openSync } from 'node:fs'
import { afterEach, expect, it, onTestFinished } from 'vitest'
import { writeSection } from '../../helpers/internals.js'
import { Program, programPath } from '../../helpers/program.js'
import { Sharing } from '../../helpers/sharing.js'

let app: Sharing | undefined
afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  app = undefined
})

async function sectionFile(name: string, value: unknown): Promise<number> {
  const { fd } = await writeSection({ name, schema: null, phase: 'checkpoint', version: '1.2.3', generation: 7 }, value, { maxBytes: 1_000_000, signal: new AbortController().signal })
  onTestFinished(() => { closeSync(fd) })
  return fd
}

/** systemd names the process that it starts. */
async function startWith(code: string, stored: Readonly<Record<string, number>>, name = ''): Promise<Sharing> {
  const files = Object.values(stored)
  return await Sharing.start(code, {
    load: false,
    node: '/bin/sh',
    execArgv: ['-c', `LISTEN_PID=$$ exec '${process.execPath}' "$0"`],
    descriptors: Object.fromEntries(files.map((fd, index) => [3 + index, fd])),
    env: { ...(name !== '' && { HANDOVER_NAME: name }), LISTEN_FDS: String(files.length), LISTEN_FDNAMES: Object.keys(stored).map((name) => `handover-${encodeURIComponent(name)}`).join(':') }
  })
}

const remembers = `restore: async (value, info) => { await new Promise((done) => setTimeout(done, 100)); memory.value = value; memory.info = info; print('restored') }`

it('a checkpoint is restored before the process serves, and it reloads as any other', async () => {
  app = await startWith(`handover.share('the thing', { save: () => memory.value, ${remembers} })`, { 'the thing': await sectionFile('the thing', { users: 3 }) })
  await app.program.event('state', ({ to }) => to === 'serving')
  const order = app.program.events.filter(({ event, to }) => event === 'restored' || to === 'serving').map(({ event }) => event)
  expect(order).toEqual(['restored', 'state'])
  const { body, generation } = await app.get('/memory')
  expect(generation).toBe(1)
  expect(body).toMatchObject({ value: { users: 3 }, info: { phase: 'checkpoint', version: '1.2.3', generation: 7 } })
  expect(app.program.stderr).toMatch(/^handover: warn: this process goes on from checkpoints: the thing \(\d+ s old\)\. What changed since is lost\.$/m)
  expect((await app.reload()).restored).toEqual(['the thing'])
  expect((await app.get('/memory')).body).toMatchObject({ value: { users: 3 }, info: { phase: 'offer', generation: 1 } })
})

it('what is damaged, unknown or no file at all keeps no process from serving', async () => {
  const nothing = openSync('/dev/null', 'r')
  onTestFinished(() => { closeSync(nothing) })
  app = await startWith(`for (const name of ['good', 'bad', 'other name']) handover.share(name, { save: () => 1, restore: (value) => { memory[name] = value } })`, {
    bad: nothing, 'other name': await sectionFile('good', 2), good: await sectionFile('good', 1), unknown: await sectionFile('unknown', 1)
  })
  await app.program.event('state', ({ to }) => to === 'serving')
  const { body } = await app.get('/memory')
  expect({ good: body['good'], bad: body['bad'], other: body['other name'] }).toEqual({ good: 1 })
  expect(app.program.stderr).toMatch(/section "bad" is not restored: .*is no file/)
  expect(app.program.stderr).toMatch(/section "other name" is not restored: the file holds section "good"/)
})

it('more checkpoints than can be on their way at once keep no process from serving', async () => {
  const files = await Promise.all(Array.from({ length: 300 }, async (_, index) => [`part ${index}`, await sectionFile(`part ${index}`, index)] as const))
  app = await startWith(`memory.found = 0; for (let index = 0; index < 300; index++) handover.share('part ' + index, { save: () => 1, restore: (value) => { memory.found += value === index ? 1 : 0 } })`, Object.fromEntries(files))
  await app.program.event('state', ({ to }) => to === 'serving')
  expect((await app.get('/memory')).body['found']).toBe(200)
  expect(app.program.stderr).toMatch(/goes on from checkpoints: part 0 \(.*\), part 19 \(\d+ s old\), and 180 more\. What/)
  expect(app.program.stderr).toMatch(/systemd holds 300 checkpoints, of which 200 are restored/)
})

it('a process that began with a checkpoint is found by its name', async () => {
  app = await startWith(`handover.share('thing', { save: () => memory.thing, restore: (value) => { memory.thing = value } })`, { thing: await sectionFile('thing', 5) }, 'from-the-store')
  await app.program.event('state', ({ to }) => to === 'serving')
  await using second = Program.start(programPath('state.mjs'), { env: { HANDOVER_DIR: app.folder, APP: `${app.folder}/app.mjs`, HANDOVER_NAME: 'from-the-store', PORT: String((app.target as { port: number }).port) } })
  await app.program.event('report')
  expect(await app.get('/memory')).toMatchObject({ pid: second.pid, generation: 2, body: { thing: 5 } })
})
