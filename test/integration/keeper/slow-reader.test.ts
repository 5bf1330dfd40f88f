/** What programs write under `handover run`, where its reader is slow, or reads nothing: the pipes between fill up. */

import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { freePorts, get } from '../../helpers/ask.js'
import { commandFile, internalFile } from '../../helpers/built.js'
import { Folder } from '../../helpers/plan.js'
import { waitFor } from '../../helpers/program.js'

const many = 1_000_000

/** Nobody reads its standard error before `read`. */
class Silent implements AsyncDisposable {
  readonly #folder = new Folder()
  readonly child: ChildProcessByStdio<null, Readable, Readable>
  out = ''
  text = ''

  constructor(program: string, shell = 'exec "$0" "$@"') {
    mkdirSync(this.#folder.at('control'), { mode: 0o700 })
    writeFileSync(this.#folder.at('app.cjs'), program)
    this.child = spawn('sh', ['-c', shell, process.execPath, commandFile, 'run', '--spare', 'off', '--name', 'app', 'app.cjs'], {
      cwd: this.#folder.path, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HANDOVER_DIR: this.#folder.at('control'), NODE_OPTIONS: '' }
    })
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => { this.out += text })
  }

  read(): void {
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => { this.text += text })
  }

  get letters(): number {
    return this.text.match(/x/g)?.length ?? 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null) {
      this.child.kill('SIGTERM')
      await once(this.child, 'exit')
    }
    this.#folder[Symbol.dispose]()
  }
}

test('a server that writes much as it begins to serve is heard then and later', async () => {
  await using app = new Silent(`require('node:http').createServer().listen(0, '127.0.0.1', () => {
    process.stderr.write('x'.repeat(${many}))
    setTimeout(() => { console.log('later'); setInterval(() => { process.stderr.write('later') }, 50) }, 500)
  })`)
  await waitFor(() => app.out === 'later\n')
  app.read()
  await waitFor(() => app.letters === many && app.text.includes('later'))
})

test('the last lines of a program that ends are read to their end, and the status is its own', async () => {
  await using app = new Silent(`process.stderr.write('x'.repeat(${many}) + 'the end', () => { console.log('written'); process.exitCode = 3 })`)
  await waitFor(() => app.out === 'written\n')
  // The keeper has nothing more to do than to write.
  await sleep(300)
  app.read()
  await once(app.child, 'close')
  expect([app.letters, app.text.includes('the end'), app.child.exitCode]).toEqual([many, true, 3])
})

test('a server whose output nobody reads goes on answering, as with node alone: what it writes waits in its memory', async () => {
  const [port = 0] = await freePorts(1)
  // One pipe for both, as containers and systemd have it.
  await using app = new Silent(`require('node:http').createServer((request, response) => {
    for (let times = 0; request.url === '/say' && times < 300; times++) process.stderr.write('x'.repeat(1_000))
    response.end('answered')
  }).listen(${port}, '127.0.0.1')`, 'exec "$0" "$@" >&2')
  const answer = async (path: string): Promise<string> => (await get({ port }, path).catch(() => ({ body: '' }))).body
  await waitFor(async () => await answer('/') === 'answered')
  for (const path of ['/say', '/']) expect(await answer(path)).toBe('answered')
  app.read()
  await waitFor(() => app.letters === 300_000)
})

test.each(['with fork', 'without fork'])('a process that is started beside a server does not make its writes wait in the kernel, nor does its end: %s', async (how) => {
  // It leaves the pipe as one does that found it so: Node sets it back at its end, which a race decides otherwise.
  const beside = "require('node:child_process').spawnSync(process.execPath, ['-e', ''], { stdio: 'inherit' }); process.kill(process.pid, 'SIGKILL')"
  const program = `const { start } = require(${JSON.stringify(internalFile)})
    const stays = setInterval(() => undefined, 1_000)
    process.stdout.write('ready')
    start({ file: process.execPath, args: ['-e', ${JSON.stringify(beside)}], cwd: '/' }, process.env, { withoutFork: ${how === 'without fork'} }).then(async ({ child }) => {
      await child.ended
      for (let times = 0; times < 300; times++) process.stdout.write('x'.repeat(1_000))
      process.stderr.write('not blocked')
      clearInterval(stays)
    })`
  const { stdout, stderr } = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'pipe'] })
  await once(stderr.setEncoding('utf8'), 'data').then(([text]) => { expect(text).toBe('not blocked') })
  expect(await new Response(stdout as never).text()).toBe(`ready${'x'.repeat(300_000)}`)
})
