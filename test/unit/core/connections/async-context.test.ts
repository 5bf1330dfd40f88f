/**
 * What the program stores for one client (AsyncLocalStorage) in a listener for connections is not seen by the next client, also where
 * Handover sets several connections up in one turn of the loop.
 */

import { socketPair } from '@handover/core/fd'
import { AsyncLocalStorage } from 'node:async_hooks'
import { closeSync, mkdtempSync, rmSync, writeSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { closeListener, ConnectionReceiver, ConnectionTracker, native } from '../../../helpers/internals.js'
import { waitFor } from '../../../helpers/program.js'

const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

/** A server that stores a number for each connection. `seen`: what its requests find. */
function storing() {
  const storage = new AsyncLocalStorage<number>()
  const seen: (number | undefined)[] = []
  const counted = { connections: 0 }
  const server = http.createServer((_request, response) => {
    seen.push(storage.getStore())
    response.end()
  })
  server.on('connection', () => { storage.enterWith(++counted.connections) })
  return { server, seen, counted, storage }
}

async function ask(clients: readonly number[], { server, seen, storage }: ReturnType<typeof storing>): Promise<void> {
  onTestFinished(() => {
    for (const client of clients) closeSync(client)
    server.close().closeAllConnections()
  })
  for (const client of clients) writeSync(client, request)
  await waitFor(() => seen.length === clients.length)
  expect(seen).toEqual(clients.map(() => undefined))
  expect(storage.getStore()).toBeUndefined()
}

test('connections that move together', async () => {
  const program = storing()
  const connections = new ConnectionTracker(program.server)
  await new Promise<void>((resolve) => { program.server.listen(0, '127.0.0.1', resolve) })
  const pairs = [socketPair(), socketPair(), socketPair()]
  const receiver = new ConnectionReceiver({ send: () => undefined } as never, { receive: (fd, about) => connections.receive(fd, about) })
  const about = { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 }
  await receiver.take(pairs.map(() => about), pairs.map(([, fd]) => fd))
  expect(program.counted.connections).toBe(3)
  await ask(pairs.map(([client]) => client), program)
})

test('connections that a listener which closes finds in its queue', async () => {
  const program = storing()
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-context-'))
  const place = path.join(folder, 'socket')
  await new Promise<void>((resolve) => { program.server.listen(place, resolve) })
  const clients = [1, 2, 3].map(() => native!.connectUnix(place))
  expect(program.counted.connections).toBe(0)
  closeListener(program.server)
  rmSync(folder, { recursive: true })
  expect(program.counted.connections).toBe(3)
  await ask(clients, program)
})
