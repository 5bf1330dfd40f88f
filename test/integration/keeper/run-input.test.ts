/**
 * Whatever is wrong with a `handover run`, or with what is asked of one, is one line that says what to do; the exit status is 1 or 2, and
 * nothing is left.
 */

import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { once } from 'node:events'
import { afterAll, describe, expect, it } from 'vitest'
import { get } from '../../helpers/ask.js'
import { commandFile } from '../../helpers/built.js'
import { command, Place, type Ran } from '../../helpers/command.js'
import { descriptorsOf, programPath, waitFor } from '../../helpers/program.js'
import { parseCommand } from '../../helpers/internals.js'
import { Keeping } from '../../helpers/keeping.js'
import { runModule } from '../../helpers/script.js'

const oneLine = (text: string): string => {
  expect(text).toMatch(/^handover[^\n]+\n$/)
  return text
}

/** Of standard error, what the keeper says and not the app. */
const ours = (text: string): string[] => text.split('\n').filter((line) => line.startsWith('handover: '))

/** `handover run` of a piece of a program, which ends by itself. */
async function runScript(place: Place, script: string, ...words: string[]): Promise<Ran> {
  const file = path.join(place.folder, 'script.mjs')
  writeFileSync(file, script)
  return await place.run('run', '--name', 'job', ...words, file)
}

describe('handover run', () => {
  it('of a script that does not exist says where it looked', async () => {
    await using place = new Place()
    const { stdout, stderr, status } = await place.run('run', 'no-such-server.js')
    expect({ stdout, status }).toEqual({ stdout: '', status: 1 })
    expect(oneLine(stderr)).toMatch(/no-such-server\.js does not exist in \/.+\. Nothing was started\. Give the path of a script/)
    expect(place.files).toEqual([])
  })

  it.each([[['--workers', '0'], /--workers is "0", expected a whole number from 1/], [['--name', 'a/b'], /--name is "a\/b"/], [['--name', 'x'.repeat(65)], /expected 1 to 64 letters/], [['--hang-timeout', '5'], /with its unit/]])('%j is asked wrongly', async (words, says) => {
    await using place = new Place()
    const { stdout, stderr, status } = await place.run('run', ...words, programPath('build.mjs'))
    expect({ stdout, status }).toEqual({ stdout: '', status: 2 })
    expect(oneLine(stderr)).toMatch(says)
    expect(place.files).toEqual([])
  })

  it.each([
    ['HANDOVER_NAME', '../shop', /expected 1 to 64 letters/], ['HANDOVER_READY_TIMEOUT', '30s', /expected a whole number of milliseconds/],
    ['HANDOVER_RELOAD_SIGNAL', 'HUP', /expected a signal such as SIGHUP/], ['HANDOVER_MOVE', 'maybe', /expected true, false or "plain"/]
  ])('with %s=%s starts nothing', async (variable, value, says) => {
    await using place = new Place()
    const { stdout, stderr, status } = await command(['run', programPath('says.mjs')], { HANDOVER_DIR: place.sockets, SCRIPT: '', [variable]: value }).ended
    expect({ stdout, status }).toEqual({ stdout: '', status: 1 })
    expect(oneLine(stderr)).toMatch(new RegExp(`^handover run: ${variable} is '${value}', .*Nothing was started\\. Correct the value\\.\n$`))
    expect(stderr).toMatch(says)
    expect(readdirSync(place.folder)).toEqual(['sockets'])
    expect(place.files).toEqual([])
  })

  it('as a worker of node:cluster, as which pm2 starts with -i what it is given, starts nothing and says so', async () => {
    await using place = new Place()
    const { stderr, status } = runModule(`import cluster from 'node:cluster'
      cluster.setupPrimary({ execArgv: [], exec: ${JSON.stringify(commandFile)}, args: ['run', ${JSON.stringify(programPath('says.mjs'))}] })
      cluster.fork().on('exit', (code) => { process.exitCode = code })`, { HANDOVER_DIR: place.sockets, SCRIPT: '' })
    expect(oneLine(stderr)).toMatch(/^handover run: this process is a worker of node:cluster.*Nothing was started\. With pm2, start it in fork mode/)
    expect(status).toBe(1)
    expect(place.files).toEqual([])
  })

  it('with a mistyped variable starts, and says once that it means nothing', async () => {
    await using place = new Place()
    const { stderr, status } = await command(['run', '--workers', '2', programPath('says.mjs')], { HANDOVER_DIR: place.sockets, SCRIPT: '', HANDOVER_DRAIN_TIMOUT: '5' }).ended
    expect(status).toBe(0)
    expect(stderr.match(/.*HANDOVER_DRAIN_TIMOUT.*/g)).toEqual(['handover: warn: the variable HANDOVER_DRAIN_TIMOUT means nothing, and is ignored. Did you mean HANDOVER_DRAIN_TIMEOUT?'])
  })

  it('of a name that runs already, by a keeper or without one, starts nothing, and leaves that one alone', async () => {
    await using app = await Keeping.start()
    const [pid] = await app.serves()
    const second = await app.run('run', '--name', 'kept', programPath('build.mjs'))
    expect(second).toMatchObject({ stdout: '', status: 1 })
    expect(oneLine(second.stderr)).toBe(`handover run: an app with the name kept runs already (process ${app.program.pid}). Nothing was started. Reload that one (handover reload kept), or choose another --name.\n`)
    expect(await app.serves()).toEqual([pid])

    await using place = new Place()
    const plain = await place.start({ name: 'shop' })
    const before = place.files
    const third = await place.run('run', '--name', 'shop', programPath('build.mjs'))
    expect(third).toMatchObject({ stdout: '', status: 1 })
    expect(oneLine(third.stderr)).toMatch(new RegExp(`an app with the name shop runs already \\(process ${plain.pid}\\)`))
    expect(place.files).toEqual(before)
  })

  it('of a name that is just stopping says so, and its status speaks of no start', async () => {
    await using app = await Keeping.start()
    const held = get(app.target, '/held')
    const { pid } = await app.program.event('held')
    process.kill(app.program.pid, 'SIGTERM')
    await app.program.event('state', ({ to }) => to === 'draining')
    const second = await app.run('run', '--name', 'kept', programPath('build.mjs'))
    expect(second.status).toBe(1)
    expect(oneLine(second.stderr)).toBe(`handover run: an app with the name kept is just stopping (process ${app.program.pid}). Nothing was started. Start this one when that has ended (handover stop kept waits for it), or choose another --name.\n`)
    expect((await app.status())?.keeper?.down).toEqual([])
    process.kill(pid, 'SIGUSR2')
    expect((await held).status).toBe(200)
  })

  it.runIf(process.platform === 'linux')('is not replaced for want of descriptors: it says so, who serves and what to do', async () => {
    await using app = await Keeping.start()
    const { pid } = app.program
    const open = descriptorsOf(pid)
    const free = Array.from({ length: 256 }, (_, fd) => fd).filter((fd) => !open.has(fd))
    execFileSync('prlimit', ['--pid', String(pid), `--nofile=${free[2]}:`])
    const { status, stderr } = await app.run('reload', '--keeper')
    expect(status).toBe(1)
    expect(stderr).toMatch(/^handover: the reload failed \(HANDOVER_SPAWN\): a new keeper could not be started: .*EMFILE.*\n {2}Process \d+ goes on as the keeper; Process .* serves .*\n {2}Check that Node/)
  })

  it('takes the name of a killed process, whose socket is left', async () => {
    await using place = new Place()
    const killed = await place.start({ name: 'job' })
    process.kill(killed.pid, 'SIGKILL')
    await killed.ended
    expect(place.files).toContain('job.sock')
    expect(await runScript(place, 'process.stdout.write("done")')).toEqual({ stdout: 'done', stderr: '', status: 0 })
    expect(place.files.filter((file) => !file.startsWith('@'))).toEqual([])
  })

  it('with a name and a HANDOVER_DIR that is relative starts nothing', async () => {
    await using place = new Place()
    const { stdout, stderr, status } = await command(['run', '--name', 'job', programPath('build.mjs')], { HANDOVER_DIR: 'sockets' }).ended
    expect({ stdout, status }).toEqual({ stdout: '', status: 1 })
    expect(oneLine(stderr)).toMatch(/HANDOVER_DIR=sockets is a relative path.*Nothing was started\. Set HANDOVER_DIR to a directory of this user, or choose another --name\./)
    expect(place.files).toEqual([])
  })

  it.each<[string, (place: Place) => string, RegExp]>([
    ['makes a path of more than 107 bytes', (place) => path.join(place.folder, 'x'.repeat(100)), /job\.sock is \d+ bytes long, expected at most 103/],
    ['makes such a path, and is there', (place) => { const long = path.join(place.folder, 'x'.repeat(100)); mkdirSync(long, { mode: 0o700 }); return long }, /job\.sock is \d+ bytes long, expected at most 103/],
    ['others can enter', (place) => { chmodSync(place.sockets, 0o755); return place.sockets }, /has mode 0755, expected 0700/],
    ['cannot be made', (place) => { writeFileSync(path.join(place.folder, 'file'), ''); return path.join(place.folder, 'file', 'sockets') }, /cannot be made \(ENOTDIR\)/],
    ['has a directory where the socket should be', (place) => { mkdirSync(path.join(place.sockets, 'job.sock')); return place.sockets }, /sockets cannot be used: .*EISDIR.*\. Set HANDOVER_DIR to a directory of this user\./]
  ])('with a name and a HANDOVER_DIR that %s runs the script, and says what does not work', async (_what, directory, says) => {
    await using place = new Place()
    const folder = directory(place)
    const before = readdirSync(place.sockets)
    const file = path.join(place.folder, 'script.mjs')
    writeFileSync(file, 'process.stdout.write("done")')
    const { stdout, stderr, status } = await command(['run', '--name', 'job', file], { HANDOVER_DIR: folder }).ended
    expect({ stdout, status }).toEqual({ stdout: 'done', status: 0 })
    expect(stderr).toMatch(says)
    expect(stderr).toMatch(/do not find this app, and neither would a second keeper; SIGHUP reloads it\./)
    expect(readdirSync(place.sockets)).toEqual(before)
  })

  it('without a name starts all the same where the directory cannot be used, and says what does not work', async () => {
    await using place = new Place()
    const file = path.join(place.folder, 'script.mjs')
    writeFileSync(file, 'process.stdout.write("done")')
    const { stdout, stderr, status } = await command(['run', file], { HANDOVER_DIR: 'sockets' }).ended
    expect({ stdout, status }).toEqual({ stdout: 'done', status: 0 })
    expect(oneLine(stderr)).toMatch(/HANDOVER_DIR=sockets is a relative path.*SIGHUP reloads it/)
  })

  it('of an app whose port somebody else has ends with 1, and one line that names the port and what to do', async () => {
    await using place = new Place()
    const taken = net.createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as net.AddressInfo
    const { stderr, status } = await runScript(place, `import http from 'node:http'; http.createServer().listen(${port}, '127.0.0.1')`, '--workers', '2')
    taken.close()
    expect(status).toBe(1)
    expect(ours(stderr)).toEqual([expect.stringMatching(new RegExp(`^handover: error: process \\d+ \\(generation 1\\) cannot serve: listen EADDRINUSE: address already in use 127\\.0\\.0\\.1:${port}\\. Nobody serves\\. End the program that has the port \\(ss -ltnp shows it\\), or listen on another one\\.$`))])
    expect(place.files).toEqual([])
  })

  it('of a program that throws at its first boot ends with 1, its own words and one line of ours', async () => {
    await using place = new Place()
    const { stderr, status } = await runScript(place, 'throw new Error("this program throws")', '--workers', '3')
    expect(status).toBe(1)
    expect(stderr).toMatch(/Error: this program throws/)
    expect(ours(stderr)).toEqual([expect.stringMatching(/^handover: error: process \d+ \(generation 1\) ended with status 1 before it was ready\. Nobody serves\. Repair the program, and start it again\.$/)])
    expect(stderr.match(/Error: this program throws/g)).toHaveLength(1)
    expect(place.files).toEqual([])
  })

  it.each([['process.exitCode = 0', 0], ['process.exit(0)', 0], ['process.exit(3)', 3], ['process.exitCode = 70', 70], ['process.kill(process.pid, "SIGKILL")', 137], ['process.kill(process.pid, "SIGTERM"); setInterval(() => {}, 1000)', 143], ['process.abort()', 134]])('of a program that never listens and ends by %j ends with %i', async (script, expected) => {
    await using place = new Place()
    const { stdout, status } = await runScript(place, script)
    expect({ stdout, status }).toEqual({ stdout: '', status: expected })
    expect(place.files).toEqual([])
  })

  it.each([
    ['SIGTERM', 'without a listener for it', '', 143], ['SIGTERM', 'with a listener for it', 'process.on("SIGTERM", () => { process.exit(5) })', 5],
    ['SIGINT', 'without a listener for it', '', 130], ['SIGINT', 'with a listener for it', 'process.once("SIGINT", () => { setTimeout(() => { process.exit(5) }, 300) })', 5]
  ] as const)('passes %s on to a job that never listens, %s, once, and ends with its status', async (signal, _what, listener, expected) => {
    await using place = new Place()
    writeFileSync(path.join(place.folder, 'job.mjs'), `${listener}; setInterval(() => {}, 1000); console.log(process.pid)`)
    const job = place.begin('run', '--name', 'job', path.join(place.folder, 'job.mjs'))
    await waitFor(() => job.output.stdout.endsWith('\n'))
    // A terminal sends it to both.
    if (signal === 'SIGINT') process.kill(Number(job.output.stdout), signal)
    job.child.kill(signal)
    const { stderr, status } = await job.ended
    expect({ stderr, status }).toEqual({ stderr: '', status: expected })
    expect(place.files).toEqual([])
  })

  it('shows the program the options of Node that were typed, so that what it forks needs no file of ours', async () => {
    await using place = new Place()
    const script = 'process.stdout.write(JSON.stringify(process.execArgv))'
    expect(await runScript(place, script, '--stack-trace-limit=20')).toEqual({ stdout: '["--stack-trace-limit=20"]', stderr: '', status: 0 })
  })

  it('of a job that never listens is told from one that serves: a reload is refused with what to do', async () => {
    await using place = new Place()
    writeFileSync(path.join(place.folder, 'job.mjs'), 'setInterval(() => {}, 1000); console.log("begun")')
    const job = place.begin('run', '--name', 'job', path.join(place.folder, 'job.mjs'))
    await waitFor(() => job.output.stdout === 'begun\n')
    const { stderr, status } = await place.run('reload', 'job')
    expect(status).toBe(1)
    expect(oneLine(stderr)).toMatch(/nothing listens yet \(keeper: process \d+\)\. Nothing was changed\. Wait until the first worker serves, or see its output for why it does not\. \(HANDOVER_NOT_SERVING\)/)
    job.child.kill('SIGTERM')
    await job.ended
  })
})

describe('of an app under a keeper', () => {
  it.each([
    ['reload', ['nobody'], 1, /no app "nobody" runs .* These run: kept \(keeper \d+\)\./], ['status', ['nobody'], 1, /no app "nobody" runs/], ['stop', ['nobody'], 1, /no app "nobody" runs/], ['drill', ['nobody'], 1, /no app "nobody" runs/],
    ['reload', ['kept', '--workers', '0'], 2, /--workers is "0"/], ['reload', ['kept', '--canary', '0'], 2, /--canary is "0"/], ['reload', ['kept', '--probe', 'healthz'], 2, /--probe is "healthz"/], ['drill', ['kept', '--connections', '0'], 2, /--connections is "0"/],
    ['drill', ['kept', '--url', 'ftp://x'], 2, /--url is "ftp:\/\/x"/]
  ])('handover %s %j ends with %i, and changes nothing', async (verb, words, expected, says) => {
    const app = await shared()
    const before = await app.serves()
    const { stdout, stderr, status } = await app.run(verb, ...words)
    expect({ stdout, status }).toEqual({ stdout: '', status: expected })
    expect(oneLine(stderr)).toMatch(says)
    expect(await app.serves()).toEqual(before)
    await app.onlyLives(before)
  })

  it('garbage on the keeper\'s control socket is answered with an error and a closed connection, and the app goes on', async () => {
    const app = await shared()
    for (const text of ['GET / HTTP/1.1\r\n\r\n', '{"type":"request","verb":"explode"}\n', `${'x'.repeat(100_000)}`, '{"type":"request","verb":"reload","options":{"workers":-1}}\n', '{"type":"request","verb":"reload","options":{"bakeMs":"soon"}}\n', '\n', '\0\0\0\n', '[]\n']) {
      const socket = net.connect(app.socket).setEncoding('utf8')
      socket.on('error', () => undefined)
      let answer = ''
      socket.on('data', (chunk: string) => { answer += chunk })
      const closed = once(socket, 'close')
      socket.write(text)
      await closed
      expect(answer, JSON.stringify(text.slice(0, 60))).toMatch(/^(\{"type":"refused",[^\n]+\}\n)?$/)
      if (text.length < 1_000) expect(answer).not.toBe('')
    }
    expect((await get(app.target)).status).toBe(200)
  })

  it('the status holds nothing of the command line, the environment or the state of the app', async () => {
    const app = await shared()
    const { stdout } = await app.run('status', '--json')
    expect(stdout).not.toMatch(/SECRET|secret|kept\.mjs|BEHAVIOUR/)
  })
})

let app: Keeping | undefined
/** One for the tests that change nothing. */
async function shared(): Promise<Keeping> {
  app ??= await Keeping.start({ workers: 2, env: { SECRET: 'a secret of the environment' }, args: ['--password=SECRET'] })
  return app
}
afterAll(async () => { await app?.[Symbol.asyncDispose]() })

it('knows each option of this Node whose value is the next word: the script comes behind it', () => {
  const list = `const { getCLIOptionsInfo, types } = require('internal/test/binding').internalBinding('options')
    const { kNoOp, kV8Option, kBoolean } = types
    const options = [...getCLIOptionsInfo().options].filter(([, { type }]) => ![kNoOp, kV8Option, kBoolean].includes(type))
    console.log(options.map(([name]) => name).join('\\n'))`
  const names = execFileSync(process.execPath, ['--expose-internals', '-e', list], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim().split('\n')
  // Those that want a =, and those with which no server is started.
  const others = /^(--stack-trace-limit|--experimental-default-config-file|\[.*|--(experimental-)?(test|bench|watch|sea|build)-.*|--inspect(-brk|-wait)?|--eval|--print|--run|--check)$/
  const asked = names.filter((name) => !others.test(name))
  expect(asked.length).toBeGreaterThan(40)
  const wrong = asked.filter((name) => {
    const command = parseCommand(['run', name, 'value', 'server.js'])
    return command.is !== 'run' || command.options.script !== 'server.js'
  })
  expect(wrong).toEqual([])
})
