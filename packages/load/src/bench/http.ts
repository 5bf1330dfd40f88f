/**
 * What Handover costs when nothing is reloaded: CPU of a request, throughput and latency of a plain server, Fastify and Express with it and
 * without, and of a plain server under `handover run`.
 *
 * All sides run at the same time, and rounds go through them in turns (forwards, backwards, …), so that a machine that becomes slower meets
 * all. The first side runs twice: how far it differs from itself is the null test. Each round is a closed loop of keep-alive clients in
 * another process.
 */

import { fileURLToPath } from 'node:url'
import { nowMs, sleep } from '../client/clock.js'
import { startLoadProcess } from '../client/process.js'
import type { Target } from '../client/target.js'
import { Example, scriptOf } from '../example.js'
import { count, median, ms, table } from '../table.js'

/** One measure of a server. */
interface Round {
  readonly perSecond: number
  readonly cpuUs: number
  readonly p50: number
  readonly p99: number
}

interface Start {
  readonly script: string
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

interface Side {
  readonly name: string
  readonly example: Example
  /** Called with each line that it writes to stderr. */
  readonly hear: { line: (line: string) => void }
  readonly rounds: Round[]
}

const pairsOfRounds = 14
const warmUpMs = 300
const measuredMs = 1000
const clients = 32
const server = fileURLToPath(new URL('http-server.js', import.meta.url))
const cli = fileURLToPath(new URL('../../../cli/bin/handover.js', import.meta.url))
const reporter = new URL('cpu-reporter.js', import.meta.url).href

/** How each is started without Handover, and with it. */
const programs: Readonly<Record<string, readonly [without: Start, withIt: Start]>> = {
  'http': [{ script: server }, { script: server, env: { ADAPTER: '1' } }],
  'http under handover run': [{ script: server }, { script: cli, args: ['run', '--workers', '1', '--name', 'bench-http', server] }],
  'fastify': [{ script: scriptOf('fastify'), env: { HANDOVER: 'off' } }, { script: scriptOf('fastify') }],
  'express': [{ script: scriptOf('express'), env: { HANDOVER: 'off' } }, { script: scriptOf('express') }]
}

export async function benchHttp(): Promise<void> {
  for (const [name, [without, withIt]] of Object.entries(programs)) {
    await compare(name, { without, 'without, again': without, 'with': withIt })
  }
}

async function start(name: string, { script, args = [], env = {} }: Start): Promise<Side> {
  const hear = { line: (_line: string): void => undefined }
  const NODE_OPTIONS = `${process.env['NODE_OPTIONS'] ?? ''} --import=${reporter}`
  const example = await Example.start({
    script, args, version: '1.0.0', env: { NODE_ENV: 'production', ...env, NODE_OPTIONS }, onStderr: (line) => { hear.line(line) }
  })
  return { name, example, hear, rounds: [] }
}

async function compare(name: string, starts: Readonly<Record<string, Start>>): Promise<void> {
  const sides: Side[] = []
  try {
    for (const [side, how] of Object.entries(starts)) sides.push(await start(side, how))
    for (const side of sides) await measureSide(side) // for the optimizing compiler; not counted
    for (let pair = 0; pair < pairsOfRounds; pair++) {
      for (const side of pair % 2 === 0 ? sides : sides.toReversed()) side.rounds.push(await measureSide(side))
    }
  } finally {
    for (const { example } of sides) await example.end(5000)
  }
  const [first] = sides as [Side]
  console.log(`\n${name}: ${clients} keep-alive clients, ${pairsOfRounds} rounds of ${measuredMs / 1000} s on each side, in turns\n`)
  console.log(table([
    ['', 'CPU µs/request', 'lowest', 'against the first', 'requests/s', 'against the first', 'p50 ms', 'p99 ms'],
    ...sides.map((side) => {
      const { rounds } = side
      return [
        side.name, of(rounds, 'cpuUs').toFixed(1), Math.min(...rounds.map(({ cpuUs }) => cpuUs)).toFixed(1), pairwise(first, side, 'cpuUs'),
        count(of(rounds, 'perSecond')), pairwise(first, side, 'perSecond'), ms(of(rounds, 'p50')), ms(of(rounds, 'p99'))
      ]
    })
  ]))
}

/** A closed loop of keep-alive clients in another process. `cpu` asks the process for its CPU time. Rejects when a request is lost. */
export async function measure(target: Target, cpu = async (_pid: number): Promise<number> => await Promise.resolve(NaN)): Promise<Round> {
  const load = startLoadProcess(target, { keepAlive: { clients } })
  try {
    const { pid } = (await load.until(({ answers }) => answers > 0)).versions[0]!
    await sleep(warmUpMs)
    await load.mark('measured')
    const [from, cpuFrom] = [nowMs(), await cpu(pid)]
    await sleep(measuredMs)
    const cpuUs = await cpu(pid) - cpuFrom
    await load.mark()
    const seconds = (nowMs() - from) / 1000
    const { lost, losses, latency } = await load.stop()
    if (lost > 0) throw new Error(`${lost} requests were lost, the first: ${JSON.stringify(losses[0])}`)
    const { count: answers, p50, p99 } = latency['measured']!
    return { perSecond: answers / seconds, cpuUs: cpuUs / answers, p50, p99 }
  } finally {
    load.kill()
  }
}

const measureSide = ({ example, hear }: Side): Promise<Round> => measure(example.target, (pid) => cpuOf(pid, hear))

function cpuOf(pid: number, hear: Side['hear']): Promise<number> {
  return new Promise((resolve) => {
    hear.line = (line) => {
      const said = /\bcpu (\d+)$/.exec(line)
      if (said) resolve(Number(said[1]))
    }
    process.kill(pid, 'SIGUSR2')
  })
}

function of(rounds: readonly Round[], what: keyof Round): number {
  return median(rounds.map((round) => round[what]))
}

/** The middle of the differences in each pair of neighbouring rounds. */
function pairwise(first: Side, side: Side, what: keyof Round): string {
  if (side === first) return ''
  return percent(median(side.rounds.map((round, pair) => round[what] / first.rounds[pair]![what] - 1)))
}

function percent(share: number): string {
  return `${share > 0 ? '+' : ''}${(share * 100).toFixed(1)} %`
}
