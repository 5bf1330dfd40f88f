/**
 * The low door, `@handover/core/fd`: passing descriptors between processes over a Unix socket (SCM_RIGHTS), for programs
 * that want no reload. It talks to anything that speaks the same system calls: Python's send_fds, Go, C.
 * It promises that the event loop is never blocked, that nothing leaks on any path, that descriptors which arrive have
 * FD_CLOEXEC, and that what the caller lends (descriptors, connections, servers) is never closed.
 * It does not connect, accept, frame or repeat: one send is one sendmsg(2), one receive is one recvmsg(2).
 */

import { closeSync, fstatSync } from 'node:fs'
import net from 'node:net'
import { constants } from 'node:os'
import { HandoverError } from '../errors.js'
import { maxFdsPerMessage, native, systemError, type PeerCredentials, type SocketDescription } from '../platform/native.js'
import { isReading } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { addon, kindOf, named, wrongArgument, type Connection } from './argument-errors.js'
import { checkWait, enter, leave, queues, Stop, type Direction, type Transfer, type WaitOptions } from './turns.js'

export type { PeerCredentials, SocketDescription } from '../platform/native.js'

/** How much is taken, and how long to wait for it. */
export interface ReceiveOptions extends WaitOptions {
  /** The most bytes to take; 65 536 if absent. */
  readonly maxBytes?: number | undefined
}

/** What one message held. */
export interface Received {
  /** Its bytes: at least one. */
  readonly data: Buffer
  /** They have FD_CLOEXEC and are the caller's to close (`closeFds`). Empty when bytes came without descriptors. */
  readonly fds: number[]
}

const { EAGAIN, EBADF, ECONNRESET, EPIPE } = constants.errno
// Not in Node's table; errno.h of Linux and of macOS.
const ETOOMANYREFS = process.platform === 'darwin' ? 59 : 109
const largestRead = 2 ** 30
const oneByte = new Uint8Array(1)

/** Most messages are small: they are received here, and copied out in the same tick. */
export const scratch: Buffer = Buffer.alloc(65_536)

/** The descriptor of a connection that can be used now, or an error that says why not. */
function descriptorOf(connection: Connection, direction: Direction | undefined): number {
  if (typeof connection === 'number') return mustBeDescriptor(connection)
  if (!(connection instanceof net.Socket)) throw wrongArgument('the connection is neither a number nor a net.Socket', 'Give a descriptor or a net.Socket')
  if (connection.connecting) throw wrongArgument('the net.Socket is not connected yet', "Wait for its 'connect' event")
  if ('encrypted' in connection) throw wrongArgument('the net.Socket is a TLS socket', 'Give a plain Unix socket')
  const fd = fdOf(connection)
  if (fd === undefined) throw wrongArgument('the net.Socket has no descriptor: it was destroyed, or never connected', 'Give one that is open')
  if (direction === 'readable') mustNotBeRead(connection)
  if (direction === 'writable' && connection.writableLength > 0) {
    throw wrongArgument(`Node still has ${connection.writableLength} bytes to write to the net.Socket`, 'Wait until they are written: the bytes would come after the descriptors')
  }
  return fd
}

function mustBeDescriptor(fd: number): number {
  if ((fd | 0) !== fd || fd < 0) throw wrongArgument(`${fd} is no descriptor`, 'Give a small whole number')
  return fd
}

/** What is wrong with the connection itself, when a call on it has failed; undefined when nothing is. */
function complaint(connection: Connection, fd: number): HandoverError | undefined {
  const found = addon().describe(fd)
  if (typeof found === 'number') {
    const what = found === -EBADF ? 'is not open' : 'is not a socket'
    return wrongArgument(`${named(connection)} ${what}`, 'Give a connected Unix stream socket', systemError(found, 'getsockname'))
  }
  if (found.family === 'unix' && found.type === 'stream' && !found.listening) return undefined
  return wrongArgument(`${named(connection)} is a ${kindOf(found)}`, 'Descriptors travel over a connected Unix stream socket')
}

function mustNotBeRead(socket: net.Socket): void {
  const advice = 'Accept it with net.createServer({ pauseOnConnect: true }), or call pause() before it connects'
  if (socket.bytesRead > 0) {
    throw wrongArgument(`Node has already read ${socket.bytesRead} bytes of the net.Socket, and descriptors that came with them are lost`, advice)
  }
  if (isReading(socket) ?? !socket.isPaused()) throw wrongArgument('Node is reading from the net.Socket', advice)
}

function checkDescriptors(fds: readonly number[]): void {
  if (!Array.isArray(fds) || fds.length === 0 || !fds.every((fd) => (fd | 0) === fd && fd >= 0)) {
    throw wrongArgument('the descriptors are not a list of one or more whole numbers', 'Give at least one descriptor')
  }
  if (fds.length > maxFdsPerMessage) {
    throw new HandoverError('HANDOVER_FD_LIMIT', {
      what: `${fds.length} descriptors are too many for one message`,
      serving: 'Nothing was sent', todo: `Send them in batches of at most ${maxFdsPerMessage}`
    })
  }
}

/** Does a transfer at once where it can: undefined where it must wait for its turn or for the socket. */
function atOnce<T>(connection: Connection, transfer: Transfer<T>, options: WaitOptions): T | undefined {
  checkWait(options)
  options.signal?.throwIfAborted()
  const { direction } = transfer
  const fd = descriptorOf(connection, direction)
  if (queues[direction].size > 0 && queues[direction].has(fstatSync(fd).ino)) return undefined
  return transfer.attempt(fd)
}

/** After `atOnce` in the same turn. */
async function inTurn<T>(connection: Connection, transfer: Transfer<T>, options: WaitOptions): Promise<T> {
  const { direction } = transfer
  const fd = descriptorOf(connection, direction)
  const queue = enter(fd, direction)
  const before = queue.last
  let finish = (): void => undefined
  const done = new Promise<void>((resolve) => { finish = resolve })
  queue.last = before.then(() => done)
  const stop = new Stop(transfer, options)
  const socket = typeof connection === 'number' ? undefined : connection
  const onClose = (): void => {
    stop.now(closed(transfer.soFar(), 'this process destroyed the net.Socket during the call'))
  }
  try {
    if (queue.calls > 1) await stop.or((ready) => { void before.then(ready); return () => undefined })
    if (socket?.destroyed) onClose()
    socket?.on('close', onClose)
    for (;;) {
      await stop.or((ready) => {
        // A negative status says only that there is an error; the next attempt says which.
        const cancel = addon().watchOnce(queue.fd, direction, ready)
        if (typeof cancel === 'number') throw wrongArgument(`${named(connection)} cannot be waited for`, 'See the cause', systemError(cancel, 'epoll_ctl'))
        return cancel
      })
      const result = transfer.attempt(queue.fd)
      if (result !== undefined) return result
    }
  } finally {
    socket?.off('close', onClose)
    stop.forget()
    leave(queue, direction)
    finish()
  }
}

const isClosed = (errno: number): boolean => errno === -EPIPE || errno === -ECONNRESET
const closed = (serving: string, what = 'the peer closed the connection', cause?: unknown): HandoverError =>
  new HandoverError('HANDOVER_FD_CLOSED', { what, serving, todo: 'Connect again' }, cause === undefined ? {} : { cause })

function sendFailure(errno: number, fds: readonly number[], soFar: string): HandoverError {
  const cause = systemError(errno, 'sendmsg')
  if (isClosed(errno)) return closed(soFar, undefined, cause)
  if (errno === -ETOOMANYREFS) {
    return new HandoverError('HANDOVER_FD_LIMIT', {
      what: 'the kernel takes no more descriptors on their way: more than RLIMIT_NOFILE of this user are sent and not received yet (ETOOMANYREFS)',
      serving: soFar, todo: 'Let the peer receive before more is sent, or raise the limit of open files'
    }, { cause })
  }
  const wrong = errno === -EBADF ? fds.find((fd) => !works(() => fstatSync(fd))) : undefined
  if (wrong !== undefined) return wrongArgument(`descriptor ${wrong}, which was to be sent, is not open`, 'Send it before it is closed', cause)
  return wrongArgument(`the message cannot be sent: ${cause.message}`, 'See sendmsg(2) and unix(7) for this error', cause)
}

function works(call: () => unknown): boolean {
  try {
    call()
    return true
  } catch {
    return false
  }
}

/**
 * Sends 1 to 252 descriptors and some bytes as one message, sendmsg(2) with SCM_RIGHTS, unix(7). The descriptors stay open
 * here and are the caller's; keep them open until the promise resolves. It resolves when the kernel has all bytes, which does
 * not mean that the peer has read them. Calls on one connection take effect in the order in which they were made.
 *
 * @param data A string (UTF-8) or bytes; without it one zero byte, because a descriptor cannot travel alone on a stream.
 * @throws HANDOVER_FD_ARGUMENT (with the system error as cause, where there is one), HANDOVER_FD_LIMIT (more than 252, or too
 *   many on their way), HANDOVER_FD_CLOSED, HANDOVER_FD_TIMEOUT, HANDOVER_UNAVAILABLE, or the signal's reason. When bytes were
 *   already sent, the message says how many: the connection then ends in the middle of a message and should be closed.
 */
export async function sendFds(
  connection: Connection,
  fds: readonly number[],
  data: string | Uint8Array = oneByte,
  options: WaitOptions = {}
): Promise<void> {
  const bytes = bytesOf(data)
  checkDescriptors(fds)
  if (bytes.length === 0) throw wrongArgument('the data is empty', 'Give at least one byte: a descriptor cannot travel alone on a stream')
  const api = addon()
  let sent = 0
  const soFar = (): string => (sent === 0 ? 'Nothing was sent.' : `${sent} of ${bytes.length} bytes and the descriptors were sent, so the connection ends within a message.`)
  const transfer: Transfer<true> = {
    direction: 'writable',
    soFar,
    attempt(fd) {
      while (sent < bytes.length) {
        // The descriptors go with the first byte (unix(7)); sent again they would arrive twice.
        const answer = api.sendMessage(fd, sent === 0 ? bytes : bytes.subarray(sent), sent === 0 ? fds : [])
        if (answer === -EAGAIN) return undefined
        if (answer < 0) throw complaint(connection, fd) ?? sendFailure(answer, fds, soFar())
        sent += answer
      }
      return true
    }
  }
  if (atOnce(connection, transfer, options) === undefined) await inTurn(connection, transfer, options)
}

export function bytesOf(data: string | Uint8Array): Uint8Array {
  if (typeof data === 'string') return Buffer.from(data)
  if (data instanceof Uint8Array) return data
  throw wrongArgument('the data is neither a string nor a Uint8Array', 'Give bytes')
}

/**
 * Receives what one recvmsg(2) gives: up to `maxBytes` bytes, and the descriptors that came with them. A stream keeps no
 * message boundaries: bytes that were sent without descriptors may be in front, and the rest of a long message comes with the next
 * calls. On Linux no byte that was sent after a message with descriptors comes together with it (unix(7)).
 *
 * @throws HANDOVER_FD_CLOSED at the end of the stream, HANDOVER_FD_TRUNCATED when the kernel dropped descriptors (MSG_CTRUNC;
 *   all that arrived were closed, the bytes are lost), HANDOVER_FD_TIMEOUT, HANDOVER_FD_ARGUMENT, HANDOVER_UNAVAILABLE, or the
 *   signal's reason. A receive that was cut short has taken nothing.
 */
export async function receiveFds(connection: Connection, options: ReceiveOptions = {}): Promise<Received> {
  const { maxBytes = scratch.length } = options
  if (!Number.isInteger(maxBytes) || maxBytes < 1 || maxBytes > largestRead) {
    throw wrongArgument(`maxBytes is ${maxBytes}`, `Give a whole number from 1 to ${largestRead}`)
  }
  const api = addon()
  const transfer: Transfer<Received> = {
    direction: 'readable',
    soFar: () => 'Nothing was received.',
    attempt(fd) {
      const into = maxBytes === scratch.length ? scratch
        : maxBytes < scratch.length ? scratch.subarray(0, maxBytes) : Buffer.allocUnsafe(maxBytes)
      const answer = api.receiveMessage(fd, into)
      if (answer === -EAGAIN) return undefined
      if (typeof answer === 'number') throw complaint(connection, fd) ?? receiveFailure(answer)
      const { bytes, fds, truncated } = answer
      if (truncated) {
        closeFds(fds)
        throw new HandoverError('HANDOVER_FD_TRUNCATED', {
          what: `the kernel delivered only ${fds.length} descriptors of a message (MSG_CTRUNC)`,
          serving: `They were closed, and the ${bytes} bytes that came with them are lost`, todo: 'Raise the limit of open files (ulimit -n), or send fewer at a time'
        })
      }
      if (bytes === 0 && fds.length === 0) throw closed('Nothing was received')
      const data = Buffer.allocUnsafe(bytes)
      if (bytes === 1) data[0] = into[0]!
      else into.copy(data, 0, 0, bytes)
      return { data, fds }
    }
  }
  return atOnce(connection, transfer, options) ?? await inTurn(connection, transfer, options)
}

function receiveFailure(errno: number): HandoverError {
  const cause = systemError(errno, 'recvmsg')
  if (isClosed(errno)) return closed('Nothing was received', 'the peer closed the connection with data unread', cause)
  return wrongArgument(`nothing can be received: ${cause.message}`, 'See recvmsg(2) for this error', cause)
}

/**
 * Two descriptors of one connection, socketpair(2): Unix stream sockets with FD_CLOEXEC. Give one to a child through
 * `stdio` of `child_process.spawn`, and close it here afterwards, or its end is never seen.
 *
 * @throws HANDOVER_FD_ARGUMENT with the system error (EMFILE) as cause, HANDOVER_UNAVAILABLE.
 */
export function socketPair(): [mine: number, theirs: number] {
  const pair = addon().socketPair()
  if (typeof pair === 'number') {
    throw wrongArgument('no socket pair can be made', 'Raise the limit of open files (ulimit -n)', systemError(pair, 'socketpair'))
  }
  return [pair[0], pair[1]]
}

/**
 * Closes all of them, whatever happens in between. Works without the addon.
 *
 * @throws HANDOVER_FD_ARGUMENT that names those which were not open, with the system error as cause.
 */
export function closeFds(fds: readonly number[]): void {
  let failed: number[] = []
  for (let at = 0; at < fds.length; at += maxFdsPerMessage) {
    const some = fds.length <= maxFdsPerMessage ? fds : fds.slice(at, at + maxFdsPerMessage)
    const these = native ? native.close(some) : some.filter((fd) => !works(() => { closeSync(fd) }))
    if (these.length > 0) failed = [...failed, ...these]
  }
  if (failed.length > 0) {
    throw new HandoverError('HANDOVER_FD_ARGUMENT', {
      what: `cannot close ${failed.join(', ')}`,
      serving: `The other ${fds.length - failed.length} descriptors were closed`, todo: 'Close each descriptor once: its number may already be something else'
    }, { cause: systemError(-EBADF, 'close') })
  }
}

/**
 * Who is at the other end: SO_PEERCRED, unix(7); on macOS getpeereid(3) and LOCAL_PEERPID. It is the process that connected,
 * listened or made the pair, at that time; a descriptor that was passed on keeps the first one's.
 *
 * @throws HANDOVER_FD_ARGUMENT, HANDOVER_UNAVAILABLE.
 */
export function peerCredentials(connection: Connection): PeerCredentials {
  const fd = descriptorOf(connection, undefined)
  const wrong = complaint(connection, fd)
  if (wrong) throw wrong
  const answer = addon().peerCredentials(fd)
  if (typeof answer === 'number') throw wrongArgument(`${named(connection)} does not tell its peer`, 'Give a connected Unix socket', systemError(answer, 'getsockopt'))
  // What the kernel answers for a socket without a peer: uid and gid are -1.
  if (answer.uid === 0xffff_ffff) throw wrongArgument(`${named(connection)} has no peer`, 'Give a connected Unix socket')
  return answer
}

/**
 * What a descriptor is: getsockname(2), SO_TYPE, SO_ACCEPTCONN, IPV6_V6ONLY, and the backlog of a listening TCP socket
 * (Linux: tcpi_sacked, which tcp_get_info() fills with the largest backlog in that state).
 *
 * @throws HANDOVER_NOT_A_SOCKET (it stays open), HANDOVER_FD_ARGUMENT when it is not open, HANDOVER_UNAVAILABLE.
 */
export function describeFd(fd: number): SocketDescription {
  const answer = addon().describe(mustBeDescriptor(fd))
  if (typeof answer !== 'number') return answer
  const cause = systemError(answer, 'getsockopt')
  if (answer === -EBADF) throw wrongArgument(`descriptor ${fd} is not open`, 'Give one that is', cause)
  throw new HandoverError('HANDOVER_NOT_A_SOCKET', { what: `descriptor ${fd} is not a socket`, serving: 'It stays open', todo: 'Give a socket' }, { cause })
}
