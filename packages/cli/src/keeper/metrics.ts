/**
 * The keeper's own page for Prometheus: reloads, crashes, connections, generations. It is loaded only where `--metrics` asks for it: with
 * node:http it takes 3 MB.
 */

import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { accepts, isLeaving, type Report } from '@handover/core/internal'
import type { Address, Fleet, KeeperOptions, Memory, SavedHistogram, SavedMetrics } from './fleet.js'
import type { Reloads } from './reloads.js'

interface MetricsSource extends Pick<Fleet, 'options' | 'workers' | 'servers' | 'reported'> {
  readonly memory: Memory
  readonly reloads: Pick<Reloads, 'heard' | 'isRunning'>
}

const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]
const retryMs = 1_000
const requestMs = 5_000
const mostRequests = 16

const escaped = (text: string): string => text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n')
const labels = (of: Readonly<Record<string, string | number>>): string => {
  const pairs = Object.entries(of).map(([name, value]) => `${name}="${escaped(String(value))}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

class Histogram {
  readonly #below: number[]
  #count: number
  #sum: number

  /** Another version may have other bounds: then the nearest smaller one counts, so that nothing runs backwards. */
  constructor({ below, count: before, sum }: SavedHistogram = { below: {}, count: 0, sum: 0 }) {
    const known = Object.entries(below)
    this.#below = seconds.map((bound) => Math.max(0, ...known.filter(([other]) => Number(other) <= bound).map(([, times]) => times)))
    this.#count = before
    this.#sum = sum
  }

  get saved(): SavedHistogram {
    return { below: Object.fromEntries(seconds.map((bound, index) => [bound, this.#below[index]!])), count: this.#count, sum: this.#sum }
  }

  add(ms: number): void {
    seconds.forEach((bound, index) => { if (ms / 1_000 <= bound) this.#below[index]!++ })
    this.#count++
    this.#sum += ms / 1_000
  }

  lines(name: string, of: Readonly<Record<string, string>> = {}): string[] {
    const buckets = seconds.map((bound, index) => `${name}_bucket${labels({ ...of, le: bound })} ${this.#below[index]}`)
    return [...buckets, `${name}_bucket${labels({ ...of, le: '+Inf' })} ${this.#count}`, `${name}_sum${labels(of)} ${this.#sum}`, `${name}_count${labels(of)} ${this.#count}`]
  }
}

/** Counts as long as the keeper lives, whether it is served or not. */
export class Metrics {
  readonly #source: MetricsSource
  readonly #ok: Histogram
  readonly #phases: ReadonlyMap<string, Histogram>
  readonly #fates = new Map([['moved', 0], ['drained', 0], ['closed_idle', 0], ['cut', 0]])
  readonly #failures: Map<string, number>
  #reloads: number
  #requestsCut: number

  /** `before`: of the keeper before this one. */
  constructor(source: MetricsSource, before?: SavedMetrics) {
    this.#source = source
    const { reloads = 0, requestsCut = 0, failures = {}, fates = {}, durations = {} } = before ?? {}
    this.#ok = new Histogram(durations['reload'])
    this.#phases = new Map(['launch', 'prepare', 'commit', 'move', 'drain'].map((phase) => [phase, new Histogram(durations[phase])]))
    for (const fate of this.#fates.keys()) this.#fates.set(fate, fates[fate] ?? 0)
    this.#failures = new Map(Object.entries(failures))
    this.#reloads = reloads
    this.#requestsCut = requestsCut
    source.reported.add((report) => { this.#reported(report) })
    source.reloads.heard.add(({ code, ms }) => {
      if (code !== undefined) this.#failures.set(code, (this.#failures.get(code) ?? 0) + 1)
      else this.#reloads++
      if (code === undefined && ms !== undefined) this.#ok.add(ms)
    })
  }

  /** For the next keeper, which is the result of a reload that has taken so long. */
  saved(reloadMs: number): SavedMetrics {
    const all = new Histogram(this.#ok.saved)
    all.add(reloadMs)
    const durations = [['reload', all] as const, ...this.#phases].map(([name, of]) => [name, of.saved] as const)
    return {
      reloads: this.#reloads + 1, requestsCut: this.#requestsCut, failures: Object.fromEntries(this.#failures),
      fates: Object.fromEntries(this.#fates), durations: Object.fromEntries(durations)
    }
  }

  #reported({ result, durations, connections, requestsCut, requestsCutBeside = 0 }: Report): void {
    const now = result === 'switched' ? ['launch', 'prepare', 'commit'] as const : result === 'drained' ? ['move', 'drain'] as const : []
    for (const phase of now) {
      const ms = durations[phase]
      if (ms !== null) this.#phases.get(phase)!.add(ms)
    }
    if (result !== 'drained' && result !== 'stopped') return
    const { moved, drained, closedIdle, cut } = connections
    const fates = Object.entries({ moved, drained, closed_idle: closedIdle, cut })
    for (const [fate, count] of fates) this.#fates.set(fate, this.#fates.get(fate)! + count)
    this.#requestsCut += requestsCut.length + requestsCutBeside
  }

  /** Answers a function that ends it. */
  serve(address: Address): () => void {
    return serve(() => this.text(), this.#source.options, address)
  }

  text(): string {
    const { options: { name: app, version }, memory: { crashes, count, startedAt }, workers, servers, reloads } = this.#source
    const lines: string[] = []
    const metric = (name: string, type: 'counter' | 'gauge' | 'histogram', help: string, values: readonly string[]): void => {
      lines.push(`# HELP handover_${name} ${help}`, `# TYPE handover_${name} ${type}`, ...values.map((value) => `handover_${value}`))
    }
    const failed = [...this.#failures.values()].reduce((sum, each) => sum + each, 0)
    const states = { serving: servers.length, draining: workers.filter(({ state }) => isLeaving(state)).length }
    const booting = workers.filter(({ state }) => !accepts(state) && !isLeaving(state)).length
    metric('info', 'gauge', 'The app and its keeper.', [`info${labels({ app, version, node: process.versions.node })} 1`])
    metric('keeper_start_time_seconds', 'gauge', 'When the first keeper of this app began, in seconds since the epoch.', [`keeper_start_time_seconds ${startedAt / 1_000}`])
    metric('reloads_total', 'counter', 'Reloads by their result, refused ones included.', [`reloads_total{result="ok"} ${this.#reloads}`, `reloads_total{result="failed"} ${failed}`])
    metric('reload_failures_total', 'counter', 'Reloads that failed or were refused, by the code of the error.', [...this.#failures].map(([code, count]) => `reload_failures_total${labels({ code })} ${count}`))
    metric('reload_running', 'gauge', '1 while a reload runs.', [`reload_running ${reloads.isRunning ? 1 : 0}`])
    metric('crashes_total', 'counter', 'Workers that ended without being asked to.', [`crashes_total ${crashes}`])
    metric('connections_total', 'counter', 'Connections of workers that have ended their drain, by what became of them.', [...this.#fates].map(([fate, count]) => `connections_total${labels({ fate })} ${count}`))
    metric('requests_cut_total', 'counter', 'Requests that a drain deadline cut.', [`requests_cut_total ${this.#requestsCut}`])
    metric('workers', 'gauge', 'How many workers there should be.', [`workers ${count}`])
    metric('processes', 'gauge', 'Workers that live, by what they do.', Object.entries({ ...states, booting }).map(([state, count]) => `processes${labels({ state })} ${count}`))
    metric('generation', 'gauge', 'The newest generation that serves in each slot.', servers.map(({ slot, generation }) => `generation${labels({ slot })} ${generation}`))
    metric('reload_duration_seconds', 'histogram', 'How long successful reloads took, watching included.', this.#ok.lines('reload_duration_seconds'))
    metric('phase_duration_seconds', 'histogram', 'How long each phase of a handover took.', [...this.#phases].flatMap(([phase, of]) => of.lines('phase_duration_seconds', { phase })))
    return `${lines.join('\n')}\n`
  }
}

/** While the address is taken, as by the keeper before this one, it tries again. */
function serve(text: () => string, { log }: Pick<KeeperOptions, 'log'>, { host, port }: Address): () => void {
  const server = http.createServer({ requestTimeout: requestMs, connectionsCheckingInterval: requestMs }, (request, response) => {
    answer(request, response, text)
  })
  server.maxConnections = mostRequests
  let isSaid = false
  let timer: NodeJS.Timeout | undefined
  const listen = (): void => { server.listen(port, host) }
  server.on('listening', () => {
    const { port: bound } = server.address() as AddressInfo
    log('info', `metrics at http://${host.includes(':') ? `[${host}]` : host}:${bound}/metrics`)
  })
  server.on('error', (error: NodeJS.ErrnoException) => {
    if (!isSaid) log('warn', `metrics cannot be served at ${host}:${port} (${error.code ?? error.message}); it is tried again every second`)
    isSaid = true
    timer = setTimeout(listen, retryMs)
  })
  listen()
  return () => {
    clearTimeout(timer)
    server.close()
  }
}

function answer({ method = '', url = '' }: http.IncomingMessage, response: http.ServerResponse, text: () => string): void {
  const isKnown = /^\/(metrics)?(\?|$)/.test(url)
  response.statusCode = !['GET', 'HEAD'].includes(method) ? 405 : isKnown ? 200 : 404
  response.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8').setHeader('connection', 'close')
  response.end(response.statusCode === 200 ? text() : `${response.statusCode} ${http.STATUS_CODES[response.statusCode]}\n`)
}
