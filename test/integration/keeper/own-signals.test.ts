/**
 * A program that knows nothing of Handover cleans up where it always did: in its own listeners for SIGTERM.
 */

import { expect, test } from 'vitest'
import { programPath } from '../../helpers/program.js'
import { KeptApp } from '../../helpers/kept-app.js'

test('the program\'s own listeners for SIGTERM run at the end of each generation, to their end, and nothing warns of them', async () => {
  await using app = await KeptApp.start(programPath('own-sigterm.mjs'))
  const [first] = await app.servers()
  expect(await app.reload('--bake', '0', '--wait')).toMatchObject({ ok: true })
  const [second] = await app.servers()
  expect(app.program.lines.filter((line) => line.includes('clean'))).toEqual([`cleans up: ${first!.pid}`, `is clean: ${first!.pid}`])
  expect(await app.stop()).toEqual({ code: 0, signal: null })
  expect(app.program.lines.filter((line) => line.includes('clean')).slice(2)).toEqual([`cleans up: ${second!.pid}`, `is clean: ${second!.pid}`])
  expect(app.stderr).not.toContain('something else in this program listens')
})
