/**
 * Whatever a program does to the path of its Unix socket: the path that is served stays, under the strict client, with an adapter and
 * under the command.
 */

import { lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { startLoad, type Target } from '@handover/load'
import { expect, test } from 'vitest'
import { Keeping } from '../../helpers/keeping.js'
import { ask } from '../../helpers/ask.js'
import { nothingLost } from '../../helpers/invariants.js'
import { Folder } from '../../helpers/plan.js'
import { Program, programPath, waitFor } from '../../helpers/program.js'

/** The command takes longer for a reload: there, those that differ most. */
const ways = {
  'with an adapter': ['unlink at the start', 'rm of the folder', 'a promise', 'a callback', 'moving it away', 'file by file', 'renaming into place'],
  'under the command': ['rm of the folder', 'renaming into place']
}

/** The program on its path, under one of two roofs. */
interface Roofed extends AsyncDisposable {
  readonly program: Program
  /** Rejects where the reload fails. */
  reload(): Promise<unknown>
}

const roofs: Readonly<Record<keyof typeof ways, (env: Readonly<Record<string, string>>) => Promise<Roofed>>> = {
  'with an adapter': async (env) => {
    const program = Program.start(programPath('paths.cjs'), { env: { ...env, ADAPTER: 'yes' } })
    await program.event('state')
    return { program, reload: () => program.hangUp(), [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() }
  },
  'under the command': async (env) => {
    const keeping = await Keeping.start({ program: 'paths.cjs', env })
    return {
      program: keeping.program,
      reload: async () => {
        const { ok, error } = await keeping.reload('--bake', '0')
        if (!ok) throw new Error(error?.message)
      },
      [Symbol.asyncDispose]: () => keeping[Symbol.asyncDispose]()
    }
  }
}

test.for(Object.keys(ways) as (keyof typeof ways)[])('a path is the same file through reloads to programs that remove it, before and after, %s', async (roof) => {
  using folder = new Folder()
  const at = folder.at('run/app.sock')
  mkdirSync(path.dirname(at))
  const version = (way: string): void => { writeFileSync(folder.at('way'), way) }
  version('unlink at the start')
  await using app = await roofs[roof]({ AT: at, WAY_FILE: folder.at('way'), HANDOVER_LINGER: '200' })
  const processes = app.program.alive.length
  const { ino } = lstatSync(at)
  const load = startLoad({ path: at } satisfies Target, {
    newConnections: { clients: 2, thinkMs: 3 }, expectStatus: 200, answerTimeoutMs: 15_000
  })
  let pid = await ask('http', at)
  const reloads = async (way: string): Promise<void> => {
    version(way)
    await app.reload()
    const next = await ask('http', at)
    expect(next, way).not.toBe(pid)
    pid = next
    // The old version removes the path at its end as well.
    await waitFor(() => app.program.alive.length === processes)
    expect(lstatSync(at).ino, way).toBe(ino)
  }
  for (const way of ways[roof]) await reloads(way)

  for (const way of ways[roof].slice(-1)) {
    version(`${way}: fail`)
    await expect(app.reload()).rejects.toThrow(/serv(es|ing) unix .*app\.sock/)
    expect(await ask('http', at), way).toBe(pid)
    expect(lstatSync(at).ino, way).toBe(ino)
  }
  nothingLost(await load.stop())

  // Not in the hands of Node: for a moment nobody can connect.
  await reloads('a command')
  expect(app.program.stderr).toContain(`${at} was removed or replaced while it is served, and is in its place again`)
  expect(readdirSync(path.dirname(at)).filter((name) => name !== 'app.sock.old')).toEqual(['app.sock'])
})
