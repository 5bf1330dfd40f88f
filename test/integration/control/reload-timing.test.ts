/** `handover reload --timing`: with a keeper and without one. */

import path from 'node:path'
import { expect, it } from 'vitest'
import { get } from '../../helpers/ask.js'
import { Place, portOf } from '../../helpers/command.js'
import { KeptApp } from '../../helpers/kept-app.js'
import { programPath } from '../../helpers/program.js'

const everyPhase = Object.fromEntries(['start', 'node', 'load', 'app', 'offer', 'prepare', 'commit', 'answer'].map((phase) => [phase, expect.any(Number)]))

it('without a keeper prints each phase, and tells them with --json', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop' })
  const { stdout, status } = await place.run('reload', '--bake', '0', '--timing')
  expect(status).toBe(0)
  expect(stdout).toMatch(/\nwhere the time went, in ms\n(.+ {2}[\d-]+\n){8}$/)
  await get({ port: portOf(program) })
  const asking = setInterval(() => { get({ port: portOf(program) }).catch(() => undefined) }, 50)
  try {
    expect(await place.reload('--bake', '0', '--timing')).toMatchObject({ timing: [{ slot: null, pid: program.serving, phases: everyPhase }] })
  } finally {
    clearInterval(asking)
  }
  expect(await place.reload('--bake', '0')).not.toHaveProperty('timing')
})

it('under a keeper tells them for each slot', async () => {
  await using app = await KeptApp.start(path.resolve(programPath('kept.mjs')), { workers: 2 })
  const { ok, switched, ...outcome } = await app.reload('--bake', '0', '--timing')
  expect(ok).toBe(true)
  const phases = { ...everyPhase, answer: expect.toSatisfy((ms) => ms === null || ms > 0) as unknown }
  expect(outcome).toMatchObject({ timing: switched.map(({ slot, to }) => ({ slot, pid: to.pid, phases })) })
})
