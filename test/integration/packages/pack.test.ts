/**
 * What users install: the tarballs, in an empty folder, without any install script, reload a server.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Program } from '../../helpers/program.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const folder = mkdtempSync(path.join(tmpdir(), 'handover-pack-'))
const npm = (cwd: string, ...args: string[]): string => execFileSync('npm', [...args, '--loglevel=error', '--no-audit', '--no-fund'], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })

const tarballs: string[] = []

beforeAll(() => {
  execFileSync('node', ['release/pack.mjs', folder], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  tarballs.push(...readdirSync(folder).filter((name) => name.endsWith('.tgz')).map((name) => `./${name}`))
  writeFileSync(path.join(folder, 'package.json'), '{"private":true}')
  const { devDependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { devDependencies: Record<string, string> }
  npm(folder, 'install', '--ignore-scripts', '--prefer-offline', ...tarballs, `fastify@${devDependencies['fastify']}`, `express@${devDependencies['express']}`, `prom-client@${devDependencies['prom-client']}`)
}, 400_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

const programs = {
  'core.mjs': `import http from 'node:http'
    import { handover } from '@handover/core'
    const server = handover(http.createServer((req, res) => res.end('ok')))
    server.listen(0, '127.0.0.1', () => console.log('listening'))`,
  'core.cjs': `const http = require('node:http')
    const { handover } = require('@handover/core')
    const server = handover(http.createServer((req, res) => res.end('ok')))
    server.listen(0, '127.0.0.1', () => console.log('listening'))`,
  'fastify.mjs': `import Fastify from 'fastify'
    import handover from '@handover/fastify'
    const app = Fastify()
    await app.register(handover)
    await app.listen({ port: 0 })
    console.log('listening')`,
  'fastify.cjs': `const app = require('fastify')()
    app.register(require('@handover/fastify'))
    app.listen({ port: 0 }, (error) => { if (error) throw error; console.log('listening') })`,
  'express.mjs': `import express from 'express'
    import { handover } from '@handover/express'
    handover(express()).listen(0, (error) => { if (error) throw error; console.log('listening') })`,
  'express.cjs': `const { handover } = require('@handover/express')
    handover(require('express')()).listen(0, (error) => { if (error) throw error; console.log('listening') })`,
  'prom-client.mjs': `import http from 'node:http'
    import { handover } from '@handover/core'
    import { inherit } from '@handover/prom-client'
    import { register } from 'prom-client'
    inherit()
    handover(http.createServer(async (req, res) => res.end(await register.metrics()))).listen(0, '127.0.0.1', () => console.log('listening'))`,
  'prom-client.cjs': `const http = require('node:http')
    const { handover } = require('@handover/core')
    const { register } = require('prom-client')
    require('@handover/prom-client').inherit(register)
    handover(http.createServer(async (req, res) => res.end(await register.metrics()))).listen(0, '127.0.0.1', () => console.log('listening'))`
}

test.each(Object.entries(programs))('%s reloads with the packages that npm pack made, of which no install script ran', async (name, source) => {
  const file = path.join(folder, name)
  writeFileSync(file, source)
  await using program = Program.start(file, { cwd: folder, env: { HANDOVER_UNDO_WINDOW: '0' } })
  await program.until(() => program.lines.includes('listening'))
  process.kill(program.pid, 'SIGHUP')
  await program.stderrMatching(/generation 2 \(process \d+\) serves; \d listeners? kept/)
  expect(await program.ended).toEqual({ code: 0, signal: null })
})

test('npx handover of the packed package runs an app that knows nothing of it, reloads it and stops it', async () => {
  writeFileSync(path.join(folder, 'app.js'), `require('node:http').createServer((req, res) => res.end('ok')).listen(0, '127.0.0.1', () => console.log('listening'))`)
  const env = { HANDOVER_DIR: path.join(folder, 'sockets'), HANDOVER_NAME: undefined }
  const bin = path.join(folder, 'node_modules', '.bin', 'handover')
  await using keeper = Program.start(bin, { args: ['run', '--name', 'packed', '--workers', '2', 'app.js'], cwd: folder, env })
  await keeper.until(() => keeper.lines.filter((line) => line === 'listening').length === 2)
  const npx = (...words: string[]): string => execFileSync('npx', ['--no', '--loglevel=error', '--', 'handover', ...words], { cwd: folder, env: { ...process.env, HANDOVER_DIR: env.HANDOVER_DIR }, encoding: 'utf8' })
  expect(npx('reload', '--bake', '0').match(/^slot \d: generation 2 .* serves in place of generation 1/gm)).toHaveLength(2)
  expect(npx('stop')).toMatch(/^packed has ended$/m)
  expect(await keeper.ended).toEqual({ code: 0, signal: null })
})

test('the tarball of the command has its bin, its preload and what stands in its exports, and no source', () => {
  const cli = path.join(folder, 'node_modules', 'handover')
  expect(readdirSync(cli).sort()).toEqual(['LICENSE', 'README.md', 'bin', 'dist', 'man', 'package.json'])
  expect(readdirSync(path.join(cli, 'dist'), { recursive: true }).sort()).toEqual(['bundle', 'bundle/main.js', 'bundle/preload.js', 'bundle/run.js'])
  const { scripts, dependencies } = JSON.parse(readFileSync(path.join(cli, 'package.json'), 'utf8')) as Record<string, Record<string, string> | undefined>
  expect(scripts).toBeUndefined()
  expect(Object.keys(dependencies ?? {})).toEqual(['@handover/core', '@handover/load'])
})

test('the tarball of the core carries the binary of this platform and no source of it', () => {
  const core = path.join(folder, 'node_modules', '@handover', 'core')
  expect(readdirSync(path.join(core, 'prebuilds'), { recursive: true })).toContain(`${process.platform}-${process.arch}/handover.node`)
  expect(readdirSync(core).sort()).toEqual(['LICENSE', 'PROTOCOL.md', 'README.md', 'dist', 'package.json', 'prebuilds'].sort())
  const { scripts, dependencies } = JSON.parse(readFileSync(path.join(core, 'package.json'), 'utf8')) as Record<string, Record<string, string> | undefined>
  expect(scripts?.['install']).toBeUndefined()
  expect(dependencies).toBeUndefined()
})

test('docs/numbers.md has the sizes of these tarballs, to a tenth', ({ skip }) => {
  if (readdirSync(path.join(folder, 'node_modules/@handover/core/prebuilds')).length !== 4) skip('not all four binaries can be built on this machine')
  const page = readFileSync(path.join(root, 'docs/numbers.md'), 'utf8')
  const said = [...page.matchAll(/^\| `(?:@handover\/)?([\w-]+)`.* \| ([\d,]+) kB \| [\d,]+ kB \| \d+ \|$/gm)].map(([, name, size]) => [name, Number(size!.replace(',', ''))] as const)
  expect(said).toHaveLength(tarballs.length)
  for (const [name, kilobytes] of said) {
    const file = tarballs.find((each) => new RegExp(`^\\./handover-${name === 'handover' ? '' : `${name}-`}\\d`).test(each))!
    const size = readFileSync(path.join(folder, file)).length / 1000
    expect(Math.abs(size - kilobytes), `${name}: ${size} kB`).toBeLessThanOrEqual(Math.max(1, kilobytes / 10))
  }
})

test('the tarball of the load client is whole, and has none of the benches and the demo', () => {
  const dist = path.join(folder, 'node_modules', '@handover', 'load', 'dist')
  const files = readdirSync(dist, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.js'))
  const imported = files.flatMap((file) => [...readFileSync(path.join(dist, file), 'utf8').matchAll(/^(?:import|export) .*?from '(.*?)'/gm)]
    .map(([, name]) => (name!.startsWith('.') ? path.join(path.dirname(file), name!) : name!)))
  expect(imported.filter((name) => name.endsWith('.js') && !files.includes(name))).toEqual([])
  expect(imported.filter((name) => !name.endsWith('.js') && !name.startsWith('node:'))).toEqual([])
  expect(files.filter((name) => /^(bench|certificate|demo|example|reporter|table|client.session-load)/.test(name))).toEqual([])
})

test('the tarballs can be published: publint and "are the types wrong" find nothing, for node10 as well; licence, maps and versions are right', () => {
  const { stdout, stderr, status } = spawnSync(process.execPath, [path.join(root, 'release', 'check.mjs'), folder, `${process.platform}-${process.arch}`], { encoding: 'utf8' })
  expect({ stdout, stderr, status }).toEqual({ stdout: 'the tarballs can be published\n', stderr: '', status: 0 })
}, 180_000)

test('what only adapters use is not in the public entry, and every adapter has its function by default and by name', () => {
  const require = createRequire(path.join(folder, 'core.cjs'))
  const core = require('@handover/core') as Record<string, unknown>
  expect(Object.keys(core).sort()).toEqual(['HandoverError', 'aggregate', 'errorTable', 'events', 'handover', 'move', 'onMoved', 'peer', 'ready', 'reload', 'share', 'stop'])
  for (const [name, word] of [['express', 'handover'], ['fastify', 'handover'], ['prom-client', 'inherit']] as const) {
    const adapter = require(`@handover/${name}`) as Record<string, unknown>
    expect([adapter['default'], adapter[word]]).toEqual([adapter, adapter])
    const script = `import byDefault, { ${word} } from '@handover/${name}'; process.exit(byDefault === ${word} && typeof ${word} === 'function' ? 0 : 1)`
    expect(spawnSync(process.execPath, ['--input-type=module', '--eval', script], { cwd: folder, stdio: 'ignore' }).status).toBe(0)
  }
})
