/**
 * The second part of the demo: a server with a warm cache (examples/cache), reloaded again and again under load, and beside it the same
 * program that shares nothing. Tells how many lookups of each found their item, just before each reload and in the first lookups of the new
 * process.
 *
 * Real processes and real requests, as in the first part; it leaves none of them behind.
 */

import { fileURLToPath } from 'node:url'
import { type LoadOptions, probe } from '../client/client.js'
import { Example } from '../example.js'
import { type LoadProcess, startLoadProcess } from '../client/process.js'
import { waitWhileItMoves } from '../client/progress.js'
import { count, table } from '../table.js'

/** Parts of 1: how many of the lookups were hits. */
interface HitRates {
  readonly version: string
  readonly before: number
  readonly after: number
  /** Of the program that shares nothing. */
  readonly coldAfter: number
}

export interface CacheSummary {
  readonly reloads: readonly HitRates[]
  readonly requests: number
  readonly lost: number
  readonly failures: readonly string[]
  readonly stderr: string
}

const load: LoadOptions = { keepAlive: { clients: 12, thinkMs: 5 }, newConnections: { clients: 2, thinkMs: 10 } }
/** Of 1,000 items: how many lookups make a rate. */
const sample = 300
const warm = 0.95
/** How long nothing may move on. */
const quietMs = 30_000

interface Counted {
  readonly lookups: number
  readonly hits: number
}

class CacheServer {
  readonly example: Example
  readonly clients: LoadProcess
  #pid: number

  private constructor(example: Example) {
    this.example = example
    this.#pid = example.firstPid
    this.clients = startLoadProcess(example.target, load)
  }

  static async start(env: Record<string, string>): Promise<CacheServer> {
    const script = fileURLToPath(new URL('../../../../examples/cache/server.mjs', import.meta.url))
    return new CacheServer(await Example.start({ script, version: '1.0.0', env: { HANDOVER_UNDO_WINDOW: '1000', ...env } }))
  }

  get pid(): number {
    return this.#pid
  }

  async reload(version: string): Promise<void> {
    this.#pid = (await this.example.reload(this.clients, this.#pid, version, quietMs)).pid
  }

  /** Of the next lookups, until `enough` says so of a sample; of a new process these are its first. */
  async hitRate(enough: (rate: number) => boolean = () => true, from: Counted = { lookups: 0, hits: 0 }): Promise<number> {
    let since = from
    let last = from
    return await waitWhileItMoves({
      what: `${sample} lookups in the cache of process ${this.#pid} of which enough are hits`,
      look: async () => {
        const now = last = await this.count()
        if (now.lookups - since.lookups < sample) return undefined
        const rate = (now.hits - since.hits) / (now.lookups - since.lookups)
        since = now
        return enough(rate) ? rate : undefined
      },
      moves: () => `${last.lookups} lookups, ${last.hits} hits`,
      quietMs,
      todo: 'See what the server wrote; where the machine is busy, stop what else runs on it.',
      cause: () => this.example.stderr
    })
  }

  async count(): Promise<Counted> {
    const { answer } = await probe(this.example.target, '/cache')
    if (!answer) throw new Error(`process ${this.#pid} does not say what its cache has`)
    return JSON.parse(answer.body.toString()) as Counted
  }

  async end(): Promise<void> {
    this.clients.kill()
    await this.example.end(2000)
  }
}

/** Rejects when `interrupted` does. */
export async function runCaches(reloads: number, interrupted: Promise<never>, tell: (line: string) => void): Promise<CacheSummary> {
  const unlessInterrupted = async <T>(work: Promise<T>): Promise<T> => await Promise.race([interrupted, work])
  const shared = await unlessInterrupted(CacheServer.start({}))
  let cold: CacheServer | undefined
  const rates: HitRates[] = []
  const failures: string[] = []
  try {
    const other = cold = await unlessInterrupted(CacheServer.start({ SHARE: 'off' }))
    await unlessInterrupted(shared.hitRate((rate) => rate >= warm))
    for (let index = 1; index <= reloads; index++) {
      const version = `1.0.${index}`
      const before = await unlessInterrupted(shared.count().then((from) => shared.hitRate(undefined, from)))
      await unlessInterrupted(Promise.all([shared.reload(version), other.reload(version)]))
      const [after, coldAfter] = await unlessInterrupted(Promise.all([shared.hitRate(), other.hitRate()]))
      rates.push({ version, before, after, coldAfter })
      tell(`cache, reload ${index} of ${reloads}: hit rate ${percent(before)} before, ${percent(after)} after; not shared, ${percent(coldAfter)}`)
      if (after < warm * before) failures.push(`the cache went cold in the reload to ${version}: hit rate ${percent(before)} before, ${percent(after)} after`)
    }
    const results = await unlessInterrupted(Promise.all([shared.clients.stop(), other.clients.stop()]))
    const sum = (of: 'requests' | 'lost'): number => results.reduce((total, result) => total + result[of], 0)
    return { reloads: rates, requests: sum('requests'), lost: sum('lost'), failures, stderr: shared.example.stderr }
  } finally {
    await Promise.all([shared.end(), cold?.end()])
  }
}

export function cacheReport({ reloads, requests, lost }: CacheSummary): string {
  return [
    `a cache of 1,000 items, two servers: ${count(requests)} requests, ${count(lost)} lost`, '',
    table([
      [`hit rate (of ${sample} lookups or a few more)`, 'before', 'after', 'after, not shared'],
      ...reloads.map(
        ({ version, before, after, coldAfter }) => [`reload to ${version}`, percent(before), percent(after), percent(coldAfter)]
      )
    ])
  ].join('\n')
}

const percent = (rate: number): string => `${(100 * rate).toFixed(1)} %`
