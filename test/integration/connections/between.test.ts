/**
 * Connections that come through a generation which is going itself: from the one before it, when its own drain seems to be over, through a
 * listener that its successor does without.
 */

import { expect, onTestFinished, test } from 'vitest'
import { freePorts } from '../../helpers/ask.js'
import { Client } from '../../helpers/client.js'
import { Planned } from '../../helpers/plan.js'

const host = '127.0.0.1'

test('a request on a connection that came late into a generation that has handed over is answered whole, and the report counts it', async () => {
  const [a, b] = await freePorts(2)
  const options = { undoWindow: 3_000, drainTimeout: 30_000, linger: 10_000, readyTimeout: 2_000 }
  const listen = [a, b].map((port) => ({ port, host }))
  await using planned = new Planned({ listen, options })
  const { program } = planned
  const { pid: first } = await program.event('bound')
  const client = await Client.connect({ address: host, port: b! })
  onTestFinished(() => { client[Symbol.dispose]() })
  // It outlives the reload after the next, and comes into the second generation when the third serves.
  client.request('/?ms=4000')
  await program.event('asked')
  await planned.reload()
  const second = program.serving
  planned.next({ listen: listen.slice(0, 1), options })
  await planned.reload()
  await client.received(new RegExp(`${first}\n`))
  await program.event('report', ({ pid, report }) => pid === first && (report as { result: string }).result === 'drained')
  // Longer than what is left of the second generation's undo window.
  client.request('/?ms=4000')
  await client.received(new RegExp(`Connection: close[^]*${second}\n`))
  expect(await client.over).toBe('closed')
  const drained = await program.event('report', ({ pid, report }) => pid === second && (report as { result: string; predecessor: { pid: number } }).result === 'drained' && (report as { predecessor: { pid: number } }).predecessor.pid === second)
  expect(drained['report']).toMatchObject({ connections: { open: 1, moved: 0, drained: 1, cut: 0 }, requestsCut: [] })
})
