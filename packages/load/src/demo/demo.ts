/**
 * `npm run demo`: an example server under load, reloaded again and again with visibly new code, and tables of what the
 * clients saw and of what became of their connections; then one with a warm cache (demo-cache.ts), and how warm it stayed.
 *
 * Everything is real: processes, sockets, signals. It exits with 1 if a request was lost, the server closed a connection, a reload failed,
 * a process did not end or the cache went cold, with 2 for a mistake in its options; and it leaves no process behind, however it ends.
 */

import { parseArgs } from 'node:util'
import { type Certificate, withCertificate } from '../certificate.js'
import { type LoadOptions } from '../client/client.js'
import { nowMs, sleep } from '../client/clock.js'
import { type CacheSummary, cacheReport, runCaches } from './demo-cache.js'
import { http2Report, type Http2Summary, runHttp2 } from './demo-http2.js'
import { type App, Example, type Reloaded, apps, scriptOf } from '../example.js'
import { startLoadProcess } from '../client/process.js'
import { waitWhileItMoves, workOf } from '../client/progress.js'
import { count, median, ms, table } from '../table.js'
import type { LoadResult, LoadStats } from '../client/tally.js'

interface Options {
  /** Undefined: only the cache. */
  readonly app: App | undefined
  readonly cache: boolean
  readonly reloads: number
  readonly seconds: number
  readonly json: boolean
  /** Over TLS. */
  readonly tls: boolean
  /** Only sessions of HTTP/2: how many, and on which versions of Node. */
  readonly http2: { readonly sessions: number; readonly nodes: readonly string[] } | undefined
}

/** Connections that are kept for more than one request: how many the clients opened and the server closed, from one reload to the next. */
interface Kept {
  readonly opened: number
  readonly closed: number
}

interface SummaryOfReload extends Omit<Reloaded, 'signalledAt'>, Kept {
  /** As the predecessor's last report says; null where it made none. */
  readonly moved: number | null
}

interface Summary {
  readonly app: App
  readonly reloads: readonly SummaryOfReload[]
  readonly reloadsAsked: number
  readonly connections: { readonly atFirst: Kept; readonly opened: number; readonly moved: number; readonly closed: number }
  /** Why the demo failed, apart from lost requests. */
  readonly failures: readonly string[]
  readonly stderr: string
  readonly result: LoadResult
}

/** How long nothing may move on. */
const quietMs = 30_000
/** How long none of several processes may end; a drain takes up to 30 s. */
const endQuietMs = 45_000
const usage = 'usage: demo [--app fastify|express|http|cache] [--reloads 10] [--seconds 20] [--json]; or demo --tls [--reloads 10] [--seconds 20]' +
  '; or demo --http2 [--tls] [--reloads 10] [--sessions 100] [--nodes NODE:NODE] [--json]'

/** Some of each kind: busy ones, thinking ones, and ones that are mostly idle. */
const load: LoadOptions = {
  keepAlive: [{ clients: 1 }, { clients: 6, thinkMs: 5 }, { clients: 30, thinkMs: 60 }, { clients: 20, thinkMs: 3000 }],
  newConnections: { clients: 4, thinkMs: 10 },
  slow: { clients: 6 },
  post: { clients: 6 },
  stream: { clients: 6 }
}

class Interrupted extends Error {
  readonly signal: NodeJS.Signals

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`)
    this.signal = signal
  }
}

function readOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      app: { type: 'string' },
      reloads: { type: 'string', default: '10' },
      seconds: { type: 'string', default: '20' },
      json: { type: 'boolean', default: false },
      http2: { type: 'boolean', default: false },
      tls: { type: 'boolean', default: false },
      sessions: { type: 'string', default: '100' },
      nodes: { type: 'string', default: '' },
      help: { type: 'boolean', short: 'h', default: false }
    }
  })
  if (values.help) {
    console.log(usage)
    process.exit(0)
  }
  const { tls } = values
  if (tls && (values.app ?? 'http') !== 'http') throw new Error(`--tls is for the app http, not ${values.app}`)
  const app = apps.find((name) => name === (values.app ?? (tls ? 'http' : 'fastify')))
  if (app === undefined && values.app !== 'cache') throw new Error(`--app must be one of ${apps.join(', ')}, cache, not ${values.app}`)
  const reloads = Number(values.reloads)
  if (!/^\d+$/.test(values.reloads) || reloads > 1000) throw new Error(`--reloads must be a whole number up to 1000, not ${values.reloads}`)
  const seconds = Number(values.seconds)
  if (!(seconds > 0 && seconds <= 86_400)) throw new Error(`--seconds must be a number above 0, not ${values.seconds}`)
  if (values.http2) {
    if (!/^[1-9]\d{0,3}$/.test(values.sessions)) throw new Error(`--sessions must be a whole number up to 9999, not ${values.sessions}`)
    const nodes = values.nodes.split(':').filter((file) => file !== '')
    return { app: undefined, cache: false, reloads, seconds, tls, json: values.json, http2: { sessions: Number(values.sessions), nodes } }
  }
  const cache = values.app === 'cache' || (values.app === undefined && !tls)
  return { http2: undefined, app, cache, reloads, seconds, tls, json: values.json }
}

async function run(
  options: Options & { readonly app: App }, files: Certificate | undefined, interrupted: Promise<never>
): Promise<Summary> {
  const tell = progress(options)
  const failures: string[] = []
  const reloaded: Reloaded[] = []
  /** At each reload, and at the end. */
  const kept: Kept[] = []
  const movedBy = new Map<number, number>()
  const example = await Promise.race([interrupted, Example.start({
    script: scriptOf(options.app),
    version: '1.0.0',
    onReport: ({ result, predecessor, connections }) => {
      if (result === 'drained') movedBy.set(predecessor.pid, connections.moved)
    },
    env: {
      HANDOVER_UNDO_WINDOW: process.env['HANDOVER_UNDO_WINDOW'] ?? '2000', // so that the end does not wait for it
      ...(files && { KEY: files.key, CERT: files.cert })
    }
  })])
  const clients = startLoadProcess({ ...example.target, tls: files !== undefined }, load)
  try {
    let pid = await Promise.race([interrupted, firstPid()])
    const predecessors: number[] = []
    const startedAt = nowMs()
    const gapMs = options.seconds * 1000 / (options.reloads + 1)
    for (let index = 1; index <= options.reloads && failures.length === 0; index++) {
      await Promise.race([interrupted, watch(startedAt + index * gapMs)])
      await clients.mark('reload')
      kept.push(keptIn(clients.stats()))
      predecessors.push(pid)
      try {
        const done = await Promise.race([interrupted, example.reload(clients, pid, `1.0.${index}`, quietMs)])
        reloaded.push(done)
        tell.line(`reload ${index} of ${options.reloads}: 1.0.${index} answers after ${ms(done.firstAnswerMs)} ms (process ${done.pid}), ${seenBy(clients.stats())}`)
        await Promise.race([interrupted, watch(done.signalledAt + done.firstAnswerMs + 1000, pid)])
        pid = done.pid
      } catch (error) {
        if (error instanceof Interrupted) throw error
        failures.push(`reload ${index} failed: ${(error as Error).message}`)
      }
      await clients.mark()
    }
    if (failures.length === 0) await Promise.race([interrupted, watch(startedAt + options.seconds * 1000)])
    const result = await Promise.race([interrupted, clients.stop()])
    kept.push(keptIn(result))
    for (const seen of result.versions) example.saw(seen.pid)
    if (result.answers === 0) failures.push('no request was answered')
    tell.note('waiting for the end of the server')
    const late = await Promise.race([interrupted, example.end(endQuietMs, failures.length === 0 ? [pid] : example.living())])
    if (late.length > 0) failures.push(`process ${late.join(', ')} did not end in ${endQuietMs / 1000} s and was killed; see HANDOVER_DRAIN_TIMEOUT, and what it wrote`)
    tell.note('')
    const { opened, closed } = kept.at(-1)!
    if (closed > 0) failures.push(`the server closed ${count(closed)} connections`)
    return {
      app: options.app,
      reloads: reloaded.map(({ version, pid: by, firstAnswerMs }, index) => ({
        version, pid: by, firstAnswerMs, ...since(kept[index]!, kept[index + 1]!), moved: movedBy.get(predecessors[index]!) ?? null
      })),
      reloadsAsked: options.reloads,
      connections: { atFirst: kept[0]!, opened, moved: [...movedBy.values()].reduce((sum, moved) => sum + moved, 0), closed },
      failures,
      stderr: example.stderr,
      result
    }
  } finally {
    tell.note('')
    clients.kill()
    await example.end(2000)
  }

  async function firstPid(): Promise<number> {
    const first = await waitWhileItMoves({
      what: `the first answer of ${options.app} on port ${example.target.port}`,
      look: () => clients.stats().versions[0],
      moves: () => `${seenBy(clients.stats())}, ${workOf(example.living())}`,
      quietMs,
      todo: 'See what the server wrote; where the machine is busy, stop what else runs on it.',
      cause: () => example.stderr
    })
    return first.pid || example.firstPid
  }

  /** Shows progress until `untilMs`, or until the process `pid` ends. */
  async function watch(untilMs: number, pid?: number): Promise<void> {
    while (nowMs() < untilMs && (pid === undefined || example.isLiving(pid))) {
      tell.note(`${reloaded.length} of ${options.reloads} reloads, ${seenBy(clients.stats())}`)
      await sleep(Math.min(100, Math.max(1, untilMs - nowMs())))
    }
  }
}

/** Of all kinds but the one that opens a connection for each request. */
function keptIn({ opened, closedByServer, kinds }: LoadStats): Kept {
  const { new: brief } = kinds
  return { opened: opened - (brief?.opened ?? 0), closed: closedByServer.total - (brief?.closedByServer.total ?? 0) }
}

const since = (before: Kept, after: Kept): Kept => ({ opened: after.opened - before.opened, closed: after.closed - before.closed })

function seenBy({ requests, lost }: LoadStats): string {
  return `${count(requests)} requests, ${count(lost)} lost`
}

/** Lines for all; a line in place for a terminal; nothing with --json. */
function progress({ json }: Pick<Options, 'json'>): { line(text: string): void; note(text: string): void } {
  const terminal = process.stdout.isTTY === true
  if (json) return { line() {}, note() {} }
  return {
    line: (text) => process.stdout.write(terminal ? `\r\x1b[K${text}\n` : `${text}\n`),
    note: (text) => terminal && process.stdout.write(`\r\x1b[K${text}`)
  }
}

function report({ app, reloads, reloadsAsked, connections, failures, stderr, result }: Summary): string {
  const { kinds, latency, closedByServer } = result
  const lines: string[] = ['', `${app}: ${reloads.length} of ${reloadsAsked} reloads in ${result.seconds.toFixed(1)} s of load`, '']
  lines.push(table([
    ['', 'clients', 'requests', 'lost', 'opened', 'closed by server'],
    ...Object.entries(kinds).map(([kind, stats]) => [
      kind, count(stats.clients), count(stats.requests), count(stats.lost), count(stats.opened), closedText(stats.closedByServer)
    ]),
    ['all', '', count(result.requests), count(result.lost), count(result.opened), closedText(closedByServer)]
  ]))
  lines.push(...result.notes.map((note) => `  ${note}`), '')
  lines.push(table([
    ['kept connections', 'opened', 'moved', 'closed by server'],
    ['before the first reload', count(connections.atFirst.opened), '', count(connections.atFirst.closed)],
    ...reloads.map(
      ({ version, opened, moved, closed }) => [`reload to ${version}`, count(opened), moved === null ? '?' : count(moved), count(closed)]
    ),
    ['all', count(connections.opened), count(connections.moved), count(connections.closed)]
  ]), '')
  lines.push(table([
    ['latency of quick requests, ms', 'count', 'p50', 'p99', 'max'],
    ...Object.entries(latency).map(([mark, found]) => [
      mark === 'outside' ? 'outside reloads' : 'during reloads', count(found.count), ms(found.p50), ms(found.p99), ms(found.max)
    ])
  ]), '')
  if (reloads.length > 0) {
    const times = reloads.map(({ firstAnswerMs }) => firstAnswerMs)
    lines.push(`signal to the new version's first answer: median ${ms(median(times))} ms, max ${ms(Math.max(...times))} ms`, '')
  }
  lines.push(table([
    ['version', 'process', 'answers'],
    ...result.versions.map(({ version, pid, answers }) => [version || '-', String(pid || '-'), count(answers)])
  ]), '')
  for (const [kind, stats] of Object.entries(kinds)) {
    const reasons = Object.entries(stats.lostBy).map(([reason, lost]) => `${count(lost)} ${reason}`)
    if (reasons.length > 0) lines.push(`lost of ${kind}: ${reasons.join(', ')}`)
  }
  for (const loss of result.losses.slice(0, 5)) {
    lines.push(`  at ${ms(loss.atMs)} ms, ${loss.kind}, request ${loss.request} of port ${loss.localPort ?? '-'}: ${loss.reason} after ${ms(loss.afterMs)} ms and ${loss.bytes} bytes (${loss.error})`)
  }
  for (const failure of failures) lines.push(coloured(31, failure))
  if (failures.length > 0 && stderr !== '') lines.push('the last lines of the server:', ...stderr.split('\n').map((line) => `  ${line}`))
  lines.push(result.lost === 0 && failures.length === 0
    ? coloured(32, `No request was lost and no connection was closed. Connections moved to a new process ${count(connections.moved)} times.`)
    : coloured(31, `${count(result.lost)} requests were lost, ${count(connections.closed)} connections were closed by the server.`))
  return lines.join('\n')
}

function cacheVerdict({ lost, failures, stderr }: CacheSummary): string {
  if (lost === 0 && failures.length === 0) return coloured(32, 'No request was lost, and the cache stayed warm.')
  return [...failures, ...(lost > 0 ? [`${count(lost)} requests were lost.`] : [])].map((line) => coloured(31, line)).join('\n')
    + `\nthe last lines of the server:\n${stderr}`
}

function closedText({ total, announced, idle, idleReset }: LoadResult['closedByServer']): string {
  if (total === 0) return '0'
  const parts = [[announced, 'told'], [idle, 'idle'], [idleReset, 'reset']] as const
  return `${count(total)} (${parts.filter(([number]) => number > 0).map(([number, how]) => `${count(number)} ${how}`).join(', ')})`
}

function coloured(code: number, text: string): string {
  return process.stdout.isTTY === true ? `\x1b[${code}m${text}\x1b[0m` : text
}

function onInterrupt(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => reject(new Interrupted(signal)))
  })
}

function http2Verdict({ lost, failures, stderr }: Http2Summary): string {
  if (lost === 0 && failures.length === 0) return coloured(32, 'No stream was lost, and every session stayed.')
  return `${failures.map((line) => coloured(31, line)).join('\n')}\nthe last lines of the server:\n${stderr}`
}

async function main(): Promise<number> {
  let options: Options
  try {
    options = readOptions(process.argv.slice(2))
  } catch (error) {
    console.error(`demo: ${(error as Error).message.split('\n')[0]} (${usage})`)
    return 2
  }
  return options.tls ? await withCertificate((files) => show(options, files)) : await show(options)
}

async function show(options: Options, files?: Certificate): Promise<number> {
  const interrupted = onInterrupt()
  interrupted.catch(() => {})
  try {
    const { app, json, http2 } = options
    if (http2) {
      const summary = await runHttp2({ ...options, ...http2, tls: files }, interrupted, (line) => { progress(options).line(line) })
      console.log(json ? JSON.stringify(summary) : `\n${http2Report(summary)}\n\n${http2Verdict(summary)}`)
      return summary.failures.length > 0 ? 1 : 0
    }
    const summary = app && await run({ ...options, app }, files, interrupted)
    if (summary && !json) console.log(`${report(summary)}\n`)
    const tell = progress(options)
    const cache = options.cache ? await runCaches(options.reloads, interrupted, (line) => { tell.line(line) }) : undefined
    if (json) console.log(JSON.stringify({ ...summary, ...(cache && { cache }) }))
    else if (cache) console.log(`\n${cacheReport(cache)}\n\n${cacheVerdict(cache)}`)
    const failures = [...(summary?.failures ?? []), ...(cache?.failures ?? [])]
    return failures.length > 0 || (summary?.result.lost ?? 0) + (cache?.lost ?? 0) > 0 ? 1 : 0
  } catch (error) {
    const { message, cause } = error as Error
    if (options.json) console.log(JSON.stringify({ app: options.app ?? 'cache', failures: [message], stderr: cause ?? '' }))
    console.error(`demo: ${message}${typeof cause === 'string' && cause !== '' ? `\nthe last lines of the server:\n${cause}` : ''}`)
    return error instanceof Interrupted ? 130 : 1
  }
}

process.exit(await main())
