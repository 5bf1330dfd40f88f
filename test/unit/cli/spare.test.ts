/** The keeper's spare in one process: when it is started, taken and thrown away. The far end of its line is the test's. */

import { closeSync, mkdtempSync, readSync, rmSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { addon, openPairs, type CommandLine, type ProcessEnd } from '@handover/core/internal'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { waitFor } from '../../helpers/program.js'
import { Spare, type WorkerSide } from '../../helpers/internals.js'

const workerSide: WorkerSide = { heard: () => undefined, leaving: () => true, ended: () => undefined, warn: () => undefined }

/** A process that the keeper has started. */
class FakeSpare {
  readonly pid: number
  readonly env: NodeJS.ProcessEnv
  readonly line: readonly [number, number]
  readonly #theirs: number[]
  isOver = false
  #over: (end: ProcessEnd) => void = () => undefined
  readonly ended = new Promise<ProcessEnd>((resolve) => { this.#over = resolve })

  constructor(pid: number, env: NodeJS.ProcessEnv) {
    const [[messages, theirs], [descriptors, theirDescriptors]] = openPairs(addon(), false)
    this.pid = pid
    this.env = env
    this.line = [messages, descriptors]
    this.#theirs = [theirs, theirDescriptors]
  }

  async boots(): Promise<void> {
    writeSync(this.#theirs[0]!, `${JSON.stringify([file])}\n`)
    await waitFor(() => spare.status.ready)
  }

  /** What it was told. */
  heard(): unknown {
    const chunk = Buffer.alloc(1_000)
    return JSON.parse(chunk.toString('utf8', 0, readSync(this.#theirs[0]!, chunk)))
  }

  hangsUp(): void {
    for (const fd of this.#theirs.splice(0)) closeSync(fd)
  }

  dies(): void {
    if (this.isOver) return
    this.isOver = true
    this.hangsUp()
    this.#over({ code: null, signal: 'SIGKILL' })
  }
}

let folder: string
let file: string
let started: FakeSpare[]
let isQuiet: boolean
let command: CommandLine
let env: NodeJS.ProcessEnv
let spare: Spare

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
  folder = mkdtempSync(path.join(tmpdir(), 'handover-spare-'))
  file = path.join(folder, 'preload.js')
  writeFileSync(file, '')
  started = []
  isQuiet = true
  command = { file: process.execPath, args: ['--require', file, '--title', 'shop', 'server.js'], nodeOptions: 4, cwd: folder }
  env = { A: '1' }
  const options = { name: 'shop', get env() { return env }, command: () => command }
  spare = new Spare({ options, get isQuiet() { return isQuiet } }, (_command, itsEnv) => {
    const process = new FakeSpare(8_000_000 + started.length, itsEnv)
    started.push(process)
    const [messages, descriptors] = process.line.map((fd) => addon().duplicate(fd)) as [number, number]
    const child = { ended: process.ended, stderr: () => '', kill: () => { process.dies() }, unref: () => undefined }
    return Promise.resolve({ started: { pid: process.pid, messages, descriptors, child }, line: process.line })
  })
  spare.begin()
})

afterEach(() => {
  spare.close()
  for (const process of started) process.dies()
  vi.useRealTimers()
  rmSync(folder, { recursive: true })
})

/** Until one more was started. */
async function next(): Promise<FakeSpare> {
  const count = started.length + 1
  for (let seconds = 0; started.length < count && seconds < 60; seconds++) await vi.advanceTimersByTimeAsync(1_000)
  expect(started).toHaveLength(count)
  return started.at(-1)!
}

async function booted(): Promise<FakeSpare> {
  const process = await next()
  await process.boots()
  return process
}

/** The pid of the next worker. */
async function take(slot = 0): Promise<number> {
  const { worker } = await spare.startWorker(command, { ...env, HANDOVER_PATHS: '["/s"]' }, slot, 'shop', workerSide)
  return worker.pid
}

it('is started when nothing was started for a while, with the environment of a worker and its mark', async () => {
  isQuiet = false
  await vi.advanceTimersByTimeAsync(60_000)
  expect(started).toEqual([])
  isQuiet = true
  const process = await next()
  expect(process.env).toEqual({ A: '1', HANDOVER_SPARE: '1' })
  expect(spare.status).toEqual({ pid: process.pid, ready: false, used: 0 })
  await vi.advanceTimersByTimeAsync(60_000)
  expect(started).toHaveLength(1)
})

it('is the next worker, is told its slot and the paths, and is followed by another one', async () => {
  const process = await booted()
  expect(await take(3)).toBe(process.pid)
  expect(process.heard()).toEqual({ slot: 3, paths: '["/s"]' })
  expect(spare.status).toEqual({ pid: null, ready: false, used: 1 })
  expect((await booted()).pid).not.toBe(process.pid)
})

it.each([
  ['a file that it has loaded changes', () => { utimesSync(file, new Date(), new Date()) }],
  ['a file that it has loaded is gone', () => { rmSync(file) }],
  ['the options of Node change', () => { command = { ...command, args: ['--require', file, '--title', 'other', 'server.js'] } }],
  ['the environment changes', () => { env = { A: '2' } }],
  ['it has ended, which was not noticed yet', () => { started[0]!.hangsUp() }]
])('is not used where %s', async (_what, change) => {
  const process = await booted()
  change()
  expect(await take()).not.toBe(process.pid)
  expect(process.isOver).toBe(true)
  expect(spare.status).toMatchObject({ pid: null, used: 0 })
})

it('is thrown away without being asked for when another build is there, and the next one is of that', async () => {
  const first = await booted()
  utimesSync(file, new Date(), new Date())
  const second = await next()
  expect(first.isOver).toBe(true)
  await second.boots()
  expect(await take()).toBe(second.pid)
})

it('that dies is replaced, later each time, and not for ever', async () => {
  for (let deaths = 0; deaths < 5; deaths++) (await next()).dies()
  await vi.advanceTimersByTimeAsync(120_000)
  expect(started).toHaveLength(5)
  expect(spare.status).toEqual({ pid: null, ready: false, used: 0, off: '5 in a row ended by themselves' })
})

it('ends with the keeper, and none follows', async () => {
  const process = await booted()
  spare.close()
  expect(process.isOver).toBe(true)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(started).toHaveLength(1)
})

it.each([
  ['--inspect', ['--inspect=0'], {}], ['--env-file', ['--env-file', '.env'], {}], ['--cpu-prof', ['--cpu-prof'], {}], ['-r', [], { NODE_OPTIONS: '-r ./agent.js' }]
])('does not exist with %s, and the status says so', async (option, words, variables) => {
  command = { ...command, args: ['--require', file, ...words, 'server.js'], nodeOptions: 2 + words.length }
  env = variables
  await vi.advanceTimersByTimeAsync(60_000)
  expect(started).toEqual([])
  expect(spare.status.off).toBe(`with ${option} Node does more than to boot`)
})

it.each([[['--require', './agent.js'], {}], [['--import', 'tsx', '--max-old-space-size=512'], { NODE_OPTIONS: '--enable-source-maps --no-warnings' }]])('exists with %j: they come after it', async (words, variables) => {
  command = { ...command, args: ['--require', file, ...words, 'server.js'], nodeOptions: 2 + words.length }
  env = variables
  await next()
})
