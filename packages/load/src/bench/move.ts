/**
 * What moving live connections takes: idle keep-alive connections through reloads in a row, while others are active. For each reload the
 * time until all belonged to the successor, the CPU time of both processes, the longest stall of both event loops, how long clients wait
 * that ask in this time, and whether every connection still answers. With a server whose program listens for 'connection', each is made
 * before it is acknowledged, as all were before; else when its client asks, or behind all else.
 *
 * Beside it what Node does at a close: server.closeIdleConnections() on as many connections, in one call, and all are closed.
 */

import type { Report } from '@handover/core'
import { nowMs } from '../client/clock.js'
import { type Connection, connect } from '../client/connection.js'
import { Example } from '../example.js'
import { startLoadProcess } from '../client/process.js'
import { seededRandom } from '../client/random.js'
import { requestsOf } from '../client/requests.js'
import { count, median, ms, table } from '../table.js'
import { fileURLToPath } from 'node:url'

/** What the server writes. Times are of nowMs(). */
export type ServerLine =
  | { readonly role: 'predecessor'; readonly generation: number; readonly stallMs: number; readonly cpuMs: number
    readonly switchedAt: number; readonly report: Report }
  /** `generation` is its predecessor's. */
  | { readonly role: 'successor'; readonly generation: number; readonly stallMs: number; readonly cpuMs: number }
  | { readonly role: 'closer'; readonly ms: number }

const sizes = [1_000, 10_000]
const reloads = 3
const active = { clients: 50, thinkMs: 100 }
const timeoutMs = 30_000
/** How many connects or requests of the idle clients are under way at once. */
const atOnce = 100
/** Descriptors that a server needs beside the connections: what it is handed over with, what it reserves, what Node has. */
const reserve = 1_000
const marker = 'bench move '
const script = fileURLToPath(new URL('move-server.js', import.meta.url))

export async function benchMove(): Promise<void> {
  const report = process.report.getReport() as unknown as { userLimits: { open_files: { soft: number | 'unlimited' } } }
  const { soft } = report.userLimits.open_files
  for (const size of sizes) {
    if (soft !== 'unlimited' && soft < size + reserve) {
      console.log(`${count(size)} connections: left out, since a process may open only ${count(soft)} files here and ${count(size + reserve)} are needed (ulimit -n)`)
      continue
    }
    const before = await benchReloads(size, { LISTENER: '1' })
    const after = await benchReloads(size, {})
    const ratio = (part: keyof Result): string => (after[part] / before[part]).toFixed(2)
    console.log(`\nat once / before the answer, medians: time ${ratio('moveMs')}, wait ${ratio('waitMs')}, CPU old ${ratio('oldUs')}, new ${ratio('newUs')}`)
    await benchClose(size)
  }
}

/** A server, and what it and its successors write. */
class Server implements AsyncDisposable {
  readonly example: Example
  readonly #lines: ServerLine[]
  readonly #news: { wake: () => void }

  private constructor(example: Example, lines: ServerLine[], news: { wake: () => void }) {
    this.example = example
    this.#lines = lines
    this.#news = news
  }

  static async start(env: Readonly<Record<string, string>>): Promise<Server> {
    const lines: ServerLine[] = []
    const news = { wake: (): void => undefined }
    const example = await Example.start({
      script,
      version: '0',
      env,
      onStderr: (line) => {
        if (!line.startsWith(marker)) return
        lines.push(JSON.parse(line.slice(marker.length)) as ServerLine)
        news.wake()
      }
    })
    return new Server(example, lines, news)
  }

  async line<R extends ServerLine['role']>(role: R, generation?: number): Promise<Extract<ServerLine, { role: R }>> {
    const late = nowMs() + timeoutMs
    for (;;) {
      const found = this.#lines.find((line) => line.role === role && (line.role === 'closer' || line.generation === generation))
      if (found) return found as Extract<ServerLine, { role: R }>
      if (nowMs() > late) throw new Error(`the server said nothing as the ${role} within ${timeoutMs} ms`, { cause: this.example.stderr })
      await new Promise<void>((resolve) => {
        this.#news.wake = resolve
        setTimeout(resolve, 100)
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.example.end(5_000)
  }
}

/** Connections of which each has had one answer, and is idle since. */
class IdleClients {
  readonly #connections: Connection[] = []
  readonly #request = requestsOf(
    'keep-alive', { path: '/', ms: 0, chunks: 0, bytes: 0, pauseMs: 0 }, { host: '127.0.0.1', port: 0 }, 'idle', seededRandom(1)
  )
  closed = 0

  async open(port: number, size: number): Promise<void> {
    await inParallel(size, async (index) => {
      // One source address has some 28,000 ports, of which some still wait for their time to be over.
      const place = { host: '127.0.0.1', port, localAddress: `127.0.0.${2 + index % 8}` }
      const connection = await connect(place, timeoutMs, {
        closedIdle: () => { this.closed++ }, unexpected: ({ error }) => { throw new Error(error) }
      })
      if ('reason' in connection) throw new Error(`a client cannot connect: ${connection.error}`)
      this.#connections.push(connection)
    })
    if (await this.ask() !== size) throw new Error('a connection got no answer before the first reload')
  }

  /** One request on each connection that is open: how many were answered, and by this process where one is named. */
  async ask(pid?: number): Promise<number> {
    let answered = 0
    await inParallel(this.#connections.length, async (index) => {
      const connection = this.#connections[index]!
      if (!connection.open) return
      const { answer } = await connection.request(this.#request(), timeoutMs)
      if (answer && (pid === undefined || answer.headers.get('x-pid') === String(pid))) answered++
    })
    return answered
  }

  /** One asks after the other, each once, until the result is called: when, and how long it waited. */
  askInTurn(): () => Promise<readonly { at: number; ms: number }[]> {
    const waits: { at: number; ms: number }[] = []
    const ending = { over: false }
    const asking = (async () => {
      for (const connection of this.#connections) {
        await new Promise((resolve) => setTimeout(resolve, 2))
        if (ending.over) break
        const at = nowMs()
        if (connection.open) await connection.request(this.#request(), timeoutMs)
        waits.push({ at, ms: nowMs() - at })
      }
    })()
    return async () => {
      ending.over = true
      await asking
      return waits
    }
  }

  close(): void {
    for (const connection of this.#connections) connection.close()
  }
}

async function inParallel(size: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (next < size) await work(next++)
  }))
}

/** Medians of the reloads; `Us`: CPU of one process for each connection. */
interface Result {
  readonly moveMs: number
  readonly waitMs: number
  readonly oldUs: number
  readonly newUs: number
}

async function benchReloads(size: number, env: Readonly<Record<string, string>>): Promise<Result> {
  await using server = await Server.start({ HANDOVER_UNDO_WINDOW: '1000', ...env })
  const { example } = server
  const idle = new IdleClients()
  const load = startLoadProcess(example.target, { keepAlive: active })
  try {
    await idle.open(example.target.port, size)
    let { pid } = (await load.until(({ answers }) => answers > active.clients)).versions[0]!
    const rows: string[][] = []
    const results: Result[] = []
    for (let reload = 1; reload <= reloads; reload++) {
      await load.mark(`reload ${reload}`)
      const stopAsking = idle.askInTurn()
      const done = await example.reload(load, pid, String(reload))
      pid = done.pid
      const predecessor = await server.line('predecessor', reload)
      const successor = await server.line('successor', reload)
      await load.mark()
      const asked = await stopAsking()
      const answered = await idle.ask(pid)
      const { report: { connections, durations }, switchedAt } = predecessor
      const moveMs = durations.move ?? NaN
      const waits = asked.filter(({ at }) => at >= switchedAt && at < switchedAt + moveMs).map((wait) => wait.ms)
      const each = ({ cpuMs }: { cpuMs: number }): number => 1000 * cpuMs / connections.moved
      results.push({ moveMs, waitMs: median(waits), oldUs: each(predecessor), newUs: each(successor) })
      rows.push([
        String(reload), count(connections.moved), ms(moveMs), each(predecessor).toFixed(0), each(successor).toFixed(0),
        ms(predecessor.stallMs), ms(successor.stallMs), ms(median(waits)), ms(Math.max(...waits)), count(answered), count(idle.closed)
      ])
    }
    const result = await load.stop()
    const way = 'LISTENER' in env ? 'each made before it is acknowledged' : 'acknowledged at once'
    console.log(`\n${count(size)} idle connections and ${active.clients} active ones, ${reloads} reloads in a row, ${way}\n`)
    console.log(table([[
      'reload', 'moved', 'ms', 'CPU µs each, old', 'new', 'stall ms, old', 'new', 'wait ms', 'worst', 'then answered', 'closed'
    ], ...rows]))
    const slowest = Array.from({ length: reloads }, (_, index) => ms(result.latency[`reload ${index + 1}`]?.max ?? NaN))
    console.log(`\nactive: ${count(result.requests)} requests, ${count(result.lost)} lost, ${count(result.opened)} connections opened by ${active.clients} clients; slowest answer in each reload: ${slowest.join(', ')} ms`)
    const middle = (part: keyof Result): number => median(results.map((one) => one[part]))
    return { moveMs: middle('moveMs'), waitMs: middle('waitMs'), oldUs: middle('oldUs'), newUs: middle('newUs') }
  } finally {
    idle.close()
    load.kill()
  }
}

/** The same server without Handover, which closes as Node's server.close() would. */
async function benchClose(size: number): Promise<void> {
  await using server = await Server.start({ HANDOVER: 'off' })
  const { example } = server
  const idle = new IdleClients()
  try {
    await idle.open(example.target.port, size)
    process.kill(example.firstPid, 'SIGUSR2')
    const closed = await server.line('closer')
    console.log(`\nserver.closeIdleConnections() on ${count(size)}, in plain Node: one stall of ${ms(closed.ms)} ms; then ${count(await idle.ask())} answer, ${count(idle.closed)} are closed`)
  } finally {
    idle.close()
  }
}
