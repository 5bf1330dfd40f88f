/**
 * Sends and receives a listening socket with what it is called: one descriptor, a line of JSON, and bytes of the caller.
 *
 * The sender goes on listening. What arrives is checked before a server listens on it, and closed where it is not a listening socket.
 */

import { once } from 'node:events'
import { closeSync } from 'node:fs'
import net from 'node:net'
import { HandoverError } from '../errors.js'
import { defaultBacklog, systemError } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { setPipeName } from '../platform/node/listen-handle.js'
import { nameOf } from '../platform/socket-name.js'
import { isClusterWorker } from '../platform/on-demand.js'
import { addon, kindOf, wrongArgument, type Connection } from './argument-errors.js'
import { bytesOf, closeFds, describeFd, receiveFds, scratch, sendFds } from './descriptor-transfer.js'
import type { WaitOptions } from './turns.js'

/** What the sender says about a listener. */
export interface ListenerDescription {
  /** For people: `tcp 0.0.0.0:3000`, `tcp [::1]:3000`, `unix /run/app.sock`. */
  readonly name: string
  /** As listen(2) left it; 0 when the sender could not tell. */
  readonly backlog: number
}

/** A listener that came from another process, and what came with it. */
export interface ReceivedListener<S extends net.Server = net.Server> {
  /** It listens and accepts; its `close()` closes the descriptor. */
  readonly server: S
  /** What the sender gave to `sendListener`, or all bytes of a message from another program. */
  readonly data: Buffer
  /** Absent when the sender was not `sendListener`. */
  readonly description?: ListenerDescription
}

/** Marks the first line of a listener's message. The rest of the line is JSON, then come `bytes` bytes of the user's. */
interface Header extends ListenerDescription {
  readonly handover: 'listener'
  readonly bytes: number
}

/** The kernel cuts it to net.core.somaxconn: the backlog of a Unix socket cannot be read. */
const largestBacklog = 65_535

const backlogFor = (found: number, told: number): number =>
  found === 0 && told === 0 ? largestBacklog : Math.max(found, told, defaultBacklog)

const notAListener = (
  what: string, serving: string, code: 'HANDOVER_PROTOCOL' | 'HANDOVER_NOT_A_SOCKET' = 'HANDOVER_PROTOCOL'
): HandoverError =>
  new HandoverError(code, { what, serving, todo: 'See what the peer sends' })

/** The user's bytes of a message of `sendListener`; of another message all that has arrived. */
async function restOf(
  connection: Connection, first: Buffer, until: number | undefined, options: WaitOptions
): Promise<Pick<ReceivedListener, 'data' | 'description'>> {
  const end = first.indexOf('\n')
  const header = end < 0 ? undefined : headerOf(first.toString('utf8', 0, end))
  if (header === undefined) return { data: first }
  const parts = [first.subarray(end + 1)]
  let missing = header.bytes - (first.length - end - 1)
  while (missing > 0) {
    const timeoutMs = until === undefined ? undefined : Math.max(0, until - performance.now())
    const maxBytes = Math.min(missing, scratch.length)
    const { data, fds } = await receiveFds(connection, { ...options, ...(timeoutMs !== undefined && { timeoutMs }), maxBytes })
    closeFds(fds)
    if (fds.length > 0) throw notAListener(`expected ${missing} more bytes of a listener's message, found a message with ${fds.length} descriptors`, 'All were closed')
    parts.push(data)
    missing -= data.length
  }
  if (missing < 0) throw notAListener(`expected ${header.bytes} bytes after the line of a listener's message, found ${header.bytes - missing}`, 'It was closed')
  return { data: Buffer.concat(parts), description: { name: header.name, backlog: header.backlog } }
}

function headerOf(line: string): Header | undefined {
  try {
    const { handover, name, backlog, bytes } = JSON.parse(line) as Partial<Header>
    if (handover !== 'listener' || typeof name !== 'string' || typeof backlog !== 'number' || typeof bytes !== 'number' || bytes < 0) {
      return undefined
    }
    return { handover, name, backlog, bytes }
  } catch {
    return undefined
  }
}

/**
 * Sends the listening socket of a `net`, `http`, `https` or `http2` server. This process goes on listening on the same socket:
 * each connection goes to the process that accepts it first. To stop, call `server.close()` afterwards, which closes this copy and never
 * shuts the socket down; a Unix path that this process bound is then deleted by Node, even where the peer serves on it.
 * The peer shares O_NONBLOCK with this process: a peer that makes the socket blocking blocks this event loop.
 *
 * The message is a line of JSON (`{"handover":"listener","name":…,"backlog":…,"bytes":…}`), a newline, and `data`.
 *
 * @throws as `sendFds`; HANDOVER_FD_ARGUMENT when the server does not listen, or has no descriptor (in a cluster worker).
 */
export async function sendListener(
  connection: Connection, server: net.Server, data: string | Uint8Array = '', options: WaitOptions = {}
): Promise<void> {
  const api = addon()
  const bytes = bytesOf(data)
  const fd = fdOf(server)
  if (fd === undefined) throw wrongArgument(server.listening ? 'the server has no descriptor of its own (in a cluster worker the primary has it)' : 'the server does not listen', "Wait for its 'listening' event")
  const found = describeFd(fd)
  const header: Header = { handover: 'listener', name: nameOf(found), backlog: found.backlog, bytes: bytes.length }
  // The server may be closed while the message waits.
  const copy = api.duplicate(fd)
  if (copy < 0) {
    const what = 'no descriptor is free for a copy of the listener'
    throw wrongArgument(what, 'Raise the limit of open files (ulimit -n)', systemError(copy, 'fcntl'))
  }
  try {
    await sendFds(connection, [copy], Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), bytes]), options)
  } finally {
    closeSync(copy)
  }
}

/**
 * Receives a listening socket, from `sendListener` or from any program that sends one with some bytes, and lets a server listen on
 * it: `server`, or a new `net.Server`. What was sent on the connection before must have been received.
 * The larger backlog stays: listen(2) is called again by Node and would cut it, and raising it does no harm.
 *
 * @returns when the server is listening; its 'listening' event has been emitted.
 * @throws as `receiveFds`; HANDOVER_NOT_A_SOCKET when it is not a listening stream socket, HANDOVER_PROTOCOL when the message
 *   has not exactly one descriptor, HANDOVER_UNAVAILABLE in a cluster worker. What arrived was closed.
 */
export async function receiveListener<S extends net.Server = net.Server>(
  connection: Connection, server?: S, options: WaitOptions = {}
): Promise<ReceivedListener<S>> {
  const own = server ?? (net.createServer() as S)
  if (own.listening) throw wrongArgument('the server listens already', 'Give one that does not')
  if (isClusterWorker()) throw new HandoverError('HANDOVER_UNAVAILABLE', {
    what: 'in a cluster worker Node asks the primary for every listener, also for one that has a descriptor',
    serving: 'Nothing was received', todo: 'Receive it in the primary'
  })
  const api = addon()
  const until = options.timeoutMs === undefined ? undefined : performance.now() + options.timeoutMs
  const { data, fds } = await receiveFds(connection, options)
  let taken = false
  try {
    const [fd, ...more] = fds
    if (fd === undefined || more.length > 0) throw notAListener(`expected one descriptor of a listener, found ${fds.length}`, 'They were closed')
    const message = await restOf(connection, data, until, options)
    const found = api.describe(fd)
    if (typeof found === 'number' || !found.listening || found.type !== 'stream' || found.family === 'other') {
      const what = typeof found === 'number' ? systemError(found, 'getsockopt').message : `a ${kindOf(found)}`
      const expected = `expected a listening stream socket${message.description ? ` (${message.description.name})` : ''}`
      throw notAListener(`${expected}, found: ${what}`, 'It was closed, and the server does not listen', 'HANDOVER_NOT_A_SOCKET')
    }
    // As the second argument: Node ignores options.backlog where there is an fd.
    own.listen({ fd }, backlogFor(found.backlog, message.description?.backlog ?? 0))
    // Node closes what it could not listen on, and leaves open what it could not take at all.
    taken = fdOf(own) === fd || typeof api.describe(fd) === 'number'
    await once(own, 'listening')
    if (found.family === 'unix') setPipeName(own, found.address)
    return { server: own, ...message }
  } finally {
    if (!taken) closeFds(fds)
  }
}
