/** A drain in which nothing happens: requests that are never answered hold it up to its deadline, at which all of them are cut. */

import { once } from 'node:events'
import net from 'node:net'
import { fileURLToPath } from 'node:url'
import { nowMs, sleep } from '../client/clock.js'
import { Example } from '../example.js'
import { count, ms, table } from '../table.js'

/** What the server writes. */
export type DrainLine =
  | { readonly waiting: number }
  /** `cpuShare`: of one core, while nothing happened. */
  | { readonly cpuShare: number; readonly stallMs: number; readonly cut: number }

const sizes = [2_000, 8_000]
export const drainMs = 6_000
const timeoutMs = 60_000
const marker = 'bench drain '
const script = fileURLToPath(new URL('drain-server.js', import.meta.url))

export async function benchDrain(): Promise<void> {
  console.log(`A reload with requests that are never answered, and a drain of ${drainMs / 1000} s:\n`)
  const rows: string[][] = []
  for (const size of sizes) rows.push(await drainOf(size))
  console.log(table([['long polls', 'CPU while they wait, of a core', 'cut', 'longest stall at the cut ms'], ...rows]))
}

async function drainOf(size: number): Promise<string[]> {
  let last = { waiting: 0 } as DrainLine
  const example = await Example.start({
    script,
    version: '0',
    env: { HANDOVER_DRAIN_TIMEOUT: String(drainMs) },
    onStderr: (line) => { if (line.startsWith(marker)) last = JSON.parse(line.slice(marker.length)) as DrainLine }
  })
  const clients: net.Socket[] = []
  const until = async (done: (line: DrainLine) => boolean): Promise<void> => {
    for (const late = nowMs() + timeoutMs; !done(last);) {
      if (nowMs() > late) throw new Error(`the server said only ${JSON.stringify(last)}`, { cause: example.stderr })
      await sleep(20)
    }
  }
  try {
    for (let index = 0; index < size; index++) {
      const client = net.connect({ ...example.target, localAddress: `127.0.0.${2 + index % 8}` })
      await once(client, 'connect')
      client.on('error', () => undefined).write('GET /poll HTTP/1.1\r\nHost: a\r\n\r\n')
      clients.push(client)
    }
    await until((line) => 'waiting' in line && line.waiting === size)
    process.kill(example.firstPid, 'SIGHUP')
    await until((line) => 'cut' in line)
    const { cpuShare, stallMs, cut } = last as Extract<DrainLine, { cut: number }>
    return [count(size), `${(cpuShare * 100).toFixed(1)} %`, count(cut), ms(stallMs)]
  } finally {
    for (const client of clients) client.destroy()
    await example.end(1_000)
  }
}
