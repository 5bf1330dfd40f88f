/**
 * Node never waits for the reader of a pipe: once a program has `process.stdout` or `process.stderr`, what finds no room waits in the
 * memory of the process (O_NONBLOCK). So a log collector that stands still stops no server.
 *
 * The flag belongs to the pipe, which all processes share that were started with it. Each start of a process takes it away, as libuv does
 * for programs that do not expect it; here it is put back.
 */

import { constants, fstatSync, readFileSync } from 'node:fs'
import net from 'node:net'
import { native } from './native.js'

/** False where it cannot be seen: there is no proc(5). */
function writesWait(fd: number): boolean {
  try {
    const [, flags = ''] = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')) ?? []
    return (parseInt(flags, 8) & constants.O_NONBLOCK) !== 0
  } catch {
    return false
  }
}

/** As Node does when it makes such a stream. Ignores what is neither a pipe nor a socket, and what cannot be opened. */
function letWritesWait(fd: number): void {
  try {
    const about = fstatSync(fd)
    const copy = about.isFIFO() || about.isSocket() ? native?.duplicate(fd) : undefined
    if (copy !== undefined && copy >= 0) new net.Socket({ fd: copy, readable: false, writable: true }).destroy()
  } catch { /* closed, or of a kind that Node does not know */ }
}

/** Call it before a process is started, and what it answers when that has been started, and when it has ended. */
export function keepWaiting(): () => void {
  const waiting = [1, 2].filter(writesWait)
  return () => { waiting.forEach(letWritesWait) }
}
