/**
 * What moving live connections takes: idle keep-alive connections through reloads in a row, while others are active. For each reload the
 * time until all were served by the successor, the longest stall of both event loops, and whether every connection still answers.
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
import { count, ms, table } from '../table.js'
import { fileURLToPath } from 'node:url'

/** What the server writes. Times are of nowMs(). */
export type ServerLine =
  | { readonly role: 'predecessor'; readonly generation: number; readonly stallMs: number
    readonly switchedAt: number; readonly report: Report }
  /** `generation` is its predecessor's. `connections`: all that came to it, moved or accepted. */
  | { readonly role: 'successor'; readonly generation: number; readonly stallMs: number
    readonly connections: number; readonly lastConnectionAt: number }
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
    await benchReloads(size)
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

async function benchReloads(size: number): Promise<void> {
  await using server = await Server.start({ HANDOVER_UNDO_WINDOW: '1000' })
  const { example } = server
  const idle = new IdleClients()
  const load = startLoadProcess(example.target, { keepAlive: active })
  try {
    await idle.open(example.target.port, size)
    let { pid } = (await load.until(({ answers }) => answers > active.clients)).versions[0]!
    const rows: string[][] = []
    for (let reload = 1; reload <= reloads; reload++) {
      await load.mark(`reload ${reload}`)
      const done = await example.reload(load, pid, String(reload))
      pid = done.pid
      const predecessor = await server.line('predecessor', reload)
      const successor = await server.line('successor', reload)
      await load.mark()
      const answered = await idle.ask(pid)
      const { connections, durations } = predecessor.report
      rows.push([
        String(reload), count(connections.moved), ms(successor.lastConnectionAt - predecessor.switchedAt), ms(durations.move ?? NaN),
        ms(predecessor.stallMs), ms(successor.stallMs), count(answered), count(idle.closed)
      ])
    }
    const result = await load.stop()
    console.log(`\n${count(size)} idle connections and ${active.clients} active ones, ${reloads} reloads in a row\n`)
    console.log(
      table([['reload', 'moved', 'all served ms', 'report ms', 'stall old ms', 'stall new ms', 'then answered', 'closed'], ...rows])
    )
    const slowest = Array.from({ length: reloads }, (_, index) => ms(result.latency[`reload ${index + 1}`]?.max ?? NaN))
    console.log(`\nactive: ${count(result.requests)} requests, ${count(result.lost)} lost, ${count(result.opened)} connections opened by ${active.clients} clients; slowest answer in each reload: ${slowest.join(', ')} ms`)
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
