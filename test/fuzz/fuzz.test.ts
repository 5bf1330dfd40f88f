/**
 * The fuzz of moving connections (fuzz.mjs), short, in a process of its own; and whether it would notice: each wrong rule of
 * fuzz-mutations.mjs must make it fail.
 *
 * HANDOVER_FUZZ_MOVES makes it longer; `npm run fuzz` is the long run.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

interface Result {
  readonly moves: number
  readonly movesUnread: number
  readonly movesFresh: number
  readonly takenBack: number
  readonly requests: number
  readonly bad: number
  readonly stuck: number
  readonly closed: number
  readonly mutated?: number
  readonly failures: readonly { kind: string; reason: string }[]
}

async function fuzz(...args: string[]): Promise<Result & { status: number }> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('fuzz.mjs', import.meta.url)), ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [output, [status]] = await Promise.all([text(child.stdout), once(child, 'close') as Promise<[number]>])
  return { ...JSON.parse(output) as Result, status }
}

it('moves connections to and fro thousands of times, while requests come in every shape, and no answer is wrong, missing or cut', async () => {
  const moves = process.env.HANDOVER_FUZZ_MOVES ?? '6000'
  const result = await fuzz('--moves', moves, '--taken-back', '21', '--unread', '501', '--fresh', '21')
  expect(result, JSON.stringify(result)).toMatchObject({ status: 0, bad: 0, stuck: 0, closed: 0, failures: [] })
  expect(result.moves).toBeGreaterThanOrEqual(Number(moves))
  expect(result.requests).toBeGreaterThan(1_000)
  // What makes a move hard was there: bytes that nobody had read, connections without any, descriptors that the successor did not get.
  expect(result.movesUnread).toBeGreaterThan(500)
  expect(result.movesFresh).toBeGreaterThan(20)
  expect(result.takenBack).toBeGreaterThan(20)
}, 600_000)

it('moves connections under TLS to and fro in the same way', async () => {
  const moves = String(Math.round(Number(process.env.HANDOVER_FUZZ_MOVES ?? '6000') / 2))
  const result = await fuzz('--tls', '--moves', moves, '--taken-back', '21')
  expect(result, JSON.stringify(result)).toMatchObject({ status: 0, bad: 0, stuck: 0, closed: 0, failures: [] })
  expect(result.moves).toBeGreaterThanOrEqual(Number(moves))
  expect(result.takenBack).toBeGreaterThan(20)
}, 600_000)

type Kind = 'bad' | 'stuck' | 'closed'
const any: readonly Kind[] = ['bad', 'stuck', 'closed']

describe('the fuzz fails where', () => {
  it.each<[wrong: string, as: readonly Kind[], moves?: number]>([
    ['a request that has half arrived does not hold a connection back', any],
    ['a request without an answer does not hold a connection back', any],
    ['an answer that is finished and not sent does not hold a connection back', any],
    ["Node's own list of idle connections is trusted", any],
    ['the predecessor reads on while a connection is on its way', any],
    ['the successor drops what it has acknowledged', ['closed', 'stuck']],
    ['the predecessor closes what the successor did not acknowledge', ['closed', 'stuck']],
    // These two show where connections stay where they are, which is after the last move.
    ['a connection that comes back is not read from any more', ['stuck'], 500],
    ['the successor takes an idle connection for one that begins a request', ['bad'], 500]
  ])('%s', async (wrong, as, moves = 20_000) => {
    const result = await fuzz('--moves', String(moves), '--stuck', '3000', '--mutation', wrong)
    expect(result.mutated).toBeGreaterThan(0)
    expect(result.status, JSON.stringify(result)).toBe(1)
    expect(as).toContain(result.failures[0]?.kind)
  })

  it.each([
    'the number of the next record that is read is one too high', 'the number of the next record that is written is one too high'
  ])('under TLS %s', async (wrong) => {
    const result = await fuzz('--tls', '--moves', '20000', '--stuck', '3000', '--mutation', wrong)
    expect(result.mutated).toBeGreaterThan(0)
    expect(result.status, JSON.stringify(result)).toBe(1)
    expect(result.failures[0]?.kind).toBe('closed')
  })
})
