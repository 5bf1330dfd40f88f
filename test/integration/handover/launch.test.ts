/**
 * What a reload starts: what is there now (the version, the binary, the directory), with the same streams and a clean environment; and how
 * it was started.
 */

import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, readlinkSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { describe, expect, test } from 'vitest'
import { coreFile } from '../../helpers/built.js'
import { Folder } from '../../helpers/plan.js'
import { Program, type ProgramEvent, programPath, waitFor } from '../../helpers/program.js'
import { listening, release, root, world } from '../../helpers/world.js'

function moveLink(link: string, to: string): void {
  symlinkSync(to, `${link}.new`)
  renameSync(`${link}.new`, link)
}

describe('a reload starts what is there now', () => {
  test.each([
    ['node app.mjs inside `current`', 'current', 'app.mjs'],
    ['node current/app.mjs from outside', '.', 'current/app.mjs'],
    ['node ./current/app.mjs from outside', '.', './current/app.mjs']
  ])('with %s, where a deploy moved the link', async (_name, cwd, script) => {
    using folder = new Folder()
    const current = folder.at('current')
    symlinkSync(release(folder, 'one'), current)
    const at = path.join(folder.path, cwd)
    await using program = Program.start(script, { cwd: at, env: { PWD: at } })
    const { port, version } = await listening(program)
    expect(version).toBe('one')
    moveLink(current, release(folder, 'two'))
    await program.hangUp()
    expect(await listening(program, 2)).toMatchObject({ version: 'two', port })
    moveLink(current, release(folder, 'three'))
    await program.hangUp()
    expect(await listening(program, 3)).toMatchObject({ version: 'three', port })
  })

  test('where the program is a single executable application with a title: its own path is none of its arguments', async () => {
    using folder = new Folder()
    writeFileSync(folder.at('single.cjs'), "process.title = 'shop'; process.getBuiltinModule('node:sea').isSea = () => true; process.execArgv = []")
    // In the place of the executable: node itself is started anew, with the arguments of the application alone.
    writeFileSync(folder.at('shop.mjs'), `await import(process.argv[2])`)
    writeFileSync(folder.at('app.mjs'), `
      import http from 'node:http'
      const { handover } = await import(${JSON.stringify(import.meta.resolve('@handover/core'))})
      const { print, printEvents } = await import(${JSON.stringify(import.meta.resolve('../../programs/print.mjs'))})
      printEvents(handover)
      handover(http.createServer()).listen(0, '127.0.0.1', () => { print('listening', { words: process.argv.slice(1) }) })`)
    const args = [folder.at('app.mjs'), 'one']
    await using program = Program.start(folder.at('shop.mjs'), { execArgv: ['--require', folder.at('single.cjs')], args, cwd: folder.path })
    expect(await listening(program)).toMatchObject({ words: [folder.at('shop.mjs'), ...args] })
    await program.hangUp()
    expect(await listening(program, 2)).toMatchObject({ words: args })
  })

  test('where the permission model of Node lets the program see its own files alone, and PWD is that of another process', async () => {
    using folder = new Folder()
    writeFileSync(folder.at('app.mjs'), `
      import http from 'node:http'
      const { handover } = await import(${JSON.stringify(import.meta.resolve('@handover/core'))})
      const { print, printEvents } = await import(${JSON.stringify(import.meta.resolve('../../programs/print.mjs'))})
      printEvents(handover)
      handover(http.createServer()).listen(0, '127.0.0.1', () => { print('listening', { cwd: process.cwd() }) })`)
    const flags = process.allowedNodeEnvironmentFlags
    const permission = [flags.has('--permission') ? '--permission' : '--experimental-permission', '--allow-addons', ...(flags.has('--allow-net') ? ['--allow-net'] : [])]
    await using program = Program.start(folder.at('app.mjs'), {
      execArgv: [...permission, `--allow-fs-read=${root}/*`, `--allow-fs-read=${folder.path}/*`], cwd: '/', env: { PWD: '/usr' }
    })
    await listening(program)
    await program.hangUp()
    expect(await listening(program, 2)).toMatchObject({ cwd: '/' })
    expect(program.stderr).not.toContain('is gone')
  })

  test('with an absolute path through the link', async () => {
    using folder = new Folder()
    symlinkSync(release(folder, 'one'), folder.at('current'))
    await using program = Program.start(folder.at('current/app.mjs'))
    await listening(program)
    moveLink(folder.at('current'), release(folder, 'two'))
    await program.hangUp()
    expect(await listening(program, 2)).toMatchObject({ version: 'two' })
  })

  test.each(['by its path', 'through PATH'])('with a new Node binary at the same place, started %s', async (how) => {
    using folder = new Folder()
    mkdirSync(folder.at('bin'))
    const node = folder.at('bin/node')
    symlinkSync(process.execPath, node)
    await using program = world({ node: how === 'by its path' ? node : 'node', env: { PATH: `${folder.at('bin')}:${process.env['PATH']}` } })
    const { execPath } = await listening(program)
    expect(execPath).toBe(process.execPath)
    copyFileSync(process.execPath, folder.at('newer'))
    moveLink(node, folder.at('newer'))
    await program.hangUp()
    expect((await listening(program, 2)).execPath).toBe(folder.at('newer'))
  })
})

test.each([
  ['takes a command of its own out of it', "if (process.argv.splice(2, 1)[0] !== 'serve') process.exit(2)"],
  ['takes itself out of it, and pushes itself to process.execArgv, as ts-node does', 'process.execArgv.push(__filename, process.argv[2]); process.argv.splice(1, 2)']
])('what has changed process.argv is started again by the words that were typed: it %s', async (_name, change) => {
  using folder = new Folder()
  // With a Unix path, whose guard is among the words of a successor.
  writeFileSync(folder.at('cli.cjs'), `${change}
    if (process.argv.at(-1) !== 'last') process.exit(3)
    import(${JSON.stringify(coreFile)}).then(({ handover }) => { handover(require('node:http').createServer()).listen('app.sock') })
      .then(() => import(${JSON.stringify(programPath('world.mjs'))}))`)
  await using program = Program.start('cli.cjs', { cwd: folder.path, args: ['serve', 'x', 'last'] })
  for (const generation of [1, 2]) {
    await listening(program, generation)
    await program.hangUp()
  }
  await listening(program, 3)
})

test('standard output and error go on to the same places, and what a successor writes to stderr arrives', async () => {
  await using program = world()
  const streams = (pid: number): string[] => [1, 2].map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
  const first = await listening(program)
  const before = streams(first.pid)
  for (const generation of [2, 3]) {
    await program.hangUp()
    const { pid } = await listening(program, generation)
    await program.stderrMatching(new RegExp(`to stderr from generation ${generation}\n`))
    expect(streams(pid)).toEqual(before)
  }
  expect(program.stderr.match(/to stderr from/g)).toHaveLength(3)
})

test('nothing that a successor starts believes that it is one, and no descriptor leaks into it', async () => {
  await using program = world()
  const { child: before } = await listening(program)
  await program.hangUp()
  const { child, marked } = await listening(program, 2)
  expect({ child, marked }).toEqual({ child: before, marked: [] })
})

test('what a program put into its environment does not hide what a new version puts there', async () => {
  using folder = new Folder()
  writeFileSync(folder.at('.env'), 'FROM_FILE=one\n')
  await using program = world({ env: { ENV_FILE: folder.at('.env') } })
  expect((await listening(program)).fromFile).toBe('one')
  writeFileSync(folder.at('.env'), 'FROM_FILE=two\n')
  await program.hangUp()
  expect((await listening(program, 2)).fromFile).toBe('two')
})

test('a program that was forked with an IPC channel is reloaded', async () => {
  const child = spawn(process.execPath, [programPath('hardy.mjs')], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], detached: true })
  try {
    const events: ProgramEvent[] = []
    createInterface({ input: child.stdout! }).on('line', (line) => events.push(JSON.parse(line) as ProgramEvent))
    await waitFor(() => events.some(({ event }) => event === 'listening'))
    child.kill('SIGHUP')
    await waitFor(() => events.some(({ event }) => event === 'report' || event === 'failed'))
    expect(events.find(({ event }) => event === 'failed')).toBeUndefined()
    await waitFor(() => events.some(({ event, generation, to }) => event === 'state' && generation === 2 && to === 'serving'))
  } finally {
    process.kill(-child.pid!, 'SIGKILL')
  }
})
