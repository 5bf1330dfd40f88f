/**
 * The files of Unix sockets that are served: where each is, and a hold on them while two versions of a program live.
 *
 * Programs remove a path before they listen on it, rename a socket into place, remove it at their end. A path that is served must
 * outlive all of that. So the process that serves (or its keeper) keeps a second name of each socket beside it, link(2), looks
 * whenever the folder changes, and puts the socket back. Where no link can be made the socket is bound anew. The second name is gone
 * when the hold ends; what a killed process leaves is removed by the next one.
 */

import { randomBytes } from 'node:crypto'
import { watch } from 'node:fs'
import path from 'node:path'
import { unguarded } from '../platform/path-guard.js'

const { linkSync, lstatSync, readdirSync, renameSync, unlinkSync } = unguarded

/** Device and inode of a path, or undefined where there is no such file, or it cannot be seen. */
export function fileId(file: string): string | undefined {
  try {
    const found = lstatSync(file, { throwIfNoEntry: false, bigint: true })
    return found && `${found.dev}:${found.ino}`
  } catch {
    return undefined
  }
}

/** Of a second name: `.app.sock.handover-<pid>-<random>`. */
const mark = '.handover-'
const isHoldOf = (name: string, file: string): boolean => name.startsWith(`.${path.basename(file)}${mark}`)
const isHold = (name: string): boolean => name.startsWith('.') && name.includes(mark)
const newName = (file: string): string => path.join(path.dirname(file), `.${path.basename(file)}${mark}${process.pid}-${randomBytes(4).toString('hex')}`)

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

/** Where the file of this id is: at its path, or beside it under a name that the program has given it. Undefined: nowhere there. */
export function locate(file: string, id: string): string | undefined {
  if (fileId(file) === id) return file
  const folder = path.dirname(file)
  return namesIn(folder).filter((name) => !isHold(name)).map((name) => path.join(folder, name)).find((candidate) => fileId(candidate) === id)
}

function remove(file: string): void {
  try {
    unlinkSync(file)
  } catch { /* it is gone, or its folder is not ours any more */ }
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Removes second names of this path whose process is gone. */
export function removeStaleHolds(file: string): void {
  const folder = path.dirname(file)
  for (const name of namesIn(folder)) {
    if (!isHoldOf(name, file)) continue
    const pid = Number(/-?(\d+)-[0-9a-f]+$/.exec(name)?.[1])
    if (pid > 0 && !lives(pid)) remove(path.join(folder, name))
  }
}

/** A second name at `file` for the socket at `from`, where nothing stands there. False where it cannot be. */
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
  /** Of what is served now. */
  files(): readonly SocketFile[]
  /** There is no second name: binds and listens at this path anew. False, or undefined, where it does not. */
  rebind?(file: SocketFile): boolean
  /** It was removed or replaced, and is in its place again; or (`back` false) it cannot be put there. */
  changed(file: SocketFile, back: boolean): void
}

/** How often it is looked where the folder cannot be watched. */
const lookMs = 50

export class SocketFileHold {
  readonly #side: HoldSide
  /** The second names, by the id of the file; undefined where none can be made. */
  readonly #seconds = new Map<string, { readonly file: SocketFile; readonly second: string | undefined }>()
  readonly #watched = new Map<string, () => void>()
  readonly #lost = new Set<string>()
  #released = false

  /** Holds from now on. Blocks nothing and keeps no process alive. */
  constructor(side: HoldSide) {
    this.#side = side
    this.check()
  }

  /** Looks, and puts back what is not in its place. Answers the names of what cannot be put back. */
  check(): string[] {
    if (this.#released) return []
    const files = this.#side.files()
    const ids = new Set(files.map(({ id }) => id))
    for (const [id, { second }] of this.#seconds) {
      if (ids.has(id)) continue
      this.#seconds.delete(id)
      if (second !== undefined) remove(second)
    }
    return files.filter((file) => !this.#isInPlace(file)).map(({ name }) => name)
  }

  #isInPlace(file: SocketFile): boolean {
    const held = this.#seconds.get(file.id)
    if (!held) this.#hold(file)
    if (fileId(file.file) === file.id) {
      this.#lost.delete(file.name)
      return true
    }
    const back = held?.second !== undefined && this.#putBack(file, held.second)
    const isBack = back || (this.#side.rebind?.(file) ?? false)
    if (isBack || !this.#lost.has(file.name)) this.#side.changed(file, isBack)
    if (isBack) this.#lost.delete(file.name)
    else this.#lost.add(file.name)
    return isBack
  }

  #hold(file: SocketFile): void {
    removeStaleHolds(file.file)
    const second = newName(file.file)
    this.#seconds.set(file.id, { file, second: fileId(file.file) === file.id && addName(file.file, second) ? second : undefined })
    this.#watch(path.dirname(file.file))
  }

  #putBack({ file, id }: SocketFile, second: string): boolean {
    if (fileId(second) !== id) return false
    const third = newName(file)
    try {
      linkSync(second, third)
      // It replaces whatever stands there. rename(2)
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

  /** Nobody looks any more, and the second names are gone. */
  release(): void {
    this.#released = true
    for (const end of this.#watched.values()) end()
    this.#watched.clear()
    for (const { second } of this.#seconds.values()) if (second !== undefined) remove(second)
    this.#seconds.clear()
  }
}
