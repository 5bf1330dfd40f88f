/**
 * Every form of listen() and bind(), in one process with a server for each, reloaded twice. What a user of Node sees of each form is
 * compared with a run where Handover is off.
 */

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ask, freePorts, type Kind, type Place } from '../../helpers/ask.js'
import { Program, descriptorsOf, programPath, waitFor, type ProgramEvent } from '../../helpers/program.js'
// @ts-expect-error -- a program, not a module with types
import { datagramSignatures, signatures } from '../../programs/signatures.mjs'

interface Wanted { name: string; form: string; type: Kind; port?: number; path?: string; fd?: number; shared?: number }
type Address = { address: string; family: string; port: number } | string | null | undefined
interface Seen {
  name: string
  type: Kind
  listening: number
  done: number
  chains: boolean
  synchronous: boolean
  addressAtOnce: Address
  address: Address
  optionsAtOnce?: object
  options?: object
  inode: string
  error?: { code: string; message: string }
}

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
const hasReusePort = major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12)
const kinds: Kind[] = ['net', 'http', 'https', 'http2', 'http2-clear']
const forms = Object.keys(signatures as object).filter((form) => hasReusePort || !form.includes('reusePort'))

/** The listener that the program inherits from whoever starts it, as from a service manager, as descriptor 7. */
const given = net.createServer()
let folder = ''

async function scenario(name: string): Promise<{ file: string; servers: Wanted[] }> {
  const ports = await freePorts(100)
  const port = (): number => ports.pop() ?? 0
  const shared = port()
  const at = path.join(folder, name)
  let paths = 0
  const want = (form: string, type: Kind): Wanted => ({ name: `${type} ${form}`, form, type, port: port(), path: `${at}-${paths++}`, fd: 7, shared })
  const servers = [
    ...forms.map((form) => want(form, form === 'listen({ fd })' ? 'net' : 'http')),
    ...['listen(port, host)', 'listen(path)', 'listen(0)'].flatMap((form) => kinds.filter((kind) => kind !== 'http').map((kind) => want(form, kind))),
    ...Object.keys(datagramSignatures as object).flatMap((form) => [want(form, 'udp4'), want(form, 'udp6')])
  ]
  const file = `${at}.json`
  writeFileSync(file, JSON.stringify({ servers, options: {} }))
  return { file, servers }
}

const start = (file: string, env: Record<string, string> = {}): Program => {
  const { fd } = (given as unknown as { _handle: { fd: number } })._handle
  return Program.start(programPath('listeners.mjs'), { env: { SCENARIO_FILE: file, ...env }, descriptors: { 7: fd } })
}

const seenBy = (event: ProgramEvent): Map<string, Seen> => new Map((event['servers'] as Seen[]).map((seen) => [seen.name, seen]))

/** The backlogs of all TCP listeners of this machine: local address to Send-Q. */
function backlogs(): Map<string, number> {
  const lines = execFileSync('ss', ['-H', '-ltn'], { encoding: 'utf8' }).trim().split('\n')
  return new Map(lines.map((line) => line.trim().split(/\s+/)).map(([, , backlog = '', local = '']) => [local, Number(backlog)]))
}

const placeOf = (seen: Seen): Place => {
  const { address } = seen
  if (typeof address === 'string') return address
  if (!address) throw new Error(`${seen.name} has no address`)
  return { port: address.port, host: address.family === 'IPv6' ? '::1' : '127.0.0.1' }
}

let plain: Map<string, Seen>
let generations: Map<string, Seen>[]
let pids: number[]
let reports: { kept: string[]; added: string[]; dropped: string[] }[]
let names: string[]
let modes: Map<string, number>[]
let queues: Map<string, number>[]
let versionSix: Map<string, boolean>
let program: Program

const modesNow = (servers: readonly Wanted[]): Map<string, number> => new Map(servers.filter(({ form }) => form.includes('path') && !form.includes('abstract') && !form.includes('undefined')).map(({ name, path: file = '' }) => [name, statSync(file).mode & 0o777]))

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'handover-signatures-'))
  given.listen(0, '127.0.0.1')
  await once(given, 'listening')

  const without = await scenario('plain')
  await using off = start(without.file, { HANDOVER: 'off' })
  plain = seenBy(await off.event('bound'))

  const withHandover = await scenario('handover')
  names = withHandover.servers.map(({ name }) => name)
  program = start(withHandover.file)
  const first = await program.event('bound')
  given.close()
  modes = [modesNow(withHandover.servers)]
  queues = [backlogs()]
  const toSecond = (await program.hangUp())['report'] as { listeners: typeof reports[0] }
  const second = await program.event('bound', ({ generation }) => generation === 2)
  modes.push(modesNow(withHandover.servers))
  await waitFor(() => !program.alive.includes(first.pid))
  const toThird = (await program.hangUp())['report'] as { listeners: typeof reports[0] }
  const last = await program.event('bound', ({ generation }) => generation === 3)
  modes.push(modesNow(withHandover.servers))
  await waitFor(() => !program.alive.includes(second.pid))
  queues.push(backlogs())
  generations = [first, second, last].map(seenBy)
  pids = [first, second, last].map(({ pid }) => pid)
  reports = [toSecond.listeners, toThird.listeners]
  versionSix = new Map(execFileSync('ss', ['-H', '-ltne'], { encoding: 'utf8' }).trim().split('\n').map((line) => [line.trim().split(/\s+/)[3] ?? '', /v6only:1/.test(line)]))
})

afterAll(async () => {
  await program[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

const all = [
  ...forms.map((form) => `${form === 'listen({ fd })' ? 'net' : 'http'} ${form}`),
  ...['listen(port, host)', 'listen(path)', 'listen(0)'].flatMap((form) => kinds.filter((kind) => kind !== 'http').map((kind) => `${kind} ${form}`)),
  ...Object.keys(datagramSignatures as object).flatMap((form) => [`udp4 ${form}`, `udp6 ${form}`])
]

const of = (generation: number, name: string): Seen => {
  const seen = generations[generation]?.get(name)
  if (!seen) throw new Error(`generation ${generation + 1} has no ${name}`)
  return seen
}

describe.each(all)('%s', (name) => {
  test('is the same listener in three generations', () => {
    expect(of(0, name).error).toBeUndefined()
    expect([of(1, name).inode, of(2, name).inode]).toEqual([of(0, name).inode, of(0, name).inode])
  })

  test('has the same address in three generations, known as early as in Node', () => {
    const { address } = of(0, name)
    for (const generation of [0, 1, 2]) {
      expect(of(generation, name).address).toEqual(address)
      if (plain.get(name)?.addressAtOnce) expect(of(generation, name).addressAtOnce).toEqual(address)
    }
    const shape = (value: Address): unknown => (typeof value === 'object' && value !== null ? { address: value.address, family: value.family } : typeof value)
    expect(shape(address)).toEqual(shape(plain.get(name)?.address))
  })

  test('looks to its user as in Node: one "listening", asynchronous, one callback, the options as they were given', () => {
    const strip = (options: object | undefined): unknown => options && Object.fromEntries(Object.entries(options).map(([key, value]) => [key, key === 'port' || key === 'path' ? typeof value : value as unknown]))
    const visible = (seen: Seen | undefined): unknown => seen && {
      listening: seen.listening, done: seen.done, chains: seen.chains, synchronous: seen.synchronous, atOnce: strip(seen.optionsAtOnce),
      options: strip(seen.options)
    }
    for (const generation of [0, 1, 2]) expect(visible(of(generation, name))).toEqual(visible(plain.get(name)))
  })

  test('is answered by the newest generation', async () => {
    const seen = of(2, name)
    expect(await ask(seen.type, placeOf(seen))).toBe(pids[2])
  })
})

test('Node has nothing to warn of', () => {
  expect(program.stderr).not.toMatch(/Warning/)
})

test('all are kept and none is added or dropped', () => {
  for (const { kept, added, dropped } of reports) {
    expect(kept).toHaveLength(names.length)
    expect({ added, dropped }).toEqual({ added: [], dropped: [] })
  }
})

test('no listener is held twice or left over in the last generation', () => {
  const held = [...descriptorsOf(pids[2] ?? 0).values()]
  for (const name of names) expect(held.filter((target) => target === of(2, name).inode), name).toHaveLength(1)
})

test('the backlog of every TCP listener is what was asked for, before and after', () => {
  const asked: Record<string, number> = { 'http listen(port, host, backlog)': 700, 'http listen(port, host, backlog, callback)': 20, 'http listen(port, backlog, callback)': 30, 'http listen({ port, exclusive, backlog })': 900 }
  for (const name of names) {
    const { address } = of(0, name)
    if (typeof address !== 'object' || address === null || name.includes('bind') || name.includes('{ fd }')) continue
    const local = address.address === '::' ? `*:${address.port}` : address.family === 'IPv6' ? `[${address.address}]:${address.port}` : `${address.address}:${address.port}`
    const found = queues.map((queue) => queue.get(local) ?? queue.get(local.replace('*', '[::]')))
    expect(found, name).toEqual([asked[name] ?? 511, asked[name] ?? 511])
  }
})

test('ipv6Only stays with the listener that had it', () => {
  const port = (name: string): number => (of(2, name).address as { port: number }).port
  expect(versionSix.get(`[::]:${port('http listen({ port, ipv6Only })')}`)).toBe(true)
  expect(versionSix.get(`*:${port('http listen(port, "::")')}`)).toBe(false)
})

test('the mode of a Unix socket is what was asked for, and stays', () => {
  const [before, ...after] = modes
  for (const later of after) expect(later).toEqual(before)
  const mode = (form: string): number => (before?.get(`http ${form}`) ?? 0) & 0o666
  expect(mode('listen({ path, readableAll })') & 0o444).toBe(0o444)
  expect(mode('listen({ path, writableAll })') & 0o222).toBe(0o222)
  expect(mode('listen({ path, readableAll, writableAll, backlog })')).toBe(0o666)
})
