/** The stream on which a moved session of HTTP/2 goes on, whose client has let the process before send all that it may. */

import type net from 'node:net'
import { Duplex } from 'node:stream'
import { expect, it } from 'vitest'
import { ContinuedSession, frameOf, FrameSplitter } from '../../../helpers/internals.js'

const windowUpdate = (bytes: number): Buffer => frameOf(8, 0, 0, Buffer.from([0, 0, bytes >> 8, bytes & 0xff]))
const head = (stream: number): Buffer => frameOf(1, 4, stream, Buffer.from([0x89]))
const data = (stream: number, bytes: number): Buffer => frameOf(0, 1, stream, Buffer.alloc(bytes, 'x'))
const nextTurn = async (): Promise<void> => { await new Promise((resolve) => setImmediate(resolve)) }

function begin(): { session: ContinuedSession; sent: () => string[]; says: (...frames: Buffer[]) => void } {
  const written: Buffer[] = []
  const socket = new Duplex({
    read: () => undefined,
    write(bytes: Buffer, _, done) {
      written.push(bytes)
      done()
    }
  })
  const session = new ContinuedSession(socket as net.Socket, {
    client: [], server: [], lastStream: 1, sendWindow: 0, receiveWindow: 65_535, receiveLimit: 65_535
  })
  session.resume()
  // What a new session says to the beginning that it is told.
  session.write(Buffer.concat([frameOf(4, 0, 0), frameOf(4, 0, 0), frameOf(4, 1, 0), frameOf(4, 1, 0), frameOf(3, 0, 1, Buffer.alloc(4))]))
  const types = ['data', 'head', '', '', 'settings', '', 'ping']
  return {
    session,
    sent: () => new FrameSplitter().take(Buffer.concat(written)).map((frame) => `${types[frame[3]!]} ${frame[8]} ${frame.readUIntBE(0, 3)}`),
    says: (...frames) => { session.arrived(Buffer.concat(frames)) }
  }
}

it('sends what was kept back in its order, as much of it as each update lets it; a ping overtakes', async () => {
  const { session, sent, says } = begin()
  session.write(Buffer.concat([head(3), data(3, 10), head(5)]))
  session.write(Buffer.concat([frameOf(6, 1, 0, Buffer.alloc(8)), data(5, 0), head(7), data(7, 6)]))
  await nextTurn()
  expect(sent().splice(0)).toEqual(['head 3 1', 'ping 0 8'])
  says(windowUpdate(4))
  expect(sent().slice(2)).toEqual(['data 3 4'])
  says(windowUpdate(1), windowUpdate(9))
  expect(sent().slice(3)).toEqual(['data 3 6', 'head 5 1', 'data 5 0', 'head 7 1', 'data 7 4'])
  says(windowUpdate(10_000))
  expect(sent().slice(8)).toEqual(['data 7 2'])
})

it('closes the connection of a client that asks for more and more, and lets nothing be sent', async () => {
  const { session, sent } = begin()
  session.write(Buffer.concat([head(3), data(3, 1)]))
  const answers = Buffer.concat(Array.from({ length: 1_000 }, (_, index) => head(2 * index + 5)))
  let writes = 0
  while (!session.destroyed && ++writes < 200) {
    session.write(answers)
    await nextTurn()
  }
  expect(sent()).toEqual(['head 3 1'])
  expect([session.destroyed, session.socket.destroyed, session.errored]).toEqual([true, true, null])
  expect(writes).toBeGreaterThan(50)
})
