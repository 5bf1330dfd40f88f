/** Processes that cannot be started (ulimit -u, pids.max of a container) while an app serves, and what those leave that are killed. */

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { freePorts, get } from '../helpers/ask.js'
import { commandFile } from '../helpers/built.js'
import { Place } from '../helpers/command.js'
import { Program, programPath, waitFor } from '../helpers/program.js'

const nobody = 65_534
const asNobody = ['--reuid', String(nobody), '--regid', String(nobody), '--clear-groups']

it.runIf(process.getuid?.() === 0)('a keeper and its worker that can start no thread any more live on: they make their removed sockets again', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-processes-'))
  chownSync(folder, nobody, nobody)
  const [port = 0] = await freePorts(1)
  const sockets = (): string[] => readdirSync(folder).filter((name) => name.endsWith('.sock'))
  try {
    await using keeper = Program.start(commandFile, {
      node: 'setpriv', execArgv: [...asNobody, process.execPath],
      args: ['run', '--name', 'shop', '--spare', 'off', programPath('unaware.cjs')],
      env: { CASE: 'plain', PORT: String(port), HANDOVER_DIR: folder }
    })
    await waitFor(() => sockets().length === 2)
    const pids = [keeper.pid, Number((await get({ port })).body)]
    for (const pid of pids) execFileSync('setpriv', [...asNobody, 'prlimit', '--pid', String(pid), '--nproc=1:1'])
    const removed = sockets()
    for (const name of removed) rmSync(path.join(folder, name))
    await waitFor(() => sockets().length === 2)
    expect(sockets()).toEqual(removed)
    expect(Number((await get({ port })).body)).toBe(pids[1])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

it('workers that are killed leave no socket behind: not of this keeper, nor of an earlier one', async () => {
  await using place = new Place()
  const left = net.createServer().listen(path.join(place.folder, 'left.sock'))
  await once(left, 'listening')
  renameSync(path.join(place.folder, 'left.sock'), path.join(place.sockets, '@4000000-00000000.sock'))
  left.close()
  const [port = 0] = await freePorts(1)
  await using _keeper = Program.start(commandFile, {
    args: ['run', '--name', 'shop', '--spare', 'off', programPath('unaware.cjs')], env: { CASE: 'plain', PORT: String(port), HANDOVER_DIR: place.sockets }
  })
  const own = (): (string | undefined)[] => place.files.filter((file) => file.startsWith('@')).map((file) => /^@(\d+)/.exec(file)?.[1])
  const answer = async (): Promise<string> => (await get({ port }).catch(() => ({ body: '' }))).body
  await waitFor(async () => await answer() !== '')
  for (let crash = 0; crash < 2; crash++) {
    const pid = await answer()
    await waitFor(() => own().join() === pid)
    process.kill(Number(pid), 'SIGKILL')
    await waitFor(async () => ![pid, ''].includes(await answer()))
  }
  await waitFor(async () => own().join() === await answer())
})
