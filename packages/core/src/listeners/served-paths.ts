/**
 * The Unix paths of this process while another version of it lives. The guard stops what the program itself does to them
 * (path-guard.ts); the hold puts back what any process removes (socket-file-hold.ts).
 *
 * Until a successor serves, nothing may happen to a path that is served. While a process drains, or has a keeper, its program must not
 * remove a path on which others go on.
 */

import type { ListenerRegistry } from './listener-registry.js'
import { asKnown, protect, standGuard, takeMarkedPaths, unguarded, type Harm } from '../platform/path-guard.js'
import { fileId, SocketFileHold } from './socket-file-hold.js'

export interface ServedPathsSide {
  readonly inventory: ListenerRegistry
  /**
   * `waits`: a successor that does not serve yet. `kept`: others, or the keeper, go on with the paths. `neighbour`: an older generation
   * lives.
   */
  place(): 'waits' | 'kept' | 'neighbour' | 'alone'
  /** A listener is another socket now. */
  rebound(): void
  warn(line: string): void
}

export class ServedPaths {
  readonly #side: ServedPathsSide
  /** What was known before the offer. */
  readonly #marked: ReadonlySet<string>
  #hold: SocketFileHold | undefined
  /** Put back since the hold began. */
  readonly #back = new Set<string>()

  /** `isSuccessor`: whoever started this process may have named the paths that it serves. */
  constructor(env: NodeJS.ProcessEnv, isSuccessor: boolean, side: ServedPathsSide) {
    this.#side = side
    const marked = takeMarkedPaths(env)
    this.#marked = isSuccessor ? marked : new Set()
    protect((file, harm) => this.#isProtected(file, harm), (from, to) => { this.#renamed(from, to) })
    if (this.#marked.size > 0) standGuard()
  }

  /** The program listens on a Unix path, or is about to. */
  guard(): void {
    standGuard()
  }

  #isProtected(file: string, harm: Harm): boolean {
    const { inventory } = this.#side
    const place = this.#side.place()
    if (place === 'waits') return this.#marked.has(file) || inventory.isPathOf(file, 'offered')
    if (inventory.isPathOf(file, 'passed on')) return true
    return place !== 'alone' && harm === 'remove' && inventory.isPathOf(file, 'mine')
  }

  #renamed(from: string, to: string): void {
    const isNew = this.#side.place() === 'waits' && this.#side.inventory.claimRenamed(from, to)
    if (isNew || fileId(from) === fileId(to)) unguarded.unlinkSync(from)
  }

  /** Until `release`, or anew. */
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

  /** Looks, and puts back what is not in its place. Answers the names of what was put back since the hold began. */
  mend(): readonly string[] {
    this.#hold?.check()
    return [...this.#back]
  }

  /** What a process is told that is started as a successor: absolute paths. */
  get marked(): readonly string[] {
    return [...new Set(this.#side.inventory.socketFiles.map(({ file }) => asKnown(file)))]
  }
}
