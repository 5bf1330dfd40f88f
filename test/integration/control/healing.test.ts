/**
 * Control sockets that are removed, replaced or shut in: the process goes on being found, nobody takes its name, and every reload goes
 * through.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { get } from '../../helpers/ask.js'
import { commandFile } from '../../helpers/built.js'
import { command, Place, portOf } from '../../helpers/command.js'
import { Folder } from '../../helpers/plan.js'
import { programPath, waitFor } from '../../helpers/program.js'

const days = 86_400

it('a process whose sockets are removed, and whose directory is, makes them again, and is reloaded by name and by a second start', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop', options: { undoWindow: 0 } })
  for (const file of place.files) rmSync(path.join(place.sockets, file))
  await waitFor(() => place.files.length === 2)
  await program.stderrMatching(/the control socket .*shop\.sock had been removed or replaced: it was made again/)
  expect(await place.run('reload', 'shop', '--bake', '0')).toMatchObject({ status: 0 })

  // At once: nobody waits for the next look.
  rmSync(place.sockets, { recursive: true })
  const successor = program.serving
  await program.hangUp()
  await waitFor(async () => existsSync(place.sockets) && (await place.status('shop'))[0]?.processes[0]?.pid === program.serving)
  expect(program.serving).not.toBe(successor)

  // Its name is not free while its socket is gone.
  rmSync(path.join(place.sockets, 'shop.sock'))
  const second = await place.start({ name: 'shop' })
  await second.event('state', ({ to }) => to === 'serving')
  expect(second.events.find(({ event }) => event === 'listening')?.generation).toBe(4)
  await waitFor(async () => (await get({ port: portOf(program) })).body === String(second.pid))
})

it('a process keeps its socket and directory young, so that a cleaner of old files leaves them alone', async () => {
  await using place = new Place()
  await place.start({ name: 'shop' })
  const old = Date.now() / 1_000 - 11 * days
  const files = place.files.map((file) => path.join(place.sockets, file))
  for (const file of [...files, place.sockets]) utimesSync(file, old, old)
  await waitFor(() => [...files, place.sockets].every(
    (file) => Date.now() - statSync(file).mtimeMs < days * 1_000 && Date.now() - statSync(file).atimeMs < days * 1_000
  ))
})

it('a process leaves its name to another one that has taken the path, says so, and has it again when that one is gone', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop' })
  const other = net.createServer().listen(path.join(place.sockets, 'other'))
  await once(other, 'listening')
  renameSync(path.join(place.sockets, 'other'), path.join(place.sockets, 'shop.sock'))
  await program.stderrMatching(new RegExp(`process ${process.pid} has taken the name of the control socket`))
  other.close()
  await waitFor(async () => (await place.run('status', 'shop')).stdout.includes(`shop\n`))
})

it('a keeper whose sockets are removed has no second one beside it, not even a moment later', async () => {
  await using place = new Place()
  const file = path.join(place.folder, 'server.cjs')
  writeFileSync(file, "require('node:http').createServer((req, res) => res.end(String(process.pid))).listen(0, '127.0.0.1')")
  const keeper = place.begin('run', '--name', 'job', file)
  try {
    await waitFor(async () => (await place.run('status', 'job')).stdout.includes('serving'))
    for (const remove of [() => { rmSync(path.join(place.sockets, 'job.sock')) }, () => { rmSync(place.sockets, { recursive: true }) }]) {
      remove()
      const { stderr, status } = await place.run('run', '--name', 'job', file)
      expect(stderr).toMatch(new RegExp(`an app with the name job runs already \\(process ${keeper.child.pid}\\)`))
      expect(status).toBe(1)
    }
    // A keeper that hangs has its name, too.
    process.kill(keeper.child.pid ?? 0, 'SIGSTOP')
    rmSync(path.join(place.sockets, 'job.sock'))
    expect((await place.run('run', '--name', 'job', file)).stderr).toMatch(new RegExp(`process ${keeper.child.pid} has the name job and does not answer`))
    process.kill(keeper.child.pid ?? 0, 'SIGCONT')
    await waitFor(async () => (await place.status('job'))[0]?.processes[0]?.state === 'serving')
  } finally {
    process.kill(keeper.child.pid ?? 0, 'SIGCONT')
    keeper.child.kill()
    await keeper.ended
  }
}, 60_000)

it('a directory that others can enter meanwhile fails no reload, also where the program hears uncaught errors', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop', options: { undoWindow: 0 }, env: { HEARS_UNCAUGHT: '1' } })
  chmodSync(place.sockets, 0o755)
  await program.hangUp()
  await program.event('state', ({ to, generation }) => to === 'serving' && generation === 2)
  chmodSync(place.sockets, 0o700)
  await waitFor(async () => (await place.status('shop'))[0]?.processes[0]?.pid === program.serving)
  expect((await place.run('reload', 'shop', '--bake', '0')).status).toBe(0)
})

it.runIf(process.platform === 'linux')('a program that has a lock on the directory keeps no server from serving, with a keeper or without one', async () => {
  await using place = new Place()
  const holder = spawn('flock', ['--no-fork', place.sockets, 'sh', '-c', 'echo locked; exec sleep 1000'], { stdio: ['ignore', 'pipe', 'ignore'] })
  await once(holder.stdout, 'data')
  const keeper = place.begin('run', '--spare', 'off', '--name', 'job', programPath('world.mjs'))
  const program = await place.start({ name: 'shop' })
  const locked = `${place.sockets} is locked by another process`
  expect(program.stderr).toContain(`${locked}. This process serves without its name`)
  await waitFor(() => keeper.output.stdout.includes('"listening"'))
  expect(keeper.output.stderr).toContain(`${locked}. The commands handover reload, status and stop do not find this app`)
  const status = await place.status()
  expect(status.flatMap(({ processes }) => processes.map(({ pid }) => pid))).toContain(program.pid)
  keeper.child.kill()
  await keeper.ended
  holder.kill()
  await once(holder, 'exit')
})

it.runIf(process.getuid?.() === 0)('who looks where the app is not is told where it is: with another TMPDIR, or a /tmp of its own', async () => {
  using folder = new Folder()
  const uid = 65_534
  const [temporary, name] = [folder.at('tmp'), path.basename(folder.path)]
  mkdirSync(temporary)
  chmodSync(temporary, 0o1777)
  chmodSync(folder.path, 0o755)
  const server = "process.getBuiltinModule('http').createServer().listen(0, '127.0.0.1')"
  const env = { HANDOVER_DIR: '', XDG_RUNTIME_DIR: '', SCRIPT: server }
  const words = ['run', '--spare', 'off', '--name', name, programPath('says.mjs')]
  const look = async (): Promise<string> => (await command(['status', name], env, uid).ended).stderr
  const elsewhere = command(words, { ...env, TMPDIR: temporary }, uid)
  await waitFor(async () => (await look()).includes(`; there are sockets in ${temporary}/handover-${uid}: set HANDOVER_DIR to that to ask there`))
  elsewhere.child.kill()
  await elsewhere.ended
  const own = spawn('unshare', ['--mount', 'sh', '-c', 'mount -t tmpfs -o mode=1777 tmpfs /tmp && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" "$@"', process.execPath, commandFile, ...words], { env: { ...process.env, ...env, NODE_OPTIONS: '' }, stdio: 'ignore' })
  await waitFor(async () => (await look()).includes(`; a process listens at /tmp/handover-${uid}/${name}.sock, which is not seen from here`))
  own.kill()
  await once(own, 'exit')
})

it.runIf(process.getuid?.() === 0)('another user who takes the directory first keeps no app from starting, and none from being found', async () => {
  const uid = 65_534
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-taken-'))
  const temporary = path.join(folder, 'tmp')
  const shared = `/tmp/handover-${uid}`
  mkdirSync(temporary)
  chmodSync(temporary, 0o1777)
  chmodSync(folder, 0o755)
  mkdirSync(path.join(temporary, `handover-${uid}`), { mode: 0o700 })
  chownSync(path.join(temporary, `handover-${uid}`), 12_345, 12_345)
  const file = path.join(folder, 'server.cjs')
  writeFileSync(file, "require('node:http').createServer().listen(0, '127.0.0.1')")
  const env = { HANDOVER_DIR: '', XDG_RUNTIME_DIR: '', TMPDIR: temporary }
  const name = path.basename(folder)
  const keeper = command(['run', '--name', name, file], env, uid)
  try {
    await waitFor(() => new RegExp(`belongs to uid 12345, expected 65534: the control socket of ${name} is .* instead`).test(keeper.output.stderr))
    await waitFor(async () => (await command(['status', name], env, uid).ended).stdout.includes('serving'))
    expect(await command(['reload', name, '--bake', '0'], env, uid).ended).toMatchObject({ stderr: '', status: 0 })
  } finally {
    keeper.child.kill()
    await keeper.ended
    rmSync(folder, { recursive: true })
    try {
      rmdirSync(shared)
    } catch { /* another run has sockets there */ }
  }
})
