/**
 * Keeps the program's own fs calls away from the files of served Unix sockets: before it serves, while an older generation lives beside it,
 * and while its keeper holds them. `unlink`, `rm`, `rmdir` and `rename` then report success without doing it.
 *
 * It may be loaded before anything else (`node --require`), and imports nothing of ours. A process has one guard, however often this file
 * is loaded.
 */

import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** The served paths as JSON, set by the process that started this one: they are known before the offer. */
export const pathsMark = 'HANDOVER_PATHS'

/** What a program does to a path. */
export type Harm = 'remove' | 'move away'

interface Guard {
  /** Whether this absolute path must now stay as it is. */
  isProtected: (file: string, from: Harm) => boolean
  /** `from` was to take the place of a protected path. */
  renamed: (from: string, to: string) => void
  /** Folders that the program believes it has removed. */
  readonly removed: Set<string>
  /** Words of the command line that were taken out of process.execArgv. */
  readonly hidden: (readonly string[])[]
  isOn: boolean
  /** What the mark named. */
  readonly marked: Set<string>
  /** fs as it is without the guard. */
  readonly real: Real
}

type Real = Pick<typeof fs, 'linkSync' | 'lstatSync' | 'readdirSync' | 'realpathSync' | 'renameSync' | 'rmSync' | 'unlinkSync'>

const key: unique symbol = Symbol.for('@handover/path-guard')
const shared = globalThis as unknown as Record<typeof key, Guard | undefined>
const { linkSync, lstatSync, readdirSync, realpathSync, renameSync, rmSync, unlinkSync } = fs
const guard: Guard = (shared[key] ??= {
  isProtected: () => false, renamed: () => undefined, removed: new Set(), hidden: [], isOn: false, marked: new Set(),
  real: { linkSync, lstatSync, readdirSync, realpathSync, renameSync, rmSync, unlinkSync }
})

/** fs as it is without the guard. */
export const unguarded: Real = guard.real
const { real } = guard

/** From now on these say what is protected, and hear of renames. */
export function protect(isProtected: Guard['isProtected'], renamed: Guard['renamed']): void {
  Object.assign(guard, { isProtected, renamed })
}

/** How many words of the command line are missing from process.execArgv. */
export const hiddenWords = (): number => guard.hidden.flat().length

const placeOf = (words: readonly string[], all: readonly string[]): number =>
  all.findIndex((_, index) => words.every((word, offset) => all[index + offset] === word))

/** Takes these words out of process.execArgv, so that what the program forks does not get them. */
export function hideWords(words: readonly string[]): void {
  const at = placeOf(words, process.execArgv)
  if (at < 0) return
  process.execArgv.splice(at, words.length)
  guard.hidden.push(words)
}

/** The command line without the words that were taken out; undefined where they do not stand there. */
export function withoutHidden(all: readonly string[]): string[] | undefined {
  const left = [...all]
  for (const words of guard.hidden) {
    const at = placeOf(words, left)
    if (at >= 0) left.splice(at, words.length)
  }
  return left.length === all.length - hiddenWords() ? left : undefined
}

/** Reads and removes the mark. Returns all that was ever read from it. */
export function takeMarkedPaths(env: NodeJS.ProcessEnv): ReadonlySet<string> {
  try {
    const paths: unknown = JSON.parse(env[pathsMark] ?? '[]')
    if (Array.isArray(paths)) for (const file of paths) if (typeof file === 'string') guard.marked.add(asKnown(file))
  } catch { /* somebody else's variable */ }
  Reflect.deleteProperty(env, pathsMark)
  return guard.marked
}

/** A path as the guard knows it: links to its folder are followed, a link in the last place is not. */
export const asKnown = (file: string): string => resolved(file) ?? file

/** Undefined: no path. */
function resolved(given: unknown): string | undefined {
  let text: string
  try {
    text = given instanceof URL ? fileURLToPath(given) : Buffer.isBuffer(given) ? given.toString() : String(given)
  } catch {
    return undefined
  }
  if (text === '' || text.includes('\0')) return undefined
  const file = path.resolve(text)
  try {
    return path.join(real.realpathSync.native(path.dirname(file)), path.basename(file))
  } catch {
    return file
  }
}

/** A second name of a socket (socket-file-hold.ts). */
const isHold = (name: string): boolean => /^\..+\.handover-\d+-[0-9a-f]+$/.test(name)

const isProtected = (file: string): boolean => isHold(path.basename(file)) || guard.isProtected(file, 'remove')
const isThere = (file: string): boolean => real.lstatSync(file, { throwIfNoEntry: false }) !== undefined
const isFolder = (file: string): boolean => real.lstatSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false

/** Whether a protected path lies in this folder, at any depth. */
function holdsProtected(folder: string): boolean {
  return real.readdirSync(folder, { withFileTypes: true }).some((entry) => {
    const file = path.join(folder, entry.name)
    return entry.isDirectory() ? holdsProtected(file) : isProtected(file)
  })
}

/** Removes all that is in the folder but protected paths, and the folders that lead to them. */
function removeAround(folder: string): void {
  guard.removed.add(folder)
  for (const entry of real.readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name)
    if (entry.isDirectory() && holdsProtected(file)) removeAround(file)
    else if (!isProtected(file)) real.rmSync(file, { recursive: true, force: true })
  }
}

/** What to do instead of a call; undefined: Node does it. */
type Instead = (() => unknown) | undefined

const isRecursive = (options: unknown): boolean => (options as { recursive?: boolean } | null | undefined)?.recursive === true

function insteadOf(name: string, given: readonly unknown[]): Instead {
  const file = resolved(given[0])
  if (file === undefined) return undefined
  const done = (): undefined => undefined
  switch (name) {
    case 'unlink':
      return isProtected(file) && isThere(file) ? done : undefined
    case 'rm': {
      if (isProtected(file)) return isThere(file) ? done : undefined
      return isRecursive(given[1]) && isFolder(file) && holdsProtected(file) ? () => { removeAround(file) } : undefined
    }
    case 'rmdir': {
      if (!isFolder(file) || !holdsProtected(file)) return undefined
      if (isRecursive(given[1])) return () => { removeAround(file) }
      const entries = real.readdirSync(file).map((entry) => path.join(file, entry))
      const isEmpty = entries.every((entry) => isProtected(entry) || guard.removed.has(entry))
      return isEmpty ? () => { guard.removed.add(file) } : undefined
    }
    case 'mkdir':
      return guard.removed.delete(file) && isFolder(file) ? done : undefined
    case 'rename':
      return insteadOfRename(file, resolved(given[1]))
    default:
      return undefined
  }
}

function insteadOfRename(from: string, to: string | undefined): Instead {
  if (to === undefined) return undefined
  if (isProtected(to)) return isThere(from) ? () => { guard.renamed(from, to) } : undefined
  if (!guard.isProtected(from, 'move away') || !isThere(from)) return undefined
  // The socket gets the new name and keeps its own.
  return () => {
    if (isThere(to) && !isFolder(to)) real.unlinkSync(to)
    try {
      real.linkSync(from, to)
    } catch { /* another file system: then it has its own name alone */ }
  }
}

const names = ['unlink', 'rm', 'rmdir', 'rename', 'mkdir'] as const

/** `own` in the place of a function of fs, with the properties that programs may look at. */
function like<T extends (...args: never[]) => unknown>(original: T, own: (...args: unknown[]) => unknown): T {
  Object.defineProperties(own, { name: { value: original.name }, length: { value: original.length } })
  for (const symbol of Object.getOwnPropertySymbols(original)) {
    Object.defineProperty(own, symbol, Object.getOwnPropertyDescriptor(original, symbol) ?? {})
  }
  return own as unknown as T
}

/** Puts the guard in front of fs. Calls on what is not protected pass. */
export function standGuard(): void {
  if (guard.isOn) return
  guard.isOn = true
  const sync = fs as unknown as Record<string, (...args: unknown[]) => unknown>
  const later = fs.promises as unknown as Record<string, (...args: unknown[]) => unknown>
  for (const name of names) {
    const [originalSync, original, originalLater] = [sync[`${name}Sync`]!, sync[name]!, later[name]!]
    sync[`${name}Sync`] = like(originalSync, function (this: unknown, ...args) {
      const instead = insteadOf(name, args)
      return instead ? instead() : originalSync.apply(this, args)
    })
    sync[name] = like(original, function (this: unknown, ...args) {
      const callback = args.at(-1)
      const instead = typeof callback === 'function' ? insteadOf(name, args) : undefined
      if (!instead) return original.apply(this, args)
      let error: unknown = null
      try {
        instead()
      } catch (thrown) {
        error = thrown
      }
      process.nextTick(callback as (error: unknown) => void, error)
      return undefined
    })
    later[name] = like(originalLater, async function (this: unknown, ...args) {
      const instead = insteadOf(name, args)
      return await (instead ? instead() : originalLater.apply(this, args))
    })
  }
  syncBuiltinESMExports()
}
