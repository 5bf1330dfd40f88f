/**
 * No surprises: what Handover does to a program where there is nothing to hand over, where it cannot, and around a reload that works.
 */

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { ask, connects, freePorts, get } from '../helpers/ask.js'
import { Folder } from '../helpers/plan.js'
import { Program, programPath, type ProgramOptions } from '../helpers/program.js'
import { runModule } from '../helpers/script.js'

const host = '127.0.0.1'
const root = fileURLToPath(new URL('../..', import.meta.url))
const world = (options: ProgramOptions = {}): Program => Program.start(programPath('world.mjs'), options)

interface World { pid: number; port: number; version?: string; execPath: string; cwd: string; marked: string[]; child: [string | null, number]; fromFile?: string }
const listening = async (program: Program, generation = 1): Promise<World> => await program.event('listening', (event) => event.generation === generation) as unknown as World

/** A folder with the program and a version, whose packages are those of the workspace. */
function release(folder: Folder, name: string): string {
  const at = folder.at(name)
  mkdirSync(at, { recursive: true })
  copyFileSync(programPath('world.mjs'), path.join(at, 'app.mjs'))
  writeFileSync(path.join(at, 'version.txt'), name)
  if (!existsSync(folder.at('node_modules'))) symlinkSync(path.join(root, 'node_modules'), folder.at('node_modules'))
  return at
}

function moveLink(link: string, to: string): void {
  symlinkSync(to, `${link}.new`)
  renameSync(`${link}.new`, link)
}

describe('a program that does not listen', () => {
  const around = `const signals = () => ['SIGHUP', 'SIGTERM', 'SIGINT'].map((signal) => process.listenerCount(signal)).join()
    const { readdirSync } = await import('node:fs')
    const descriptors = () => readdirSync('/proc/self/fd').length
    const before = descriptors()`

  test('but registers the Fastify plugin and injects gets no socket, no signal handler, no file, and ends by itself', () => {
    using folder = new Folder()
    const run = runModule(`${around}
      import Fastify from 'fastify'
      import handover from '@handover/fastify'
      const app = Fastify()
      await app.register(handover, { name: 'nothing' })
      app.get('/', async () => 'ok')
      const { body } = await app.inject('/')
      console.log(body, signals(), descriptors() - before)`, { HANDOVER_DIR: folder.at('control') })
    expect(run).toEqual({ stdout: 'ok 0,0,0 0\n', stderr: '', status: 0 })
    expect(existsSync(folder.at('control'))).toBe(false)
  })

  test.each([['Express', `import express from 'express'
      import { handover } from '@handover/express'
      handover(express())`], ['core', `import http from 'node:http'
      import dgram from 'node:dgram'
      import { handover } from '@handover/core'
      handover(http.createServer())
      handover(dgram.createSocket('udp4')).close()`]])('but uses %s ends by itself with no signal handler', (_name, script) => {
    expect(runModule(`${around}\n${script}\nconsole.log(signals())`)).toEqual({ stdout: '0,0,0\n', stderr: '', status: 0 })
  })

  test('any more, after listen and close, keeps no signal handler and no file, and ends by itself', () => {
    using folder = new Folder()
    const run = runModule(`${around}
      import Fastify from 'fastify'
      import handover from '@handover/fastify'
      const app = Fastify()
      await app.register(handover, { name: 'nothing' })
      await app.listen({ port: 0 })
      console.log(signals())
      await app.close()
      await new Promise((resolve) => setImmediate(resolve))
      console.log(signals())`, { HANDOVER_DIR: folder.at('control') })
    expect(run).toEqual({ stdout: '1,1,1\n0,0,0\n', stderr: '', status: 0 })
    expect(readdirSync(folder.at('control'))).toEqual([])
  })
})

describe('where a process cannot be handed over', () => {
  test('HANDOVER=off: no signal handler, and SIGHUP means what it means in Node', async () => {
    await using program = world({ env: { HANDOVER: 'off', NAME: 'off' } })
    const { port, pid } = await listening(program)
    expect(await ask('http', { port, host })).toBe(pid)
    process.kill(pid, 'SIGHUP')
    expect(await program.ended).toEqual({ code: null, signal: 'SIGHUP' })
  })

  test.each(['Bun', 'Deno'])('%s is told by its global: a clear word, and plain listen', async (runtime) => {
    await using program = world({ execArgv: ['--import', `data:text/javascript,globalThis.${runtime} = {}`], env: { NAME: 'off' } })
    const { port, pid } = await listening(program)
    expect(await ask('http', { port, host })).toBe(pid)
    expect(program.stderr.match(new RegExp(`${runtime} has no descriptors to pass. The server listens as usual`, 'g'))).toHaveLength(1)
    process.kill(pid, 'SIGHUP')
    expect(await program.ended).toEqual({ code: null, signal: 'SIGHUP' })
  })

  test('cluster workers share their port and their path as always, and say why they are not reloaded', () => {
    using folder = new Folder()
    const run = runModule(`import cluster from 'node:cluster'
      import { once } from 'node:events'
      cluster.setupPrimary({ execArgv: [], exec: ${JSON.stringify(programPath('worker.mjs'))}, args: [${JSON.stringify(folder.at('app.sock'))}] })
      for (const [answer] of await Promise.all([cluster.fork(), cluster.fork()].map((worker) => once(worker, 'message')))) console.log(JSON.stringify(answer))
      for (const id in cluster.workers) cluster.workers[id].kill()`)
    expect(run.stdout.trim().split('\n').map((line) => JSON.parse(line) as object)).toEqual(Array.from({ length: 2 }, () => ({ tcp: 'ok', unix: 'ok', signals: 0 })))
    expect(run.stderr.match(/cluster worker/g)).toHaveLength(2)
    expect(run.status).toBe(0)
  })

  test('a worker thread listens as always and says why it is not reloaded', () => {
    const run = runModule(`import { Worker } from 'node:worker_threads'
      const worker = new Worker(new URL(${JSON.stringify(`file://${programPath('worker.mjs')}`)}), { execArgv: [] })
      worker.on('message', (answer) => { console.log(JSON.stringify(answer)); worker.terminate() })`)
    expect(JSON.parse(run.stdout)).toEqual({ tcp: 'ok', signals: 0 })
    expect(run.stderr).toMatch(/worker thread/)
    expect(run.status).toBe(0)
  })

  test('PID 1 refuses to reload, says why, and serves on', async (context) => {
    const unshare = ['--pid', '--fork', '--mount-proc']
    const allowed = spawnSync('unshare', [...unshare, 'true'], { encoding: 'utf8' })
    if (allowed.status !== 0) {
      context.skip(`unshare is not permitted here: ${allowed.stderr}`)
      return
    }
    await using program = world({ node: 'unshare', execArgv: [...unshare, process.execPath] })
    const { port, pid } = await listening(program)
    expect(pid).toBe(1)
    const outside = Number(readFileSync(`/proc/${program.pid}/task/${program.pid}/children`, 'utf8'))
    process.kill(outside, 'SIGHUP')
    await program.stderrMatching(/HANDOVER_UNAVAILABLE.*PID 1.*keeps serving/s)
    expect(await ask('http', { port, host })).toBe(1)
  })

  test('without the addon it says what is missing, listens, refuses to reload and drains politely', async () => {
    using folder = new Folder()
    const core = folder.at('node_modules/@handover/core')
    cpSync(path.join(root, 'packages/core/dist'), path.join(core, 'dist'), { recursive: true })
    copyFileSync(path.join(root, 'packages/core/package.json'), path.join(core, 'package.json'))
    copyFileSync(programPath('world.mjs'), folder.at('app.mjs'))
    await using program = Program.start(folder.at('app.mjs'))
    const { port, pid } = await listening(program)
    expect(program.stderr).toMatch(new RegExp(`no binary for ${process.platform}-${process.arch}.*listens as usual`))
    process.kill(pid, 'SIGHUP')
    await program.stderrMatching(/HANDOVER_UNAVAILABLE/)
    const slow = get({ port, host }, '/slow')
    await program.event('slow')
    process.kill(pid, 'SIGTERM')
    await program.event('draining')
    expect(await connects({ port, host })).toBe('ECONNREFUSED')
    expect(await slow).toEqual({ status: 200, body: String(pid) })
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })
})

test('loaded twice, by import and by require() and as two copies, it is one generation', () => {
  using folder = new Folder()
  const core = folder.at('node_modules/@handover/core')
  cpSync(path.join(root, 'packages/core/dist'), path.join(core, 'dist'), { recursive: true })
  copyFileSync(path.join(root, 'packages/core/package.json'), path.join(core, 'package.json'))
  const run = runModule(`import module from 'node:module'
    import http from 'node:http'
    import { once } from 'node:events'
    import { handover as first } from '@handover/core'
    const { handover: second } = module.createRequire(import.meta.url)('@handover/core')
    const { handover: third } = await import(${JSON.stringify(`file://${core}/dist/index.mjs`)})
    console.log(first === second, first === third, first.events === third.events)
    const server = third(http.createServer()).listen(0)
    await once(server, 'listening')
    console.log(first.state, second.state, third.state, process.listenerCount('SIGHUP'))
    server.close()`)
  expect(run).toEqual({ stdout: 'true false true\nserving serving serving 1\n', stderr: '', status: 0 })
})

describe('a reload starts what is there now', () => {
  test.each([
    ['node app.mjs inside `current`', 'current', 'app.mjs'],
    ['node current/app.mjs from outside', '.', 'current/app.mjs'],
    ['node ./current/app.mjs from outside', '.', './current/app.mjs']
  ])('with %s, where a deploy moved the link', async (_name, cwd, script) => {
    using folder = new Folder()
    const current = folder.at('current')
    symlinkSync(release(folder, 'one'), current)
    const at = path.join(folder.path, cwd)
    await using program = Program.start(script, { cwd: at, env: { PWD: at } })
    const { port, version } = await listening(program)
    expect(version).toBe('one')
    moveLink(current, release(folder, 'two'))
    await program.hangUp()
    expect(await listening(program, 2)).toMatchObject({ version: 'two', port })
    moveLink(current, release(folder, 'three'))
    await program.hangUp()
    expect(await listening(program, 3)).toMatchObject({ version: 'three', port })
  })

  test('with an absolute path through the link', async () => {
    using folder = new Folder()
    symlinkSync(release(folder, 'one'), folder.at('current'))
    await using program = Program.start(folder.at('current/app.mjs'))
    await listening(program)
    moveLink(folder.at('current'), release(folder, 'two'))
    await program.hangUp()
    expect(await listening(program, 2)).toMatchObject({ version: 'two' })
  })

  test.each(['by its path', 'through PATH'])('with a new Node binary at the same place, started %s', async (how) => {
    using folder = new Folder()
    mkdirSync(folder.at('bin'))
    const node = folder.at('bin/node')
    symlinkSync(process.execPath, node)
    await using program = world({ node: how === 'by its path' ? node : 'node', env: { PATH: `${folder.at('bin')}:${process.env['PATH']}` } })
    const { execPath } = await listening(program)
    expect(execPath).toBe(process.execPath)
    copyFileSync(process.execPath, folder.at('newer'))
    moveLink(node, folder.at('newer'))
    await program.hangUp()
    expect((await listening(program, 2)).execPath).toBe(folder.at('newer'))
  })
})

test('standard output and error go on to the same places, and what a successor writes to stderr arrives', async () => {
  await using program = world()
  const streams = (pid: number): string[] => [1, 2].map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
  const first = await listening(program)
  const before = streams(first.pid)
  for (const generation of [2, 3]) {
    await program.hangUp()
    const { pid } = await listening(program, generation)
    await program.stderrMatching(new RegExp(`to stderr from generation ${generation}\n`))
    expect(streams(pid)).toEqual(before)
  }
  expect(program.stderr.match(/to stderr from/g)).toHaveLength(3)
})

test('nothing that a successor starts believes that it is one, and no descriptor leaks into it', async () => {
  await using program = world()
  const { child: before } = await listening(program)
  await program.hangUp()
  const { child, marked } = await listening(program, 2)
  expect({ child, marked }).toEqual({ child: before, marked: [] })
})

test('what a program put into its environment does not hide what a new version puts there', async () => {
  using folder = new Folder()
  writeFileSync(folder.at('.env'), 'FROM_FILE=one\n')
  await using program = world({ env: { ENV_FILE: folder.at('.env') } })
  expect((await listening(program)).fromFile).toBe('one')
  writeFileSync(folder.at('.env'), 'FROM_FILE=two\n')
  await program.hangUp()
  expect((await listening(program, 2)).fromFile).toBe('two')
})

/** Of names, without those that every process has for itself. */
const controlSockets = (folder: Folder): string[] => readdirSync(folder.at('control')).filter((name) => !name.startsWith('@'))
/** The pids of those. */
const ownSockets = (folder: Folder): number[] => readdirSync(folder.at('control')).filter((name) => name.startsWith('@')).map((name) => Number(/^@(\d+)-[0-9a-f]{8}\.sock$/.exec(name)?.[1]))

describe('rendezvous', () => {
  test('two that have no name are two, on two ports', async () => {
    using folder = new Folder()
    const env = { HANDOVER_DIR: folder.at('control') }
    await using one = world({ env })
    await using two = world({ env })
    const [first, second] = [await listening(one), await listening(two)]
    expect([await ask('http', { port: first.port, host }), await ask('http', { port: second.port, host })]).toEqual([first.pid, second.pid])
    expect(controlSockets(folder)).toEqual([])
    expect(ownSockets(folder).sort()).toEqual([first.pid, second.pid].sort())
  })

  test.each([['the option', { NAME: 'app' }], ['HANDOVER_NAME', { HANDOVER_NAME: 'app' }]])('by %s: the second start takes over, the first drains and ends with status 0', async (_how, name) => {
    using folder = new Folder()
    const [port = 0] = await freePorts(1)
    const env = { HANDOVER_DIR: folder.at('control'), PORT: String(port), ...name }
    await using one = world({ env })
    await listening(one)
    const slow = get({ port, host }, '/slow')
    await one.event('slow')
    await using two = world({ env })
    const { pid } = await listening(two, 2)
    // For a moment both accept.
    await one.event('draining')
    expect(await ask('http', { port, host })).toBe(pid)
    expect(await slow).toEqual({ status: 200, body: String(one.pid) })
    expect(await one.ended).toEqual({ code: 0, signal: null })
    expect(controlSockets(folder)).toEqual(['app.sock'])

    await using three = world({ env })
    await listening(three, 3)
    expect(await two.ended).toEqual({ code: 0, signal: null })
    process.kill(three.pid, 'SIGTERM')
    await three.ended
    expect(readdirSync(folder.at('control'))).toEqual([])
  })

  test('a socket file that a killed process left behind is no obstacle', async () => {
    using folder = new Folder()
    const env = { HANDOVER_DIR: folder.at('control'), NAME: 'app' }
    {
      await using one = world({ env })
      await listening(one)
      process.kill(one.pid, 'SIGKILL')
      await one.ended
    }
    expect(controlSockets(folder)).toEqual(['app.sock'])
    await using two = world({ env })
    expect((await listening(two)).pid).toBe(two.pid)
  })

  test('garbage and silence on the control socket change nothing', async () => {
    using folder = new Folder()
    const env = { HANDOVER_DIR: folder.at('control'), NAME: 'app' }
    await using one = world({ env })
    const { port } = await listening(one)
    const file = folder.at('control/app.sock')
    const silent = net.connect(file)
    await once(silent, 'connect')
    for (const text of ['GET / HTTP/1.1\r\n\r\n', '{"type":"messages","token":"short"}\n', '\0\u{ff}\n', 'x'.repeat(100_000), `{"type":"messages","token":"${'0'.repeat(32)}"}\n`]) {
      const stranger = net.connect(file)
      stranger.on('error', () => undefined)
      await once(stranger, 'connect')
      stranger.write(text)
      stranger.end()
      await once(stranger.resume(), 'close')
    }
    await using two = world({ env: { ...env, PORT: String(port) } })
    await listening(two, 2)
    await two.event('state', ({ to }) => to === 'serving')
    expect((await one.ended).code).toBe(0)
    expect(one.events.filter(({ event }) => event === 'failed')).toEqual([])
    silent.destroy()
  })

  const refused = async (env: Record<string, string>, message: RegExp): Promise<void> => {
    await using program = world({ env: { NAME: 'app', ...env } })
    expect((await program.ended).code).toBe(1)
    expect(program.stderr).toMatch(message)
    expect(program.events.filter(({ event }) => event === 'listening')).toEqual([])
  }

  const unusable: [string, (folder: Folder) => string, RegExp][] = [
    ['a directory that others can enter', (folder) => {
      chmodSync(folder.path, 0o755)
      return folder.path
    }, /mode 0755, expected 0700/],
    ['a path that is too long for a socket', (folder) => folder.at('x'.repeat(90)), /is \d+ bytes long, expected at most 10\d/],
    ['a file where the directory should be', (folder) => {
      writeFileSync(folder.at('file'), '')
      return folder.at('file')
    }, /is not a directory/],
    ['a directory that cannot be made', () => '/proc/handover', /cannot be made/]
  ]
  if (process.getuid?.() === 0) {
    unusable.push(['a directory of another user', (folder) => {
      chownSync(folder.path, 12_345, 12_345)
      return folder.path
    }, /belongs to uid 12345, expected 0/])
  }

  test.each(unusable)('with %s a named program serves and is reloaded, and says that it is not found', async (_what, directory, says) => {
    using folder = new Folder()
    await using program = world({ env: { NAME: 'app', HANDOVER_DIR: directory(folder) } })
    await program.event('listening')
    await program.stderrMatching(says)
    expect(program.stderr).toMatch(/This process serves without its name: .* HANDOVER_DIR/)
    process.kill(program.pid, 'SIGHUP')
    await program.event('state', ({ to, generation }) => to === 'serving' && generation === 2)
    expect((await program.ended).code).toBe(0)
  })

  test.each(['../etc', 'a/b', '', '.hidden', 'x'.repeat(65), 'a b'])('the name %j is refused', async (name) => {
    await refused({ OPTIONS: JSON.stringify({ name }), NAME: '' }, /the option name is .*HANDOVER_OPTION/s)
  })

  test('a name in the environment with bad characters is refused', async () => {
    await refused({ HANDOVER_NAME: '../etc' }, /HANDOVER_NAME is .*HANDOVER_OPTION/s)
  })
})

