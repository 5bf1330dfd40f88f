/**
 * Loads the addon and types it: the only file that does.
 *
 * The addon is a thin skin over system calls: synchronous unless it says otherwise, without state, and with a negative errno for a failure
 * (as libuv), so that policy, retries and messages live in TypeScript. Where there is no binary for this platform, `native` is undefined
 * and `nativeMissing` says why: a server then listens plainly and drains politely, and cannot be reloaded.
 */

import { createRequire } from 'node:module'
import { getSystemErrorMap } from 'node:util'
import { withoutStop } from '../errors.js'
import { findBinary } from './native-binary.js'

/** What `describe` reads of a socket, by getsockopt(2) and getsockname(2). */
export interface SocketDescription {
  /** SO_DOMAIN. */
  readonly family: 'inet' | 'inet6' | 'unix' | 'other'
  /** SO_TYPE. */
  readonly type: 'stream' | 'dgram' | 'seqpacket' | 'other'
  /** SO_ACCEPTCONN. */
  readonly listening: boolean
  /** Numeric, without brackets or scope; or the path of a Unix socket: '' for none, and a leading NUL in the abstract namespace. */
  readonly address: string
  /** 0 for a Unix socket. */
  readonly port: number
  /** IPV6_V6ONLY; false for other families. */
  readonly ipv6Only: boolean
  /** The backlog that the kernel holds (Linux, TCP only: tcpi_sacked of a listening socket), else 0. */
  readonly backlog: number
}

/** Who is at the other end of a Unix socket: SO_PEERCRED. */
export interface PeerCredentials {
  /** 0 where the system cannot tell (macOS), or where the peer is in another pid namespace. */
  readonly pid: number
  /** The user id of the peer when it connected. */
  readonly uid: number
  /** The group id of the peer when it connected. */
  readonly gid: number
}

export interface ReceivedMessage {
  readonly bytes: number
  readonly fds: number[]
  /** MSG_CTRUNC: the kernel dropped descriptors that did not fit. The ones that arrived are in `fds`. */
  readonly truncated: boolean
}

/** What the addon has seen of a TLS connection that this process serves. Buffers are secrets, empty where they are not known. */
export interface TlsDescription {
  /** 0x0304 is TLS 1.3. */
  readonly version: number
  /** The name of the IANA registry. */
  readonly cipher: string
  /** The suite is one of TlsRecords, there is no compression, and the secrets are there. */
  readonly known: boolean
  /** Secrets as TlsRecords takes them. */
  readonly read: Buffer
  readonly write: Buffer
  readonly exporter: Buffer
  /** The number of the next record of each direction. */
  readonly readSequence: number
  readonly writeSequence: number
  /** Bytes of all records whose header OpenSSL has seen, from the first one on. */
  readonly readBytes: number
  readonly writeBytes: number
  /** The handshake has ended. */
  readonly open: boolean
  /** Something like a second handshake was made. */
  readonly renegotiated: boolean
  /** OpenSSL holds a part of a message, or bytes that were not read. */
  readonly half: boolean
  /** A close_notify was sent or received. */
  readonly closing: boolean
  /** 1 to 4: max_fragment_length of RFC 6066; 0: none. */
  readonly fragment: number
}

/** A record layer. Each answers a negative errno; -EBADF after dispose. */
export interface TlsRecords {
  /**
   * Opens whole records where they lie, brings application data to the front, and stops behind a record of another type. `result` gets the
   * bytes of whole records, the bytes of data, and the type, place and length of that other content. -EILSEQ: a wrong MAC; -EPROTO.
   */
  open(buffer: Buffer, result: Int32Array): number
  /** Records of at most `most` bytes of content each, with 29 bytes of room for each more. Bytes written. */
  seal(type: number, content: Buffer, into: Buffer, most: number): number
  /** The next keys of a direction, as after a KeyUpdate. TLS 1.3 only. */
  update(writes: boolean): number
  state(): Pick<TlsDescription, 'read' | 'write' | 'readSequence' | 'writeSequence'> | number
  /** Wipes the keys. */
  dispose(): void
}

/** Each answers a negative errno on failure. Descriptors that are returned have FD_CLOEXEC set. */
export interface Native {
  /** A connected pair of AF_UNIX stream sockets, blocking. socketpair(2). */
  socketPair(): readonly [number, number] | number
  /** [reading end, writing end]. pipe(2). */
  pipe(): readonly [number, number] | number
  /** One sendmsg(2) with MSG_DONTWAIT | MSG_NOSIGNAL; at most 252 descriptors. Bytes sent. -EPROTOTYPE: not a Unix socket. */
  sendMessage(fd: number, data: Uint8Array, fds: readonly number[]): number
  /** One recvmsg(2) with MSG_DONTWAIT | MSG_CMSG_CLOEXEC into `into`, with room for 253 descriptors. 0 bytes: end of file. */
  receiveMessage(fd: number, into: Uint8Array): ReceivedMessage | number
  /** poll(2) for reading (or an end) on this thread. 1: readable, 0: the time is over. It blocks the event loop. */
  pollReadable(fd: number, timeoutMs: number): number
  /**
   * Calls back once on the event loop when `fd` is readable or writable (uv_poll), with 0 or a negative errno. Keeps the process alive
   * until then (not with `keepsAlive` false), or until the returned function is called, after which it never calls back. It watches a
   * duplicate of `fd`, which may be closed or watched by others meanwhile.
   */
  watchOnce(fd: number, event: 'readable' | 'writable', callback: (status: number) => void, keepsAlive?: boolean): (() => void) | number
  /** close(2) of each, at most 252. Those that could not be closed, because they were not open. */
  close(fds: readonly number[]): number[]
  /**
   * accept(2) without waiting: a descriptor, or -EAGAIN. Sets O_NONBLOCK on `listening`. `closes`: closes `listening` where it answers no
   * descriptor.
   */
  accept(listening: number, closes?: boolean): number
  /** fcntl(2) F_DUPFD_CLOEXEC. */
  duplicate(fd: number): number
  /** dup2(2): `to` becomes a copy of `from`, without FD_CLOEXEC. For standard streams. */
  duplicateTo(from: number, to: number): number
  /** fcntl(2) F_SETFD FD_CLOEXEC; 0. No process that is started from now on has it. */
  closeOnExec(fd: number): number
  describe(fd: number): SocketDescription | number
  /** SO_PEERCRED; getpeereid(3) and LOCAL_PEERPID on macOS. */
  peerCredentials(fd: number): PeerCredentials | number
  /** socket(2), bind(2), listen(2) on a Unix path of at most 107 bytes (103 on macOS). `backlog` -1: it only binds. */
  listenUnix(path: string, backlog: number): number
  /** socket(2), connect(2): a connected, blocking descriptor. Does not wait: -EAGAIN when the listener's queue is full. */
  connectUnix(path: string): number
  /**
   * One datagram to a Unix socket, with at most 252 descriptors (FDSTORE=1); '@' begins a path in the abstract namespace. Bytes sent. As
   * sd_notify(3) it waits while the receiver's queue is full, but for a second at most: then -EAGAIN.
   */
  sendDatagram(path: string, data: Uint8Array, fds?: readonly number[]): number
  /** flock(2) LOCK_EX, without waiting: -EAGAIN; released when the descriptor is closed. */
  lock(fd: number): number
  /** getrlimit(2): how many descriptors this process may have open (RLIMIT_NOFILE, the soft limit). */
  openFilesLimit(): number
  /** SO_REUSEPORT; 0. On Linux also on a socket that listens: then those of the same user may join it (bindBeside). socket(7) */
  setReusePort(fd: number): number
  /**
   * Another TCP socket at the address, port, scope and interface of `fd`, with SO_REUSEADDR and SO_REUSEPORT; when it listens, both form
   * one group. With `address` (numeric) and `ipv6Only` (1) it is bound there, at the same port. -EPROTOTYPE: `fd` is not TCP. -EINVAL: the
   * address is not numeric, or has a scope. -EADDRINUSE: a socket there has no SO_REUSEPORT, or another user id.
   */
  bindBeside(fd: number, address?: string, ipv6Only?: number): number
  /**
   * memfd_create(2): an empty file in memory that can be sealed, and not executed (MFD_NOEXEC_SEAL, where the kernel knows it). `name`, at
   * most 249 bytes, is for people (/proc/<pid>/fd). -ENOSYS: macOS.
   */
  memoryFile(name: string): number
  /** fcntl(2) F_ADD_SEALS: SHRINK, GROW, WRITE and SEAL; 0. -EINVAL: not a memfd. -EBUSY: mapped for writing. -ENOSYS: macOS. */
  seal(fd: number): number
  /** The pid of an ended child that was not waited for, and is not reaped by this; 0: none. -ECHILD: no children. waitid(2), WNOWAIT. */
  endedProcess(): number
  /** waitpid(2) with WNOHANG for this process alone: its pid, or 0 where it lives. -ECHILD: not ours, or reaped already. */
  reap(pid: number): number
  /** waitpid(2) with WNOHANG: the status as it gives it (WEXITSTATUS, WTERMSIG). -EAGAIN: it lives. */
  exitStatus(pid: number): number
  /** pidfd_open(2): readable when the process has ended. -ENOSYS before Linux 5.3, and on macOS. */
  openProcess(pid: number): number
  /**
   * posix_spawn(3), which does not copy the page tables of this process, as the fork(2) of libuv does: the pid. `fds` become 0, 1, … of the
   * process; all signals have their default there, and none is blocked. -ENOSYS: macOS, or a libc before glibc 2.29 or musl 1.1.24.
   */
  spawn(
    file: string, args: readonly string[], env: Readonly<Record<string, string | undefined>>, directory: string, fds: readonly number[]
  ): number
  /**
   * From now on `takeSenders` knows who sends this signal, from when the process has a listener for it until it has none. -EINVAL: it has
   * none. sigaction(2), SA_SIGINFO.
   */
  watchSenders(signal: number): number
  /** Who sent it since the last call, at most 16: pids, 0 for a process of another pid namespace, -1 for the kernel. */
  takeSenders(signal: number): readonly number[]
  /**
   * Tells the kernel that this process does not need the pages of its program file now: they leave its resident set, and are mapped again
   * when they are used. Mappings of which a page was ever written are left alone. How many bytes were resident. madvise(2), MADV_DONTNEED.
   * -ENOENT: there is no /proc. -ENOSYS: macOS.
   */
  dropProgramPages(): number
  /** One turn of the event loop without waiting, in a process whose loop does not run yet. 0: nothing keeps the loop alive. */
  runLoop(): number
  /** Counts the TLS records of every SSL_CTX that is made from now on, in all threads. '', or what of OpenSSL is missing. */
  watchTls(): string
  /** The connection that sent this Finished message (`tlsSocket.getFinished()`), in this thread. -ENOENT: it was not watched. */
  describeTls(finished: Buffer): TlsDescription | number
  readonly TlsRecords: new (
    version: number, cipher: string, read: Buffer, write: Buffer, readSequence: number, writeSequence: number
  ) => TlsRecords
  /** epoll_create1(2). Absent on macOS, as the next two. */
  epoll?(): number
  /** EPOLL_CTL_ADD of each with EPOLLIN, EPOLLRDHUP and EPOLLONESHOT. Those that cannot be watched. */
  epollAdd?(epoll: number, fds: readonly number[]): number[]
  /** epoll_wait(2) without waiting: at most 32 that have an event, the first one first. Each once. */
  epollReady?(epoll: number): number[]
}

/** The kernel's SCM_MAX_FD is 253; musl's limit is 252. */
export const maxFdsPerMessage = 252

/** Node's default of listen(); the kernel rounds it up. */
export const defaultBacklog = 511

/** The binary itself. It takes lists of descriptors in one piece: an array costs a call an element, several times the system call. */
interface Binary extends Omit<Native, 'sendMessage' | 'receiveMessage' | 'close' | 'sendDatagram' | 'spawn' | 'epollAdd' | 'epollReady'> {
  sendMessage(fd: number, data: Uint8Array, fds: Int32Array, count: number): number
  /** `result` gets the number of descriptors, 1 if truncated, and the descriptors. */
  receiveMessage(fd: number, into: Uint8Array, result: Int32Array): number
  /** Those that could not be closed come to the front; answers how many they are. */
  close(fds: Int32Array, count: number): number
  sendDatagram(path: string, data: Uint8Array, fds: Int32Array, count: number): number
  /** Lists of strings are one string, in which a NUL ends each. */
  spawn(file: string, args: string, env: string, directory: string, fds: Int32Array, count: number): number
  /** As `close`. */
  readonly epollAdd?: (epoll: number, fds: Int32Array, count: number) => number
  readonly epollReady?: (epoll: number, result: Int32Array) => number
}

/** All calls share one list, since each is synchronous. */
function nativeOf(binary: Binary): Native {
  const list = new Int32Array(512)
  function fill(fds: readonly number[]): number {
    if (fds.length > maxFdsPerMessage) return -1 // which the binary answers with -EINVAL
    for (let at = 0; at < fds.length; at++) {
      const fd = fds[at]!
      // An Int32Array would turn it into another number.
      if ((fd | 0) !== fd) throw new TypeError(`${String(fd)} is not a 32-bit integer`)
      list[at] = fd
    }
    return fds.length
  }
  const { epollAdd, epollReady, ...others } = binary
  const ended = (texts: readonly string[]): string => texts.map((text) => `${text}\0`).join('')
  return {
    ...others,
    spawn(file, args, env, directory, fds) {
      const variables = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]))
      return binary.spawn(file, ended(args), ended(variables), directory, list, fill(fds))
    },
    sendMessage: (fd, data, fds) => binary.sendMessage(fd, data, list, fill(fds)),
    sendDatagram: (to, data, fds = []) => binary.sendDatagram(to, data, list, fill(fds)),
    ...(epollAdd && epollReady && {
      epollAdd(epoll, fds) {
        const failed = epollAdd(epoll, list, fill(fds))
        return failed < 0 ? [...fds] : Array.from(list.subarray(0, failed))
      },
      epollReady: (epoll) => Array.from(list.subarray(0, Math.max(0, epollReady(epoll, list))))
    }),
    close(fds) {
      const failed = binary.close(list, fill(fds))
      // A view costs more than the system call.
      return failed === 0 ? [] : failed < 0 ? [...fds] : Array.from(list.subarray(0, failed))
    },
    receiveMessage(fd, into) {
      const bytes = binary.receiveMessage(fd, into, list)
      if (bytes < 0) return bytes
      const fds = new Array<number>(list[0]!)
      for (let at = 0; at < fds.length; at++) fds[at] = list[at + 2]!
      return { bytes, fds, truncated: list[1] === 1 }
    }
  }
}

/** The file of the addon that is loaded; undefined where none is. */
export const nativeFile = (): string | undefined => (process.platform === 'win32' ? undefined : findBinary().file)

function load(): { native: Native | undefined; nativeMissing: string | undefined } {
  if (process.platform === 'win32') return { native: undefined, nativeMissing: 'descriptors cannot be passed on Windows' }
  const { file, missing } = findBinary()
  if (file === undefined) return { native: undefined, nativeMissing: missing }
  try {
    // An addon can only be required, and a bundler must not follow this call.
    return { native: nativeOf(createRequire(file)(file) as Binary), nativeMissing: undefined }
  } catch (error) {
    return { native: undefined, nativeMissing: `the binary does not load: ${withoutStop((error as Error).message)}` }
  }
}

export const { native, nativeMissing } = load()

/** For code that runs only where the addon is loaded. */
export function addon(): Native {
  if (!native) throw new Error('the addon is not loaded')
  return native
}

/** An Error as Node makes it for a failed system call, with `errno` (negative), `code` and `syscall`. */
export function systemError(errno: number, syscall: string): NodeJS.ErrnoException {
  const [code, text] = getSystemErrorMap().get(errno) ?? [`E${-errno}`, 'unknown error']
  return Object.assign(new Error(`${syscall} ${code}: ${text}`), { errno, code, syscall })
}

/** The same call may succeed soon: a buffer is full, or a user has too many descriptors in flight. */
export const isTransient = (error: unknown): boolean =>
  ['EAGAIN', 'ENOBUFS', 'ENOMEM', 'ETOOMANYREFS'].includes((error as NodeJS.ErrnoException).code ?? '')

/** An answer of the addon; throws the system error for a negative number. */
export function check(answer: number, syscall: string): number
export function check<T extends object>(answer: T | number, syscall: string): T
export function check(answer: unknown, syscall: string): unknown {
  if (typeof answer === 'number' && answer < 0) throw systemError(answer, syscall)
  return answer
}
