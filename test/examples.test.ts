/**
 * The examples run as their first two lines say, and the systemd unit is one.
 */

import { once } from 'node:events'
import http from 'node:http'
import { readFileSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { Program } from './helpers/program.js'

const root = fileURLToPath(new URL('..', import.meta.url))

test.each(['http', 'fastify', 'express', 'events', 'websocket'])('examples/%s starts, and after kill -HUP its new version answers on the same port', async (name) => {
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
