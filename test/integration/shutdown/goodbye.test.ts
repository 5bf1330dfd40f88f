/**
 * Connections whose end the program alone knows (upgraded ones, its own protocol), under `handover run`: its own listeners for SIGTERM say
 * goodbye on them, as with node alone. Where they only wait for the end of these connections, that comes in time for the rest of the
 * cleanup.
 */

import { describe, expect, test } from 'vitest'
import { Client } from '../../helpers/client.js'
import { KeptApp } from '../../helpers/kept-app.js'
import { programPath } from '../../helpers/program.js'
import type { Report } from '@handover/core/internal'

interface Talking {
  readonly app: KeptApp
  readonly clients: Client[]
  steps(pid: number): string[]
}

/** A server with one connection of each kind. */
async function startTalking(kind: string, drainTimeout: number): Promise<Talking> {
  const env = { KIND: kind, HANDOVER_DRAIN_TIMEOUT: String(drainTimeout), HANDOVER_UNDO_WINDOW: '100' }
  const app = await KeptApp.start(programPath('goodbye.mjs'), { env })
  const clients = [await Client.connect({ address: '127.0.0.1', port: app.port }), await Client.connect(`${app.folder}/chat.sock`)]
  await clients[0]!.request('/', { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' }).received(/ 101 [^]*\r\n\r\n$/)
  for (const client of clients) await client.send('hello').received(/hello$/)
  const linesOf = (pid: number): string[] => app.program.lines.filter((line) => line.startsWith(`${pid}: `))
  return { app, clients, steps: (pid) => linesOf(pid).map((line) => line.slice(`${pid}: `.length)) }
}

const final = (app: KeptApp): Report => app.program.events.findLast(({ event }) => event === 'report')!['report'] as Report

describe.concurrent('connections that are left to the program', () => {
  test('at a stop the program says goodbye long before the deadline, and ends as with node alone', async () => {
    const { app, clients, steps } = await startTalking('says goodbye', 60_000)
    await using _app = app
    const { pid } = (await app.servers())[0]!
    process.kill(app.program.pid, 'SIGTERM')
    expect((await app.program.ended).code).toBe(3)
    for (const client of clients) {
      expect(await client.over).toBe('closed')
      expect(client.text).toMatch(/goodbye$/)
    }
    await app.program.closed
    expect(steps(pid)).toEqual(['2 open', 'closed'])
    expect(final(app)).toMatchObject({ connections: { open: 2, drained: 2, cut: 0, stayed: { 'left to the program itself': 2 } } })
    expect(final(app).durations.drain).toBeLessThan(30_000)
  })

  test('at a reload they work until the deadline, and then the program says goodbye', async () => {
    const { app, clients, steps } = await startTalking('says goodbye', 2_000)
    await using _app = app
    const { pid } = (await app.servers())[0]!
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
    for (const client of clients) await client.send('still here').received(/still here$/)
    for (const client of clients) {
      expect(await client.over).toBe('closed')
      expect(client.text).toMatch(/goodbye$/)
    }
    await app.program.until(() => steps(pid).length === 2)
    expect(steps(pid)).toEqual(['2 open', 'closed'])
  })

  test('a program that waits for their end does the rest of its cleanup', async () => {
    const { app, clients, steps } = await startTalking('waits for their end', 3_000)
    await using _app = app
    const { pid } = (await app.servers())[0]!
    process.kill(app.program.pid, 'SIGTERM')
    expect((await app.program.ended).code).toBe(3)
    for (const client of clients) await client.over
    await app.program.closed
    expect(steps(pid)).toEqual(['2 open', 'closed'])
    expect(app.stderr).toMatch(/cutting 2 connections that the program itself has not closed/)
    expect(app.stderr).not.toMatch(/handover: (warn|error)/)
  })
})
