/**
 * Connections whose end the program alone knows: what was upgraded (a WebSocket, a tunnel), and those of a protocol of its own. The
 * program's own listeners for SIGTERM say goodbye on them. Where there are such listeners, the drain leaves these connections to them.
 */

import type net from 'node:net'
import { hasParser } from '../platform/node/connection-handle.js'
import type { Connection } from './connection.js'

export interface ProgramsEnd {
  /** Whether the program has listeners of its own that hear the signal after the drain. */
  readonly programEnds?: () => boolean
}

const isForProgram = (socket: net.Socket, { protocol, served, running }: Connection): boolean =>
  protocol === 'other' || (protocol === 'http1' && served === undefined && running.length === 0 && !hasParser(socket))

export const isLeft = (socket: net.Socket, connection: Connection, { programEnds }: ProgramsEnd): boolean =>
  isForProgram(socket, connection) && programEnds?.() === true

/** Whether all of them are. */
export function areLeft(connections: Iterable<readonly [net.Socket, Connection]>, { programEnds }: ProgramsEnd): boolean {
  for (const each of connections) if (!isForProgram(...each)) return false
  return programEnds?.() === true
}
