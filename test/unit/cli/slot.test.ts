/**
 * A slot of the keeper and its workers, in one process: the far ends of the lines and of the channels are the test's. Each test leads the
 * slot some way through its states; together they take every move of its table.
 */

import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { addon, openChannel, openPairs, type Channel, type Peer, type ProcessStatus, type Report } from '@handover/core/internal'
import { FarEnd, Files } from '../../helpers/line.js'
import { waitFor } from '../../helpers/program.js'
import {
  CheckpointStore, CountStore, handoverMessages, keeperMessages, ListenerMembers, Slot, SlotLifecycle, slotMoves, workerMessages,
  type KeeperMessage, type SlotSide, type SlotStateName, type Worker, type WorkerMessage, type WorkerSide
} from '../../helpers/internals.js'

/** Every move of all tests. */
const taken = new Set<string>()

const demands = { allowDrop: false, withoutState: false, probe: undefined }

/** A process that the slot has started. */
class FakeProcess {
  readonly line: FarEnd
  readonly channel: Channel
  readonly started: { readonly messages: number; readonly descriptors: number }

  constructor(side: WorkerSide) {
    this.line = new FarEnd(side)
    const [[messages, theirs], [descriptors, theirDescriptors]] = openPairs(addon(), false)
    this.started = { messages, descriptors }
    this.channel = openChannel(theirs, theirDescriptors, handoverMessages)
  }

  get worker(): Worker {
    return this.line.worker
  }

  async ends(): Promise<void> {
    this.channel.close()
    await this.line.ends(this.worker.retiring)
  }

  /** Takes the offer of the keeper, and serves. */
  async takesOffer(): Promise<void> {
    this.channel.send({ type: 'hello', protocol: 1, pid: this.worker.pid })
    expect((await this.channel.receive())?.message.type).toBe('offer')
    this.channel.send({ type: 'ready', kept: [], added: [], dropped: [] })
    expect((await this.channel.receive())?.message.type).toBe('commit')
    await this.line.is('serving')
    this.channel.send({ type: 'serving' })
  }

  /** The names of the sections that it is offered. */
  async offered(): Promise<readonly string[] | undefined> {
    this.channel.send({ type: 'hello', protocol: 1, pid: this.worker.pid })
    const { message } = (await this.channel.receive())!
    return message.type === 'offer' ? message.sections : undefined
  }

  async hears(type: string): Promise<void> {
    await waitFor(() => this.line.said.some((word) => word.type === type))
  }
}

let moves: SlotStateName[]
let processes: FakeProcess[]
/** Pids of workers. */
let crashes: number[]
let lefts: number[]
let lost: number[]
/** For the second worker that is started; the others have time. */
let secondReadyTimeoutMs: number

function makeSlot(): Slot {
  const warn = (): void => undefined
  const side: Partial<SlotSide> = {
    name: 'shop',
    members: new ListenerMembers(),
    files: { paths: [], hold: () => () => undefined } as unknown as SlotSide['files'],
    checkpoints: new CheckpointStore(warn),
    counts: new CountStore({ workers: () => [], heirs: () => [], warn }),
    since: () => undefined,
    env: {},
    command: () => ({ file: 'node', args: [], cwd: '/', notes: [] }),
    readyTimeoutMs: () => (processes.length === 2 ? secondReadyTimeoutMs : 30_000),
    nobodyServes: () => Promise.resolve(true),
    hasServer: () => false,
    serves: () => 'Nobody serves.',
    changed: () => undefined,
    crashed: (worker) => { crashes.push(worker.pid) },
    diedHandingOver: (from) => { lost.push(from.pid) },
    left: (worker) => { lefts.push(worker.pid) },
    leaving: () => false,
    report: () => undefined,
    warn
  }
  return new Slot(0, side as SlotSide, (_command, _env, _slot, _name, workerSide) => {
    const process = new FakeProcess(workerSide)
    processes.push(process)
    const child = { ended: process.worker.ended, stderr: () => '', kill: () => { void process.ends() }, unref: () => undefined }
    return Promise.resolve({ worker: process.worker, started: { ...process.started, pid: process.worker.pid, child } })
  })
}

/** The process that the slot starts next. */
async function started(count = processes.length + 1): Promise<FakeProcess> {
  await waitFor(() => processes.length === count)
  return processes[count - 1]!
}

/** A slot whose worker serves. */
async function serving(): Promise<{ slot: Slot; from: FakeProcess }> {
  const slot = makeSlot()
  const start = slot.start()
  const from = await started(processes.length || 1)
  await from.takesOffer()
  await start
  return { slot, from }
}

/** A slot whose worker has begun to hand over. */
async function handingOver(): Promise<{ slot: Slot; from: FakeProcess; to: FakeProcess; replaced: ReturnType<Slot['replace']> }> {
  const { slot, from } = await serving()
  const replaced = slot.replace(demands)
  replaced.catch(() => undefined)
  await from.hears('reload')
  await from.line.is('launching')
  return { slot, from, to: processes.at(-1)!, replaced }
}

function switchedReport(predecessor: Peer, successor: Peer): Report {
  const counts = { moved: 0, drained: 0, closedIdle: 0, cut: 0 }
  return {
    result: 'switched', trigger: 'call', predecessor, successor, requestsCut: [],
    listeners: { kept: [], added: [], dropped: [] },
    state: { restored: [], unclaimed: [], failed: [] },
    connections: { ...counts, open: 0, kinds: {}, stayed: {} },
    durations: { launch: 1, prepare: 1, commit: 1, move: null, drain: null }
  }
}

/** A slot that has handed over, and may be told to undo that. */
async function undoable(): Promise<{ slot: Slot; from: FakeProcess; to: FakeProcess; replacement: Awaited<ReturnType<Slot['replace']>> }> {
  const { slot, from, to, replaced } = await handingOver()
  await to.line.is('serving')
  from.line.say({ type: 'report', report: switchedReport(from.worker.peer, to.worker.peer) })
  return { slot, from, to, replacement: await replaced }
}

/** A worker of another keeper, which has called it. */
async function adopted(slot: Slot, generation: number): Promise<{ readonly pid: number; readonly said: string[] }> {
  const [[messages, theirs], [descriptors, theirDescriptors]] = openPairs(addon(), false)
  const farEnd = openChannel<KeeperMessage, WorkerMessage>(theirs, theirDescriptors, keeperMessages)
  onTestFinished(() => { farEnd.close() })
  const said: string[] = []
  void farEnd.hearAll(({ message }) => { said.push(message.type) }, () => undefined)
  const pid = 6_000_000 + generation
  farEnd.send({ type: 'hello', protocol: 1, pid })
  expect(await slot.adopt(openChannel(messages, descriptors, workerMessages), { pid, state: 'serving', generation, ageMs: 1_000 } as ProcessStatus)).toBe(true)
  return { pid, said }
}

beforeEach(() => {
  moves = ['empty']
  processes = []
  crashes = []
  lefts = []
  lost = []
  secondReadyTimeoutMs = 30_000
  const move = SlotLifecycle.prototype.move
  vi.spyOn(SlotLifecycle.prototype, 'move').mockImplementation(function (this: SlotLifecycle, from, to) {
    move.call(this, from, to)
    moves.push(to.is)
    taken.add(`${from} to ${to.is}`)
  })
  // No process has these pids.
  vi.spyOn(process, 'kill').mockImplementation((pid) => {
    void processes.find(({ worker }) => worker.pid === pid)?.ends()
    return true
  })
})

afterEach(async () => {
  vi.restoreAllMocks()
  for (const each of processes) {
    each.channel.close()
    each.line.close()
  }
  await new Promise((resolve) => setImmediate(resolve))
})

describe('a slot', () => {
  it('starts a worker that serves', async () => {
    const { slot, from } = await serving()
    expect(moves).toEqual(['empty', 'starting', 'serving'])
    expect(slot.server?.pid).toBe(from.worker.pid)
    await from.hears('settle')
  })

  it('is empty again where the worker ends before it serves', async () => {
    const slot = makeSlot()
    const start = slot.start()
    start.catch(() => undefined)
    expect(slot.isStarting).toBe(true)
    await (await started(1)).ends()
    await expect(start).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT' })
    expect(moves).toEqual(['empty', 'starting', 'empty'])
    expect([slot.server?.pid, slot.isStarting]).toEqual([undefined, false])
  })

  it('tells of a start that was given up for a newer build', async () => {
    const slot = makeSlot()
    const start = slot.start()
    start.catch(() => undefined)
    await started(1)
    await slot.giveUpStart()
    await expect(start).rejects.toMatchObject({ code: 'HANDOVER_STOPPED' })
    expect(slot.isStarting).toBe(false)
  })

  it('tells once of a crash of the worker that serves', async () => {
    const { slot, from } = await serving()
    await from.ends()
    expect(moves.slice(-2)).toEqual(['serving', 'empty'])
    expect([slot.server?.pid, crashes]).toEqual([undefined, [from.worker.pid]])
  })

  it('tells of a worker that somebody else stopped', async () => {
    const { slot, from } = await serving()
    await from.line.is('draining')
    expect(moves.slice(-2)).toEqual(['serving', 'empty'])
    expect([slot.server?.pid, lefts, crashes]).toEqual([undefined, [from.worker.pid], []])
  })

  it('hands over, and settles', async () => {
    const { slot, from, to, replacement } = await undoable()
    expect(slot.server?.pid).toBe(to.worker.pid)
    expect([replacement.from?.pid, replacement.to.pid]).toEqual([from.worker.pid, to.worker.pid])
    slot.settle()
    expect(moves).toEqual(['empty', 'starting', 'serving', 'handing-over', 'undoable', 'serving'])
    await from.hears('settle')
    await to.hears('settle')
    await from.ends()
    expect([slot.server?.pid, crashes, replacement.failure()]).toEqual([to.worker.pid, [], undefined])
  })

  it('serves as before where the handover fails', async () => {
    const { slot, from, to, replaced } = await handingOver()
    from.line.say({ type: 'failed', successor: to.worker.pid, code: 'HANDOVER_SUCCESSOR_TIMEOUT', message: 'too late', stderr: '' })
    await expect(replaced).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_TIMEOUT', message: 'too late' })
    expect(moves.slice(-2)).toEqual(['handing-over', 'serving'])
    expect(slot.server?.pid).toBe(from.worker.pid)
  })

  it('is empty where the predecessor dies before its successor has the offer, and tells once of the crash', async () => {
    const { slot, from, replaced } = await handingOver()
    await from.ends()
    await expect(replaced).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT', message: expect.stringContaining('ended while it handed over') })
    expect(moves.slice(-2)).toEqual(['handing-over', 'empty'])
    expect([slot.server?.pid, crashes]).toEqual([undefined, [from.worker.pid]])
  })

  it('is served by the successor where the predecessor dies after that', async () => {
    const { slot, from, to, replaced } = await handingOver()
    await to.line.is('preparing')
    await from.ends()
    expect(moves.at(-1)).toBe('alone')
    expect([slot.server?.pid, slot.isStarting]).toEqual([undefined, true])
    await to.line.is('serving')
    expect(await replaced).toMatchObject({ died: { signal: 'SIGKILL' } })
    expect(moves.slice(-2)).toEqual(['alone', 'undoable'])
    expect([slot.server?.pid, lost, crashes]).toEqual([to.worker.pid, [from.worker.pid], []])
  })

  it('is empty where both die in the handover, and tells once of a crash', async () => {
    const { slot, from, to, replaced } = await handingOver()
    await to.line.is('ready')
    await from.ends()
    await to.ends()
    await expect(replaced).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT', message: expect.stringMatching(/ended before it served.*had ended by SIGKILL/) })
    expect(moves.slice(-3)).toEqual(['handing-over', 'alone', 'empty'])
    expect([slot.server?.pid, crashes]).toEqual([undefined, [from.worker.pid]])
  })

  it('is served by the predecessor again where the successor dies soon', async () => {
    const { slot, from, to, replacement } = await undoable()
    await to.ends()
    expect([moves.at(-1), slot.server?.pid]).toEqual(['returning', undefined])
    await from.line.is('serving')
    expect([moves.at(-1), slot.server?.pid]).toEqual(['undone', from.worker.pid])
    expect(await slot.recall('the reload failed')).toBe(true)
    expect(replacement.failure()).toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT', message: expect.stringContaining('ended soon after it had begun to serve') })
    slot.settle()
    expect([moves.at(-1), slot.server?.pid, crashes]).toEqual(['serving', from.worker.pid, []])
  })

  it('is served by the predecessor again where it is recalled; that is started anew when it crashes', async () => {
    const { slot, from, to } = await undoable()
    const recalled = slot.recall('the probe failed')
    await from.hears('recall')
    await from.line.is('serving')
    expect(await recalled).toBe(true)
    expect(moves.slice(-2)).toEqual(['undoable', 'undone'])
    expect([slot.server?.pid, to.worker.retiring]).toEqual([from.worker.pid, true])
    await from.ends()
    expect([moves.at(-1), slot.server?.pid, crashes]).toEqual(['empty', undefined, [from.worker.pid]])
  })

  it('cannot be undone where the predecessor has ended', async () => {
    const { slot, from, to, replacement } = await undoable()
    await from.ends()
    expect(await slot.recall('the probe failed')).toBe(false)
    expect(slot.server?.pid).toBe(to.worker.pid)
    await to.ends()
    expect([moves.at(-1), crashes]).toEqual(['empty', [to.worker.pid]])
    expect(replacement.failure()).toBeDefined()
  })

  it('waits no more where the predecessor ends before it serves again', async () => {
    const { slot, from, to } = await undoable()
    await to.ends()
    const recalled = slot.recall('the reload failed')
    await from.ends()
    expect(await recalled).toBe(false)
    expect(moves.slice(-3)).toEqual(['undoable', 'returning', 'empty'])
  })

  it('keeps a predecessor that serves again late, until the worker serves that was started meanwhile', async () => {
    const { slot, from, to } = await undoable()
    await to.ends()
    const start = slot.start()
    const next = await started(3)
    await from.line.is('serving')
    expect(slot.server?.pid).toBe(from.worker.pid)
    await next.takesOffer()
    await start
    expect(moves.slice(-3)).toEqual(['returning', 'starting', 'serving'])
    expect(slot.server?.pid).toBe(next.worker.pid)
    await from.hears('stop')
  })

  it('starts a worker beside one that is blocked, and ends that when the new one serves', async () => {
    const { slot, from } = await serving()
    secondReadyTimeoutMs = 50
    const replaced = slot.replace(demands)
    await started(2)
    await waitFor(() => processes[1]!.worker.how !== undefined)
    const to = await started(3)
    expect(slot.server?.pid).toBe(from.worker.pid)
    await to.takesOffer()
    const { died, ...replacement } = await replaced
    expect([replacement.from?.pid, replacement.to.pid, died]).toEqual([from.worker.pid, to.worker.pid, from.worker.how])
    expect(moves.slice(-4)).toEqual(['handing-over', 'serving', 'starting', 'serving'])
    expect(slot.server?.pid).toBe(to.worker.pid)
    expect(from.worker.how).toBeDefined()
  })

  it('offers what a blocked worker has saved to the one that replaces it, and to the next one where that fails', async () => {
    using files = new Files()
    const { slot, from } = await serving()
    from.line.sayWith({ type: 'checkpoint', name: 'carts', bytes: 4 }, files, 'full')
    from.line.say({ type: 'state', state: 'serving', generation: 1 })
    await from.line.is('serving')
    secondReadyTimeoutMs = 50
    const replaced = slot.replace(demands)
    replaced.catch(() => undefined)
    await started(2)
    await waitFor(() => processes[1]!.worker.how !== undefined)
    const failing = await started(3)
    expect(await failing.offered()).toEqual(['carts'])
    await failing.ends()
    await expect(replaced).rejects.toMatchObject({ code: 'HANDOVER_SUCCESSOR_EXIT' })
    await from.ends()
    void slot.start().catch(() => undefined)
    expect(await (await started(4)).offered()).toEqual(['carts'])
  })

  it.each([true, false])('tells a worker that nobody hands over to whether it may listen on less (%s)', async (allowDrop) => {
    const slot = makeSlot()
    slot.replace({ ...demands, allowDrop }).catch(() => undefined)
    const { channel, worker } = await started(1)
    channel.send({ type: 'hello', protocol: 1, pid: worker.pid })
    const { message } = (await channel.receive())!
    expect(message).toMatchObject({ type: 'offer' })
    expect('mayDrop' in message).toBe(allowDrop)
  })

  it('takes workers that another keeper had: the latest generation serves, the others are stopped', async () => {
    const slot = makeSlot()
    const second = await adopted(slot, 2)
    expect([moves, slot.server?.pid]).toEqual([['empty', 'serving'], second.pid])
    const third = await adopted(slot, 3)
    expect([moves.slice(-2), slot.server?.pid]).toEqual([['serving', 'serving'], third.pid])
    await waitFor(() => second.said.includes('stop'))
    const first = await adopted(slot, 1)
    await waitFor(() => first.said.includes('stop'))
    expect(slot.server?.pid).toBe(third.pid)
  })

  it('has taken every move of its table in these tests', () => {
    expect([...taken].sort()).toEqual(Object.entries(slotMoves).flatMap(([from, all]) => all.map((to) => `${from} to ${to}`)).sort())
  })
})
