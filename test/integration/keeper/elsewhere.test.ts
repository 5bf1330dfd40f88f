/**
 * Words that are true: of an app that serves from where Handover cannot hand over, of one that is stopped or whose keeper is, and of one
 * that is found by the name of its package.
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { commandFile, preloadFile } from '../../helpers/built.js'
import { freePorts, get } from '../../helpers/ask.js'
import { Folder } from '../../helpers/plan.js'
import { command, type Ran } from '../../helpers/command.js'
import { Program } from '../../helpers/program.js'

const listen = `require('node:http').createServer((request, response) => { response.end('ok') }).listen(0, '127.0.0.1', function () {
  require('node:fs').writeSync(1, JSON.stringify({ event: 'listening', port: this.address().port, pid: process.pid }) + '\\n') })`

const programs = {
  thread: `const { Worker, isMainThread } = require('node:worker_threads'); if (isMainThread) new Worker(__filename); else ${listen}`,
  child: `if (process.argv[2] === 'child') ${listen}; else require('node:child_process').fork(__filename, ['child', 'secret-argument'], { stdio: 'inherit' })`,
  cluster: `const cluster = require('node:cluster'); if (cluster.isPrimary) cluster.fork(); else ${listen}`,
  both: `const cluster = require('node:cluster'); if (cluster.isPrimary) require('node:http').createServer().listen(0, '127.0.0.1', () => { cluster.fork() }); else ${listen}`,
  main: listen,
  beside: `const { Worker, isMainThread } = require('node:worker_threads')
    if (isMainThread) new Worker(__filename).once('message', () => { ${listen} })
    else require('node:http').createServer().listen(Number(process.env.BESIDE), '127.0.0.1', () => { require('node:worker_threads').parentPort.postMessage('on') })`,
  launcher: `if (process.argv[2] === 'child') ${listen}; else {
    require('node:net').createServer().listen(process.env.PIPE)
    require('node:child_process').spawn(process.execPath, [__filename, 'child'], { stdio: 'inherit' }) }`
} as const

/** An app under `handover run` in a folder of its own. */
class Started implements AsyncDisposable {
  readonly folder = new Folder()
  readonly program: Program

  constructor(kind: keyof typeof programs, { words = [], packageName = 'app', env = {} }: { words?: readonly string[]; packageName?: string; env?: Readonly<Record<string, string>> } = {}) {
    mkdirSync(this.folder.at('control'), { mode: 0o700 })
    writeFileSync(this.folder.at('app.cjs'), programs[kind])
    writeFileSync(this.folder.at('package.json'), JSON.stringify({ name: packageName }))
    this.program = Program.start(commandFile, { args: ['run', ...words, 'app.cjs'], cwd: this.folder.path, env: { ...this.#env, PWD: this.folder.path, PIPE: this.folder.at('pipe.sock'), ...env } })
  }

  get #env(): Record<string, string> {
    return { HANDOVER_DIR: this.folder.at('control') }
  }

  async run(...words: string[]): Promise<Ran> {
    return await command(words, this.#env).ended
  }

  async port(): Promise<number> {
    return (await this.program.event('listening'))['port'] as number
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]()
    this.folder[Symbol.dispose]()
  }
}

const flat = (text: string): string => text.replace(/\s+/g, ' ')

describe('an app that serves', () => {
  it.each([
    ['from a worker thread', 'thread', [], /^process \d+ serves tcp 127\.0\.0\.1:PORT, and cannot be handed over: it listens in a worker thread, /, 'Let the main thread listen'],
    ['from a process that it forks', 'child', [], /^process \d+ listens on nothing itself: process \d+ \(node \S+app\.cjs\), which it started, serves tcp 127\.0\.0\.1:PORT, and /, 'Give handover run the program that listens'],
    ['with node:cluster', 'cluster', [], /^process \d+ serves tcp 127\.0\.0\.1:PORT, and cannot be handed over: this program has cluster workers, /, 'Else restart the app'],
    ...(process.allowedNodeEnvironmentFlags.has('--permission') || process.allowedNodeEnvironmentFlags.has('--experimental-permission')
      ? [['under --permission', 'main', [`--${process.allowedNodeEnvironmentFlags.has('--permission') ? '' : 'experimental-'}permission`, '--allow-fs-read=*', '--allow-fs-write=*'], /^process \d+ serves tcp 127\.0\.0\.1:PORT, and cannot be handed over: --permission forbids the addon in it/, 'Allow it with --allow-addons'] as const]
      : [])
  ] as const)('%s is told as that, with what to do: in the log once, by a reload, and in the status', async (_where, kind, words, says, todo) => {
    await using app = new Started(kind, { words })
    const port = await app.port()
    const [, line = ''] = await app.program.stderrMatching(/^handover: warn: (process \d+ (?:serves|listens on nothing).*)$/m)
    const text = new RegExp(says.source.replace('PORT', String(port)))
    expect(line).toMatch(text)
    expect(line).toContain(`. ${todo}`)
    expect(line).not.toContain('secret-argument')
    const reload = await app.run('reload')
    expect(reload.status).toBe(1)
    expect(reload.stderr.replace(/^handover: /, '')).toMatch(text)
    expect(reload.stderr).toMatch(/\. Nothing was changed\. .*\(HANDOVER_UNAVAILABLE\)\n$/)
    const status = flat((await app.run('status')).stdout)
    expect(status).toContain(line)
    expect(status).not.toMatch(/being started/)
    expect((await get({ port, host: '127.0.0.1' })).body).toBe('ok')
    expect(app.program.stderr.split(line)).toHaveLength(2)
    // As without Handover, but for what listens in the main thread: that is drained.
    process.kill(app.program.pid, 'SIGTERM')
    expect(await app.program.ended).toEqual({ code: kind === 'main' ? 0 : 143, signal: null })
  })

  it('with node:cluster, and in the main process before it forks, is not reloaded: the end of that process would be the end of its workers', async () => {
    await using app = new Started('both')
    const port = await app.port()
    const reload = await app.run('reload')
    expect(reload.status).toBe(1)
    expect(flat(reload.stderr)).toMatch(/this program has cluster workers, .+ keeps serving .+ \(HANDOVER_UNAVAILABLE\)|HANDOVER_UNAVAILABLE.+this program has cluster workers, .+ keeps serving /)
    expect((await get({ port, host: '127.0.0.1' })).body).toBe('ok')
  })

  it('from the main thread and from a worker thread as well: a reload that fails for that names the address and what may have it', async () => {
    const [port] = await freePorts(1)
    await using app = new Started('beside', { env: { BESIDE: String(port) } })
    await app.port()
    const reload = await app.run('reload')
    expect(reload.status).toBe(1)
    expect(reload.stderr).toMatch(/HANDOVER_SUCCESSOR_EXIT/)
    expect(reload.stderr).toContain(`Find out what has 127.0.0.1:${port}, and reload again. If it is the old version, it listens there where Handover hands nothing over: in a worker thread,`)
  })

  it('by a server that listened before Handover was loaded: that is said at a reload, also where it fails for that', async () => {
    using folder = new Folder()
    const [port] = await freePorts(1)
    writeFileSync(folder.at('early.cjs'), `require('node:http').createServer().listen(${port})`)
    writeFileSync(folder.at('app.cjs'), listen)
    const execArgv = ['--require', folder.at('early.cjs'), '--require', preloadFile]
    await using program = Program.start(folder.at('app.cjs'), { execArgv, env: { HANDOVER_PRELOAD: '1', HANDOVER_DIR: folder.at('control') } })
    await program.event('listening')
    process.kill(program.pid, 'SIGHUP')
    await program.stderrMatching(/warn: a server of this process listened before Handover was loaded, and is not handed over/)
    await program.stderrMatching(new RegExp(`HANDOVER_SUCCESSOR_EXIT[^]*keeps serving[^]*Find out what has :::${port}, and reload again`))
  })

  it('from what a launcher starts, which itself listens on a path alone, is told as that', async () => {
    await using app = new Started('launcher')
    const port = await app.port()
    await app.program.stderrMatching(new RegExp(`warn: process \\d+ listens on unix \\S+pipe\\.sock alone, and process \\d+ \\(node \\S+app\\.cjs\\), which it started, serves tcp 127\\.0\\.0\\.1:${port}: that process is not handed over\\. Give handover run the program that listens`))
    expect(flat((await app.run('status')).stdout)).toContain(`serves tcp 127.0.0.1:${port}: that process is not handed over`)
  })
})

describe('an app of the package @acme/shop', () => {
  it('is found by that name, and where its keeper is stopped by a signal it is said to be that, and not to be gone', async () => {
    await using app = new Started('main', { packageName: '@acme/shop' })
    await app.port()
    const names = (ran: Ran): unknown => (JSON.parse(ran.stdout) as { apps: { name: string }[] }).apps.map(({ name }) => name)
    expect(names(await app.run('status', '@acme/shop', '--json'))).toEqual(['acme-shop'])
    expect(await app.run('reload', '@acme/shop', '--bake', '0')).toMatchObject({ status: 0 })
    expect(await app.run('reload', '@acme/other')).toMatchObject({ status: 1, stderr: expect.stringContaining('no app "@acme/other" runs') as string })

    const keeper = app.program.pid
    process.kill(keeper, 'SIGSTOP')
    const says = `process ${keeper} lives, and does not answer: it was stopped by a signal (SIGSTOP or the like); kill -CONT ${keeper} lets it go on`
    const status = flat((await app.run('status')).stdout)
    expect(status).toContain(`${says}; its workers serve meanwhile`)
    expect(status).not.toContain('is gone')
    expect(await app.run('reload', '@acme/shop')).toMatchObject({ status: 1, stderr: expect.stringContaining(`${says}. Its workers serve. Nothing was asked.`) as string })
    process.kill(keeper, 'SIGCONT')
    expect(await app.run('stop', '@acme/shop')).toMatchObject({ status: 0 })
    expect(await app.program.ended).toEqual({ code: 0, signal: null })
  })
})
