/**
 * What goes wrong while connections move, in real processes: either side is killed, stopped, suspended or out of descriptors in the middle
 * of it. Only what a successor has acknowledged can be gone with it; everything else is served by whoever lives.
 */

import { closeSync, readFileSync } from 'node:fs'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { describe, expect, it } from 'vitest'
import type { Report } from '@handover/core'
import { socketPair } from '@handover/core/fd'
import { native } from '../helpers/internals.js'
import { KeptConnection, Scene, answersOf, holdsListener, nothingIsWritten, resultOf, type SceneOptions } from '../helpers/invariants.js'
import { Program, descriptorsOf, programPath, waitFor, type ProgramEvent } from '../helpers/program.js'

/** A drain does not end before its undo window. */
const brief = { undoWindow: 1_500, drainTimeout: 40_000 }
const wide = { ...brief, undoWindow: 30_000 }

/** One descriptor left by each reload is seen after any number of them. */
const many = Math.min(30, 2 * Number(process.env['HANDOVER_TEST_RELOADS'] ?? 15))

/** A first generation with idle connections whose successor will behave like this. */
async function idle(count: number, behaviour: string, options: SceneOptions = {}): Promise<{
  scene: Scene; first: number; clients: KeptConnection[]
}> {
  const scene = await Scene.start({ options: brief, ...options })
  const clients = await KeptConnection.open(count, scene.targets[0]!)
  scene.behave(behaviour)
  return { scene, first: scene.program.pid, clients }
}

const reportOf = (event: ProgramEvent): Report => event['report'] as Report
const successorOf = (event: ProgramEvent): number => reportOf(event).successor!.pid

/** The last report of a process. */
async function ended(scene: Scene, pid: number): Promise<Report> {
  return reportOf(await scene.event('report', (event) => event.pid === pid && resultOf(event) === 'drained'))
}

/** A process that suspends itself says so first. */
async function suspended(pid: number): Promise<void> {
  await waitFor(() => /^State:\tT/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')))
}

/** It has done all that it can for now: it waits, at five looks in a row. */
async function quiet(pid: number): Promise<void> {
  let looks = 0
  await waitFor(() => (looks = /^State:\tS/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')) ? looks + 1 : 0) >= 5)
}

const open = (clients: readonly KeptConnection[]): KeptConnection[] =>
  clients.filter(({ closed, toldToGo }) => closed === undefined && !toldToGo)
const noneLost = (clients: readonly KeptConnection[]): void => { expect(clients.filter(({ lost }) => lost).length).toBe(0) }

describe('a successor that is killed in the middle', () => {
  it('takes with it what it had acknowledged and nothing else: the rest is served by the predecessor, which accepts again and can reload', async () => {
    const { scene, first, clients } = await idle(2_000, 'at-adopted:500:kill', { options: wide })
    await using _ = scene
    process.kill(first, 'SIGHUP')
    const undone = reportOf(await scene.event('report', (event) => resultOf(event) === 'undone'))
    const { moved } = undone.connections
    // Of the message that it died in it had acknowledged none.
    expect(moved).toBeGreaterThanOrEqual(500 - 64)
    // One message was acknowledged before all of it was adopted.
    expect(moved).toBeLessThanOrEqual(500 + 63)
    expect((await scene.event('failed'))['message']).toMatch(new RegExp(`and ${moved} that had moved to it, are gone`))
    await waitFor(() => open(clients).length <= 2_000 - moved)
    const left = open(clients)
    expect(await answersOf(left)).toEqual({ [first]: 2_000 - moved })
    expect(left.some(({ toldToGo }) => toldToGo), 'no answer says that its connection ends').toBe(false)
    expect(await scene.answering()).toBe(first)

    const third = await scene.reload(first)
    await waitFor(async () => (await answersOf(left))[third] === 2_000 - moved)
  })

  it('takes no more with it outside of the undo window: the predecessor answers the rest, says that it ends, and closes the idle late', async () => {
    const { scene, first, clients } = await idle(1_000, 'at-adopted:300:kill', { options: { undoWindow: 0, drainTimeout: 20_000, linger: 3_000 } })
    await using _ = scene
    const slow = await KeptConnection.open(20, scene.targets[0]!)
    const answers = answersOf(slow, '/slow?ms=1500')
    await scene.hangUp(first)
    await scene.event('adopted')
    await waitFor(() => open(clients).length < 1_000)
    const last = clients.slice(-200)
    expect(await answersOf(last)).toEqual({ [first]: 200 })
    // The first of them may have come before the predecessor knew.
    await answersOf(last)
    expect(last.every(({ toldToGo }) => toldToGo)).toBe(true)
    expect(await answers).toEqual({ [first]: 20 })
    const report = await ended(scene, first)
    expect(report.connections.moved).toBeGreaterThanOrEqual(300 - 64)
    expect(report.connections.moved).toBeLessThanOrEqual(363)
    expect(report.connections).toMatchObject({ cut: 0, stayed: { 'the successor ended': 1_020 - report.connections.moved } })
    noneLost([...clients, ...slow])
    expect(await scene.program.ended).toEqual({ code: 0, signal: null })
  })
})

describe.concurrent('a successor that does not answer for a while', () => {
  it.each(['suspend', 'block'])('loses nothing (%s)', async (how) => {
    const { scene, first, clients } = await idle(1_000, `at-adopted:300:${how}`)
    await using _ = scene
    await scene.hangUp(first)
    const { pid: second } = await scene.event('adopted')
    if (how === 'suspend') {
      await suspended(second)
      const answers = answersOf(clients.slice(0, 300))
      expect(scene.events.some(({ event }) => event === 'failed')).toBe(false)
      process.kill(second, 'SIGCONT')
      expect(await answers).toEqual({ [second]: 300 })
    }
    expect((await ended(scene, first)).connections).toMatchObject({ moved: 1_000, drained: 0, closedIdle: 0, cut: 0 })
    expect(await answersOf(clients)).toEqual({ [second]: 1_000 })
  })

  it('takes what was on its way also when the predecessor has ended meanwhile', async () => {
    const { scene, first, clients } = await idle(150, 'at-adopted:1:suspend', { options: { undoWindow: 0, drainTimeout: 2_000 } })
    await using _ = scene
    await scene.hangUp(first)
    const { pid: second } = await scene.event('adopted')
    await suspended(second)
    expect((await ended(scene, first)).connections).toMatchObject({ moved: 150, cut: 0 })
    await scene.program.ended
    process.kill(second, 'SIGCONT')
    expect(await answersOf(clients)).toEqual({ [second]: 150 })
  })
})

describe('a predecessor that is killed in the middle', () => {
  it('leaves to the successor what had been sent, acknowledged or not', async () => {
    const { scene, first, clients } = await idle(1_000, '')
    await using _ = scene
    scene.behave(`at-adopted:300:kills:${first}`)
    process.kill(first, 'SIGHUP')
    const { pid: second } = await scene.event('adopted')
    await scene.program.ended
    await scene.until(() => /the predecessor ended without a report/.test(scene.stderr))
    const counts = await answersOf(clients)
    expect(Object.keys(counts).sort()).toEqual([String(second), 'closed'].sort())
    expect(counts[second]!).toBeGreaterThanOrEqual(300)
    noneLost(clients.filter(({ closed }) => closed === undefined))
    expect(await scene.answering()).toBe(second)
    const third = await scene.reload(second)
    await ended(scene, second)
    expect(await answersOf(open(clients))).toEqual({ [third]: counts[second] })
  })
})

describe.concurrent('descriptors that run out', () => {
  const stays = { options: { ...brief, linger: 3_000 } }

  /** Those that stay are answered, told to go, and closed when they are idle; then new clients are served. */
  async function politely(scene: Scene, clients: readonly KeptConnection[], first: number, second: number): Promise<Report> {
    const counts = await answersOf(clients)
    expect(counts['closed']).toBeUndefined()
    expect((counts[first] ?? 0) + (counts[second] ?? 0)).toBe(clients.length)
    const report = await ended(scene, first)
    // The report is here before the last ends of connections are.
    await waitFor(() => open(clients).length <= report.connections.moved)
    noneLost(clients)
    expect(report.connections.cut).toBe(0)
    expect(report.connections.moved).toBe(open(clients).length)
    const late = await KeptConnection.open(5, scene.targets[0]!)
    expect(await answersOf(late)).toEqual({ [second]: 5 })
    expect(await answersOf(open(clients))).toEqual(report.connections.moved > 0 ? { [second]: report.connections.moved } : {})
    return report
  }

  it('a successor with less room than there are connections gets as many as it has room for, and the report says so', async () => {
    const { scene, first, clients } = await idle(300, 'limit:180', stays)
    await using _ = scene
    const second = successorOf(await scene.hangUp(first))
    const { connections } = await politely(scene, clients, first, second)
    expect(connections.moved).toBeGreaterThan(50)
    expect(connections.stayed).toEqual({ 'the successor has no room for more descriptors': 300 - connections.moved })
  })

  it('a successor whose limit falls below what it said takes what it can and keeps some for its clients', async () => {
    const { scene, first, clients } = await idle(300, 'late-limit:100', stays)
    await using _ = scene
    const second = successorOf(await scene.hangUp(first))
    const { connections } = await politely(scene, clients, first, second)
    expect(connections.moved).toBeGreaterThan(20)
    expect(connections.moved).toBeLessThanOrEqual(100)
    const [reason] = Object.keys(connections.stayed)
    expect(reason).toMatch(/^the successor (ran out of descriptors|takes no more)$/)
  })

  it('a successor into which not even one message of descriptors fits closes none, and serves with those that it has', async () => {
    const { scene, first, clients } = await idle(300, 'late-limit:12', stays)
    await using _ = scene
    const second = successorOf(await scene.hangUp(first))
    const { connections } = await politely(scene, clients, first, second)
    expect(connections.moved).toBeLessThanOrEqual(12)
    expect(Object.values(connections.stayed)).toEqual([300 - connections.moved])
  })

  it('a predecessor without a single one to spare moves all its connections', async () => {
    const { scene, first, clients } = await idle(300, 'ok', { behaviour: 'limit-at:draining', ...stays })
    await using _ = scene
    const second = successorOf(await scene.hangUp(first))
    expect((await ended(scene, first)).connections).toMatchObject({ moved: 300, drained: 0, closedIdle: 0 })
    expect(await answersOf(clients)).toEqual({ [second]: 300 })
  })
})

describe('reloads on each other\'s heels', () => {
  it.each([2, 5])('%i of them without waiting, while requests run that outlive the generations between: connections hop to the last, none is lost or closed', async (reloads) => {
    await using scene = await Scene.start({ options: { undoWindow: 100, drainTimeout: 60_000 } })
    const clients = await KeptConnection.open(200, scene.targets[0]!)
    const long = await KeptConnection.open(30, scene.targets[0]!)
    const busy = await KeptConnection.open(20, scene.targets[0]!)
    let over = false
    const traffic = Promise.all(busy.map(async (client) => { while (!over) expect(await client.ask('/slow?ms=40')).not.toBe('closed') }))
    for (const client of long) client.begin()
    const first = scene.program.pid
    const generations = [first]
    for (let reload = 0; reload < reloads; reload++) generations.push(await scene.reload(generations.at(-1)!))
    const last = generations.at(-1)!
    // Those between have passed on all that they had, and closed their listeners: now comes what they still wait for.
    const { port } = scene.targets[0] as { port: number }
    for (const pid of generations.slice(1, -1)) await waitFor(() => !holdsListener(pid, port))
    await waitFor(async () => (await answersOf(clients))[last] === 200)
    expect(new Set(await Promise.all(long.map((client) => client.finish())))).toEqual(new Set([first]))
    await waitFor(() => scene.alive.length === 1)
    over = true
    await traffic
    expect(await answersOf([...clients, ...long, ...busy])).toEqual({ [last]: 250 })
    for (const event of scene.events.filter((each) => resultOf(each) === 'drained')) {
      expect(reportOf(event).connections).toMatchObject({ drained: 0, closedIdle: 0, cut: 0, stayed: {} })
    }
  })

  it(`${many} of them with idle connections leave no descriptor and no process behind`, async () => {
    await using scene = await Scene.start({ options: { undoWindow: 20 } })
    const clients = await KeptConnection.open(200, scene.targets[0]!)
    let serving = await scene.reload(scene.program.pid)
    await waitFor(() => scene.alive.length === 1)
    await waitFor(() => descriptorsOf(serving).size < 260)
    await nothingIsWritten(serving)
    const before = descriptorsOf(serving).size
    for (let reload = 0; reload < many; reload++) serving = await scene.reload(serving)
    await waitFor(() => scene.alive.length === 1)
    // The first of them may have had one more, which it was about to close.
    await waitFor(() => descriptorsOf(serving).size <= before, 20_000).catch(() => undefined)
    expect(descriptorsOf(serving).size).toBeLessThanOrEqual(before)
    expect(await answersOf(clients)).toEqual({ [serving]: 200 })
  })
})

describe.concurrent('a stop in the middle', () => {
  it.each(['term', 'stop'])('of the successor (%s): what it has and what the predecessor keeps is answered and told to go, nothing is reset', async (how) => {
    const { scene, first, clients } = await idle(600, `at-adopted:200:${how}`, { options: { ...brief, linger: 4_000 } })
    await using _ = scene
    const slow = await KeptConnection.open(20, scene.targets[0]!)
    const answers = answersOf(slow, '/slow?ms=1000')
    await scene.hangUp(first)
    const { pid: second } = await scene.event('adopted')
    await scene.state('draining', ({ pid }) => pid === second)
    const counts = await answersOf(clients)
    expect(counts['closed']).toBeUndefined()
    expect((counts[first] ?? 0) + counts[second]!).toBe(600)
    expect(counts[second]!).toBeGreaterThanOrEqual(200)
    expect(await answers).toEqual({ [first]: 20 })
    await waitFor(() => scene.alive.length === 0)
    noneLost([...clients, ...slow])
    expect([...clients, ...slow].some(({ closed }) => closed === 'reset')).toBe(false)
    expect((await ended(scene, first)).connections.stayed).toEqual({ 'the successor takes no more': 620 - counts[second]! })
    expect(scene.events.some(({ event }) => event === 'failed')).toBe(false)
  })

  it('of the predecessor: it goes on until all have moved', async () => {
    const { scene, first, clients } = await idle(600, 'at-adopted:200:block')
    await using _ = scene
    process.kill(first, 'SIGHUP')
    const { pid: second } = await scene.event('adopted')
    process.kill(first, 'SIGTERM')
    expect((await ended(scene, first)).connections).toMatchObject({ moved: 600, closedIdle: 0 })
    expect(await scene.program.ended).toEqual({ code: 0, signal: null })
    expect(await answersOf(clients)).toEqual({ [second]: 600 })
  })

  it('of the predecessor, twice: it ends at once, and what it had sent is served', async () => {
    const { scene, first, clients } = await idle(600, 'at-adopted:200:suspend')
    await using _ = scene
    process.kill(first, 'SIGHUP')
    const { pid: second } = await scene.event('adopted')
    await suspended(second)
    // On a busy machine it may not have read the last answers yet, nor sent what these make room for.
    await quiet(first)
    // Two of one kind that have not been handled are one.
    process.kill(first, 'SIGTERM')
    process.kill(first, 'SIGINT')
    await scene.program.stderrMatching(/ends at once on SIG(TERM|INT)/)
    expect([130, 143]).toContain((await scene.program.ended).code)
    process.kill(second, 'SIGCONT')
    const counts = await answersOf(clients)
    // Of a message of 64 at most, whose last one was the 200th, none was acknowledged; 256 more were on their way.
    expect(counts[second]!).toBeGreaterThanOrEqual(200 - 64 + 256)
    expect(counts[second]! + (counts['closed'] ?? 0)).toBe(600)
  })
})

describe('the other side', () => {
  it('that says nothing of what it takes gets no connection, and all are drained politely', async () => {
    const { scene, first, clients } = await idle(100, `fake ${JSON.stringify({ until: 'serving', then: 'wait' })}`, { options: { ...brief, linger: 2_000 } })
    await using _ = scene
    await scene.hangUp(first)
    expect(await answersOf(clients.slice(0, 50))).toEqual({ [first]: 50 })
    expect(clients.slice(0, 50).every(({ toldToGo }) => toldToGo)).toBe(true)
    const { connections } = await ended(scene, first)
    expect(connections).toMatchObject({ moved: 0, cut: 0, drained: 50, closedIdle: 50, stayed: { 'not taken by the successor': 100 } })
    noneLost(clients)
  })

  it('that moves what it should not, as predecessor: each is closed or given back and said, and the others are served', async () => {
    const listener = net.createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => listener.once('listening', resolve))
    const { port } = listener.address() as net.AddressInfo
    const name = `tcp 127.0.0.1:${port}`
    const [messages, theirs] = socketPair()
    const [descriptors, theirDescriptors] = socketPair()
    await using program = Program.start(programPath('server.mjs'), { env: { HANDOVER_SUCCESSOR: '3,4', LISTEN: `127.0.0.1:${port}` }, descriptors: { 3: theirs, 4: theirDescriptors } })
    for (const fd of [theirs, theirDescriptors]) closeSync(fd)
    const socket = new net.Socket({ fd: messages }).on('error', () => undefined)
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]()
    const hear = async (type: string): Promise<Record<string, unknown>> => {
      for (;;) {
        const line = await lines.next()
        const message = JSON.parse(String(line.value)) as Record<string, unknown>
        // It wants to know what its predecessor has counted.
        if (message['type'] === 'peer' && type !== 'peer') continue
        expect(message['type']).toBe(type)
        return message
      }
    }
    const say = (message: unknown): void => { socket.write(`${JSON.stringify(message)}\n`) }
    await hear('hello')
    native!.sendMessage(descriptors, new Uint8Array(1), [(listener as unknown as { _handle: { fd: number } })._handle.fd])
    say({ type: 'offer', protocol: 1, pid: process.pid, generation: 1, listeners: [{ name, kind: 'tcp', asked: name, address: '127.0.0.1', port, ipv6: false, ipv6Only: false, backlog: 511 }] })
    await hear('ready')
    say({ type: 'commit' })
    expect((await hear('serving'))['takes']).toMatchObject({ listeners: [name] })
    listener.close()

    const usual = { kind: 'http', listener: name, ageMs: 10, idleMs: 5, requests: 1 }
    /** Sends as many descriptors as `sent` says; answers what is said to it, and the clients' ends. */
    async function move(connections: readonly unknown[], sent = connections.length): Promise<{ taken: unknown; clients: number[] }> {
      const pairs = Array.from({ length: sent }, () => socketPair())
      if (sent > 0) native!.sendMessage(descriptors, new Uint8Array(1), pairs.map(([fd]) => fd))
      say({ type: 'move', connections })
      const { count } = await hear('taken')
      for (const [fd] of pairs) closeSync(fd)
      return { taken: count, clients: pairs.map(([, other]) => other) }
    }
    const answer = async (fd: number): Promise<string> => {
      const client = new net.Socket({ fd }).on('error', () => undefined)
      client.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
      return Buffer.concat(await client.toArray().catch(() => [])).toString().slice(0, 12)
    }
    const served = async (clients: readonly number[]): Promise<string[]> => await Promise.all(clients.map(answer))

    for (const [about, says] of [
      [{ ...usual, kind: 'nobody knows' }, /no onMoved\(\) takes connections of this kind/],
      [{ ...usual, kind: 'nobody knows', state: '[[[', unread: '%%%' }, /no onMoved\(\) takes connections of this kind/],
      [{ ...usual, listener: 'tcp 127.0.0.1:1' }, /nothing listens as "tcp 127\.0\.0\.1:1"/]
    ] as const) {
      const { taken, clients } = await move([about, usual])
      expect(taken).toBe(2)
      expect(await served(clients)).toEqual(['', 'HTTP/1.1 200'])
      expect(program.stderr).toMatch(says)
    }
    const fewer = await move([usual, usual, usual], 2)
    expect([fewer.taken, await served(fewer.clients)]).toEqual([2, ['HTTP/1.1 200', 'HTTP/1.1 200']])
    expect((await move([usual], 0)).taken).toBe(0)
    const more = await move([usual], 3)
    expect([more.taken, await served(more.clients)]).toEqual([1, ['HTTP/1.1 200', '', '']])

    say({ type: 'move', connections: 'none' })
    await program.stderrMatching(/the predecessor ended without a report\. Process \d+ \(generation 2\) keeps serving/)
    const [late] = await KeptConnection.open(1, { host: '127.0.0.1', port })
    expect(await late!.ask()).toBe(program.pid)
    late!.destroy()
    socket.destroy()
    closeSync(descriptors)
  })
})
