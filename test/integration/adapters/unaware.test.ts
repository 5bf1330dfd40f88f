/**
 * What adopting everything must not break: programs that listen more than once, pass ports around, have children, and those that use an
 * adapter as well.
 */

import dgram from 'node:dgram'
import { once } from 'node:events'
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { connects, get, getSecure } from '../../helpers/ask.js'
import { Client } from '../../helpers/client.js'
import { Folder } from '../../helpers/plan.js'
import { programPath } from '../../helpers/program.js'
import { App } from '../../helpers/frameworks.js'

const start = async (kind: string, env: Readonly<Record<string, string>> = {}): Promise<App> => await App.start(programPath('unaware.cjs'), { env: { CASE: kind, ...env } })
const main = (app: App): string => `tcp 127.0.0.1:${app.port}`
const answering = async (app: App): Promise<number> => Number((await get({ port: app.port, host: '127.0.0.1' })).body)

test('a second server on the same port whose error the program keeps to itself does not fail the reload', async () => {
  await using app = await start('second')
  await app.program.event('swallowed')
  expect(await app.reload()).toMatchObject({ listeners: { kept: [main(app)], added: [], dropped: [] } })
  expect(await answering(app)).toBe(app.serving)
})

test('a Fastify app on localhost keeps 127.0.0.1 and ::1, the second of which is a server that only Fastify knows', async () => {
  await using app = await App.start('fastify.mjs', { execArgv: ['--require', programPath('localhost.cjs')] })
  for (let count = 0; count < 3; count++) {
    const { listeners } = await app.reload()
    expect({ ...listeners, kept: listeners.kept.toSorted() }).toEqual({ kept: [main(app), `tcp [::1]:${app.port}`], added: [], dropped: [] })
  }
  for (const host of ['127.0.0.1', '::1']) expect(JSON.parse((await get({ port: app.port, host })).body)).toMatchObject({ pid: app.serving })
})

test('a server that cannot listen where no other does fails the reload, although the program keeps the error to itself', async () => {
  using folder = new Folder()
  const failFrom = folder.at('fail')
  await using app = await start('missing', { FAIL_FROM: failFrom })
  await app.program.until(() => app.serving)
  writeFileSync(failFrom, '')
  await expect(app.reload()).rejects.toThrow(/EADDRNOTAVAIL/)
  expect(await answering(app)).toBe(app.program.pid)
})

test('a secure connection moves to the successor, and so do the next ones come to it', async () => {
  await using app = await start('https')
  const first = app.serving!
  using client = await Client.connect({ address: '127.0.0.1', port: app.port }, { tls: true })
  await client.request('/').received(new RegExp(`keep-alive[^]*${first}$`))
  await app.reload()
  const [drain] = await app.drained(1)
  expect(drain).toMatchObject({ connections: { open: 1, moved: 1, drained: 0, cut: 0, stayed: {}, kinds: { https: { moved: 1 } } } })
  client.text = ''
  await client.request('/').received(new RegExp(`keep-alive[^]*${app.serving}$`))
  expect(Number((await getSecure({ port: app.port, host: '127.0.0.1' })).body)).toBe(app.serving)
})

test('a program that looks whether its port is free, before it listens, gets the listener', async () => {
  await using app = await start('probe')
  for (let count = 0; count < 3; count++) {
    await app.program.until(() => app.program.events.some(({ event }) => event === 'state'))
    expect(await app.reload()).toMatchObject({ listeners: { kept: [main(app)], added: [], dropped: [] } })
  }
  expect(await answering(app)).toBe(app.serving)
})

test('what the program forks, spawns or runs in a thread hands nothing over, in a successor neither', async () => {
  await using app = await start('children')
  const inner = (): unknown[] => app.program.events.filter(({ event }) => event === 'inner').map(({ kind, adopts }) => `${String(kind)} ${String(adopts)}`).toSorted()
  await app.program.until(() => inner().length === 3)
  await app.reload()
  await app.program.until(() => inner().length === 6)
  expect(inner()).toEqual(['forked false', 'forked false', 'spawned false', 'spawned false', 'thread false', 'thread false'])
  expect(app.program.stderr).not.toMatch(/warn|error/)
})

test('a program with workers of node:cluster listens as usual, and says once that it is not reloaded', async () => {
  await using app = await App.spawn(programPath('unaware.cjs'), { env: { CASE: 'cluster' } })
  const { adopts } = await app.program.event('inner')
  expect(adopts).toBe(false)
  expect(await connects({ port: app.port, host: '127.0.0.1' })).toBe('ok')
  expect(app.program.stderr.match(/handover: .*/g)).toEqual([expect.stringMatching(/cluster workers.*run it without cluster/)])
})

test('a server that comes and goes while the process serves is a listener for that time', async () => {
  await using app = await start('passing', { HANDOVER_READY_TIMEOUT: '8000' })
  await app.program.event('booted')
  process.kill(app.program.pid, 'SIGUSR2')
  await app.program.event('opened')
  process.kill(app.program.pid, 'SIGUSR2')
  await app.program.event('closed')
  expect((await app.reload()).listeners).toEqual({ kept: [main(app)], added: [], dropped: [] })

  const second = app.serving!
  await app.program.event('booted', ({ pid }) => pid === second)
  process.kill(second, 'SIGUSR2')
  await app.program.event('opened', ({ pid }) => pid === second)
  expect((await app.reload()).listeners).toEqual({ kept: [main(app)], added: [], dropped: [expect.stringMatching(/^tcp 127\.0\.0\.1:/)] })
  expect(await answering(app)).toBe(app.serving)
})

test('a UDP socket on a port of its own is a listener; those of clients, and of multicast, are left alone', async () => {
  await using app = await start('udp')
  await app.program.event('bound')
  const { listeners } = await app.reload()
  expect(listeners.kept.toSorted()).toEqual([main(app), `udp 127.0.0.1:${app.port}`])
  expect(listeners).toMatchObject({ added: [], dropped: [] })
  const client = dgram.createSocket('udp4')
  try {
    const answer = once(client, 'message') as Promise<[Buffer]>
    client.send('who', app.port, '127.0.0.1')
    expect(Number((await answer)[0])).toBe(app.serving)
  } finally {
    client.close()
  }
})

/** What npm would put into the node_modules of an application that depends on the core itself. */
function copyOfCore(folder: Folder): string {
  const of = (name: string): string => fileURLToPath(new URL(`../../../${name}`, import.meta.url))
  const copy = folder.at('node_modules/@handover/core')
  for (const name of ['dist', 'package.json']) cpSync(of(`packages/core/${name}`), path.join(copy, name), { recursive: true })
  mkdirSync(path.join(copy, 'prebuilds', `${process.platform}-${process.arch}`), { recursive: true })
  cpSync(of('build/Release/handover.node'), path.join(copy, 'prebuilds', `${process.platform}-${process.arch}`, 'handover.node'))
  symlinkSync(of('node_modules/devalue'), folder.at('node_modules/devalue'))
  return path.join(copy, 'dist', 'index.js')
}

test.each([false, true])('an app that uses an adapter as well is adopted once, and by its own options (a copy of the core of its own: %s)', async (copied) => {
  using folder = new Folder()
  await using app = await start('adapter', { HANDOVER_DRAIN_TIMEOUT: '5000', ...(copied && { COPY: copyOfCore(folder) }) })
  expect(await app.program.event('own')).toMatchObject({ generation: 1 })
  using client = await Client.connect({ address: '127.0.0.1', port: app.port })
  await client.request('/').received(new RegExp(`${app.program.pid}$`))
  expect((await app.reload()).listeners).toEqual({ kept: [main(app)], added: [], dropped: [] })
  await client.request('/').received(/Connection: close/)
  const [drain] = await app.drained(1)
  expect(drain).toMatchObject({ connections: { open: 1, moved: 0, stayed: { 'vetoed by canMove': 1 } } })
  expect(app.program.events.filter(({ event }) => event === 'hook').map(({ pid }) => pid)).toEqual([app.program.pid])
  expect(await app.program.event('own', ({ pid }) => pid === app.serving)).toMatchObject({ generation: 2 })
})

test('without the mark in the environment the preload does nothing', async () => {
  await using app = await App.spawn(programPath('unaware.cjs'), { env: { CASE: 'children', HANDOVER_PRELOAD: '' } })
  await app.program.event('inner')
  expect(app.program.events.filter(({ event }) => event === 'state')).toEqual([])
})
