/** Who calls on the control socket and does not keep to the protocol: the process that serves goes on, whatever the caller does. */

import { once } from 'node:events'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Scene, aFailedReloadChangesNothing, isAsBefore, settled } from '../helpers/invariants.js'

let scene: Scene
let serving: number

beforeAll(async () => {
  scene = await Scene.start({ options: { undoWindow: 100, readyTimeout: 6_000 } })
  serving = scene.program.pid
})
afterAll(async () => { await scene[Symbol.asyncDispose]() })

const token = '0123456789abcdef0123456789abcdef'

/** A caller by hand: two connections, of which the second one would carry the descriptors. */
class Caller {
  readonly messages: net.Socket
  readonly descriptors: net.Socket
  readonly #lines: AsyncIterator<string>

  private constructor(messages: net.Socket, descriptors: net.Socket) {
    this.messages = messages
    this.descriptors = descriptors
    this.#lines = createInterface({ input: messages })[Symbol.asyncIterator]()
  }

  static async connect(): Promise<Caller> {
    const sockets = [net.connect(scene.controlSocket), net.connect(scene.controlSocket)] as const
    for (const socket of sockets) socket.on('error', () => undefined)
    await Promise.all(sockets.map(async (socket) => { await once(socket, 'connect') }))
    return new Caller(...sockets)
  }

  static async greeted(): Promise<Caller> {
    const caller = await Caller.connect()
    caller.descriptors.write(`${JSON.stringify({ type: 'descriptors', token })}\n`)
    caller.say({ type: 'messages', token })
    return caller
  }

  say(message: unknown): void {
    this.messages.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`)
  }

  async hear(): Promise<{ readonly type: string; readonly reason?: string; readonly listeners?: readonly { name: string }[] } | undefined> {
    const { value, done } = await this.#lines.next()
    return done ? undefined : JSON.parse(value) as { type: string }
  }

  hangUp(): void {
    this.messages.destroy()
    this.descriptors.destroy()
  }
}

const hello = { type: 'hello', protocol: 1, pid: 1 }
/** It keeps whatever is offered. */
const ready = { type: 'ready', kept: [] as readonly string[], added: [], dropped: [] }
const states = () => scene.events.filter(({ event, pid }) => event === 'state' && pid === serving)
const launches = (): number => states().filter(({ to }) => to === 'launching').length
const failure = async () => {
  const { length } = scene.events
  return await scene.until(() => scene.events.slice(length).find(({ event }) => event === 'failed'))
}

describe('a caller', () => {
  it.each<[until: string, said: readonly unknown[]]>([['its greeting', []], ['"hello"', [hello]], ['"ready"', [hello, ready]]])('that hangs up after %s changes nothing', async (_until, said) => {
    serving = await aFailedReloadChangesNothing(scene, serving, { code: 'HANDOVER_SUCCESSOR_EXIT', says: /ended before it (was ready|served)/ }, async () => {
      const failed = failure()
      const begun = launches()
      const caller = await Caller.greeted()
      await scene.until(() => launches() > begun)
      const answers = ['offer', 'commit']
      let kept: readonly string[] = []
      for (const message of said) {
        caller.say(message === ready ? { ...ready, kept } : message)
        const answer = await caller.hear()
        expect(answer).toMatchObject({ type: answers.shift() })
        kept = answer?.listeners?.map(({ name }) => name) ?? []
      }
      caller.hangUp()
      return await failed
    })
  })

  it('that speaks a protocol two versions ahead is told both versions', async () => {
    serving = await aFailedReloadChangesNothing(scene, serving, { code: 'HANDOVER_PROTOCOL_VERSION', says: /protocol 1, process 1 speaks 3/ }, async () => {
      const failed = failure()
      const caller = await Caller.greeted()
      caller.say({ ...hello, protocol: 3 })
      expect(await caller.hear()).toMatchObject({ type: 'withdraw', reason: 'this process speaks protocol 1, process 1 speaks 3' })
      expect(await caller.hear()).toBeUndefined()
      return await failed
    })
  })

  it('that is not ready in time is told to end, and is heard no more', async () => {
    serving = await aFailedReloadChangesNothing(scene, serving, { code: 'HANDOVER_SUCCESSOR_TIMEOUT', says: /within 6000 ms and was told to end/ }, async () => {
      const failed = failure()
      const caller = await Caller.greeted()
      caller.say(hello)
      expect(await caller.hear()).toMatchObject({ type: 'offer' })
      expect(await caller.hear()).toMatchObject({ type: 'withdraw', reason: 'it did not become ready in time' })
      expect(await caller.hear()).toBeUndefined()
      return await failed
    })
  })

  it.each<[how: string, line: string]>([
    ['with garbage', 'GET / HTTP/1.1'],
    ['without a token', '{"type":"messages"}'],
    ['with a token of its own making', '{"type":"messages","token":"../../../etc/passwd"}'],
    ['with a line that does not end', 'x'.repeat(5_000)]
  ])('that begins %s is told what is expected, and no reload begins', async (_how, line) => {
    const before = await settled(scene, serving)
    const { length } = states()
    const caller = await Caller.connect()
    caller.say(line)
    expect(await caller.hear()).toMatchObject({ type: 'refused', code: 'HANDOVER_PROTOCOL', reason: expect.stringContaining('the first line must be') })
    caller.hangUp()
    await isAsBefore(scene, before)
    expect(states()).toHaveLength(length)
    expect(await scene.answering()).toBe(serving)
  })

  it('that connects a hundred times and says nothing leaves nothing behind', async () => {
    const before = await settled(scene, serving)
    const strangers = await Promise.all(Array.from({ length: 50 }, async () => await Caller.connect()))
    expect(await scene.answering()).toBe(serving)
    for (const stranger of strangers) stranger.hangUp()
    await isAsBefore(scene, before)
    serving = await scene.reload(serving)
  })

  it('that greets again and again with one of its two connections is refused, and leaves nothing behind', async () => {
    const before = await settled(scene, serving)
    const callers: Caller[] = []
    const reasons: (string | undefined)[] = []
    const greet = async (word: string): Promise<void> => {
      const caller = await Caller.connect()
      callers.push(caller)
      caller.descriptors.destroy()
      caller.say({ type: 'messages', token: word })
      void caller.hear().then((answer) => { if (answer) reasons.push(answer.reason) })
      // The caller was heard by then.
      await scene.answering()
    }
    await greet(token)
    await greet(token)
    for (let count = 1; count <= 70; count++) await greet(token.slice(8) + String(10_000_000 + count))
    const [first, ...others] = await scene.until(() => reasons.length >= 8 && reasons)
    expect(first).toBe('"messages" has come with this token already')
    expect(others).toEqual(Array.from({ length: 7 }, () => '64 others have connected once, and not twice'))
    for (const caller of callers) caller.hangUp()
    await isAsBefore(scene, before)
    serving = await scene.reload(serving)
  })
})
