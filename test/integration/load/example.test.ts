/**
 * The example server as a process that can be reloaded, and the command lines of the demo and the benches.
 * The server here does without Handover, so that these tests are about the client's side only.
 */

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { startLoad } from '@handover/load'
import { benchFile, demoFile, Example } from '../../helpers/internals.js'
import { expect, test } from 'vitest'

const script = fileURLToPath(new URL('./reloadable.mjs', import.meta.url))

interface Ended {
  readonly status: number | string | null | undefined
  readonly stdout: string
  readonly stderr: string
}

const tools = { demo: demoFile, bench: benchFile }

function runTool(name: keyof typeof tools, env: NodeJS.ProcessEnv, ...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [tools[name], ...args], { env: { ...process.env, ...env } }, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : error.code, stdout, stderr }))
  })
}

test('a reload resolves with the new process, and the end leaves no process behind', async () => {
  const example = await Example.start({ script, version: '1' })
  try {
    const load = startLoad(example.target, { keepAlive: { clients: 3, thinkMs: 10 }, newConnections: { clients: 1 }, post: { clients: 1 } })
    await load.until(({ answers }) => answers > 10)
    const first = await example.reload(load, example.firstPid, '2')
    const second = await example.reload(load, first.pid, '3')
    expect(first.firstAnswerMs).toBeGreaterThan(0)
    expect(new Set([example.firstPid, first.pid, second.pid]).size).toBe(3)
    const { losses, versions } = await load.stop()
    expect(losses).toEqual([])
    expect(versions).toMatchObject([{ version: '1', pid: example.firstPid }, { version: '2', pid: first.pid }, { version: '3', pid: second.pid }])
    expect(await example.end(10_000, [second.pid])).toEqual([])
    expect(example.living()).toEqual([])
  } finally {
    await example.end(0)
  }
})

test('a process that does not end is killed and named', async () => {
  const example = await Example.start({ script, version: '1' })
  expect(await example.end(0, [])).toEqual([example.firstPid])
  expect(example.living()).toEqual([])
})

test('a program that does not start is an error with its last words', async () => {
  const started = Example.start({ script: `${script}.missing`, version: '1' })
  await expect(started).rejects.toMatchObject({
    message: 'the server ended before it listened: exit 1',
    cause: expect.stringContaining('reloadable.mjs.missing')
  })
})

test('the demo counts what was opened, moved and closed by the server in each reload, and ends with status 0 where nothing was lost or closed', async () => {
  const { status, stdout, stderr } = await runTool('demo', {}, '--app', 'http', '--reloads', '2', '--seconds', '3', '--json')
  expect(status, `${stderr}${stdout.slice(0, 2_000)}`).toBe(0)
  const { reloads, connections, failures, result } = JSON.parse(stdout) as {
    reloads: { opened: number; moved: number; closed: number }[]; connections: object; failures: unknown[]; result: { lost: number }
  }
  expect({ failures, lost: result.lost }).toEqual({ failures: [], lost: 0 })
  expect(reloads).toHaveLength(2)
  for (const reload of reloads) {
    expect(reload.closed).toBe(0)
    expect(reload.moved).toBeGreaterThan(0)
  }
  expect(connections).toMatchObject({ opened: 75, moved: reloads.reduce((sum, { moved }) => sum + moved, 0), closed: 0 })
})

test('the demo ends with status 1 where the server closed connections, and says how many', async () => {
  const { status, stdout } = await runTool('demo', { HANDOVER_MOVE: 'off' }, '--app', 'http', '--reloads', '1', '--seconds', '2')
  expect(status).toBe(1)
  const closed = Number(/^all +\d+ +0 +(\d+)$/m.exec(stdout)?.[1])
  expect(closed).toBeGreaterThan(0)
  expect(stdout).toContain(`0 requests were lost, ${closed} connections were closed by the server.`)
})

test.each([
  ['demo', ['--no-such-option']],
  ['demo', ['--app', 'koa']],
  ['demo', ['--reloads', '-1']],
  ['demo', ['--seconds', 'ten']],
  ['bench', ['no-such-bench']]
] as const)('%s %j ends with status 2 and one line', async (name, args) => {
  const { status, stdout, stderr } = await runTool(name, {}, ...args)
  expect(status).toBe(2)
  expect(stdout).toBe('')
  expect(stderr.trimEnd().split('\n')).toHaveLength(1)
})
