/**
 * `npm run demo -- --http2`: a server of HTTP/2, in the clear or over TLS, under sessions that are always in use, reloaded again and again, also through
 * several versions of Node. Every body is checked by its hash; a session that is closed or told to go counts as one that did not stay.
 *
 * Real processes and real sessions, as in the other parts; it leaves none of the processes behind.
 */

import { mkdtempSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Certificate } from '../certificate.js'
import { nowMs, sleep } from '../client/clock.js'
import { waitWhileItMoves } from '../client/progress.js'
import { SessionLoad } from '../client/session-load.js'
import { Example } from '../example.js'
import { count, median, ms, table } from '../table.js'

export interface Http2Options {
  readonly reloads: number
  readonly sessions: number
  /** Binaries of Node, which the processes use by turns. Without: this one. */
  readonly nodes: readonly string[]
  /** Over TLS: files of a key and a certificate. */
  readonly tls: Certificate | undefined
}

export interface Http2Summary {
  readonly tls: boolean
  readonly sessions: number
  readonly nodes: readonly string[]
  /** Of each reload: how many sessions moved, and how long the first answer of the new version took. */
  readonly reloads: readonly { readonly version: string; readonly moved: number; readonly firstAnswerMs: number }[]
  readonly answers: number
  readonly pings: number
  readonly lost: number
  readonly closed: number
  readonly goaways: number
  readonly seconds: number
  readonly failures: readonly string[]
  readonly stderr: string
}

/** How long nothing may move on. */
const quietMs = 60_000
const undoMs = 500
const thinkMs = [0, 20, 60, 200, 1_000]

/** The binary behind one name, which each process starts the next by. */
class NodeName {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'handover-nodes-'))
  readonly #nodes: readonly string[]

  constructor(nodes: readonly string[]) {
    this.#nodes = nodes
    this.use(0)
  }

  get env(): Record<string, string> {
    return { PATH: `${this.#folder}${path.delimiter}${process.env['PATH'] ?? ''}` }
  }

  use(turn: number): void {
    const link = path.join(this.#folder, 'new')
    symlinkSync(this.#nodes[turn % this.#nodes.length]!, link)
    renameSync(link, path.join(this.#folder, 'node'))
  }

  end(): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Rejects when `interrupted` does. */
export async function runHttp2(
  { reloads, sessions, nodes, tls }: Http2Options, interrupted: Promise<never>, tell: (line: string) => void
): Promise<Http2Summary> {
  const begun = nowMs()
  const name = nodes.length > 0 ? new NodeName(nodes) : undefined
  const moved = new Map<number, number>()
  const example = await Example.start({
    script: fileURLToPath(new URL('http2-server.js', import.meta.url)),
    version: '1.0.0',
    env: { HANDOVER_UNDO_WINDOW: String(undoMs), ...name?.env, ...(tls && { KEY: tls.key, CERT: tls.cert }) },
    ...(name && { node: 'node' }),
    onReport: ({ result, predecessor, connections }) => { if (result === 'drained') moved.set(predecessor.pid, connections.moved) }
  })
  const done: Http2Summary['reloads'][number][] = []
  const failures: string[] = []
  const load = new SessionLoad(`http${tls ? 's' : ''}://127.0.0.1:${example.target.port}`, { sessions, thinkMs })
  const all = async (version: string): Promise<void> => waitWhileItMoves({
    what: `an answer of version ${version} on each session`,
    look: () => load.lost.length > 0 || load.served(version) === sessions || undefined,
    moves: () => `${load.answers} answers, ${load.served(version)} sessions`,
    quietMs,
    todo: 'See what the server wrote.',
    cause: () => example.stderr
  }).then(() => undefined)
  try {
    await Promise.race([interrupted, all('1.0.0')])
    let { pid } = load.stats().versions[0]!
    for (let index = 1; index <= reloads && load.lost.length === 0; index++) {
      const version = `1.0.${index}`
      name?.use(index)
      const before = pid
      const { firstAnswerMs, pid: next } = await Promise.race([interrupted, example.reload(load, pid, version, quietMs)])
      pid = next
      await Promise.race([interrupted, all(version)])
      while (example.isLiving(before)) await Promise.race([interrupted, sleep(20)])
      done.push({ version, moved: moved.get(before) ?? 0, firstAnswerMs })
      tell(`reload ${index} of ${reloads}: ${moved.get(before) ?? 0} of ${sessions} sessions moved, first answer after ${ms(firstAnswerMs)} ms, ${count(load.answers)} answers, ${load.lost.length} lost`)
    }
    await Promise.race([interrupted, load.stop()])
    for (const reload of done) if (reload.moved !== sessions) failures.push(`${reload.moved} of ${sessions} sessions moved in the reload to ${reload.version}`)
    if (load.closed + load.goaways.length > 0) failures.push(`${load.closed} sessions were closed, ${load.goaways.length} told to go`)
    failures.push(...load.lost.slice(0, 5))
    return {
      tls: tls !== undefined, sessions, nodes,
      reloads: done, answers: load.answers, pings: load.pings, lost: load.lost.length, closed: load.closed,
      goaways: load.goaways.length, seconds: (nowMs() - begun) / 1_000, failures, stderr: example.stderr
    }
  } finally {
    for (const session of load.sessions) session.destroy()
    await example.end(5_000)
    name?.end()
  }
}

export function http2Report({ tls, sessions, reloads, answers, pings, lost, closed, goaways, seconds }: Http2Summary): string {
  const moved = reloads.reduce((sum, reload) => sum + reload.moved, 0)
  return table([
    [tls ? 'HTTP/2 over TLS' : 'HTTP/2 in the clear', ''],
    ['sessions', count(sessions)],
    ['reloads', `${count(reloads.length)} in ${seconds.toFixed(0)} s`],
    ['streams answered, every body checked', count(answers)],
    ['pings answered', count(pings)],
    ['sessions moved, of all reloads together', `${count(moved)} of ${count(sessions * reloads.length)}`],
    ['streams lost', count(lost)],
    ['sessions closed, GOAWAYs', `${count(closed)}, ${count(goaways)}`],
    ["signal to the new version's first answer, median", reloads.length > 0 ? `${ms(median(reloads.map(({ firstAnswerMs }) => firstAnswerMs)))} ms` : '-']
  ])
}
