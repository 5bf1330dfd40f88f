/** A program that gives root up after it listens: its user and root go on finding it, after a reload. One that root starts for a user. */

import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { freePorts, get } from '../../helpers/ask.js'
import { commandFile } from '../../helpers/built.js'
import { command, Place } from '../../helpers/command.js'
import { Program, waitFor } from '../../helpers/program.js'

const uid = 65_534
const core = fileURLToPath(new URL('../../../packages/core', import.meta.url))
const isRoot = process.getuid?.() === 0

it.runIf(isRoot)('after setuid() the user and root find the process, before a reload and after it', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-setuid-'))
  const temporary = path.join(folder, 'tmp')
  mkdirSync(temporary)
  chmodSync(temporary, 0o1777)
  chmodSync(folder, 0o755)
  const file = path.join(folder, 'server.cjs')
  writeFileSync(file, `const http = require('node:http')
const { handover } = require(${JSON.stringify(core)})
const print = (event, detail) => { require('node:fs').writeSync(1, JSON.stringify({ event, pid: process.pid, generation: handover.generation, ...detail }) + '\\n') }
handover.events.on('state', (change) => { print('state', change) })
handover.events.on('failed', ({ message }) => { print('failed', { message }) })
handover.events.on('report', (report) => { print('report', { report }) })
const server = handover(http.createServer((request, response) => { response.end(String(process.pid)) }), { undoWindow: 0, linger: 100 })
server.listen(0, '127.0.0.1', () => {
  if (process.getuid() === 0) {
    process.setgroups([])
    process.setgid(${uid})
    process.setuid(${uid})
  }
  print('listening', { port: server.address().port, uid: process.getuid() })
})`)
  const name = path.basename(folder)
  const env = { HANDOVER_DIR: '', XDG_RUNTIME_DIR: '', TMPDIR: temporary }
  const program = Program.start(file, { env: { ...env, HANDOVER_NAME: name }, cwd: folder })
  try {
    const { port } = await program.event('listening')
    const served = async (user: number | undefined): Promise<string> => (await command(['status', name, '--json'], env, user).ended).stdout
    await program.stderrMatching(/runs as uid 65534 now: that user finds it by /)
    for (const user of [undefined, uid]) expect(await served(user)).toMatch(new RegExp(`"pid": ?${program.pid}`))
    for (const [user, generation] of [[undefined, 2], [uid, 3]] as const) {
      expect(await command(['reload', name, '--bake', '0'], env, user).ended).toMatchObject({ status: 0 })
      await program.event('state', (change) => change['to'] === 'serving' && change.generation === generation)
      await waitFor(async () => (await get({ port: port as number })).body === String(program.serving))
      for (const asker of [undefined, uid]) await waitFor(async () => new RegExp(`"pid": ?${program.serving},`).test(await served(asker)))
    }
    expect(program.events.filter(({ event }) => event === 'listening').map((event) => event['uid'])).toEqual([uid, uid, uid])
  } finally {
    await program[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true })
    rmSync(`/run/handover/${name}.sock`, { force: true })
  }
})

it.runIf(isRoot).each(['with a keeper', 'without'])('a program starts and is reloaded in a directory that its user may not enter, as with node alone (sudo -u app in /root): %s', async (how) => {
  await using place = new Place()
  const closed = path.join(place.folder, 'closed', 'below')
  mkdirSync(closed, { recursive: true })
  for (const folder of [closed, path.dirname(closed)]) chmodSync(folder, 0o700)
  chmodSync(place.folder, 0o755)
  chownSync(place.sockets, uid, uid)
  const [port = 0] = await freePorts(1)
  const words = how === 'without' ? [] : [commandFile, 'run', '--name', 'shop', '--spare', 'off']
  const file = path.join(place.folder, 'server.cjs')
  writeFileSync(file, `const { handover } = require(${JSON.stringify(core)})
handover(require('node:http').createServer((request, response) => { response.end(process.pid + ' ' + process.cwd()) }), { undoWindow: 0, linger: 100 }).listen(${port}, '127.0.0.1')`)
  await using program = Program.start(file, {
    node: 'setpriv', execArgv: ['--reuid', String(uid), '--regid', String(uid), '--clear-groups', process.execPath, ...words],
    env: { HANDOVER_DIR: place.sockets, PWD: closed }, cwd: closed
  })
  const answer = async (): Promise<string> => (await get({ port }).catch(() => ({ body: '' }))).body
  await waitFor(async () => (await answer()).endsWith(` ${closed}`))
  const first = await answer()
  process.kill(program.pid, 'SIGHUP')
  await waitFor(async () => ![first, ''].includes(await answer()))
  expect(await answer()).toMatch(new RegExp(` ${closed}$`))
  await command(['stop'], { HANDOVER_DIR: place.sockets }).ended
})
