/**
 * Makes libuv's threads (UV_THREADPOOL_SIZE) while a process boots. libuv makes them when they are first needed, and where the limit of
 * processes is reached by then (ulimit -u, pids.max of a container) it aborts the process: as a rule one that serves, since the processes
 * of a reload count for the same limit. https://github.com/libuv/libuv/blob/v1.x/src/threadpool.c
 */

import { lstat } from 'node:fs'

let isMade = false

export function makePool(): void {
  if (isMade) return
  isMade = true
  lstat('/', () => undefined)
}
