/** What a session of HTTP/2 needs to go on elsewhere: where frames end, however bytes come, and a beginning for a session of Node. */

import http2 from 'node:http2'
import { Duplex } from 'node:stream'
import { expect, it } from 'vitest'
import { beginningOf, changesFrom, FrameEnds, frameOf, FrameSplitter, pairsOf, settingsOf, TableWatch } from '../../../helpers/internals.js'

const payload = Buffer.from('a secret')
const answer = frameOf(6, 1, 0, payload)
const frames = [frameOf(0, 0, 1, Buffer.alloc(300, 'x')), frameOf(1, 4, 3, Buffer.alloc(20)), frameOf(8, 0, 0, Buffer.alloc(4)), frameOf(0, 1, 3)]

it('finds the end of each frame behind the answer to the ping, however the bytes come', () => {
  const before = Buffer.concat([Buffer.from('the rest of a frame'), answer.subarray(0, 10), frameOf(0, 0, 1, Buffer.alloc(50))])
  const all = Buffer.concat([before, answer, ...frames])
  const ends = new Set<number>()
  for (let at = before.length + answer.length, index = 0; index <= frames.length; at += frames[index++]?.length ?? 0) ends.add(at)
  for (const size of [1, 2, 3, 7, 9, 16, 17, 18, 100, all.length]) {
    const found = new FrameEnds(payload)
    for (let at = 0; at < all.length; at += size) {
      found.add(all.subarray(at, at + size))
      const until = Math.min(all.length, at + size)
      expect([size, until, found.isEnd]).toEqual([size, until, ends.has(until)])
    }
  }
})

it('is at no end within a head of several frames', () => {
  const found = new FrameEnds(payload)
  found.add(Buffer.concat([answer, frameOf(1, 0, 1, Buffer.alloc(5))]))
  expect(found.isEnd).toBe(false)
  found.add(frameOf(9, 4, 1, Buffer.alloc(5)))
  expect(found.isEnd).toBe(true)
})

const plain = [0x82, 0x84] // :method GET, :path /
const added = [0x40, 1, 0x61, 1, 0x62] // a: b, into the table
it.for([
  ['of the fixed table alone', plain, false],
  ['that looks up what was added before', [...plain, 0xbe], true],
  ['that looks up what it adds itself', [...added, 0xbe], false],
  ['that looks up one more than it adds', [...added, 0xbf], true],
  ['with a name of the table, and a value', [0x7e, 1, 0x62], true],
  ['with such a name that is never to be added', [0x1f, 47, 1, 0x62], true],
  ['with a fixed name and a long value', [0x04, 0x7f, 1, ...Array.from({ length: 128 }, () => 0xff), 0x84], false],
  ['that says that the table is of another size', [0x20, 0x3f, 0xe1, 0x1f, ...plain], false]
] as const)('knows whether a head %s can be read where the table was emptied', ([, block, isUnreadable]) => {
  const watch = new TableWatch(true)
  expect(watch.isUnreadable(frameOf(1, 4, 1, Buffer.from(block)))).toBe(isUnreadable)
  const padded = Buffer.from([3, 0, 0, 0, 0, 9, ...block, 0xbe, 0xbe, 0xbe])
  expect(new TableWatch(true).isUnreadable(frameOf(1, 4 | 8 | 0x20, 3, padded))).toBe(isUnreadable)
  expect(watch.isOver).toBe(block[0] === 0x20)
})

it('knows that a table of size 0 keeps no entry, until the client says another size', () => {
  const head = (...block: readonly number[]): Buffer => frameOf(1, 4, 1, Buffer.from(block))
  const silent = new TableWatch(false)
  expect(silent.isUnreadable(head(...plain, ...added))).toBe(false)
  expect(silent.isUnreadable(head(...plain, 0xbe))).toBe(true)
  const saying = new TableWatch(false)
  expect(saying.isUnreadable(head(0x3f, 0xe1, 0x1f, ...plain, ...added, 0xbe))).toBe(false)
  expect(saying.isUnreadable(head(...plain, 0xbe))).toBe(false)
})

const settingsAck = frameOf(4, 1, 0)
it.for([
  ['that nobody can read', [...plain, 0xbe], true],
  ['like others', plain, false],
  ['that says that the table is of another size', [0x20, ...plain], false]
] as const)('behind the acknowledgement passes on no part of a head %s before all of it has come, however the bytes come', ([, block, isUnreadable]) => {
  const last = frameOf(1, 5, 5, Buffer.from(block))
  const before = Buffer.concat([answer, frameOf(0, 0, 1, Buffer.alloc(40)), settingsAck, ...frames.slice(0, 1)])
  const all = Buffer.concat([before, last, ...frames])
  for (let size = 1; size <= all.length; size++) {
    const ends = new FrameEnds(payload)
    ends.emptiesTable()
    let [kept, passed, unreadable] = [Buffer.alloc(0), 0, -1]
    for (let at = 0; at < all.length && unreadable < 0; at += size) {
      const bytes = Buffer.concat([kept, all.subarray(at, at + size)])
      const { unreadableAt, keptFrom = bytes.length } = ends.add(bytes)
      if (unreadableAt !== undefined) unreadable = passed + unreadableAt
      kept = Buffer.from(bytes.subarray(keptFrom))
      passed += keptFrom
      if (passed > before.length) expect(passed).toBeGreaterThanOrEqual(before.length + last.length)
    }
    expect([size, unreadable]).toEqual([size, isUnreadable ? before.length : -1])
    if (!isUnreadable) expect([passed, ends.isEnd]).toEqual([all.length, true])
  }
})

it('cuts bytes into whole frames', () => {
  const splitter = new FrameSplitter()
  const all = Buffer.concat(frames)
  const found = [...all].flatMap((byte) => splitter.take(Buffer.from([byte])))
  expect(Buffer.concat(found)).toEqual(all)
  expect(found).toHaveLength(frames.length)
  expect(splitter.rest).toHaveLength(0)
})

it('does not copy a frame with each of its bytes', () => {
  const splitter = new FrameSplitter()
  const [frame] = frames as [Buffer]
  const memories = new Set<ArrayBufferLike>()
  for (const byte of frameOf(0, 0, 1, Buffer.alloc(20_000))) {
    memories.add(splitter.rest.buffer)
    splitter.take(Buffer.from([byte]))
  }
  expect(memories.size).toBeLessThan(40)
  expect(splitter.take(frame)).toEqual([frame])
})

it('keeps settings on their way, and tells a client only what changes', () => {
  const inForce = {
    maxConcurrentStreams: 7, initialWindowSize: 9, maxFrameSize: 20_000, maxHeaderListSize: 5, enableConnectProtocol: true
  }
  const settings = { headerTableSize: 0, enablePush: true, ...inForce }
  const pairs = pairsOf(settings)
  expect(pairs).toEqual([1, 0, 2, 1, 3, 7, 4, 9, 5, 20_000, 6, 5, 8, 1])
  expect(settingsOf(pairs)).toEqual(inForce)
  expect(changesFrom(pairs, settings)).toEqual({ headerTableSize: 0 })
  expect(changesFrom(pairs, { initialWindowSize: 9 })).toEqual({
    headerTableSize: 4_096, maxConcurrentStreams: 2 ** 32 - 1, maxFrameSize: 16_384, maxHeaderListSize: 2 ** 32 - 1
  })
})

it('begins a session of Node with the windows, settings and streams of another, and no program sees a stream', async () => {
  const written: Buffer[] = []
  const wire = new Duplex({
    read: () => undefined,
    write(bytes: Buffer, _, done) {
      written.push(bytes)
      done()
    }
  })
  const server = http2.createServer()
  let streams = 0
  server.on('stream', () => { streams++ })
  const session = await new Promise<http2.ServerHttp2Session>((resolve) => {
    server.on('session', (begun) => {
      begun.settings({ initialWindowSize: 100_000 })
      begun.on('localSettings', () => { if (begun.localSettings.initialWindowSize === 100_000) resolve(begun) })
    })
    server.emit('connection', wire)
    const late = [frameOf(3, 0, 99, Buffer.alloc(4)), frameOf(8, 0, 55, Buffer.from([0, 0, 0, 9])), frameOf(0, 0, 77, Buffer.alloc(1_000))]
    const client = [1, 200, 2, 0, 4, 1_234, 5, 20_000]
    const moved = { client, server: [], lastStream: 101, sendWindow: 80_000, receiveWindow: 1, receiveLimit: 1 }
    wire.push(Buffer.concat([beginningOf(moved), ...late]))
  })
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
  expect(session.remoteSettings).toMatchObject({ headerTableSize: 200, enablePush: false, initialWindowSize: 1_234, maxFrameSize: 20_000 })
  expect(session.state).toMatchObject({ remoteWindowSize: 80_000, lastProcStreamID: 101, effectiveRecvDataLength: 1_000 })
  expect(session.destroyed).toBe(false)
  expect(streams).toBe(0)
  const answers = new FrameSplitter().take(Buffer.concat(written)).map((frame) => [frame[3], frame[4]])
  expect(answers.toSorted()).toEqual([[3, 0], [4, 0], [4, 0], [4, 1], [4, 1]])
  session.destroy()
})
