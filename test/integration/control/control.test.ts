/**
 * What the control sockets answer: to requests, to garbage, to another user; and that nobody's connection holds a process or a rendezvous
 * up.
 */

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, writeSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlAnswer } from '@handover/core/internal'
import { get } from '../../helpers/ask.js'
import { Place, portOf } from '../../helpers/command.js'
import type { Program } from '../../helpers/program.js'

let place: Place
let program: Program
let files: Record<'named' | 'own', string>

beforeAll(async () => {
  place = new Place()
  program = await place.start({ name: 'shop', args: ['--secret-argument'], env: { SECRET_VARIABLE: 'secret-value' } })
  files = { named: path.join(place.sockets, 'shop.sock'), own: place.ownFile(program.pid) }
})
afterAll(async () => { await place[Symbol.asyncDispose]() })

/** Says it, and resolves with all that comes until the connection is closed by the other side. */
async function say(file: string, text: string): Promise<string> {
  const socket = net.connect(file)
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  socket.write(text)
  let heard = ''
  socket.setEncoding('utf8').on('data', (chunk: string) => { heard += chunk })
  await once(socket, 'close')
  return heard
}

const request = (rest: object): string => `${JSON.stringify({ type: 'request', ...rest })}\n`
const answers = (text: string): ControlAnswer[] => text.trimEnd().split('\n').map((line) => JSON.parse(line) as ControlAnswer)

describe.each(['named', 'own'] as const)('the %s socket', (which) => {
  it('answers a status with one line, and closes', async () => {
    const heard = await say(files[which], request({ verb: 'status' }))
    const [answer, ...more] = answers(heard)
    expect(more).toEqual([])
    expect(answer).toMatchObject({ type: 'status', app: { name: 'shop', keeper: null, lastReload: null, processes: [{ pid: program.pid, generation: 1, state: 'serving', slot: null, listeners: [`tcp 127.0.0.1:${portOf(program)}`] }] } })
    expect(heard).not.toMatch(/secret|command\.mjs|SECRET/)
  })

  it.each([
    ['garbage', 'GET / HTTP/1.1\r\n\r\n', /the first line must be/], ['an array', '[]\n', /the first line must be/], ['a null', 'null\n', /the first line must be/],
    ['no verb', request({}), /the verb of a request is nothing, expected "status", "reload" or "stop"/], ['an unknown verb', request({ verb: 'eval' }), /the verb of a request is "eval"/],
    ['options that are no object', request({ verb: 'reload', options: [] }), /the options of a reload are \[\]/],
    ['an unknown option', request({ verb: 'reload', options: { surge: 2 } }), /"surge" is not known in a reload, expected some of wait, canary/],
    ['options that are written wrongly', request({ verb: 'reload', optoins: {} }), /"optoins" is not known in a request for "reload" \(did you mean options\?\), expected some of type, verb, options\. Nothing was done/],
    ['an option in capitals', request({ verb: 'reload', options: { allowdrop: true } }), /"allowdrop" is not known in a reload \(did you mean allowDrop\?\)/],
    ['options of a stop', request({ verb: 'stop', options: {} }), /"options" is not known in a request for "stop", expected some of type, verb/],
    ['a field of a status', request({ verb: 'status', name: 'shop' }), /"name" is not known in a request for "status"/],
    ['an option of the wrong type', request({ verb: 'reload', options: { wait: 'yes' } }), /the option wait of a reload is "yes", expected true or false/],
    ['a number that is too small', request({ verb: 'reload', options: { workers: 0 } }), /the option workers/],
    ['a probe with a second line', request({ verb: 'reload', options: { probe: '/ HTTP/1.1\r\nx: y' } }), /the option probe/],
    ['a line that does not end', 'x'.repeat(5_000), /the first line must be/],
    ['a request that is too long', `{"type":"request","verb":"status","x":"${'x'.repeat(5_000)}"}\n`, /the first line must be/]
  ])('answers %s with an error, and closes', async (_what, text, says) => {
    const [answer] = answers(await say(files[which], text))
    expect(answer).toMatchObject({ type: 'refused', code: 'HANDOVER_PROTOCOL', reason: expect.stringMatching(says) })
  })

  it('does not wait for ever for a line that comes byte by byte', async () => {
    const socket = net.connect(files[which])
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    // A write of the stream that fails would end it before it has read the answer.
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle
    const drip = setInterval(() => {
      try {
        if (!socket.destroyed) writeSync(fd, '{')
      } catch { /* the other side has closed it */ }
    }, 100)
    try {
      let heard = ''
      socket.setEncoding('utf8').on('data', (chunk: string) => { heard += chunk })
      await once(socket, 'close')
      expect(answers(heard)[0]).toMatchObject({ type: 'refused', reason: 'no whole line was said within 5000 ms' })
    } finally {
      clearInterval(drip)
    }
  })

  it('hangs up on a process of another user, who gets no word', () => {
    for (const [file, mode] of [[place.folder, 0o755], [place.sockets, 0o755], [files[which], 0o777]] as const) chmodSync(file, mode)
    try {
      const script = `const socket = require('net').connect(${JSON.stringify(files[which])}); let heard = ''
        socket.on('error', () => {}).on('data', (chunk) => { heard += chunk }).on('close', () => { console.log(JSON.stringify(heard)) })
        socket.write(${JSON.stringify(request({ verb: 'status' }))})`
      const { stdout } = spawnSync(process.execPath, ['-e', script], { uid: 65_534, gid: 65_534, encoding: 'utf8', cwd: '/' })
      expect(stdout).toBe('""\n')
    } finally {
      for (const [file, mode] of [[files[which], 0o755], [place.sockets, 0o700], [place.folder, 0o700]] as const) chmodSync(file, mode)
    }
  })
})

it('nothing is handed over by the socket that a process has for itself', async () => {
  const token = '0123456789abcdef0123456789abcdef'
  const [messages, descriptors] = [net.connect(files.own), net.connect(files.own)]
  for (const socket of [messages, descriptors]) socket.on('error', () => undefined)
  descriptors.write(`${JSON.stringify({ type: 'descriptors', token })}\n`)
  messages.write(`${JSON.stringify({ type: 'messages', token })}\n`)
  let heard = ''
  for await (const chunk of messages.setEncoding('utf8')) heard += String(chunk)
  expect(answers(heard)).toMatchObject([{ type: 'refused', code: 'HANDOVER_REFUSED', reason: expect.stringMatching(/nothing is handed over by it/) }])
  expect(await get({ port: portOf(program) })).toEqual({ status: 200, body: String(program.pid) })
})

it('connections that say nothing, and clients that do not read, hold up neither a rendezvous nor the end of the process', async () => {
  await using other = new Place()
  const first = await other.start({ name: 'other' })
  const sockets = ['other.sock', path.basename(other.ownFile(first.pid))].flatMap((file) => [1, 2, 3].map(() => net.connect(path.join(other.sockets, file))))
  for (const socket of sockets) socket.on('error', () => undefined)
  await Promise.all(sockets.map(async (socket) => { await once(socket, 'connect') }))
  sockets[0]?.write(request({ verb: 'status' }))
  const second = await other.start({ name: 'other' })
  expect(await first.ended).toEqual({ code: 0, signal: null })
  process.kill(second.pid, 'SIGTERM')
  expect(await second.ended).toEqual({ code: 0, signal: null })
  expect(other.files).toEqual([])
  for (const socket of sockets) socket.destroy()
})

it('a process that closed its last listener is not found, until it listens again', async () => {
  await using other = new Place()
  const resting = await other.start()
  expect(other.files).toHaveLength(1)
  await get({ port: portOf(resting) }, '/close')
  await resting.event('rests')
  expect(other.files).toEqual([])
  process.kill(resting.pid, 'SIGUSR1')
  await resting.event('again')
  expect(other.files).toEqual([expect.stringMatching(new RegExp(`^@${resting.pid}-[0-9a-f]{8}\\.sock$`))])
})

it.each([['a directory of which the path is too long', (place: Place) => ({ HANDOVER_DIR: path.join(place.folder, 'x'.repeat(90)) })], ['HANDOVER=off', () => ({ HANDOVER: 'off' })], ['a directory that others can enter', (place: Place) => ({ HANDOVER_DIR: place.folder })]])(
  'a process without a name serves without a word with %s', async (what, env) => {
    await using other = new Place()
    chmodSync(other.folder, 0o755)
    const silent = await other.start({ env: env(other) })
    expect(await get({ port: portOf(silent) }), what).toMatchObject({ status: 200 })
    expect(silent.stderr).toBe('')
    expect(other.files).toEqual([])
  })

it('the named socket leads to the process that serves, and never to one that drains', async () => {
  await using own = new Place()
  const shop = await own.start({ name: 'shop', options: { undoWindow: 100, linger: 10_000, move: false } })
  const slow = get({ port: portOf(shop) }, '/slow')
  await shop.event('slow')
  await shop.hangUp()
  // Each accepts from the same socket, were it open in both.
  const asked = await Promise.all(Array.from({ length: 30 }, () => say(path.join(own.sockets, 'shop.sock'), request({ verb: 'status' }))))
  const answered = asked.map((heard) => answers(heard)[0]).map((answer) => answer?.type === 'status' && answer.app.processes[0]?.pid)
  expect(new Set(answered)).toEqual(new Set([shop.serving]))
  expect(shop.alive).toContain(shop.pid)
  process.kill(shop.pid, 'SIGUSR1')
  await slow
})
