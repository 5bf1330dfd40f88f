/**
 * Deploys as their tools do them: releases in folders of their own, a link `current` that is moved to the newest, the oldest removed, also
 * under a keeper that was started from it. However it was started, reloads, crashes and `reload --keeper` go on working, and never start
 * old code in silence.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync, chownSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, renameSync, rmSync, symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { statusOf } from '../../helpers/built.js'
import { freePorts, get } from '../../helpers/ask.js'
import { command } from '../../helpers/command.js'
import { LoadedCopy, mayRun } from '../../helpers/internals.js'
import { Folder } from '../../helpers/plan.js'
import { Program, waitFor } from '../../helpers/program.js'

const repository = fileURLToPath(new URL('../../..', import.meta.url))

interface Layout {
  /** Where the package is, in a release; 'global': beside all releases; 'none': only the first release has it. */
  readonly packages: 'node_modules' | 'pnpm' | 'global' | 'none'
  /** The script that is given to node, by the folder of the app. */
  main(app: App): string
  readonly pwd: boolean
}

class App implements AsyncDisposable {
  readonly folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'handover-releases-')))
  readonly current = path.join(this.folder, 'current')
  readonly port: number
  readonly #packages: Layout['packages']
  readonly #programs: Program[] = []
  #adapter = false

  private constructor(port: number, packages: Layout['packages']) {
    this.port = port
    this.#packages = packages
    mkdirSync(this.sockets, { mode: 0o700 })
    if (packages === 'global') this.#install(path.join(this.folder, 'global'))
  }

  static async make(packages: Layout['packages'], adapter = false): Promise<App> {
    const app = new App((await freePorts(1))[0]!, packages)
    app.#adapter = adapter
    app.release(1)
    return app
  }

  get sockets(): string {
    return path.join(this.folder, 'sockets')
  }

  releaseAt(version: number): string {
    return path.join(this.folder, 'releases', String(version))
  }

  /** Deploys it: from now on `current` leads there. */
  release(version: number): void {
    const at = this.releaseAt(version)
    mkdirSync(at, { recursive: true })
    writeFileSync(path.join(at, 'package.json'), '{"name":"shop"}')
    const adopt = this.#adapter ? `const { handover } = require('@handover/core')\nhandover.share('before', { save: () => 'v${version}', restore: (saved) => { before = saved } })\nhandover` : ''
    writeFileSync(path.join(at, 'server.js'), `let before = 'nobody';\n${adopt}(require('http').createServer((request, response) => response.end('v${version} ' + process.pid + ' after ' + before))).listen(${this.port}, '127.0.0.1')`)
    if (this.#packages !== 'global' && (this.#packages !== 'none' || version === 1)) this.#install(at)
    rmSync(this.current, { force: true })
    symlinkSync(at, this.current)
  }

  #install(at: string): void {
    const modules = path.join(at, 'node_modules')
    const copy = (from: string, to: string): void => { cpSync(path.join(repository, from), path.join(modules, to), { recursive: true, filter: (file) => !/[\\/]packages[\\/]\w+[\\/]src([\\/]|$)|\.(map|ts|mts|tsbuildinfo)$/.test(file) }) }
    const home = this.#packages === 'pnpm' ? '.pnpm/handover@1/node_modules/' : ''
    copy('packages/cli', `${home}handover`)
    copy('packages/core', `${home}@handover/core`)
    copy('build/Release/handover.node', `${home}@handover/core/prebuilds/${process.platform}-${process.arch}/handover.node`)
    if (home !== '') symlinkSync(`${home}handover`, path.join(modules, 'handover'))
    mkdirSync(path.join(modules, '.bin'))
    symlinkSync('../handover/bin/handover.js', path.join(modules, '.bin/handover'))
  }

  start(script: string, args: readonly string[], cwd: string, pwd: string | undefined): Program {
    const program = Program.start(script, { args, cwd, env: {
      HANDOVER_DIR: this.sockets, PWD: pwd, OLDPWD: undefined, INIT_CWD: undefined, npm_config_local_prefix: undefined,
      npm_package_json: undefined, _: undefined
    } })
    this.#programs.push(program)
    return program
  }

  /** Undefined where nobody answers. */
  async answer(): Promise<{ version: string; pid: number; before?: string | undefined } | undefined> {
    const [version = '', pid, , before] = (await get({ port: this.port }).catch(() => ({ body: '' }))).body.split(' ')
    return version === '' ? undefined : { version, pid: Number(pid), before }
  }

  async answers(version: string, not?: number): Promise<number> {
    let pid = 0
    await waitFor(async () => {
      const found = await this.answer()
      pid = found?.pid ?? 0
      return found?.version === version && pid !== not
    })
    return pid
  }

  async reload(...words: string[]): Promise<{ status: number | null; output: string }> {
    const { status, stdout, stderr } = await command(['reload', ...words], { HANDOVER_DIR: this.sockets }).ended
    return { status, output: stdout + stderr }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await program[Symbol.asyncDispose]()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

const inCurrent = (file: string) => (app: App): string => path.join(app.current, file)
const inRelease = (file: string) => (app: App): string => path.join(app.releaseAt(1), file)

const layouts: [string, Layout][] = [
  ['by a relative path', { packages: 'node_modules', main: () => 'node_modules/.bin/handover', pwd: true }],
  ['by npx or npm run, which put the release itself into PATH', { packages: 'node_modules', main: inRelease('node_modules/.bin/handover'), pwd: true }],
  ['by an absolute path through the link, without PWD', { packages: 'node_modules', main: inCurrent('node_modules/.bin/handover'), pwd: false }],
  ['by a relative path without PWD', { packages: 'node_modules', main: () => 'node_modules/handover/bin/handover.js', pwd: false }],
  ['from a global install', { packages: 'global', main: (app) => path.join(app.folder, 'global/node_modules/.bin/handover'), pwd: true }],
  ['by pnpm, which calls the file in its store', { packages: 'pnpm', main: inRelease('node_modules/.pnpm/handover@1/node_modules/handover/bin/handover.js'), pwd: true }],
  ['from a release whose successors are without the package', { packages: 'none', main: () => 'node_modules/.bin/handover', pwd: true }]
]

describe('a keeper that was started', () => {
  test.each(layouts)('%s outlives its release: reloads, crashes and its own successor find what is current', async (_how, { packages, main, pwd }) => {
    await using app = await App.make(packages)
    const keeper = app.start(main(app), ['run', 'server.js'], app.current, pwd ? app.current : undefined)
    await app.answers('v1')
    await waitFor(async () => (await statusOf(path.join(app.sockets, 'shop.sock')).catch(() => undefined))?.processes[0]?.state === 'serving')
    app.release(2)
    rmSync(app.releaseAt(1), { recursive: true })
    const reloaded = await app.reload('--bake', '0')
    expect(reloaded, reloaded.output).toMatchObject({ status: 0 })
    const second = await app.answers('v2')
    const said = /the package handover .* is gone, .* which is loaded, is used/
    if (packages === 'none') expect(reloaded.output).toMatch(said)
    else expect(reloaded.output + keeper.stderr).not.toMatch(said)

    process.kill(second, 'SIGKILL')
    await app.answers('v2', second)

    const handed = await app.reload('--keeper')
    expect(handed, handed.output).toMatchObject({ status: 0 })
    app.release(3)
    await waitFor(async () => (await app.reload('--bake', '0')).status === 0)
    await app.answers('v3')
  })
})

test('a deploy that moves the link while a reload runs leaves no workers of two releases', async () => {
  await using app = await App.make('global')
  app.start(path.join(app.folder, 'global/node_modules/.bin/handover'), ['run', '--workers', '2', 'server.js'], app.current, app.current)
  await app.answers('v1')
  const slots = async (): Promise<number> => {
    const status = await statusOf(path.join(app.sockets, 'shop.sock')).catch(() => undefined)
    return status?.processes.filter(({ state }) => state === 'serving').length ?? 0
  }
  await waitFor(async () => await slots() === 2)
  const versions = async (): Promise<string[]> => [...new Set((await Promise.all(Array.from({ length: 20 }, () => app.answer()))).map((answer) => answer?.version ?? ''))]
  app.release(2)
  const { output, ended } = command(['reload', '--bake', '700ms'], { HANDOVER_DIR: app.sockets })
  await waitFor(() => output.stdout.includes('watching it'))
  app.release(3)
  const { status, stderr } = await ended
  expect({ status, stderr }).toMatchObject({ status: 1, stderr: expect.stringMatching(/a deploy changed the code while the reload ran: process \d+ \(generation 2\) was started from \S+\/releases\/2\/server\.js, and process \d+ \(generation 2\) from \S+\/releases\/3\/server\.js\./) })
  // One that was taken back still answers what it has.
  await waitFor(async () => (await versions()).join() === 'v1')
  const again = await app.reload('--bake', '0')
  expect(again, again.output).toMatchObject({ status: 0 })
  await waitFor(async () => (await versions()).join() === 'v3')
})

test('a service that is reloaded by a signal, started without PWD in a folder that a link leads to, follows the link, and its state goes along', async () => {
  await using app = await App.make('node_modules', true)
  const program = app.start('server.js', [], app.current, undefined)
  const first = await app.answers('v1')
  app.release(2)
  rmSync(app.releaseAt(1), { recursive: true })
  process.kill(first, 'SIGHUP')
  await app.answers('v2')
  expect((await app.answer())?.before).toBe('v1')
  expect(program.stderr).toMatch(/PWD does not say how the working directory was reached: .*\/releases\/1 is taken for .*\/current/)
})

test('where the working directory is gone and no link says what replaced it, a reload fails and says so; after a crash what is still there is started', async () => {
  await using app = await App.make('node_modules')
  rmSync(app.current)
  const release = app.releaseAt(1)
  const keeper = app.start('node_modules/handover/bin/handover.js', ['run', 'server.js'], release, undefined)
  const first = await app.answers('v1')
  renameSync(release, app.releaseAt(9))
  const { status, output } = await app.reload('--bake', '0')
  expect({ status, output }).toMatchObject({ status: 1, output: expect.stringContaining(`the working directory ${release} is gone`) })
  expect((await app.answer())?.pid).toBe(first)
  process.kill(first, 'SIGKILL')
  await app.answers('v1', first)
  expect(keeper.stderr).toContain(`the working directory ${release} is gone`)
})

test('the copy of what is loaded goes with its keeper, unless the next keeper was started from it', () => {
  using folder = new Folder()
  const { TMPDIR } = process.env
  process.env['TMPDIR'] = folder.path
  try {
    const copy = new LoadedCopy()
    const next = path.join(copy.write(folder.path), 'bin/handover.js')
    copy.remove([next, 'run', 'server.js'])
    expect(existsSync(next)).toBe(true)
    copy.remove(['node_modules/handover/bin/handover.js', 'run', 'server.js'])
    expect(readdirSync(folder.path)).toEqual([])
  } finally {
    if (TMPDIR === undefined) Reflect.deleteProperty(process.env, 'TMPDIR')
    else process.env['TMPDIR'] = TMPDIR
  }
})

test('a folder that another user has made in the place of the copy, once a cleaner had removed it, is not run from, and not removed', () => {
  using folder = new Folder()
  const { TMPDIR } = process.env
  process.env['TMPDIR'] = folder.path
  try {
    const copy = new LoadedCopy()
    const first = copy.write(folder.path)
    expect([copy.write(folder.path), mayRun(path.join(first, 'bin/handover.js'))]).toEqual([first, true])
    const [name = ''] = readdirSync(folder.path)
    // Files of the same sizes.
    cpSync(folder.at(name), folder.at('other'), { recursive: true })
    rmSync(folder.at(name), { recursive: true })
    renameSync(folder.at('other'), folder.at(name))
    chmodSync(folder.at(name), 0o755)
    if (process.geteuid?.() === 0) chownSync(folder.at(name), 65_534, 65_534)
    expect(mayRun(path.join(first, 'bin/handover.js'))).toBe(false)
    const next = copy.write(folder.path)
    expect([next === first, mayRun(next)]).toEqual([false, true])
    copy.remove()
    expect(readdirSync(folder.path)).toEqual([name])
  } finally {
    if (TMPDIR === undefined) Reflect.deleteProperty(process.env, 'TMPDIR')
    else process.env['TMPDIR'] = TMPDIR
  }
})

test('the copy of what is loaded is made where its addon may be executed, and no part of one is left elsewhere', ({ skip }) => {
  using folder = new Folder()
  const [noexec, app] = [folder.at('noexec'), folder.at('app')] as const
  for (const each of [noexec, app]) mkdirSync(each)
  const refused = spawnSync('mount', ['-t', 'tmpfs', '-o', 'noexec', 'tmpfs', noexec], { encoding: 'utf8' }).stderr
  skip(refused !== '', `nothing can be mounted here: ${refused}`)
  const { TMPDIR } = process.env
  process.env['TMPDIR'] = noexec
  try {
    const copy = new LoadedCopy()
    expect(copy.write(app).startsWith(noexec)).toBe(false)
    expect(readdirSync(noexec)).toEqual([])
    copy.remove()
  } finally {
    if (TMPDIR === undefined) Reflect.deleteProperty(process.env, 'TMPDIR')
    else process.env['TMPDIR'] = TMPDIR
    execFileSync('umount', [noexec])
  }
})
