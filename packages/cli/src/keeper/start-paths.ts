/**
 * All paths that a keeper needs to start a process: Node, this package, the working directory. They are looked up anew at each start as
 * they were typed, so that a deploy that moves a link is followed. If one is gone, the next best is taken, and that is logged: old code of
 * the app is never started silently.
 */

import { existsSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import {
  followLast, isDirectory, nodeNow, requireDirectory, startingPoint, throughLink, typedScript, type CommandLine, type StartingPoint
} from '@handover/core/internal'
import { LoadedCopy, mayRun } from './loaded-copy.js'
import { version } from '../command-line/version.js'

/** Which code a start runs. */
export interface Release {
  /** Where the script is, without links. */
  readonly file: string
  /** Another one after a deploy: it has moved a link, or written the script anew. */
  readonly id: string
}

/** A command line, with notes on what is not as it was typed: sentences for people, without their full stop. */
export interface StartCommand extends CommandLine {
  readonly notes: readonly string[]
  /** Of a worker; absent where the script cannot be found. */
  readonly release?: Release | undefined
}

const isUsable = (file: string): boolean => existsSync(file) && mayRun(file)

export class StartPaths {
  readonly #point: StartingPoint
  /** The script `handover`, as it was typed, the best path first. */
  readonly #mains: readonly string[]
  #copy: LoadedCopy | undefined

  /** Call it at the start of the process: the links still lead to what runs now. */
  constructor() {
    this.#point = startingPoint()
    const typed = typedScript(this.#point)
    this.#mains = typed === undefined ? [] : [...new Set([throughLink(this.#point, typed) ?? typed, typed])]
  }

  get cwd(): string {
    return this.#point.cwd
  }

  /** What the log of the start should say. */
  get note(): string | undefined {
    return this.#point.note
  }

  /** Remembers the files that this process runs. Call it soon after the start. */
  remember(): void {
    try {
      this.#copy ??= new LoadedCopy()
    } catch { /* they are gone already, or cannot be read: then there is no copy */ }
  }

  /** Nothing is started any more. `next`: of the keeper that goes on. */
  forget(next?: CommandLine): void {
    this.#copy?.remove(next?.args)
  }

  /**
   * Of a worker. `args`: of Node; the first `nodeOptions` stand before the script. Throws HANDOVER_SPAWN if the working directory is gone.
   * With `inPlace` the worker is then started in the directory of this process, so that a service without a worker has one again.
   */
  worker(args: readonly string[], nodeOptions: number, inPlace: boolean): StartCommand {
    const notes: string[] = []
    const preload = this.#own(notes, 'dist/bundle/preload.js')
    const { file, cwd } = this.#place(notes, inPlace)
    const release = releaseAt(cwd, args[nodeOptions])
    return { file, args: ['--require', preload, ...args], cwd, nodeOptions: nodeOptions + 2, notes, release }
  }

  /** Of another keeper, with the arguments of this one. */
  keeper(): StartCommand {
    const notes: string[] = []
    const main = this.#mains.find(isUsable) ?? this.#own(notes, 'bin/handover.js')
    const { file, cwd } = this.#place(notes, true)
    return { file, args: [...process.execArgv, main, ...process.argv.slice(2)], cwd, notes }
  }

  #place(notes: string[], inPlace: boolean): { file: string; cwd: string } {
    const node = nodeNow(this.#point)
    if (node.note !== undefined) notes.push(node.note)
    const { cwd } = this.#point
    if (!inPlace) requireDirectory(this.#point)
    if (isDirectory(cwd)) return { file: node.file, cwd }
    const where = `the one that process ${process.pid} was started in, with the code that is still there`
    notes.push(`the working directory ${cwd} is gone: what is started runs in ${where}`)
    return { file: node.file, cwd: '/proc/self/cwd' }
  }

  /** A file of this package: as installed now in the place of the keeper's own, or in the app; else a copy of what is loaded. */
  #own(notes: string[], file: string): string {
    const own = path.join(__dirname, '../..')
    const roots = [...this.#mains.map((main) => path.join(path.dirname(followed(main)), '..')), ...installed(this.#point.cwd), own]
    const found = roots.map((root) => path.join(root, file)).find(isUsable)
    if (found !== undefined) return found
    const copy = this.#copy?.write(this.#point.cwd)
    if (copy === undefined) return path.join(own, file)
    const gone = `the package handover that process ${process.pid} was started from is gone, and ${this.#point.cwd} has none`
    notes.push(`${gone}: version ${version}, which is loaded, is used`)
    return path.join(copy, file)
  }
}

function releaseAt(cwd: string, script: string | undefined): Release | undefined {
  try {
    const folder = realpathSync(cwd)
    const file = realpathSync(path.resolve(folder, script ?? ''))
    const found = statSync(file)
    // A folder changes with every file in it.
    return { file, id: [folder, found.dev, found.ino, ...(found.isFile() ? [found.size, found.mtimeMs] : [])].join(' ') }
  } catch {
    return undefined // typed without its extension
  }
}

function followed(file: string): string {
  try {
    return followLast(file)
  } catch {
    return file // a folder above it cannot be read
  }
}

/** Where Node would look for this package from a folder. */
function installed(from: string): string[] {
  const found: string[] = []
  for (let folder = from; ; folder = path.dirname(folder)) {
    found.push(path.join(folder, 'node_modules', 'handover'))
    if (folder === path.dirname(folder)) return found
  }
}
