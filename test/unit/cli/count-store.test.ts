/** What processes count, kept for the sum: every order in which they ask, answer, fall silent, hand over and die. */

import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { CountStore, decodeState, encodeState, type Worker, type WorkerSide } from '../../helpers/internals.js'
import { descriptorsOf, waitFor } from '../../helpers/program.js'
import { FarEnd, Files, readAndClose, type CountedBy } from '../../helpers/line.js'

const topic = 'hits'
const text = (value: number): string => JSON.stringify({ value, includes: [] })
const read = (fd: number): Omit<Seen, 'id'> => JSON.parse(readAndClose(fd)) as Omit<Seen, 'id'>
interface Seen { readonly id: string; readonly includes: readonly string[]; readonly value: number }

/** Processes that count, and inherit as a real one does. */
class Process {
  readonly end: FarEnd
  readonly id: string
  own = 0
  readonly inherited = new Map<string, number>()
  /** Undefined: it says nothing. Else when it answers. */
  answers: Promise<unknown> | undefined = Promise.resolve()
  told = 0
  readonly #files: Files
  readonly #waiting = new Map<number, (seen: Seen[]) => void>()
  #asked = 0

  constructor(id: string, side: WorkerSide, files: Files, slot: number) {
    this.id = id
    this.#files = files
    this.end = new FarEnd(side, slot)
    this.end.hears = (word, fds) => {
      switch (word.type) {
        case 'tell':
          void this.answers?.then(() => {
            this.end.sayWith({ type: 'told', id: word.id, topic: word.topic, snapshot: this.snapshot }, files, word.topic === 'service' ? this.serviceText : this.text)
            this.told++
          })
          break
        case 'gathered':
          this.#waiting.get(word.id)?.(word.ids.map((id, index) => ({ id, ...read(fds[index]!) })))
          break
        case 'inherit': {
          if (word.topic === 'service') {
            const counts = decodeState(readAndClose(fds[0]!), 'the test') as { id: string; value: { requests: number } }[]
            for (const { id, value } of counts) if (!this.inherited.has(id)) this.inherited.set(id, value.requests)
            break
          }
          const { value } = read(fds[0]!)
          if (!this.inherited.has(word.of)) this.inherited.set(word.of, value)
        }
      }
    }
  }

  get worker(): Worker { return this.end.worker }
  get snapshot(): CountedBy { return { id: this.id, includes: [...this.inherited.keys()] } }
  /** What a file of it holds. */
  get text(): string { return JSON.stringify({ value: this.total, includes: this.snapshot.includes }) }
  /** The same of the built-in topic, which the keeper reads. */
  get serviceText(): string {
    const count = (id: string, version: number, requests: number) => ({ id, version, includes: [], value: { requests } })
    return encodeState([count(this.id, this.told + 1, this.own), ...[...this.inherited].map(([id, value]) => count(id, Infinity, value))], 'the test')
  }
  get total(): number { return [...this.inherited.values()].reduce((sum, value) => sum + value, this.own) }

  async gather(): Promise<Seen[]> {
    const id = ++this.#asked
    const gathered = new Promise<Seen[]>((resolve) => { this.#waiting.set(id, resolve) })
    this.end.sayWith({ type: 'gather', id, topic, snapshot: this.snapshot }, this.#files, this.text)
    return await gathered
  }

  /** As aggregate() adds up: each process once. */
  async sum(): Promise<number> {
    const seen = [{ ...this.snapshot, value: this.total }, ...(await this.gather())]
    const included = new Set(seen.flatMap(({ includes }) => includes))
    return seen.filter(({ id }) => !included.has(id)).reduce((sum, { value }) => sum + value, 0)
  }

  /** As at the end of a handover: what `from` counts at last comes by a way of its own. */
  takeFrom(from: Process): void {
    for (const [id, value] of from.inherited) this.inherited.set(id, value)
    this.inherited.set(from.id, from.own)
  }
}

class App implements Disposable {
  readonly processes: Process[] = []
  readonly files = new Files()
  readonly warnings: string[] = []
  readonly counts: CountStore
  #ids = 0

  readonly #prefix: string

  constructor(options: ConstructorParameters<typeof CountStore>[1] = {}, prefix = 'p') {
    this.#prefix = prefix
    const living = (): Worker[] => this.processes.map(({ worker }) => worker).filter(({ how }) => how === undefined)
    this.counts = new CountStore({
      workers: living,
      heirs: (slot) => living().filter(({ state }) => state === 'serving').sort((a, b) => Number(b.slot === slot) - Number(a.slot === slot)),
      warn: (line) => { this.warnings.push(line) }
    }, options)
  }

  readonly #side: WorkerSide = {
    heard: (worker, news, [fd]) => {
      if (news.type === 'state' && news.state === 'serving') this.counts.settle()
      else if (news.type === 'gather') void this.counts.gather(worker, news.id, news.topic, fd === undefined ? undefined : { snapshot: news.snapshot, fd })
      else if (news.type === 'told' || news.type === 'tally') this.counts.heard(worker, news.topic, news.snapshot, fd!, news.type === 'tally')
    },
    leaving: () => false,
    ended: (worker) => { this.counts.ended(worker) },
    warn: (line) => { this.warnings.push(line) }
  }

  process(slot = 0, own = 0): Process {
    const made = new Process(`${this.#prefix}${++this.#ids}`, this.#side, this.files, slot)
    made.own = own
    this.processes.push(made)
    return made
  }

  async serving(slot = 0, own = 0): Promise<Process> {
    const made = this.process(slot, own)
    await made.end.is('serving')
    return made
  }

  /** The ids that the keeper holds for processes that are gone. */
  get orphans(): string[] {
    return this.counts.all().counts.map(({ snapshot: { id } }) => id)
  }

  [Symbol.dispose](): void {
    for (const { end } of this.processes) end.close()
    this.files[Symbol.dispose]()
  }
}

let app: App
afterEach(() => { app[Symbol.dispose]() })

describe('a gather', () => {
  it('answers what all others count at that moment, in every slot, also those that drain', async () => {
    app = new App()
    const [a, b] = [await app.serving(0, 1), await app.serving(1, 20)]
    const old = await app.serving(1, 300)
    await old.end.is('draining')
    expect(await a.sum()).toBe(321)
    b.own = 21
    old.own = 301
    expect(await a.sum()).toBe(323)
    expect(await b.sum()).toBe(323)
  })

  it('does not ask, nor wait for, one that has never served', async () => {
    app = new App({ answerMs: 30_000 })
    const a = await app.serving(0, 1)
    const booting = app.process(1, 5)
    await booting.end.is('preparing')
    booting.answers = undefined
    expect(await a.gather()).toEqual([])
    expect(booting.end.said).toEqual([])
  })

  it('counts one that is silent with its last word, and does not wait for it again until it speaks', async () => {
    app = new App({ answerMs: 200 })
    const [a, b] = [await app.serving(0, 1), await app.serving(1, 20)]
    expect(await a.sum()).toBe(21)
    let speak = (): void => undefined
    b.answers = new Promise<void>((resolve) => { speak = resolve })
    b.own = 30
    expect(await a.sum()).toBe(21)
    const before = b.end.said.length
    expect(await a.sum()).toBe(21)
    expect(b.end.said.length).toBe(before)
    // It was only late: what it says now counts, and it is asked again.
    speak()
    await waitFor(() => b.told === 2)
    b.own = 31
    await waitFor(async () => (await a.sum()) === 32)
  })

  it('answers although the one that asks gives no file, and although nobody else lives', async () => {
    app = new App()
    const a = await app.serving()
    const gathered = new Promise((resolve) => { a.end.hears = (word) => { resolve(word) } })
    a.end.say({ type: 'gather', id: 9, topic, snapshot: a.snapshot })
    expect(await gathered).toEqual({ type: 'gathered', id: 9, ids: [] })
    expect(app.warnings).toEqual([expect.stringContaining('sent 1 count, and 0 arrived')])
  })

  it('waits until the keeper has found all of its workers, for a sum without some would be smaller than one that was shown', async () => {
    app = new App()
    const a = await app.serving(0, 1)
    app.counts.hold()
    const sum = a.sum()
    await waitFor(() => app.files.open > 0)
    await app.serving(1, 20)
    app.counts.release()
    expect(await sum).toBe(21)
  })

  it('that was asked before the workers began to go to another keeper is not answered: the one who asks goes there as well', async () => {
    app = new App()
    const [a, b] = [await app.serving(0, 1), await app.serving(1, 20)]
    let speak = (): void => undefined
    b.answers = new Promise<void>((resolve) => { speak = resolve })
    void a.gather()
    await waitFor(() => b.end.said.some(({ type }) => type === 'tell'))
    app.counts.hold()
    speak()
    await waitFor(() => b.told === 1)
    await b.end.is('draining')
    // What the keeper says to it comes in order: had there been an answer, it would be there.
    const asked = a.worker.ask(30_000)
    await waitFor(() => a.end.said.some(({ type }) => type === 'ask'))
    expect(a.end.said.map(({ type }) => type)).toEqual(['ask'])
    await a.end.ends()
    await asked
  })

  it('of one topic hears nothing of another', async () => {
    app = new App()
    const [a, b] = [await app.serving(0, 1), await app.serving(1, 20)]
    b.end.sayWith({ type: 'tally', topic: 'other', snapshot: b.snapshot }, app.files, text(5))
    expect((await a.gather()).map(({ value }) => value)).toEqual([20])
  })
})

describe('the end of a process', () => {
  it('loses nothing that it ever said: a crashed one counts on, in the process that follows in its slot', async () => {
    app = new App()
    const [a, b] = [await app.serving(0, 1), await app.serving(1, 20)]
    expect(await b.sum()).toBe(21)
    await b.end.ends()
    expect(await a.sum()).toBe(21)
    const next = await app.serving(1, 300)
    await waitFor(() => app.orphans.length === 0)
    expect(next.inherited.size + a.inherited.size).toBe(1)
    expect(await a.sum()).toBe(321)
    expect(await next.sum()).toBe(321)
  })

  it('gives what it counted to a worker of its slot first', async () => {
    app = new App()
    const [a, b, twin] = [await app.serving(0, 1), await app.serving(1, 20), await app.serving(1, 0)]
    expect(await a.sum()).toBe(21)
    await b.end.ends()
    await waitFor(() => app.orphans.length === 0)
    expect([...twin.inherited]).toEqual([['p2', 20]])
    expect(a.inherited.size).toBe(0)
  })

  it('keeps what the last one counted until one serves', async () => {
    app = new App()
    const a = await app.serving(0, 7)
    expect(await a.gather()).toEqual([])
    await a.end.ends()
    const next = app.process(0, 1)
    await next.end.is('preparing')
    expect(app.orphans).toEqual(['p1'])
    await next.end.is('serving')
    await waitFor(() => app.orphans.length === 0)
    expect(next.total).toBe(8)
  })

  it('is not counted twice where its successor has it already, whenever the keeper hears of that', async () => {
    app = new App({ graceMs: 50 })
    const a = await app.serving(0, 10)
    const witness = await app.serving(1, 0)
    expect(await witness.sum()).toBe(10)
    const successor = await app.serving(0, 1)
    await a.end.is('draining')
    a.own = 12
    // The keeper knows of 10; 12 went directly.
    successor.takeFrom(a)
    await a.end.ends(true)
    expect(await witness.sum()).toBe(13)
    await waitFor(() => app.orphans.length === 0)
    expect(successor.end.said.filter(({ type }) => type === 'inherit')).toEqual([])
    expect(await witness.sum()).toBe(13)
    expect(witness.inherited.size).toBe(0)
  })

  it('of one whose successor never got its last word is given to it after a while', async () => {
    app = new App({ graceMs: 50 })
    const a = await app.serving(0, 10)
    const successor = await app.serving(0, 1)
    expect(await successor.sum()).toBe(11)
    await a.end.is('draining')
    await a.end.ends(true)
    expect(await successor.sum()).toBe(11)
    await waitFor(() => app.orphans.length === 0)
    expect([...successor.inherited]).toEqual([['p1', 10]])
    expect(await successor.sum()).toBe(11)
  })

  it('with a last word counts with that one, and at once', async () => {
    app = new App({ graceMs: 3_600_000 })
    const [a, b] = [await app.serving(0, 1), await app.serving(1, 20)]
    expect(await a.sum()).toBe(21)
    b.end.sayWith({ type: 'tally', topic, snapshot: b.snapshot }, app.files, text(25))
    await b.end.ends(true)
    await waitFor(() => app.orphans.length === 0)
    expect(await a.sum()).toBe(26)
  })

  it('of the heir as well, before or after it said that it has it, loses nothing and doubles nothing', async () => {
    app = new App({ answerMs: 200 })
    // It asks, and is nobody's heir.
    const observer = await app.serving(1, 1_000)
    await observer.end.is('draining')
    for (const silent of [true, false]) {
      const before = await observer.sum()
      const first = await app.serving(0, 10)
      expect(await observer.sum()).toBe(before + 10)
      await first.end.ends()
      const heir = app.process(0, 100)
      if (silent) heir.answers = undefined
      await heir.end.is('serving')
      await waitFor(() => (silent ? heir.end.said.some(({ type }) => type === 'tell') : heir.inherited.has(first.id) && heir.told === 2))
      await heir.end.ends()
      const last = await app.serving(0, 0)
      await waitFor(() => app.orphans.length === 0)
      // What a silent one counted itself was never said by it.
      expect(await observer.sum()).toBe(before + 10 + (silent ? 0 : 100))
      await last.end.ends()
    }
  })

  it('of a whole chain of crashes is in the last one, once', async () => {
    app = new App()
    let sum = 0
    for (let round = 1; round <= 20; round++) {
      const one = await app.serving(0, round)
      sum += round
      await waitFor(() => app.orphans.length === 0)
      expect(await one.sum()).toBe(sum)
      if (round < 20) await one.end.ends()
    }
  })

  it('is not given to one that counts nothing of this; that which begins to later has it', async () => {
    app = new App({ answerMs: 50 })
    const a = await app.serving(0, 5)
    await a.gather()
    await a.end.ends()
    const next = app.process(0, 1)
    next.answers = undefined
    await next.end.is('serving')
    await waitFor(() => next.end.said.length > 0)
    expect(app.orphans).toEqual(['p1'])
    next.answers = Promise.resolve()
    expect(await next.sum()).toBe(6)
    await waitFor(() => next.inherited.size === 1)
    expect(await next.sum()).toBe(6)
  })

  it('holds no more than so many descriptors, after 64 and after 200 processes that nobody inherits', async () => {
    app = new App()
    for (let made = 1; made <= 200; made++) {
      const one = app.process(0, 1)
      one.end.sayWith({ type: 'tally', topic, snapshot: one.snapshot }, app.files, text(1))
      await one.end.ends()
      await waitFor(() => app.orphans.includes(one.id))
      if (made !== 64 && made !== 200) continue
      expect(app.orphans).toHaveLength(64)
      expect(app.files.open).toBe(64)
    }
  }, 60_000)
})

describe('the keeper', () => {
  it('keeps no file of a topic too many, and says so once', async () => {
    app = new App()
    const a = await app.serving()
    const before = descriptorsOf(process.pid).size
    for (let made = 0; made < 80; made++) a.end.sayWith({ type: 'tally', topic: `topic ${made}`, snapshot: a.snapshot }, app.files, text(1))
    a.end.sayWith({ type: 'tally', topic: 'x'.repeat(300), snapshot: a.snapshot }, app.files, text(1))
    await a.gather()
    expect(descriptorsOf(process.pid).size - before).toBe(64)
    expect(app.warnings).toHaveLength(1)
  })

  it('hands what is nobody\'s yet to the keeper that follows', async () => {
    app = new App()
    const a = await app.serving(0, 7)
    await a.gather()
    await a.end.ends()
    const { counts, fds } = app.counts.all()
    const next = new App({}, 'q')
    next.counts.restore(counts, fds)
    const heir = await next.serving(0, 1)
    await waitFor(() => next.orphans.length === 0)
    expect(heir.total).toBe(8)
    next[Symbol.dispose]()
  })

  it('sums up the requests of the service, each process once, and never less than it said before', async () => {
    app = new App({ answerMs: 200, graceMs: 50 })
    expect(await app.counts.requests()).toBe(0)
    const [a, b, booting] = [await app.serving(0, 100), await app.serving(1, 20), app.process(1, 5_000)]
    await booting.end.is('preparing')
    expect(await app.counts.requests()).toBe(120)
    // Silent: it counts with its last word.
    b.answers = undefined
    b.own = 30
    expect(await app.counts.requests()).toBe(120)
    await b.end.ends()
    a.own = 101
    expect(await app.counts.requests()).toBe(121)
    await waitFor(() => a.inherited.has(b.id))
    expect(await app.counts.requests()).toBe(121)
    await waitFor(() => app.orphans.length === 0)
    // A successor has it directly, and more of it than the keeper knows.
    const successor = await app.serving(0, 1)
    await a.end.is('draining')
    a.own = 102
    successor.takeFrom(a)
    await a.end.ends(true)
    expect(await app.counts.requests()).toBe(123)
    await waitFor(() => app.orphans.length === 0)
    expect(await app.counts.requests()).toBe(123)
  })

  it('shows what it can read where a worker sends something else as the requests of the service', async () => {
    app = new App()
    const [, b] = [await app.serving(0, 100), await app.serving(1, 20)]
    b.answers = undefined
    // Each question waits a second for the silent one.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => { vi.useRealTimers() })
    for (const written of ['', 'no value', encodeState('text', 'the test'), encodeState([{ id: b.id }, null, { id: b.id, version: 1, includes: [], value: null }], 'the test')]) {
      b.end.sayWith({ type: 'tally', topic: 'service', snapshot: b.snapshot }, app.files, written)
      const requests = app.counts.requests()
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => { setImmediate(resolve) })
      await vi.advanceTimersByTimeAsync(1_000)
      expect(await requests).toBe(100)
    }
  })

  it('that follows shows what processes counted that ended under the keeper before', async () => {
    app = new App()
    const a = await app.serving(0, 7)
    expect(await app.counts.requests()).toBe(7)
    await a.end.ends()
    const { counts, fds } = app.counts.all()
    const next = new App({}, 'q')
    next.counts.restore(counts, fds)
    expect(await next.counts.requests()).toBe(7)
    await next.serving(0, 1)
    expect(await next.counts.requests()).toBe(8)
    next[Symbol.dispose]()
  })
})
