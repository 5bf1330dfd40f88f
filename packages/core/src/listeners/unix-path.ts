import { closeSync, lstatSync } from 'node:fs'
import { constants } from 'node:os'
import path from 'node:path'
import { addon, native } from '../platform/native.js'
import { unguarded } from '../platform/path-guard.js'
import { removeStaleHolds } from './socket-files.js'

/** 0, or a negative errno: -EAGAIN where the queue is full. */
export function connectTo(file: string): number {
  const answer = addon().connectUnix(file)
  if (answer < 0) return answer
  closeSync(answer)
  return 0
}

/** A socket on which nobody listens: what a process leaves that was killed, and what would fail every reload after one that failed. unix(7). */
export function isAbandoned(file: string): boolean {
  return modeOf(file) !== undefined && connectTo(file) === -constants.errno.ECONNREFUSED
}

/** The permissions of a Unix socket; undefined where there is none. */
export function modeOf(file: string): number | undefined {
  const found = lstatSync(file, { throwIfNoEntry: false })
  return native && found?.isSocket() ? found.mode & 0o777 : undefined
}

/** Node's default; the kernel rounds it up. */
export const defaultBacklog = 511

/**
 * A Unix socket at `file`, which `listens` or is bound alone, and whose close() leaves the file alone: libuv unlinks the path that it bound itself when the first process
 * that holds the socket closes it. Undefined where the path cannot be used: Node's own listen() then says so in its own words.
 */
export function bindUnix(file: string, listens: boolean): number | undefined {
  if (isAbandoned(file)) unguarded.unlinkSync(file)
  removeStaleHolds(path.resolve(file))
  const fd = native?.listenUnix(file, listens ? defaultBacklog : -1) ?? -1
  return fd < 0 ? undefined : fd
}
