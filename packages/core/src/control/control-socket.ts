/**
 * A control socket: a process can be found by its path, in a directory of mode 0700 (control-places.ts). It passes to the successor with
 * the listeners. control-connections.ts serves what connects.
 *
 * A cleaner of old files may remove the path, or the whole directory; another file may replace it. So every two seconds the process checks
 * that the path still leads to the socket. If not, it binds a new one there, or in another directory of this user. It keeps the path and
 * the directory young, so that cleaners leave them alone. It takes no name from another process: it warns where one listens at the path.
 */

import { closeSync, lstat, lstatSync, unlinkSync, utimes } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { fileId, idOf } from '../platform/file-id.js'
import { addon, check } from '../platform/native.js'
import { passListenHook } from '../platform/own-servers.js'
import { ControlConnections, type ConnectionsSide } from './control-connections.js'
import { connectTo, listenAt, pidBehind, underLock } from './control-files.js'
import { inFirstUsablePlace, userId } from './control-places.js'

// Not what the program may have put in the place of createServer(), to know all of its servers.
const { Server: NetServer } = net
const lookMs = 2_000
/** How long another process may hold the lock of the directory: this one serves, and tries again. */
const lockedMs = 50
/** Cleaners remove files that are days old. */
const freshMs = 3_600_000

export interface ControlSide extends ConnectionsSide {
  warn(line: string): void
  /** For information: there is nothing to do. */
  note?(line: string): void
  /** This process runs as another user now, which may have no access to the directory. */
  userChanged?(): void
  /** False while another process may serve on the same socket: then this process must not make its path again. */
  mayHeal?(): boolean
}

/** A listening socket and its path. */
interface BoundSocket {
  readonly file: string
  readonly fd: number
  /** Device and inode of the path when it was made; undefined where it was gone already. */
  readonly id: string | undefined
}

const isGone = (error: unknown): boolean => ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')

export class ControlSocket {
  readonly #side: ControlSide
  readonly #connections: ControlConnections
  #bound: BoundSocket
  #server: net.Server | undefined
  #timer: NodeJS.Timeout | undefined
  #user = userId()
  #warned = ''

  /**
   * Owns the descriptor, which listens; does not accept before `listen()`. `id`: device and inode of the path, where they are known
   * from before.
   */
  constructor(file: string, fd: number, side: ControlSide, id = fileId(file)) {
    this.#bound = { file, fd, id }
    this.#side = side
    this.#connections = new ControlConnections(side)
  }

  get file(): string {
    return this.#bound.file
  }

  get fd(): number {
    return this.#bound.fd
  }

  get id(): string | undefined {
    return this.#bound.id
  }

  listen(): void {
    this.#accept()
    this.heal()
    this.#timer ??= setInterval(() => { this.#look() }, lookMs).unref()
  }

  #accept(): void {
    const duplicate = check(addon().duplicate(this.fd), 'fcntl')
    this.#server = passListenHook(new NetServer({ pauseOnConnect: true }, (socket) => { this.#connections.meet(socket) }))
    this.#server.on('error', (error) => { this.#warn(`the control socket ${this.file} cannot be used: ${error.message}`) })
    this.#server.listen({ fd: duplicate }, 128)
    this.#server.unref()
  }

  /** Stops accepting; the descriptor stays open, so that `listen()` may follow. */
  pause(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#server?.close()
    this.#server = undefined
    this.#connections.dropHalves()
  }

  /** `last`: no other process has the socket, so its path is removed. */
  close(last: boolean): void {
    // In this order: a process that finds no listener there takes the path.
    if (last && this.#isInPlace) {
      try {
        unlinkSync(this.file)
      } catch { /* removed already */ }
    }
    this.pause()
    closeSync(this.fd)
  }

  // ---- where its path is gone ----

  /** Whether the path leads to the socket; undefined where this process gave up the rights to look. */
  get #isInPlace(): boolean | undefined {
    try {
      return idOf(lstatSync(this.file, { bigint: true })) === this.id
    } catch (error) {
      return isGone(error) ? false : undefined
    }
  }

  #look(): void {
    if (userId() !== this.#user) {
      this.#user = userId()
      this.#side.userChanged?.()
    }
    const { file, id } = this
    // Not on this thread: a directory on a network may hang.
    lstat(file, { bigint: true }, (error, found) => {
      if (this.#timer === undefined || (error && !isGone(error))) return
      if (error || idOf(found) !== id) this.heal()
      else if (Date.now() - Number(found.mtimeMs) > freshMs) touch(file)
    })
  }

  /** Makes the path again at once, where it is gone. */
  heal(): void {
    if (!this.#server || this.#side.mayHeal?.() === false || this.#isInPlace !== false) return
    const { file } = this
    try {
      const again = bindAgain(this.#bound)
      if (typeof again === 'number') {
        this.#warn(`process ${again} has taken the name of the control socket ${file}: this process cannot be found by it any more. See which of the two is to serve`)
        return
      }
      this.#warned = ''
      this.#move(again)
      this.#side.note?.(`the control socket ${file} had been removed or replaced: it was made again${again.file === file ? '' : ` as ${again.file}`}`)
    } catch (error) {
      this.#warn(`the control socket ${file} is gone and cannot be made again: ${(error as Error).message}. This process serves, and the commands do not find it until that is repaired`)
    }
  }

  #move(bound: BoundSocket): void {
    const { fd } = this
    this.#bound = bound
    if (bound.fd === fd) return
    this.#server?.close()
    closeSync(fd)
    this.#accept()
  }

  /** Once, until it is another line. */
  #warn(line: string): void {
    if (line !== this.#warned) this.#side.warn(line)
    this.#warned = line
  }
}

function touch(file: string): void {
  const now = new Date()
  for (const touched of [file, path.dirname(file)]) utimes(touched, now, now, () => undefined)
}

/** The socket and its path from now on, or the pid of a process that has its name. Throws the error that keeps a socket from being made. */
function bindAgain({ file: before, fd }: BoundSocket): BoundSocket | number {
  const bound = (file: string, socket: number): BoundSocket => ({ file, fd: socket, id: fileId(file) })
  return inFirstUsablePlace<BoundSocket | number>(path.basename(before, '.sock'), (file) => underLock(path.dirname(file), lockedMs, () => {
    const other = connectTo(file)
    if (other === undefined) return bound(file, listenAt(file))
    // On a file system that gives a file another number our own socket answers.
    const isOurs = addon().pollReadable(fd, 0) > 0
    const pid = pidBehind(other)
    return isOurs ? bound(file, fd) : pid
  }), path.dirname(before))
}
