/**
 * The tarballs of `npm run pack` as npm, pnpm and yarn install them: no compiler, make or python on the PATH, no script of a package runs.
 * Each then runs, reloads and stops a server, whose processes have loaded the prebuilt binary. Each manager and each Node is in one pair;
 * `npm run install:all` tries every manager on every Node.
 *
 * HANDOVER_TEST_NODES: other Node binaries, separated by colons. A pair whose Node is not among them is skipped.
 */

import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Folder } from '../../helpers/plan.js'
import { Program } from '../../helpers/program.js'
import { root } from '../../helpers/world.js'

interface Manager {
  /** As npm installs the manager itself. */
  readonly from: string
  readonly bin: string
  readonly install: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

const berry = { from: '@yarnpkg/cli-dist@4', bin: 'bin/yarn.js', install: ['install', '--no-immutable'] }
const managers: Readonly<Record<string, Manager>> = {
  'npm 11': { from: 'npm@11', bin: 'bin/npm-cli.js', install: ['install', '--ignore-scripts'] },
  'npm 12': { from: 'npm@12', bin: 'bin/npm-cli.js', install: ['install', '--ignore-scripts'] },
  'pnpm 10': { from: 'pnpm@10', bin: 'bin/pnpm.cjs', install: ['install', '--ignore-scripts', '--no-frozen-lockfile'] },
  'pnpm 12': { from: 'pnpm@12', bin: 'bin/pnpm.mjs', install: ['install', '--ignore-scripts', '--no-frozen-lockfile'] },
  'yarn 1': { from: 'yarn@1', bin: 'bin/yarn.js', install: ['install', '--ignore-scripts'] },
  'yarn 4': berry,
  'yarn 4 with node_modules': { ...berry, env: { YARN_NODE_LINKER: 'node-modules' } }
}

const everything = process.env['HANDOVER_INSTALL'] === 'all'
const lines = [20, 22, 24, 26]
/** npm 12 is not for Node 20. */
const isFor = (manager: string, line: number): boolean => manager !== 'npm 12' || line >= 22
const pairs: readonly (readonly [string, number])[] = everything
  ? Object.keys(managers).flatMap((manager) => lines.filter((line) => isFor(manager, line)).map((line) => [manager, line] as const))
  : [['npm 11', 20], ['npm 12', 24], ['pnpm 12', 22], ['yarn 1', 26], ['yarn 4', 20]]

const nodes = new Map<number, string>()
for (const binary of [process.execPath, ...(process.env['HANDOVER_TEST_NODES'] ?? '').split(':').filter((each) => each !== '')]) {
  nodes.set(Number(/^v(\d+)/.exec(execFileSync(binary, ['--version'], { encoding: 'utf8' }))![1]), binary)
}

const folder = new Folder()
const alias = (name: string): string => name.replaceAll(' ', '-')
const tarball = (name: string): string => `file:${folder.at('tarballs')}/${readdirSync(folder.at('tarballs')).find((file) => new RegExp(`^${name}-\\d`).test(file))!}`

beforeAll(() => {
  execFileSync('node', ['release/pack.mjs', folder.at('tarballs')], { cwd: root, stdio: 'ignore' })
  const wanted = [...new Set(pairs.map(([manager]) => manager))].map((name) => `${alias(name)}@npm:${managers[name]!.from}`)
  const missing = everything ? lines.filter((line) => !nodes.has(line)) : []
  const npm = ['install', '--prefix', folder.at('managers'), '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']
  execFileSync('npm', [...npm, ...wanted, ...missing.map((line) => `node-${line}@npm:node-${process.platform}-${process.arch}@${line}`)], { stdio: ['ignore', 'ignore', 'inherit'] })
  for (const line of missing) nodes.set(line, folder.at(`managers/node_modules/node-${line}/bin/node`))
}, 180_000)
afterAll(() => { folder[Symbol.dispose]() })

const app = `
  const http = require('node:http')
  const { handover } = require('@handover/core')
  const addon = /prebuilds.\\S*handover\\.node/.exec(require('node:fs').readFileSync('/proc/self/maps', 'utf8'))
  http.createServer((request, response) => response.end()).listen(0, '127.0.0.1', () => {
    console.log(JSON.stringify({ event: 'listening', pid: process.pid, generation: handover.generation, node: process.version, addon: addon?.[0] }))
  })`

/** As docs/limits.md has it for pnpm and yarn as long as nothing is published: they do not take one tarball as a dependency of another. */
function project(at: string): void {
  const [core, load, command] = ['handover-core', 'handover-load', 'handover'].map(tarball) as [string, string, string]
  const resolutions = { '@handover/core': core, '@handover/load': load }
  const scripts = { start: 'handover run --name shop --workers 1 app.js', reload: 'handover reload --bake 0', stop: 'handover stop' }
  mkdirSync(at)
  writeFileSync(path.join(at, 'package.json'), JSON.stringify({ name: 'shop', private: true, scripts, dependencies: { ...resolutions, handover: command }, resolutions }))
  writeFileSync(path.join(at, 'pnpm-workspace.yaml'), `overrides: ${JSON.stringify(resolutions)}\n`)
  writeFileSync(path.join(at, 'app.js'), app)
}

test.for(pairs)('%s on Node %i installs the tarballs without a script or a compiler; a server loads the prebuilt binary, and is reloaded', async ([name, line], { skip }) => {
  const node = nodes.get(line)
  if (!node || process.platform !== 'linux') return skip(`no Node ${line} in HANDOVER_TEST_NODES, or not Linux`)
  const { bin, install, env: more } = managers[name]!
  const at = folder.at(`${alias(name)}-on-${line}`)
  project(at)
  const tools = path.join(at, 'tools')
  mkdirSync(tools)
  symlinkSync(node, path.join(tools, 'node'))
  // pnpm writes shell scripts into node_modules/.bin, which need these.
  for (const tool of ['sh', 'sed', 'dirname', 'uname']) symlinkSync(execFileSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).trim(), path.join(tools, tool))
  const ofThisRun = Object.fromEntries(Object.keys(process.env).filter((key) => /^(npm_|NODE|INIT_CWD)/i.test(key)).map((key) => [key, undefined]))
  const env = {
    ...ofThisRun, ...more, PATH: tools, HOME: at, HANDOVER_DIR: path.join(at, 'sockets'),
    YARN_CACHE_FOLDER: path.join(at, 'cache'), YARN_ENABLE_SCRIPTS: 'false', YARN_ENABLE_TELEMETRY: 'false', npm_config_update_notifier: 'false'
  }
  const run = (...words: string[]): Program => Program.start(folder.at(`managers/node_modules/${alias(name)}/${bin}`), { args: words, node, cwd: at, env })
  const ends = async (...words: string[]): Promise<void> => {
    await using program = run(...words)
    await program.closed
    expect({ ...await program.ended, said: `${program.lines.join('\n')}\n${program.stderr}` }).toMatchObject({ code: 0 })
  }

  await ends(...install)
  await using server = run('run', 'start')
  const started = await Promise.race([server.event('listening'), server.closed.then(() => { throw new Error(`it has ended:\n${server.stderr}`) })])
  expect(started).toMatchObject({ generation: 1, node: execFileSync(node, ['--version'], { encoding: 'utf8' }).trim(), addon: `prebuilds/linux-${process.arch}/handover.node` })
  await ends('run', 'reload')
  await server.event('listening', ({ generation }) => generation === 2)
  expect(server.stderr).not.toMatch(/warn:/)
  await ends('run', 'stop')
  expect(await server.ended).toMatchObject({ code: 0 })
})
