/**
 * What the README tells users to type works in an empty folder, with the tarballs of `npm run pack` and no compiler, make or python on the
 * PATH. Its servers in code are started and reloaded there. Only the ports are replaced.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePorts, get } from '../helpers/ask.js'
import { Program, waitFor } from '../helpers/program.js'
import { blocksOf, shown, type } from '../helpers/typed.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(path.join(tmpdir(), 'handover-readme-'))
const shop = path.join(home, 'shop')
const tools = path.join(home, 'bin')
const blocks = blocksOf(path.join(root, 'README.md'))
const [first, second] = blocks.filter(({ language }) => language === 'sh')
const code = blocks.filter(({ language }) => language === 'js').map(({ text }) => text)

const environment = (): NodeJS.ProcessEnv => ({
  PATH: tools, HOME: home, HANDOVER_DIR: path.join(home, 'sockets'), npm_config_cache: execFileSync('npm', ['config', 'get', 'cache'], { encoding: 'utf8' }).trim(),
  npm_config_prefer_offline: 'true', npm_config_audit: 'false', npm_config_fund: 'false', npm_config_loglevel: 'error'
})

beforeAll(() => {
  mkdirSync(tools)
  for (const tool of ['bash', 'sh', 'node', 'npm', 'npx', 'env', 'cat', 'curl', 'sed', 'mkdir']) {
    symlinkSync(execFileSync('bash', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).trim(), path.join(tools, tool))
  }
  // `npm run pack` would write anew what the processes of other tests load: they are built already.
  const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
  expect(scripts['pack']).toBe('npm run --silent build && node release/pack.mjs')
  execFileSync('node', ['release/pack.mjs', path.join(home, 'handover', 'tarballs')], { cwd: root, stdio: 'ignore' })
}, 300_000)

afterAll(() => { rmSync(home, { recursive: true, force: true, maxRetries: 5 }) })

test('an app is installed from the tarballs, run, reloaded, watched and stopped as the README says, without a compiler', { timeout: 240_000 }, async ({ onTestFinished }) => {
  const env = environment()
  for (const tool of ['cc', 'gcc', 'g++', 'c++', 'clang', 'make', 'python3']) expect(spawnSync('bash', ['-c', `command -v ${tool}`], { env }).status, tool).toBe(1)
  const [port] = await freePorts(1)
  const { status, output, errors } = await type(`${first!.text}${second!.text}`.replaceAll('3000', String(port)), home, env, onTestFinished)
  expect({ status, output, errors }).toMatchObject({ status: 0 })
  expect(output).toMatch(shown('version 1\nreloaded in 3 s\nversion 2\nshop\nNothing was lost: 2,056 requests were sent and 2,056 answered.\nversion 2\nshop has ended'))
  expect(output).toMatch(shown(first!.prints!))
  expect(errors).toMatch(shown(second!.prints!))
})

test('the README shows Fastify, Express and http', () => { expect(code).toHaveLength(3) })

test.each(['Fastify', 'Express', 'http'].map((name, index) => [name, index] as const))('the server in code with %s answers, and is reloaded', async (_name, index) => {
  const [port] = await freePorts(1)
  const file = path.join(shop, `server-${index}.mjs`)
  writeFileSync(file, code[index]!.replaceAll('3000', String(port)))
  await using program = Program.start(file, { cwd: shop, env: { HANDOVER_UNDO_WINDOW: '0' } })
  await waitFor(() => get({ port: port!, host: 'localhost' }).then(() => true, () => false))
  process.kill(program.pid, 'SIGHUP')
  await program.stderrMatching(/generation 2 \(process \d+\) serves/)
  expect((await get({ port: port!, host: 'localhost' })).status).toBeGreaterThanOrEqual(200)
})
