/**
 * A channel carries messages and their descriptors, and never gives one message the descriptors of another, whatever room there is for
 * them.
 */

import { socketPair } from '@handover/core/fd'
import { closeSync, fstatSync, openSync } from 'node:fs'
import net from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import {
  Channel, handoverMessages, keeperMessages, type KeeperMessage, type Message, native, type OfferedListener, workerMessages,
  type WorkerMessage
} from '../../../helpers/internals.js'
import { descriptorsOf, waitFor } from '../../../helpers/program.js'

const listener: OfferedListener = { name: 'tcp 127.0.0.1:9', kind: 'tcp', asked: '9', address: '127.0.0.1', port: 9, ipv6: false, ipv6Only: false, backlog: 511 }
const serves = (count: number): WorkerMessage => ({ type: 'serves', listeners: Array.from({ length: count }, () => listener) })
const checkpoint: WorkerMessage = { type: 'checkpoint', name: 'x', bytes: 1 }

const ends: (() => void)[] = []
afterEach(() => { for (const end of ends.splice(0)) end() })

function opened(file: string): number {
  const fd = openSync(file, 'r')
  ends.push(() => { closeSync(fd) })
  return fd
}
const inode = (fd: number): number => fstatSync(fd).ino
/** How many descriptors of the files of this test this process has. */
const openHere = (): number => [...descriptorsOf(process.pid).values()].filter((target) => ['/dev/null', import.meta.filename].includes(target)).length
function closeFds(fds: readonly number[]): void { for (const fd of fds) closeSync(fd) }

/** A worker's end and its keeper's; `descriptors`: the keeper's end of the second socket. */
function line() {
  const [messages, theirMessages] = socketPair()
  const [descriptors, theirDescriptors] = socketPair()
  const worker = new Channel<KeeperMessage, WorkerMessage>(
    new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) }, keeperMessages
  )
  const keeper = new Channel<WorkerMessage, KeeperMessage>(
    new net.Socket({ fd: theirMessages }), theirDescriptors, () => { closeSync(theirDescriptors) }, workerMessages
  )
  ends.push(() => {
    worker.close()
    keeper.close()
  })
  return { worker, keeper, descriptors: theirDescriptors, own: descriptors }
}

/** Fills the second socket; answers how many batches are in it. */
function fill(descriptors: number, fd: number): number {
  let sent = 0
  while (native!.sendMessage(descriptors, new Uint8Array(1), [fd]) === 1) sent++
  return sent
}

function drain(descriptors: number, batches: number): void {
  for (let batch = 0; batch < batches; batch++) {
    const received = native!.receiveMessage(descriptors, new Uint8Array(1))
    if (typeof received === 'number') throw new Error(`${batch} of ${batches} batches are there`)
    closeFds(received.fds)
  }
}

describe('a word whose descriptors find room for the first batch alone', () => {
  async function sentInPart() {
    const { worker, keeper, descriptors, own } = line()
    const nul = opened('/dev/null')
    const file = opened(import.meta.filename)
    const sent = fill(own, nul)
    expect(() => { worker.send(serves(300), Array<number>(300).fill(nul)) }).toThrow(expect.objectContaining({ code: 'EAGAIN' }))
    // Room for one batch, not for two.
    drain(descriptors, 1)
    const copy = openSync('/dev/null', 'r')
    worker.send(serves(300), Array<number>(300).fill(copy))
    closeSync(copy)
    return { worker, keeper, descriptors, own, sent, nul, file }
  }

  it('has them all when there is room again, and a later word has its own', async () => {
    const { worker, keeper, descriptors, sent, nul, file } = await sentInPart()
    // One that has none is said after it all the same; one that has some finds no room.
    worker.send({ type: 'hello', protocol: 1, pid: 7 })
    expect(() => { worker.send(checkpoint, [file]) }).toThrow(expect.objectContaining({ code: 'EAGAIN' }))
    drain(descriptors, sent - 1)
    const first = await keeper.receive()
    expect(first?.message.type).toBe('serves')
    expect(first?.fds.map(inode)).toEqual(Array(300).fill(inode(nul)))
    closeFds(first!.fds)
    expect((await keeper.receive())?.message.type).toBe('hello')
    worker.send(checkpoint, [file])
    const next = await keeper.receive()
    expect(next?.message).toEqual(checkpoint)
    expect(next?.fds.map(inode), 'right file').toEqual([inode(file)])
    closeFds(next!.fds)
  })

  it('is not said where the channel is closed before the rest could go, and no copy stays open', async () => {
    const before = openHere()
    const { worker, keeper, descriptors, sent } = await sentInPart()
    worker.close()
    drain(descriptors, sent - 1)
    expect(await keeper.receive()).toBeUndefined()
    keeper.close()
    for (const end of ends.splice(0)) end()
    await waitFor(() => openHere() <= before)
  })

  it('leaves nothing open where the other side dies meanwhile', async () => {
    const before = openHere()
    const { worker, keeper } = await sentInPart()
    keeper.close()
    expect(await worker.receive()).toBeUndefined()
    for (const end of ends.splice(0)) end()
    await waitFor(() => openHere() <= before)
  })
})

it('600 descriptors of one word arrive in their order', async () => {
  const { worker, keeper } = line()
  const files = Array.from({ length: 600 }, (_, index) => opened(index % 7 === 0 ? import.meta.filename : '/dev/null'))
  worker.send(serves(600), files)
  const received = await keeper.receive()
  expect(received?.missing).toBeUndefined()
  expect(received?.fds.map(inode)).toEqual(files.map(inode))
  closeFds(received!.fds)
})

it('where fewer descriptors arrive than a word counts, they are closed, it is said how many they were, and the next word has its own', async () => {
  const { worker, keeper, own } = line()
  const nul = opened('/dev/null')
  const file = opened(import.meta.filename)
  const before = openHere()
  // As if the kernel had dropped the third.
  native!.sendMessage(own, new Uint8Array(1), [nul, nul])
  worker.send(serves(3))
  worker.send(checkpoint, [file])
  expect(await keeper.receive()).toMatchObject({ message: { type: 'serves' }, fds: [], missing: { counted: 3, arrived: 2 } })
  expect(openHere()).toBe(before)
  const next = await keeper.receive()
  expect(next?.fds.map(inode)).toEqual([inode(file)])
  closeFds(next!.fds)
})

it('words whose sender has died have their descriptors, and then comes its end', async () => {
  const { worker, keeper } = line()
  const file = opened(import.meta.filename)
  worker.send(serves(2), [file, file])
  worker.send(checkpoint, [file])
  worker.close()
  for (const count of [2, 1]) {
    const received = await keeper.receive()
    expect(received?.fds.map(inode)).toEqual(Array(count).fill(inode(file)))
    closeFds(received!.fds)
  }
  expect(await keeper.receive()).toBeUndefined()
})

it('nothing is thrown where the other side is dead when a word with descriptors is said', async () => {
  const { worker, keeper } = line()
  keeper.close()
  worker.send(checkpoint, [opened('/dev/null')])
  expect(await worker.receive()).toBeUndefined()
  worker.send(checkpoint, [opened('/dev/null')])
})

describe('of a move', () => {
  const connection = { kind: 'http', listener: '', ageMs: 0, requests: 0 }
  const move = (count: number): Message => ({ type: 'move', connections: Array<typeof connection>(count).fill(connection) })

  function pair() {
    const [messages, theirMessages] = socketPair()
    const [descriptors, theirDescriptors] = socketPair()
    const [from, to] = [[messages, descriptors], [theirMessages, theirDescriptors]].map(
      ([socket, second]) => new Channel(new net.Socket({ fd: socket! }), second!, () => { closeSync(second!) }, handoverMessages)
    )
    ends.push(() => {
      from!.close()
      to!.close()
    })
    return { from: from!, to: to!, own: descriptors }
  }

  it('the descriptors that arrived are the first ones, and the next word has its own', async () => {
    const { from, to, own } = pair()
    const nul = opened('/dev/null')
    const file = opened(import.meta.filename)
    native!.sendMessage(own, new Uint8Array(1), [nul, nul])
    from.send(move(4))
    from.send({ type: 'section', name: 'x', phase: 'final', bytes: 1 }, [file])
    const received = await to.receive()
    expect(received).toMatchObject({ message: { type: 'move' }, missing: { counted: 4, arrived: 2 } })
    expect(received?.fds.map(inode)).toEqual([inode(nul), inode(nul)])
    closeFds(received!.fds)
    const next = await to.receive()
    expect(next?.fds.map(inode)).toEqual([inode(file)])
    closeFds(next!.fds)
  })

  it('closes what came without being named', async () => {
    const { from, to, own } = pair()
    const nul = opened('/dev/null')
    const before = openHere()
    native!.sendMessage(own, new Uint8Array(1), [nul, nul, nul])
    from.send(move(1))
    const received = await to.receive()
    expect(received?.fds.length).toBe(1)
    closeFds(received!.fds)
    expect(openHere()).toBe(before)
  })
})
