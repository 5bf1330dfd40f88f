/**
 * The order of a framework's own closing: after the drain, once, and nothing answers 503 before.
 */

import { expect, test } from 'vitest'
import { endsWell, start } from '../../helpers/draining.js'

test('Fastify answers every request of the drain as before, never with 503', async () => {
  const { program, client, idleClient, stop, release } = await start({ kind: 'fastify' })
  const [idle, held] = [await idleClient(), await client()]
  held.request('/held')
  await program.event('request')
  await stop()
  idle.request('/')
  await idle.received(/^HTTP\/1\.1 200 OK[^]*answer to \/$/)
  release()
  await held.received(/^HTTP\/1\.1 200 OK[^]*answer to \/held/)
  await endsWell(program)
})

test('Fastify\'s preClose and onClose hooks run after the drain, once, and in this order', async () => {
  const { program, client, stop, release } = await start({ kind: 'fastify' })
  const held = await client()
  held.request('/held')
  await program.event('request')
  await stop()
  release()
  await held.over
  await endsWell(program)
  const order = program.events.map(({ event, to }) => to === undefined ? event : `state ${String(to)}`).filter((event) => /draining|closing|ose/.test(event) && event !== 'diagnostics')
  expect(order).toEqual(['state draining', 'draining', 'state closing', 'preClose', 'onClose', 'closed'])
})

test('preClose says goodbye on upgraded connections at a stop, long before the deadline', async () => {
  const { program, client, stop } = await start({ kind: 'fastify', options: { drainTimeout: 60_000 } })
  const upgraded = await client()
  await upgraded.request('/echo', { headers: 'Connection: Upgrade\r\nUpgrade: echo\r\n' }).received(/ 101 [^]*\r\n\r\n$/)
  await stop()
  expect(await upgraded.over).toBe('closed')
  expect(upgraded.text).toMatch(/goodbye$/)
  const report = await endsWell(program)
  expect(report).toMatchObject({ connections: { open: 1, drained: 1, cut: 0 } })
  expect(report.durations.drain).toBeLessThan(30_000)
})

test('Fastify\'s hooks run once in each process over a reload', async () => {
  const { program } = await start({ kind: 'fastify', options: { linger: 100 } })
  await program.hangUp()
  expect(await program.ended).toEqual({ code: 0, signal: null })
  const hooks = (): number[] => program.events.filter(({ event }) => event === 'onClose').map(({ generation }) => generation)
  expect(hooks()).toEqual([1])
  process.kill(program.serving, 'SIGTERM')
  await program.event('exit', ({ generation }) => generation === 2)
  expect(hooks()).toEqual([1, 2])
})
