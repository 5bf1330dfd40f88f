/** Listeners that change from one version to the next: which are kept, added or dropped, and what the next reload makes of them. */

import { once } from 'node:events'
import { mkdirSync, rmdirSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { Report } from '@handover/core'
import { freePorts } from '../../../helpers/ask.js'
import { ask, FakeMachine, type FakeProcess, type FakeProgram } from '../../../helpers/fake-host.js'
import { unguarded } from '../../../helpers/internals.js'
import { Folder } from '../../../helpers/plan.js'

let machine: FakeMachine
let a: number
let b: number

beforeEach(async () => {
  [a, b] = await freePorts(2) as [number, number]
  machine = new FakeMachine(() => undefined)
})
afterEach(async () => { await machine[Symbol.asyncDispose]() })

/** A version that listens on these ports, one after the other, and is ready then. */
const on = (...ports: number[]): FakeProgram => async (process) => {
  process.generation.configure({ undoWindow: 1_000, linger: 0 })
  for (const port of ports) await process.listen(process.serve(), port)
  process.generation.ready()
}

async function start(program: FakeProgram): Promise<FakeProcess> {
  machine.program = program
  return await machine.start()
}

/** Reloads whoever serves with this version; the one before has ended then. */
async function reload(program: FakeProgram): Promise<Report['listeners']> {
  const serving = machine.alive.at(-1)!
  machine.program = program
  const { listeners } = await serving.generation.reload()
  await machine.advance(1_000)
  await machine.until(() => serving.end !== undefined, 'the predecessor to end')
  return listeners
}

const named = (...ports: number[]): string[] => ports.map((port) => `tcp 127.0.0.1:${port}`)
const portsOf = ({ servers }: FakeProcess): number[] => servers.map((server) => (server.address() as net.AddressInfo).port)

it('the first listen() says which variable is mistyped, and no later one does', async () => {
  const first = await start(async (process) => {
    process.env['HANDOVER_LINGR'] = '5'
    await on(a, b)(process)
  })
  expect(first.lines.filter((line) => line.includes('HANDOVER_LINGR'))).toEqual(['1 warn: the variable HANDOVER_LINGR means nothing, and is ignored. Did you mean HANDOVER_LINGER?'])
})

it('a listener that was dropped refuses connects, and can be added again', async () => {
  await start(on(a, b))
  expect(await reload(on(a))).toEqual({ kept: named(a), added: [], dropped: named(b) })
  await expect(ask(b)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  expect(await reload(on(a, b))).toEqual({ kept: named(a), added: named(b), dropped: [] })
  expect([await ask(a), await ask(b)]).toEqual(['3', '3'])
})

it('the error of a failed reload names what is not served any more: a path that is gone with its folder', async () => {
  using folder = new Folder()
  const file = folder.at('run/app.sock')
  mkdirSync(path.dirname(file))
  const first = await start(async (process) => {
    await on(a)(process)
    await once(process.serve().listen(file), 'listening')
  })
  // As by a command, and nothing can be bound there.
  unguarded.unlinkSync(file)
  rmdirSync(path.dirname(file))
  machine.program = () => { throw new Error('this build is bad') }
  await expect(first.generation.reload()).rejects.toMatchObject({
    code: 'HANDOVER_SUCCESSOR_EXIT', serving: `Process ${first.pid} (generation 1) serves tcp 127.0.0.1:${a}; NOT served: unix ${file}`
  })
})

it('a server that listens late, when the process already serves, is kept by the next reload', async () => {
  const first = await start(on(a))
  await first.listen(first.serve(), b)
  expect((await reload(on(a, b))).kept).toEqual(named(a, b))
})

it('a server that a successor adds late listens at once and belongs to the next handover', async () => {
  await start(on(a))
  await reload(on(a))
  const [, second] = machine.processes
  await second!.listen(second!.serve(), b)
  expect(await ask(b)).toBe('2')
  expect((await reload(on(a, b))).kept).toEqual(named(a, b))
})

it('a listener that the program closed is not handed over', async () => {
  const first = await start(on(a, b))
  await new Promise((resolve) => first.servers[1]!.close(resolve))
  expect(await reload(on(a))).toEqual({ kept: named(a), added: [], dropped: [] })
})

it('a server that the program closes and opens again in one step is handed over, as is one that has failed to open before', async () => {
  const first = await start(on(a))
  const [server] = first.servers
  server!.close().listen(a, '127.0.0.1')
  await once(server!, 'close')
  const other = first.serve()
  other.once('error', () => { other.close(() => undefined).listen(b, '127.0.0.1') }).listen(a, '127.0.0.1')
  await new Promise((resolve) => other.once('close', resolve))
  expect((await reload(on(a, b))).kept).toEqual(named(a, b))
})

it('a server that a new version closes and opens again before it is ready keeps its listener', async () => {
  await start(on(a))
  const opensTwice: FakeProgram = async (process) => {
    const server = process.serve()
    await process.listen(server, a)
    await new Promise((resolve) => server.close(resolve))
    await process.listen(server, a)
    process.generation.ready()
  }
  expect(await reload(opensTwice)).toEqual({ kept: named(a), added: [], dropped: [] })
  expect(await ask(a)).toBe('2')
})

it('a new version that listens elsewhere, or closes and listens anew, while its host name is looked up is reloaded as it is', async () => {
  const changesItsMind: FakeProgram = async (process) => {
    process.generation.configure({ undoWindow: 1_000, linger: 0 })
    const [one, other] = [process.serve(), process.serve()]
    await process.listen(one, a)
    other.listen(0, '127.0.0.1').listen(b, '127.0.0.1').close().listen(b, '127.0.0.1')
    await once(other, 'listening')
  }
  await start(changesItsMind)
  for (const number of [2, 3]) {
    expect(await reload(changesItsMind)).toEqual({ kept: named(a, b), added: [], dropped: [] })
    expect([await ask(a), await ask(b)]).toEqual([String(number), String(number)])
  }
})

it('a new version may ask a server of its own, at a port that the system chose, before it is ready', async () => {
  const asksItself: FakeProgram = async (process) => {
    process.generation.configure({ undoWindow: 1_000, linger: 0 })
    const server = process.serve()
    await process.listen(server)
    expect(await ask((server.address() as net.AddressInfo).port)).toBe(String(process.number))
    await new Promise((resolve) => server.close(resolve))
    await process.listen(process.serve(), a)
  }
  await start(asksItself)
  expect(await reload(asksItself)).toEqual({ kept: named(a), added: [], dropped: [] })
})

it('two listeners on port 0 keep their two ports', async () => {
  const ports = portsOf(await start(on(0, 0)))
  await reload(on(0, 0))
  await reload(on(0, 0))
  expect(portsOf(machine.processes[2]!)).toEqual(ports)
})

it('a new version that names the port which was port 0 keeps the listener', async () => {
  const [port] = portsOf(await start(on(0)))
  expect((await reload(on(port!))).kept).toHaveLength(1)
  expect(portsOf(machine.processes[1]!)).toEqual([port])
})
