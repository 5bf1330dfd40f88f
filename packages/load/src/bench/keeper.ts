/**
 * The keeper: its memory beside that of a Node that does nothing, after a start and after many reloads; and how long a reload of several
 * workers takes, beside what the boots of so many processes take on the cores of this machine.
 */

import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { nowMs, sleep } from '../client/clock.js'
import { count, median, table } from '../table.js'

const rounds = 5
const manyReloads = 50
const sizes = [1, 4, 8]
const timeoutMs = 60_000
/** A quiet moment after the last worker serves. */
const quietMs = 2_000
const cli = fileURLToPath(new URL('../../../cli/bin/handover.js', import.meta.url))
const server = "require('node:http').createServer((request, response) => response.end('ok')).listen(0, '127.0.0.1')"
const run = promisify(execFile)

export async function benchKeeper(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  const keepers: ChildProcess[] = []
  try {
    writeFileSync(path.join(folder, 'server.cjs'), server)
    const env = { ...process.env, HANDOVER_DIR: path.join(folder, 'control') }
    const reload = (name: string, ...options: readonly string[]): Promise<unknown> =>
      run(process.execPath, [cli, 'reload', name, '--bake', '0', ...options], { env, timeout: timeoutMs })
    const start = async (name: string, workers: number): Promise<ChildProcess> => {
      const words = [cli, 'run', '--workers', String(workers), '--name', name, 'server.cjs']
      const keeper = spawn(process.execPath, words, { cwd: folder, env, stdio: 'ignore' })
      keepers.push(keeper)
      const until = nowMs() + timeoutMs
      while (await serving(name, env) < workers && nowMs() < until) await sleep(100)
      return keeper
    }

    const keeper = await start('memory', 1)
    await sleep(quietMs)
    const rows = [['Node that waits', megabytes(await idleNode())], ['keeper after its start', megabytes(memoryOf(keeper.pid!))]]
    for (let reloads = 0; reloads < manyReloads; reloads++) await reload('memory')
    await sleep(quietMs)
    rows.push([`keeper after ${manyReloads} reloads`, megabytes(memoryOf(keeper.pid!))])
    console.log(`${table([['resident memory', 'MB'], ...rows])}\n`)

    const cores = availableParallelism()
    console.log(`handover reload --bake 0 on ${cores} cores, s, median of ${rounds} in turns; beside the time of one worker × workers / cores:\n`)
    for (const size of sizes) await start(`workers-${size}`, size)
    const times = new Map<string, number[]>()
    for (let round = 0; round < rounds; round++) for (const size of sizes) for (const option of ['', '--parallel']) {
      const begun = nowMs()
      await reload(`workers-${size}`, ...option === '' ? [] : [option])
      const key = `${size} ${option}`
      times.set(key, [...times.get(key) ?? [], nowMs() - begun])
    }
    const of = (size: number, option = ''): number => median(times.get(`${size} ${option}`)!)
    console.log(table([['workers', 's', '--parallel', 'boots / cores', 'ratio'], ...sizes.map((size) => {
      const ideal = of(1) * Math.max(1, size / cores)
      return [count(size), seconds(of(size)), seconds(of(size, '--parallel')), seconds(ideal), (of(size) / ideal).toFixed(2)]
    })]))
  } finally {
    for (const keeper of keepers) await ended(keeper)
    rmSync(folder, { recursive: true, force: true })
  }
}

/** How many workers serve. */
async function serving(name: string, env: NodeJS.ProcessEnv): Promise<number> {
  const { stdout } = await run(process.execPath, [cli, 'status', name, '--json'], { env }).catch(() => ({ stdout: '' }))
  return stdout.match(/"state": ?"serving"/g)?.length ?? 0
}

async function idleNode(): Promise<number> {
  const node = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], { stdio: 'ignore' })
  await sleep(quietMs)
  const bytes = memoryOf(node.pid!)
  await ended(node)
  return bytes
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const end = new Promise((resolve) => { child.once('exit', resolve) })
  child.kill()
  await end
}

/** In kB. */
function memoryOf(pid: number): number {
  const text = process.platform === 'linux' ? /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]
    : execFileSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8' })
  return Number(text)
}

const megabytes = (kilobytes: number): string => (kilobytes / 1024).toFixed(1)
const seconds = (ms: number): string => (ms / 1000).toFixed(2)
