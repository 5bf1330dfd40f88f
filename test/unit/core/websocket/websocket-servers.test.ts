/**
 * WebSocketServers come and go in a process: one for each path, or one for each test. moveWebSockets() leaves nothing of them behind.
 */

import { handover } from '@handover/core'
import { moveWebSockets } from '@handover/core/ws'
import { once } from 'node:events'
import http from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, onTestFinished, test } from 'vitest'
import { WebSocketServer } from 'ws'
import { waitFor } from '../../../helpers/program.js'

const moves = { save: () => ({}), restore: () => undefined }
const listeners = (): number[] => ['draining', 'state'].map((event) => handover.events.listenerCount(event as 'draining'))

/** As a full garbage collection would find it at any time. */
setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

test('many WebSocketServers in one process add one listener of each event, and Node warns of nothing', async () => {
  const warnings: Error[] = []
  const warned = (warning: Error): void => { warnings.push(warning) }
  process.on('warning', warned)
  onTestFinished(() => { process.off('warning', warned) })
  moveWebSockets(new WebSocketServer({ noServer: true }), { kind: 'first', ...moves })
  const before = listeners()
  const servers = Array.from({ length: 20 }, (_, index) => {
    const wss = new WebSocketServer({ server: handover(http.createServer()), path: `/${index}` })
    moveWebSockets(wss, { kind: `kind ${index}`, ...moves })
    return wss
  })
  expect(listeners()).toEqual(before)
  // Node warns in the next tick.
  await new Promise((resolve) => setImmediate(resolve))
  expect(warnings).toEqual([])
  for (const wss of servers) wss.close()
})

test('the kind of a WebSocketServer that was closed is free again', async () => {
  for (let index = 0; index < 3; index++) {
    const wss = new WebSocketServer({ noServer: true })
    moveWebSockets(wss, moves)
    expect(() => { moveWebSockets(new WebSocketServer({ noServer: true }), moves) }).toThrow(/Give each WebSocketServer a kind of its own/)
    wss.close()
    await once(wss, 'close')
  }
})

test('a WebSocketServer that was closed, or that nobody holds, is not kept alive', async () => {
  const make = (kind: string, closed: boolean): WeakRef<WebSocketServer> => {
    const wss = new WebSocketServer({ noServer: true })
    moveWebSockets(wss, { kind, ...moves })
    if (closed) wss.close()
    return new WeakRef(wss)
  }
  const made = [make('closed', true), make('dropped', false)]
  await waitFor(() => {
    collect()
    return made.every((reference) => reference.deref() === undefined)
  })
  moveWebSockets(new WebSocketServer({ noServer: true }), { kind: 'dropped', ...moves })
})
