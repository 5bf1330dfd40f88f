/**
 * What a program pays before it serves, and what a reload costs the process that still serves: the CPU time, the files and the memory of
 * requiring the core; the CPU time of the command; and the longest stall of a server's event loop while it starts its successor, beside
 * that of child_process.spawn in the same process, as it holds more memory. Then the time to the first answer: first-answer.ts.
 *
 * CPU time is compared, in turns, since other work disturbs it less than the clock.
 */

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { count, median, table } from '../table.js'
import { untilCompiled } from './compiled-form.js'
import { benchFirstAnswer } from './first-answer.js'

const rounds = 12
const sizes = [0, 300, 1_000]
const reloads = 5
const ballast = fileURLToPath(new URL('ballast-server.js', import.meta.url))
const cli = fileURLToPath(new URL('../../../cli/bin/handover.js', import.meta.url))

interface BootCost {
  readonly cpuMs: number
  readonly files: number
  readonly megabytes: number
}

const entryOf = (name: string): string => JSON.stringify(createRequire(import.meta.url).resolve(name))
const core = `require(${entryOf('@handover/core')})`

/**
 * What Node does at its start, and this program: only `http`, and how it loads the entry. First starts have no compiled form to load. Two
 * other packages stand beside it.
 */
const programs: Readonly<Record<string, { load: string; isFirst?: true }>> = {
  'http': { load: '' },
  'http and @handover/core, first start': { load: core, isFirst: true },
  'later starts': { load: core },
  'http and ws': { load: `require(${entryOf('ws')})` },
  'http and express': { load: `require(${entryOf('express')})` },
  'http, express and @handover/core, later starts': { load: `require(${entryOf('express')}); ${core}` },
  'http and 9,000 small objects': { load: 'Array.from({ length: 9_000 }, (_, at) => ({ at, list: [at] }))' },
  'import() of an empty module': { load: `await import('data:text/javascript,')` },
  'import(), later starts': { load: `await import(${entryOf('@handover/core').replace('index.js', 'index.mjs')})` },
  'http and @handover/core/fd, later starts': { load: `require(${entryOf('@handover/core/fd')})` }
}

const programFile = (folder: string): string => path.join(folder, 'program.cjs')
const worldOf = (folder: string): NodeJS.ProcessEnv => ({ ...process.env, HANDOVER_DIR: folder, NODE_OPTIONS: '' })

/** Until a server has kept what V8 has compiled of the core. */
async function warm(folder: string): Promise<void> {
  const file = path.join(folder, 'server.cjs')
  writeFileSync(file, `${core}.handover(require('http').createServer()).listen(0, '127.0.0.1')`)
  const server = spawn(process.execPath, [file], { env: worldOf(folder), stdio: 'ignore' })
  await untilCompiled(folder)
  server.kill()
  await once(server, 'exit')
}

function boot(folder: string, { load, isFirst }: { load: string; isFirst?: true }): BootCost {
  const file = programFile(folder)
  writeFileSync(file, `(async () => {
    require('http')
    ${load}
    const { user, system } = process.cpuUsage()
    const [files, megabytes] = [Object.keys(require.cache).length - 1, process.memoryUsage().rss / 1e6]
    console.log(JSON.stringify({ cpuMs: (user + system) / 1000, files, megabytes }))
    process.exit()
  })()`)
  const env = { ...worldOf(folder), ...(isFirst && { NODE_DISABLE_COMPILE_CACHE: '1' }) }
  return JSON.parse(execFileSync(process.execPath, [file], { env, encoding: 'utf8' })) as BootCost
}

/** User and system time of a command, in ms, by the shell's own count. */
function cpuOf(folder: string, args: readonly string[]): number {
  const words = ['-c', '"$@" >/dev/null 2>&1 </dev/null; times', 'bench', process.execPath, ...args]
  const times = execFileSync('sh', words, { env: worldOf(folder), encoding: 'utf8' }).trim().split('\n')[1]!
  return [...times.matchAll(/(\d+)m([\d.]+)s/g)].reduce((sum, [, minutes, seconds]) =>
    sum + Number(minutes) * 60_000 + Number(seconds) * 1000, 0)
}

const commands: Readonly<Record<string, readonly string[]>> = {
  'node -e 0': ['-e', '0'],
  'handover --version': [cli, '--version'],
  'handover reload, where no app runs': [cli, 'reload', '--name', 'bench-none']
}

export async function benchBoot(): Promise<void> {
  const booted = new Map<string, BootCost[]>()
  const asked = new Map<string, number[]>()
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  try {
    await warm(folder)
    for (let round = 0; round < rounds; round++) {
      for (const [name, program] of Object.entries(programs)) booted.set(name, [...booted.get(name) ?? [], boot(folder, program)])
      for (const [name, args] of Object.entries(commands)) asked.set(name, [...asked.get(name) ?? [], cpuOf(folder, args)])
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const of = (costs: readonly BootCost[], part: keyof BootCost): number => median(costs.map((cost) => cost[part]))
  const [plain] = booted.values()
  console.log(`What requiring costs, median of ${rounds} in turns; CPU ms and MB beyond a program that requires http:\n`)
  console.log(table([['', 'files', 'CPU ms', 'more', 'MB', 'more'], ...[...booted].map(([name, costs]) => [
    name, count(of(costs, 'files')), of(costs, 'cpuMs').toFixed(1), (of(costs, 'cpuMs') - of(plain!, 'cpuMs')).toFixed(1),
    of(costs, 'megabytes').toFixed(1), (of(costs, 'megabytes') - of(plain!, 'megabytes')).toFixed(1)
  ])]))
  const [node] = asked.values()
  console.log('\nThe command, CPU ms:\n')
  console.log(table([[
    '', 'CPU ms', 'more'
  ], ...[...asked].map(([name, times]) => [name, median(times).toFixed(1), (median(times) - median(node!)).toFixed(1)])]))
  console.log(`\nLongest stall of the old loop until its successor is ready, ms, middle and most of ${reloads} reloads; beside one child_process.spawn there:\n`)
  const rows: string[][] = []
  for (const megabytes of sizes) rows.push(await stalls(megabytes))
  console.log(table([['MB held', 'reload', 'most', 'spawn of Node', 'most'], ...rows]))
  await benchFirstAnswer()
}

async function stalls(megabytes: number): Promise<string[]> {
  const server = spawn(process.execPath, [ballast], {
    env: { ...process.env, BALLAST: String(megabytes) }, stdio: ['ignore', 'pipe', 'ignore']
  })
  const found: { reload: number; node: number }[] = []
  for await (const line of createInterface({ input: server.stdout })) {
    const said = JSON.parse(line) as { serving: number } | { reload: number; node: number }
    if ('reload' in said) found.push(said)
    else if (found.length < reloads) process.kill(said.serving, 'SIGUSR2')
    else {
      process.kill(said.serving)
      break
    }
  }
  const of = (part: 'reload' | 'node'): string[] => {
    const values = found.map((one) => one[part])
    return [median(values).toFixed(1), Math.max(...values).toFixed(1)]
  }
  return [String(megabytes), ...of('reload'), ...of('node')]
}
