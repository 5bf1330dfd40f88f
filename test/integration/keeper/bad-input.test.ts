/** Whatever is wrong is one line that says what to do, with exit status 1 or 2, and leaves nothing behind. */

import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, closeSync, existsSync, openSync, readdirSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { get } from '../../helpers/ask.js'
import { commandFile } from '../../helpers/built.js'
import { command, Place, portOf } from '../../helpers/command.js'
import { waitFor } from '../../helpers/program.js'

const oneLine = (text: string): string => {
  expect(text).toMatch(/^handover[^\n]+\n$/)
  return text
}

it.each([[['restart'], /unknown command "restart"/], [['reload', '--bake', '3'], /with its unit/], [['run'], /no script/], [['status', 'a', 'b'], /one name or pid/]])('handover %j ends with 2', async (words, says) => {
  await using place = new Place()
  const { stdout, stderr, status } = await place.run(...words)
  expect({ stdout, status }).toEqual({ stdout: '', status: 2 })
  expect(oneLine(stderr)).toMatch(says)
  expect(place.files).toEqual([])
})

it.each(['status', 'reload', 'stop', 'drill'])('handover %s --json says why it failed in parts, too', async (verb) => {
  await using place = new Place()
  const { stdout, stderr, status } = await place.run(verb, '--json', 'nothing')
  const what = `no app "nothing" runs (looked in ${place.sockets})`
  const todo = 'Start it, or set HANDOVER_DIR to the directory that its processes use'
  const message = `handover: ${what}. ${todo}.`
  expect({ error: JSON.parse(stdout), stderr, status }).toEqual({ error: { ok: false, error: { message, what, todo } }, stderr: `${message}\n`, status: 1 })
})

const misused = [
  ['reload', '--json', '--bake', '3'], ['status', '--json', '--nothing'], ['stop', 'a', 'b', '--json'], ['drill', '--json', '--connections', '20000'],
  ['reload', '--json=1'], ['--json']
]
it.each(misused)('handover %s with --json says in JSON that it was asked wrongly', async (...words) => {
  await using place = new Place()
  await place.start({ name: 'shop' })
  const { stdout, stderr, status } = await place.run(...words)
  const error: unknown = expect.objectContaining({ message: stderr.trimEnd(), what: expect.any(String) })
  expect({ told: JSON.parse(stdout) as unknown, status }).toEqual({ told: { ok: false, error }, status: 2 })
})

it('--json says ok of every command that did what it was asked, and of a drill that lost nothing', async () => {
  await using place = new Place()
  await place.start({ name: 'shop' })
  const ok = async (...words: string[]): Promise<unknown> => {
    const { stdout } = await place.run(...words, '--json')
    return (JSON.parse(words[0] === 'reload' ? stdout.trimEnd().split('\n').at(-1)! : stdout) as { ok?: unknown }).ok
  }
  const drill = ['drill', '--duration', '100ms', '--connections', '1']
  expect(await ok(...drill, '--url', 'http://127.0.0.1:1/')).toBe(false)
  for (const words of [['status'], drill, ['reload', '--bake', '0'], ['stop']]) expect(await ok(...words), words.join(' ')).toBe(true)
})

it('--help and --version end with 0', async () => {
  await using place = new Place()
  expect(await place.run('--help')).toMatchObject({ status: 0, stderr: '', stdout: expect.stringMatching(/^handover: reload a Node server/) })
  expect(await place.run('--version')).toMatchObject({ status: 0, stderr: '', stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) })
})

describe.each(['status', 'reload', 'stop'])('handover %s', (verb) => {
  it('where nothing runs, and nothing ever did, says so and makes nothing', async () => {
    await using place = new Place()
    const folder = path.join(place.folder, 'never')
    const { stdout, stderr, status } = await command([verb], { HANDOVER_DIR: folder }).ended
    expect({ stdout, status }).toEqual({ stdout: '', status: 1 })
    expect(oneLine(stderr)).toBe(`handover: no app of this user runs (looked in ${folder}). Start one, or set HANDOVER_DIR to the directory that its processes use.\n`)
    expect(existsSync(folder)).toBe(false)
  })

  it.each([['../../etc/passwd'], ['x'.repeat(200)], ['0'], ['99999999999999999999'], ['__proto__']])('of the unknown %s', async (name) => {
    await using place = new Place()
    await place.start({ name: 'shop' })
    const { stderr, status } = await place.run(verb, name)
    expect(status).toBe(1)
    expect(oneLine(stderr)).toMatch(/no app ".*" runs .* These run: shop \(process \d+\)\./)
  })

  it.each<[string, (place: Place) => string, RegExp]>([
    ['is relative', () => 'sockets', /HANDOVER_DIR=sockets is a relative path/],
    ['is too long', (place) => path.join(place.folder, 'x'.repeat(100)), /is \d+ bytes long, expected at most \d+/],
    ['others can enter', (place) => { chmodSync(place.sockets, 0o755); return place.sockets }, /has mode 0755, expected 0700/],
    ['its user cannot read', (place) => { chmodSync(place.sockets, 0o300); return place.sockets }, /has mode 0300, expected 0700/],
    ['is a file', (place) => { writeFileSync(path.join(place.folder, 'file'), ''); return path.join(place.folder, 'file') }, /is not a directory/]
  ])('with a HANDOVER_DIR that %s', async (_what, directory, says) => {
    await using place = new Place()
    const { stdout, stderr, status } = await command([verb], { HANDOVER_DIR: directory(place) }).ended
    expect({ stdout, status }).toEqual({ stdout: '', status: 1 })
    expect(oneLine(stderr)).toMatch(says)
    expect(stderr).toMatch(/Nothing was asked/)
  })
})

it.runIf(process.platform === 'linux')('output that cannot be written is a failure of what only prints; a reload is done all the same', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop' })
  // As a file on a full disk.
  const full = openSync('/dev/full', 'w')
  const ran = (...words: string[]): { status: number | null; stderr: string } => {
    const { status, stderr } = spawnSync(process.execPath, [commandFile, ...words], { env: { ...process.env, NODE_OPTIONS: '', HANDOVER_DIR: place.sockets }, stdio: ['ignore', full, 'pipe'], encoding: 'utf8' })
    return { status, stderr }
  }
  const unwritten = { status: 1, stderr: 'handover: standard output cannot be written (ENOSPC).\n' }
  for (const words of [['status'], ['status', '--json'], ['report'], ['--help']]) expect(ran(...words), words.join(' ')).toEqual(unwritten)
  expect(ran('reload', '--bake', '0')).toEqual({ status: 0, stderr: '' })
  await waitFor(() => program.serving !== program.pid)
  closeSync(full)
})

it('sockets of other programs, and of another user, in the directory are not taken for apps, and stay', async () => {
  await using place = new Place()
  const strange = http.createServer().listen(path.join(place.sockets, 'strange.sock'))
  const silentServer = net.createServer().listen(path.join(place.sockets, '@1-00000000.sock'))
  await Promise.all([strange, silentServer].map(async (server) => { if (!server.listening) await once(server, 'listening') }))
  writeFileSync(path.join(place.sockets, 'file.sock'), 'no socket')
  await place.start({ name: 'shop' })
  const { stdout, status } = await place.run('status')
  expect(status).toBe(0)
  expect(stdout).toMatch(/^shop\n/)
  expect(stdout).toMatch(/process 1 did not answer/)
  expect(readdirSync(place.sockets)).toEqual(expect.arrayContaining(['strange.sock', '@1-00000000.sock', 'file.sock', 'shop.sock']))
  strange.close()
  silentServer.close()
})

it('another user can neither look into the directory nor ask a process in it', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop' })
  for (const folder of [place.folder, place.sockets]) chmodSync(folder, 0o755)
  const asked = await command(['status'], { HANDOVER_DIR: place.sockets }, 65_534).ended
  expect(asked).toMatchObject({ stdout: '', status: 1 })
  expect(oneLine(asked.stderr)).toMatch(/belongs to uid 0, expected 65534/)
  process.kill(program.pid, 0)
})

it.runIf(process.getuid?.() === 0)('root may ask the processes of another user, whose directory is named by HANDOVER_DIR', async () => {
  await using place = new Place()
  for (const folder of [place.folder, place.sockets]) chownSync(folder, 65_534, 65_534)
  const script = path.join(place.folder, 'server.cjs')
  writeFileSync(script, "require('node:http').createServer().listen(0, '127.0.0.1')")
  const run = command(['run', '--name', 'theirs', script], { HANDOVER_DIR: place.sockets }, 65_534)
  await waitFor(async () => (await place.run('status')).stdout.includes('serving'))
  expect(await place.run('reload', '--bake', '0')).toMatchObject({ stderr: '', status: 0 })
  expect(await place.run('stop')).toMatchObject({ stdout: expect.stringMatching(/theirs has ended\n$/), stderr: '', status: 0 })
  expect((await run.ended).status).toBe(0)
})

it.each([
  ['ctrl-C', 'SIGINT', 'reload'], ['the end of a job', 'SIGTERM', 'reload'], ['ctrl-C', 'SIGINT', 'drill'], ['the end of a job', 'SIGTERM', 'drill']
] as const)('%s (%s) ends a %s that waits, which says so, and not what the app does', async (_what, signal, word) => {
  await using place = new Place()
  const program = await place.start({ name: 'shop', options: { undoWindow: 0 } })
  const slow = get({ port: portOf(program) }, '/slow')
  await program.event('slow')
  const waiting = place.begin(word, ...(word === 'reload' ? ['--wait', '--bake', '0'] : ['--duration', '100ms']))
  await waitFor(() => program.serving !== program.pid)
  waiting.child.kill(signal)
  expect(oneLine((await waiting.ended).stderr)).toMatch(/the reload goes on without this command/)
  expect(waiting.child.signalCode).toBe(signal)
  process.kill(program.pid, 'SIGUSR1')
  await slow
  await waitFor(async () => (await place.status('shop'))[0]?.lastReload?.ok === true)
})

it('an output that nobody reads any more changes neither what is done nor the exit status', async () => {
  await using place = new Place()
  const program = await place.start({ name: 'shop' })
  const reload = place.begin('reload', '--bake', '0')
  reload.child.stdout?.destroy()
  expect(await reload.ended).toMatchObject({ stderr: '', status: 0 })
  expect(program.serving).not.toBe(program.pid)
  const watching = place.begin('status', '--watch')
  watching.child.stdout?.once('data', () => { watching.child.stdout?.destroy() })
  expect(await watching.ended).toMatchObject({ stderr: '', status: 0 })
})
