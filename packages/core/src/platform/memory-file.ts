/**
 * Files that nobody can open by a path: written by one process, sealed, and read by whoever gets the descriptor, now or after its
 * writer has ended.
 *
 * A memfd where there is one, else a file in the temporary directory that is unlinked at once (mode 0600; it cannot be sealed). What
 * is read or written here names its position, so processes that share a descriptor do not move each other's.
 */

import { randomUUID } from 'node:crypto'
import { close, closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { addon, systemError } from './native.js'

/** What says that there are no such files here: an old kernel or macOS, or a filter of system calls. */
const noMemoryFiles = new Set(['ENOSYS', 'EPERM', 'EACCES'])

/** An empty file for reading and writing, with FD_CLOEXEC. `name` is for people (/proc/<pid>/fd). Throws the error of the system. */
export function openMemoryFile(name: string): number {
  const fd = addon().memoryFile(name.slice(0, 80))
  if (fd >= 0) return fd
  const error = systemError(fd, 'memfd_create')
  if (!noMemoryFiles.has(error.code ?? '')) throw error
  const place = path.join(tmpdir(), `handover-${randomUUID()}`)
  const file = openSync(place, 'wx+', 0o600)
  unlinkSync(place)
  return file
}

/** From now on nobody can change it; where it is no memfd, nothing happens. Throws the error of the system. */
export function sealMemoryFile(fd: number): void {
  const answer = addon().seal(fd)
  const error = answer < 0 ? systemError(answer, 'fcntl F_ADD_SEALS') : undefined
  if (error && error.code !== 'EINVAL' && error.code !== 'ENOSYS') throw error
}

/** A sealed file that holds the text. */
export function textFile(text: string): number {
  const fd = openMemoryFile('handover')
  try {
    const bytes = Buffer.from(text)
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at)
    sealMemoryFile(fd)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** The text of a whole file; the descriptor stays the caller's. Throws for what is no regular file. */
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

/** The same; it takes the descriptor, which is closed whatever happens. */
export function takeTextFile(fd: number): string {
  try {
    return readTextFile(fd)
  } finally {
    closeSync(fd)
  }
}

const closeAt = promisify(close)

/**
 * Not closeSync(): who closes the last descriptor of a file in memory waits until its pages are given back, which for a gigabyte is a
 * tenth of a second. A number that is no descriptor is nothing to do anything about.
 */
export const closeLater = (fd: number): Promise<void> => closeAt(fd).catch(() => undefined)
