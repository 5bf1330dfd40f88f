/**
 * Clients that count what a server of test/programs/metrics.mjs must have counted, and scrapers that see to it that nothing of it ever
 * runs backwards.
 */

import { once } from 'node:events'
import http from 'node:http'

export type Values = ReadonlyMap<string, number>

async function get(port: number, path: string, agent: http.Agent | false): Promise<string> {
  const [response] = await once(http.get({ host: '127.0.0.1', port, path, agent }), 'response') as [http.IncomingMessage]
  const body = Buffer.concat(await response.toArray()).toString()
  if (response.statusCode !== 200) throw new Error(`${path}: ${response.statusCode} ${body}`)
  return body
}

/** Of counters, histograms, and sums and counts of summaries: what may only grow. */
function growing(text: string): Values {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!]))
  const values = [...text.matchAll(/^([^#\s{]+)(\{.*\})? (\S+)$/gm)].map(([, name, labels = '', value]) => ({ name: name!, labels, value: Number(value) }))
  const grows = ({ name, labels }: { name: string; labels: string }): boolean => !labels.includes('quantile=') && ['counter', 'histogram', 'summary'].includes(types.get(name) ?? types.get(name.replace(/_(bucket|sum|count)$/, '')) ?? '')
  return new Map(values.filter(grows).map(({ name, labels, value }) => [name + labels, value]))
}

export class Traffic {
  /** Answers, by path. */
  readonly answered: Record<string, number> = {}
  /** What was wrong, in words. */
  readonly wrong: string[] = []
  scrapes = 0
  /** Over all scrapers: what was seen before one of them asks. */
  readonly #seen = new Map<string, number>()
  readonly #port: number
  readonly #loops: Promise<void>[]
  #over = false

  constructor(port: number) {
    this.#port = port
    const kept = new http.Agent({ keepAlive: true })
    const client = (path: string, agent: http.Agent | false): Promise<void> => this.#loop(async () => {
      await get(port, path, agent)
      this.answered[path] = (this.answered[path] ?? 0) + 1
    }, 2)
    this.#loops = [
      ...Array.from({ length: 6 }, () => client('/', kept)), ...Array.from({ length: 3 }, () => client('/slow', kept)), client('/', false), client('/slow', false),
      this.#loop(() => this.#scrape(false), 50), this.#loop(() => this.#scrape(kept), 50)
    ]
  }

  async #loop(ask: () => Promise<void>, pauseMs: number): Promise<void> {
    while (!this.#over) {
      await ask().catch((error: unknown) => { this.wrong.push(String(error)) })
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
  }

  async #scrape(agent: http.Agent | false): Promise<void> {
    const before = new Map(this.#seen)
    const values = growing(await get(this.#port, '/metrics', agent))
    for (const [series, value] of before) {
      const now = values.get(series)
      if (now === undefined || now < value) this.wrong.push(`${series} was ${value} and is ${now}`)
    }
    for (const [series, value] of values) this.#seen.set(series, Math.max(value, this.#seen.get(series) ?? 0))
    this.scrapes += 1
  }

  /** Of `wrong`: what ran backwards, and not a request whose process was killed. */
  get wentDown(): string[] {
    return this.wrong.filter((line) => line.includes(' was '))
  }

  /** Ends it, when every answer is there. */
  async stop(): Promise<void> {
    this.#over = true
    await Promise.all(this.#loops)
  }

  /** What the service says it has counted. */
  async counted(): Promise<Values> {
    return growing(await get(this.#port, '/metrics', false))
  }

  async ask(path: string): Promise<string> {
    const text = await get(this.#port, path, false)
    if (path !== '/metrics') this.answered[path] = (this.answered[path] ?? 0) + 1
    return text
  }

  /** The lines of these metrics as they must be, by what was answered. */
  get expected(): Record<string, number> {
    const all = Object.values(this.answered).reduce((a, b) => a + b, 0)
    const slow = this.answered['/slow'] ?? 0
    return {
      ...Object.fromEntries(Object.entries(this.answered).map(([path, count]) => [`requests_total{path="${path}"}`, count])),
      'seconds_bucket{le="0.05"}': all - slow, 'seconds_bucket{le="0.5"}': all, 'seconds_bucket{le="5"}': all, 'seconds_bucket{le="+Inf"}': all,
      seconds_count: all, sizes_count: all, sizes_sum: 2.5 * all
    }
  }
}
