/**
 * The files of this package that the keeper runs, kept in memory: the release that it was started from may be removed. They are written to
 * a folder of their own when a process must be started and no installed copy is left.
 */

import {
  accessSync, constants, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { nativeFile, prebuilt } from '@handover/core/internal'

/** The copy is written to the first of these that can be used. On some machines nothing may be executed where all users can write. */
const places = (beside: string): string[] => [tmpdir(), '/var/tmp', '/dev/shm', beside]
const prefix = 'handover-loaded-'
const isName = (name: string): boolean => name.startsWith(prefix) && name.length === prefix.length + 'XXXXXX'.length

/** When a cleaner has removed the copy, any user may make another folder of that name, whose code would run as this user. */
function isOurs(folder: string): boolean {
  const found = lstatSync(folder, { throwIfNoEntry: false })
  return found?.isDirectory() === true && found.uid === process.geteuid?.() && (found.mode & 0o077) === 0
}

/** False for a file in a copy that is not of this process's user, or not any more. */
export function mayRun(file: string): boolean {
  const parts = file.split(path.sep)
  const at = parts.findIndex(isName)
  return at < 0 || isOurs(parts.slice(0, at + 1).join(path.sep))
}

export class LoadedCopy {
  /** By their paths below the folder. */
  readonly #files = new Map<string, Buffer>()
  #folder: string | undefined

  /** Reads the files. Throws the system's error if they are gone already. */
  constructor() {
    const core = path.dirname(require.resolve('@handover/core/package.json'))
    this.#take(path.join(__dirname, '../..'), 'handover', ['package.json', 'bin', 'dist/bundle'])
    this.#take(core, '@handover/core', ['package.json', 'dist/bundle'])
    const addon = nativeFile()
    if (addon !== undefined) this.#files.set(`node_modules/@handover/core/${prebuilt}`, readFileSync(addon))
  }

  #take(from: string, name: string, parts: readonly string[]): void {
    for (const part of parts) {
      const at = path.join(from, part)
      const inside = (): string[] => readdirSync(at, { recursive: true, encoding: 'utf8' }).map((file) => path.join(part, file))
      const files = statSync(at).isDirectory() ? inside() : [part]
      for (const file of files.filter((each) => /\.(js|mjs|cjs|json)$/.test(each))) {
        this.#files.set(path.join('node_modules', name, file), readFileSync(path.join(from, file)))
      }
    }
  }

  /** The folder of this package in a complete copy; in `beside` where there is no other place. Throws the system's error if in none. */
  write(beside: string): string {
    if (this.#folder === undefined || !this.#isWhole(this.#folder)) this.#folder = this.#writeAnew(beside)
    return path.join(this.#folder, 'node_modules', 'handover')
  }

  #isWhole(folder: string): boolean {
    const sizeOf = (file: string): number | undefined => statSync(path.join(folder, file), { throwIfNoEntry: false })?.size
    return isOurs(folder) && [...this.#files].every(([file, { length }]) => sizeOf(file) === length)
  }

  #writeAnew(beside: string): string {
    let error: unknown
    for (const place of places(beside)) {
      let folder: string | undefined
      try {
        folder = mkdtempSync(path.join(place, prefix))
        for (const [file, bytes] of this.#files) {
          mkdirSync(path.dirname(path.join(folder, file)), { recursive: true })
          writeFileSync(path.join(folder, file), bytes, { mode: 0o700 })
        }
        // Where nothing may be executed (noexec), the addon cannot be loaded.
        for (const file of this.#files.keys()) accessSync(path.join(folder, file), constants.X_OK)
        return folder
      } catch (cause) {
        error = cause
        // A disk that is full must not get fuller with each try.
        if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
      }
    }
    throw error
  }

  /** Nothing is started any more. Also removes the copy that this process itself runs from, but not one that `inUse` leads into. */
  remove(inUse: readonly string[] = []): void {
    const own = path.resolve(__dirname, '../../../..')
    const folders = [this.#folder, isName(path.basename(own)) ? own : undefined].filter((folder) => folder !== undefined)
    const unused = folders.filter((folder) => isOurs(folder) && !inUse.some((file) => file.startsWith(`${folder}${path.sep}`)))
    for (const folder of unused) rmSync(folder, { recursive: true, force: true })
  }
}
