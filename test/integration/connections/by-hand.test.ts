/**
 * Connections that the program took into its own hands are not ours to move: they stay, hear that they end by their next answer, and
 * nothing of them is lost.
 * What the successor cannot take after all goes back to where it came from.
 */

import { expect, onTestFinished, test } from 'vitest'
import { type Address, Client } from '../../helpers/client.js'
import { Program, programPath } from '../../helpers/program.js'
import { type MoveReport, nextAnswer } from '../../helpers/moving.js'

const firstBytes: Readonly<Record<string, string>> = { proxy: 'PROXY TCP4 203.0.113.1 198.51.100.1 1 80\r\n' }

async function start({ kind, next = kind, options }: { readonly kind: string; readonly next?: string; readonly options: object }) {
  const program = Program.start(programPath('by-hand.mjs'), { env: { SETTINGS: JSON.stringify({ kind, options }), NEXT: JSON.stringify({ kind: next }) } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const { address } = await program.event('listening')
  const connect = async (): Promise<Client> => {
    const client = await Client.connect(address as Address, { tls: kind === 'tls' })
    onTestFinished(() => { client[Symbol.dispose]() })
    client.send(firstBytes[kind] ?? '').request('/')
    expect(await nextAnswer(client)).toMatchObject({ status: 200, body: 'generation 1' })
    return client
  }
  const report = async (): Promise<MoveReport> => (await program.event('report', (event) => event.pid === program.pid && (event['report'] as MoveReport).result === 'drained'))['report'] as MoveReport
  return { program, connect, report }
}

/** The first generation answers, says that it is the last answer, and only then the connection ends. */
async function isToldToGo(client: Client): Promise<void> {
  client.request('/')
  const answer = await nextAnswer(client)
  expect(answer).toMatchObject({ status: 200, body: 'generation 1' })
  expect(answer.headers.get('connection')).toBe('close')
  expect(await client.over).toBe('closed')
}

test.for(['proxy', 'port', 'emit', 'tls'])('a program of the kind "%s" keeps its connections, and each is told to go by its next answer', async (kind) => {
  const { program, connect, report } = await start({ kind, options: { drainTimeout: 3_000, linger: 1_000 } })
  const [asking, idle, busy] = [await connect(), await connect(), await connect()]
  busy.request('/held')
  await program.event('request')
  await program.hangUp()
  await isToldToGo(asking)
  // Nothing is said on this one, and no request is waited for.
  expect(await idle.over).toBe('closed')
  expect(idle.text).toBe('')
  const { connections, requestsCut } = await report()
  const name = kind === 'tls' ? 'https' : 'http'
  expect(connections).toMatchObject({ open: 3, moved: 0, drained: 1, closedIdle: 1, cut: 1, kinds: {
    [name]: { drained: 1, closedIdle: 1, cut: 1 }
  } })
  expect(connections.stayed).toEqual({ 'given to HTTP by the program': 3 })
  expect(requestsCut).toMatchObject([{ method: 'GET', path: '/held' }])
  expect(program.stderr).not.toMatch(/error/i)
})

test.for([
  ['proxy', /the program reads connections itself before it gives them to HTTP/],
  ['port', undefined],
  ['destroys', /a listener for 'connection' closed it/],
  ['throws', /this listener throws/]
] as const)('a successor of the kind "%s", which cannot take a connection, gives it back', async ([kind, reason]) => {
  const { program, connect, report } = await start({ kind: 'plain', next: kind, options: { drainTimeout: 10_000 } })
  const clients = await Promise.all(Array.from({ length: 5 }, connect))
  await program.hangUp()
  if (reason) await program.stderrMatching(reason)
  await Promise.all(clients.map(isToldToGo))
  const { connections } = await report()
  expect(connections).toMatchObject({ open: 5, moved: 0, drained: 5, closedIdle: 0, cut: 0 })
  expect(connections.stayed).toEqual({ [reason ? 'given back by the successor' : 'not taken by the successor']: 5 })
  expect(program.stderr.match(/is given back to process \d+, which drains it/g)?.length ?? 0).toBe(reason ? 1 : 0)
})

