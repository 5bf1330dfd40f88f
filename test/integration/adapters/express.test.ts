/**
 * @handover/express with Express 5 and 4: app.listen in each form, and servers that the program makes itself.
 */

import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { listening, startAdapter } from '../../helpers/adapted.js'
import { ask, freePorts } from '../../helpers/ask.js'
import { Folder } from '../../helpers/plan.js'
import type { Program } from '../../helpers/program.js'
import { runModule } from '../../helpers/script.js'

const host = '127.0.0.1'

const forms = [
  ['a port and a host', { listen: [0, host] }],
  ['a port, a host and a callback without parameters', { listen: [0, host], callback: 'plain' }],
  ['a port, a host and a callback with an error', { listen: [0, host], callback: 'error' }],
  ['a port, a host, a backlog and a callback', { listen: [0, host, 50], callback: 'plain' }],
  ['options and a callback', { listen: [{ port: 0, host }], callback: 'error' }],
  ['only a callback', { listen: [], callback: 'plain' }],
  ['nothing', { listen: [] }],
  ['an http.Server of the program', { listen: [0, host], own: 'http', callback: 'plain' }],
  ['an https.Server of the program', { listen: [0, host], own: 'https' }],
  ['a server that socket.io has before it listens', { listen: [0, host], own: 'http', before: 'socket.io' }],
  ['a server that @godaddy/terminus has before it listens', { listen: [0, host], own: 'http', before: '@godaddy/terminus' }],
  ['a server that answers by a function before the app', { listen: [0, host], own: 'https', before: 'a function' }]
] as const

describe.each(['express5', 'express4'] as const)('%s', (express) => {
  describe.each([false, true])('(with require(): %s) app.listen with', (required) => {
    let program: Program
    const place = (index: number): AddressInfo => program.events.find((event) => event.event === 'listening' && event['index'] === index)?.['address'] as AddressInfo

    beforeAll(async () => {
      program = startAdapter(express, { required, forms: forms.map(([, form]) => form) })
      const all = async (generation: number): Promise<void> => {
        await program.until(() => program.events.filter((event) => event.event === 'listening' && event.generation === generation).length === forms.length)
      }
      await all(1)
      for (const generation of [2, 3]) {
        await program.hangUp()
        await all(generation)
      }
    })

    afterAll(async () => { await program[Symbol.asyncDispose]() })

    test.each(forms.map(([name, form], index) => ({ name, form, index })))('$name is reloaded twice and keeps its port; its callback comes once', async ({ form, index }) => {
      const mine = (name: string): unknown[] => program.events.filter((event) => event.event === name && event['index'] === index)
      expect(mine('listening')).toMatchObject([1, 2, 3].map((generation) => ({ generation, address: place(index) })))
      expect(mine('callback')).toHaveLength('callback' in form ? 3 : 0)
      for (const called of mine('callback')) expect(called).not.toHaveProperty('error')
      expect(await ask('own' in form && form.own === 'https' ? 'https' : 'http', { port: place(index).port, host })).toBe(program.serving)
    })
  })

  test('a Unix path is reloaded', async () => {
    using folder = new Folder()
    await using program = startAdapter(express, { forms: [{ listen: [folder.at('app.sock')] }] })
    await listening(program)
    await program.hangUp()
    const { pid } = await listening(program, 2)
    expect(await ask('http', folder.at('app.sock'))).toBe(pid)
  })

  test.each(['none', 'plain'])('a port in use ends the program with EADDRINUSE and is never printed as listening (callback: %s)', async (callback) => {
    await using busy = startAdapter(express, { forms: [{ listen: [0, host] }] })
    const { address } = await listening(busy)
    await using program = startAdapter(express, { forms: [{ listen: [(address as AddressInfo).port, host], callback }] })
    expect((await program.ended).code).toBe(1)
    expect(program.stderr).toMatch(/EADDRINUSE/)
    expect(program.events.filter(({ event }) => event === 'callback' || event === 'listening')).toEqual([])
  })

  test("a port in use goes to the program's own error listener and is never printed as listening", async () => {
    await using busy = startAdapter(express, { forms: [{ listen: [0, host] }] })
    const { address } = await listening(busy)
    await using program = startAdapter(express, { forms: [{ listen: [(address as AddressInfo).port, host], callback: 'plain', onError: true }] })
    expect((await program.event('error')).error).toBe('EADDRINUSE')
    expect(program.events.filter(({ event }) => event === 'callback' || event === 'listening')).toEqual([])
  })

  test('a successor whose port is in use is refused at once, also where its callback only prints the error', async () => {
    const [port = 0] = await freePorts(1)
    await using busy = startAdapter(express, { forms: [{ listen: [0, host] }] })
    const { address } = await listening(busy)
    using folder = new Folder()
    await using program = startAdapter(express, { forms: [{ listen: [port, host], callback: 'error', onError: true }], next: [{ listen: [(address as AddressInfo).port, host], callback: 'error', onError: true }], once: folder.at('second') })
    const { pid } = await listening(program)
    await expect(program.hangUp()).rejects.toThrow(/EADDRINUSE/)
    expect(await ask('http', { port, host })).toBe(pid)
  })
})

test('in Express 5 a callback that takes an error gets it', async () => {
  await using busy = startAdapter('express5', { forms: [{ listen: [0, host] }] })
  const { address } = await listening(busy)
  await using program = startAdapter('express5', { forms: [{ listen: [(address as AddressInfo).port, host], callback: 'error', onError: true }] })
  expect((await program.event('callback')).error).toBe('EADDRINUSE')
})

test('canMove of the app counts for a server on which socket.io answers before it', async () => {
  await using program = startAdapter('express5', { forms: [{ listen: [0, host], own: 'http', before: 'socket.io' }] }, { canMove: false })
  const { address, pid } = await listening(program)
  const agent = new http.Agent({ keepAlive: true })
  onTestFinished(() => { agent.destroy() })
  const [response] = await once(http.get({ port: (address as AddressInfo).port, host, agent }), 'response') as [http.IncomingMessage]
  await once(response.resume(), 'end')
  await program.hangUp()
  const { report } = await program.event('report', (event) => event.pid === pid && (event['report'] as { result: string }).result === 'drained')
  expect(report).toMatchObject({ connections: { open: 1, moved: 0, stayed: { 'vetoed by canMove': 1 } } })
})

test.each([['a server', 'http.createServer()'], ['an app of Koa', 'new Koa()'], ['nothing', 'undefined']])('what is no Express app is refused, and the words say where it goes: %s', (_name, given) => {
  const { stdout } = runModule(`import http from 'node:http'
    import Koa from 'koa'
    import { handover } from '@handover/express'
    try { handover(${given}) } catch ({ code, message }) { console.log(code, message) }`)
  expect(stdout).toMatch(/^HANDOVER_OPTION handover\(\) of @handover\/express was given .+, which is no Express app\. Nothing was changed\. Give it express\(\)\. A server goes to handover\(\) of @handover\/core\.\n$/)
})

test('a server that is closed while a test has replaced the timers leaves no listener for signals behind', () => {
  const run = runModule(`import { once } from 'node:events'
    import express from 'express'
    import { handover } from '@handover/express'
    const app = handover(express())
    const real = setImmediate
    globalThis.setImmediate = globalThis.setTimeout = globalThis.setInterval = () => ({ unref() { return this }, hasRef: () => false })
    const server = app.listen(0)
    await once(server, 'listening')
    const listened = process.listenerCount('SIGTERM')
    await new Promise((resolve) => { server.close(resolve) })
    await new Promise((resolve) => { real(() => real(resolve)) })
    console.log(listened, process.listenerCount('SIGTERM'), process.listenerCount('SIGINT'), process.listenerCount('SIGHUP'))`)
  expect(run).toEqual({ stdout: '1 0 0 0\n', stderr: '', status: 0 })
})
