/**
 * Keeps a control socket where it can be found. A cleaner of old files may remove its path, or the whole directory; another file may
 * replace it. Every two seconds it checks that the path still leads to the socket. If not, it makes a new socket there, or in another
 * directory of this user. It keeps the age of path and directory low, so that cleaners leave them alone.
 *
 * It takes no name from another process: where another process listens at the path, that process has the name, and a warning says so.
 */

import { closeSync, lstat, lstatSync, utimes } from 'node:fs'
import path from 'node:path'
import { connectTo, listenAt, underLock } from './control-files.js'
import { addon } from '../platform/native.js'
import { inFirstUsablePlace, userId } from './control-places.js'

const lookMs = 2_000
/** Cleaners remove what is days old. */
const freshMs = 3_600_000

/** A listening socket and its path. */
export interface Standing {
  readonly file: string
  readonly fd: number
  /** Device and inode of the path when it was made. Undefined: it was gone already. */
  readonly id: string | undefined
}

export interface PathHealerSide {
  standing(): Standing
  mayHeal(): boolean
  moved(standing: Standing): void
  warn(line: string): void
  note(line: string): void
  userChanged(): void
}

export const standingAt = (file: string, fd: number): Standing => ({ file, fd, id: look(file).id })

const idOf = ({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): string => `${dev}:${ino}`
const isGone = (error: unknown): boolean => ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')

function look(file: string): { readonly id: string | undefined; readonly mayLook: boolean } {
  try {
    return { id: idOf(lstatSync(file, { bigint: true })), mayLook: true }
  } catch (error) {
    return { id: undefined, mayLook: isGone(error) }
  }
}

/** Whether the path leads to the socket. 'unknown' where this process may not look: it gave up the rights that it made it with. */
export function stands({ file, id }: Standing): 'yes' | 'no' | 'unknown' {
  const found = look(file)
  if (!found.mayLook) return 'unknown'
  return found.id !== undefined && found.id === id ? 'yes' : 'no'
}

export class PathHealer {
  readonly #side: PathHealerSide
  #timer: NodeJS.Timeout | undefined
  #said = ''
  #user = userId()

  constructor(side: PathHealerSide) {
    this.#side = side
  }

  start(): void {
    this.heal()
    this.#timer ??= setInterval(() => { this.#look() }, lookMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #look(): void {
    if (userId() !== this.#user) {
      this.#user = userId()
      this.#side.userChanged()
    }
    const { file, id } = this.#side.standing()
    // Not on this thread: a directory on a network may hang.
    lstat(file, { bigint: true }, (error, found) => {
      if (this.#timer === undefined || (error && !isGone(error))) return
      if (error || idOf(found) !== id) this.heal()
      else if (Date.now() - Number(found.mtimeMs) > freshMs) touch(file)
    })
  }

  /** At once. */
  heal(): void {
    const standing = this.#side.standing()
    if (!this.#side.mayHeal() || stands(standing) !== 'no') return
    const { file } = standing
    try {
      const again = standAgain(standing)
      if (typeof again === 'number') {
        this.#say(`process ${again} has taken the name of the control socket ${file}: this process cannot be found by it any more. See which of the two is to serve`)
        return
      }
      this.#said = ''
      this.#side.moved(again)
      this.#side.note(`the control socket ${file} had been removed or replaced: it was made again${again.file === file ? '' : ` as ${again.file}`}`)
    } catch (error) {
      this.#say(`the control socket ${file} is gone and cannot be made again: ${(error as Error).message}. This process serves, and the commands do not find it until that is repaired`)
    }
  }

  #say(line: string): void {
    if (line !== this.#said) this.#side.warn(line)
    this.#said = line
  }
}

function touch(file: string): void {
  const now = new Date()
  for (const touched of [file, path.dirname(file)]) utimes(touched, now, now, () => undefined)
}

/** Where it stands from now on, or the pid of a process that has its name. Throws what keeps a socket from being made. */
function standAgain(standing: Standing): Standing | number {
  return inFirstUsablePlace<Standing | number>(path.basename(standing.file, '.sock'), (file) => underLock(path.dirname(file), () => {
    const other = connectTo(file)
    if (other === undefined) return standingAt(file, listenAt(file))
    // On a file system that gives a file another number our own socket answers.
    const isOurs = addon().pollReadable(standing.fd, 0) > 0
    const peer = addon().peerCredentials(other)
    closeSync(other)
    return isOurs ? standingAt(file, standing.fd) : typeof peer === 'number' ? 0 : peer.pid
  }), path.dirname(standing.file))
}
