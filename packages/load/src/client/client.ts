/**
 * The strict load client: clients of several kinds over raw sockets, none of which ever retries.
 *
 * A request is lost when its connect was refused or reset, or when a byte of it was given to the socket and no whole, right
 * answer came within the deadline. A connection that the server closes while no request is under way is counted, and is no
 * loss; the client opens another one when it has its next request to send. After a loss a client pauses 10 ms.
 */

import { nowMs, sleep } from './clock.js'
import { connect, Connection, type Failure, type LossReason, type Outcome } from './connection.js'
import { seededRandom, type Random } from './random.js'
import { kinds, requestsOf, type Kind, type Request, type RequestShape } from './requests.js'
import { outside, Tally, type LoadResult, type LoadStats } from './tally.js'
import type { Target } from './target.js'

/** All times are in milliseconds. */
export interface Group {
  /** How many clients work at the same time. */
  readonly clients: number
  /** The pause between an answer and the client's next request, give or take a quarter. Default 0 (`new`: 5). */
  readonly thinkMs?: number
  /**
   * How far away the server is: the time from the client's decision to send until it could know that the server had closed
   * before. A close within that time loses the request. Default 0. Not for `pipelined`.
   */
  readonly roundTripMs?: number
  /** What `keep-alive`, `new` and `pipelined` get. Default `/`. */
  readonly path?: string
}

/** Clients that ask for answers that take their time. */
export interface SlowGroup extends Group {
  /** How long the server takes. Default 300. */
  readonly ms?: number
}

/** Clients that send a body in two halves. */
export interface PostGroup extends Group {
  /** The body's length. Default 4096. */
  readonly bytes?: number
  /** The pause between its two halves. Default 50; 0 sends the whole request in one write. */
  readonly pauseMs?: number
}

/** Clients that ask for a chunked answer. */
export interface StreamGroup extends Group {
  /** How many chunks an answer has. Default 10. */
  readonly chunks?: number
  /** The pause between two chunks. Default 50. */
  readonly ms?: number
}

/** Clients that send several requests in one write. */
export interface PipelinedGroup extends Group {
  /** How many requests go in one write. Default 4. */
  readonly depth?: number
}

/** Each kind takes one group of clients or several. */
export interface LoadOptions {
  /** One connection a client, request after request. */
  readonly keepAlive?: Group | readonly Group[]
  /** A connection for each request. */
  readonly newConnections?: Group | readonly Group[]
  /** GET /slow. */
  readonly slow?: SlowGroup | readonly SlowGroup[]
  /** POST /echo. */
  readonly post?: PostGroup | readonly PostGroup[]
  /** GET /stream. */
  readonly stream?: StreamGroup | readonly StreamGroup[]
  /** Several requests in one write. */
  readonly pipelined?: PipelinedGroup | readonly PipelinedGroup[]
  /** A request without a whole answer is lost after this. Default 30 000. */
  readonly answerTimeoutMs?: number
  /**
   * Every client but those of `new` connects before the first of them sends anything. Node accepts one connection in each turn of its loop:
   * under many requests, those that come late wait in the kernel's queue for seconds. Default false.
   */
  readonly connectFirst?: boolean
  /** Think times and bodies are the same for the same seed. Default 1. */
  readonly seed?: number
  /**
   * For a server that does not keep the contract of reference.ts: an answer is right when it is whole and has this status, whatever else it
   * says. For `keep-alive`, `new` and `pipelined`. Without it any status below 400 is right, and the contract counts.
   */
  readonly expectStatus?: number
  /** Answers, losses and latencies are also counted in slices of so many milliseconds, for a picture: LoadResult.slices. */
  readonly sliceMs?: number
}

/** A load that runs. */
export interface Load {
  /** What has been counted so far. In another process: at its last snapshot, some 50 ms old. */
  stats(): LoadStats
  /** Waits until a snapshot satisfies the condition, and answers it. Rejects after `timeoutMs` (default 30 000) or a stop. */
  until(condition: (stats: LoadStats) => boolean, timeoutMs?: number): Promise<LoadStats>
  /** From now on latencies count for this interval; 'outside' (the default) ends it. Resolves when it is in force. */
  mark(name?: string): Promise<void>
  /** No new requests; those under way get their answer or their deadline. Then everything is closed. */
  stop(): Promise<LoadResult>
}

type AnyGroup = SlowGroup & PostGroup & StreamGroup & PipelinedGroup

const optionOf = {
  'keep-alive': 'keepAlive',
  new: 'newConnections',
  slow: 'slow',
  post: 'post',
  stream: 'stream',
  pipelined: 'pipelined'
} as const satisfies Record<Kind, keyof LoadOptions>

const pauseAfterLossMs = 10
const closedAtOnce: Failure = { reason: 'closed', error: 'the server closed the connection at once', bytes: 0 }

/** What all clients of one load share. */
class Run {
  readonly target: Target
  readonly answerTimeoutMs: number
  readonly expectStatus: number | undefined
  readonly tally: Tally
  stopping = false
  readonly #pauses = new Set<() => void>()
  /** Clients that have not tried to connect yet, where all do so before anything is sent. */
  #connecting = 0
  #allConnected: () => void = () => {}
  readonly #whenAllConnected = new Promise<void>((resolve) => { this.#allConnected = resolve })

  constructor(target: Target, { answerTimeoutMs = 30_000, expectStatus, sliceMs }: LoadOptions) {
    this.target = target
    this.tally = new Tally(sliceMs)
    this.answerTimeoutMs = answerTimeoutMs
    this.expectStatus = expectStatus
  }

  willConnect(): void {
    this.#connecting += 1
  }

  /** Resolves when every other has connected, or failed to. */
  async connected(): Promise<void> {
    if (--this.#connecting === 0) this.#allConnected()
    await this.#whenAllConnected
  }

  /** Ends early when the load stops. */
  pause(ms: number): Promise<void> {
    if (this.stopping) return Promise.resolve()
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer)
        this.#pauses.delete(end)
        resolve()
      }
      const timer = setTimeout(end, ms)
      this.#pauses.add(end)
    })
  }

  stop(): void {
    this.stopping = true
    for (const end of this.#pauses) end()
  }
}

/** Starts clients in this process, at once. */
export function startLoad(target: Target, options: LoadOptions): Load {
  return startTalliedLoad(target, options).load
}

/** For worker.ts, which also wants to hear of new versions. */
export function startTalliedLoad(target: Target, options: LoadOptions): { load: Load; tally: Tally } {
  const run = new Run(target, options)
  const clients: Promise<void>[] = []
  for (const kind of kinds) {
    const groups = options[optionOf[kind]] ?? []
    for (const group of Array.isArray(groups) ? groups as readonly AnyGroup[] : [groups as AnyGroup]) {
      run.tally.addClients(kind, group.clients)
      for (let index = 0; index < group.clients; index++) {
        const random = seededRandom((options.seed ?? 1) * 1_000_003 + clients.length)
        const connectFirst = options.connectFirst === true && kind !== 'new'
        if (connectFirst) run.willConnect()
        clients.push(runClient(run, kind, group, `${options.seed ?? 1}-${clients.length}`, random, connectFirst))
      }
    }
  }
  let stopped: Promise<LoadResult> | undefined
  const load: Load = {
    stats: () => run.tally.stats(),
    until: (condition, timeoutMs) => untilStats(load, () => stopped !== undefined, condition, timeoutMs),
    mark: async (name = outside) => run.tally.mark(name),
    stop: () => stopped ??= (async () => {
      run.stop()
      await Promise.all(clients)
      return run.tally.result()
    })()
  }
  return { load, tally: run.tally }
}

/** Load.until(), here and in another process. */
export async function untilStats(
  load: Load, isStopped: () => boolean, condition: (stats: LoadStats) => boolean, timeoutMs = 30_000
): Promise<LoadStats> {
  const deadline = nowMs() + timeoutMs
  for (;;) {
    const stats = load.stats()
    if (condition(stats)) return stats
    if (isStopped()) throw new Error(`the load was stopped before the condition held; it saw ${described(stats)}`)
    if (nowMs() > deadline) throw new Error(`this did not hold within ${timeoutMs} ms: ${shownCondition(condition)}; the load saw ${described(stats)}. Give it longer where the machine is busy, or see why the server does not get there`)
    await sleep(10)
  }
}

/** As it stands in the program, on one line. */
const shownCondition = (condition: (stats: LoadStats) => boolean): string => {
  const text = condition.toString().replace(/\s+/g, ' ')
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}

function described({ answers, lost, inFlight, versions, notes }: LoadStats): string {
  return JSON.stringify({ answers, lost, inFlight, versions: versions.map(({ version, pid }) => `${version} of ${pid}`), notes })
}

/** One GET on a connection of its own, for what a server answers before any load. Its status is for the caller to judge. Never rejects. */
export async function probe(target: Target, path = '/', timeoutMs = 30_000): Promise<Outcome> {
  const connection = await connect(target, timeoutMs, { closedIdle: () => {}, unexpected: () => {} })
  if (!(connection instanceof Connection)) return { failure: connection }
  const nextRequest = requestsOf('keep-alive', shapeOf('keep-alive', { clients: 1, path }), target, 'probe', seededRandom(1))
  const outcome = connection.open ? await connection.request(nextRequest(), timeoutMs) : { failure: closedAtOnce }
  connection.close()
  return outcome
}

/** One client, from its start to the stop. */
async function runClient(run: Run, kind: Kind, group: AnyGroup, id: string, random: Random, connectFirst: boolean): Promise<void> {
  const { tally, answerTimeoutMs } = run
  const { thinkMs = kind === 'new' ? 5 : 0, roundTripMs = 0, depth = 4 } = group
  const nextRequest = requestsOf(kind, shapeOf(kind, group), run.target, id, random)
  let connection: Connection | undefined
  if (connectFirst) {
    connection = await firstConnection(run, kind)
    await run.connected()
  }
  if (thinkMs > 0) await run.pause(random() * Math.min(thinkMs, 1000)) // so that they do not march in step

  while (!run.stopping && tally.isOn(kind)) {
    const startedAt = nowMs()
    const requests = Array.from({ length: kind === 'pipelined' ? depth : 1 }, nextRequest)
    for (const _ of requests) tally.begun(kind)
    if (connection?.open !== true) {
      const opened = await openConnection(run, kind)
      if (!(opened instanceof Connection)) {
        for (const _ of requests) tally.lost(kind, startedAt, opened, 0)
        await run.pause(pauseAfterLossMs)
        continue
      }
      connection = opened
    }
    const outcomes = !connection.open
      ? requests.map((): Outcome => ({ failure: closedAtOnce }))
      : kind === 'pipelined'
        ? await connection.pipeline(requests, answerTimeoutMs)
        : [await connection.request(requests[0]!, answerTimeoutMs, roundTripMs)]

    const right = outcomes.map((outcome, index) => judge(run, kind, startedAt, requests[index]!, outcome, connection!))
    if (kind === 'new') connection.close()
    else if (outcomes.some(({ answer }) => answer?.close)) tally.closed(kind, 'announced')
    const pauseMs = thinkMs * (0.75 + random() / 2)
    if (!right.every(Boolean)) await run.pause(Math.max(pauseMs, pauseAfterLossMs))
    else if (pauseMs > 0) await run.pause(pauseMs)
  }
  connection?.close()
}

/** Counts one outcome; true when it is the right answer. */
function judge(run: Run, kind: Kind, startedAt: number, request: Request, outcome: Outcome, connection: Connection): boolean {
  const lose = (failure: Failure): false => {
    run.tally.lost(kind, startedAt, failure, connection.requests, connection.localPort)
    return false
  }
  const { answer } = outcome
  if (answer === undefined) return lose(outcome.failure)
  const because = (reason: LossReason, error: string): false => lose({ reason, error, bytes: answer.bytes })
  if (run.expectStatus !== undefined) {
    if (answer.status !== run.expectStatus) return because('status', `status ${answer.status} instead of ${run.expectStatus}`)
  } else {
    if (run.tally.missing(kind, answer)) return false
    if (answer.status >= 400) return because('status', `status ${answer.status}`)
    const wrong = request.check(answer)
    if (wrong !== undefined) return because('wrong', wrong)
  }
  run.tally.answered(kind, startedAt, answer)
  return true
}

/** A connect without a request: where it fails, one is lost all the same. */
async function firstConnection(run: Run, kind: Kind): Promise<Connection | undefined> {
  const startedAt = nowMs()
  const opened = await openConnection(run, kind)
  if (opened instanceof Connection) return opened
  run.tally.begun(kind)
  run.tally.lost(kind, startedAt, opened, 0)
  return undefined
}

async function openConnection(run: Run, kind: Kind): Promise<Connection | Failure> {
  const { tally } = run
  let connection: Connection | undefined
  const opened = await connect(run.target, run.answerTimeoutMs, {
    closedIdle: (reset) => {
      if (kind !== 'new') tally.closed(kind, reset ? 'idleReset' : 'idle') // `new` asks for the close
    },
    unexpected: (failure) => tally.unexpected(kind, failure, connection?.requests ?? 0, connection?.localPort)
  })
  if (opened instanceof Connection) {
    connection = opened
    tally.opened(kind)
  }
  return opened
}

function shapeOf(kind: Kind, group: AnyGroup): RequestShape {
  const { path = '/', ms = kind === 'stream' ? 50 : 300, chunks = 10, bytes = 4096, pauseMs = 50 } = group
  return { path, ms, chunks, bytes, pauseMs }
}
