/**
 * What a process answers to a question for its status. The answer holds no command line, no environment variable but HANDOVER_VERSION, and
 * of a request its method and its path without the query.
 */

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks'
import type { ConnectionTracker } from '../connections/connection-tracker.js'
import { kindOf, type Connection, type Request } from '../connections/connection.js'
import { requestCounts } from '../connections/request-counts.js'
import type { Host } from '../handover/host.js'
import { inspectorUrl } from '../platform/inspector-port.js'
import type { ProcessStatus, SectionStatus, ServiceCount } from '../protocol/control-messages.js'
import type { Peer } from '../protocol/handover-messages.js'
import type { Lifecycle } from '../protocol/lifecycle.js'
import { pathOf, shortened, type Report } from '../protocol/report.js'
import type { StartTimes } from './start-times.js'

/** What the status shows of a generation: a part of its context. */
interface StatusSource {
  readonly self: Peer
  readonly lifecycle: Lifecycle
  readonly appName: string | undefined
  readonly registry: { readonly names: readonly string[] }
  readonly connections: ReadonlyMap<unknown, ConnectionTracker>
  readonly shutdown: { readonly endsInMs: number } | undefined
  readonly lastReport: Report | undefined
  readonly servers: { readonly plain: string | undefined }
  readonly state: { readonly serviceCount: ServiceCount; readonly progress: readonly SectionStatus[] }
  readonly startTimes: StartTimes
  readonly keeper: { readonly keeper: number; readonly slot: number } | undefined
  readonly lostKeeper: StatusSource['keeper']
}

const delayResolutionMs = 20
const mostWaitedFor = 20
/** The statuses of all workers go in one answer. */
const mostCutShown = 20

export class StatusReader {
  readonly #host: Host
  #version: string | null | undefined
  #delay: IntervalHistogram | undefined
  #memory = 0

  constructor(host: Host) {
    this.#host = host
  }

  /** Reads the version of the program, once: later the files may be those of the next one. */
  noteVersion(): void {
    // Null where it has none.
    if (this.#version === undefined) this.#version = packageVersion()
  }

  /** Of the program: HANDOVER_VERSION, else of its package.json. */
  get version(): string | null {
    this.noteVersion()
    return nonEmpty(this.#host.env['HANDOVER_VERSION']) ?? this.#version ?? null
  }

  status(source: StatusSource): ProcessStatus {
    const { self, lifecycle: { state: { is } }, appName, registry, connections, shutdown, lastReport, servers, state } = source
    const seat = source.keeper ?? source.lostKeeper
    const trackers = [...connections.values()]
    const open = trackers.flatMap((tracker) => [...tracker.all])
    const sessions = trackers.flatMap((tracker) => [...tracker.sessions])
    const ofHttp1 = open.flatMap(([, connection]) => [...connection.running.values()])
    const running = [...ofHttp1, ...sessions.flatMap(({ streams }) => [...streams.values()])]
    return {
      pid: self.pid,
      generation: self.generation,
      state: is,
      name: appName ?? null,
      keeper: seat?.keeper ?? null,
      slot: seat?.slot ?? null,
      version: this.version,
      node: process.versions.node,
      ageMs: Math.round(process.uptime() * 1_000),
      listeners: registry.names,
      connections: countBy(open, ([socket, connection]) => kindOf(socket, connection)),
      requests: { inFlight: running.length, total: requestCounts.total, failed: requestCounts.failed },
      waitsFor: is === 'draining' ? waitedFor(running, open.filter(([, { running: { length } }]) => length === 0)) : [],
      endsInMs: shutdown?.endsInMs ?? null,
      memory: this.#residentSet(),
      ...(inspectorUrl() !== undefined && { debugged: true }),
      loopDelayMs: this.#longestDelay(),
      lastReport: lastReport ? shortened(lastReport, mostCutShown) : null,
      ...(servers.plain !== undefined && { plain: servers.plain }),
      service: state.serviceCount,
      start: source.startTimes.report,
      sections: state.progress
    }
  }

  /** Node reads it from /proc: without that, or without a free descriptor, it throws. Then the last one that is known. */
  #residentSet(): number {
    try {
      this.#memory = process.memoryUsage.rss()
    } catch { /* see above */ }
    return this.#memory
  }

  /** Since the last status: the histogram counts from one tick of its timer to the next. */
  #longestDelay(): number | null {
    if (!this.#delay) {
      this.#delay = monitorEventLoopDelay({ resolution: delayResolutionMs })
      this.#delay.enable()
      return null
    }
    const { max } = this.#delay
    this.#delay.reset()
    return Math.max(0, Math.round((max / 1e6 - delayResolutionMs) * 10) / 10)
  }
}

function countBy<T>(items: readonly T[], kind: (item: T) => string): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const item of items) counts[kind(item)] = (counts[kind(item)] ?? 0) + 1
  return counts
}

/** The oldest requests first, then the connections that have none. */
function waitedFor(running: readonly Request[], quiet: readonly (readonly [Parameters<typeof kindOf>[0], Connection])[]): string[] {
  const now = performance.now()
  const requests = [...running].sort((a, b) => a.since - b.since).map(({ method, target, since }) => `${method} ${pathOf(target)} for ${duration(now - since)}`)
  // Its parser still has such a connection: the program did not take it over, and it waits for its next request.
  const kinds = countBy(quiet, ([socket, connection]) => {
    const kind = kindOf(socket, connection)
    return kind === 'http' || kind === 'https' ? 'idle' : kind
  })
  const others = Object.entries(kinds).map(([kind, count]) => `${count} ${kind}`)
  const all = [...requests, ...others]
  return all.length <= mostWaitedFor + 1 ? all : [...all.slice(0, mostWaitedFor), `and ${all.length - mostWaitedFor} more`]
}

const duration = (ms: number): string => (ms < 1_000 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1_000)} s`)

const nonEmpty = (text: string | undefined): string | undefined => (text === '' ? undefined : text)

/** Of the package.json next to the script, or the nearest above that has one. */
function packageVersion(): string | null {
  const script = process.argv[1]
  if (script === undefined) return null
  for (let folder = path.dirname(script); ; folder = path.dirname(folder)) {
    try {
      const { version } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as { version?: unknown }
      if (typeof version === 'string') return version
    } catch { /* there is no such file, or it is no JSON */ }
    if (folder === path.dirname(folder)) return null
  }
}
