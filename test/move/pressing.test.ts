/**
 * A client whose next request is there before anybody can see that its last answer is out: its connection is never idle when the drain looks, and moves
 * all the same. The fuzz and wrk meet this by chance; here the client writes in the turn of the loop in which the answer leaves.
 */

import { socketPair } from '@handover/core/fd'
import { closeSync, readSync, writeSync } from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import net from 'node:net'
import { expect, it, onTestFinished } from 'vitest'

// Required, not imported: Vitest would load a second copy of each module.
const load = createRequire(import.meta.url)
const { Adopter } = load('../../packages/core/dist/adopting.js') as typeof import('../../packages/core/dist/adopting.js')
const { Channel, deadlineIn } = load('../../packages/core/dist/channel.js') as typeof import('../../packages/core/dist/channel.js')
const { Connections } = load('../../packages/core/dist/connections.js') as typeof import('../../packages/core/dist/connections.js')
const { Mover } = load('../../packages/core/dist/moving.js') as typeof import('../../packages/core/dist/moving.js')
const { parseMessage } = load('../../packages/core/dist/messages.js') as typeof import('../../packages/core/dist/messages.js')

const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

async function serving(name: string, answered: (response: http.ServerResponse) => void) {
  const server = http.createServer((_request, response) => { setTimeout(() => { answered(response.setHeader('Server', name)) }, 5) })
  const connections = new Connections(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  onTestFinished(() => { server.close() })
  return { server, connections }
}

/** A drain of one server into another, which acknowledges what it takes. */
function drainInto(from: InstanceType<typeof Connections>, to: InstanceType<typeof Connections>): void {
  const [messages, theirMessages] = socketPair()
  const [descriptors, theirDescriptors] = socketPair()
  const ours = new Channel(new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) }, parseMessage)
  const theirs = new Channel(new net.Socket({ fd: theirMessages }), theirDescriptors, () => { closeSync(theirDescriptors) }, parseMessage)
  const mover = new Mover(ours, { listeners: ['tcp'], kinds: [], room: 10 }, () => undefined)
  const adopter = new Adopter(theirs, { adopt: (fd, about) => { to.adopt(fd, about) } })
  void (async () => {
    for (let word = await theirs.receive(); word?.type === 'move'; word = await theirs.receive()) adopter.take(word.connections)
  })()
  void (async () => {
    for (let word = await ours.receive(); word?.type === 'taken'; word = await ours.receive()) mover.taken(word.count)
  })()
  const drain = from.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000), route: { mover, listener: 'tcp' } })
  onTestFinished(() => {
    mover.end('the test is over')
    drain.undo()
    ours.close()
    theirs.close()
  })
}

it('a client that sends its next request with no time between cannot keep its connection in the predecessor', async () => {
  const servedBy: string[] = []
  const [client, accepted] = socketPair()
  onTestFinished(() => { closeSync(client) })
  let end: () => void = () => undefined
  const ended = new Promise<void>((resolve) => { end = resolve })
  /** The next request is in the kernel before the event loop can read anything. */
  const answerAndAsk = (response: http.ServerResponse): void => {
    const count = servedBy.push(String(response.getHeader('Server')))
    response.end()
    readSync(client, Buffer.alloc(65_536))
    if (count === 3) drainInto(predecessor.connections, successor.connections)
    if (count < 20) writeSync(client, request)
    else end()
  }
  const predecessor = await serving('predecessor', answerAndAsk)
  const successor = await serving('successor', answerAndAsk)
  const socket = new net.Socket({ fd: accepted })
  predecessor.server.emit('connection', socket)
  writeSync(client, request)
  await ended
  // The one that the drain began with, and the one that was there when that was out.
  expect(servedBy.slice(3).filter((name) => name === 'predecessor').length).toBeLessThanOrEqual(3)
  expect(servedBy.at(-1)).toBe('successor')
})
