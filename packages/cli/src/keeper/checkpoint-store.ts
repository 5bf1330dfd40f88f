/**
 * The checkpoints that workers send: files with a part of their state, for the next process of their slot if they crash. The keeper holds
 * descriptors of them and never looks inside.
 *
 * A worker that hands over or ends in order needs its checkpoints no more. When it crashes they are *left* to its slot, and offered to
 * every start there until the worker that got them has sent its own, or has served for a while.
 *
 * A checkpoint may be what kills the processes that get it. After two that served and crashed it is dropped. After two starts in a row that
 * got it and ended before they served, the next start goes without: if that serves, the checkpoint is dropped; if it fails too, something
 * else is wrong, and the checkpoint is offered again, twice as often as before until the next start without it. So a database that is down
 * for an hour hardly costs state, and a bad checkpoint never costs the service.
 */

import { addon, check, closeLater, listed, type CheckpointStatus, type PredecessorSide } from '@handover/core/internal'
import { cut, duration, printable } from '../text.js'

/** In a slot: of one worker, and of all that crashed. */
export const mostCheckpoints = 64
const longestName = 256
/** A worker that has served for so long without sending a checkpoint will send none. By then what was left is too stale to be useful. */
const keptMs = 300_000
/** So many workers got it, served, and crashed without a checkpoint of their own: then the checkpoint may be the reason. */
const mostCrashes = 2
/** So many starts in a row get it and end before they serve, until one goes without. The number doubles if that fails too. */
const fewestTries = 2
const mostTries = 8
/** In one line of the log. */
const mostShown = 8
const longestShown = 40

/** As the next keeper gets it, with its descriptor beside. */
export interface SavedCheckpoint {
  readonly slot: number
  /** Of the worker that sent it. Null once that has crashed. */
  readonly pid: number | null
  readonly name: string
  readonly bytes: number
  /** As Date.now(). */
  readonly at: number
  /** How many workers got it, served, and crashed. */
  readonly crashes: number
}

interface HeldCheckpoint extends SavedCheckpoint {
  readonly fd: number
}

type Sections = PredecessorSide['sections']

/** To a start without a predecessor. */
export interface CheckpointOffer extends Sections {
  /** The names that were left and are not offered. */
  readonly withheld: readonly string[]
  /** The user asked for a start without state. */
  readonly asked: boolean
}

/** Starts in a slot that got what was left, and ended before they served. */
interface Tries {
  /** Since the last start without. */
  row: number
  /** After so many the next start goes without. */
  most: number
  /** In all. */
  offered: number
}

export class CheckpointStore {
  #held: HeldCheckpoint[] = []
  readonly #warn: (line: string) => void
  readonly #keptMs: number
  /** Slots whose worker serves with what was left there. When it fires, that is forgotten. */
  readonly #serving = new Map<number, NodeJS.Timeout>()
  readonly #tries = new Map<number, Tries>()
  #saidFull = false

  constructor(warn: (line: string) => void, afterMs = keptMs) {
    this.#warn = warn
    this.#keptMs = afterMs
  }

  /** The latest checkpoint of this worker. Takes the descriptor. */
  hold(slot: number, pid: number, name: string, bytes: number, fd: number): void {
    const isReplaced = (held: HeldCheckpoint): boolean =>
      held.slot === slot && held.name === name && (held.pid === pid || held.pid === null)
    const others = this.#held.filter((held) => held.slot === slot && held.pid === pid && held.name !== name)
    if (others.length >= mostCheckpoints || name.length > longestName) {
      void closeLater(fd)
      const what = `process ${pid} sends checkpoints of more than ${mostCheckpoints} sections, or with names of more than ${longestName} characters`
      if (!this.#saidFull) this.#warn(`${what}: those are not kept. This is said once.`)
      this.#saidFull = true
      return
    }
    this.#close(isReplaced)
    this.#held.push({ slot, pid, name, bytes, at: Date.now(), crashes: 0, fd })
  }

  /** A worker crashed: what it sent is left to the slot. */
  crashed(slot: number, pid: number): void {
    const served = this.#stopWaiting(slot)
    const counted = ({ crashes, ...held }: HeldCheckpoint): HeldCheckpoint => ({ ...held, crashes: crashes + 1 })
    if (served) this.#held = this.#held.map((held) => (held.slot === slot && held.pid === null ? counted(held) : held))
    const own = new Set(this.#held.filter((held) => held.slot === slot && held.pid === pid).map(({ name }) => name))
    this.#close((held) => held.slot === slot && held.pid === null && own.has(held.name))
    this.#held = this.#held.map((held) => (held.slot === slot && held.pid === pid ? { ...held, pid: null } : held))
    // Several processes, one after the other, may have left more names than one could.
    const left = this.#left(slot).sort((a, b) => b.at - a.at)
    const surplus = new Set(left.slice(mostCheckpoints))
    this.#close((held) => surplus.has(held))
    const bad = left.filter(({ crashes }) => crashes >= mostCrashes)
    if (bad.length === 0) return
    this.#close((held) => bad.includes(held))
    const names = listed(bad.map(({ name }) => name))
    this.#warn(`${mostCrashes} workers of slot ${slot} crashed soon after they had begun to serve with the checkpoint of ${names}: the next one starts without`)
  }

  /** The worker handed over, or ended in order. */
  forget(slot: number, pid: number): void {
    this.#close((held) => held.slot === slot && held.pid === pid)
  }

  /** What was left to the slot is obsolete: the state lives in a process that has handed it on. */
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

  /** For the next process of the slot, if no predecessor hands over to it. `asked`: it is to start without what was left. */
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

  /** A start ended before it served. `got`: after it had this offer. A start that never listened failed for another reason. */
  startFailed(slot: number, { names, withheld, asked }: CheckpointOffer, got: boolean): void {
    if (asked || (names.length === 0 ? withheld.length === 0 : !got)) return
    const tries = this.#tries.get(slot) ?? { row: 0, most: fewestTries, offered: 0 }
    this.#tries.set(slot, tries)
    // Only the first of many rounds is logged.
    const isFirst = tries.most === fewestTries
    if (names.length > 0) {
      tries.row++
      tries.offered++
      if (tries.row !== tries.most || !isFirst) return
      const what = `${tries.row} starts in a row in slot ${slot} ended before they served, with the checkpoint of ${this.#named(slot)}`
      this.#warn(`${what}: the next one goes without. If that serves, the checkpoint is dropped; see what restore() does with it`)
      return
    }
    tries.row = 0
    tries.most = Math.min(2 * tries.most, mostTries)
    if (!isFirst) return
    const what = `a start in slot ${slot} without the checkpoint of ${this.#named(slot)} ended before it served as well`
    this.#warn(`${what}: something else is wrong, and the checkpoint is kept and offered again`)
  }

  /** The start that got this offer serves. */
  startServed(slot: number, { withheld, asked }: CheckpointOffer): void {
    const lost = this.#named(slot)
    this.#tries.delete(slot)
    if (withheld.length === 0) return
    this.#close((held) => held.slot === slot && held.pid === null && withheld.includes(held.name))
    if (asked) return
    const what = `slot ${slot} serves without the checkpoint of ${lost}, with which its starts had ended before they served`
    this.#warn(`${what}: it is dropped. See what restore() did with it, in the lines above`)
  }

  /** The build may have been repaired: the next start gets what was left. */
  offerAgain(slot: number): void {
    const tries = this.#tries.get(slot)
    if (tries) tries.row = 0
  }

  /** What the next start in the slot gets, for the log: ` with the checkpoint of sessions (4 s old)`. Empty if nothing was left. */
  nextStart(slot: number): string {
    return this.#left(slot).length === 0 ? '' : ` ${this.#offers(slot) ? 'with' : 'without'} the checkpoint of ${this.#named(slot)}`
  }

  /** How many of the failed starts got what was left, for the log. Empty if none. */
  failedWith(slot: number): string {
    const { offered = 0 } = this.#tries.get(slot) ?? {}
    return offered === 0 ? '' : `, ${offered} of them with the checkpoint of ${this.#named(slot)}`
  }

  #offers(slot: number): boolean {
    const tries = this.#tries.get(slot)
    return !tries || tries.row < tries.most
  }

  #left(slot: number): HeldCheckpoint[] {
    return this.#held.filter((held) => held.slot === slot && held.pid === null)
  }

  #named(slot: number): string {
    const now = Date.now()
    const left = this.#left(slot)
    const shown = left.slice(0, mostShown).map(({ name, at }) => `${printable(cut(name, longestShown))} (${duration(Math.max(0, now - at))} old)`)
    return `${shown.join(', ')}${left.length > mostShown ? ` and ${left.length - mostShown} more` : ''}`
  }

  /** A worker serves with what was left, or with state from a worker that did. */
  served(slot: number): void {
    if (this.#serving.has(slot) || !this.#held.some((held) => held.slot === slot && held.pid === null)) return
    this.#serving.set(slot, setTimeout(() => { this.forgetLeft(slot) }, this.#keptMs).unref())
  }

  get status(): CheckpointStatus[] {
    const now = Date.now()
    return this.#held.map(({ slot, name, bytes, at }) => ({ slot, name, bytes, ageMs: Math.max(0, now - at) }))
      .sort((a, b) => a.slot - b.slot || a.name.localeCompare(b.name) || a.ageMs - b.ageMs)
  }

  /** For the next keeper: what `restore` takes. The descriptors stay with this keeper. */
  all(): { checkpoints: SavedCheckpoint[]; fds: number[] } {
    return { checkpoints: this.#held.map(({ fd: _, ...saved }) => saved), fds: this.#held.map(({ fd }) => fd) }
  }

  /** What `all()` of the keeper before answered. Takes the descriptors. */
  restore(saved: readonly SavedCheckpoint[], fds: readonly number[]): void {
    this.#held.push(...saved.map((checkpoint, index) => ({ ...checkpoint, fd: fds[index]! })))
  }

  /** The workers that were found alive after a change of the keeper. All others crashed in between. */
  adopted(pids: readonly number[]): void {
    const gone = new Map(this.#held.flatMap(({ slot, pid }) => (pid !== null && !pids.includes(pid) ? [[pid, slot] as const] : [])))
    for (const [pid, slot] of gone) this.crashed(slot, pid)
  }

  /** True if a worker served with what was left. */
  #stopWaiting(slot: number): boolean {
    clearTimeout(this.#serving.get(slot))
    return this.#serving.delete(slot)
  }

  #close(which: (held: HeldCheckpoint) => boolean): void {
    const gone = this.#held.filter(which)
    this.#held = this.#held.filter((held) => !gone.includes(held))
    for (const { fd } of gone) void closeLater(fd)
  }
}
