/** A connection whose next request nobody reads yet, because it waits for its move, is not closed for being idle. */

import { socketPair } from '@handover/core/fd'
import { closeSync, writeSync } from 'node:fs'
import http from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { ConnectionSender, ConnectionTracker, deadlineIn } from '../../../helpers/internals.js'
import { waitFor } from '../../../helpers/program.js'

/** More than are on their way at a time. */
const count = 300
const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

test('a successor that is slow for longer than the keep-alive time gets all connections with the requests that wait on them', async () => {
  const waiting: http.ServerResponse[] = []
  const server = http.createServer({ keepAliveTimeout: 100 }, (_request, response) => { waiting.push(response) })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const clients = Array.from({ length: count }, () => {
    const [client, accepted] = socketPair()
    connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
    writeSync(client, request)
    return client
  })
  onTestFinished(() => {
    for (const client of clients) closeSync(client)
    server.close()
  })
  await waitFor(() => waiting.length === count)
  const sent: number[] = []
  const channel = { send: ({ connections: batch }: { connections: unknown[] }) => { sent.push(batch.length) } }
  const mover = new ConnectionSender(channel as never, { listeners: ['tcp'], kinds: [], room: count }, () => undefined)
  const drain = connections.drain({ lingerMs: 100, deadline: deadlineIn(60_000), route: { mover, listener: 'tcp', http2: false } })
  for (const response of waiting.splice(0)) response.end('one')
  const all = (): number => sent.reduce((sum, each) => sum + each, 0)
  let acknowledged = 0
  const acknowledge = (): void => { while (acknowledged < sent.length) mover.taken(sent[acknowledged++]!) }
  // No more than these are on their way without an answer.
  await waitFor(() => all() >= 256)
  for (const client of clients) writeSync(client, request)
  // Node waits a second longer than it promises.
  await wait(1_500)
  expect(all()).toBeLessThan(count)
  await waitFor(() => {
    acknowledge()
    return all() === count || connections.open === 0
  })
  acknowledge()
  await drain.empty()
  expect(drain.result).toMatchObject({ open: count, moved: count })
  expect(waiting).toEqual([])
})
