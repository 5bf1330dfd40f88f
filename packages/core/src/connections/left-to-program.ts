/**
 * Connections whose end the program alone knows: what was upgraded (a WebSocket, a tunnel), and those of a protocol of its own. Its own
 * listeners for SIGTERM say goodbye on them, or its app does as it closes: where there are such, the drain leaves these connections to
 * them.
 */

import type net from 'node:net'
import { hasParser } from '../platform/node/connection-handle.js'
import type { Clock } from '../platform/clock.js'
import type { Connection } from './connection.js'

export interface ProgramsEnd {
  /** Whether the program has such listeners, which hear the signal after the drain, or such an app. */
  readonly programEnds?: () => boolean
}

const isForProgram = (socket: net.Socket, { protocol, served, running }: Connection): boolean =>
  protocol === 'other' || (protocol === 'http1' && served === undefined && running.length === 0 && !hasParser(socket))

export const isLeft = (socket: net.Socket, connection: Connection, { programEnds }: ProgramsEnd): boolean =>
  isForProgram(socket, connection) && programEnds?.() === true

/** Whether all of them are. */
export function areLeft(connections: Iterable<readonly [net.Socket, Connection]>, { programEnds }: ProgramsEnd): boolean {
  // Asked first: as a drain ends, this is looked at for each connection that leaves.
  if (programEnds?.() !== true) return false
  for (const each of connections) if (!isForProgram(...each)) return false
  return true
}

interface Cut {
  readonly host: { readonly clock: Clock }
  readonly log: (level: 'info', line: string) => void
}

/**
 * The program may wait for their end before it goes on with its cleanup: after this time what is still open is cut, unless the result is
 * called before.
 */
export function cutLeftIn(
  ms: number, drains: readonly { readonly left: ReadonlySet<net.Socket> }[], { host: { clock }, log }: Cut
): () => void {
  const timer = clock.setTimeout(() => {
    const open = drains.flatMap((drain) => [...drain.left]).filter((socket) => !socket.destroyed)
    if (open.length > 0) log('info', `cutting ${open.length} connection${open.length === 1 ? '' : 's'} that the program itself has not closed`)
    for (const socket of open) socket.destroy()
  }, ms).unref()
  return () => { clock.clear(timer) }
}
