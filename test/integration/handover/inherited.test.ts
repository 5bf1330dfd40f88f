/** Descriptors above 2 that a program was started with: its processes find them at the same numbers, and never a channel of Handover's. */

import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { native } from '../../helpers/internals.js'
import { Keeping } from '../../helpers/keeping.js'
import { Folder } from '../../helpers/plan.js'
import { descriptorsOf, Program, programPath, waitFor } from '../../helpers/program.js'

/** All that stands in the pipe. */
function piped(fd: number): string {
  const chunk = Buffer.alloc(65_536)
  return native!.pollReadable(fd, 0) === 1 ? chunk.toString('latin1', 0, readSync(fd, chunk)) : ''
}

/** A file, and the two ends of a pipe and of a pair of sockets. */
class Given implements Disposable {
  readonly folder = new Folder()
  readonly file = openSync(this.folder.at('audit.log'), 'w')
  readonly [Symbol.dispose] = (): void => {
    for (const fd of new Set([this.file, ...this.pipe, ...this.sockets])) this.close(fd)
    this.folder[Symbol.dispose]()
  }
  readonly pipe = native!.pipe() as [number, number]
  readonly sockets = native!.socketPair() as [number, number]
  readonly #closed = new Set<number>()

  close(fd: number): void {
    if (!this.#closed.has(fd)) closeSync(fd)
    this.#closed.add(fd)
  }

  get written(): string {
    return readFileSync(this.folder.at('audit.log'), 'utf8')
  }
}

const lines = (pids: readonly number[]): string => pids.map((pid) => `${pid}\n`).join('')

describe.concurrent('under a keeper', () => {
  test.each(['off', 'on'])('each worker has them, after a crash, a reload and a new keeper: --spare %s', async (spare) => {
    using given = new Given()
    const { file, pipe: [reader, writer], sockets: [ours, theirs] } = given
    await using app = new Keeping({
      program: 'inherits.mjs', words: ['--spare', spare], env: { WRITES: '3,4,9' }, descriptors: { 3: file, 4: writer, 9: theirs }
    })
    const pids = await app.serves()
    if (spare === 'on') await waitFor(async () => (await app.status())!.keeper!.spare!.ready)
    process.kill(pids[0]!, 'SIGKILL')
    await waitFor(async () => ![0, pids[0]].includes((await app.serves())[0]))
    if (spare === 'on') expect((await app.status())!.keeper!.spare!.used).toBe(1)
    pids.push(...await app.serves())
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
    pids.push(...await app.serves())
    expect(await app.reload('--keeper')).toMatchObject({ ok: true })
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
    pids.push(...await app.serves())
    expect(new Set(pids).size).toBe(4)
    expect(given.written).toBe(lines(pids))
    expect(piped(reader)).toBe(lines(pids))
    expect(piped(ours)).toBe(lines(pids))
  })

  test('a readiness pipe that its reader has closed is no reason for the next worker to end', async () => {
    using given = new Given()
    const { pipe: [reader, writer] } = given
    await using app = new Keeping({ program: 'inherits.mjs', env: { WRITES: '3', CLOSES: '1' }, descriptors: { 3: writer } })
    const [first] = await app.serves()
    expect(piped(reader)).toBe(lines([first!]))
    given.close(reader)
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
    expect((await app.status())!.keeper!.crashes).toBe(0)
  })

  test('a program that writes to descriptors which nobody gave it does not meet a channel', async () => {
    await using app = new Keeping({ program: 'inherits.mjs', env: { WRITES: '3,4,5,6,7,8,9' } })
    await app.serves()
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
    expect((await app.status())!.keeper!.crashes).toBe(0)
  })
})

describe.concurrent('without a keeper', () => {
  /** The processes, after two reloads. */
  async function reloadTwice(program: Program): Promise<number[]> {
    await program.event('listening')
    const pids = [program.pid]
    for (const count of [2, 3]) {
      await program.hangUp()
      await waitFor(() => program.serving !== pids.at(-1))
      pids.push(program.serving)
      expect(pids).toHaveLength(count)
    }
    return pids
  }

  test('each successor has them', async () => {
    using given = new Given()
    const { file, pipe: [reader, writer], sockets: [ours, theirs] } = given
    await using program = Program.start(programPath('inherits.mjs'), {
      descriptors: { 3: file, 4: writer, 9: theirs }, env: { HANDOVER_DIR: given.folder.at('control'), WRITES: '3,4,9' }
    })
    const pids = await reloadTwice(program)
    expect(given.written).toBe(lines(pids))
    expect(piped(reader)).toBe(lines(pids))
    expect(piped(ours)).toBe(lines(pids))
    // Their numbers, and no copy beside them.
    const found = [...descriptorsOf(pids[2]!)].filter(([, target]) => target === given.folder.at('audit.log'))
    expect(found.map(([number]) => number)).toEqual([3])
  })

  test('one that the program has closed is not opened for it again, nor is what has its number now', async () => {
    using given = new Given()
    const { file, pipe: [reader, writer] } = given
    await using program = Program.start(programPath('inherits.mjs'), {
      descriptors: { 3: writer, 4: file }, env: { HANDOVER_DIR: given.folder.at('control'), WRITES: '3', CLOSES: '1' }
    })
    const pids = await reloadTwice(program)
    expect(piped(reader)).toBe(lines(pids.slice(0, 1)))
    expect(descriptorsOf(pids[2]!).get(4)).toBe(given.folder.at('audit.log'))
    expect(descriptorsOf(pids[2]!).get(3)).not.toMatch(/^pipe:/)
  })

  test('a program that writes to descriptors which nobody gave it does not meet a channel', async () => {
    using given = new Given()
    await using program = Program.start(programPath('inherits.mjs'), { env: { HANDOVER_DIR: given.folder.at('control'), WRITES: '3' } })
    const [, , last] = await reloadTwice(program)
    const low = [...descriptorsOf(last!)].filter(([number]) => number > 2 && number < 10)
    expect(new Set(low.map(([, target]) => target))).toEqual(new Set(['/dev/null']))
  })

  test('what V8 writes about a process (--prof) is open in that process alone', async () => {
    using given = new Given()
    const log = given.folder.at('v8.log')
    await using program = Program.start(programPath('inherits.mjs'), {
      execArgv: ['--prof', `--logfile=${log}`], descriptors: { 3: given.file }, env: { HANDOVER_DIR: given.folder.at('control'), WRITES: '3' }
    })
    const pids = await reloadTwice(program)
    const logs = [...descriptorsOf(pids[2]!).values()].filter((target) => target.endsWith('-v8.log'))
    expect(logs).toHaveLength(1)
    expect(given.written).toBe(lines(pids))
  })
})
