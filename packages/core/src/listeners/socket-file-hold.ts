/**
 * Finds the files of served Unix sockets, and holds them in place while two versions of a program live.
 *
 * Programs remove a path before they listen on it, rename a socket into place, remove it when they end. A served path must outlive all of
 * that: the process that serves (or its keeper) keeps a second name of each socket beside it, link(2), watches the folder, and puts the
 * socket back. Where no link can be made, the socket is bound anew. The second name goes with the hold; the next hold removes what a killed
 * process left.
 */

import { watch } from 'node:fs'
import path from 'node:path'
import { fileId } from '../platform/file-id.js'
import { unguarded } from '../platform/path-guard.js'
import { isAlive } from '../platform/processes.js'
import { uniqueWord } from '../platform/on-demand.js'

const { linkSync, readdirSync, renameSync, unlinkSync } = unguarded

/** A second name: `.app.sock.handover-<pid>-<random>`. */
const mark = '.handover-'
const isHoldOf = (name: string, file: string): boolean => name.startsWith(`.${path.basename(file)}${mark}`)
const isHold = (name: string): boolean => name.startsWith('.') && name.includes(mark)
const newName = (file: string): string =>
  path.join(path.dirname(file), `.${path.basename(file)}${mark}${process.pid}-${uniqueWord().slice(4)}`)

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

/** Where the file of this id is: at its path, or renamed in the same folder; undefined: neither. */
export function locate(file: string, id: string): string | undefined {
  if (fileId(file) === id) return file
  const folder = path.dirname(file)
  const others = namesIn(folder).filter((name) => !isHold(name)).map((name) => path.join(folder, name))
  return others.find((candidate) => fileId(candidate) === id)
}

function remove(file: string): void {
  try {
    unlinkSync(file)
  } catch { /* it is gone, or its folder is no longer writable */ }
}

/** Removes second names of this path whose process is gone. */
export function removeStaleHolds(file: string): void {
  const folder = path.dirname(file)
  for (const name of namesIn(folder)) {
    if (!isHoldOf(name, file)) continue
    const pid = Number(/-?(\d+)-[0-9a-f]+$/.exec(name)?.[1])
    if (pid > 0 && !isAlive(pid)) remove(path.join(folder, name))
  }
}

/** Gives the socket at `from` a second name, `file`. False where that name is taken, or no link can be made. */
export function addName(from: string, file: string): boolean {
  try {
    linkSync(from, file)
    return true
  } catch {
    return false
  }
}

/** A socket whose file must stay. */
export interface SocketFile {
  readonly name: string
  /** Absolute. */
  readonly file: string
  readonly id: string
}

export interface HoldSide {
  /** The files that are served now. */
  files(): readonly SocketFile[]
  /** Binds and listens anew at this path, which has no second name. False or undefined: it did not. */
  rebind?(file: SocketFile): boolean
  /** The file was removed or replaced. `back`: it is in its place again; false: that failed. */
  changed(file: SocketFile, back: boolean): void
}

/** How often to look at a folder that cannot be watched. */
const lookMs = 50

export class SocketFileHold {
  readonly #side: HoldSide
  /** The second names, by the id of the file; undefined where none can be made. */
  readonly #seconds = new Map<string, string | undefined>()
  readonly #watched = new Map<string, () => void>()
  /** The ids: two sockets may have one path, and only one of them is there. */
  readonly #lost = new Set<string>()
  #released = false

  /** Holds from now on. Does not keep the process alive. */
  constructor(side: HoldSide) {
    this.#side = side
    this.check()
  }

  /** Puts back what is not in its place. Returns the names of what cannot be put back. */
  check(): string[] {
    if (this.#released) return []
    const files = this.#side.files()
    const ids = new Set(files.map(({ id }) => id))
    for (const [id, second] of this.#seconds) {
      if (ids.has(id)) continue
      this.#seconds.delete(id)
      this.#lost.delete(id)
      if (second !== undefined) remove(second)
    }
    return files.filter((file) => !this.#isInPlace(file, files)).map(({ name }) => name)
  }

  #isInPlace(file: SocketFile, all: readonly SocketFile[]): boolean {
    const second = this.#seconds.get(file.id)
    if (!this.#seconds.has(file.id)) this.#hold(file)
    const there = fileId(file.file)
    if (there === file.id) {
      this.#lost.delete(file.id)
      return true
    }
    const isTaken = all.some(({ id, file: other }) => id === there && other === file.file)
    const isBack = !isTaken && ((second !== undefined && this.#putBack(file, second)) || (this.#side.rebind?.(file) ?? false))
    if (isBack || !this.#lost.has(file.id)) this.#side.changed(file, isBack)
    if (isBack) this.#lost.delete(file.id)
    else this.#lost.add(file.id)
    return isBack
  }

  #hold(file: SocketFile): void {
    removeStaleHolds(file.file)
    const second = newName(file.file)
    this.#seconds.set(file.id, fileId(file.file) === file.id && addName(file.file, second) ? second : undefined)
    this.#watch(path.dirname(file.file))
  }

  #putBack({ file, id }: SocketFile, second: string): boolean {
    if (fileId(second) !== id) return false
    const third = newName(file)
    try {
      linkSync(second, third)
      // Atomic, and replaces any existing file. rename(2)
      renameSync(third, file)
      return true
    } catch {
      return false
    } finally {
      remove(third)
    }
  }

  #watch(folder: string): void {
    if (this.#watched.has(folder)) return
    const look = (): void => { this.check() }
    const poll = (): (() => void) => {
      const timer = setInterval(look, lookMs)
      timer.unref()
      return () => { clearInterval(timer) }
    }
    let end: () => void
    try {
      const watcher = watch(folder, { persistent: false }, look)
      watcher.on('error', () => { this.#watched.set(folder, poll()) })
      end = () => { watcher.close() }
    } catch {
      end = poll()
    }
    this.#watched.set(folder, end)
  }

  /** Ends the hold and removes the second names. */
  release(): void {
    this.#released = true
    for (const end of this.#watched.values()) end()
    this.#watched.clear()
    for (const second of this.#seconds.values()) if (second !== undefined) remove(second)
    this.#seconds.clear()
  }
}
