/** A limit of processes is reached while an app serves (ulimit -u, pids.max of a container): what runs goes on. */

import { execFileSync } from 'node:child_process'
import { chownSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { freePorts, get } from '../helpers/ask.js'
import { commandFile } from '../helpers/built.js'
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
