/** Where a process cannot be handed over it listens and drains as usual, and says why; and what is no server is refused in plain words. */

import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { ask, connects, get } from '../../helpers/ask.js'
import { childrenOf } from '../../helpers/invariants.js'
import { commandFile, endsService } from '../../helpers/internals.js'
import { Keeping, namespace } from '../../helpers/keeping.js'
import { Folder } from '../../helpers/plan.js'
import { Program, programPath } from '../../helpers/program.js'
import { runModule } from '../../helpers/script.js'
import { listening, root, world } from '../../helpers/world.js'

const host = '127.0.0.1'

const refused = process.platform !== 'linux' ? 'no Linux' : (spawnSync('unshare', [...namespace, 'true'], { encoding: 'utf8' }).stderr ?? 'no unshare')

/** As this process knows its pid. */
const nodeIn = (program: Program): number => {
  const names = (pid: number): boolean => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('world.mjs')
  // What a launcher starts beside it does not name it.
  const below = (pid: number): number | undefined => childrenOf(pid).find(names) ?? (names(pid) ? undefined : childrenOf(pid)[0])
  let pid = program.pid
  for (let child = below(pid); child !== undefined; child = below(pid)) pid = child
  return pid
}

async function refuses(program: Program, first: string): Promise<void> {
  const { port, pid } = await listening(program)
  process.kill(nodeIn(program), 'SIGHUP')
  await program.stderrMatching(new RegExp(`HANDOVER_UNAVAILABLE.*this process was started by ${first} \\(PID 1\\), which ends with it, and the container with both.*keeps serving`, 's'))
  expect(await ask('http', { port, host })).toBe(pid)
}

describe('where its end would end the container', () => {
  beforeEach(({ skip }) => { skip(refused !== '', `a PID namespace cannot be made here: ${refused}`) })

  test('PID 1 refuses to reload, says why, and serves on', async () => {
    await using program = world({ node: 'unshare', execArgv: [...namespace, process.execPath] })
    const { port, pid } = await listening(program)
    expect(pid).toBe(1)
    process.kill(childrenOf(program.pid)[0]!, 'SIGHUP')
    await program.stderrMatching(/HANDOVER_UNAVAILABLE.*PID 1.*keeps serving/s)
    expect(await ask('http', { port, host })).toBe(1)
  })

  test('PID 1 hands over to nothing in its own container: that would end as well', async () => {
    using folder = new Folder()
    const env = { HANDOVER_DIR: folder.at('control'), NAME: 'app' }
    await using program = world({ node: 'unshare', execArgv: [...namespace, process.execPath], env })
    const { port } = await listening(program)
    const inside = ['--pid', '--mount', '--target', String(childrenOf(program.pid)[0])]
    await using second = world({ node: 'nsenter', execArgv: [...inside, process.execPath], env: { ...env, PORT: String(port) } })
    expect(await second.ended).toEqual({ code: 1, signal: null })
    expect(second.stderr).toMatch(/HANDOVER_REFUSED.*this process is PID 1: its end would end the container/s)
    expect(await ask('http', { port, host })).toBe(1)
  })

  test.each(['tini', 'docker-init', 'dumb-init', 'catatonit'])('what %s has started refuses to reload, since that ends with it, and serves on', async (init) => {
    using folder = new Folder()
    // Waits for its first child, and ends: so does the container.
    writeFileSync(folder.at(init), '#!/bin/sh\n"$@"\nexit $?\n', { mode: 0o755 })
    await using program = world({ node: 'unshare', execArgv: [...namespace, folder.at(init), process.execPath] })
    await refuses(program, init)
  })

  test.each([
    ['sh', 'CMD node server.js', (command: string) => ['sh', '-c', `${command} && true`]],
    ['npm start', 'CMD ["npm", "start"]', (_command: string, folder: string) => ['npm', '--prefix', folder, 'start']],
    ['\\S+', 'CMD ["tsx", "server.js"]', () => [process.execPath, path.join(root, 'node_modules/.bin/tsx'), programPath('world.mjs')]],
    ...(Number(process.versions.node.split('.')[0]) >= 22 ? [['\\S+', 'CMD ["node", "--run", "start"]', () => [process.execPath, '--run', 'start']] as const] : [])
  ] as const)('what %s has started as PID 1 does so as well: %s', async (first, _docker, commandOf) => {
    using folder = new Folder()
    const command = `${process.execPath} ${programPath('world.mjs')}`
    writeFileSync(folder.at('package.json'), JSON.stringify({ name: 'app', version: '1.0.0', scripts: { start: command } }))
    const [word = '', ...words] = commandOf(command, folder.path)
    await using program = Program.start(word, { node: 'unshare', execArgv: [...namespace], args: words, cwd: folder.path })
    await refuses(program, first)
  })

  test('the first process of a container that shares the pids of its pod refuses, too, since its end would end that', async () => {
    using folder = new Folder()
    writeFileSync(folder.at('pause'), '#!/bin/sh\necho \'{"event":"paused"}\'\nsleep 1000\n', { mode: 0o755 })
    await using pod = Program.start(folder.at('pause'), { node: 'unshare', execArgv: [...namespace] })
    await pod.event('paused')
    const inside = ['--pid', '--mount', '--target', String(childrenOf(pod.pid)[0])]
    await using program = world({ node: 'nsenter', execArgv: [...inside, process.execPath] })
    const { port, pid } = await listening(program)
    process.kill(nodeIn(program), 'SIGHUP')
    await program.stderrMatching(/HANDOVER_UNAVAILABLE.*this process is the first of its container.*keeps serving/s)
    expect(await ask('http', { port, host })).toBe(pid)
    // Before the program: nobody but the kernel waits for its end.
    await pod[Symbol.asyncDispose]()
  })

  test.each(['containerd-shim', 'conmon'])('so does that of a container that has the pids of the machine, and was started by %s', async (runtime) => {
    using folder = new Folder()
    writeFileSync(folder.at(runtime), '#!/bin/sh\n"$@"\nexit $?\n', { mode: 0o755 })
    await using program = world({ node: folder.at(runtime), execArgv: [process.execPath] })
    const { port, pid } = await listening(program)
    process.kill(pid, 'SIGHUP')
    await program.stderrMatching(/HANDOVER_UNAVAILABLE.*this process is the first of its container.*keeps serving/s)
    expect(await ask('http', { port, host })).toBe(pid)
  })

  test('what a script of PID 1 has started beside other things is reloaded', async () => {
    const command = `${process.execPath} ${programPath('world.mjs')} & sleep 1000`
    await using program = Program.start('sh', { node: 'unshare', execArgv: [...namespace], args: ['-c', command] })
    const { port } = await listening(program)
    process.kill(nodeIn(program), 'SIGHUP')
    const { pid } = await listening(program, 2)
    await program.event('report', ({ report }) => (report as { result: string }).result === 'drained')
    expect(await ask('http', { port, host })).toBe(pid)
  })
})

describe('where systemd would end the service with it', () => {
  // As systemd does it.
  const asMain = ['-c', 'SYSTEMD_EXEC_PID=$$ exec "$0" "$@"', process.execPath]

  test('the main process of a unit of Type=simple refuses to reload, says why, and serves on', async () => {
    await using program = world({ node: 'sh', execArgv: asMain, env: { NOTIFY_SOCKET: undefined } })
    const { port, pid } = await listening(program)
    process.kill(pid, 'SIGHUP')
    await program.stderrMatching(/HANDOVER_UNAVAILABLE.*systemd would end the service with this process.*keeps serving.*Set Type=notify in the unit/s)
    expect(await ask('http', { port, host })).toBe(pid)
  })

  test('and its keeper is not replaced, while its workers are', async () => {
    await using app = await Keeping.start({ through: ['sh', ...asMain.slice(0, 2)], env: { NOTIFY_SOCKET: undefined } })
    const before = await app.serves()
    const { status, stderr } = await app.run('reload', '--keeper')
    expect({ status, stderr }).toMatchObject({ status: 1, stderr: expect.stringMatching(/HANDOVER_UNAVAILABLE.*systemd would end the service with the keeper.*It goes on\. Set Type=notify/s) })
    expect(await app.serves()).toEqual(before)
    expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
  })

  test('a unit of Type=notify follows; a service that only started what started it does not end', () => {
    const SYSTEMD_EXEC_PID = '7'
    expect(endsService('it', 7, { SYSTEMD_EXEC_PID })).toMatch(/systemd would end the service with it/)
    expect(endsService('it', 7, { SYSTEMD_EXEC_PID, NOTIFY_SOCKET: '/run/systemd/notify' })).toBeUndefined()
    expect(endsService('it', 8, { SYSTEMD_EXEC_PID })).toBeUndefined()
    expect(endsService('it', 7, {})).toBeUndefined()
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

  test('addons that are switched off are the reason, in one sentence, and it listens plainly', async () => {
    await using program = world({ execArgv: ['--no-addons'], env: { NAME: 'off' } })
    const { port, pid } = await listening(program)
    expect(program.stderr).toMatch(/the binary does not load: [^.]+loading addons is disabled\. The server listens as usual/)
    expect(await ask('http', { port, host })).toBe(pid)
  })

  test('a Node that is too old is refused in one sentence, by the package and by the command', () => {
    // As 21 and 22.0 to 22.2, which a range such as >=20 lets in.
    const older = 'delete process.getBuiltinModule'
    const needs = `Handover needs Node 20.19, or 22.12 or later; this is ${process.version}. Start the program with a newer Node.`
    const run = runModule(`import { createRequire } from 'node:module'
      ${older}
      try { createRequire(import.meta.url)('@handover/core') } catch ({ message }) { console.log(message) }`)
    expect(run).toEqual({ stdout: `${needs}\n`, stderr: '', status: 0 })
    const { stderr, status } = spawnSync(process.execPath, ['--import', `data:text/javascript,${older}`, commandFile, 'run', 'server.js'], { encoding: 'utf8' })
    expect({ stderr, status }).toEqual({ stderr: `handover: ${needs}\n`, status: 1 })
  })

  test('no range of a package lets such a Node in', () => {
    for (const name of ['core', 'cli', 'express', 'fastify', 'load', 'prom-client']) {
      const { engines } = JSON.parse(readFileSync(path.join(root, 'packages', name, 'package.json'), 'utf8')) as { engines: { node: string } }
      expect(engines.node, name).toBe('^20.19.0 || >=22.12.0')
    }
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
    await program.stderrMatching(new RegExp(`HANDOVER_UNAVAILABLE.*keeps serving tcp 127\\.0\\.0\\.1:${port}; no connection was lost`, 's'))
    const slow = get({ port, host }, '/slow')
    await program.event('slow')
    process.kill(pid, 'SIGTERM')
    await program.event('draining')
    expect(await connects({ port, host })).toBe('ECONNREFUSED')
    expect(await slow).toEqual({ status: 200, body: String(pid) })
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })
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
