/**
 * The checkpoints that workers send: files with a part of their state, for the next process of their slot where they crash. The keeper
 * holds descriptors of them and never looks inside.
 *
 * A worker's own are worth nothing when it has handed over, or ended in order: then its state went along, or was given up. When it crashes
 * they are *left* to its slot, and offered to every start there until the worker that got them has sent one of its own, or has served for a
 * while.
 *
 * What was left may be what kills those who get it. After two that served and crashed it is dropped. After two starts in a row that had it
 * and ended before they served the next one goes without: where that serves, what was left is dropped; where that fails as well, something
 * else is wrong (or also is), and what was left is offered again, twice as often as before until the next start without it. So a database
 * that is down for an hour hardly costs state, and a bad checkpoint no service.
 */

import { addon, check, closeLater, listed, type CheckpointStatus, type PredecessorSide } from '@handover/core/internal'
import { cut, duration, printable } from '../text.js'

/** In a slot: of one worker, and of those that crashed. */
export const mostCheckpoints = 64
const longestName = 256
/**
 * A worker that served for that long without a checkpoint of its own will send none: after it, what a former process left is too old to be
 * good for anybody.
 */
const keptMs = 300_000
/** How often a worker that got it may serve and crash without one of its own: then it may be the checkpoint that makes it crash. */
const mostCrashes = 2
/** How many starts in a row get it and end before they serve, until one goes without; and at most, where those without it fail too. */
const fewestTries = 2
const mostTries = 8
/** In one line for people. */
const mostShown = 8
const longestShown = 40

/** As the next keeper gets it, with its descriptor beside. */
export interface SavedCheckpoint {
  readonly slot: number
  /** Of the worker that sent it; null where that has crashed. */
  readonly pid: number | null
  readonly name: string
  readonly bytes: number
  /** As Date.now(). */
  readonly at: number
  /** How many workers got it, served, and crashed. */
  readonly crashes: number
}

interface Held extends SavedCheckpoint {
  readonly fd: number
}

type Sections = PredecessorSide['sections']

/** To a start where nobody serves. */
export interface CheckpointOffer extends Sections {
  /** What was left and is not offered. */
  readonly withheld: readonly string[]
  /** The user wants it without. */
  readonly asked: boolean
}

/** Starts in a slot that ended before they served. */
interface Tries {
  /** With what was left: since the last one without. */
  row: number
  /** So many, and the next one goes without. */
  most: number
  /** With what was left, in all. */
  offered: number
}

export class CheckpointStore {
  #held: Held[] = []
  readonly #warn: (line: string) => void
  readonly #keptMs: number
  /** Slots whose worker serves with what was left there. */
  readonly #serving = new Map<number, NodeJS.Timeout>()
  readonly #tries = new Map<number, Tries>()
  #saidFull = false

  constructor(warn: (line: string) => void, afterMs = keptMs) {
    this.#warn = warn
    this.#keptMs = afterMs
  }

  /** The latest one of this worker; the descriptor is owned from here on. */
  hold(slot: number, pid: number, name: string, bytes: number, fd: number): void {
    const isReplaced = (held: Held): boolean => held.slot === slot && held.name === name && (held.pid === pid || held.pid === null)
    const others = this.#held.filter((held) => held.slot === slot && held.pid === pid && held.name !== name)
    if (others.length >= mostCheckpoints || name.length > longestName) {
      void closeLater(fd)
      if (!this.#saidFull) this.#warn(`process ${pid} sends checkpoints of more than ${mostCheckpoints} sections, or with names of more than ${longestName} characters: those are not kept. This is said once.`)
      this.#saidFull = true
      return
    }
    this.#close(isReplaced)
    this.#held.push({ slot, pid, name, bytes, at: Date.now(), crashes: 0, fd })
  }

  /** The worker that served is gone unasked: what it sent is left to the slot. */
  crashed(slot: number, pid: number): void {
    const served = this.#stopWaiting(slot)
    if (served) this.#held = this.#held.map((held) => (held.slot === slot && held.pid === null ? { ...held, crashes: held.crashes + 1 } : held))
    const own = new Set(this.#held.filter((held) => held.slot === slot && held.pid === pid).map(({ name }) => name))
    this.#close((held) => held.slot === slot && held.pid === null && own.has(held.name))
    this.#held = this.#held.map((held) => (held.slot === slot && held.pid === pid ? { ...held, pid: null } : held))
    // So many names of several processes, one after the other.
    const left = this.#left(slot).sort((a, b) => b.at - a.at)
    const surplus = new Set(left.slice(mostCheckpoints))
    this.#close((held) => surplus.has(held))
    const bad = left.filter(({ crashes }) => crashes >= mostCrashes)
    if (bad.length === 0) return
    this.#close((held) => bad.includes(held))
    this.#warn(`${mostCrashes} workers of slot ${slot} crashed soon after they had begun to serve with the checkpoint of ${listed(bad.map(({ name }) => name))}: the next one starts without`)
  }

  /** It handed over, or ended in order. */
  forget(slot: number, pid: number): void {
    this.#close((held) => held.slot === slot && held.pid === pid)
  }

  /** What was left to the slot is of no use any more: its state lives in a process, which has handed it on. */
  forgetLeft(slot: number): void {
    this.#stopWaiting(slot)
    this.#tries.delete(slot)
    this.#close((held) => held.slot === slot && held.pid === null)
  }

  /** The slot goes away. */
  drop(slot: number): void {
    this.#stopWaiting(slot)
    this.#tries.delete(slot)
    this.#close((held) => held.slot === slot)
  }

  /** What the next process of the slot is to be offered where nobody hands over to it. `asked`: to start without what was left. */
  offerFor(slot: number, asked = false): CheckpointOffer {
    const left = this.#left(slot).map(({ name }) => name)
    const offers = !asked && this.#offers(slot)
    return {
      names: offers ? left : [],
      withheld: offers ? [] : left,
      asked,
      save: (name) => {
        const found = this.#held.find((held) => held.slot === slot && held.pid === null && held.name === name)
        if (!found) return Promise.reject(new Error('the keeper does not hold it any more'))
        return Promise.resolve({ fd: check(addon().duplicate(found.fd), 'fcntl'), bytes: found.bytes, phase: 'checkpoint' })
      }
    }
  }

  /**
   * A start ended before it served; `got`: after it had this offer. One that never listened, so never had it, failed for another reason.
   */
  startFailed(slot: number, { names, withheld, asked }: CheckpointOffer, got: boolean): void {
    if (asked || (names.length === 0 ? withheld.length === 0 : !got)) return
    const tries = this.#tries.get(slot) ?? { row: 0, most: fewestTries, offered: 0 }
    this.#tries.set(slot, tries)
    // Of many rounds only the first one is told.
    const isFirst = tries.most === fewestTries
    if (names.length > 0) {
      tries.row++
      tries.offered++
      if (tries.row === tries.most && isFirst) this.#warn(`${tries.row} starts in a row in slot ${slot} ended before they served, with the checkpoint of ${this.#named(slot)}: the next one goes without. If that serves, the checkpoint is dropped; see what restore() does with it`)
      return
    }
    tries.row = 0
    tries.most = Math.min(2 * tries.most, mostTries)
    if (isFirst) this.#warn(`a start in slot ${slot} without the checkpoint of ${this.#named(slot)} ended before it served as well: something else is wrong, and the checkpoint is kept and offered again`)
  }

  /** The start that got this offer serves. */
  startServed(slot: number, { withheld, asked }: CheckpointOffer): void {
    const lost = this.#named(slot)
    this.#tries.delete(slot)
    if (withheld.length === 0) return
    this.#close((held) => held.slot === slot && held.pid === null && withheld.includes(held.name))
    if (!asked) this.#warn(`slot ${slot} serves without the checkpoint of ${lost}, with which its starts had ended before they served: it is dropped. See what restore() did with it, in the lines above`)
  }

  /** Somebody may have repaired what was wrong: the next start gets what was left. */
  offerAgain(slot: number): void {
    const tries = this.#tries.get(slot)
    if (tries) tries.row = 0
  }

  /**
   * What the next start in the slot gets, for a line of the log: ` with the checkpoint of sessions (4 s old)`. Empty where nothing was
   * left.
   */
  nextStart(slot: number): string {
    return this.#left(slot).length === 0 ? '' : ` ${this.#offers(slot) ? 'with' : 'without'} the checkpoint of ${this.#named(slot)}`
  }

  /** How many of the starts that failed got what was left, for a line of the log. Empty where none. */
  failedWith(slot: number): string {
    const { offered = 0 } = this.#tries.get(slot) ?? {}
    return offered === 0 ? '' : `, ${offered} of them with the checkpoint of ${this.#named(slot)}`
  }

  #offers(slot: number): boolean {
    const tries = this.#tries.get(slot)
    return !tries || tries.row < tries.most
  }

  #left(slot: number): Held[] {
    return this.#held.filter((held) => held.slot === slot && held.pid === null)
  }

  #named(slot: number): string {
    const now = Date.now()
    const left = this.#left(slot)
    const shown = left.slice(0, mostShown).map(({ name, at }) => `${printable(cut(name, longestShown))} (${duration(Math.max(0, now - at))} old)`)
    return `${shown.join(', ')}${left.length > mostShown ? ` and ${left.length - mostShown} more` : ''}`
  }

  /** A worker that got what was left serves, or has its state from one that did. */
  served(slot: number): void {
    if (this.#serving.has(slot) || !this.#held.some((held) => held.slot === slot && held.pid === null)) return
    this.#serving.set(slot, setTimeout(() => { this.forgetLeft(slot) }, this.#keptMs).unref())
  }

  get status(): CheckpointStatus[] {
    const now = Date.now()
    return this.#held.map(({ slot, name, bytes, at }) => ({ slot, name, bytes, ageMs: Math.max(0, now - at) })).sort((a, b) => a.slot - b.slot || a.name.localeCompare(b.name) || a.ageMs - b.ageMs)
  }

  /** For the next keeper: what `restore` takes. The descriptors stay with this one. */
  all(): { checkpoints: SavedCheckpoint[]; fds: number[] } {
    return { checkpoints: this.#held.map(({ fd: _, ...saved }) => saved), fds: this.#held.map(({ fd }) => fd) }
  }

  /** What `all()` of the keeper before answered; the descriptors are owned from here on. */
  restore(saved: readonly SavedCheckpoint[], fds: readonly number[]): void {
    this.#held.push(...saved.map((checkpoint, index) => ({ ...checkpoint, fd: fds[index]! })))
  }

  /** Who lives, after the workers of the keeper before were found: the others crashed while nobody looked. */
  adopted(pids: readonly number[]): void {
    const gone = new Map(this.#held.flatMap(({ slot, pid }) => (pid !== null && !pids.includes(pid) ? [[pid, slot] as const] : [])))
    for (const [pid, slot] of gone) this.crashed(slot, pid)
  }

  /** Answers whether a worker served with what was left. */
  #stopWaiting(slot: number): boolean {
    clearTimeout(this.#serving.get(slot))
    return this.#serving.delete(slot)
  }

  #close(which: (held: Held) => boolean): void {
    const gone = this.#held.filter(which)
    this.#held = this.#held.filter((held) => !gone.includes(held))
    for (const { fd } of gone) void closeLater(fd)
  }
}
