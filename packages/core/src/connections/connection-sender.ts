/**
 * The predecessor's side of a move: sends live connections to the successor, a few at a time, and keeps its own copy of each until the
 * successor says that it has it.
 *
 * What may move, and when, is decided elsewhere (departures.ts for HTTP, the application for its own protocols). Every connection that
 * comes here is held still: this process reads nothing from it and writes nothing to it while it is on its way.
 */

import { closeSync } from 'node:fs'
import { LoopBudget } from '../platform/loop-budget.js'
import { isTransient, maxFdsPerMessage } from '../platform/native.js'
import type { Channel } from '../protocol/channel.js'
import { withDeadline, type Deadline } from '../protocol/deadline.js'
import type { MovedConnection, Takes } from '../protocol/handover-messages.js'
import { maxLineBytes } from '../protocol/json-lines.js'
import type { StayReason } from './stay-reasons.js'
import { secretsFile, wipeSecrets, type TlsCargo } from './tls-cargo.js'

/** A connection that is held still. Exactly one of `left` and `back` is called. */
export interface OutgoingConnection {
  /** Undefined where it was closed meanwhile. */
  fd(): number | undefined
  readonly about: MovedConnection
  /** Wiped once it was sent, or the connection is back. */
  readonly tls?: TlsCargo | undefined
  /** It is on its way: only the successor's answer says which process has it. */
  sent(): void
  /** The successor has it: let go of this copy. */
  left(): void
  /** Closes this copy some time after `left()`: it takes long, and no client waits for it. */
  close?(): void
  /** It stays after all: go on with it. `refused`: the successor cannot take it, now or later. */
  back(refused?: boolean): void
}

/** Gives connections that can leave now, until there are no more or the budget is spent. Runs within one turn of the loop. */
export type ConnectionSource = (budget: LoopBudget) => Iterable<OutgoingConnection>

/**
 * The kernel allows a user as many descriptors in flight as RLIMIT_NOFILE (ETOOMANYREFS, unix(7)). This stays below. Where
 * the successor does not answer at once, its answer to a message takes as long as its connections.
 */
const atOnceLimits = { mostInFlight: 4 * maxFdsPerMessage, batchSize: maxFdsPerMessage }
const limits = { mostInFlight: 256, batchSize: 64 }
/** Of one message, well below `maxLineBytes`. */
const batchBytes = 262_144
/** How long copies stay open while the first connections move, and no longer: the client does not see a close by the successor. */
const closeAfterMs = 250
/** After the kernel took no descriptors for the moment. */
const againMs = 50

export class ConnectionSender {
  readonly #channel: Channel
  readonly #takes: Takes
  readonly #onEnd: (reason: StayReason) => void
  readonly #begun = performance.now()
  readonly #sources = new Set<ConnectionSource>()
  /** Held by the application's move(), and not sent yet. */
  #waiting: OutgoingConnection[] = []
  /** Sent and not answered, a batch for each message. */
  readonly #flying: OutgoingConnection[][] = []
  #inFlight = 0
  /** Have left, and are still open here. */
  readonly #copies = new Set<OutgoingConnection>()
  readonly #limits: typeof limits
  #room: number
  #pumping = false
  /** It has looked at all there was. */
  #passed = false
  #ended = false
  #answered: (() => void) | undefined
  /** Milliseconds until nothing more could move at once, for the report. */
  firstPassMs: number | null = null

  /** `onEnd`: nothing moves any more, and why. It comes after the last `back()`. */
  constructor(channel: Channel, takes: Takes, onEnd: (reason: StayReason) => void) {
    this.#channel = channel
    this.#takes = takes
    this.#room = takes.room
    this.#limits = takes.atOnce === true ? atOnceLimits : limits
    this.#onEnd = onEnd
  }

  takesListener(name: string, of: 'listeners' | 'http2' | 'tls' = 'listeners'): boolean {
    return !this.#ended && (this.#takes[of] ?? []).includes(name)
  }

  /** `secure`: under TLS. */
  takesKind(kind: string, secure = false): boolean {
    return !this.#ended && this.#takes.kinds.includes(kind) && (!secure || this.#takes.tls !== undefined)
  }

  add(source: ConnectionSource): void {
    this.#sources.add(source)
    this.wake()
  }

  remove(source: ConnectionSource): void {
    this.#sources.delete(source)
  }

  /** Takes one connection, now or when there is room. */
  send(connection: OutgoingConnection): void {
    if (this.#ended) return giveBack(connection)
    this.#waiting.push(connection)
    this.wake()
  }

  /** Something may be movable. Looks in the check phase: what had arrived has been read by then, and nothing is until it is over. */
  wake(): void {
    if (this.#pumping || this.#ended) return
    this.#pumping = true
    setImmediate(() => {
      this.#pumping = false
      this.#pump()
    })
  }

  #pump(): void {
    if (this.#ended) return
    if (this.#room <= 0) return this.end('noRoom')
    const budget = new LoopBudget()
    const most = Math.min(this.#room, this.#limits.mostInFlight - this.#inFlight)
    // In one piece: each shift() of a long list moves all that is behind.
    const found = this.#waiting.splice(0, Math.max(0, most))
    const full = (): boolean => found.length >= most
    let late = false
    for (const source of this.#sources) {
      if (full() || late) break
      for (const connection of source(budget)) {
        found.push(connection)
        if (full()) break
      }
      late = budget.isSpent
    }
    const stopped = full()
    this.#sendAll(found)
    // Without room the next turn ends it.
    if ((late && !stopped) || this.#room <= 0) this.wake()
    if (!late && !stopped) this.#passed = true
    this.#noteFirstPass()
  }

  /** Called whenever nothing may be in flight: the drain may end with the last answer, without another look. */
  #noteFirstPass(): void {
    if (this.#inFlight > 0) return
    this.#answered?.()
    if (this.#passed) this.firstPassMs ??= performance.now() - this.#begun
  }

  #sendAll(found: readonly OutgoingConnection[]): void {
    let [batch, fds, bytes]: [OutgoingConnection[], number[], number] = [[], [], 0]
    for (const connection of found) {
      const { about: { state = '', unread = '' } } = connection
      const size = state.length + unread.length
      if (batch.length === this.#limits.batchSize || (batch.length > 0 && bytes + size > batchBytes)) {
        this.#sendBatch(batch, fds)
        ;[batch, fds, bytes] = [[], [], 0]
      }
      // Unread bytes have no limit of their own: such a message would be too long to be read.
      const isTooLong = size > batchBytes && JSON.stringify(connection.about).length > maxLineBytes - 1_024
      const fd = this.#ended || isTooLong ? undefined : connection.fd()
      if (fd === undefined) {
        giveBack(connection)
        continue
      }
      batch.push(connection)
      fds.push(fd)
      bytes += size
    }
    if (batch.length > 0) this.#sendBatch(batch, fds)
  }

  #sendBatch(batch: OutgoingConnection[], fds: readonly number[]): void {
    const cargoes = batch.flatMap(({ tls }) => tls ?? [])
    let keys: number | undefined
    try {
      if (cargoes.length > 0) keys = secretsFile(cargoes)
      const connections = batch.map(({ about }) => about)
      this.#channel.send({ type: 'move', connections }, keys === undefined ? fds : [keys, ...fds])
    } catch (error) {
      // HTTP connections are tried again soon where the kernel takes no descriptors for the moment; a move() answers false.
      for (const connection of batch) connection.back()
      if (isTransient(error)) setTimeout(() => { this.wake() }, againMs).unref()
      else this.end({ text: `descriptors cannot be sent: ${(error as Error).message}` })
      return
    } finally {
      if (keys !== undefined) closeSync(keys)
      for (const cargo of cargoes) wipeSecrets(cargo.secrets)
    }
    this.#inFlight += batch.length
    this.#room -= batch.length
    this.#flying.push(batch)
    for (const connection of batch) connection.sent()
  }

  /** The successor's answer to the oldest batch: it has the first `count`, but for those in `back`, which are numbered from 0. */
  taken(count: number, back: readonly number[] = []): void {
    const batch = this.#flying.shift()
    if (!batch) return
    this.#inFlight -= batch.length
    for (const [index, connection] of batch.entries()) {
      if (index >= count) connection.back()
      else if (back.includes(index)) connection.back(true)
      else this.#leave(connection)
    }
    this.#noteFirstPass()
    if (count < batch.length) this.end(count === 0 ? 'takesNoMore' : 'outOfDescriptors')
    else this.wake()
  }

  #leave(connection: OutgoingConnection): void {
    connection.left()
    if (!connection.close) return
    if (this.#copies.size === 0) setTimeout(() => { void this.closed() }, this.firstPassMs === null ? closeAfterMs : 0)
    this.#copies.add(connection)
  }

  /** Closes all copies. Resolves then: the program's own cleanup may count the connections of its server. */
  async closed(): Promise<void> {
    const budget = new LoopBudget()
    for (const connection of this.#copies) {
      this.#copies.delete(connection)
      connection.close?.()
      await budget.nextTurn()
    }
  }

  /** Ends the moves. Resolves when the successor, which lives, has answered for what is on its way, or at the deadline. */
  async halt(reason: StayReason, deadline: Deadline): Promise<void> {
    this.end(reason)
    if (this.#inFlight === 0) return
    await withDeadline(new Promise<void>((resolve) => { this.#answered = resolve }), deadline)
  }

  /** Nothing moves any more. What is on its way may still be answered, unless the successor is `gone`. */
  end(reason: StayReason, gone = false): void {
    const first = !this.#ended
    this.#ended = true
    const back = [...(gone ? this.#flying.splice(0).flat() : []), ...this.#waiting.splice(0)]
    if (gone) this.#inFlight = 0
    for (const connection of back) giveBack(connection)
    // A copy would keep a connection open that nobody serves any more: its client sees the end now.
    if (gone) void this.closed()
    if (first) this.#onEnd(reason)
  }
}

function giveBack(connection: OutgoingConnection): void {
  if (connection.tls) wipeSecrets(connection.tls.secrets)
  connection.back()
}
