/**
 * The predecessor's side of a move: sends live connections to the successor, a few at a time, and keeps its own copy of each until the
 * successor says that it has it.
 *
 * What may move, and when, is decided elsewhere (drain.ts for HTTP, the application for its own protocols): here every connection is
 * already held still, so that nothing is read from it or written to it by this process while it is on its way.
 */

import { LoopBudget } from '../platform/loop-budget.js'
import { isTransient } from '../platform/native.js'
import type { Channel } from '../protocol/channel.js'
import { withDeadline, type Deadline } from '../protocol/deadline.js'
import type { MovedConnection, Takes } from '../protocol/handover-messages.js'
import { maxLineBytes } from '../protocol/json-lines.js'

/** A connection that is held still. Exactly one of `left` and `back` is called. */
export interface Leaving {
  /** Undefined where it was closed meanwhile. */
  fd(): number | undefined
  readonly about: MovedConnection
  /** It is on its way: from here on only the successor's answer says whose it is. */
  sent(): void
  /** The successor has it: let go of this copy. */
  left(): void
  /** It stays after all: go on with it. `refused`: the successor cannot take it, now or later. */
  back(refused?: boolean): void
}

/** Gives connections that can leave now, until there are no more or the budget is spent. Runs within one turn of the loop. */
export type Source = (budget: LoopBudget) => Iterable<Leaving>

/** The kernel allows a user as many descriptors in flight as RLIMIT_NOFILE (ETOOMANYREFS, unix(7)); it need never come near. */
const mostInFlight = 256
const batchSize = 64
/** Of one message, well below `maxLineBytes`. */
const batchBytes = 262_144
/** After the kernel did not take descriptors at this moment. */
const againMs = 50

export class ConnectionSender {
  readonly #channel: Channel
  readonly #takes: Takes
  readonly #sources = new Set<Source>()
  /** Sent and not answered, a batch for each message. */
  readonly #flying: Leaving[][] = []
  /** Held by the application's move(), and not sent yet. */
  #waiting: Leaving[] = []
  #inFlight = 0
  #room: number
  #pumping = false
  /** It has looked at all there was. */
  #passed = false
  #ended: string | undefined
  #answered: (() => void) | undefined
  readonly #onEnd: (reason: string) => void
  readonly #begun = performance.now()
  /** Milliseconds until nothing more could move at once, for the report. */
  firstPassMs: number | null = null

  /** `onEnd`: nothing moves any more, and why. It comes after the last `back()`. */
  constructor(channel: Channel, takes: Takes, onEnd: (reason: string) => void) {
    this.#channel = channel
    this.#takes = takes
    this.#room = takes.room
    this.#onEnd = onEnd
  }

  /** Why nothing moves any more. */
  get ended(): string | undefined {
    return this.#ended
  }

  takesListener(name: string): boolean {
    return this.#ended === undefined && this.#takes.listeners.includes(name)
  }

  takesKind(kind: string): boolean {
    return this.#ended === undefined && this.#takes.kinds.includes(kind)
  }

  add(source: Source): void {
    this.#sources.add(source)
    this.wake()
  }

  remove(source: Source): void {
    this.#sources.delete(source)
  }

  /** Takes one connection, now or when there is room. */
  send(leaving: Leaving): void {
    if (this.#ended !== undefined) {
      leaving.back()
      return
    }
    this.#waiting.push(leaving)
    this.wake()
  }

  /** Something may be movable. Looks in the check phase: what had arrived has been read by then, and nothing is until it is over. */
  wake(): void {
    if (this.#pumping || this.#ended !== undefined) return
    this.#pumping = true
    setImmediate(() => {
      this.#pumping = false
      this.#pump()
    })
  }

  #pump(): void {
    if (this.#ended !== undefined) return
    if (this.#room <= 0) {
      this.end('the successor has no room for more descriptors')
      return
    }
    const budget = new LoopBudget()
    const found: Leaving[] = []
    const full = (): boolean => found.length >= this.#room || this.#inFlight + found.length >= mostInFlight
    while (this.#waiting.length > 0 && !full()) found.push(this.#waiting.shift()!)
    let late = false
    for (const source of this.#sources) {
      if (full() || late) break
      for (const leaving of source(budget)) {
        found.push(leaving)
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

  /** Whenever nothing is in flight: the drain may end with the last answer, and the next look never comes. */
  #noteFirstPass(): void {
    if (this.#inFlight === 0) this.#answered?.()
    if (this.#passed && this.#inFlight === 0) this.firstPassMs ??= performance.now() - this.#begun
  }

  #sendAll(found: readonly Leaving[]): void {
    let batch: Leaving[] = []
    let bytes = 0
    for (const leaving of found) {
      const size = (leaving.about.state?.length ?? 0) + (leaving.about.unread?.length ?? 0)
      // As a message it would be too long to be read: unread bytes have no limit of their own.
      if (size > batchBytes && JSON.stringify(leaving.about).length > maxLineBytes - 1_024) {
        leaving.back()
        continue
      }
      if (batch.length === batchSize || (batch.length > 0 && bytes + size > batchBytes)) {
        this.#sendBatch(batch)
        batch = []
        bytes = 0
      }
      batch.push(leaving)
      bytes += size
    }
    if (batch.length > 0) this.#sendBatch(batch)
  }

  #sendBatch(found: readonly Leaving[]): void {
    const batch: Leaving[] = []
    const fds: number[] = []
    for (const leaving of found) {
      const fd = this.#ended === undefined ? leaving.fd() : undefined
      if (fd === undefined) {
        leaving.back()
        continue
      }
      batch.push(leaving)
      fds.push(fd)
    }
    if (batch.length === 0) return
    try {
      this.#channel.send({ type: 'move', connections: batch.map(({ about }) => about), refusable: true }, fds)
    } catch (error) {
      // The kernel takes no more descriptors at this moment, for one. HTTP connections are tried again soon; a move() answers false.
      for (const leaving of batch) leaving.back()
      if (isTransient(error)) setTimeout(() => { this.wake() }, againMs).unref()
      else this.end(`descriptors cannot be sent: ${(error as Error).message}`)
      return
    }
    this.#inFlight += batch.length
    this.#room -= batch.length
    this.#flying.push(batch)
    for (const leaving of batch) leaving.sent()
  }

  /** The successor's answer to the oldest batch: it has the first `count`, but for those in `back`, which are numbered from 0. */
  taken(count: number, back: readonly number[] = []): void {
    const batch = this.#flying.shift()
    if (!batch) return
    this.#inFlight -= batch.length
    for (const [index, leaving] of batch.entries()) {
      if (index >= count) leaving.back()
      else if (back.includes(index)) leaving.back(true)
      else leaving.left()
    }
    this.#noteFirstPass()
    if (count < batch.length) this.end(count === 0 ? 'the successor takes no more' : 'the successor ran out of descriptors')
    else this.wake()
  }

  /** Nothing moves any more. Resolves when the successor, which lives, has answered for what is on its way, or at the deadline. */
  async halt(reason: string, deadline: Deadline): Promise<void> {
    this.end(reason)
    if (this.#inFlight === 0) return
    await withDeadline(new Promise<void>((resolve) => { this.#answered = resolve }), deadline)
  }

  /** Nothing moves any more. What is on its way may still be answered, unless the successor is `gone`. */
  end(reason: string, gone = false): void {
    const first = this.#ended === undefined
    this.#ended ??= reason
    const back = [...(gone ? this.#flying.splice(0).flat() : []), ...this.#waiting.splice(0)]
    if (gone) this.#inFlight = 0
    for (const leaving of back) leaving.back()
    if (first) this.#onEnd(reason)
  }
}
