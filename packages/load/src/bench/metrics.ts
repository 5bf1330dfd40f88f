/**
 * What a scrape costs: prom-client in one process, the same that goes on over reloads, and the sum over several workers, beside that of
 * prom-client over the workers of a cluster.
 *
 * All of one size run at the same time and are scraped in turns.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { nowMs, sleep } from '../client/clock.js'
import { Example } from '../example.js'
import { count, median, ms, table } from '../table.js'

const sizes = [1_000, 5_000]
const workers = 4
const rounds = 20
const server = fileURLToPath(new URL('metrics-server.js', import.meta.url))
const cli = fileURLToPath(new URL('../../../cli/dist/bundle/main.js', import.meta.url))

interface Contender {
  readonly name: string
  readonly example: Example
  readonly times: number[]
  lines: number
}

export async function benchMetrics(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  const interrupted = (): void => process.exit(130) // so that what ends with this process does
  process.once('SIGINT', interrupted)
  try {
    for (const size of sizes) await compare(folder, size)
  } finally {
    process.off('SIGINT', interrupted)
    rmSync(folder, { recursive: true, force: true })
  }
}

async function compare(folder: string, size: number): Promise<void> {
  const contenders: Contender[] = []
  const start = async (name: string, contender: string, script = server, args: readonly string[] = []): Promise<void> => {
    const env = { CONTENDER: contender, SERIES: String(size), WORKERS: String(workers), HANDOVER_DIR: path.join(folder, String(size)) }
    contenders.push({ name, example: await Example.start({ script, args, version: '1', env }), times: [], lines: 0 })
  }
  try {
    await start('prom-client', 'alone')
    await start('inherit()', 'handover')
    await start(`cluster, ${workers} workers`, 'cluster')
    await start(`inherit(), ${workers} workers`, 'handover', cli, ['run', '--workers', String(workers), server])
    await sleep(1_000)
    // For the optimizing compiler; not counted.
    for (let round = 0; round < 5; round++) for (const { example } of contenders) await scrape(example)
    for (let round = 0; round < rounds; round++) {
      for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
        const begun = nowMs()
        contender.lines = (await scrape(contender.example)).split('\n').filter((line) => line !== '' && !line.startsWith('#')).length
        contender.times.push(nowMs() - begun)
      }
    }
    console.log(`\n${rounds} scrapes each, in turns\n`)
    console.log(table([['', 'lines', 'ms', 'lowest', 'highest'], ...contenders.map(
      ({ name, times, lines }) => [name, count(lines), ms(median(times)), ms(Math.min(...times)), ms(Math.max(...times))]
    )]))
  } finally {
    for (const { example } of contenders) await example.end(5_000)
  }
}

async function scrape({ target: { host, port } }: Example): Promise<string> {
  const answer = await fetch(`http://${host}:${port}/metrics`)
  const text = await answer.text()
  if (!answer.ok) throw new Error(`the scrape failed: ${text}`)
  return text
}
