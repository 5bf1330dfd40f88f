/**
 * The path of a Unix socket: tells whether a process listens there, and binds a new socket there.
 *
 * A bind removes the stale file of a killed process, and no other. socket-file-hold.ts keeps the file of a served socket in its place.
 */

import { chmodSync, closeSync, constants as flags, fstatSync, lchmodSync, lstatSync, openSync } from 'node:fs'
import { constants } from 'node:os'
import path from 'node:path'
import { addon, defaultBacklog, native } from '../platform/native.js'
import { unguarded } from '../platform/path-guard.js'
import { removeStaleHolds } from './socket-file-hold.js'

/** What a connect answers, which is closed at once: 0, or a negative errno (-EAGAIN where the queue is full). */
export function connectStatus(file: string): number {
  const answer = addon().connectUnix(file)
  if (answer < 0) return answer
  closeSync(answer)
  return 0
}

/** True for the socket of a killed process: connects are refused, and a bind there fails. unix(7) */
export function isAbandoned(file: string): boolean {
  return modeOf(file) !== undefined && connectStatus(file) === -constants.errno.ECONNREFUSED
}

/** The permissions of a Unix socket; undefined where there is none, or it cannot be seen. */
export function modeOf(file: string): number | undefined {
  try {
    const found = lstatSync(file)
    return native && found.isSocket() ? found.mode & 0o777 : undefined
  } catch {
    return undefined
  }
}

function removeAbandoned(file: string): void {
  try {
    if (isAbandoned(file)) unguarded.unlinkSync(file)
  } catch { /* it may not: then the bind fails */ }
}

/** Linux; fs.constants lacks it. open(2) */
const onlyThePath = 0o10000000

/**
 * chmod(2) of a Unix socket, and of nothing else: whoever may write to its folder could put a link to a file of this user in its place.
 * Throws where it cannot.
 */
export function setMode(file: string, mode: number): void {
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- macOS has it, and only there it is called
  if (process.platform !== 'linux') return lchmodSync(file, mode)
  const fd = openSync(file, onlyThePath | flags.O_NOFOLLOW)
  try {
    if (!fstatSync(fd).isSocket()) throw new Error(`${file} is no socket`)
    chmodSync(`/proc/self/fd/${fd}`, mode)
  } finally {
    closeSync(fd)
  }
}

/**
 * A Unix socket at `file` that `listens`, or is only bound, with these permissions. libuv would unlink the path when the first process
 * closes the socket. Undefined where the path cannot be used: Node's own listen() then reports why.
 */
export function bindUnix(file: string, listens: boolean, mode?: number): number | undefined {
  removeAbandoned(file)
  removeStaleHolds(path.resolve(file))
  const fd = native?.listenUnix(file, listens ? defaultBacklog : -1) ?? -1
  if (fd < 0) return undefined
  try {
    if (mode !== undefined && modeOf(file) !== mode) setMode(file, mode)
    return fd
  } catch {
    closeSync(fd)
    return undefined
  }
}
