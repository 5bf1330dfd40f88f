/**
 * Unix sockets: the path belongs to the last process that serves on it.
 */

import { existsSync, lstatSync, readdirSync, statSync, unlinkSync, watch, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ask } from '../../helpers/ask.js'
import { Folder, Planned } from '../../helpers/plan.js'
import { exists, waitFor } from '../../helpers/program.js'

const inode = (file: string): number => lstatSync(file).ino

test('the path exists at every moment of ten reloads, is the same file throughout, and goes with the last process', async () => {
  using folder = new Folder()
  const file = folder.at('app.sock')
  await using planned = new Planned({ listen: [{ path: file }], options: { undoWindow: 50 } })
  await planned.addresses(1)
  const first = inode(file)
  const changes: string[] = []
  const watcher = watch(folder.path, (event, name) => { if (event === 'rename' && !/^\.app\.sock\.handover-/.test(name ?? '')) changes.push(name ?? '') })
  const seen: number[] = []
  for (let reload = 0; reload < 10; reload++) {
    await planned.reload()
    seen.push(await ask('http', file))
    expect(inode(file)).toBe(first)
  }
  await waitFor(() => planned.program.alive.length === 1)
  expect(changes).toEqual([])
  expect(new Set(seen).size).toBe(10)
  expect(await ask('http', file)).toBe(planned.program.serving)
  expect(readdirSync(folder.path)).toEqual(['app.sock'])
  watcher.close()
  process.kill(planned.program.serving, 'SIGTERM')
  await waitFor(() => planned.program.alive.length === 0)
  expect(existsSync(file)).toBe(false)
})

test('a predecessor that is killed while it drains leaves the path alone', async () => {
  using folder = new Folder()
  const file = folder.at('app.sock')
  await using planned = new Planned({ listen: [{ path: file }], options: { undoWindow: 60_000 } })
  const { pid } = await planned.program.event('bound')
  await planned.reload()
  process.kill(pid, 'SIGTERM')
  await waitFor(() => !planned.program.alive.includes(pid))
  expect(await ask('http', file)).toBe(planned.program.serving)
})

test('a program that unlinks its path before it listens, as many do, is reloaded, and the path stays the same', async () => {
  using folder = new Folder()
  const file = folder.at('app.sock')
  const plan = { listen: [{ path: file }], unlink: [file] }
  await using planned = new Planned(plan)
  await planned.addresses(1)
  const first = inode(file)
  for (const generation of [2, 3]) {
    expect(await planned.reload()).toEqual({ kept: [`unix ${file}`], added: [], dropped: [] })
    const { pid } = await planned.program.event('bound', (event) => event.generation === generation)
    expect(await ask('http', file)).toBe(pid)
    await waitFor(() => planned.program.alive.length === 1)
    expect(inode(file)).toBe(first)
  }
  process.kill(planned.program.serving, 'SIGTERM')
  await waitFor(() => planned.program.alive.length === 0)
  expect(existsSync(file)).toBe(false)
})

test('a path that the new version drops is removed at the commit, and comes back when that version dies in the undo window', async () => {
  using folder = new Folder()
  const [kept, dropped] = [folder.at('kept.sock'), folder.at('dropped.sock')]
  await using planned = new Planned({ listen: [{ path: kept }, { path: dropped }], options: { undoWindow: 30_000 } })
  const { pid } = await planned.program.event('bound')
  planned.next({ listen: [{ path: kept }], ready: true })
  expect(await planned.reload()).toEqual({ kept: [`unix ${kept}`], added: [], dropped: [`unix ${dropped}`] })
  expect([existsSync(kept), existsSync(dropped)]).toEqual([true, false])
  process.kill(planned.program.serving, 'SIGKILL')
  await waitFor(() => existsSync(dropped))
  expect([await ask('http', kept), await ask('http', dropped)]).toEqual([pid, pid])
})

test('a path of the greatest length that the kernel takes is kept', async () => {
  using folder = new Folder()
  const file = folder.at('x'.repeat(107 - folder.path.length - 1))
  expect(Buffer.byteLength(file)).toBe(107)
  await using planned = new Planned({ listen: [{ path: file }] })
  const { pid } = await planned.program.event('bound')
  expect((await planned.reload()).kept).toEqual([`unix ${file}`])
  await waitFor(() => !planned.program.alive.includes(pid))
  expect(await ask('http', file)).toBe(planned.program.serving)
})

test('a relative path is kept', async () => {
  using folder = new Folder()
  await using planned = new Planned({ listen: [{ path: 'app.sock' }] }, { cwd: folder.path })
  const { pid } = await planned.program.event('bound')
  expect((await planned.reload()).kept).toEqual(['unix app.sock'])
  await waitFor(() => !planned.program.alive.includes(pid))
  expect(await ask('http', folder.at('app.sock'))).toBe(planned.program.serving)
})

test('an abstract socket is kept and leaves no file', async () => {
  const name = `\0handover-test-${process.pid}`
  await using planned = new Planned({ listen: [{ path: name }] })
  await planned.addresses(1)
  expect((await planned.reload()).kept).toEqual([`unix @${name.slice(1)}`])
  expect(await planned.addresses(2)).toEqual([name])
  expect(await ask('http', name)).toBe(planned.program.serving)
})

test('a path where something else stands is in use, as in Node, and stays as it is', async () => {
  using folder = new Folder()
  const file = folder.at('app.sock')
  writeFileSync(file, 'a letter')
  await using planned = new Planned({ listen: [{ path: file }] })
  const { error } = await planned.program.event('error')
  expect(error).toMatchObject({ code: 'EADDRINUSE', syscall: 'listen', address: file })
  await planned.program.ended
  expect(statSync(file).size).toBe(8)
})

test('a path at which nothing can be looked up is reported by the event, as in Node', async () => {
  await using planned = new Planned({ listen: [{ path: '/dev/null/app.sock' }] })
  const { error } = await planned.program.event('error')
  expect(error).toMatchObject({ code: 'ENOTDIR', syscall: 'listen', address: '/dev/null/app.sock' })
})

test('a file that was removed by hand is there again when the next reload begins, with its permissions', async () => {
  using folder = new Folder()
  const file = folder.at('app.sock')
  await using planned = new Planned({ listen: [{ path: file, writableAll: true, readableAll: true }] })
  const { pid } = await planned.program.event('bound')
  const { mode } = lstatSync(file)
  unlinkSync(file)
  expect(await planned.reload()).toEqual({ kept: [`unix ${file}`], added: [], dropped: [] })
  await waitFor(() => !exists(pid))
  expect(await ask('http', file)).toBe(planned.program.serving)
  expect(lstatSync(file).mode).toBe(mode)
})
