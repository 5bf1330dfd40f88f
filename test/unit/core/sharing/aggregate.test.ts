/**
 * Sums over processes, without processes: what is inherited in any order counts once, and a total never runs backwards, whatever dies
 * while it is asked.
 */

import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Aggregate, Aggregates, decodeState, encodeState, TimeLimit, type Exchange, type Snapshot } from '../../../helpers/internals.js'

const add = (a: number, b: number): number => a + b
const alone: Exchange = { ask: () => Promise.resolve([]) }
/** What the transport does with it. */
const sent = (snapshot: Snapshot | undefined): Snapshot => decodeState(encodeState(snapshot, 'a test'), 'a test') as Snapshot

/** A process that counts to what `counted` holds. */
function counting(id: string, counted: { n: number }, exchange = alone, now?: () => number): {
  aggregates: Aggregates; sum: Aggregate<number>
} {
  const aggregates = new Aggregates(exchange, id, now)
  return { aggregates, sum: aggregates.aggregate('n', { own: () => counted.n, add }) }
}

const wordOf = async (id: string, n: number, ...inherited: Snapshot[]): Promise<Snapshot> => {
  const { aggregates } = counting(id, { n })
  for (const snapshot of inherited) aggregates.inherit('n', snapshot)
  return sent(await aggregates.snapshot('n'))
}

describe('a total', () => {
  it('is what this process counts, as long as there is nobody else', async () => {
    const counted = { n: 3 }
    const { sum } = counting('a', counted)
    expect(await sum.total()).toBe(3)
    counted.n = 4
    expect(await sum.total()).toBe(4)
    expect(await sum.mine()).toBe(4)
  })

  it('adds what all others count at that moment, whom it tells what it counts itself', async () => {
    const other = counting('b', { n: 20 })
    const told: Snapshot[] = []
    const { sum } = counting('a', { n: 1 }, { ask: async (topic, mine) => { told.push(mine); return [sent(await other.aggregates.snapshot(topic))] } })
    expect(await sum.total()).toBe(21)
    expect(await sum.mine()).toBe(1)
    expect(told).toMatchObject([{ id: 'a', includes: [] }])
    other.aggregates.inherit('n', sent(told[0]))
    expect(await other.sum.total()).toBe(21)
  })

  it('adds what it has inherited, and passes it on with what its process counted', async () => {
    const { aggregates, sum } = counting('c', { n: 100 })
    aggregates.inherit('n', await wordOf('b', 10, await wordOf('a', 1)))
    expect(await sum.total()).toBe(111)
    expect(aggregates.inherited('n')).toEqual({ value: 11, includes: ['b', 'a'] })
    expect(aggregates.inherited('m')).toEqual({ value: undefined, includes: [] })
    const word = sent(await aggregates.snapshot('n'))
    expect(word).toMatchObject({ id: 'c', includes: ['b', 'a'] })
    const next = counting('d', { n: 1000 })
    next.aggregates.inherit('n', word)
    expect(await next.sum.total()).toBe(1111)
  })

  it.each([['before', [0, 1]], ['after', [1, 0]]])('counts the final word of a process once where its last known one came %s', async (_when, order) => {
    const counted = { n: 5 }
    const gone = counting('a', counted)
    const words = [sent(await gone.aggregates.snapshot('n'))]
    counted.n = 7
    words.push(sent(await gone.aggregates.snapshot('n')))
    const { aggregates, sum } = counting('b', { n: 100 })
    for (const index of order) aggregates.inherit('n', words[index]!)
    expect(await sum.total()).toBe(107)
    for (const word of words) aggregates.inherit('n', word)
    expect(await sum.total()).toBe(107)
  })

  it.each([['first', [0, 1]], ['last', [1, 0]]])('counts once what came by itself and in the count of another, with the one by itself %s', async (_when, order) => {
    const first = await wordOf('a', 1)
    const words = [first, await wordOf('b', 10, first)]
    const { aggregates, sum } = counting('c', { n: 100 })
    for (const index of order) aggregates.inherit('n', words[index]!)
    expect(await sum.total()).toBe(111)
    expect((await aggregates.snapshot('n'))!.includes).toHaveLength(2)
  })

  it('counts once what was inherited while the others were asked and is in an answer too, in its later version', async () => {
    const counted = { n: 5 }
    const other = counting('b', counted)
    const exchange: Exchange = {
      ask: async (topic) => {
        const answer = sent(await other.aggregates.snapshot(topic))
        counted.n = 6
        asking.aggregates.inherit(topic, sent(await other.aggregates.snapshot(topic)))
        return [answer, answer]
      }
    }
    const asking = counting('a', { n: 100 }, exchange)
    expect(await asking.sum.total()).toBe(106)
    expect(await asking.sum.total()).toBe(106)
  })

  it('shows of its own no more than it has told, however much it has counted since', async () => {
    const counted = { n: 1 }
    const told: unknown[] = []
    const { sum } = counting('a', counted, { ask: (_topic, mine) => { told.push(mine.value); counted.n += 1; return sum.mine().then((now) => { expect(now).toBe(2); return [] }) } })
    expect(await sum.total()).toBe(1)
    expect(told).toMatchObject([[{ id: 'a', value: 1 }]])
  })

  it('never calls own() twice at a time, and who asks while it runs gets what it says next', async () => {
    let running = 0
    let n = 0
    const looks: (() => void)[] = []
    const aggregates = new Aggregates(alone, 'a')
    const sum = aggregates.aggregate('n', {
      own: async () => {
        expect(++running).toBe(1)
        const seen = n
        await new Promise<void>((resolve) => { looks.push(resolve) })
        running -= 1
        return seen
      },
      add
    })
    const looked = async (count: number): Promise<void> => { while (looks.length < count) await new Promise(setImmediate) }
    const first = sum.total()
    await looked(1)
    n = 1
    const later = [sum.total(), sum.mine()]
    looks[0]!()
    await looked(2)
    looks[1]!()
    expect([await first, ...await Promise.all(later)]).toEqual([0, 1, 1])
    expect(looks).toHaveLength(2)
  })

  it('rejects with what own() throws, and what was counted and inherited by then is not lost for the next', async () => {
    let fails = false
    const aggregates = new Aggregates(alone, 'b')
    const sum = aggregates.aggregate('n', { own: () => { if (fails) throw new Error('no number today'); return 10 }, add })
    aggregates.inherit('n', await wordOf('a', 1))
    expect(await sum.total()).toBe(11)
    fails = true
    await expect(sum.total()).rejects.toThrow('no number today')
    const next = counting('c', { n: 100 })
    next.aggregates.inherit('n', sent(await aggregates.snapshot('n')))
    expect(await next.sum.total()).toBe(111)
    fails = false
    expect(await sum.total()).toBe(11)
  })

  it('is there again after an own() that never answered, which is given up; until then it goes to others as it was last known', async () => {
    vi.useFakeTimers()
    onTestFinished(() => { vi.useRealTimers() })
    let hangs = false
    const aggregates = new Aggregates(alone, 'a')
    const sum = aggregates.aggregate('n', { own: () => (hangs ? new Promise<number>(() => undefined) : 10), add })
    expect(await sum.total()).toBe(10)
    hangs = true
    const hung = sum.total()
    const given = expect(hung).rejects.toThrow('own() of aggregate() has not answered for 60000 ms')
    const limit = new TimeLimit(1_000, 'late')
    const last = aggregates.snapshot('n', limit)
    await vi.advanceTimersByTimeAsync(1_000)
    expect(await last).toMatchObject({ value: [{ id: 'a', value: 10 }] })
    hangs = false
    const next = sum.total()
    await vi.advanceTimersByTimeAsync(59_000)
    await given
    expect(await next).toBe(10)
  })

  it('has of those that are gone only what remains() leaves, at once and after long', async () => {
    interface Load { requests: number; open: number[] }
    let now = 0
    const options = {
      add: (a: Load, b: Load): Load => ({ requests: a.requests + b.requests, open: [...a.open, ...b.open] }),
      remains: ({ requests }: Load): Load => ({ requests, open: [] })
    }
    const living = new Aggregates(alone, 'a')
    living.aggregate('load', { own: () => ({ requests: 1, open: [1] }), ...options })
    const gone = new Aggregates(alone, 'b')
    gone.aggregate('load', { own: () => ({ requests: 10, open: [2] }), ...options })
    const aggregates = new Aggregates({ ask: async () => [sent(await living.snapshot('load'))] }, 'c', () => now)
    const sum = aggregates.aggregate('load', { own: () => ({ requests: 100, open: [3] }), ...options })
    aggregates.inherit('load', sent(await gone.snapshot('load')))
    for (now of [0, 100_000, 200_000]) expect(await sum.total()).toEqual({ requests: 111, open: [3, 1] })
  })

  it('adds nothing for an answer that it cannot read', async () => {
    const strange: unknown[] = [null, 'text', 7, [null, 1, { id: 'b' }, { id: 'b', version: 1, includes: 'a' }], { id: 'b', version: 1, includes: [] }]
    const { sum } = counting('a', { n: 1 }, { ask: () => Promise.resolve(strange.map((value) => ({ id: 'b', includes: [], value }))) })
    expect(await sum.total()).toBe(1)
  })
})

describe('what is inherited', () => {
  it('before the program counts it is in the first total, and goes to the next process where nobody ever does', async () => {
    const word = await wordOf('a', 1)
    const idle = new Aggregates(alone, 'b')
    expect(await idle.snapshot('n')).toBeUndefined()
    idle.inherit('n', word)
    idle.inherit('other', await wordOf('a', 2))
    expect(idle.topics).toEqual(['n', 'other'])
    expect(await idle.snapshot('n')).toMatchObject({ id: 'b', includes: ['a'] })
    const next = counting('c', { n: 10 })
    next.aggregates.inherit('n', sent(await idle.snapshot('n')))
    expect(await next.sum.total()).toBe(11)
    expect(await idle.aggregate('n', { own: () => 100, add }).total()).toBe(101)
  })

  it('is merged into one after a minute, unless another process has it as well', async () => {
    let now = 0
    const others: Snapshot[] = []
    const { aggregates, sum } = counting('z', { n: 1000 }, { ask: () => Promise.resolve(others) }, () => now)
    const first = await wordOf('a', 1)
    aggregates.inherit('n', first)
    aggregates.inherit('n', await wordOf('b', 10))
    const apart = async (): Promise<number> => ((await aggregates.snapshot('n'))!.value as unknown[]).length
    others.push(await wordOf('y', 100, first))
    now = 59_999
    expect([await sum.total(), await apart()]).toEqual([1111, 3])
    now = 60_000
    expect([await sum.total(), await apart()]).toEqual([1111, 2])
    expect((await aggregates.snapshot('n'))!.includes).toEqual(['b', 'a'])
    // The other one is gone: its own copy of the first can come no more.
    aggregates.inherit('n', others.pop()!)
    expect([await sum.total(), await apart()]).toEqual([1111, 2])
    now = 120_000
    expect([await sum.total(), await apart()]).toEqual([1111, 1])
    aggregates.inherit('n', await wordOf('b', 11))
    expect(await sum.total()).toBe(1111)
  })

  it('stays small over four hundred generations in which nobody asks, and exact', async () => {
    let word: Snapshot | undefined
    let largest = 0
    for (let generation = 1; generation <= 400; generation++) {
      const { aggregates } = counting(`p${generation}`, { n: 1 })
      if (word !== undefined) aggregates.inherit('n', word)
      word = sent(await aggregates.snapshot('n'))
      largest = Math.max(largest, (word.value as unknown[]).length)
      expect(word.includes.length).toBeLessThanOrEqual(256)
    }
    const last = counting('last', { n: 0 })
    last.aggregates.inherit('n', word!)
    expect(await last.sum.total()).toBe(400)
    expect(largest).toBeLessThanOrEqual(33)
  })

  it('is not the process itself, whose last word comes back where a handover was undone', async () => {
    const aggregates = new Aggregates(alone, 'a')
    const sum = aggregates.aggregate('n', { own: () => 3, add, remains: () => 2 })
    aggregates.inherit('n', await wordOf('b', 10, await wordOf('a', 1)))
    expect(await sum.total()).toBe(5)
  })

  it('counts once where another process has merged it and this one has it apart', async () => {
    let now = 0
    const first = await wordOf('a', 1)
    const other = counting('b', { n: 10 }, alone, () => now)
    other.aggregates.inherit('n', first)
    now = 60_000
    expect(await other.sum.total()).toBe(11)
    const word = sent(await other.aggregates.snapshot('n'))
    expect(word).toMatchObject({ includes: ['a'], value: [{ id: 'b', value: 11 }] })
    const { aggregates, sum } = counting('c', { n: 100 }, { ask: () => Promise.resolve([word]) }, () => now)
    aggregates.inherit('n', first)
    for (now of [60_000, 200_000]) expect(await sum.total()).toBe(111)
  })
})

describe('a value that the program writes as text', () => {
  const text = { write: (value: number) => `${value} of them`, read: (written: string) => Number.parseInt(/^\d+/.exec(written)![0], 10) }
  const writing = (id: string, n: number, exchange = alone): { aggregates: Aggregates; sum: Aggregate<number> } => {
    const aggregates = new Aggregates(exchange, id)
    return { aggregates, sum: aggregates.aggregate('n', { own: () => n, add, text }) }
  }

  it('goes to others as that, and through processes that do not count it', async () => {
    const word = sent(await writing('a', 1).aggregates.snapshot('n'))
    expect(word.value).toEqual([{ id: 'a', version: 1, includes: [], value: null, text: '1 of them' }])
    const idle = new Aggregates(alone, 'b')
    idle.inherit('n', word)
    const { aggregates, sum } = writing('c', 100, { ask: async () => [sent(await writing('d', 1000).aggregates.snapshot('n'))] })
    aggregates.inherit('n', sent(await idle.snapshot('n')))
    expect(await sum.total()).toBe(1101)
    expect(aggregates.inherited('n').value).toBe(1)
    expect(await idle.aggregate('n', { own: () => 10, add, text }).total()).toBe(11)
  })

  it('that this version of the program cannot read counts nothing, is said once, and is passed on to one that can', async () => {
    const word = sent(await writing('a', 1).aggregates.snapshot('n'))
    const others = await Promise.all(Array.from({ length: 40 }, async (_, index) => sent(await writing(`b${index}`, 10).aggregates.snapshot('n'))))
    const warnings: string[] = []
    const older = new Aggregates(alone, 'c', undefined, (line) => { warnings.push(line) })
    const sum = older.aggregate('n', { own: () => 100, add })
    for (const one of [word, ...others]) older.inherit('n', one)
    for (let time = 0; time < 2; time++) expect(await sum.total()).toBe(100)
    expect(older.inherited('n').value).toBeUndefined()
    expect(warnings).toHaveLength(41)
    expect(warnings[0]).toBe('what process a counted is in no sum of this one: aggregate() was given no text here that reads it')
    const { aggregates, sum: newer } = writing('d', 1000)
    aggregates.inherit('n', sent(await older.snapshot('n')))
    expect(await newer.total()).toBe(1501)
    aggregates.inherit('n', { id: 'e', value: [{ id: 'e', version: 1, includes: [], value: null, text: 'nonsense' }] })
    expect(await newer.total()).toBe(1501)
  })

  it('is passed on with what a later version of Handover adds to it', async () => {
    const { aggregates } = writing('b', 10)
    aggregates.inherit('n', { id: 'a', value: [{ id: 'a', version: 1, includes: [], value: null, text: '1 of them', later: 'this' }] })
    expect((await aggregates.snapshot('n'))!.value).toMatchObject([{ id: 'b' }, { id: 'a', later: 'this' }])
    expect((await aggregates.snapshot('n'))!.value).not.toMatchObject([{}, { since: expect.anything() as number }])
  })

  it('must be text', async () => {
    const sum = new Aggregates(alone, 'a').aggregate('n', { own: () => 1, add, text: { write: (value: number) => value as never, read: Number } })
    await expect(sum.total()).rejects.toThrowError(expect.objectContaining({ code: 'HANDOVER_STATE', message: expect.stringContaining('answered number') as string }))
  })

  it('comes from a version of the program that wrote none', async () => {
    const { aggregates, sum } = writing('b', 10)
    aggregates.inherit('n', await wordOf('a', 1))
    expect(await sum.total()).toBe(11)
  })
})

describe('aggregate()', () => {
  it('refuses a second one of one name, and what is no name or has no functions', () => {
    const { aggregates } = counting('a', { n: 1 })
    expect(() => aggregates.aggregate('n', { own: () => 1, add })).toThrowError(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringContaining("aggregate('n')") as string }))
    expect(() => aggregates.aggregate('', { own: () => 1, add })).toThrowError(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    expect(() => aggregates.aggregate('m', { own: () => 1 } as never)).toThrowError(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    expect(() => aggregates.aggregate('m', { own: () => 1, add, text: { write: String } } as never)).toThrowError(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    expect(() => aggregates.aggregate('m', { own: () => 1, add, remains: 0 } as never)).toThrowError(expect.objectContaining({ code: 'HANDOVER_OPTION', message: expect.stringContaining('a remains that is no function') as string }))
    expect(() => aggregates.aggregate('m', undefined as never)).toThrowError(expect.objectContaining({ code: 'HANDOVER_OPTION' }))
    expect(aggregates.topics).toEqual(['n'])
  })
})

/** Per process, so that a test sees whose count is lost or doubled, and who is taken for living. */
interface Counted { by: Record<string, number>; living: string[] }
const merge = (a: Counted, b: Counted): Counted => {
  const by = { ...a.by }
  for (const [id, n] of Object.entries(b.by)) by[id] = (by[id] ?? 0) + n
  return { by, living: [...a.living, ...b.living] }
}

type Life = 'lives' | 'ending' | 'ended' | 'crashed'
class Process {
  readonly id: string
  readonly aggregates: Aggregates
  sum?: Aggregate<Counted>
  counted = 0
  life: Life = 'lives'
  readonly died: Promise<void>
  #die!: () => void

  constructor(id: string, aggregates: Aggregates) {
    this.id = id
    this.aggregates = aggregates
    this.died = new Promise((resolve) => { this.#die = resolve })
  }

  die(life: 'ended' | 'crashed'): void {
    this.life = life
    this.#die()
  }
}

/**
 * Processes under a keeper that writes down the last word of each, without any of them. Everything that takes time waits in `pending`
 * until a step of the history lets it happen, in whatever order that history says.
 */
class World {
  /** Whether the program writes for itself what goes to other processes. */
  readonly #asText: boolean
  readonly processes: Process[] = []
  readonly words = new Map<string, Snapshot>()
  readonly pending: (() => void)[] = []
  /** At least what any total that was shown had, by process. */
  readonly shown: Record<string, number> = {}
  readonly totals: Promise<void>[] = []
  now = 0

  constructor(asText: boolean) {
    this.#asText = asText
  }

  get living(): Process[] {
    return this.processes.filter(({ life }) => life === 'lives' || life === 'ending')
  }

  get gone(): Process[] {
    return this.processes.filter(({ life }) => life === 'ended' || life === 'crashed')
  }

  start(): void {
    const id = `p${this.processes.length}`
    const exchange: Exchange = { ask: (topic, mine) => this.#gather(process, topic, sent(mine)) }
    const process: Process = new Process(id, new Aggregates(exchange, id, () => this.now))
    this.processes.push(process)
  }

  /** Its program calls aggregate(). Nothing is counted before. */
  declare(process: Process): void {
    process.sum ??= process.aggregates.aggregate<Counted>('n', {
      own: async () => {
        await this.#later()
        return { by: { [process.id]: process.counted }, living: [process.id] }
      },
      add: merge,
      remains: ({ by }) => ({ by, living: [] }),
      ...(
        this.#asText && { text: { write: (value: Counted) => JSON.stringify(value), read: (text: string) => JSON.parse(text) as Counted } }
      )
    })
  }

  total(process: Process): void {
    if (process.sum === undefined) return
    const before = { ...this.shown }
    const total = process.sum.total().then((counted) => {
      if (process.life === 'crashed' || process.life === 'ended') return
      for (const [id, n] of Object.entries(before)) if ((counted.by[id] ?? 0) < n) throw new Error(`${process.id} shows ${counted.by[id]} of ${id}, after ${n} was shown`)
      for (const { id, counted: most } of this.processes) if ((counted.by[id] ?? 0) > most) throw new Error(`${process.id} shows ${counted.by[id]} of ${id}, which counted ${most}`)
      for (const [id, n] of Object.entries(counted.by)) this.shown[id] = Math.max(this.shown[id] ?? 0, n)
    })
    total.catch(() => undefined)
    this.totals.push(total)
  }

  crash(process: Process): void {
    process.die('crashed')
  }

  /** It counts no more, says its last word to the keeper and to its successor, and is gone. */
  async end(process: Process, successor: Process | undefined): Promise<void> {
    process.life = 'ending'
    const word = await process.aggregates.snapshot('n')
    if (process.life !== 'ending') return
    this.#write(word)
    process.die('ended')
    if (word !== undefined && successor !== undefined) this.#inherit(successor, sent(word))
  }

  /** The keeper gives what it has of a process that is gone to one that lives. */
  bequeath(process: Process, heir: Process): void {
    const word = this.words.get(process.id)
    if (word !== undefined) this.#inherit(heir, sent(word))
  }

  async happen(index: number): Promise<void> {
    const [next] = this.pending.splice(index % Math.max(1, this.pending.length), 1)
    next?.()
    await new Promise(setImmediate)
  }

  async quiet(): Promise<void> {
    do await this.happen(0)
    while (this.pending.length > 0)
  }

  #later(): Promise<void> {
    return new Promise((resolve) => { this.pending.push(resolve) })
  }

  #inherit(heir: Process, word: Snapshot): void {
    void this.#later().then(() => { if (this.living.includes(heir)) heir.aggregates.inherit('n', word) })
  }

  #write(word: Snapshot | undefined): void {
    if (word === undefined) return
    this.words.set(word.id, sent(word))
    for (const { id } of this.gone) if ([...this.words.values()].some((other) => other.includes.includes(id))) this.words.delete(id)
  }

  async #gather(asking: Process, topic: string, mine: Snapshot): Promise<readonly Snapshot[]> {
    // It died while own() ran: it says nothing more.
    if (this.gone.includes(asking)) return []
    this.#write(mine)
    await Promise.all(this.living.filter((other) => other !== asking).map(async (other) => {
      await this.#later()
      if (this.gone.includes(other)) return
      // One that dies on the way to its answer is silent.
      await Promise.race([other.died, other.aggregates.snapshot(topic).then(
        (word) => { if (this.living.includes(other)) this.#write(word) }
      )])
      await this.#later()
    }))
    return [...this.words.values()].filter(({ id }) => id !== asking.id).map(sent)
  }
}

type Step =
  | { readonly does: 'start' }
  | { readonly does: 'declare' | 'count' | 'total' | 'crash' | 'end' | 'bequeath'; readonly who: number; readonly to: number }
  | { readonly does: 'happen'; readonly which: number }
  | { readonly does: 'wait' }

const who = fc.nat({ max: 7 })
const steps = fc.array(fc.oneof(
  { weight: 2, arbitrary: fc.constant<Step>({ does: 'start' }) },
  { weight: 3, arbitrary: who.map((n): Step => ({ does: 'declare', who: n, to: 0 })) },
  { weight: 8, arbitrary: who.map((n): Step => ({ does: 'count', who: n, to: 0 })) },
  { weight: 6, arbitrary: who.map((n): Step => ({ does: 'total', who: n, to: 0 })) },
  { weight: 2, arbitrary: who.map((n): Step => ({ does: 'crash', who: n, to: 0 })) },
  { weight: 3, arbitrary: fc.tuple(who, who).map(([n, to]): Step => ({ does: 'end', who: n, to })) },
  { weight: 3, arbitrary: fc.tuple(who, who).map(([n, to]): Step => ({ does: 'bequeath', who: n, to })) },
  { weight: 20, arbitrary: fc.nat({ max: 30 }).map((which): Step => ({ does: 'happen', which })) },
  { weight: 1, arbitrary: fc.constant<Step>({ does: 'wait' }) }
), { minLength: 20, maxLength: 160, size: 'max' })

async function play(history: readonly Step[], asText: boolean): Promise<World> {
  const world = new World(asText)
  world.start()
  const one = <T>(of: readonly T[], index: number): T | undefined => of[index % Math.max(1, of.length)]
  for (const step of history) {
    if (step.does === 'start' && world.living.length < 6) world.start()
    else if (step.does === 'wait') {
      await world.quiet()
      world.now += 61_000
    } else if (step.does === 'happen') await world.happen(step.which)
    else if (step.does === 'bequeath') {
      const gone = one(world.gone, step.who)
      const heir = one(world.living, step.to)
      if (gone !== undefined && heir !== undefined) world.bequeath(gone, heir)
    } else if (step.does !== 'start') {
      const process = one(world.living.filter(({ life }) => life === 'lives'), step.who)
      if (process === undefined) continue
      if (step.does === 'declare') world.declare(process)
      else if (step.does === 'count') process.counted += process.sum === undefined ? 0 : 1
      else if (step.does === 'total') world.total(process)
      else if (step.does === 'crash') world.crash(process)
      else void world.end(process, one(world.living.filter((other) => other !== process), step.to))
    }
  }
  return world
}

describe('any history of processes that count, are asked, hand over and crash', () => {
  it.each([['a value', false], ['a text of its own', true]])('shows no total that is smaller than one shown before it was begun or larger than what was counted, and in the end the exact one (%s)', async (_what, asText) => {
    let totals = 0
    await fc.assert(fc.asyncProperty(steps, async (history) => {
      const world = await play(history, asText)
      await world.quiet()
      await Promise.all(world.totals)
      totals += world.totals.length
      world.start()
      for (const process of world.living) world.declare(process)
      for (const process of world.gone) world.bequeath(process, world.living[0]!)
      await world.quiet()
      for (let round = 0; round < 2; round++) {
        for (const process of world.living) {
          const total = process.sum!.total()
          await world.quiet()
          const { by, living } = await total
          for (const { id, counted, life } of world.processes) {
            if (life !== 'crashed') expect(`${id}: ${by[id] ?? 0}`).toBe(`${id}: ${counted}`)
            else expect(by[id] ?? 0).toBeGreaterThanOrEqual(world.shown[id] ?? 0)
          }
          expect(living.sort()).toEqual(world.living.map(({ id }) => id).sort())
        }
        world.now += 61_000
      }
    }), { numRuns: 200 })
    expect(totals).toBeGreaterThan(200)
  })
})
