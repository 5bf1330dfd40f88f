/**
 * A section of state as a file: what goes in comes out, lazily for streams; no damaged, cut or foreign file passes for one; whatever goes
 * wrong, nothing stays open and the producer is told. What takes long by its size is in integration/sharing/large-values.
 */

import {
  closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, writeFileSync, writeSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { openMemoryFile, readSection, takeTextFile, textFile, writeSection } from '../../../helpers/internals.js'
import { pair } from '../../../helpers/fd-peer/support.js'
import { assertSame, state } from '../../../helpers/values.mjs'

/** Of a property; CI takes fewer. */
const runs = (usual: number): number => Math.min(usual, Number(process.env['HANDOVER_TEST_RUNS'] ?? usual))

const header = { name: 'users', schema: 3, phase: 'final', version: '1.2.3', generation: 4 } as const
const never = new AbortController().signal
const maxBytes = 2 ** 32

const openFds = (): number => readdirSync('/dev/fd').length
let before = 0
beforeEach(() => { before = openFds() })
// A read that is under way is waited for before its file is closed.
const allClosed = async (): Promise<void> => { await expect.poll(openFds, { message: 'open descriptors', timeout: 10_000 }).toBe(before) }
afterEach(allClosed)

const write = (value: unknown, options: Partial<Parameters<typeof writeSection>[2]> = {}): ReturnType<typeof writeSection> =>
  writeSection(header, value, { maxBytes, signal: never, ...options })

async function collect(value: unknown): Promise<unknown[]> {
  const items: unknown[] = []
  for await (const item of value as AsyncIterable<unknown>) items.push(item)
  return items
}

async function items(produced: unknown): Promise<unknown[]> {
  return await collect((await readSection((await write(produced)).fd, { signal: never })).value)
}

/** The bytes of a file, which is closed. */
function take(fd: number): Buffer {
  const bytes = Buffer.alloc(fstatSync(fd).size)
  readSync(fd, bytes, 0, bytes.length, 0)
  closeSync(fd)
  return bytes
}

function fileOf(bytes: Uint8Array): number {
  const fd = openMemoryFile('test')
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at)
  return fd
}

/** Reads a file to its end, whatever it is. */
async function readAll(fd: number): Promise<unknown> {
  const section = await readSection(fd, { signal: never })
  return section.header.items ? await collect(section.value) : section.value
}

describe('a round trip', () => {
  test.each([['text', false], ['plain data', true]])('any one value comes back the same, as %s, with the header', async (_, plain) => {
    await fc.assert(fc.asyncProperty(state, async (value) => {
      const { fd, bytes } = await write(value, { plain })
      expect(fstatSync(fd).size).toBe(bytes)
      const section = await readSection(fd, { signal: never })
      // The bytes alone are stored, not the memory around them.
      assertSame(section.value, value instanceof Uint8Array && !Buffer.isBuffer(value) ? new Uint8Array(value) : value)
      expect(section.header).toEqual({ ...header, format: 1, node: process.versions.node, savedAt: section.header.savedAt, items: false })
      expect(Math.abs(section.header.savedAt - Date.now())).toBeLessThan(3_600_000)
    }), { numRuns: 100 })
  })

  test('any items come back the same, bytes as Buffers', async () => {
    await fc.assert(fc.asyncProperty(fc.array(state, { maxLength: 12 }), async (list) => {
      const found = await items(list.values())
      expect(found.length).toBe(list.length)
      list.forEach((item, index) => { assertSame(found[index], item instanceof Uint8Array ? Buffer.from(item) : item) })
    }), { numRuns: 100 })
  })

  // A batch is 1 MiB with 8 bytes before each item, so the sizes lie around its borders.
  const sizes = [0, 1, 8, 65_536, 1_048_400, 1_048_560, 1_048_568, 1_048_576, 1_048_577, 2_097_152, 9_437_190]
  test.each(sizes)('bytes and texts of %i come back, as values and between small items', async (size) => {
    const bytes = Buffer.alloc(size, 'abcdefghijklmnopq')
    // Characters of one, two, three and four bytes: a border of a piece falls into each of them.
    const text = `${'aé€😀'.repeat(Math.ceil(size / 10))}`
    expect(bytes.equals(await readAll((await write(bytes)).fd) as Buffer)).toBe(true)
    const plain = await readAll((await write(new Uint8Array(bytes))).fd) as Uint8Array
    expect([Object.getPrototypeOf(plain) === Uint8Array.prototype, Buffer.compare(plain, bytes)]).toEqual([true, 0])
    expect(await readAll((await write(text)).fd) === text).toBe(true)
    const found = await items([1, bytes, 'x', text, 2, bytes.subarray(0, size >> 1), 3].values())
    expect([found[0], found[2], found[4], found[6], found.length]).toEqual([1, 'x', 2, 3, 7])
    expect(
      [bytes.equals(found[1] as Buffer), found[3] === text, bytes.subarray(0, size >> 1).equals(found[5] as Buffer)]
    ).toEqual([true, true, true])
  })

  test('generators, async generators, streams and iterators are streams; arrays, maps, sets, strings and typed arrays are values', async () => {
    function* sync(): Generator<number> { yield* [1, 2] }
    async function* later(): AsyncGenerator<number> { yield* [1, 2] }
    for (const stream of [sync(), later(), Readable.from([1, 2]), [1, 2].values(), new Set([1, 2]).values(), new Map([[1, 2]]).keys()]) {
      expect((await items(stream)).slice(0, 1)).toEqual([1])
    }
    for (const value of [[1, 2], new Map([[1, 2]]), new Set([1]), 'text', new Float64Array(2), { next: 1 }, { next: () => 1 }.toString(), null, undefined]) {
      expect(await readAll((await write(value)).fd)).toEqual(value)
    }
    expect(await items(Readable.from([]))).toEqual([])
  })

  test('an item that the producer changes after it gave it is stored as it was', async () => {
    async function* reusing(): AsyncGenerator<unknown> {
      const bytes = Buffer.alloc(100)
      const object = { at: 0 }
      for (let at = 0; at < 50; at++) {
        bytes.fill(at)
        object.at = at
        yield bytes
        yield object
      }
    }
    const found = await items(reusing())
    for (let at = 0; at < 50; at++) {
      expect(found[2 * at]).toEqual(Buffer.alloc(100, at))
      expect(found[2 * at + 1]).toEqual({ at })
    }
  })

  test('bytes that the program goes on changing are stored as they were at one moment, as a value and as an item', async () => {
    const bytes = Buffer.alloc(33_554_432)
    let over = false
    const change = (): void => {
      const count = bytes.readUInt32LE(0) + 1
      for (const at of [0, bytes.length - 4]) bytes.writeUInt32LE(count, at)
      if (!over) setImmediate(change)
    }
    change()
    onTestFinished(() => { over = true })
    for (const value of [bytes, [bytes].values()]) {
      const { value: read } = await readSection((await write(value)).fd, { signal: never })
      const stored = (read instanceof Uint8Array ? read : (await collect(read))[0]) as Buffer
      expect(stored.readUInt32LE(0)).toBe(stored.readUInt32LE(stored.length - 4))
    }
  })

  test('an item that the reader keeps is not overwritten by later ones', async () => {
    function* many(): Generator<Buffer> { for (let at = 0; at < 100; at++) yield Buffer.alloc(65_536, at) }
    const found = await items(many()) as Buffer[]
    expect(found.map((bytes, at) => bytes.every((byte) => byte === at))).toEqual(new Array(100).fill(true))
  })

  test('two readers of one file do not move each other', async () => {
    const { fd } = await write(Array.from({ length: 20_000 }, (_, index) => ({ index })).values())
    const other = openSync(`/dev/fd/${fd}`, 'r')
    const sections = [await readSection(fd, { signal: never }), await readSection(other, { signal: never })]
    const found = await Promise.all(sections.map(async ({ value }) => await collect(value)))
    expect(found[0]).toEqual(found[1])
    expect(found[0]!.length).toBe(20_000)
  })

  test('progress says how many bytes there are so far, up to all', async () => {
    const said: number[] = []
    const read: number[] = []
    function* many(): Generator<Buffer> { for (let at = 0; at < 64; at++) yield Buffer.alloc(65_536) }
    const { fd, bytes } = await write(many(), { progress: (now) => said.push(now) })
    const { value } = await readSection(fd, { signal: never, progress: (now) => read.push(now) })
    await collect(value)
    for (const list of [said, read]) {
      expect(list.at(-1)).toBe(bytes)
      expect(list.length).toBeGreaterThan(3)
      expect(list).toEqual(list.toSorted((a, b) => a - b))
    }
  })

  test.runIf(process.platform === 'linux')('what is written is sealed: nobody can change it, cut it or make it longer', async () => {
    const { fd } = await write({ a: 1 })
    expect(() => writeSync(fd, 'x', 0)).toThrow(/EPERM/)
    expect(() => { ftruncateSync(fd, 1) }).toThrow(/EPERM/)
    expect(() => { ftruncateSync(fd, 1_000_000) }).toThrow(/EPERM/)
    closeSync(fd)
  })

  test('a text goes through a file and the file is closed', () => {
    for (const text of ['', 'é€😀\0', 'x'.repeat(3_000_000)]) expect(takeTextFile(textFile(text)) === text).toBe(true)
    const directory = openSync('/', 'r')
    expect(() => takeTextFile(directory)).toThrow(/is not a file/)
  })
})

describe('a file that is none', () => {
  const small = async (): Promise<Buffer> => take((await write([1, 'two', Buffer.from('three'), { four: 4 }].values())).fd)
  const value = async (): Promise<Buffer> => take((await write({ a: [1, 2] })).fd)
  const plain = async (): Promise<Buffer> => take((await write(Array.from({ length: 50 }, (_, index) => [index]), { plain: true })).fd)

  test.each([['a stream', small], ['a value', value], ['plain data', plain]])('no prefix of a file of %s passes for a whole one', async (_, make) => {
    const whole = await make()
    for (let size = 0; size < whole.length; size++) {
      await expect(readAll(fileOf(whole.subarray(0, size))), `${size} bytes`).rejects.toMatchObject({
        code: 'HANDOVER_STATE', message: expect.stringMatching(new RegExp(`^the file of a section of the state is cut short.* ${size} bytes`))
      })
    }
    await readAll(fileOf(whole))
  })

  test('a file that was cut after bytes that are a whole file themselves is refused', async () => {
    const inner = await value()
    const outer = take((await write([inner, 1].values())).fd)
    const cut = outer.subarray(0, outer.indexOf(inner) + inner.length)
    await expect(readAll(fileOf(cut))).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('is cut short') })
  })

  test('a file with more behind it is refused', async () => {
    await expect(readAll(fileOf(Buffer.concat([await value(), Buffer.alloc(1)])))).rejects.toMatchObject({ code: 'HANDOVER_STATE' })
    await expect(readAll(fileOf(Buffer.concat([await value(), await value()])))).rejects.toMatchObject({ code: 'HANDOVER_STATE' })
  })

  test.each([['a stream', small], ['plain data', plain]])('%s with any byte changed is read or refused with HANDOVER_STATE, never more', async (_, make) => {
    const whole = await make()
    await fc.assert(fc.asyncProperty(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
      const bytes = Buffer.from(whole)
      bytes[at]! ^= change
      try {
        await readAll(fileOf(bytes))
      } catch (error) {
        expect(error).toMatchObject({ code: 'HANDOVER_STATE' })
      }
      expect(openFds()).toBe(before)
    }), { numRuns: runs(500) })
  })

  test.each<[what: string, change: (bytes: Buffer) => void, message: RegExp]>([
    ['another format', (bytes) => bytes.writeUInt32LE(7, 8), /has the format 7, expected 1\. It was not restored\. Go through a version of Handover that knows both/],
    ['another beginning', (bytes) => bytes.write('HANDOVER', 0), /does not begin as one: found 48414e444f564552, expected 68616e646f766572/],
    ['a frame that is longer than the file', (bytes) => bytes.writeUIntLE(2 ** 40, 18, 6), /at byte 16 a frame says that 1099511627776 bytes follow, and \d+ are left/],
    ['no header', (bytes) => { bytes[16] = 2 }, /does not begin with a header/],
    ['a header that is no JSON', (bytes) => { bytes[24] = 0 }, /does not begin with a header: found \0/],
    ['a header of other types', (bytes) => bytes.write('"x"', bytes.indexOf('"final"') + 1), /does not begin with a header/],
    ['a phase that nobody knows', (bytes) => bytes.write('finis', bytes.indexOf('final')), /does not begin with a header: found .*finis/],
    ['a frame of a kind that nobody knows', (bytes) => { bytes[bytes.indexOf('[{"a"') - 8] = 9 }, /^the file of section "users" is damaged: it has a frame of kind 9/],
    ['a text that is none', (bytes) => bytes.write('!', bytes.indexOf('[{"a"')), /^the state of section "users" cannot be read by this process/]
  ])('%s is refused in words', async (_, change, message) => {
    const bytes = await value()
    change(bytes)
    await expect(readAll(fileOf(bytes))).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringMatching(message) })
  })

  test('a directory, a device, a socket, a pipe and a number of nothing are refused and closed', async () => {
    const device = openSync('/dev/null', 'r')
    const directory = openSync('/', 'r')
    const [socket, other] = pair()
    for (const fd of [device, directory, socket]) {
      await expect(readAll(fd)).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('is no file, but a socket, a directory or a device') })
      expect(() => fstatSync(fd)).toThrow(/EBADF/)
    }
    closeSync(other)
    await expect(readAll(999_999)).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('EBADF') })
  })

  test('a file that becomes shorter while it is read is refused at that point', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-state-'))
    onTestFinished(() => { rmSync(folder, { recursive: true }) })
    const place = path.join(folder, 'section')
    function* many(): Generator<Buffer> { for (let at = 0; at < 64; at++) yield Buffer.alloc(65_536) }
    writeFileSync(place, take((await write(many())).fd))
    const { value: stream } = await readSection(openSync(place, 'r+'), { signal: never })
    let count = 0
    await expect((async () => {
      for await (const _ of stream as AsyncIterable<Buffer>) if (count++ === 0) writeFileSync(place, '')
    })()).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('became shorter while it was read') })
    expect(count).toBeLessThan(64)
  })

  test('a file that cannot be read is refused', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'handover-state-'))
    onTestFinished(() => { rmSync(folder, { recursive: true }) })
    writeFileSync(path.join(folder, 'section'), await value())
    await expect(readAll(openSync(path.join(folder, 'section'), 'a'))).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('cannot be read at byte 0: EBADF') })
  })
})

/** What became of a producer. */
interface Told { produced: number; returned: boolean }

function* counted(told: Told, size = 65_536): Generator<Buffer> {
  try {
    for (;;) {
      told.produced++
      yield Buffer.alloc(size)
    }
  } finally {
    told.returned = true
  }
}

async function* countedLater(told: Told): AsyncGenerator<Buffer> {
  for await (const _ of [1]) yield* counted(told)
}

describe('writing is given up', () => {
  test.each([['a generator', counted], ['an async generator', countedLater]])('above the limit: both sizes are named, and return() of %s is called', async (_, produce) => {
    const told = { produced: 0, returned: false }
    const error = await write(produce(told), { maxBytes: 3_000_000 }).catch((thrown: unknown) => thrown as Error)
    const [, needed] = /^the state of section "users" is too large: it needs (\d+) bytes or more, expected at most 3000000\. Nothing was changed/.exec((error as Error).message)!
    expect(error).toMatchObject({ code: 'HANDOVER_STATE' })
    expect(Number(needed)).toBeGreaterThan(3_000_000)
    expect(Number(needed)).toBeLessThan(3_100_000)
    expect(told).toEqual({ produced: 46, returned: true })
  })

  test('at the limit exactly it is written, one byte below it is not', async () => {
    for (const [value, plain] of [[{ a: 1 }, false], [{ a: 1 }, true], [Buffer.alloc(3_000_000), true], ['x'.repeat(2_000_000), true]] as const) {
      const { fd, bytes } = await write(value, { plain })
      closeSync(fd)
      // savedAt has as many digits for a long time.
      const same = await write(value, { maxBytes: bytes, plain })
      expect(same.bytes).toBe(bytes)
      closeSync(same.fd)
      await expect(write(value, { maxBytes: bytes - 1, plain })).rejects.toMatchObject({ code: 'HANDOVER_STATE' })
    }
    expect((await write(['x'].values(), { maxBytes: 0 }).catch((error: unknown) => error as Error) as Error).message).toContain('expected at most 0')
  })

  test('by an item that cannot be written: its index and the path are named', async () => {
    const told = { returned: false }
    function* produce(): Generator<unknown> {
      try {
        yield { fine: 1 }
        yield { users: [{ socket: () => 1 }] }
      } finally {
        told.returned = true
      }
    }
    await expect(write(produce())).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('the state of section "users" holds a function at [1].users[0].socket') })
    expect(told.returned).toBe(true)
    await expect(write([() => 1].values())).rejects.toMatchObject({ message: expect.stringContaining('holds a function at [0], which') })
    await expect(write({ of: Symbol('x') })).rejects.toMatchObject({ message: expect.stringContaining('holds a symbol at of, which') })
  })

  test.each<[what: string, produce: (error: Error) => unknown]>([
    ['a generator', function* (error) { yield Buffer.alloc(2_000_000); throw error }],
    ['an async generator', async function* (error) { yield Buffer.alloc(2_000_000); throw error }],
    ['a stream', (error) => new Readable({ read() { this.destroy(error) } })],
    ['an iterable that cannot begin', (error) => ({ [Symbol.asyncIterator]: () => { throw error } })]
  ])('by %s that throws: with that error', async (_, produce) => {
    const error = new Error('by the producer')
    await expect(write(produce(error))).rejects.toBe(error)
  })

  test('by bytes of memory that threads share, as one value and as an item', async () => {
    const bytes = new Uint8Array(new SharedArrayBuffer(4))
    await expect(write(bytes)).rejects.toThrow(/^the state of section "users" holds an instance of Uint8Array over a SharedArrayBuffer, which cannot go/)
    await expect(write([Buffer.from('a'), Buffer.from(bytes.buffer)].values())).rejects.toThrow(/holds an instance of Buffer over a SharedArrayBuffer at \[1\], which cannot go/)
  })

  test('a return() that throws, or never answers while the signal comes, hides nothing', async () => {
    const iterator = (back: () => unknown): unknown => ({ [Symbol.asyncIterator]: () => ({ next: async () => ({ value: Symbol('x') }), return: back }) })
    await expect(write(iterator(() => { throw new Error('by return') }))).rejects.toMatchObject({ code: 'HANDOVER_STATE' })
    await expect(write(iterator(() => Promise.reject(new Error('by return'))))).rejects.toMatchObject({ code: 'HANDOVER_STATE' })
    const abort = new AbortController()
    const reason = new Error('late')
    await expect(write(iterator(() => {
      abort.abort(reason)
      return new Promise(() => undefined)
    }), { signal: abort.signal })).rejects.toBe(reason)
  })

  test('by the signal before it begins', async () => {
    const reason = new Error('given up')
    const told = { produced: 0, returned: false }
    const stream = Readable.from(counted(told))
    await expect(write(stream, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(stream.destroyed).toBe(true)
    await expect(write({ a: 1 }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })

  test('by the signal in the middle of a producer that never waits', async () => {
    for (const produce of [counted, countedLater]) {
      const told = { produced: 0, returned: false }
      const abort = new AbortController()
      const reason = new Error('given up')
      const writing = write(produce(told), { signal: abort.signal, progress: (bytes) => { if (bytes > 5_000_000) abort.abort(reason) } })
      await expect(writing).rejects.toBe(reason)
      expect(told.returned).toBe(true)
      expect(told.produced * 65_536).toBeGreaterThan(5_000_000)
    }
  })

  test('by the signal while a producer never answers: a stream is destroyed', async () => {
    const abort = new AbortController()
    const reason = new Error('given up')
    const silent = new Readable({ read: () => undefined })
    silent.push('first')
    const writing = write(silent, { signal: abort.signal })
    while (silent.readableLength > 0) await sleep(1)
    abort.abort(reason)
    await expect(writing).rejects.toBe(reason)
    expect(silent.destroyed).toBe(true)
    const hanging = write({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) }, {
      signal: AbortSignal.timeout(5)
    })
    await expect(hanging).rejects.toMatchObject({ name: 'TimeoutError' })
  })
})

describe('reading is given up', () => {
  const many = async (): Promise<number> => {
    function* produce(): Generator<Buffer> { for (let at = 0; at < 128; at++) yield Buffer.alloc(65_536, at) }
    return (await write(produce())).fd
  }

  test('nothing is read ahead of the program but two batches', async () => {
    const read: number[] = []
    const { value, close } = await readSection(await many(), { signal: never, progress: (bytes) => read.push(bytes) })
    await (value as AsyncIterable<Buffer>)[Symbol.asyncIterator]().next()
    await sleep(20)
    expect(read.at(-1)).toBeLessThan(2_100_000)
    close()
  })

  test('by close() before, in the middle and at the end', async () => {
    const untouched = await readSection(await many(), { signal: never })
    untouched.close()
    untouched.close()
    await expect(collect(untouched.value)).rejects.toMatchObject({ code: 'HANDOVER_STATE', message: expect.stringContaining('was closed before it was read') })

    const middle = await readSection(await many(), { signal: never })
    const iterator = (middle.value as AsyncIterable<Buffer>)[Symbol.asyncIterator]()
    expect((await iterator.next()).value).toEqual(Buffer.alloc(65_536))
    middle.close()
    await expect((async () => { for (let at = 0; at < 128; at++) await iterator.next() })()).rejects.toMatchObject({ code: 'HANDOVER_STATE' })

    const end = await readSection(await many(), { signal: never })
    expect((await collect(end.value)).length).toBe(128)
    end.close()
    const value = await readSection((await write(1)).fd, { signal: never })
    value.close()
  })

  test('by a loop that is left, and by an item that the program does not like', async () => {
    const { value } = await readSection(await many(), { signal: never })
    for await (const _ of value as AsyncIterable<Buffer>) break
    expect(openFds()).toBe(before)
    const next = await readSection(await many(), { signal: never })
    await expect((async () => {
      for await (const _ of next.value as AsyncIterable<Buffer>) throw new Error('by the program')
    })()).rejects.toThrow('by the program')
  })

  test('a stream can be read once', async () => {
    const { value } = await readSection(await many(), { signal: never })
    expect((await collect(value)).length).toBe(128)
    expect(await collect(value)).toEqual([])
  })

  test('by the signal before, between the items, and while nobody reads', async () => {
    const reason = new Error('given up')
    const closed = await many()
    await expect(readSection(closed, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)

    const abort = new AbortController()
    const { value } = await readSection(await many(), { signal: abort.signal })
    let count = 0
    await expect((async () => {
      for await (const _ of value as AsyncIterable<Buffer>) if (++count === 40) abort.abort(reason)
    })()).rejects.toBe(reason)
    expect(count).toBe(40)

    const idle = new AbortController()
    await readSection(await many(), { signal: idle.signal })
    idle.abort(reason)
    await allClosed()
  })
})
