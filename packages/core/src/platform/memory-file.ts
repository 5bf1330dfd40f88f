/**
 * Files without a path: one process writes and seals it, and the process that gets the descriptor reads it, even after the writer has
 * ended.
 *
 * A memfd where there is one, else a file in the temporary directory that is unlinked at once (mode 0600; it cannot be sealed). Reads and
 * writes name their position: processes that share a descriptor share its offset.
 */

import { close, closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { addon, systemError } from './native.js'
import { uniqueWord } from './on-demand.js'

/** There is no memfd here: an old kernel, macOS, or a filter of system calls. */
const noMemoryFiles = new Set(['ENOSYS', 'EPERM', 'EACCES'])

/** Whether what is to stand on no disk can go to another process. */
export function hasMemoryFiles(): boolean {
  const fd = addon().memoryFile('handover')
  if (fd >= 0) closeSync(fd)
  return fd >= 0 || !noMemoryFiles.has(systemError(fd, 'memfd_create').code ?? '')
}

/** An empty file for reading and writing, with FD_CLOEXEC. `name` is for people (/proc/<pid>/fd). Throws the error of the system. */
export function openMemoryFile(name: string): number {
  const fd = addon().memoryFile(name.slice(0, 80))
  if (fd >= 0) return fd
  const error = systemError(fd, 'memfd_create')
  if (!noMemoryFiles.has(error.code ?? '')) throw error
  const place = path.join(tmpdir(), `handover-${uniqueWord()}`)
  const file = openSync(place, 'wx+', 0o600)
  unlinkSync(place)
  return file
}

/** Not a memfd: EPERM is what a file says whose file system is tmpfs. */
const cannotBeSealed = new Set(['EINVAL', 'ENOSYS', 'EPERM'])

/** From now on it cannot be changed, if it is a memfd. Throws the error of the system. */
export function sealMemoryFile(fd: number): void {
  const answer = addon().seal(fd)
  const error = answer < 0 ? systemError(answer, 'fcntl F_ADD_SEALS') : undefined
  if (error && !cannotBeSealed.has(error.code ?? '')) throw error
}

/** A sealed file that holds the bytes. Throws the error of the system. */
export function sealedFile(bytes: Buffer): number {
  const fd = openMemoryFile('handover')
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at)
    sealMemoryFile(fd)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** A sealed file that holds the text. */
export const textFile = (text: string): number => sealedFile(Buffer.from(text))

/** A whole file; the caller keeps the descriptor. Throws if it is no regular file. */
export function readTextFile(fd: number): string {
  const about = fstatSync(fd)
  if (!about.isFile()) throw new TypeError(`descriptor ${fd} is not a file`)
  const bytes = Buffer.allocUnsafe(about.size)
  let at = 0
  while (at < bytes.length) {
    const read = readSync(fd, bytes, at, bytes.length - at, at)
    if (read === 0) throw new Error(`the file became shorter while it was read: ${at} bytes of ${bytes.length}`)
    at += read
  }
  return bytes.toString()
}

/** The same, and closes the descriptor in any case. */
export function takeTextFile(fd: number): string {
  try {
    return readTextFile(fd)
  } finally {
    closeSync(fd)
  }
}

const closeAt = promisify(close)

/** A file of at most so many bytes is written, read and closed at once: the way to another thread and back takes longer. */
export const smallBytes = 16_384

/**
 * The last close of a file in memory frees its pages, a tenth of a second for a gigabyte: another thread does it, unless it is known to be
 * small. Ignores a wrong number.
 */
export async function closeLater(fd: number, bytes = Infinity): Promise<void> {
  try {
    if (bytes <= smallBytes) closeSync(fd)
    else await closeAt(fd)
  } catch {
    // Nobody can do anything about it.
  }
}
