/**
 * A worker's side of the line to its keeper. It says what this process does and passes on copies of its listeners; it hears what the keeper
 * wants.
 *
 * Nothing here decides: the generation does. Where the keeper is gone, the process goes on as one without.
 */

import { closeSync } from 'node:fs'
import { HandoverError, isErrorCode } from '../errors.js'
import { keeperMark, parseKeeperMark } from '../platform/marks.js'
import { native } from '../platform/native.js'
import { openChannel, type Channel } from '../protocol/channel.js'
import type { Received } from '../protocol/descriptors.js'
import type { ProcessStatus } from '../protocol/control-messages.js'
import type { OfferedListener } from '../protocol/handover-messages.js'
import { keeperProtocol, keeperMessages, type CountedBy, type KeeperMessage, type Spoken, type Wishes, type WorkerMessage } from '../protocol/keeper-messages.js'
import type { LifecycleState } from '../protocol/lifecycle.js'
import { errorReport } from '../protocol/reload-outcome.js'
import type { Report } from '../protocol/report.js'
import { passed, type PassedListener } from './passed-listener.js'

/**
 * The keeper waits for the other processes no longer than a second. This process waits longer: without the keeper's answer a total could go
 * backwards.
 */
const gatherMs = 5_000

export interface KeeperLinkSide {
  /** Hand over by this channel, whose two descriptors belong to the one who hears this; these listeners are offered as well. */
  reload(pid: number, channel: readonly [number, number], more: readonly PassedListener[], options: Wishes): void
  recall(reason: string): void
  settle(): void
  cover(listeners: readonly PassedListener[]): void
  probe(listener: string, fd: number): void
  /** `signal`: what the keeper itself was stopped with. */
  stop(last: boolean, signal: string | undefined): void
  status(): ProcessStatus
  /**
   * What does this process count? `answer` may be called later, or never where it counts nothing of this topic; the descriptor stays the
   * caller's.
   */
  tell(topic: string, answer: (snapshot: CountedBy, fd: number) => void): void
  /**
   * What a process counted that is gone: it is this one's from now on. The descriptor belongs to the one who hears this. May be said of a
   * process that is counted in already.
   */
  inherit(topic: string, of: string, fd: number): void
  /** The keeper is gone; `expected`: it said so before, and another one comes. */
  gone(expected: boolean): void
  warn(line: string): void
}

/** What another process counts: a file, whose descriptor belongs to the one who is given it. `of`: the process's id. */
export interface Counted {
  readonly of: string
  readonly fd: number
}

/** The names of listeners: taken over, new, and not listened on any more. */
export interface Claims {
  readonly kept: readonly string[]
  readonly added: readonly string[]
  readonly dropped: readonly string[]
}

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
  readonly #wanting: ((outcome: HandoverError | undefined) => void)[] = []
  readonly #gathering = new Map<number, (counted: Counted[] | undefined) => void>()
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
    for (const resolve of this.#wanting.splice(0)) resolve(new HandoverError('HANDOVER_UNAVAILABLE', 'the keeper is gone. This process serves on. Start the keeper again.'))
    if (!this.#replaced) this.#side.gone(this.#leaving)
  }

  /** Another keeper has this process now. */
  replace(): void {
    this.#replaced = true
    this.#line.close()
  }

  #heard({ message: word, fds, missing }: Received<KeeperMessage>): void {
    const side = this.#side
    if (missing) {
      side.warn(`the keeper sent ${missing.counted} descriptors, and ${missing.arrived} arrived: raise the limit of open files (ulimit -n)`)
      this.#lacks(word)
      return
    }
    switch (word.type) {
      case 'proceed':
        this.#gate?.(undefined)
        break
      case 'veto':
        this.#gate?.(word.reason)
        break
      case 'probe':
        side.probe(word.listener, fds[0]!)
        break
      case 'reload':
        side.reload(word.pid, [fds[0]!, fds[1]!], passed(word.listeners, fds.slice(2)), {
          withoutState: word.withoutState ?? false, allowDrop: word.allowDrop ?? false
        })
        break
      case 'recall':
        side.recall(word.reason)
        break
      case 'settle':
        side.settle()
        break
      case 'cover':
        side.cover(passed(word.listeners, fds))
        break
      case 'stop':
        side.stop(word.last, word.signal)
        break
      case 'leave':
        this.#leaving = true
        break
      case 'ask':
        this.#line.send({ type: 'status', id: word.id, status: side.status() })
        break
      case 'tell':
        side.tell(word.topic, (snapshot, fd) => { this.#deliver({ type: 'told', id: word.id, topic: word.topic, snapshot }, fd) })
        break
      case 'gathered':
        this.#gathered(word.id, word.ids.map((of, index) => ({ of, fd: fds[index]! })))
        break
      case 'inherit':
        side.inherit(word.topic, word.of, fds[0]!)
        break
      case 'outcome':
        for (const resolve of this.#wanting.splice(0)) resolve(word.ok ? undefined : new HandoverError(isErrorCode(word.code) ? word.code : 'HANDOVER_SUCCESSOR_FAILED', word.message))
    }
  }

  /** Not all descriptors of the word arrived: the keeper must not wait for what cannot come of it, nor must this process. */
  #lacks(word: KeeperMessage): void {
    if (word.type === 'gathered') this.#gathering.get(word.id)?.(undefined)
    if (word.type !== 'reload') return
    this.failed(new HandoverError('HANDOVER_FD_TRUNCATED', {
      what: `process ${process.pid} could not take the descriptors of its successor's channel`,
      serving: 'It serves on', todo: 'Raise the limit of open files (ulimit -n)'
    }), word.pid)
  }

  state(state: LifecycleState, generation: number): void {
    this.#line.send({ type: 'state', state, generation })
  }

  /** Resolves with why this process must not serve; undefined where it may, also where the keeper is gone. */
  async booted(claims: Claims, speaks: readonly Spoken[]): Promise<string | undefined> {
    // Nothing else holds a process that accepts nothing yet and whose predecessor has died.
    this.#line.ref()
    const veto = await new Promise<string | undefined>((resolve) => {
      this.#gate = resolve
      this.#line.send({ type: 'booted', ...claims, speaks })
    })
    this.#line.unref()
    return veto
  }

  serves(listeners: readonly OfferedListener[], fds: readonly number[]): void {
    this.#line.send({ type: 'serves', listeners }, fds)
  }

  report(report: Report): void {
    this.#line.send({ type: 'report', report })
  }

  /** Of a handover to process `successor`. */
  failed(error: HandoverError, successor: number): void {
    this.#line.send({ type: 'failed', successor, ...errorReport(error) })
  }

  // ---- what travels as a file; the descriptor stays the caller's, who may close it as soon as the call returns ----

  /**
   * Of a section, for the next process of this slot where this one dies. False where the keeper does not get it: it keeps the one before.
   */
  checkpoint(name: string, fd: number, bytes: number): boolean {
    return this.#deliver({ type: 'checkpoint', name, bytes }, fd)
  }

  /** What this process has counted at last, where it ends without a successor. False where the keeper does not get it. */
  tally(topic: string, snapshot: CountedBy, fd: number): boolean {
    return this.#deliver({ type: 'tally', topic, snapshot }, fd)
  }

  /**
   * What all others count, and what those that are gone have counted; the keeper remembers what this process counts. Undefined where the
   * keeper is gone, or silent.
   */
  async gather(topic: string, snapshot: CountedBy, fd: number): Promise<Counted[] | undefined> {
    const id = ++this.#gathers
    return await new Promise((resolve) => {
      const end = (counted: Counted[] | undefined): void => {
        clearTimeout(timer)
        this.#gathering.delete(id)
        resolve(counted)
      }
      // Where it was this event loop that was blocked, the answer lies there already, and is read before the immediate.
      const timer = setTimeout(() => setImmediate(end, undefined), this.#answerMs)
      this.#gathering.set(id, end)
      if (this.#over || !this.#deliver({ type: 'gather', id, topic, snapshot }, fd)) end(undefined)
    })
  }

  #gathered(id: number, counted: Counted[]): void {
    const end = this.#gathering.get(id)
    if (end) end(counted)
    // It came too late.
    else for (const { fd } of counted) closeSync(fd)
  }

  /** A keeper that does not read for a while (EAGAIN), or a limit of the system, must not become an error of the application. */
  #deliver(word: WorkerMessage, fd: number): boolean {
    try {
      this.#line.send(word, [fd])
      return true
    } catch {
      return false
    }
  }

  /** Asks the keeper for a reload. Resolves when it is done, with the error where it failed. */
  async wants({ withoutState, allowDrop }: Wishes): Promise<HandoverError | undefined> {
    return await new Promise((resolve) => {
      this.#wanting.push(resolve)
      this.#line.send({ type: 'wants', ...(withoutState && { withoutState }), ...(allowDrop && { allowDrop }) })
    })
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

/** The line that this process was started with. Reads and removes the mark. */
export function takeSeat(env: NodeJS.ProcessEnv): KeeperSeat | undefined {
  const mark = parseKeeperMark(env[keeperMark] ?? '')
  Reflect.deleteProperty(env, keeperMark)
  if (!mark || !native) return undefined
  const { messages, descriptors, slot, keeper, name } = mark
  // Inherited by accident (a program that copied its environment): then these are not sockets of ours.
  if ([messages, descriptors].some((fd) => typeof native?.peerCredentials(fd) === 'number')) return undefined
  return { line: openChannel(messages, descriptors, keeperMessages), slot, keeper, name }
}
