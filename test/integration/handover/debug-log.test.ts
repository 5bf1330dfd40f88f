/** NODE_DEBUG=handover: what it writes of the channel, and what it keeps to itself. */

import { spawnSync } from 'node:child_process'
import { expect, it } from 'vitest'

it('NODE_DEBUG=handover shows each message with the number of its descriptors, and nothing of what it carries', () => {
  const program = `
    const core = require.resolve('@handover/core/internal')
    const { openChannel, openPairs, addon, workerMessages, vocabulary } = require(core)
    const [[a, b], [da, db]] = openPairs(addon(), false)
    const worker = openChannel(a, da, vocabulary('keeper', { proceed: {} }, {}))
    const keeper = openChannel(b, db, workerMessages)
    worker.send({ type: 'checkpoint', name: 'secret', bytes: 1 }, [0])
    void keeper.receive().then(() => {
      keeper.send({ type: 'proceed' })
      return worker.receive()
    }).then(() => { process.exit(0) })`
  const run = (env: NodeJS.ProcessEnv) => spawnSync(process.execPath, ['-e', program], { env: { ...process.env, ...env }, encoding: 'utf8' })
  const { stderr, status } = run({ NODE_DEBUG: 'handover' })
  expect(status).toBe(0)
  expect(stderr.replace(/^HANDOVER \d+: /gm, '').trim().split('\n')).toEqual([
    'to the keeper: checkpoint, 1 descriptor',
    'from the worker: checkpoint, 1 descriptor',
    'to the worker: proceed',
    'from the keeper: proceed'
  ])
  expect(run({ NODE_DEBUG: '' }).stderr).toBe('')
})
