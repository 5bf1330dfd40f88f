/**
 * examples/chat under reloads: every member sees every line that is said, in one order, whichever process it is in.
 */

import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { Client } from '../../helpers/client.js'
import { Program, waitFor } from '../../helpers/program.js'

const reloads = Math.min(5, Number(process.env['HANDOVER_TEST_RELOADS'] ?? 5))
const script = fileURLToPath(new URL('../../../examples/chat/server.mjs', import.meta.url))

interface Chat {
  readonly program: Program
  member(name: string): Promise<Client>
  /** Reloads by signal; resolves with the process that serves then. */
  reload(generation: number): Promise<number>
}

async function start(env: Readonly<Record<string, string>> = {}): Promise<Chat> {
  const program = Program.start(script, { env: { PORT: '0', HANDOVER_UNDO_WINDOW: '100', ...env } })
  onTestFinished(() => program[Symbol.asyncDispose]())
  const line = await program.until(() => program.lines.find((text) => text.includes('listening')))
  const port = Number(/port: (\d+)/.exec(line)?.[1])
  let { pid } = program
  return {
    program,
    async member(name) {
      const client = await Client.connect({ address: '127.0.0.1', port })
      onTestFinished(() => { client[Symbol.dispose]() })
      await client.send(`${name}\n`).received(new RegExp(`^\\* ${name} is here$`, 'm'))
      return client
    },
    async reload(generation) {
      process.kill(pid, 'SIGHUP')
      const [, successor] = await program.stderrMatching(new RegExp(`generation ${generation} \\(process (\\d+)\\) serves`))
      return pid = Number(successor)
    }
  }
}

/** What was said by each, as the numbers that follow the name. */
function saidBy(transcript: string): Map<string, number[]> {
  const said = new Map<string, number[]>()
  for (const [, name = '', number] of transcript.matchAll(/^(\w+): (\d+)$/gm)) said.set(name, [...(said.get(name) ?? []), Number(number)])
  return said
}

test(`over ${reloads} reloads every member hears every line once, all in the same order, and nobody is disconnected`, async () => {
  const { program, member, reload } = await start()
  const names = Array.from({ length: 12 }, (_, index) => `member${index}`)
  const members = new Map<string, Client>()
  for (const name of names) members.set(name, await member(name))
  const clients = [...members.values()]
  await Promise.all(clients.map((client) => client.received(/\* member11 is here\n/)))
  for (const client of clients) client.text = ''

  // Each says its next line as soon as it hears its last one, at most a few at a time, and in pieces.
  let stopping = false
  const counts = new Map<string, number>()
  const talking = [...members].map(async ([name, client]) => {
    for (let number = 0; !stopping; number++) {
      counts.set(name, number + 1)
      const text = `${number}\n`
      client.send(text.slice(0, 1))
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 4))
      client.send(text.slice(1))
      await client.received(new RegExp(`^${name}: ${number}$`, 'm'))
    }
  })
  for (let index = 0; index < reloads; index++) {
    await reload(index + 2)
    const from = [...counts.values()]
    await waitFor(() => [...counts.values()].every((count, at) => count > from[at]! + 5))
  }
  stopping = true
  await Promise.all(talking)
  const total = [...counts.values()].reduce((sum, count) => sum + count)
  await waitFor(() => clients.every((client) => client.text.split('\n').length > total))

  const expected = new Map(names.map((name) => [name, Array.from({ length: counts.get(name)! }, (_, number) => number)]))
  for (const client of clients) expect(saidBy(client.text)).toEqual(expected)
  expect(new Set(clients.map((client) => client.text)).size, 'all heard the same in the same order').toBe(1)
  expect(total).toBeGreaterThan(reloads * names.length)
  const ended = (): RegExpExecArray[] => [...program.stderr.matchAll(/has ended: (\d+) connections moved, (\d+) drained, (\d+) closed idle, (\d+) cut/g)]
  await program.until(() => ended().length >= reloads)
  for (const [, ...numbers] of ended()) expect(numbers.map(Number)).toEqual([names.length, 0, 0, 0])
})

test('a line of which half was said before the reload is heard whole, with every byte of its characters', async () => {
  const { member, reload } = await start()
  const [one, other] = [await member('one'), await member('other')]
  const text = Buffer.from('süß — 🦊\n')
  one.socket.write('a')
  for (const [at, generation] of [[2, 2], [9, 3], [13, 4]] as const) {
    const from = at === 2 ? 0 : at === 9 ? 2 : 9
    one.socket.write(text.subarray(from, at))
    await other.send(`${generation}\n`).received(new RegExp(`^other: ${generation}$`, 'm'))
    await reload(generation)
  }
  one.socket.write(text.subarray(13))
  await other.received(/^one: asüß — 🦊$/m)
})

test('who was here before the reload and who came after it hear each other', async () => {
  const { member, reload } = await start()
  const before = await member('before')
  await reload(2)
  const after = await member('after')
  await before.received(/^\* after is here$/m)
  before.send('hello\n')
  await after.received(/^before: hello$/m)
  after.socket.end()
  await before.received(/^\* after has left$/m)
  expect(before.text).not.toMatch(/before has left/)
})

test('where nobody can take them the members stay, and talk on until the drain deadline', async () => {
  const { program, member } = await start({ HANDOVER_DRAIN_TIMEOUT: '1500' })
  const [one, other] = [await member('one'), await member('other')]
  process.kill(program.pid, 'SIGTERM')
  await program.stderrMatching(/drains 2 connections/)
  one.send('still here\n')
  await other.received(/^one: still here$/m)
  await one.over
  expect(await program.ended).toEqual({ code: 0, signal: null })
  expect(program.stderr).toMatch(/has stopped: .*0 closed idle, 2 cut/)
})

test('who sends a line without an end is put out, and the others stay and move', async () => {
  const { program, member, reload } = await start()
  const [endless, one, other] = [await member('endless'), await member('one'), await member('other')]
  endless.send('x'.repeat(300_000))
  await one.received(/^\* endless has left$/m)
  await endless.over
  await reload(2)
  await program.stderrMatching(/generation 1 \(process \d+\) has ended: 2 connections moved, .*0 cut/)
  one.send('hello\n')
  await other.received(/^one: hello$/m)
  expect(other.text).not.toMatch(/x{9}/)
})
