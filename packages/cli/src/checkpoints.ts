/**
 * The checkpoints that workers send: files with a part of their state, for the next process of their slot where they crash. The keeper holds descriptors of
 * them and never looks inside.
 *
 * A worker's own are worth nothing when it has handed over, or ended in order: then its state went along, or was given up. When it crashes they are *left* to its
 * slot, and offered to every start there until the worker that got them has sent one of its own, or has served for a while.
 */

import { addon, check, closeLater, type CheckpointStatus, type PredecessorSide } from '@handover/core/keeper'

/** In a slot: of one worker, and of those that crashed. */
export const mostCheckpoints = 64
const longestName = 256
/** A worker that served for that long without a checkpoint of its own will send none: after it, what a former process left is too old to be good for anybody. */
const keptMs = 300_000
/** How often a worker that got it may serve and crash without one of its own: then it may be the checkpoint that makes it crash. */
const mostCrashes = 2

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

export class Checkpoints {
  #held: Held[] = []
  readonly #warn: (line: string) => void
  readonly #keptMs: number
  /** Slots whose worker serves with what was left there. */
  readonly #serving = new Map<number, NodeJS.Timeout>()
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
    const left = this.#held.filter((held) => held.slot === slot && held.pid === null).sort((a, b) => b.at - a.at)
    const surplus = new Set(left.slice(mostCheckpoints))
    this.#close((held) => surplus.has(held))
    const bad = left.filter(({ crashes }) => crashes >= mostCrashes)
    if (bad.length === 0) return
    this.#close((held) => bad.includes(held))
    this.#warn(`${mostCrashes} workers of slot ${slot} crashed soon after they had begun to serve with the checkpoint of ${bad.map(({ name }) => name).join(', ')}: the next one starts without`)
  }

  /** It handed over, or ended in order. */
  forget(slot: number, pid: number): void {
    this.#close((held) => held.slot === slot && held.pid === pid)
  }

  /** What was left to the slot is of no use any more: its state lives in a process, which has handed it on. */
  forgetLeft(slot: number): void {
    this.#stopWaiting(slot)
    this.#close((held) => held.slot === slot && held.pid === null)
  }

  /** The slot goes away. */
  drop(slot: number): void {
    this.#stopWaiting(slot)
    this.#close((held) => held.slot === slot)
  }

  /** What the next process of the slot is to be offered where nobody hands over to it. */
  offerFor(slot: number): Sections {
    const left = this.#held.filter((held) => held.slot === slot && held.pid === null)
    return {
      names: left.map(({ name }) => name),
      save: (name) => {
        const found = this.#held.find((held) => held.slot === slot && held.pid === null && held.name === name)
        if (!found) return Promise.reject(new Error('the keeper does not hold it any more'))
        return Promise.resolve({ fd: check(addon().duplicate(found.fd), 'fcntl'), bytes: found.bytes, phase: 'checkpoint' })
      }
    }
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
