/**
 * The examples run as their first two lines say, and the systemd units are some.
 */

import { once } from 'node:events'
import http from 'node:http'
import { readFileSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { spawnSync } from 'node:child_process'
import { startLoad } from '@handover/load'
import { expect, test } from 'vitest'
import { parseCommand } from '../helpers/internals.js'
import { command } from '../helpers/command.js'
import { Program } from '../helpers/program.js'

const root = fileURLToPath(new URL('../..', import.meta.url))

test.each(['http', 'fastify', 'express', 'events', 'websocket', 'opentelemetry'])('examples/%s starts, and after kill -HUP its new version answers on the same port', async (name) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-example-'))
  const versionFile = path.join(folder, 'version.txt')
  writeFileSync(versionFile, '1.0.0')
  try {
    await using program = Program.start(`examples/${name}/server.mjs`, { cwd: root, env: { PORT: '0', APP_VERSION_FILE: versionFile, HANDOVER_UNDO_WINDOW: '0' } })
    const line = await program.until(() => program.lines.find((text) => text.includes('listening')))
    const port = Number(/port: (\d+)/.exec(line)?.[1] ?? /:(\d+)(?!.*:\d)/.exec(line)?.[1])
    const version = async (): Promise<unknown> => {
      // A connection of its own: one that is kept alive would still be answered by the predecessor.
      const [response] = (await once(http.get({ port, host: 'localhost', agent: false }), 'response')) as [http.IncomingMessage]
      return response.resume().headers['x-version']
    }
    expect(await version()).toBe('1.0.0')
    writeFileSync(versionFile, '1.0.1')
    process.kill(program.pid, 'SIGHUP')
    await program.stderrMatching(/generation 2 \(process \d+\) serves/)
    expect(await version()).toBe('1.0.1')
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('examples/opentelemetry counts on over reloads, to the last request', async () => {
  await using program = Program.start('examples/opentelemetry/server.mjs', { cwd: root, env: { PORT: '0', HANDOVER_UNDO_WINDOW: '0' } })
  const line = await program.until(() => program.lines.find((text) => text.includes('listening')))
  const port = Number(/port: (\d+)/.exec(line)?.[1])
  const get = async (url: string): Promise<string> => {
    const [response] = (await once(http.get({ port, host: 'localhost', path: url, agent: false }), 'response')) as [http.IncomingMessage]
    return Buffer.concat(await response.toArray()).toString()
  }
  let pid = program.pid
  for (let generation = 2; generation <= 4; generation++) {
    for (let request = 0; request < 10; request++) await get('/')
    process.kill(pid, 'SIGHUP')
    pid = Number((await program.stderrMatching(new RegExp(`generation ${generation} \\(process (\\d+)\\) serves`)))[1])
    await get('/')
    const text = await get('/metrics')
    expect(text).toMatch(new RegExp(`^requests_total\\{method="GET".*\\} ${11 * (generation - 1)}$`, 'm'))
    expect(text).toMatch(new RegExp(`^duration_count\\S* ${11 * (generation - 1)}$`, 'm'))
    expect(text).toMatch(new RegExp(`^duration_bucket\\S*le="\\+Inf"\\S* ${11 * (generation - 1)}$`, 'm'))
  }
})

test('the systemd unit follows the service by notification and leaves the drain enough time', () => {
  const unit = readFileSync(path.join(root, 'examples/systemd/app.service'), 'utf8')
  const value = (key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1]
  expect(value('Type')).toBe('notify')
  expect(value('NotifyAccess')).toBe('all')
  expect(value('ExecReload')).toBe('/bin/kill -HUP $MAINPID')
  const drainTimeout = Number(/HANDOVER_DRAIN_TIMEOUT=(\d+)/.exec(unit)?.[1])
  expect(Number(value('TimeoutStopSec')) * 1000).toBeGreaterThan(drainTimeout)
  const analyze = spawnSync('systemd-analyze', ['verify', path.join(root, 'examples/systemd/app.service')], { encoding: 'utf8' })
  if (analyze.error === undefined) expect(analyze.stderr.split('\n').filter((text) => /app\.service:\d+/.test(text))).toEqual([])
})

test('examples/command runs with two workers under the command, is reloaded under load without a loss, and is stopped', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-example-'))
  const versionFile = path.join(folder, 'version.txt')
  const env = { PORT: '0', APP_VERSION_FILE: versionFile, HANDOVER_DIR: path.join(folder, 'sockets'), HANDOVER_NAME: 'example' }
  writeFileSync(versionFile, '1.0.0')
  const [first, second] = readFileSync(path.join(root, 'examples/command/server.mjs'), 'utf8').split('\n').map((line) => line.replace('// npx handover ', '').split(' '))
  const keeper = command(first!, env)
  try {
    const port = await new Promise<number>((resolve, reject) => {
      keeper.child.stdout!.on('data', () => {
        const found = /version 1\.0\.0 listening on port (\d+)(?=[^]*version 1\.0\.0 listening)/.exec(keeper.output.stdout)?.[1]
        if (found !== undefined) resolve(Number(found))
      })
      void keeper.ended.then(({ stderr }) => { reject(new Error(stderr)) })
    })
    const load = startLoad({ host: '127.0.0.1', port }, { keepAlive: { clients: 10, thinkMs: 10, path: '/' }, newConnections: { clients: 2, thinkMs: 10, path: '/' } })
    await load.until(({ answers }) => answers > 50)
    writeFileSync(versionFile, '1.0.1')
    const reload = await command([...second!, '--bake', '500ms', '--probe', '/healthz'], env).ended
    expect(reload).toMatchObject({ status: 0, stderr: '' })
    expect(reload.stdout.match(/^slot [01]: generation 2 .* serves in place of generation 1/gm)).toHaveLength(2)
    await load.until(({ versions }) => versions.some(({ version }) => version === '1.0.1'))
    const { lost, losses } = await load.stop()
    expect({ lost, losses }).toEqual({ lost: 0, losses: [] })
    expect(await command(['stop'], env).ended).toMatchObject({ status: 0, stdout: expect.stringMatching(/^example has ended$/m) })
    expect((await keeper.ended).status).toBe(0)
  } finally {
    keeper.child.kill()
    await keeper.ended
    rmSync(folder, { recursive: true })
  }
})

test('the unit of the command lets its workers outlive the keeper, and the drain have its time', () => {
  const unit = readFileSync(path.join(root, 'examples/command/app.service'), 'utf8')
  const value = (key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1]
  expect(value('Type')).toBe('notify')
  expect(value('KillMode')).toBe('process')
  expect(value('RuntimeDirectoryPreserve')).toBe('restart')
  expect(unit).toContain(`HANDOVER_DIR=/run/${value('RuntimeDirectory')}`)
  expect(Number(value('TimeoutStopSec')) * 1000).toBeGreaterThan(Number(/HANDOVER_DRAIN_TIMEOUT=(\d+)/.exec(unit)?.[1]))
  const analyze = spawnSync('systemd-analyze', ['verify', path.join(root, 'examples/command/app.service')], { encoding: 'utf8' })
  if (analyze.error === undefined) expect(analyze.stderr.split('\n').filter((text) => /app\.service:\d+/.test(text))).toEqual([])
})

test('PID 1 of the image is the keeper itself, not a shell or npm', () => {
  const dockerfile = readFileSync(path.join(root, 'examples/command/Dockerfile'), 'utf8')
  const words = JSON.parse(/^CMD (\[.*\])$/m.exec(dockerfile)?.[1] ?? '[]') as string[]
  expect(words[0]).toBe('node_modules/.bin/handover')
  expect(parseCommand(words.slice(1))).toMatchObject({ is: 'run', options: { script: 'server.mjs' } })
})
