/** A connection that is held for its move while its answer lasts: the program hears of a client that leaves, as it would with node. */

import { socketPair } from '@handover/core/fd'
import { closeSync, writeSync } from 'node:fs'
import http from 'node:http'
import { expect, onTestFinished, test } from 'vitest'
import { ConnectionSender, ConnectionTracker, deadlineIn } from '../../../helpers/internals.js'
import { waitFor } from '../../../helpers/program.js'

const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

/** In a drain, with requests whose answers do not end. */
async function answering(requests: string, begin: (response: http.ServerResponse) => void) {
  const answers: http.ServerResponse[] = []
  const server = http.createServer((_request, response) => {
    begin(response)
    answers.push(response)
  })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const [client, accepted] = socketPair()
  const socket = connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
  writeSync(client, requests)
  const mover = new ConnectionSender({ send: () => undefined } as never, { listeners: ['tcp'], kinds: [], room: 10 }, () => undefined)
  await waitFor(() => answers.length > 0)
  const drain = connections.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000), route: { mover, listener: 'tcp', http2: false } })
  onTestFinished(() => {
    drain.undo()
    socket.destroy()
    server.close()
  })
  const held = connections.get(socket)!
  await waitFor(() => held.held === true)
  return { client, answers, held, socket }
}

test.each([
  ['with Content-Length', request, (response: http.ServerResponse) => { response.writeHead(200, { 'Content-Length': 10 }).write('half') }],
  ['to requests that came together', request + request, () => undefined]
])('an answer %s hears that its client has left, and is not finished', async (_kind, requests, begin) => {
  const { client, answers } = await answering(requests, begin)
  let finished: boolean | undefined
  answers[0]!.once('close', () => { finished = answers[0]!.writableFinished })
  closeSync(client)
  await waitFor(() => finished !== undefined)
  expect(finished).toBe(false)
})

test('a request that waits behind an answer which takes long is read, and the connection is held again', async () => {
  const { client, answers, held } = await answering(request, (response) => { response.writeHead(200, { 'Content-Length': 4 }) })
  onTestFinished(() => { closeSync(client) })
  writeSync(client, request)
  await waitFor(() => answers.length === 2)
  await waitFor(() => held.held === true)
  for (const response of answers) response.end('done')
  await waitFor(() => held.leaving !== undefined)
  expect(held.requests).toBe(2)
})
