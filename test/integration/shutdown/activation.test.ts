/**
 * Sockets that systemd opened for the service (sd_listen_fds(3)): with a keeper and without, over reloads, crashes, another keeper and the
 * stop.
 */

import dgram from 'node:dgram'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { commandFile } from '../../helpers/built.js'
import { Keeping, serving } from '../../helpers/keeping.js'
import { command } from '../../helpers/command.js'
import { Program, programPath, waitFor, type ProgramEvent } from '../../helpers/program.js'

/** The words before a command that systemd starts with these. */
const activated = (...specs: string[]): string[] => ['python3', path.join(import.meta.dirname, 'activate.py'), ...specs, '--']

function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'handover-activated-'))
  onTestFinished(() => { rmSync(made, { recursive: true }) })
  return made
}

const ask = async (options: http.RequestOptions): Promise<number> => await new Promise((resolve, reject) => {
  http.get({ agent: false, ...options }, (response) => {
    let body = ''
    response.setEncoding('utf8').on('data', (text: string) => { body += text }).on('end', () => { resolve(Number(body)) })
  }).on('error', reject)
})

async function askDatagram(port: number): Promise<number> {
  const socket = dgram.createSocket('udp4')
  const again = setInterval(() => { socket.send('who', port, '127.0.0.1') }, 20)
  const [message] = await once(socket, 'message') as [Buffer]
  clearInterval(again)
  socket.close()
  return Number(message)
}

/** Requests, one after the other, until `stop` answers how many failed. */
function asking(port: number): { stop: () => Promise<number> } {
  let stopped = false
  let failed = 0
  const over = (async () => { while (!stopped) await ask({ host: '127.0.0.1', port }).catch(() => { failed++ }) })()
  return { stop: async () => { stopped = true; await over; return failed } }
}

const envOf = async (program: Program, pid: number): Promise<ProgramEvent> => await program.event('env', (event) => event.pid === pid)
const own = (pid: number, count = '3', names = 'tcp:unix:udp'): Record<string, string> => ({ LISTEN_PID: String(pid), LISTEN_FDS: count, LISTEN_FDNAMES: names })

it('a program that listens on its sockets late is not said to serve elsewhere', async () => {
  const at = folder()
  const file = path.join(at, 'late.cjs')
  // The keeper has looked before that, and a program in a thread would have been found.
  writeFileSync(file, `setTimeout(() => require('node:http').createServer((request, response) => { response.end(String(process.pid)) })
    .listen({ fd: 3 }, () => { console.log(JSON.stringify({ event: 'listening', pid: process.pid, generation: 0 })) }), 1_500)`)
  mkdirSync(path.join(at, 'control'), { mode: 0o700 })
  await using app = Program.start(commandFile, { node: 'python3', execArgv: [...activated('tcp').slice(1), process.execPath], args: ['run', file], env: { HANDOVER_DIR: path.join(at, 'control') } })
  await app.event('listening')
  await app.stderrMatching(/systemd passes tcp/)
  process.kill(app.pid, 'SIGTERM')
  await app.ended
  expect(app.stderr).not.toContain('cannot be handed over')
})

it('workers of a keeper get the sockets of systemd under their numbers, over a reload, a crash, another keeper and the stop', async () => {
  const file = path.join(folder(), 'app.sock')
  await using app = await Keeping.start({ workers: 2, program: 'activated.cjs', behaviour: 'fd', through: activated('tcp', `unix:${file}`, 'udp'), env: { UNIX_PATH: file } })
  const { program } = app
  const first = await app.serves()
  for (const pid of first) expect(await envOf(program, pid)).toMatchObject(own(pid))
  const { TCP_PORT, UDP_PORT } = (await envOf(program, first[0]!)) as unknown as { TCP_PORT: string; UDP_PORT: string }
  const port = Number(TCP_PORT)
  const allAnswer = async (pids: readonly number[]): Promise<void> => {
    expect(pids).toContain(await ask({ host: '127.0.0.1', port }))
    expect(pids).toContain(await ask({ socketPath: file }))
    expect(pids).toContain(await askDatagram(Number(UDP_PORT)))
  }
  await allAnswer(first)
  expect([...(await app.status())!.keeper!.listeners].sort()).toEqual([`tcp 127.0.0.1:${port}`, `udp 127.0.0.1:${UDP_PORT}`, `unix ${file}`])

  // The same sockets by their addresses, in a build that knows nothing of activation, and back.
  const requests = asking(port)
  app.behave('address')
  expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
  await allAnswer(await app.serves())
  app.behave('fd')
  expect(await app.reload('--keeper')).toMatchObject({ ok: true })
  expect(await app.reload('--bake', '0')).toMatchObject({ ok: true })
  expect(await requests.stop()).toBe(0)

  const [killed, other] = await app.serves() as [number, number]
  process.kill(killed, 'SIGKILL')
  await waitFor(async () => serving((await app.status())!).length === 2 && !serving((await app.status())!).includes(killed))
  const fresh = (await app.serves()).find((pid) => pid !== other)!
  expect(await envOf(program, fresh)).toMatchObject(own(fresh))
  await allAnswer([fresh, other])
  await app.run('stop')
  await waitFor(() => program.alive.length === 0)
  expect(existsSync(file)).toBe(true)
  expect(program.stderr).not.toMatch(/EADDRINUSE|EEXIST|defect/)
})

it('without a keeper a successor finds them with its own pid, before any of its code runs, and is called as it was', async () => {
  const place = folder()
  const file = path.join(place, 'app.sock')
  const behaviour = path.join(place, 'behaviour')
  writeFileSync(behaviour, 'fd')
  const [python, ...words] = activated('tcp', `unix:${file}`, 'udp', 'file:handover-cache')
  await using program = Program.start(programPath('activated.cjs'), {
    node: python!, execArgv: [...words, process.execPath, '--no-deprecation'],
    env: { ADAPTER: '1', BEHAVIOUR_FILE: behaviour, UNIX_PATH: file, OPTIONS: JSON.stringify({ linger: 50, undoWindow: 50 }) }
  })
  // What systemd held of a process before this one is looked at first.
  await program.event('state', ({ to }) => to === 'serving')
  const first = await envOf(program, program.pid)
  expect(first).toMatchObject(own(program.pid, '4', 'tcp:unix:udp:handover-cache'))
  const port = Number(first['TCP_PORT'])
  const { argv0, execArgv, title } = first

  const requests = asking(port)
  for (const how of ['fd', 'address', 'fd']) {
    writeFileSync(behaviour, how)
    const { report } = await program.hangUp() as unknown as { report: { listeners: { kept: string[] }; successor: { pid: number } } }
    const { pid } = report.successor
    await program.event('state', (event) => event.pid === pid && event['to'] === 'serving')
    expect(report.listeners.kept.sort()).toEqual([`tcp 127.0.0.1:${port}`, `udp 127.0.0.1:${String(first['UDP_PORT'])}`, `unix ${file}`])
    // A checkpoint is for the process that crashed.
    expect(await envOf(program, pid)).toMatchObject({ ...own(pid), WATCHDOG_PID: String(pid), argv0, execArgv, title })
    expect(await ask({ socketPath: file })).toBe(pid)
    expect(await askDatagram(Number(first['UDP_PORT']))).toBe(pid)
  }
  expect(await requests.stop()).toBe(0)
  process.kill(program.serving, 'SIGTERM')
  await waitFor(() => program.alive.length === 0)
  expect(existsSync(file)).toBe(true)
})

it('a version that listens on nothing of what is served is refused without a keeper, unless that is meant', async () => {
  const place = folder()
  const behaviour = path.join(place, 'behaviour')
  writeFileSync(behaviour, 'fd')
  const file = path.join(place, 'app.sock')
  const [python, ...words] = activated('tcp', `unix:${file}`, 'udp')
  const sockets = path.join(place, 'sockets')
  mkdirSync(sockets, { mode: 0o700 })
  await using program = Program.start(programPath('activated.cjs'), {
    node: python!, execArgv: [...words, process.execPath],
    env: { ADAPTER: '1', BEHAVIOUR_FILE: behaviour, UNIX_PATH: file, HANDOVER_DIR: sockets, HANDOVER_NAME: 'shop', OPTIONS: JSON.stringify({ linger: 50, undoWindow: 50, readyTimeout: 4_000 }) }
  })
  const { address: { port } } = await program.event('listening') as unknown as { address: { port: number } }
  writeFileSync(behaviour, 'elsewhere')
  const failure = await program.hangUp().catch((error: unknown) => error as Error)
  expect(failure).toMatchObject({ message: expect.stringMatching(new RegExp(`process \\d+ \\(generation 2\\) cannot serve: it listens on tcp 127\\.0\\.0\\.1:\\d+, and on nothing of what is served now \\(tcp 127\\.0\\.0\\.1:${port}, .*\\)\\.\\n  Process ${program.pid} \\(generation 1\\) keeps serving .*\\n  .*--allow-drop`)) })
  expect(await ask({ host: '127.0.0.1', port })).toBe(program.pid)

  // Some of them may go.
  writeFileSync(behaviour, 'tcp')
  const { report } = await program.hangUp() as unknown as { report: { successor: { pid: number } } }
  expect(await ask({ host: '127.0.0.1', port })).toBe(report.successor.pid)
  writeFileSync(behaviour, 'elsewhere')
  expect(await command(['reload', 'shop', '--allow-drop'], { HANDOVER_DIR: sockets }).ended).toMatchObject({ status: 0 })
})

it('a connection in the place of a listening socket (Accept=yes) is refused, and sockets for another process are said to be missed', async () => {
  const [python, ...words] = activated('connection')
  await using program = Program.start(commandFile, { node: python!, execArgv: [...words, process.execPath], args: ['run', programPath('activated.cjs')] })
  expect(await program.ended).toMatchObject({ code: 1 })
  expect(program.stderr).toMatch(/Accept=yes.*Nothing was started.*Accept=no/)

  await using app = await Keeping.start({ program: 'activated.cjs', behaviour: 'elsewhere', env: { LISTEN_PID: '1', LISTEN_FDS: '2' } })
  expect(app.program.stderr).toMatch(/LISTEN_FDS=2 is meant for process 1, .*not through npx/)
})

it('a socket without a file (ListenStream=@name) is inherited by its name or its number, and no other listen() hears of it', async () => {
  // As long as the kernel takes it: Node 20 fills shorter ones up.
  const name = `@handover-test-${process.pid}-`.padEnd(108, 'x')
  const file = path.join(folder(), 'app.mjs')
  writeFileSync(file, `
    import http from 'node:http'
    const { handover } = await import(${JSON.stringify(import.meta.resolve('@handover/core'))})
    const { print, printEvents } = await import(${JSON.stringify(programPath('print.mjs'))})
    printEvents(handover)
    const servers = [1, 2].map(() => handover(http.createServer((request, response) => { response.end(String(process.pid)) }), { undoWindow: 0 }))
    servers[0].listen(process.argv[2] === 'fd' ? { fd: 3 } : '\0' + ${JSON.stringify(name.slice(1))}, () => servers[1].listen(0, '127.0.0.1', () => { print('listening') }))`)
  for (const by of ['name', 'fd']) {
    const [python, ...words] = activated(`unix:${name}`)
    await using program = Program.start(file, { node: python!, execArgv: [...words, process.execPath], args: [by] })
    await program.event('listening')
    const { report } = await program.hangUp() as unknown as { report: { listeners: { kept: string[] }; successor: { pid: number } } }
    expect(report.listeners.kept[0]).toBe(`unix ${name}`)
    expect(await ask({ socketPath: `\0${name.slice(1)}` })).toBe(report.successor.pid)
  }
})
