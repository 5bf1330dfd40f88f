/**
 * What a program or its surroundings do wrong must not stop a process that serves.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { ask } from '../helpers/ask.js'
import { Folder } from '../helpers/plan.js'
import { Program, programPath, waitFor, type ProgramEvent, type ProgramOptions } from '../helpers/program.js'
import { runModule } from '../helpers/script.js'

const host = '127.0.0.1'

async function start(options: ProgramOptions = {}): Promise<{ program: Program; port: number; [Symbol.asyncDispose]: () => Promise<void> }> {
  const program = Program.start(programPath('hardy.mjs'), options)
  const { port } = await program.event('listening') as unknown as { port: number }
  return { program, port, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() }
}

test('a log of the program that throws stops neither the reload nor the drain', async () => {
  await using running = await start({ env: { WHAT: 'throwing-log' } })
  const { program, port } = running
  await program.hangUp()
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(await ask('http', { port, host })).toBe(program.serving)
  expect(program.stderr).toMatch(/generation 2 \(process \d+\) serves.*\n.*the option log threw: Error: the log is closed/)
})

test('a program that was forked with an IPC channel is reloaded', async () => {
  const child = spawn(process.execPath, [programPath('hardy.mjs')], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], detached: true })
  try {
    const events: ProgramEvent[] = []
    createInterface({ input: child.stdout! }).on('line', (line) => events.push(JSON.parse(line) as ProgramEvent))
    await waitFor(() => events.some(({ event }) => event === 'listening'))
    child.kill('SIGHUP')
    await waitFor(() => events.some(({ event }) => event === 'report' || event === 'failed'))
    expect(events.find(({ event }) => event === 'failed')).toBeUndefined()
    await waitFor(() => events.some(({ event, generation, to }) => event === 'state' && generation === 2 && to === 'serving'))
  } finally {
    process.kill(-child.pid!, 'SIGKILL')
  }
})

test('a reader of NOTIFY_SOCKET that never reads does not hold a server up', async () => {
  using folder = new Folder()
  const at = folder.at('notify.sock')
  const reader = spawn('python3', ['-c', 'import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print("bound", flush=True); sys.stdin.read()', at], { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    await once(reader.stdout, 'data')
    await using running = await start({ env: { NOTIFY_SOCKET: at, OPTIONS: '{"undoWindow":0,"linger":0}' } })
    const { program, port } = running
    // More than the kernel keeps for a reader (net.unix.max_dgram_qlen).
    for (let generation = 2; generation <= 6; generation++) {
      await program.hangUp()
      await waitFor(() => program.alive.length === 1)
    }
    expect(await ask('http', { port, host })).toBe(program.serving)
  } finally {
    reader.kill('SIGKILL')
  }
})

test('a pipelined answer that is ready before the slow one in front of it is not lost in a drain', async () => {
  await using running = await start()
  const { program, port } = running
  const first = program.pid
  const socket = net.connect(port, host)
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  socket.write('GET /held HTTP/1.1\r\nHost: a\r\n\r\nGET /quick HTTP/1.1\r\nHost: a\r\n\r\n')
  await program.event('held')
  await program.hangUp()
  process.kill(first, 'SIGUSR2')
  await waitFor(() => text.includes(`quick ${first}`))
  expect(text).toMatch(/held[^]*quick/)
  socket.write('GET /quick HTTP/1.1\r\nHost: a\r\n\r\n')
  await waitFor(() => text.endsWith(`quick ${program.serving}`))
  socket.destroy()
})

test('a process that is stopped waits for the generation before it, which still answers', async () => {
  await using running = await start({ env: { OPTIONS: '{"undoWindow":0,"linger":0,"drainTimeout":20000}' } })
  const { program, port } = running
  const first = program.pid
  const answer = fetch(`http://${host}:${port}/held`)
  await program.event('held')
  await program.hangUp()
  const second = program.serving
  process.kill(second, 'SIGTERM')
  await program.event('state', ({ pid, to }) => pid === second && to === 'draining')
  process.kill(first, 'SIGUSR2')
  expect(await (await answer).text()).toBe('held')
  await program.event('report', ({ pid, report }) => pid === first && (report as { result: string }).result === 'drained')
  await program.event('report', ({ pid, report }) => pid === second && (report as { result: string }).result === 'stopped')
  const ends = program.events.filter(({ event, report }) => event === 'report' && ['drained', 'stopped'].includes((report as { result: string }).result)).map(({ pid }) => pid)
  expect(ends.indexOf(first)).toBeLessThan(ends.lastIndexOf(second))
})

test.each([
  ['an Express app', 'express()', "import express from 'express'"],
  ['a Fastify app', 'Fastify()', "import Fastify from 'fastify'"],
  ['a function', '() => undefined', ''],
  ['nothing', 'undefined', ''],
  ['a server that listens already', 'http.createServer().listen(0).unref()', "import http from 'node:http'"]
])('handover() of %s is refused in plain words', (_what, expression, imports) => {
  const run = runModule(`${imports}\nimport { handover } from '@handover/core'\ntry { handover(${expression}) } catch (error) { console.log(error.code, error.message) }`)
  expect(run.stdout).toMatch(/^HANDOVER_OPTION (handover\(\) was given something else than a server|the server listens already)/)
})

test('a directory for the control socket that is a relative path is refused', () => {
  const run = runModule("import http from 'node:http'\nimport { handover } from '@handover/core'\nhandover(http.createServer(), { name: 'a' }).on('error', (error) => { console.log(error.code, error.message) }).listen(0)", { HANDOVER_DIR: path.join('some', 'folder') })
  expect(run.stdout).toMatch(/^HANDOVER_CONTROL_SOCKET HANDOVER_DIR=some\/folder is a relative path/)
})
