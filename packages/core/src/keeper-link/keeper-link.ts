/**
 * A worker's side of the link to its keeper: it sends what this process does and copies of its listeners, and passes on what the keeper
 * wants.
 *
 * It decides nothing: the generation does. When the keeper is gone, the process goes on as one without a keeper.
 */

import { closeSync } from 'node:fs'
import { HandoverError } from '../errors.js'
import { isChannel } from '../platform/environment.js'
import { keeperMark, parseKeeperMark } from '../platform/marks.js'
import { openChannel, type Channel } from '../protocol/channel.js'
import type { ProcessStatus } from '../protocol/control-messages.js'
import type { Received } from '../protocol/descriptors.js'
import { socketsOf, type MessageOf, type OfferedListener, type OfferedSocket } from '../protocol/handover-messages.js'
import {
  keeperProtocol, keeperMessages, type CountedBy, type CountFile, type KeeperMessage, type Spoken, type Wishes, type WorkerMessage
} from '../protocol/keeper-messages.js'
import type { LifecycleState } from '../protocol/lifecycle.js'
import { errorOf, errorReport } from '../protocol/reload-outcome.js'
import type { Report } from '../protocol/report.js'

/**
 * The keeper waits for the other processes no longer than a second. This process waits longer: without the keeper's answer a total could go
 * backwards.
 */
const gatherMs = 5_000

/** What the keeper wants (keeper-messages.ts). Descriptors belong to the one who is called, where nothing else is said. */
export interface KeeperLinkSide {
  /** `channel`: the two descriptors of the channel to the successor, process `pid`. `more`: listeners to be offered as well. */
  reload(pid: number, channel: readonly [number, number], more: readonly OfferedSocket[], options: Wishes): void
  recall(reason: string): void
  settle(): void
  cover(listeners: readonly OfferedSocket[]): void
  probe(listener: string, fd: number): void
  stop(last: boolean, signal: string | undefined): void
  status(): ProcessStatus
  /** `answer` may be called later, or never where this process counts nothing of the topic; its descriptor stays the caller's. */
  tell(topic: string, answer: (snapshot: CountedBy, fd: number) => void): void
  /** May be called for a process that is counted in already. */
  inherit(topic: string, of: string, fd: number): void
  /** The keeper is gone; `expected`: it said so before, and another one comes. */
  gone(expected: boolean): void
  warn(line: string): void
}

/** The names of listeners: taken over, new, and not listened on any more. */
type Claims = Pick<MessageOf<'ready'>, 'kept' | 'added' | 'dropped'>

/** What is done for each message of the keeper. */
type Actions = { readonly [T in KeeperMessage['type']]: (message: Extract<KeeperMessage, { type: T }>, fds: readonly number[]) => void }

export class KeeperLink {
  readonly slot: number
  readonly keeper: number
  /** Of the app, as the keeper calls it. */
  readonly name: string
  #leaving = false
  #replaced = false
  /** The keeper has hung up. */
  #over = false
  readonly #line: Channel<KeeperMessage, WorkerMessage>
  readonly #side: KeeperLinkSide
  readonly #answerMs: number
  #gate: ((veto: string | undefined) => void) | undefined
  readonly #wanting = new Map<number, (outcome: HandoverError | undefined) => void>()
  #wants = 0
  readonly #gathering = new Map<number, (counted: CountFile[] | undefined) => void>()
  #gathers = 0

  constructor({ line, slot, keeper, name }: KeeperSeat, side: KeeperLinkSide, answerMs = gatherMs) {
    this.#answerMs = answerMs
    this.#line = line
    this.slot = slot
    this.keeper = keeper
    this.name = name
    this.#side = side
    line.unref()
    line.send({ type: 'hello', protocol: keeperProtocol, pid: process.pid })
    void this.#hear()
  }

  async #hear(): Promise<void> {
    await this.#line.hearAll((received) => { this.#heard(received) }, (what) => { this.#side.warn(`the keeper said ${what}`) })
    this.#over = true
    this.#line.close()
    this.#gate?.(undefined)
    for (const resolve of [...this.#gathering.values()]) resolve(undefined)
    this.#answerWanting(undefined, new HandoverError('HANDOVER_UNAVAILABLE', {
      what: 'the keeper is gone', serving: 'This process serves on', todo: 'Start the keeper again'
    }))
    if (!this.#replaced) this.#side.gone(this.#leaving)
  }

  /** Another keeper has this process now. */
  replace(): void {
    this.#replaced = true
    this.#line.close()
  }

  #heard({ message, fds, missing }: Received<KeeperMessage>): void {
    if (missing) {
      this.#side.warn(`the keeper sent ${missing.counted} descriptors, and ${missing.arrived} arrived: raise the limit of open files (ulimit -n)`)
      this.#lacks(message)
    } else {
      (this.#actions[message.type] as (message: KeeperMessage, fds: readonly number[]) => void)(message, fds)
    }
  }

  readonly #actions: Actions = {
    proceed: () => { this.#gate?.(undefined) },
    veto: ({ reason }) => { this.#gate?.(reason) },
    probe: ({ listener }, fds) => { this.#side.probe(listener, fds[0]!) },
    reload: ({ pid, listeners, withoutState, allowDrop }, fds) => {
      this.#side.reload(pid, [fds[0]!, fds[1]!], socketsOf(listeners, fds.slice(2)), { withoutState, allowDrop })
    },
    recall: ({ reason }) => { this.#side.recall(reason) },
    settle: () => { this.#side.settle() },
    cover: ({ listeners }, fds) => { this.#side.cover(socketsOf(listeners, fds)) },
    stop: ({ last, signal }) => { this.#side.stop(last, signal) },
    leave: () => { this.#leaving = true },
    ask: ({ id }) => { this.#line.send({ type: 'status', id, status: this.#side.status() }) },
    tell: ({ id, topic }) => { this.#side.tell(topic, (snapshot, fd) => { this.#deliver({ type: 'told', id, topic, snapshot }, fd) }) },
    gathered: ({ id, ids }, fds) => { this.#gathered(id, ids.map((of, index) => ({ of, fd: fds[index]! }))) },
    inherit: ({ topic, of }, fds) => { this.#side.inherit(topic, of, fds[0]!) },
    outcome: ({ id, ok, stderr = '', ...error }) => { this.#answerWanting(id, ok ? undefined : errorOf({ ...error, stderr })) }
  }

  /** A second reload is refused while the first one runs. Without an `id` all hear it. */
  #answerWanting(id: number | undefined, outcome: HandoverError | undefined): void {
    for (const [wish, resolve] of this.#wanting) if (id === undefined || id === wish) resolve(outcome)
  }

  /** Not all descriptors of the message arrived, so it cannot be followed: whoever waits for what comes of it is told. */
  #lacks(message: KeeperMessage): void {
    if (message.type === 'gathered') this.#gathering.get(message.id)?.(undefined)
    if (message.type !== 'reload') return
    this.failed(new HandoverError('HANDOVER_FD_TRUNCATED', {
      what: `process ${process.pid} could not take the descriptors of its successor's channel`,
      serving: 'It serves on', todo: 'Raise the limit of open files (ulimit -n)'
    }), message.pid)
  }

  state(state: LifecycleState, generation: number): void {
    this.#line.send({ type: 'state', state, generation })
  }

  /** Resolves with why this process must not serve; undefined where it may, also where the keeper is gone. */
  async booted(claims: Claims, speaks: readonly Spoken[]): Promise<string | undefined> {
    // Nothing else keeps a process alive that accepts nothing yet and whose predecessor has died.
    this.#line.ref()
    const veto = await new Promise<string | undefined>((resolve) => {
      this.#gate = resolve
      this.#line.send({ type: 'booted', ...claims, speaks })
    })
    this.#line.unref()
    return veto
  }

  /** It will not serve: `booted` resolves. */
  waitNoMore(): void {
    this.#gate?.(undefined)
  }

  serves(listeners: readonly OfferedListener[], fds: readonly number[]): void {
    this.#line.send({ type: 'serves', listeners }, fds)
  }

  report(report: Report): void {
    this.#line.send({ type: 'report', report })
  }

  /** The handover to process `successor` failed. */
  failed(error: HandoverError, successor: number): void {
    this.#line.send({ type: 'failed', successor, ...errorReport(error) })
  }

  // ---- what travels as a file; the descriptor stays the caller's, who may close it as soon as the call returns ----

  /** For the next process of this slot, where this one dies. False where the keeper does not get it: it keeps the one before. */
  checkpoint(name: string, fd: number, bytes: number): boolean {
    return this.#deliver({ type: 'checkpoint', name, bytes }, fd)
  }

  /** The last counts of a process that ends without a successor. False where the keeper does not get them. */
  tally(topic: string, snapshot: CountedBy, fd: number): boolean {
    return this.#deliver({ type: 'tally', topic, snapshot }, fd)
  }

  /**
   * What all others count, and what ended processes have counted; the keeper remembers what this process counts. Undefined where the keeper
   * is gone, or silent.
   */
  async gather(topic: string, snapshot: CountedBy, fd: number): Promise<CountFile[] | undefined> {
    const id = ++this.#gathers
    return await new Promise((resolve) => {
      const end = (counted: CountFile[] | undefined): void => {
        clearTimeout(timer)
        this.#gathering.delete(id)
        resolve(counted)
      }
      // If this event loop was blocked, the answer has arrived already, and is read before the immediate.
      const timer = setTimeout(() => setImmediate(end, undefined), this.#answerMs)
      this.#gathering.set(id, end)
      if (this.#over || !this.#deliver({ type: 'gather', id, topic, snapshot }, fd)) end(undefined)
    })
  }

  #gathered(id: number, counted: CountFile[]): void {
    const end = this.#gathering.get(id)
    if (end) end(counted)
    // Too late.
    else for (const { fd } of counted) closeSync(fd)
  }

  /** A keeper that does not read for a while (EAGAIN), or a limit of the system, must not become an error of the application. */
  #deliver(message: WorkerMessage, fd: number): boolean {
    try {
      this.#line.send(message, [fd])
      return true
    } catch {
      return false
    }
  }

  /** Asks the keeper for a reload. Resolves when it is done, with the error where it failed. */
  async wants(wishes: Wishes): Promise<HandoverError | undefined> {
    const id = ++this.#wants
    const outcome = new Promise<HandoverError | undefined>((resolve) => { this.#wanting.set(id, resolve) })
    this.#line.send({ type: 'wants', id, ...wishes })
    return await outcome.finally(() => { this.#wanting.delete(id) })
  }
}

/** The keeper of this process, and the slot that the process has there. */
export interface KeeperSeat {
  readonly line: Channel<KeeperMessage, WorkerMessage>
  readonly slot: number
  /** A pid. */
  readonly keeper: number
  readonly name: string
}

/** The seat that this process was started with. Reads and removes the mark. */
export function takeSeat(env: NodeJS.ProcessEnv): KeeperSeat | undefined {
  const mark = parseKeeperMark(env[keeperMark] ?? '')
  Reflect.deleteProperty(env, keeperMark)
  if (!mark || !isChannel(mark.messages, mark.descriptors)) return undefined
  const { messages, descriptors, slot, keeper, name } = mark
  return { line: openChannel(messages, descriptors, keeperMessages), slot, keeper, name }
}
