/**
 * Servers that are not HTTP: nobody can tell an idle connection from a busy one, so all stay until they end or the deadline cuts them.
 */

import dgram from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Address, Client } from '../../helpers/client.js'
import { Program, programPath, waitFor } from '../../helpers/program.js'
import { Generations } from '../../helpers/generations.js'

const reloads = Math.min(10, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 10))
const script = programPath('protocols.mjs')

async function start(kind: string, options: object): Promise<{ program: Program; client: () => Promise<Client> }> {
  const program = Program.start(script, { env: { KIND: kind, OPTIONS: JSON.stringify(options) } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening')
  return {
    program,
    async client() {
      const client = await Client.connect(address as Address, { tls: kind === 'tls' })
      onTestFinished(() => { client[Symbol.dispose]() })
      return client
    }
  }
}

describe.for(['net', 'tls'])('%s', (kind) => {
  test('a connection stays with its process over several reloads, until its client ends it', async () => {
    const { program, client } = await start(kind, { linger: 100, drainTimeout: 600_000 })
    const old = await client()
    for (let index = 0; index < 3; index++) {
      await program.hangUp()
      await old.send(`word ${index}\n`).received(new RegExp(`word ${index}\n`))
    }
    await (await client()).send('new\n').received(/new\n/)
    expect(program.alive).toContain(program.pid)
    old.socket.end('last\n')
    await old.over
    expect(old.text).toBe('word 0\nword 1\nword 2\nlast\n')
    expect(await program.ended).toEqual({ code: 0, signal: null })
    const report = await program.event('report', (event) => event.pid === program.pid && (event['report'] as { result: string }).result === 'drained')
    expect(report['report']).toMatchObject({ connections: { open: 1, drained: 1, closedIdle: 0, cut: 0 } })
  })

  test('a connection that is open at the drain deadline is cut and counted', async () => {
    const { program, client } = await start(kind, { linger: 100, drainTimeout: 1_500 })
    const old = await client()
    await old.send('word\n').received(/word\n/)
    await program.hangUp()
    await old.send('after\n').received(/after\n/)
    await old.over
    expect(await program.ended).toEqual({ code: 0, signal: null })
    const report = await program.event('report', (event) => event.pid === program.pid && (event['report'] as { result: string }).result === 'drained')
    expect(report['report']).toMatchObject({ connections: { open: 1, drained: 0, closedIdle: 0, cut: 1 }, requestsCut: [] })
  })

  test(`no connection is refused, reset or cut over ${reloads} reloads`, { timeout: 120_000 }, async () => {
    await using generations = await Generations.start({ script, listen: '127.0.0.1:0', env: { KIND: kind, OPTIONS: '{}' } })
    const target = generations.targets[0] as { host: string; port: number }
    const address = { address: target.host, port: target.port }
    let stopping = false
    let exchanges = 0
    const users = Array.from({ length: 8 }, async (_, index) => {
      for (let count = 0; !stopping; count++) {
        using client = await Client.connect(address, { tls: kind === 'tls' })
        const word = `${index}-${count}`
        await client.send(`${word} half,`).received(/half,/)
        await wait(index * 20)
        client.socket.end(' whole')
        expect(await client.over).toBe('closed')
        expect(client.text).toBe(`${word} half, whole`)
        exchanges++
      }
    })
    const reloading = (async () => {
      for (let index = 0; index < reloads; index++) await generations.reload(index % 2 === 0 ? 'signal' : 'rendezvous')
      stopping = true
    })()
    await Promise.all([...users, reloading])
    await waitFor(() => generations.alive.length === 1)
    expect(exchanges).toBeGreaterThan(reloads)
    for (const { event, report } of generations.events) if (event === 'report') expect(report).toMatchObject({ connections: { cut: 0 } })
  })
})

test(`no datagram is lost over ${reloads} reloads of a UDP server`, { timeout: 120_000 }, async () => {
  await using generations = await Generations.start({ script, listen: '127.0.0.1:0', env: { KIND: 'udp', OPTIONS: '{}' } })
  const { port } = generations.targets[0] as { port: number }
  const socket = dgram.createSocket('udp4')
  onTestFinished(() => { socket.close() })
  socket.connect(port, '127.0.0.1')
  await once(socket, 'connect')

  const missing = new Set<number>()
  const pids = new Set<number>()
  const twice: number[] = []
  socket.on('message', (message) => {
    const [pid, number] = String(message).split(' ').map(Number)
    pids.add(pid!)
    if (!missing.delete(number!)) twice.push(number!)
  })
  let sent = 0
  let stopping = false
  const sending = (async () => {
    while (!stopping) {
      // Paced by the answers: loopback loses nothing that fits into a socket's buffer.
      for (; missing.size < 20; sent++) {
        missing.add(sent)
        socket.send(String(sent))
      }
      await wait(1)
    }
  })()
  for (let index = 0; index < reloads; index++) {
    await generations.reload(index % 2 === 0 ? 'signal' : 'rendezvous')
    await waitFor(() => pids.has(generations.serving))
  }
  stopping = true
  await sending
  await waitFor(() => missing.size === 0)
  expect(twice).toEqual([])
  expect(pids.size).toBe(reloads + 1)
  expect(sent).toBeGreaterThan(100 * reloads)
  await waitFor(() => generations.alive.length === 1)
})
