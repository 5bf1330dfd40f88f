/**
 * ConnectionSender and ConnectionReceiver, each against a fake other side in this process: the order of what is said, how much is on its
 * way at a time, and what is taken back when the other side says something wrong or nothing.
 */

import { socketPair } from '@handover/core/fd'
import { closeSync } from 'node:fs'
import net from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  Channel, ConnectionReceiver, ConnectionSender, maxLineBytes, type Message, type MovedConnection, native,
  handoverMessages, type OutgoingConnection, stayText, succeed
} from '../../../helpers/internals.js'

const http = (requests = 1): MovedConnection => ({ kind: 'http', listener: 'tcp 127.0.0.1:9', ageMs: 5, idleMs: 1, requests })

type Fate = 'held' | 'left' | 'back'

/** ConnectionTracker that are held still, and what became of each. */
class Held {
  readonly fates: Fate[] = []

  one(about: MovedConnection = http(), fd: () => number | undefined = () => 0): OutgoingConnection {
    const index = this.fates.push('held') - 1
    const once = (fate: Fate) => (): void => {
      expect(this.fates[index], 'exactly one of left() and back() is called, and once').toBe('held')
      this.fates[index] = fate
    }
    return { fd, about, sent: () => undefined, left: once('left'), back: once('back') }
  }

  many(count: number): OutgoingConnection[] {
    return Array.from({ length: count }, (_, index) => this.one(http(index)))
  }

  count(fate: Fate): number {
    return this.fates.filter((each) => each === fate).length
  }
}

/** What a channel is told, in order. */
class Wire {
  readonly said: ({ readonly type: 'descriptors'; readonly fds: readonly number[] } | Message)[] = []
  /** Thrown by the next message with descriptors. */
  errors: string[] = []

  send(message: Message, fds: readonly number[] = []): void {
    const code = this.errors.shift()
    if (code !== undefined) throw Object.assign(new Error(`sendmsg ${code}`), { code })
    if (fds.length > 0) this.said.push({ type: 'descriptors', fds: [...fds] })
    this.said.push(message)
  }

  get moves(): (readonly MovedConnection[])[] {
    return this.said.flatMap((each) => (each.type === 'move' ? [each.connections] : []))
  }

  /** ConnectionTracker of all moves. */
  get sent(): number {
    return this.moves.reduce((sum, connections) => sum + connections.length, 0)
  }
}

describe('the predecessor', () => {
  beforeEach(() => { vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setImmediate'] }) })
  afterEach(() => { vi.useRealTimers() })

  /** As many looks as it will ever take: each has five milliseconds of real time. */
  const looks = async (): Promise<void> => { await vi.advanceTimersByTimeAsync(1_000) }

  function moving({ room = 10_000, count = 0, atOnce = false } = {}) {
    const wire = new Wire()
    const held = new Held()
    const ends: string[] = []
    const mover = new ConnectionSender(wire as unknown as Channel, { listeners: ['tcp 127.0.0.1:9'], kinds: ['chat'], room, atOnce }, (reason) => { ends.push(stayText(reason)) })
    const waiting = held.many(count)
    mover.add(function* () { while (waiting.length > 0) yield waiting.shift()! })
    return { wire, held, ends, mover, waiting }
  }

  it('sends one message of descriptors before each "move", as many as that names, and at most 64', async () => {
    const { wire } = moving({ count: 100 })
    await looks()
    expect(wire.sent).toBe(100)
    for (let at = 0; at < wire.said.length; at += 2) {
      const [descriptors, move] = wire.said.slice(at, at + 2)
      if (descriptors?.type !== 'descriptors' || move?.type !== 'move') throw new Error(`${descriptors?.type} and ${move?.type}`)
      expect(descriptors.fds.length).toBe(move.connections.length)
      expect(move.connections.length).toBeLessThanOrEqual(64)
    }
  })

  it('sends at most 252 in a message, and has at most 1,008 on their way, where the successor answers at once', async () => {
    const { wire } = moving({ count: 2_000, atOnce: true })
    await looks()
    expect(wire.moves.map(({ length }) => length)).toEqual([252, 252, 252, 252])
  })

  it('has at most 256 connections on their way, and sends more only as those are answered', async () => {
    const { wire, mover, held, waiting } = moving({ count: 600 })
    await looks()
    expect(wire.sent).toBe(256)
    expect(waiting.length, 'the others are not even held still').toBe(344)
    let answered = 0
    for (let next = 0; next < wire.moves.length; next++) {
      answered += wire.moves[next]!.length
      mover.taken(wire.moves[next]!.length)
      expect(held.count('left')).toBe(answered)
      await looks()
      expect(wire.sent - answered).toBeLessThanOrEqual(256)
    }
    expect([wire.sent, held.count('left')]).toEqual([600, 600])
  })

  it('takes back what the successor does not take of a message, and of those after it what it does not take either', async () => {
    const { wire, mover, held, ends } = moving({ count: 300 })
    await looks()
    const [first = [], second = []] = wire.moves
    mover.taken(first.length)
    mover.taken(second.length - 3)
    expect(ends).toEqual(['the successor ran out of descriptors'])
    await looks()
    for (const batch of wire.moves.slice(2)) mover.taken(Math.min(2, batch.length))
    const kept = first.length + second.length - 3 + wire.moves.slice(2).reduce((sum, batch) => sum + Math.min(2, batch.length), 0)
    expect([held.count('left'), held.count('back'), held.count('held')]).toEqual([kept, wire.sent - kept, 300 - wire.sent])
    await looks()
    expect(ends.length).toBe(1)
    expect(mover.takesListener('tcp 127.0.0.1:9')).toBe(false)
  })

  it('counts a message as taken whole where the successor says that it took more', async () => {
    const { wire, mover, held, ends } = moving({ count: 60 })
    await looks()
    for (const batch of wire.moves) mover.taken(batch.length + 1_000)
    expect([held.count('left'), ends]).toEqual([60, []])
  })

  it('ignores an answer to nothing', async () => {
    const { wire, mover, held, ends, waiting } = moving({ count: 10 })
    mover.taken(5)
    await looks()
    for (const batch of wire.moves) mover.taken(batch.length)
    mover.taken(10)
    mover.taken(0)
    expect([held.count('left'), ends]).toEqual([10, []])
    waiting.push(...held.many(40))
    await looks()
    expect(wire.sent).toBe(50)
  })

  it('takes back everything that was never answered when the successor is gone, and an answer from then on means nothing', async () => {
    const { wire, mover, held, ends } = moving({ count: 600 })
    await looks()
    const [first = []] = wire.moves
    mover.taken(first.length)
    mover.end('successorEnded', true)
    expect([held.count('left'), held.count('back')]).toEqual([first.length, 256 - first.length])
    mover.taken(64)
    await looks()
    expect([wire.sent, ends, mover.takesKind('chat')]).toEqual([256, ['the successor ended'], false])
  })

  it('closes its copies of what had moved at once when the successor is gone: nobody serves those connections any more', async () => {
    const { wire, mover, held, waiting } = moving({ atOnce: true })
    let closed = 0
    waiting.push(...held.many(300).map((connection) => ({ ...connection, close: () => { closed++ } })))
    await looks()
    mover.taken(wire.moves[0]!.length)
    expect(closed, 'while the others move').toBe(0)
    mover.end('successorEnded', true)
    await vi.waitFor(() => { expect(closed).toBe(wire.moves[0]!.length) }, 200)
  })

  it('waits for the answers to what is on its way when moving ends for another reason', async () => {
    const { wire, mover, held, ends } = moving({ count: 40 })
    await looks()
    mover.end({ text: 'it is over' })
    expect([held.count('held'), ends]).toEqual([40, ['it is over']])
    for (const batch of wire.moves) mover.taken(batch.length)
    expect(held.count('left')).toBe(40)
  })

  it('gives back at once what the application wants to move when nothing moves any more', async () => {
    const { mover, held } = moving()
    mover.send(held.one({ ...http(), kind: 'chat' }))
    mover.end('successorEnded', true)
    mover.send(held.one({ ...http(), kind: 'chat' }))
    expect(held.fates).toEqual(['back', 'back'])
    expect(mover.takesKind('chat')).toBe(false)
  })

  it('sends no more than the successor has room for, and says so', async () => {
    const { wire, mover, held, ends, waiting } = moving({ room: 40, count: 100 })
    await looks()
    expect([wire.sent, ends]).toEqual([40, ['the successor has no room for more descriptors']])
    for (const batch of wire.moves) mover.taken(batch.length)
    expect([held.count('left'), waiting.length]).toEqual([40, 60])
  })

  it('keeps its own where a connection was closed while it was held', async () => {
    const { wire, mover, held } = moving()
    mover.send(held.one(http(), () => undefined))
    mover.send(held.one(http()))
    await looks()
    expect([held.fates, wire.sent]).toEqual([['back', 'held'], 1])
  })

  it.each(['EAGAIN', 'ENOBUFS', 'ENOMEM', 'ETOOMANYREFS'])('takes a connection back that the kernel does not send at this moment (%s), and goes on', async (code) => {
    const { wire, held, ends, waiting, mover } = moving()
    wire.errors = [code]
    waiting.push(...held.many(20))
    await looks()
    expect([held.count('back'), ends]).toEqual([20, []])
    waiting.push(...held.many(20))
    mover.wake()
    await looks()
    expect(wire.sent).toBe(20)
  })

  it('moves nothing more where the kernel will not send at all', async () => {
    const { wire, held, ends } = moving({ count: 100 })
    wire.errors = ['EPERM']
    await looks()
    expect([wire.sent, ends, held.count('left'), held.count('held')]).toEqual([0, ['descriptors cannot be sent: sendmsg EPERM'], 0, 100 - held.count('back')])
    expect(held.count('back')).toBeGreaterThan(0)
  })

  it('divides connections with much state among several messages, none longer than the successor reads', async () => {
    const { wire, mover, held } = moving()
    // Every character of it takes two in the message.
    const state = '"'.repeat(250_000)
    for (let index = 0; index < 5; index++) mover.send(held.one({ ...http(), kind: 'chat', state, unread: 'AAAA'.repeat(16_384) }))
    await looks()
    expect(wire.sent).toBe(5)
    for (const message of wire.said) expect(JSON.stringify(message).length).toBeLessThan(maxLineBytes)
  })

  it('keeps a connection of which more is to be said than one message holds', async () => {
    const { wire, mover, held } = moving()
    mover.send(held.one({ ...http(), kind: 'chat', unread: 'AAAA'.repeat(300_000) }))
    mover.send(held.one({ ...http(), kind: 'chat' }))
    await looks()
    expect([held.fates, wire.sent]).toEqual([['back', 'held'], 1])
  })
})

describe('the successor', () => {
  const opened: number[] = []
  afterEach(() => { for (const fd of opened.splice(0)) closeSync(fd) })

  /** Descriptors as they come, and their other ends. */
  function pairs(count: number): { fds: number[]; others: number[] } {
    const all = Array.from({ length: count }, () => socketPair())
    const others = all.map(([, other]) => other)
    opened.push(...others)
    return { fds: all.map(([fd]) => fd), others }
  }

  const isClosed = (other: number): boolean => native!.pollReadable(other, 0) === 1

  function adopting({ busyMs = 0, reserve = 0 } = {}) {
    const log: string[] = []
    const adopted: { fd: number; about: MovedConnection }[] = []
    const channel = {
      send: (message: Message) => { log.push(message.type === 'taken' ? `taken ${message.count}` : message.type) }
    }
    const adopter: ConnectionReceiver = new ConnectionReceiver(channel as unknown as Channel, { receive: (fd, about) => {
      log.push('adopt')
      adopted.push({ fd, about })
      for (const end = performance.now() + busyMs; performance.now() < end;);
      closeSync(fd)
    } }, reserve)
    const take = (fds: number[], named = fds.length): void => {
      void adopter.take(Array.from({ length: named }, (_, index) => http(index)), fds)
    }
    return { adopter, adopted, log, take }
  }

  it('says how many it has when it has made connections of them, message for message', async () => {
    const { adopter, adopted, log, take } = adopting()
    take(pairs(2).fds)
    take(pairs(3).fds)
    await adopter.idle()
    expect(log).toEqual(['adopt', 'adopt', 'taken 2', 'adopt', 'adopt', 'adopt', 'taken 3'])
    expect(adopted.map(({ about }) => about.requests)).toEqual([0, 1, 0, 1, 2])
  })

  it('lets the loop turn between two messages when they take long, and is idle only when the last is served', async () => {
    // Each takes longer than a turn may.
    const { adopter, adopted, take } = adopting({ busyMs: 11 })
    const counts: number[] = []
    for (let message = 0; message < 5; message++) take(pairs(1).fds)
    const look = (): void => {
      counts.push(adopted.length)
      if (adopted.length < 5) setImmediate(look)
    }
    setImmediate(look)
    await adopter.idle()
    expect(adopted.length).toBe(5)
    expect(new Set(counts).size).toBeGreaterThanOrEqual(4)
  })

  it('says how many came where these are fewer than the message names', async () => {
    const { adopter, adopted, log, take } = adopting()
    const { fds, others } = pairs(3)
    take(fds, 5)
    take([], 4)
    take(pairs(1).fds)
    await adopter.idle()
    expect(log).toEqual(['adopt', 'adopt', 'adopt', 'taken 3', 'taken 0', 'adopt', 'taken 1'])
    expect(adopted.map(({ about }) => about.requests)).toEqual([0, 1, 2, 0])
    expect(others.every(isClosed)).toBe(true)
  })

  it('gives everything back from the moment it ends, also what waits already, and keeps what it has acknowledged', async () => {
    const { adopter, adopted, log, take } = adopting({ busyMs: 12 })
    const waiting = pairs(4)
    const late = pairs(2)
    take(pairs(2).fds)
    take(waiting.fds)
    adopter.refuse()
    await adopter.idle()
    take(late.fds)
    await adopter.idle()
    expect(log).toEqual(['adopt', 'adopt', 'taken 2', 'taken 0', 'taken 0'])
    expect(adopted.length).toBe(2)
    expect([...waiting.others, ...late.others].every(isClosed)).toBe(true)
  })

  it('gives back what would take the last descriptors of the process, which clients need', async () => {
    const limit = native!.openFilesLimit()
    const { fds, others } = pairs(6)
    // As if the limit ended behind the fourth.
    const { adopter, adopted, log, take } = adopting({ reserve: limit - fds[4]! })
    take(fds)
    await adopter.idle()
    expect([log.at(-1), adopted.length]).toEqual(['taken 4', 4])
    expect(others.every(isClosed)).toBe(true)
  })

  describe('whose predecessor dies', () => {
    const ready = { type: 'ready', kept: [], added: [], dropped: [] } as const

    /** `lines` and descriptors are all there when the successor begins to read, and the predecessor is gone. */
    async function takenFromTheDead(send: (messages: number, descriptors: number) => void): Promise<MovedConnection[]> {
      const [messages, theirs] = socketPair()
      const [descriptors, theirDescriptors] = socketPair()
      send(theirs, theirDescriptors)
      closeSync(theirs)
      closeSync(theirDescriptors)
      const channel = new Channel(new net.Socket({ fd: messages }), descriptors, () => { closeSync(descriptors) }, handoverMessages)
      const adopted: MovedConnection[] = []
      const adopter = new ConnectionReceiver(channel, { receive: (fd, about) => { closeSync(fd); adopted.push(about) } })
      await new Promise<void>((resolve) => {
        void succeed(channel, {
          hasLeft: () => false,
          section: () => undefined,
          unsaved: () => undefined,
          peer: () => undefined,
          prepared: Promise.resolve(ready),
          serve: () => ({ listeners: [], kinds: [], room: 100 }),
          take: (connections, fds) => adopter.take(connections, fds),
          allTaken: () => adopter.idle(),
          withdrawn: () => undefined,
          predecessorEnded: () => { resolve() }
        })
      })
      return adopted
    }

    it.each<[what: string, sent: number, state: string]>([
      ['', 50, ''],
      [' with more state than is read at once', 7, 'x'.repeat(20_000)]
    ])('serves all that had been sent%s, although nobody hears its answers any more', async (_what, sent, state) => {
      const adopted = await takenFromTheDead((messages, descriptors) => {
        const write = (message: unknown): void => {
          const line = Buffer.from(`${JSON.stringify(message)}\n`)
          expect(native!.sendMessage(messages, line, [])).toBe(line.length)
        }
        write({ type: 'commit' })
        for (let batch = 0; batch < sent; batch++) {
          const { fds } = pairs(1)
          native!.sendMessage(descriptors, new Uint8Array(1), fds)
          closeSync(fds[0]!)
          write({ type: 'move', connections: [{ ...http(batch), kind: 'chat', state }] })
        }
      })
      expect(adopted.map(({ requests }) => requests)).toEqual(Array.from({ length: sent }, (_, index) => index))
    })
  })
})
