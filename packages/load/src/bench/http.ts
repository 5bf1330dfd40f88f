/**
 * What Handover costs when nothing is reloaded: throughput and latency of Fastify and Express with it and without.
 *
 * Both run the same program at the same time, one with HANDOVER=off; rounds alternate between the two (off on, on off, …),
 * so that a machine that becomes slower meets both. Each round is a closed loop of keep-alive clients in another process.
 * A difference whose sign is not the same in all pairs of neighbouring rounds is called noise.
 */

import { nowMs, sleep } from '../client/clock.js'
import { startLoadProcess } from '../client/process.js'
import type { Target } from '../client/target.js'
import { Example, scriptOf, type App } from '../example.js'
import { count, median, ms, table } from '../table.js'

/** One measure of a server. */
export interface Round {
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
}

interface Side {
  readonly name: string
  readonly example: Example
  readonly rounds: Round[]
}

const pairsOfRounds = 6
const warmUpMs = 1000
const measuredMs = 3000
const clients = 32

export async function benchHttp(): Promise<void> {
  for (const app of ['fastify', 'express'] as const) await compare(app)
}

async function compare(app: App): Promise<void> {
  const sides: Side[] = []
  try {
    for (const handover of ['off', 'on']) {
      const example = await Example.start({ script: scriptOf(app), version: '1.0.0', env: { HANDOVER: handover, NODE_ENV: 'production' } })
      sides.push({ name: handover === 'off' ? 'without' : 'with Handover', example, rounds: [] })
    }
    for (const { example } of sides) await measure(example.target) // for the optimizing compiler; not counted
    for (let pair = 0; pair < pairsOfRounds; pair++) {
      for (const { example, rounds } of pair % 2 === 0 ? sides : sides.toReversed()) rounds.push(await measure(example.target))
    }
  } finally {
    for (const { example } of sides) await example.end(5000)
  }
  console.log(`\n${app}: ${clients} keep-alive clients, ${pairsOfRounds} rounds of ${measuredMs / 1000} s on each side, alternating\n`)
  const [off, on] = sides as [Side, Side]
  console.log(table([
    ['', 'requests/s', 'lowest', 'highest', 'p50 ms', 'p99 ms'],
    ...sides.map(({ name, rounds }) => {
      const rates = rounds.map(({ perSecond }) => perSecond)
      return [
        name, count(median(rates)), count(Math.min(...rates)), count(Math.max(...rates)), ms(of(rounds, 'p50')), ms(of(rounds, 'p99'))
      ]
    }),
    ['difference', change(off, on, 'perSecond'), '', '', change(off, on, 'p50'), change(off, on, 'p99')]
  ]))
  const pairs = off.rounds.map(({ perSecond }, pair) => on.rounds[pair]!.perSecond / perSecond - 1)
  const sameSign = pairs.every((share) => share > 0) || pairs.every((share) => share < 0)
  console.log(`\nrequests/s, pair by pair: ${pairs.map(percent).join(', ')}`)
  console.log(sameSign ? 'the same sign in all pairs: a difference' : 'not the same sign in all pairs: noise')
}

/** A closed loop of keep-alive clients in another process. Rejects when a request is lost. */
export async function measure(target: Target): Promise<Round> {
  const load = startLoadProcess(target, { keepAlive: { clients } })
  try {
    await load.until(({ answers }) => answers > 0)
    await sleep(warmUpMs)
    await load.mark('measured')
    const from = nowMs()
    await sleep(measuredMs)
    await load.mark()
    const seconds = (nowMs() - from) / 1000
    const { lost, losses, latency } = await load.stop()
    if (lost > 0) throw new Error(`${lost} requests were lost, the first: ${JSON.stringify(losses[0])}`)
    const measured = latency['measured']!
    return { perSecond: measured.count / seconds, p50: measured.p50, p99: measured.p99 }
  } finally {
    load.kill()
  }
}

function of(rounds: readonly Round[], what: keyof Round): number {
  return median(rounds.map((round) => round[what]))
}

function change(from: Side, to: Side, what: keyof Round): string {
  return percent(of(to.rounds, what) / of(from.rounds, what) - 1)
}

function percent(share: number): string {
  return `${share > 0 ? '+' : ''}${(share * 100).toFixed(1)} %`
}
