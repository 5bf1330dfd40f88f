/**
 * A client whose next request is there before anybody can see that its last answer is out: its connection is never idle when the drain
 * looks, and moves all the same, and not one request later. The fuzz and wrk meet this by chance; here the client writes in the turn of
 * the loop in which the answer leaves.
 */

import { socketPair } from '@handover/core/fd'
import { closeSync, readSync, stat, writeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import {
  Channel, ConnectionReceiver, ConnectionSender, ConnectionTracker, deadlineIn, handoverMessages
} from '../../../helpers/internals.js'

const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

async function serving(name: string, answer: (request: http.IncomingMessage, response: http.ServerResponse) => void) {
  const server = http.createServer((message, response) => { answer(message, response.setHeader('Server', name)) })
  const connections = new ConnectionTracker(server)
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  onTestFinished(() => { server.close() })
  return { server, connections }
}

/** A drain of one server into another, which acknowledges what it takes. */
function drainInto(from: InstanceType<typeof ConnectionTracker>, to: InstanceType<typeof ConnectionTracker>): void {
  const [messages, theirMessages] = socketPair()
  const [descriptors, theirDescriptors] = socketPair()
  const ours = new Channel(new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) }, handoverMessages)
  const theirs = new Channel(
    new net.Socket({ fd: theirMessages }), theirDescriptors, () => { closeSync(theirDescriptors) }, handoverMessages
  )
  const mover = new ConnectionSender(ours, { listeners: ['tcp'], kinds: [], room: 10 }, () => undefined)
  const adopter = new ConnectionReceiver(theirs, { receive: (fd, about) => { to.receive(fd, about) } })
  void (async () => {
    for (let word = await theirs.receive(); word?.message.type === 'move'; word = await theirs.receive()) await adopter.take(word.message.connections, word.fds)
  })()
  void (async () => {
    for (let word = await ours.receive(); word?.message.type === 'taken'; word = await ours.receive()) mover.taken(word.message.count)
  })()
  const drain = from.drain({ lingerMs: 60_000, deadline: deadlineIn(60_000), route: { mover, listener: 'tcp', http2: false } })
  onTestFinished(() => {
    mover.end({ text: 'the test is over' })
    drain.undo()
    ours.close()
    theirs.close()
  })
}

/** Requests on one connection, whose next bytes are in the kernel before the event loop can read anything, and who answered each. */
async function pressing(first: string, answer: (
  turn: { count: number; message: http.IncomingMessage; response: http.ServerResponse; say: (bytes: string, answered?: boolean) => void }
) => void, last = 8): Promise<string[]> {
  const servedBy: string[] = []
  const [client, accepted] = socketPair()
  onTestFinished(() => { closeSync(client) })
  let end: () => void = () => undefined
  const ended = new Promise<void>((resolve) => { end = resolve })
  const say = (bytes: string, answered = true): void => {
    if (answered) readSync(client, Buffer.alloc(65_536))
    writeSync(client, bytes)
  }
  const turn = (message: http.IncomingMessage, response: http.ServerResponse): void => {
    const count = servedBy.push(String(response.getHeader('Server')))
    if (count === 3) drainInto(predecessor.connections, successor.connections)
    if (count < last) answer({ count, message, response, say })
    else response.end(end)
  }
  const predecessor = await serving('predecessor', turn)
  const successor = await serving('successor', turn)
  predecessor.connections.receive(accepted, { kind: 'http', listener: 'tcp', ageMs: 0, requests: 0 })
  writeSync(client, first)
  await ended
  return servedBy
}

const served = (predecessor: number, successor: number): string[] => [...Array<string>(predecessor).fill('predecessor'), ...Array<string>(successor).fill('successor')]

/** When the application ends its answer. */
const moments: Readonly<Record<string, (end: () => void) => void>> = {
  'in the request handler': (end) => { end() },
  'in a microtask': (end) => { queueMicrotask(end) },
  'in the next tick': (end) => { process.nextTick(end) },
  'in a timer': (end) => { setTimeout(end, 5) },
  'in the check phase': (end) => { setImmediate(end) },
  'in a callback of the file system': (end) => { stat('.', () => { end() }) },
  'in the poll phase': (end) => {
    const [one, other] = socketPair()
    const socket = new net.Socket({ fd: one }).on('data', () => {
      socket.destroy()
      end()
    })
    writeSync(other, 'x')
    closeSync(other)
  }
}

it.each(Object.entries(moments))('after an answer that ends %s, the next request is the successor\'s', async (_name, at) => {
  expect(await pressing(request, ({ response, say }) => {
    at(() => {
      response.end('ok')
      say(request)
    })
  })).toEqual(served(3, 5))
})

it('a client that has all that Content-Length says, and asks before the application ends the answer, is answered by the successor', async () => {
  expect(await pressing(request, ({ response, say }) => {
    setTimeout(() => {
      response.writeHead(200, { 'Content-Length': 2 }).write('ok', () => {
        say(request)
        setTimeout(() => { response.end() }, 5)
      })
    }, 1)
  })).toEqual(served(3, 5))
})

it('requests that had been read with the one before are answered where they are, and no other', async () => {
  expect(await pressing(request, ({ count, response, say }) => {
    setTimeout(() => {
      response.end('ok')
      if (count === 2) say(request + request)
      else if (count !== 3) say(request)
    }, 5)
  })).toEqual(served(4, 4))
})

it('what is left of a request that was answered early is read, and the next one is the successor\'s', async () => {
  const rest = '1234567890'
  const post = `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${rest.length}\r\n\r\n`
  expect(await pressing(post, ({ message, response, say }) => {
    setTimeout(() => {
      message.once('end', () => { say(post, false) })
      response.end('ok')
      // The answer is out by then, and the connection was looked at.
      setTimeout(() => { say(rest) }, 20)
      setTimeout(() => { message.resume() }, 10)
    }, 1)
  }, 6)).toEqual(served(3, 3))
})
