/**
 * What a reload does, in counts that a busy machine does not change: the files and modules that a program loads, the messages and system
 * calls of both processes, how the successor is started, and the system calls of a connection that moves. strace(1) counts.
 *
 * `test/budget.json` has the most that each may be. A connection costs the difference between a reload with many and
 * a reload with none, divided by their number.
 */

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { table } from '../table.js'

const server = fileURLToPath(new URL('counts-server.js', import.meta.url))
const connections = 200
const request = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'

export type Counts = Readonly<Record<string, number>>

/** What is loaded, beyond a program that requires http. */
function loaded(entry: string): { files: number; modules: number } {
  const program = `
    require('http'); const before = new Set(process.moduleLoadList); require(${JSON.stringify(entry)})
    const modules = process.moduleLoadList.filter((name) => !before.has(name)).length
    console.log(JSON.stringify({ files: Object.keys(require.cache).length, modules })); process.exit()`
  const output = execFileSync(process.execPath, ['-e', program], { cwd: import.meta.dirname, encoding: 'utf8' })
  return JSON.parse(output) as ReturnType<typeof loaded>
}

/** The system calls of one thread, as strace wrote them: `name(arguments) = result`. */
class Calls {
  readonly #lines: readonly string[]

  constructor(file: string) {
    this.#lines = readFileSync(file, 'utf8').split('\n')
  }

  count(...names: readonly string[]): number {
    return this.#lines.filter((line) => names.includes(line.slice(0, line.indexOf('(')))).length
  }

  get all(): number {
    return this.#lines.filter((line) => /^\w+\(/.test(line)).length
  }

  /** Sent on a Unix socket, each a message or some messages at once. */
  get messages(): number {
    return this.#lines.filter((line) => /^(sendmsg|writev?|sendto)\(\d+<UNIX/.test(line)).length
  }

  /** Processes that it started: all, and those that copied its page tables. */
  get processes(): { started: number; forked: number } {
    const started = this.#lines.filter((line) => /^(v?fork|clone3?)\(/.test(line) && !line.includes('CLONE_THREAD'))
    return { started: started.length, forked: started.filter((line) => !/^vfork|CLONE_VM/.test(line)).length }
  }
}

async function ask(socket: net.Socket): Promise<void> {
  socket.write(request)
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  if (!chunk.toString().startsWith('HTTP/1.1 200')) throw new Error(`a connection answered ${JSON.stringify(chunk.toString())}`)
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** A reload with so many idle connections. The calls of both processes, from their start to their end. */
async function reload(size: number): Promise<{ predecessor: Calls; successor: Calls }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-counts-'))
  const pids: number[] = []
  const args = ['-ff', '-qq', '-yy', '-s', '0', '-o', path.join(folder, 'calls'), process.execPath, server]
  const traced = spawn('strace', args, { stdio: ['ignore', 'pipe', 'ignore'] })
  const ended = once(traced, 'close')
  const sockets: net.Socket[] = []
  try {
    for await (const line of createInterface({ input: traced.stdout })) {
      const { pid, port } = JSON.parse(line) as { pid: number; port: number }
      pids.push(pid)
      if (pids.length === 1) {
        for (let count = 0; count < size; count++) sockets.push(net.connect(port, '127.0.0.1'))
        await Promise.all(sockets.map((socket) => once(socket, 'connect')))
        await Promise.all(sockets.map(ask))
        process.kill(pid, 'SIGHUP')
        continue
      }
      // The predecessor ends when all have moved. What is asked before would be answered there, or here.
      while (isAlive(pids[0]!)) await sleep(20)
      await Promise.all(sockets.map(ask))
      for (const socket of sockets) socket.destroy()
      process.kill(pid, 'SIGTERM')
    }
    await ended
    const [predecessor, successor] = pids.map((pid) => new Calls(path.join(folder, `calls.${pid}`)))
    if (!predecessor || !successor) throw new Error('there was no reload')
    return { predecessor, successor }
  } finally {
    for (const socket of sockets) socket.destroy()
    for (const pid of pids) try { process.kill(pid, 'SIGKILL') } catch { /* It has ended. */ }
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Undefined where strace is not installed, or may not trace. */
export async function countCosts(): Promise<Counts | undefined> {
  if (spawnSync('strace', ['-qq', '-o', '/dev/null', 'true']).status !== 0) return undefined
  const core = loaded('@handover/core')
  const none = await reload(0)
  const many = await reload(connections)
  const each = (of: (run: typeof none) => number): number => Math.round((of(many) - of(none)) * 10 / connections) / 10
  const { started, forked } = none.predecessor.processes
  return {
    'files that require("@handover/core") loads': core.files,
    'modules of Node that it loads': core.modules,
    'processes that a reload starts': started,
    'of them with a copy of the page tables (fork)': forked,
    'messages of a reload, predecessor': none.predecessor.messages,
    'messages of a reload, successor': none.successor.messages,
    'files that the successor opens': none.successor.count('open', 'openat'),
    'system calls of a connection that moves, predecessor': each(({ predecessor }) => predecessor.all),
    'system calls of a connection that moves, successor': each(({ successor }) => successor.all),
    'messages for 200 connections that move, predecessor': many.predecessor.messages - none.predecessor.messages,
    'messages for 200 connections that move, successor': many.successor.messages - none.successor.messages
  }
}

export async function benchCounts(): Promise<void> {
  const counts = await countCosts()
  if (!counts) console.log('left out: strace is not installed, or may not trace here')
  else console.log(table(Object.entries(counts).map(([name, value]) => [name, String(value)])))
}
