/** A second process takes over from one of the same name, by the control socket; and by none that nobody named. */

import { once } from 'node:events'
import { chmodSync, chownSync, readdirSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { ask, freePorts, get } from '../../helpers/ask.js'
import { Folder } from '../../helpers/plan.js'
import { runModule } from '../../helpers/script.js'
import { listening, world } from '../../helpers/world.js'

const host = '127.0.0.1'

/** Of names, without those that every process has for itself. */
const controlSockets = (folder: Folder): string[] => readdirSync(folder.at('control')).filter((name) => !/^[@.]/.test(name))
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
    expect(controlSockets(folder)).toEqual([])
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

test('a directory for the control socket that is a relative path is refused', () => {
  const run = runModule("import http from 'node:http'\nimport { handover } from '@handover/core'\nhandover(http.createServer(), { name: 'a' }).on('error', (error) => { console.log(error.code, error.message) }).listen(0)", { HANDOVER_DIR: path.join('some', 'folder') })
  expect(run.stdout).toMatch(/^HANDOVER_CONTROL_SOCKET HANDOVER_DIR=some\/folder is a relative path/)
})
