/**
 * What `@handover/core/fd` takes as a connection, and the error for an argument that it cannot use.
 *
 * Each error names what was found and what to give instead. Nothing was sent or received then.
 */

import net from 'node:net'
import { HandoverError } from '../errors.js'
import { native, nativeMissing, type Native, type SocketDescription } from '../platform/native.js'

export function addon(): Native {
  if (native) return native
  throw new HandoverError('HANDOVER_UNAVAILABLE', {
    what: `descriptors cannot be passed in this process: ${nativeMissing}`,
    serving: 'Nothing was changed', todo: 'Build the addon (node-gyp rebuild), or use a platform that the package has a binary for'
  })
}

export const wrongArgument = (found: string, expected: string, cause?: unknown): HandoverError =>
  new HandoverError(
    'HANDOVER_FD_ARGUMENT', { what: found, serving: 'Nothing was sent or received', todo: expected }, cause === undefined ? {} : { cause }
  )

/** Names the thing that the caller gave, in errors. */
export const named = (connection: Connection): string => (typeof connection === 'number' ? `descriptor ${connection}` : 'the net.Socket')

export const kindOf = (found: SocketDescription): string => `${found.listening ? 'listening ' : ''}${found.family} ${found.type} socket`

/**
 * A connected Unix stream socket: its descriptor (borrowed, never closed), or a `net.Socket`. Node must not read from a
 * `net.Socket` that receives, or it takes the bytes and the kernel closes the descriptors that came with them: accept it with
 * `net.createServer({ pauseOnConnect: true })`, or call `pause()` before it connects. Sending on one that Node reads is fine.
 */
export type Connection = number | net.Socket
