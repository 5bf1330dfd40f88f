/** The addon itself: no argument ends the process, and no wait outlives its environment. */

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import { closeFds } from '@handover/core/fd'
import { describe, expect, it } from 'vitest'
import type { Native } from '../../helpers/internals.js'
import { freePorts } from '../../helpers/ask.js'
import { directory, openFds, pair } from '../../helpers/fd-peer/support.js'

interface Binary extends Omit<Required<Native>, 'sendMessage' | 'receiveMessage' | 'close' | 'sendDatagram' | 'spawn'> {
  spawn(file: string, args: string, env: string, directory: string, fds: Int32Array, count: number): number
  sendMessage(fd: number, data: Uint8Array, fds: Int32Array, count: number): number
  receiveMessage(fd: number, into: Uint8Array, result: Int32Array): number
  close(fds: Int32Array, count: number): number
  sendDatagram(path: string, data: Uint8Array, fds: Int32Array, count: number): number
}

const top = path.join(import.meta.dirname, '../../..')
const file = path.join(top, 'build', 'Release', 'handover.node')
/** The binary itself, without the face that native.ts gives it. */
const native = createRequire(import.meta.url)(file) as Binary

const none = new Int32Array(0)

const thrower = (): never => { throw new Error('from the argument') }

function detached(): Uint8Array {
  const bytes = new Uint8Array(8)
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  return bytes
}

/** Values that no function of the addon can use as a descriptor; -1 and 999,999,999 are numbers of none. */
const strange: readonly unknown[] = [
  undefined, null, true, NaN, Infinity, -Infinity, -1, 0.5, 2 ** 31, -(2 ** 31) - 1, 2 ** 53, 999_999_999, 10n, Symbol('s'),
  '', 'x', '\0', '\0abc', '@', 'a\0b', 'x'.repeat(107), 'x'.repeat(108), 'é'.repeat(100), 'x'.repeat(1_000_000), '\ud800', 'readable',
  {}, [], [undefined], [-1], [1.5], ['1'], new Array(252).fill(-1), new Array(253).fill(-1), new Array(2 ** 31),
  Object.defineProperty([0], 0, { get: thrower }), new Proxy([], { get: thrower }), { length: 1, 0: 1 },
  () => undefined, thrower, class {}, new Date(), new Map(),
  new Int32Array(0), new Int32Array(8), new Int32Array(512).fill(-1), new Uint8Array(0), new Uint8Array(8), Buffer.alloc(70_000),
  new Uint16Array(8), new Float64Array(1), new Uint8ClampedArray(3), new DataView(new ArrayBuffer(8)), new ArrayBuffer(8),
  new Uint8Array(new SharedArrayBuffer(8)), detached(), new Proxy(new Uint8Array(1), {})
]

describe('the addon', () => {
  it.each(Object.keys(native) as (keyof Binary)[])('answers an errno or throws for wrong arguments of %s, and leaves nothing open', (name) => {
    const call = native[name] as (...values: unknown[]) => unknown
    const before = openFds()
    const [a] = pair()
    const seconds = name === 'listenUnix' ? strange.filter((value) => typeof value !== 'number') : strange
    const check = (...values: unknown[]): void => {
      try {
        const answer = call(...values)
        if (typeof answer === 'function') answer()
        else if (Array.isArray(answer)) closeFds(answer as number[])
        // Any string that is short enough is the name of a file, and an epoll needs no argument.
        else if (['memoryFile', 'epoll'].includes(name) && (answer as number) >= 0) closeFds([answer as number])
      } catch (error) {
        if ((error as Error).message !== 'from the argument') expect(error).toBeInstanceOf(TypeError)
      }
    }
    // They take none, and the second reads a file of the kernel at each call.
    if (name === 'socketPair' || name === 'dropProgramPages') return
    check()
    // A path is a string and would be made, so strings that are paths are left to the test below.
    const firsts = strange.filter((value) => !(typeof value === 'string' && ['listenUnix', 'connectUnix', 'sendDatagram'].includes(name)))
    let turn = 0
    for (const first of firsts) for (const second of seconds) check(first, second, strange[turn++ % strange.length])
    if (['sendMessage', 'receiveMessage', 'watchOnce'].includes(name)) for (const second of strange) for (const third of strange) check(a, second, third)
    expect(openFds()).toBe(before + 2)
  })

  it('says which argument is wrong', () => {
    expect(() => native.sendMessage(1, 'x' as unknown as Uint8Array, none, 0)).toThrow(/^argument 2 must be a Uint8Array$/)
    expect(() => native.sendMessage(1, new Uint8Array(1), [1] as unknown as Int32Array, 1)).toThrow(/^argument 3 must be an Int32Array$/)
    expect(() => native.sendMessage(1, new Uint8Array(1), none, 0.5)).toThrow(/^argument 4 must be a 32-bit integer$/)
    expect(() => native.watchOnce(1, 'both' as 'readable', () => undefined)).toThrow(/^argument 2 must be 'readable' or 'writable'$/)
  })

  it('answers -EINVAL for an empty path or one with a NUL, and -ENAMETOOLONG for one that does not fit', () => {
    for (const [wrong, errno] of [['', -22], ['a\0b', -22], ['\0a', -22], ['x'.repeat(108), process.platform === 'darwin' ? -63 : -36]] as const) {
      expect(native.connectUnix(wrong)).toBe(errno)
      expect(native.listenUnix(wrong, 1)).toBe(errno)
      expect(native.sendDatagram(wrong, new Uint8Array(1), none, 0)).toBe(errno)
    }
  })

  it('answers -EINVAL for more descriptors than the list has, than a message takes, or for a list without room', () => {
    const [a] = pair()
    for (const [room, count] of [[1, 2], [1, -1], [512, 253], [0, 1]] as const) {
      expect(native.sendMessage(a, new Uint8Array(1), new Int32Array(room), count)).toBe(-22)
    }
    expect(native.receiveMessage(a, new Uint8Array(1), new Int32Array(255))).toBe(-22)
    expect(native.receiveMessage(a, new Uint8Array(0), new Int32Array(512))).toBe(-22)
    expect(native.close(new Int32Array(1), 2)).toBe(-22)
  })

  it.runIf(process.platform === 'linux')('makes files in memory that are closed on exec, refuses names that do not fit, and seals nothing else', () => {
    for (const wrong of ['x'.repeat(250), 'x'.repeat(10_000), 'a\0b']) expect(native.memoryFile(wrong)).toBe(-22)
    const fd = native.memoryFile('x'.repeat(249))
    // O_CLOEXEC stands among the flags, in octal.
    expect(Number.parseInt(/^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8) & 0o2000000).toBe(0o2000000)
    writeFileSync(fd, 'text')
    expect(native.seal(fd)).toBe(0)
    expect(() => { writeFileSync(fd, 'more') }).toThrow(/EPERM/)
    expect(native.seal(fd)).toBe(-1)
    closeFds([fd])
    const [a] = pair()
    expect(native.seal(a)).toBe(-22)
    expect(native.seal(999_999)).toBe(-9)
  })

  it('makes, connects and describes a Unix listener, and answers -EAGAIN when its queue is full instead of waiting', () => {
    const place = path.join(directory(), 'socket')
    const listener = native.listenUnix(place, 0)
    expect(native.describe(listener)).toMatchObject({ family: 'unix', listening: true, address: place })
    const clients: number[] = []
    for (let client; (client = native.connectUnix(place)) >= 0;) clients.push(client)
    expect(clients.length).toBeGreaterThan(0)
    if (process.platform === 'linux') expect(native.connectUnix(place)).toBe(-11)
    closeFds([...clients, listener])
    expect(native.connectUnix(place)).toBe(process.platform === 'darwin' ? -61 : -111)
  })

  // With large pages Node moves its code into memory of its own, which would be lost.
  it.runIf(process.platform === 'linux').each(['', '--use-largepages=on'])('gives back pages of the program file, which goes on (%j)', (word) => {
    const code = `const n=require(${JSON.stringify(file)});const rss=process.memoryUsage.rss;const before=rss();const dropped=n.dropProgramPages();` +
      "const after=rss();const used=require('crypto').createHash('sha256').update(new Intl.NumberFormat('de').format(1234.5)).digest('hex');" +
      'console.log(JSON.stringify({dropped,less:before-after,used}))'
    const { stdout, stderr, status } = spawnSync(process.execPath, [...word === '' ? [] : [word], '-e', code], { encoding: 'utf8' })
    // Node 26 says that it has no large pages any more.
    expect([status, stderr.replace(/^.*--use-largepages is no longer supported\.\n/, '')]).toEqual([0, ''])
    const { dropped, less, used } = JSON.parse(stdout) as { dropped: number; less: number; used: string }
    expect(used).toBe(createHash('sha256').update('1.234,5').digest('hex'))
    expect(dropped).toBeGreaterThan(1e6)
    expect(less).toBeGreaterThan(dropped / 4)
  })

  it.runIf(process.platform === 'linux')('sends a datagram with descriptors, as systemd wants them', () => {
    const place = path.join(directory(), 'notify')
    const receiver = 'import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\nprint(flush=True)\ndata,fds,_,_=socket.recv_fds(s,100,9)\nprint(data.decode(),len(fds))'
    const sender = `const n=require(${JSON.stringify(file)});n.sendDatagram(process.argv[1],Buffer.from('FDSTORE=1'),new Int32Array([0,1]),2)`
    const shell = 'python3 -c "$1" "$2" | { read line; "$0" -e "$3" "$2"; cat; }'
    for (const at of [place, '@handover-test-' + String(process.pid)]) {
      const address = at.startsWith('@') ? receiver.replace('sys.argv[1]', "'\\0'+sys.argv[1][1:]") : receiver
      const { stdout, stderr } = spawnSync('sh', ['-c', shell, process.execPath, address, at, sender], { encoding: 'utf8' })
      expect([stdout, stderr]).toEqual(['FDSTORE=1 2\n', ''])
    }
  })

  it.runIf(process.platform === 'linux')('waits with a datagram while the queue of the receiver is full', () => {
    const most = Number(readFileSync('/proc/sys/net/unix/max_dgram_qlen', 'utf8')) + 1
    const sender = `const n=require(${JSON.stringify(file)});for(let i=0;i<${most + 5};i++){if(i===${most})console.log('full');` +
      "const sent=n.sendDatagram(process.argv[1],Buffer.from('READY=1'),new Int32Array(0),0);if(sent!==7)console.log(i,sent)}"
    const receiver = `import socket,subprocess,sys,time
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(5)
p=subprocess.Popen(sys.argv[2:]+[sys.argv[1]],stdout=subprocess.PIPE)
print(p.stdout.readline().decode().strip())
time.sleep(0.1)
for i in range(${most + 5}): s.recv(100)
print(p.stdout.read().decode())`
    const words = ['-c', receiver, path.join(directory(), 'full'), process.execPath, '-e', sender]
    const { stdout, stderr, status } = spawnSync('python3', words, { encoding: 'utf8' })
    expect([stdout.trim(), stderr, status]).toEqual(['full', '', 0])
  })

  it.runIf(process.platform === 'linux')('lets a socket join the group of one that listens already, at the same address, and not without SO_REUSEPORT', async () => {
    for (const host of ['127.0.0.1', '::1', '::'].slice(0, existsSync('/proc/net/if_inet6') ? 3 : 1)) {
      // One that is free for every address.
      const [port] = await freePorts(1)
      const server = net.createServer().listen({ port, host, ipv6Only: host === '::' })
      await once(server, 'listening')
      const { fd } = (server as unknown as { _handle: { fd: number } })._handle
      expect(native.bindBeside(fd)).toBe(-98)
      expect(native.setReusePort(fd)).toBe(0)
      const beside = native.bindBeside(fd)
      expect(native.describe(beside)).toEqual({ ...native.describe(fd) as object, listening: false, backlog: 0 })
      expect(readFileSync(`/proc/self/fdinfo/${beside}`, 'utf8')).toMatch(/flags:\s+02\d{6}$/m) // O_CLOEXEC
      const elsewhere = native.bindBeside(fd, '127.0.0.1', 0)
      expect(native.describe(elsewhere)).toMatchObject({ address: '127.0.0.1', port: (server.address() as net.AddressInfo).port, listening: false })
      for (const address of ['localhost', 'fe80::1%lo', 'x'.repeat(100), '']) expect(native.bindBeside(fd, address, 0)).toBe(-22)
      closeFds([beside, elsewhere])
      server.close()
    }
    const [a] = pair()
    expect(native.bindBeside(a)).toBe(-91)
  })

  it('leaves a process that has ended to who waits for it, and reaps one alone', async () => {
    const child = spawn(process.execPath, ['-e', ''], { stdio: 'ignore' })
    const exit = once(child, 'exit')
    // The event loop, which would reap it, does not turn before the await.
    let ended
    while ((ended = native.endedProcess()) === 0);
    expect(ended).toBe(child.pid)
    expect(native.endedProcess()).toBe(child.pid)
    expect(await exit).toEqual([0, null])
    expect(native.reap(child.pid!)).toBe(-10)
    for (const wrong of [0, -1]) expect(native.reap(wrong)).toBe(-22)
  })

  it('starts a process with the descriptors, the directory and the variables that it is given, and tells its end', async () => {
    const [reading, writing] = native.pipe() as readonly [number, number]
    const [a] = pair()
    const script = 'echo "$0 $(pwd) $WORD"; readlink /proc/self/fd/3 /proc/self/fd/4; exit 3'
    const text = (...words: string[]): string => words.map((word) => `${word}\0`).join('')
    const env = text('WORD=ü x', `PATH=${process.env['PATH']}`)
    const fds = Int32Array.of(0, writing, 2, a, writing)
    const pid = native.spawn('/bin/sh', text('shell', '-c', script), env, '/', fds, 5)
    const watched = native.openProcess(pid)
    closeFds([writing])
    expect(native.pollReadable(watched, 10_000)).toBe(1)
    expect(native.exitStatus(pid)).toBe(3 << 8)
    expect(native.exitStatus(pid)).toBe(-10)
    expect(readFileSync(reading, 'utf8')).toMatch(/^shell \/ ü x\nsocket:\[\d+\]\npipe:\[\d+\]\n$/)
    closeFds([watched, reading])
  })

  it('gives its own descriptors to a process in another order, and none that is not asked for', () => {
    const [reading, writing] = native.pipe() as readonly [number, number]
    const pid = native.spawn('/bin/sh', 'sh\0-c\0ls /proc/$$/fd\0', `PATH=${process.env['PATH']}\0`, '/', Int32Array.of(2, writing, 0), 3)
    closeFds([writing])
    const watched = native.openProcess(pid)
    expect(native.pollReadable(watched, 10_000)).toBe(1)
    expect(native.exitStatus(pid)).toBe(0)
    expect(readFileSync(reading, 'utf8').trim().split('\n').map(Number).filter((fd) => fd < 10)).toEqual([0, 1, 2])
    closeFds([watched, reading])
  })

  it('says why a process cannot be started, and of one that lives that it does', () => {
    const standard = Int32Array.of(0, 1, 2)
    expect(native.spawn('/no/such/file', 'x\0', '', '/', standard, 3)).toBe(-2)
    expect(native.spawn('/bin/true', 'x\0', '', '/no/such/directory', standard, 3)).toBe(-2)
    expect(native.spawn('/bin', 'x\0', '', '/', standard, 3)).toBe(-13)
    expect(native.spawn('/bin/true', 'x\0', '', '/', Int32Array.of(999_999), 1)).toBe(-9)
    const pid = native.spawn('/bin/sleep', 'sleep\x00100\0', '', '/', standard, 3)
    expect(native.exitStatus(pid)).toBe(-11)
    process.kill(pid, 'SIGKILL')
    const watched = native.openProcess(pid)
    expect(native.pollReadable(watched, 10_000)).toBe(1)
    expect(native.exitStatus(pid)).toBe(9)
    closeFds([watched])
    for (const wrong of [0, -1]) expect(native.exitStatus(wrong)).toBe(-22)
  })

  it('polls for the time that is given, and sees data and the end', () => {
    const [a, b] = pair()
    expect(native.pollReadable(b, 0)).toBe(0)
    expect(native.pollReadable(b, 10)).toBe(0)
    native.sendMessage(a, new Uint8Array(1), none, 0)
    expect(native.pollReadable(b, -1)).toBe(1)
    expect(native.pollReadable(-1, -1)).toBe(-9)
  })

  it('leaves the flags of a watched descriptor as they were', () => {
    const [a] = pair()
    const flags = (): string | undefined => /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${a}`, 'utf8'))?.[1]
    const before = flags()
    const cancel = native.watchOnce(a, 'readable', () => undefined)
    expect(flags()).toBe(before)
    if (typeof cancel === 'function') cancel()
  })

  it('keeps watching when the descriptor is closed, and never calls back after a cancel', async () => {
    const before = openFds()
    const [a, b] = pair()
    const called: string[] = []
    const cancelled = native.watchOnce(b, 'readable', () => { called.push('cancelled') })
    if (typeof cancelled !== 'function') throw new Error('not watched')
    const watched = new Promise<number>((resolve) => { native.watchOnce(b, 'readable', resolve) })
    closeFds([b])
    native.sendMessage(a, new Uint8Array(1), none, 0)
    cancelled()
    cancelled()
    expect(await watched).toBe(0)
    cancelled()
    expect(called).toEqual([])
    closeFds([a])
    expect(openFds()).toBe(before)
  })
})

it('two copies of it in one process hear of the sender of a signal, however often each is told to, and so does the program', () => {
  const other = path.join(directory(), 'handover.node')
  cpSync(file, other)
  const script = `
    const [one, two] = [process.argv[1], process.argv[2]].map((file) => require(file))
    process.on('SIGHUP', () => { console.log(one.takeSenders(1)[0] === process.pid, two.takeSenders(1)[0] === process.pid); process.exit(7) })
    for (const each of [one, two, one, two, one]) if (each.watchSenders(1) !== 0) throw new Error('it is not watched')
    process.kill(process.pid, 'SIGHUP')
    setTimeout(() => undefined, 10_000)`
  const { status, signal, stdout } = spawnSync(process.execPath, ['-e', script, file, other], { encoding: 'utf8' })
  expect([status, signal, stdout]).toEqual([7, null, 'true true\n'])
})

describe('a wait does not outlive', () => {
  const load = `const native = require(${JSON.stringify(file)}); const [a, b] = native.socketPair();`

  it.each([
    ['process.exit while it waits', 'native.watchOnce(a, "readable", () => {}); setImmediate(() => process.exit(7))', 7],
    ['process.exit in its callback', 'native.watchOnce(a, "writable", () => process.exit(7))', 7],
    ['an exception in its callback', 'process.on("uncaughtException", () => { process.exitCode = 7 }); native.watchOnce(a, "writable", () => { throw new Error("x") })', 7],
    ['its cancel, which lets the process end', 'const cancel = native.watchOnce(a, "readable", () => {}); cancel(); process.exitCode = 7', 7],
    ['a cancel in its callback', 'const cancel = native.watchOnce(a, "writable", () => { cancel(); process.exitCode = 7 })', 7]
  ])('%s', (_what, script, status) => {
    const result = spawnSync(process.execPath, ['-e', load + script], { encoding: 'utf8' })
    expect([result.status, result.signal, result.stderr]).toEqual([status, null, ''])
  })

  const worker = `const { parentPort } = require('node:worker_threads'); ${load} const ready = () => parentPort.postMessage([a, b]);`

  it.each([
    ['that is terminated', 'native.watchOnce(a, "readable", () => {}); setInterval(() => {}, 1000); ready()'],
    ['that ends itself', 'native.watchOnce(a, "readable", () => {}); ready(); setImmediate(() => process.exit())'],
    ['that ends itself in the callback', 'native.watchOnce(a, "readable", () => {}); native.watchOnce(a, "writable", () => { ready(); process.exit() })'],
    ['that is terminated in an endless loop', 'native.watchOnce(a, "writable", () => { ready(); for (;;); })'],
    ['that is terminated while it receives', 'const list = new Int32Array(512); ready(); for (;;) { native.sendMessage(a, Buffer.alloc(1), new Int32Array([a, b]), 2); native.receiveMessage(b, Buffer.alloc(1), list); native.close(list.subarray(2), list[0]) }']
  ])('a worker %s', async (_what, script) => {
    const before = openFds()
    for (let round = 0; round < 5; round++) {
      const thread = new Worker(worker + script, { eval: true })
      const exit = once(thread, 'exit')
      const [both] = await once(thread, 'message') as [number[]]
      await thread.terminate()
      await exit
      closeFds(both)
    }
    // In the last case the worker may have been stopped between receiving and closing.
    if (!script.includes('receiveMessage')) expect(openFds()).toBe(before)
  })
})

describe('without a binary', () => {
  it('each function of @handover/core/fd is HANDOVER_UNAVAILABLE with the reason, and closeFds works', () => {
    const place = directory()
    cpSync(path.join(top, 'packages', 'core', 'dist'), place, { recursive: true })
    writeFileSync(path.join(place, 'main.js'), `
      const fd = require('./fd/index.js')
      const server = require('node:net').createServer()
      const calls = [() => fd.sendFds(0, [0]), () => fd.receiveFds(0), () => fd.socketPair(), () => fd.peerCredentials(0), () => fd.describeFd(0), () => fd.sendListener(0, server), () => fd.receiveListener(0)]
      const found = Promise.all(calls.map(async (call) => { try { await call() } catch (error) { return error.code + (/was bundled/.test(error.message) ? '' : error.message) } }))
      found.then((codes) => { fd.closeFds([require('node:fs').openSync(__filename)]); console.log(JSON.stringify(codes)) })`)
    const { stdout, stderr } = spawnSync(process.execPath, ['main.js'], { cwd: place, encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual(new Array(7).fill('HANDOVER_UNAVAILABLE'))
  })
})
