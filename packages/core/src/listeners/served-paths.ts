/**
 * Protects the Unix paths of this process while another version of it lives.
 *
 * The guard (path-guard.ts) stops this program itself: before it serves, it may not touch a served path; while it drains, or has a keeper,
 * it may not remove a path that others serve. The hold (socket-file-hold.ts) puts back what any process removes.
 */

import type { ListenerRegistry } from './listener-registry.js'
import { fileId } from '../platform/file-id.js'
import { asKnown, protect, standGuard, takeMarkedPaths, unguarded, type Harm } from '../platform/path-guard.js'
import { SocketFileHold } from './socket-file-hold.js'

export interface ServedPathsSide {
  readonly inventory: ListenerRegistry
  /** `waits`: it does not serve yet. `kept`: others, or the keeper, use the paths after it. `neighbour`: an older generation lives. */
  place(): 'waits' | 'kept' | 'neighbour' | 'alone'
  /** A listener has a new socket. */
  rebound(): void
  warn(line: string): void
}

export class ServedPaths {
  readonly #side: ServedPathsSide
  /** Known before the offer. */
  readonly #marked: ReadonlySet<string>
  #hold: SocketFileHold | undefined
  /** The names of what was put back since the hold began. */
  readonly #back = new Set<string>()

  /** `isSuccessor`: the process that started this one may have named the paths that it serves. */
  constructor(env: NodeJS.ProcessEnv, isSuccessor: boolean, side: ServedPathsSide) {
    this.#side = side
    const marked = takeMarkedPaths(env)
    this.#marked = isSuccessor ? marked : new Set()
    protect((file, harm) => this.#isProtected(file, harm), (from, to) => { this.#renamed(from, to) })
    if (this.#marked.size > 0) standGuard()
  }

  #isProtected(file: string, harm: Harm): boolean {
    const { inventory } = this.#side
    const place = this.#side.place()
    if (place === 'waits') return this.#marked.has(file) || inventory.isPathOf(file, 'offered')
    if (inventory.isPathOf(file, 'passed on')) return true
    if (place === 'alone' || harm !== 'remove') return false
    return inventory.isPathOf(file, 'mine') || (place === 'kept' && inventory.isPathOf(file, 'lent'))
  }

  #renamed(from: string, to: string): void {
    const isNew = this.#side.place() === 'waits' && this.#side.inventory.claimRenamed(from, to)
    if (isNew || fileId(from) === fileId(to)) unguarded.unlinkSync(from)
  }

  /** Begins a hold, until `release`. */
  hold(): void {
    this.release()
    const { inventory } = this.#side
    inventory.noteFiles()
    if (inventory.socketFiles.length === 0) return
    this.#hold = new SocketFileHold({
      files: () => inventory.socketFiles,
      rebind: ({ name }) => {
        const isBack = inventory.rebind(name)
        if (isBack) this.#side.rebound()
        return isBack
      },
      changed: ({ name, file }, isBack) => {
        if (isBack) this.#back.add(name)
        this.#side.warn(isBack ? `${file} was removed or replaced while it is served, and is in its place again` : `${file} was removed or replaced, and cannot be put back: nobody can connect to ${name}`)
      }
    })
  }

  release(): void {
    this.#hold?.release()
    this.#hold = undefined
    this.#back.clear()
  }

  /** Puts back what is not in its place. Returns the names of what was put back since the hold began. */
  mend(): readonly string[] {
    this.#hold?.check()
    return [...this.#back]
  }

  /** The absolute paths that a new successor is told. */
  get marked(): readonly string[] {
    return [...new Set(this.#side.inventory.socketFiles.map(({ file }) => asKnown(file)))]
  }
}
