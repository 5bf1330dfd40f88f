/**
 * Other people's clients over reloads, each with its own notion of an error: an undici Pool, autocannon (also with pipelining), wrk and
 * h2load. Some of them connect anew without a word, so it is the servers that say how many connections there were. A tool that is not
 * installed is skipped.
 */

import { expect, onTestFinished, test } from 'vitest'
import { Pool } from 'undici'
import { programPath } from '../helpers/program.js'
import { Generations } from '../helpers/generations.js'
import { accepted, drained, everyConnectionMoved, installed, portOf, reload, startGenerations, Tool } from '../helpers/peers.js'

const reloads = Math.min(5, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 5))
const limit = { timeout: 300_000 }

/**
 * A tool that keeps `connections` busy until it is interrupted: reloads, and everything that must hold of the servers. Resolves with its
 * words.
 * `more`: connections that it opens and closes before it begins.
 */
async function overReloads(connections: number, start: (url: string) => Tool, more = 0): Promise<string> {
  await using generations = await startGenerations('http')
  await using tool = start(`http://127.0.0.1:${portOf(generations)}/`)
  await generations.until(() => accepted(generations) === connections + more)
  await reload(generations, reloads, ['signal'], () => Promise.resolve())
  await drained(generations)
  expect(tool.running, tool.output).toBe(true)
  const output = await tool.interrupt()
  expect(accepted(generations)).toBe(connections + more)
  everyConnectionMoved(generations, connections)
  return output
}

test(`an undici Pool of 100 connections: over ${reloads} reloads no POST fails and no connection is disconnected`, limit, async () => {
  await using generations = await startGenerations('http')
  const pool = new Pool(`http://127.0.0.1:${portOf(generations)}`, { connections: 100, pipelining: 1, keepAliveTimeout: 60_000 })
  let [connects, answers, stopping] = [0, 0, false]
  const disconnects: unknown[] = []
  const failures: unknown[] = []
  pool.on('connect', () => { connects++ }).on('disconnect', (_url, _targets, error) => { if (!stopping) disconnects.push(error) })
  const clients = Array.from({ length: 100 }, async (_, index) => {
    while (!stopping) {
      const body = `${index} ${answers}`
      try {
        const answer = await pool.request({ method: 'POST', path: '/echo', body })
        const { length } = await answer.body.json() as { length: number }
        if (answer.statusCode !== 200 || length !== body.length) failures.push([answer.statusCode, length, body])
        answers++
      } catch (error) {
        failures.push(error)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })
  onTestFinished(async () => {
    stopping = true
    await pool.destroy()
  })
  // The Pool opens one only when all that it has are busy.
  await Promise.all(Array.from({ length: 100 }, async () => { await (await pool.request({ method: 'GET', path: '/slow?ms=1000' })).body.dump() }))
  const before = accepted(generations)
  await reload(generations, reloads, ['signal'], () => Promise.resolve())
  await drained(generations)
  stopping = true
  await Promise.all(clients)

  console.log(`undici Pool: ${reloads} reloads, ${answers} POSTs, ${failures.length} failed, ${connects} connects, ${disconnects.length} disconnects`)
  expect({ failures, disconnects }).toEqual({ failures: [], disconnects: [] })
  expect(answers).toBeGreaterThan(100)
  expect([connects, accepted(generations)]).toEqual([before, before])
  everyConnectionMoved(generations, before)
})

test.for([1, 10])('autocannon with 20 connections and %i requests at a time on each: no errors, and its connections stay', limit, async (pipelining) => {
  const output = await overReloads(20, (url) => Tool.start(process.execPath, [programPath('peer-autocannon.mjs'), url, '20', String(pipelining)]))
  const { errors, timeouts, non2xx, mismatches, resets, requests } = JSON.parse(output) as Record<string, number> & {
    requests: { total: number }
  }
  console.log(`autocannon -p ${pipelining}: ${requests.total} requests, ${errors} errors, ${timeouts} timeouts, ${non2xx} not 2xx`)
  expect({ errors, timeouts, non2xx, mismatches, resets }).toEqual({ errors: 0, timeouts: 0, non2xx: 0, mismatches: 0, resets: 0 })
  expect(requests.total).toBeGreaterThan(100)
})

test('wrk with 32 connections: no socket errors, and its connections stay', limit, async ({ skip }) => {
  const file = installed('wrk')
  if (file === undefined) return skip('wrk is not installed')
  const output = await overReloads(32, (url) => Tool.start(file, ['-c', '32', '-t', '1', '-d', '600', '--timeout', '30', url]), 1)
  console.log(`wrk: ${/\d+ requests in.*/.exec(output)?.[0]}`)
  expect(output).toMatch(/\d+ requests in/)
  // It has lines for these only where there are any.
  expect(output).not.toMatch(/Socket errors|Non-2xx/)
})

/** What h2load counted: `12970 total, 12970 started, …`. */
function counts(output: string): Record<string, number> {
  const line = /^requests: (.*)$/m.exec(output)?.[1] ?? ''
  return Object.fromEntries([...line.matchAll(/(\d+) (\w+)/g)].map(([, count, name]) => [name!, Number(count)]))
}

/** h2load cannot be interrupted: it runs for so many seconds, and reloads go on until it ends. */
const h2loadSeconds = Number(process.env['HANDOVER_TEST_SECONDS'] ?? 8)

/** One reload while h2load runs, in which nothing moves: where its time was over before the reload was, once more for longer. */
async function overOneReload(
  file: string, streams: number, seconds = h2loadSeconds
): Promise<{ generations: Generations; tool: Tool; report: unknown }> {
  const generations = await Generations.start({ script: programPath('protocols.mjs'), listen: '127.0.0.1:0', env: { KIND: 'h2c', OPTIONS: JSON.stringify({ drainTimeout: 3_000, move: { http2: false } }) } })
  const tool = Tool.start(file, ['-c', '4', '-m', String(streams), '-D', String(seconds), `http://127.0.0.1:${portOf(generations)}/`])
  try {
    await generations.until(() => begun(generations) > 100)
    await generations.reload('signal')
    const [report] = await drained(generations)
    if (tool.running || seconds > 60) return { generations, tool, report }
  } catch (error) {
    await tool[Symbol.asyncDispose]()
    await generations[Symbol.asyncDispose]()
    throw error
  }
  await tool[Symbol.asyncDispose]()
  await generations[Symbol.asyncDispose]()
  return await overOneReload(file, streams, 3 * seconds)
}

const begun = (generations: Generations): number => generations.events.filter(({ event }) => event === 'request').length

test('h2load over HTTP/1.1 with 20 connections: every request succeeds, and its connections stay', limit, async ({ skip }) => {
  const file = installed('h2load')
  if (file === undefined) return skip('h2load is not installed')
  await using generations = await startGenerations('http')
  await using tool = Tool.start(file, ['--h1', '-c', '20', '-D', String(h2loadSeconds), `http://127.0.0.1:${portOf(generations)}/`])
  await generations.until(() => accepted(generations) === 20)
  while (tool.running) await generations.reload('signal')
  expect(await tool.ended, tool.output).toBe(0)
  const { started, succeeded, ...failed } = counts(tool.output)
  console.log(`h2load --h1: ${generations.count - 1} reloads, ${started} started, ${succeeded} succeeded`)
  expect(failed).toMatchObject({ failed: 0, errored: 0, timeout: 0 })
  // Where its time is over it drops what it has begun.
  expect(succeeded).toBeGreaterThan(100)
  expect(started! - succeeded!).toBeLessThanOrEqual(20)
  expect(accepted(generations)).toBe(20)
})

// Streams that cross a GOAWAY on their way were not begun, and a client may send them again (RFC 9113, section 8.7): h2load neither does
// that nor connects anew, and calls them failed.
test('h2load over clear HTTP/2 that does not move: every stream that a server has begun succeeds, and at most those that crossed the GOAWAY do not', limit, async ({ skip }) => {
  const file = installed('h2load')
  if (file === undefined) return skip('h2load is not installed')
  const { report, ...both } = await overOneReload(file, 4)
  await using generations = both.generations
  await using tool = both.tool
  expect(await tool.ended, tool.output).toBe(0)
  const { started, succeeded } = counts(tool.output)
  console.log(`h2load: ${succeeded} of ${started} streams succeeded, ${begun(generations)} were begun`)
  expect(succeeded).toBe(begun(generations))
  // It calls them failed when the connection ends, and drops them without a word where its own time is over before that.
  expect(started! - succeeded!).toBeLessThanOrEqual(4 * 4)
  expect(report).toMatchObject({ connections: { open: 4, moved: 0, drained: 4, closedIdle: 0, cut: 0, stayed: { 'moving is off': 4 } } })
})

test.for([['h2c', 1], ['h2c', 4], ['h2', 1]] as const)('h2load over HTTP/2 (%s), %i streams at a time: every stream succeeds, and each client has one connection over all reloads', limit, async ([kind, streams], { skip }) => {
  const file = installed('h2load')
  if (file === undefined) return skip('h2load is not installed')
  const options = JSON.stringify({ undoWindow: 100, drainTimeout: 3_000 })
  await using generations = await Generations.start({ script: programPath('sessions.mjs'), listen: '127.0.0.1:0', env: { KIND: kind, OPTIONS: options } })
  const url = `http${kind === 'h2' ? 's' : ''}://127.0.0.1:${portOf(generations)}/?bytes=2000`
  await using tool = Tool.start(file, ['-c', '4', '-m', String(streams), '-D', String(h2loadSeconds), url])
  /** Those that the process has got; a client that connects anew comes from another port. */
  const ports = (generation?: number): Set<unknown> => new Set(generations.events
    .filter(({ event, generation: of }) => event === 'session' && (generation === undefined || of === generation)).map(({ peer }) => peer))
  await generations.until(() => ports().size === 4)
  // A session that has no gap between two streams stays until GOAWAY, which h2load takes for the end.
  while (tool.running && (streams === 1 || generations.count === 1)) {
    await generations.reload('signal')
    await generations.until(() => !tool.running || streams > 1 || ports(generations.count).size === 4)
  }
  expect(await tool.ended, tool.output).toBe(0)
  const { started, succeeded, ...failed } = counts(tool.output)
  console.log(`h2load ${kind} -m ${streams}: ${generations.count - 1} reloads, ${succeeded} of ${started} streams succeeded`)
  expect(failed).toMatchObject({ errored: 0, timeout: 0, ...(streams === 1 && { failed: 0 }) })
  // Where its time is over it drops what it has begun.
  expect(started! - succeeded!).toBeLessThanOrEqual(4 * streams)
  expect(ports().size).toBe(4)
  for (const { connections } of await drained(generations)) expect(connections).toMatchObject({ closedIdle: 0, cut: 0 })
})
