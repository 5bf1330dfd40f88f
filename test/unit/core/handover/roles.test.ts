/** Each side against a fake other one, in this process: order, deadlines, and what is said when it goes wrong. */

import { socketPair } from '@handover/core/fd'
import { closeSync, readSync, writeSync } from 'node:fs'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  BlockingChannel, Channel, handOver, type LaunchedSuccessor, Lifecycle, ListenerRegistry, type Message, native, handoverMessages,
  type SectionsToSend, succeed, type SuccessorSide, takeOffer, watchSuccessor
} from '../../../helpers/internals.js'
import { exampleReport } from '../../../helpers/example-words.js'

/** The other end of a channel, held by the test. */
class Peer {
  readonly heard: Message[] = []
  ended = false
  readonly #socket: net.Socket
  readonly #descriptors: number
  #wake: () => void = () => undefined

  constructor(messages: number, descriptors: number) {
    this.#descriptors = descriptors
    this.#socket = new net.Socket({ fd: messages }).on('error', () => undefined)
    this.#socket.once('close', () => {
      this.ended = true
      this.#wake()
    })
    createInterface({ input: this.#socket }).on('line', (line) => {
      this.heard.push(JSON.parse(line) as Message)
      this.#wake()
    })
  }

  say(message: unknown): void {
    this.#socket.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`)
  }

  async hear(type: Message['type']): Promise<Message> {
    for (;;) {
      const found = this.heard.find((message) => message.type === type)
      if (found) return found
      if (this.ended) throw new Error(`heard ${this.heard.map((message) => message.type).join(', ') || 'nothing'} and the end, not ${type}`)
      await new Promise<void>((resolve) => { this.#wake = resolve })
    }
  }

  die(): void {
    this.#socket.destroy()
  }

  async gone(): Promise<void> {
    while (!this.ended) await new Promise<void>((resolve) => { this.#wake = resolve })
  }

  close(): void {
    this.#socket.destroy()
    closeSync(this.#descriptors)
  }
}

const peers: Peer[] = []
afterEach(() => { for (const peer of peers.splice(0)) peer.close() })

/** A channel of the code under test and its other end. */
function connected(): { channel: Channel; peer: Peer } {
  const [ours, theirs] = socketPair()
  const [descriptors, theirDescriptors] = socketPair()
  const peer = new Peer(theirs, theirDescriptors)
  peers.push(peer)
  return { channel: new Channel(new net.Socket({ fd: ours }), descriptors, () => { closeSync(descriptors) }, handoverMessages), peer }
}

const ready = { type: 'ready', kept: ['tcp 0.0.0.0:3000'], added: [], dropped: [] } as const

const none: SectionsToSend = { names: [], save: () => Promise.reject(new Error('there are none')) }

describe('the predecessor', () => {
  function handing({ readyTimeoutMs = 200, child, sections = none }: { readyTimeoutMs?: number; child?: LaunchedSuccessor['child']; sections?: SectionsToSend } = {}) {
    const { channel, peer } = connected()
    const lifecycle = new Lifecycle(() => undefined)
    lifecycle.move('idle', { is: 'serving' })
    lifecycle.move('serving', { is: 'launching' })
    const stop = new AbortController()
    const stopAccepting = vi.fn(() => [])
    const done = handOver({
      lifecycle, self: { pid: 1, generation: 4 }, readyTimeoutMs, stopped: stop.signal,
      offer: () => ({ listeners: [], fds: [] }), sections, serves: () => 'Process 1 (generation 4) keeps serving.', stopAccepting
    }, { channel, pid: 77, ...(child && { child }) }, performance.now())
    done.catch(() => undefined)
    return { peer, lifecycle, stopAccepting, done, stop }
  }

  it('goes on accepting until it hears that the successor serves, and not a message longer', async () => {
    const { peer, lifecycle, stopAccepting, done } = handing()
    peer.say({ type: 'hello', protocol: 1, pid: 77 })
    expect(await peer.hear('offer')).toMatchObject({ generation: 4, listeners: [] })
    expect(lifecycle.state).toEqual({ is: 'offering', successor: { pid: 77, generation: 5 } })
    peer.say(ready)
    await peer.hear('commit')
    expect(lifecycle.state.is).toBe('committing')
    expect(stopAccepting).not.toHaveBeenCalled()
    peer.say({ type: 'serving' })
    expect(await done).toMatchObject({ successor: { pid: 77, generation: 5 }, ready })
    expect(stopAccepting).toHaveBeenCalledOnce()
    expect(lifecycle.state.is).toBe('draining')
  })

  it('saves nothing more for a successor that is ready without it, as one is that knows nothing of sections', async () => {
    let saved = (_error: Error): void => undefined
    const signals: AbortSignal[] = []
    const save = (_name: string, signal: AbortSignal): Promise<never> => {
      signals.push(signal)
      return new Promise((_, reject) => { saved = reject })
    }
    const { peer, done } = handing({ sections: { names: ['first', 'second'], save } })
    peer.say({ type: 'hello', protocol: 1, pid: 77 })
    await peer.hear('offer')
    peer.say(ready)
    await peer.hear('commit')
    expect(signals.map(({ aborted }) => aborted)).toEqual([true])
    saved(new Error('too late'))
    peer.say({ type: 'serving' })
    await done
    expect(signals).toHaveLength(1)
    expect(peer.heard.map(({ type }) => type)).toEqual(['offer', 'commit'])
  })

  it.each([['it', { v8: '99.1.2' }], ['none, where it said none', {}]])('saves for the V8 that the successor has said: %s', async (_, said: { v8?: string }) => {
    const save = vi.fn((..._: Parameters<SectionsToSend['save']>) => Promise.reject(new Error('no')))
    const { peer, stop } = handing({ sections: { names: ['first'], save } })
    peer.say({ type: 'hello', protocol: 1, pid: 77, ...said })
    await peer.hear('unsaved')
    expect(save).toHaveBeenCalledExactlyOnceWith('first', expect.any(AbortSignal), said.v8)
    stop.abort()
  })

  it.each([['hello', []], ['ready', [{ type: 'hello', protocol: 1, pid: 77 }]]])('gives up at the deadline when it has not heard "%s", and tells the successor', async (_missing, said) => {
    const { peer, lifecycle, stopAccepting, done } = handing({ readyTimeoutMs: 30 })
    for (const message of said) peer.say(message)
    await expect(done).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_TIMEOUT', role: 'predecessor', message: expect.stringMatching(/^process 77 \(generation 5\) did not become ready within 30 ms and was told to end\.\n {2}Process 1 \(generation 4\) keeps serving\.\n {2}Raise readyTimeout/) })
    expect(await peer.hear('withdraw')).toMatchObject({ reason: 'it did not become ready in time' })
    expect(lifecycle.state.is).toBe('serving')
    expect(stopAccepting).not.toHaveBeenCalled()
    await peer.gone()
  })

  it('shares one deadline between hello and ready', async () => {
    const { peer, done } = handing({ readyTimeoutMs: 400 })
    // The second of two deadlines, and a timer of this process: on a slow machine it is as late as they are.
    let second = false
    setTimeout(() => { peer.say({ type: 'hello', protocol: 1, pid: 77 }) }, 300)
    const timer = setTimeout(() => { second = true }, 690)
    await expect(done).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_TIMEOUT' })
    expect(second).toBe(false)
    clearTimeout(timer)
  })

  it('kills a successor that it started and that does not serve within ten seconds of the commit', async () => {
    let end: (ended: { code: null; signal: 'SIGKILL' }) => void = () => undefined
    const child = { ended: new Promise<{ code: null; signal: 'SIGKILL' }>((resolve) => { end = resolve }), stderr: () => 'its last words', kill: vi.fn(() => { end({ code: null, signal: 'SIGKILL' }) }), unref: vi.fn() }
    const { peer, lifecycle, done } = handing({ child })
    peer.say({ type: 'hello', protocol: 1, pid: 77 })
    await peer.hear('offer')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      peer.say(ready)
      await peer.hear('commit')
      await vi.advanceTimersByTimeAsync(9_900)
      expect(lifecycle.state.is).toBe('committing')
      await vi.advanceTimersByTimeAsync(200)
      await expect(done).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_TIMEOUT', stderr: 'its last words', message: expect.stringMatching(/did not serve within 10000 ms and was killed\.\n.+\n.+Generation 5 last wrote to stderr:\n {4}its last words$/) })
    } finally {
      vi.useRealTimers()
    }
    expect(child.kill).toHaveBeenCalled()
    expect(lifecycle.state.is).toBe('serving')
  })

  it.each<[how: string, said: unknown[], code: string]>([
    ['hears a message out of turn', [{ type: 'serving' }], 'HANDOVER_PROTOCOL'],
    ['hears garbage', ['{"type":'], 'HANDOVER_PROTOCOL'],
    ['hears of a failure', [{ type: 'failed', reason: 'no port' }], 'HANDOVER_SUCCESSOR_FAILED'],
    ['hears a version that is two away', [{ type: 'hello', protocol: 3, pid: 77 }], 'HANDOVER_PROTOCOL_VERSION'],
    ['hears "ready" twice', [{ type: 'hello', protocol: 1, pid: 77 }, ready, ready], 'HANDOVER_PROTOCOL']
  ])('takes its offer back when it %s', async (_how, said, code) => {
    const { peer, lifecycle, stopAccepting, done } = handing()
    for (const message of said) peer.say(message)
    await expect(done).rejects.toMatchObject({ code, state: expect.any(String), generation: 4 })
    await peer.hear('withdraw')
    await peer.gone()
    expect(lifecycle.state.is).toBe('serving')
    expect(stopAccepting).not.toHaveBeenCalled()
  })

  it.each([0, 1, 2])('takes its offer back when the successor dies after %i messages', async (count) => {
    const { peer, lifecycle, done } = handing()
    const said = [{ type: 'hello', protocol: 1, pid: 77 }, ready].slice(0, count)
    const answers = ['offer', 'commit'] as const
    for (const [index, message] of said.entries()) {
      peer.say(message)
      await peer.hear(answers[index]!)
    }
    peer.die()
    await expect(done).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT' })
    expect(lifecycle.state.is).toBe('serving')
  })

  it('gives the reload up when it is asked to stop, but not once the commit is out', async () => {
    const given = handing()
    given.stop.abort()
    await expect(given.done).rejects.toMatchObject({ code: 'HANDOVER_STOPPED' })

    const { peer, done, stop } = handing()
    peer.say({ type: 'hello', protocol: 1, pid: 77 })
    peer.say(ready)
    await peer.hear('commit')
    stop.abort()
    peer.say({ type: 'serving' })
    await expect(done).resolves.toMatchObject({ successor: { pid: 77 } })
  })

  it.each<[what: string, act: (peer: Peer) => void, outcome: readonly unknown[]]>([
    ['"settled" is heard, and that connections were taken', (peer) => { peer.say({ type: 'settled' }); peer.say({ type: 'taken', count: 7 }); peer.say({ type: 'peer', name: 'news', text: '[1]' }); peer.say({ type: 'pong' }); peer.say('garbage') }, ['settled', 7, 'news', false, 'garbage']],
    ['the end of the channel is the death of the successor', (peer) => { peer.die() }, ['gone']],
    ['nothing that follows garbage is heard', (peer) => { peer.say('garbage'); peer.say({ type: 'settled' }) }, ['garbage']]
  ])('after the switch: %s', async (_what, act, outcome) => {
    const { channel, peer } = connected()
    const heard: unknown[] = []
    const watched = watchSuccessor(channel, { settled: () => { heard.push('settled') }, taken: (count) => { heard.push(count) }, peer: ({ name }) => { heard.push(name) }, pong: (debugged) => { heard.push(debugged) } })
    act(peer)
    heard.push(await watched)
    expect(heard).toEqual(outcome)
    channel.close()
  })
})

describe('the successor', () => {
  function succeeding() {
    const { channel, peer } = connected()
    const log: string[] = []
    let boot: () => void = () => undefined
    const side: SuccessorSide = {
      hasLeft: () => false,
      prepared: new Promise((resolve) => { boot = () => { resolve(ready) } }),
      serve: () => {
        log.push('serves')
        return undefined
      },
      take: (connections) => Promise.resolve(void log.push(`takes ${connections.length}`)),
      allTaken: async () => undefined,
      section: ({ name, phase }) => { log.push(`section ${name} ${phase}`) },
      unsaved: ({ name, reason }) => { log.push(`unsaved ${name}: ${reason}`) },
      peer: ({ name }) => { log.push(`peer ${name}`) },
      withdrawn: ({ code, message }) => { log.push(`withdrawn: ${code}`); expect(message).toContain('a better one came') },
      predecessorEnded: (report) => { log.push(report ? 'report' : 'no report') }
    }
    const done = succeed(channel, side)
    return { peer, log, done, boot: () => { boot() } }
  }

  it('accepts nothing before the commit, says that it serves after it does, and ends with the report', async () => {
    const { peer, log, done, boot } = succeeding()
    boot()
    await peer.hear('ready')
    expect(log).toEqual([])
    peer.say({ type: 'commit' })
    await peer.hear('serving')
    expect(log).toEqual(['serves'])
    peer.say({ type: 'end', report: exampleReport })
    await done
    expect(log).toEqual(['serves', 'report'])
    await peer.gone()
  })

  it('says nothing at all before it has booted', async () => {
    const { peer, log, boot } = succeeding()
    await new Promise((resolve) => setImmediate(resolve))
    expect([peer.heard, log]).toEqual([[], []])
    boot()
    await peer.hear('ready')
  })

  it.each(['boots', 'is ready'])('ends when the offer is taken back while it %s', async (when) => {
    const { peer, log, done, boot } = succeeding()
    if (when === 'is ready') {
      boot()
      await peer.hear('ready')
    }
    peer.say({ type: 'withdraw', reason: 'a better one came' })
    await done
    expect(log).toEqual(['withdrawn: HANDOVER_WITHDRAWN'])
  })

  it('learns of the death of the predecessor while it boots, and serves alone as soon as it is ready', async () => {
    const { peer, log, done, boot } = succeeding()
    peer.die()
    await vi.waitFor(() => { expect(log).toEqual(['no report']) })
    boot()
    await done
    expect(log).toEqual(['no report', 'serves'])
  })

  it('serves alone when the predecessor dies between ready and commit', async () => {
    const { peer, log, done, boot } = succeeding()
    boot()
    await peer.hear('ready')
    peer.die()
    await done
    expect(log).toEqual(['no report', 'serves'])
  })

  it('serves on when the predecessor dies after the commit', async () => {
    const { peer, log, done, boot } = succeeding()
    boot()
    await peer.hear('ready')
    peer.say({ type: 'commit' })
    await peer.hear('serving')
    peer.die()
    await done
    expect(log).toEqual(['serves', 'no report'])
  })

  it('trusts a predecessor that sends garbage no more, and serves alone', async () => {
    const { peer, log, done, boot } = succeeding()
    boot()
    await peer.hear('ready')
    peer.say('garbage')
    await done
    expect(log).toEqual(['no report', 'serves'])
  })
})

describe('the first contact of a successor', () => {
  let contact: BlockingChannel
  let peer: { messages: number; descriptors: number }
  beforeEach(() => {
    const [messages, theirs] = socketPair()
    const [descriptors, theirDescriptors] = socketPair()
    contact = new BlockingChannel(messages, descriptors)
    peer = { messages: theirs, descriptors: theirDescriptors }
  })

  /** All that the predecessor will ever say is there before the successor asks, since its side is synchronous. */
  const says = (...lines: string[]): void => { for (const line of lines) writeSync(peer.messages, `${line}\n`) }

  const hangUp = (): void => {
    closeSync(peer.messages)
    closeSync(peer.descriptors)
  }

  /** What the successor has said; the predecessor hangs up. */
  const heard = (): unknown[] => {
    const buffer = Buffer.alloc(65_536)
    const text = buffer.toString('utf8', 0, readSync(peer.messages, buffer))
    hangUp()
    return text.trim().split('\n').map((line) => JSON.parse(line) as unknown)
  }

  const offer = (listeners: unknown[] = [], protocol = 1): string => JSON.stringify({ type: 'offer', protocol, pid: 1, generation: 3, listeners })
  const listener = { name: 'tcp 127.0.0.1:9', kind: 'tcp', asked: 'tcp 127.0.0.1:9', address: '127.0.0.1', port: 9, ipv6: false, ipv6Only: false, backlog: 511 }

  it.each<[what: string, line: string, code: string, message: RegExp]>([
    ['a refusal', '{"type":"refused","code":"HANDOVER_RELOAD_RUNNING","reason":"a reload already runs"}', 'HANDOVER_REFUSED', /a reload already runs \(HANDOVER_RELOAD_RUNNING\)/],
    ['a withdrawal', '{"type":"withdraw","reason":"this process speaks protocol 3, process 2 speaks 1"}', 'HANDOVER_WITHDRAWN', /protocol 3, process 2 speaks 1/],
    ['an offer two versions away', offer([], 3), 'HANDOVER_PROTOCOL_VERSION', /this process speaks protocol 1, process 1 speaks 3/],
    ['a message out of turn', '{"type":"commit"}', 'HANDOVER_PROTOCOL', /expected "offer", found "commit"/],
    ['garbage', 'garbage', 'HANDOVER_PROTOCOL', /found "garbage"/],
    ['descriptors that never came', offer([listener]), 'HANDOVER_PROTOCOL', /expected 1 descriptors, found 0/]
  ])('meets %s with an error, and tells the predecessor', (_what, line, code, message) => {
    says(line)
    expect(() => takeOffer(contact, new ListenerRegistry(), 1_000)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) })
    )
    expect(heard()).toMatchObject([{ type: 'hello', protocol: 1, pid: process.pid }, { type: 'failed', reason: expect.stringMatching(message) }])
  })

  it('gives up at its deadline when the predecessor says nothing', () => {
    expect(() => takeOffer(contact, new ListenerRegistry(), 30)).toThrow(expect.objectContaining({ code: 'HANDOVER_PREDECESSOR_SILENT', message: expect.stringContaining('no offer within 30 ms') }))
    expect(heard()).toMatchObject([{ type: 'hello' }, { type: 'failed' }])
  })

  it('takes nothing from a predecessor that is dead', () => {
    hangUp()
    expect(takeOffer(contact, new ListenerRegistry(), 1_000)).toBeUndefined()
  })

  it('hears the refusal of a predecessor that has already hung up', () => {
    says('{"type":"refused","code":"HANDOVER_NOT_SERVING","reason":"it drains"}')
    hangUp()
    expect(() => takeOffer(contact, new ListenerRegistry(), 1_000)).toThrow(expect.objectContaining({ code: 'HANDOVER_REFUSED' }))
  })

  it('refuses a descriptor that is not the listener that the offer says, and closes it', () => {
    const [wrong, other] = socketPair()
    native!.sendMessage(peer.descriptors, new Uint8Array(1), [wrong])
    closeSync(wrong)
    says(offer([listener]))
    expect(() => takeOffer(contact, new ListenerRegistry(), 1_000)).toThrow(expect.objectContaining({ code: 'HANDOVER_LISTENER_MISMATCH', message: expect.stringMatching(/"tcp 127\.0\.0\.1:9" is a socket that does not listen/) }))
    expect(heard()).toMatchObject([{ type: 'hello' }, { type: 'failed' }])
    // Its last copy was the successor's.
    expect(native!.pollReadable(other, 0)).toBe(1)
    closeSync(other)
  })
})
