/**
 * A listen() that fails, and one that comes after close(), under `handover run`: a program goes on as it does with node, and is reloaded.
 */

import dgram from 'node:dgram'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { freePorts, get } from '../../helpers/ask.js'
import { commandFile } from '../../helpers/built.js'
import { command, type Ran } from '../../helpers/command.js'
import { Folder } from '../../helpers/plan.js'
import { Program, waitFor } from '../../helpers/program.js'

const host = '127.0.0.1'
const serves = `http.createServer((request, response) => { response.end(String(process.pid)) }).listen(port, '${host}')`
const programs = {
  without: `${serves}
    for (const place of ['/nowhere/to/be/found.sock', { port: 9, host: '203.0.113.1' }]) http.createServer().on('error', () => {}).listen(place)`,
  instead: `http.createServer().on('error', () => { ${serves} }).listen({ port, host: '203.0.113.1' })`,
  again: `const server = ${serves}.on('error', () => { console.error('in use'); setTimeout(() => { server.close(); server.listen(port, '${host}') }, 50) })`,
  anew: `const server = ${serves}.once('listening', () => { server.close(); server.listen(port, '${host}') })`,
  moves: `const server = ${serves}.on('request', ({ url }) => { if (url === '/move') { server.close(); server.listen(port + 1) } })`,
  closes: `const other = http.createServer().listen(port + 1, '${host}')
    ${serves}.on('request', ({ url }) => { if (url === '/close') other.close() })`,
  other: `let held, server
    const open = (name) => { server = http.createServer((request, response) => {
      if (request.url === '/hold') held = response
      else response.setHeader('connection', 'close').end(name)
      if (request.url === '/swap') { server.close(); open('new') }
      if (request.url === '/free') held.end('held')
    }).listen(port, '${host}') }
    open('old')`,
  kinds: `const dgram = require('node:dgram')
    const open = () => {
      const file = http.createServer((request, response) => { response.end('by its path') }).listen('app.sock')
      const socket = dgram.createSocket('udp4').on('message', (message, { port, address }) => { socket.send(message, port, address) }).bind(port, '${host}')
      return () => { file.close(); socket.close() }
    }
    let close = open()
    ${serves}.on('request', ({ url }) => { if (url === '/again') { close(); close = open() } })`,
  rarely: `let other
    ${serves}.on('request', ({ url }) => {
      if (url === '/open') other = http.createServer((request, response) => { response.end('rare') }).listen(port + 1, '${host}')
      if (url === '/close') other.close()
    })`,
  elsewhere: `const { FROM, TO } = process.env
    const open = (at) => http.createServer((request, response) => { response.setHeader('connection', 'close').end('elsewhere') }).listen(port + 1, at)
    const other = open(FROM)
    ${serves}.on('request', ({ url }) => { if (url === '/move') other.close(() => { open(TO) }) })`,
  job: `const looks = http.createServer().listen(port, '${host}', () => { looks.close(() => { setTimeout(() => { process.exitCode = 5 }, 100) }) })`,
  given: `http.createServer().on('error', () => { process.exitCode = 0 }).listen(port, '${host}')`
}

class Run implements AsyncDisposable {
  readonly #folder = new Folder()
  readonly program: Program

  readonly #port: number

  constructor(kind: keyof typeof programs, port: number, env: Record<string, string> = {}) {
    this.#port = port
    mkdirSync(this.#folder.at('control'), { mode: 0o700 })
    writeFileSync(this.#folder.at('app.cjs'), `const http = require('node:http'), port = ${port}; ${programs[kind]}`)
    this.program = Program.start(commandFile, { args: ['run', '--spare', 'off', '--name', 'app', 'app.cjs'], cwd: this.#folder.path, env: { ...this.#env, ...env } })
  }

  get #env(): Record<string, string> {
    return { HANDOVER_DIR: this.#folder.at('control'), HANDOVER_LINGER: '100' }
  }

  async answer(port = this.#port): Promise<string> {
    let answer = ''
    await waitFor(async () => (answer = (await get({ port, host }).catch(() => undefined))?.body ?? '') !== '')
    return answer
  }

  at(file: string): string {
    return this.#folder.at(file)
  }

  /** A worker serves, and its keeper knows of no listener on this port. */
  async serves(without = 0): Promise<void> {
    await waitFor(async () => {
      const { stdout } = await command(['status', '--json', 'app'], this.#env).ended
      return stdout.includes('"serving"') && !stdout.includes(`:${without}"`)
    })
  }

  async reload(...words: string[]): Promise<Ran> {
    await this.serves()
    return await command(['reload', '--bake', '0', ...words, 'app'], this.#env).ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
    this.#folder[Symbol.dispose]()
  }
}

/** A port on which another server listens. */
async function takePort(): Promise<{ busy: net.Server; port: number }> {
  const busy = net.createServer().listen(0, host)
  await once(busy, 'listening')
  return { busy, port: (busy.address() as net.AddressInfo).port }
}

test.each(['without', 'instead'] as const)('a program that goes on %s what it cannot listen on serves, and is reloaded', async (kind) => {
  const [port = 0] = await freePorts(1)
  await using run = new Run(kind, port)
  const first = await run.answer()
  expect(await run.reload()).toMatchObject({ status: 0, stderr: '' })
  expect(await run.answer()).not.toBe(first)
})

test('a program that tries a port again until it is free serves then; what it waits for is said once', async () => {
  const { busy, port } = await takePort()
  await using run = new Run('again', port)
  await waitFor(() => (run.program.stderr.match(/in use/g)?.length ?? 0) > 2)
  busy.close()
  await run.answer()
  expect(run.program.stderr.match(/^handover: .*$/gm)).toEqual([`handover: warn: listen EADDRINUSE: address already in use ${host}:${port}. The program goes on; nobody serves until it listens.`])
  expect(await run.reload()).toMatchObject({ status: 0, stderr: '' })
})

test('a program that closes its server and listens again in the same moment serves, and is reloaded', async () => {
  const [port = 0] = await freePorts(1)
  await using run = new Run('anew', port)
  await run.answer()
  expect(await run.reload()).toMatchObject({ status: 0, stderr: '' })
  await run.answer()
  expect(run.program.stderr).not.toMatch(/EADDRINUSE|crash|the next one is started/)
})

test.each([false, true])('another server listens on the port of one that has just closed (which has a request: %s), and is reloaded', async (busy) => {
  const [port = 0] = await freePorts(1)
  await using run = new Run('other', port)
  await run.answer()
  await run.serves()
  const held = busy ? get({ port, host }, '/hold') : undefined
  expect((await get({ port, host }, '/swap')).body).toBe('old')
  expect(await run.answer()).toBe('new')
  if (busy) await get({ port, host }, '/free')
  expect((await held)?.body).toBe(busy ? 'held' : undefined)
  expect(await run.reload()).toMatchObject({ status: 0, stderr: '' })
  expect(await run.answer()).toBe('old')
  expect(run.program.stderr).not.toMatch(/EADDRINUSE|crash|the next one is started/)
})

test('a UDP port and a Unix path that a program closes and opens again in the same moment are served', async () => {
  const [port = 0] = await freePorts(1)
  await using run = new Run('kinds', port)
  const pid = await run.answer()
  await run.serves()
  await get({ port, host }, '/again')
  expect((await get(run.at('app.sock'))).body).toBe('by its path')
  const client = dgram.createSocket('udp4')
  client.send('echo', port, host)
  expect(String((await once(client, 'message'))[0])).toBe('echo')
  client.close()
  expect(await run.answer()).toBe(pid)
  expect(run.program.stderr).toBe('')
})

test('what a program had closed before it crashed is not waited for, and can be opened at any time later', async () => {
  const [port = 0] = await freePorts(1)
  await using run = new Run('rarely', port)
  const pid = await run.answer()
  await run.serves()
  await get({ port, host }, '/open')
  expect(await run.answer(port + 1)).toBe('rare')
  await get({ port, host }, '/close')
  await run.serves(port + 1)
  process.kill(Number(pid), 'SIGKILL')
  await waitFor(async () => ![pid, ''].includes((await get({ port, host }).catch(() => undefined))?.body ?? ''))
  await run.serves()
  await get({ port, host }, '/open')
  expect(await run.answer(port + 1)).toBe('rare')
  expect(run.program.stderr).not.toMatch(/EADDRINUSE|is not ready/)
  await get({ port, host }, '/close')
  expect(await run.reload()).toMatchObject({ status: 0, stderr: '' })
})

test.each([[host, '::'], ['::', host]])('a server that moves from %s to %s, at the same port, is served there', async (from, to) => {
  const [port = 0] = await freePorts(1)
  await using run = new Run('elsewhere', port, { FROM: from, TO: to })
  const pid = await run.answer()
  expect(await run.answer(port + 1)).toBe('elsewhere')
  await run.serves()
  await get({ port, host }, '/move')
  expect(await run.answer(port + 1)).toBe('elsewhere')
  expect(await run.answer()).toBe(pid)
  expect(run.program.stderr).toBe('')
})

test('a server that moves to another port while it has connections is reloaded there', async () => {
  const [port = 0] = await freePorts(1)
  await using run = new Run('moves', port)
  const pid = await run.answer()
  const agent = new http.Agent({ keepAlive: true })
  onTestFinished(() => { agent.destroy() })
  const client = http.get({ port, host, path: '/move', agent })
  await once(client, 'response').then(([response]) => (response as http.IncomingMessage).resume())
  expect(await run.answer(port + 1)).toBe(pid)
  expect(await run.reload('--allow-drop')).toMatchObject({ status: 0, stderr: '' })
  expect(await run.answer()).not.toBe(pid)
})

test('a listener that a program has closed since does not keep the next version from opening it', async () => {
  const [port = 0] = await freePorts(1)
  await using run = new Run('closes', port)
  const pid = await run.answer()
  await get({ port, host }, '/close')
  expect(await run.reload()).toMatchObject({ status: 0, stderr: '' })
  expect(await run.answer()).not.toBe(pid)
})

test('a job that only looks whether a port is free ends by itself, with its own status', async () => {
  const [port] = await freePorts(1)
  await using run = new Run('job', port!)
  expect(await run.program.ended).toEqual({ code: 5, signal: null })
})

test('a program that gives up without a word is not taken for one that did its work', async () => {
  const { busy, port } = await takePort()
  await using run = new Run('given', port)
  await waitFor(() => /Nobody serves/.test(run.program.stderr))
  busy.close()
  expect(run.program.stderr).toMatch(new RegExp(`cannot serve: listen EADDRINUSE: address already in use ${host}:${port}\\. Nobody serves\\. End the program that has the port`))
})
