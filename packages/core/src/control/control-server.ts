/**
 * The control socket: where a process can be found. The one that serves listens; the one that wants to take over connects, twice: once for messages,
 * once for descriptors. The command `handover` connects once and asks.
 *
 * The socket stands in a directory of mode 0700 (places.ts), is bound under a temporary name and renamed into place, passes to the successor
 * with the listeners, and is made again where its path was removed. Both sides check the other's uid.
 */

import { randomBytes } from 'node:crypto'
import { closeSync, lstatSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { Channel, FirstContact, openChannel } from '../protocol/channel.js'
import { connectTo, hiddenHolder, listenAt, underLock } from './control-files.js'
import { Healing, standingAt, stands, type Standing } from './control-healing.js'
import { passDoor } from '../listeners/listen-hook.js'
import { HandoverError } from '../errors.js'
import { parseKeeperMessage, parseWorkerMessage, type KeeperMessage, type WorkerMessage } from '../protocol/keeper-messages.js'
import type { KeeperLine } from '../keeper-link/keeper-link.js'
import { parseMessage, type Message } from '../protocol/handover-messages.js'
import { addon, systemError } from '../platform/native.js'
import { filesOf, inFirstPlace, userId } from './control-directory.js'
import { fdOf } from '../platform/node/listen-handle.js'
import { parseFirstLine, type Greeting } from './first-line.js'
import type { ControlAnswer, ControlRequest } from '../protocol/control-messages.js'

const firstLineMs = 5_000
const maxFirstLine = 4_096
const maxStrangers = 64
const maxClients = 64
/** How long a client may take to read its last answer. */
const lastAnswerMs = 5_000
/** How long a process may take to make its path again, and how often it is looked for. */
const hiddenMs = 5_000
const hiddenLookMs = 50

/** `owner`: of the directory, whose processes root may ask; in its own directory it may ask those that gave root up. */
function checkPeer(fd: number, who: string, owner?: number): void {
  const peer = addon().peerCredentials(fd)
  const mine = userId()
  if (typeof peer === 'number') throw systemError(peer, 'getsockopt')
  if (peer.uid !== mine && peer.uid !== 0 && !(mine === 0 && (peer.uid === owner || owner === 0))) {
    throw new HandoverError('HANDOVER_PEER_UID', `the ${who} (process ${peer.pid}) has uid ${peer.uid}, expected ${mine} or 0. Nothing was taken over. Run both as the same user.`)
  }
}

/**
 * A connection to a control socket, for one request. Undefined where nobody listens. Throws HANDOVER_PEER_UID where the process of another user listens (but
 * root may ask that of the directory's owner), and system
 * errors: EACCES where the socket is another user's, EAGAIN where so many wait already that the process seems to hang.
 */
export function connectControl(file: string): net.Socket | undefined {
  const fd = connectTo(file)
  if (fd === undefined) return undefined
  try {
    checkPeer(fd, 'process that holds the control socket', lstatSync(path.dirname(file)).uid)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return new net.Socket({ fd })
}

/**
 * The process that made this socket listen, as this pid namespace knows it (SO_PEERCRED of a connection to it); 0 where it is in another one. Of a socket that
 * was handed over it is the first of its owners. Undefined where nobody listens, or it cannot be asked.
 */
export function listenerPid(file: string): number | undefined {
  const fd = addon().connectUnix(file)
  if (fd < 0) return undefined
  const peer = addon().peerCredentials(fd)
  closeSync(fd)
  return typeof peer === 'number' ? undefined : peer.pid
}

/** What the first listen() of a named process finds: a process that serves under the name, or a free name which is now ours. */
export type Found = { readonly predecessor: FirstContact } | TakenName

export interface TakenName {
  readonly file: string
  readonly listening: number
  /** Why a better directory is not used. */
  readonly insteadOf: string | undefined
  /** A process that has the name and hangs; its path was removed. */
  readonly hidden: number | undefined
}

/**
 * Looks for the process of this name and, where there is none, takes the name. Where one lives whose path was removed, it waits until that one has made it
 * again: it blocks this thread. Throws HANDOVER_CONTROL_SOCKET for a relative HANDOVER_DIR, HANDOVER_PEER_UID, HANDOVER_PREDECESSOR_SILENT, and
 * whatever keeps the directory from being used.
 */
export function findOrBecome(name: string): Found {
  const deadline = performance.now() + hiddenMs
  for (;;) {
    const found = takeUnless(name, (file) => {
      const predecessor = contact(file)
      return predecessor && { predecessor }
    }, performance.now() < deadline)
    if (found !== 'hidden') return found
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, hiddenLookMs)
  }
}

/** Takes the name where nobody listens under it. Throws as `findOrBecome` does. */
export function takeName(name: string): TakenName | { readonly takenBy: number } {
  const found = takeUnless(name, (file) => {
    const takenBy = listenerAt(file)
    return takenBy === undefined ? undefined : { takenBy }
  }, false)
  if (found === 'hidden') throw new Error('nobody was to be waited for')
  return found
}

/** One process at a time. `look` is asked for each path where the name could stand; `waits`: for one whose path was removed. */
function takeUnless<T>(name: string, look: (file: string) => T | undefined, waits: boolean): T | TakenName | 'hidden' {
  return inFirstPlace<T | TakenName | 'hidden'>(name, (file, insteadOf) => underLock(path.dirname(file), () => {
    for (const other of new Set([...filesOf(name), file])) {
      const found = look(other)
      if (found !== undefined) return found
    }
    const hidden = hiddenHolder(name)
    return hidden !== undefined && waits ? 'hidden' : { file, listening: listenAt(file), insteadOf, hidden }
  }))
}

/** Who listens there: a pid, 0 where the system cannot tell. */
function listenerAt(file: string): number | undefined {
  const fd = connect(file)
  if (fd === undefined) return undefined
  const peer = addon().peerCredentials(fd)
  closeSync(fd)
  return typeof peer === 'number' ? 0 : peer.pid
}

function connect(file: string): number | undefined {
  try {
    return connectTo(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    throw new HandoverError('HANDOVER_PREDECESSOR_SILENT', `the process that listens at ${file} does not answer: so many wait already. This process listens to nothing. See whether the event loop of that one is blocked.`)
  }
}

/** The second connection says which first one it belongs to; it says so first. Undefined where nobody listens. */
function contact(file: string): FirstContact | undefined {
  const pair = connectPair(file)
  return pair && new FirstContact(...pair)
}

/** For messages and for descriptors. With a `slot` a keeper calls. */
function connectPair(file: string, slot?: number): readonly [number, number] | undefined {
  const messages = connect(file)
  if (messages === undefined) return undefined
  let descriptors: number | undefined
  try {
    descriptors = connect(file)
  } finally {
    if (descriptors === undefined) closeSync(messages)
  }
  if (descriptors === undefined) return undefined
  const token = randomBytes(16).toString('hex')
  try {
    checkPeer(messages, 'process that holds the control socket')
    const line = (text: object): Buffer => Buffer.from(`${JSON.stringify(text)}\n`)
    addon().sendMessage(descriptors, line({ type: 'descriptors', token }), [])
    addon().sendMessage(messages, line({ type: 'messages', token, ...(slot !== undefined && { slot }) }), [])
    return [messages, descriptors]
  } catch (error) {
    closeSync(messages)
    closeSync(descriptors)
    throw error
  }
}

/** A keeper's end of a new line to the process of this socket, which keeps that line alone from then on. Undefined where nobody listens. Throws as connectControl does. */
export function connectKeeper(file: string, slot: number): Channel<WorkerMessage, KeeperMessage> | undefined {
  const pair = connectPair(file, slot)
  return pair && openChannel(...pair, parseWorkerMessage)
}

/** A process that wants to take over, as the one that serves sees it. */
export interface Caller {
  readonly channel: Channel
  readonly pid: number
}

interface Stranger {
  readonly socket: net.Socket
  readonly rest: string
  readonly slot: number | undefined
}

/** Who asked something. The connection does not keep this process alive. */
export interface Client {
  readonly closed: boolean
  answer(answer: ControlAnswer): void
  /** After the last answer. */
  end(): void
  onClose(hear: () => void): void
}

/** A keeper that wants this process for its worker. */
export interface CallingKeeper {
  readonly line: KeeperLine
  readonly pid: number
  readonly slot: number
}

export interface ControlSide {
  /** A process asks to take over. */
  called(caller: Caller): void
  /** A keeper wants to have this process. Without it such a call is refused. */
  keeperCalled?(keeper: CallingKeeper): void
  /** A request of the command `handover`. */
  asked(request: ControlRequest, client: Client): void
  warn(line: string): void
  /** What nobody has to do anything about. */
  note?(line: string): void
  /** This process runs as another user now, and may not look where the socket stands. */
  userChanged?(): void
  /** False while another process may have the same socket and serve on it: then it is not this one's to make its path again. */
  mayHeal?(): boolean
}

/** The listening end. */
export class ControlServer {
  readonly #side: ControlSide
  readonly #waiting = new Map<string, { messages?: Stranger; descriptors?: net.Socket }>()
  readonly #healing: Healing
  #standing: Standing
  #server: net.Server | undefined
  #strangers = 0
  #clients = 0

  /** Owns the descriptor, which listens; does not accept before `listen()`. `id`: device and inode of the path, where they are known from before. */
  constructor(file: string, fd: number, side: ControlSide, id?: string) {
    this.#standing = id === undefined ? standingAt(file, fd) : { file, fd, id }
    this.#side = side
    this.#healing = new Healing({
      standing: () => this.#standing,
      mayHeal: () => side.mayHeal?.() ?? true,
      moved: (standing) => { this.#move(standing) },
      warn: (line) => { side.warn(line) },
      userChanged: () => { side.userChanged?.() },
      note: (line) => { side.note?.(line) }
    })
  }

  get file(): string {
    return this.#standing.file
  }

  get fd(): number {
    return this.#standing.fd
  }

  get id(): string | undefined {
    return this.#standing.id
  }

  listen(): void {
    this.#accept()
    this.#healing.start()
  }

  /** Makes the path again at once, where it is gone. */
  heal(): void {
    if (this.#server) this.#healing.heal()
  }

  #accept(): void {
    const duplicate = addon().duplicate(this.fd)
    if (duplicate < 0) throw systemError(duplicate, 'fcntl')
    this.#server = passDoor(net.createServer({ pauseOnConnect: true }, (socket) => { this.#meet(socket) }))
    this.#server.on('error', (error) => { this.#side.warn(`the control socket ${this.file} cannot be used: ${error.message}`) })
    this.#server.listen({ fd: duplicate }, 128)
    this.#server.unref()
  }

  /** Another socket, or another path. */
  #move(standing: Standing): void {
    const { fd } = this.#standing
    this.#standing = standing
    if (standing.fd === fd) return
    this.#server?.close()
    closeSync(fd)
    this.#accept()
  }

  /** Stops accepting; the descriptor stays open, so that `listen()` may follow. */
  pause(): void {
    this.#healing.stop()
    this.#server?.close()
    this.#server = undefined
    for (const pair of this.#waiting.values()) {
      pair.messages?.socket.destroy()
      pair.descriptors?.destroy()
    }
    this.#waiting.clear()
  }

  /** For good. The file goes where this process is the last. */
  close(last: boolean): void {
    // In this order: a process that finds nobody listening takes the path for its own.
    if (last && stands(this.#standing) === 'yes') {
      try {
        unlinkSync(this.file)
      } catch { /* somebody removed it already */ }
    }
    this.pause()
    closeSync(this.fd)
  }

  #meet(socket: net.Socket): void {
    socket.unref()
    socket.on('error', () => undefined)
    const refuse = (reason: string): void => {
      socket.end(`${JSON.stringify({ type: 'refused', code: 'HANDOVER_PROTOCOL', reason } satisfies Message)}\n`)
      socket.once('finish', () => socket.destroy())
    }
    if (this.#strangers >= maxStrangers) {
      socket.destroy()
      return
    }
    const fd = fdOf(socket)
    try {
      if (fd === undefined) throw new Error('no descriptor')
      checkPeer(fd, 'process that connected')
    } catch {
      socket.destroy()
      return
    }
    this.#strangers++
    const timer = setTimeout(() => { refuse(`no whole line was said within ${firstLineMs} ms`) }, firstLineMs).unref()
    const met = (): void => {
      clearTimeout(timer)
      socket.off('data', read)
      this.#strangers--
    }
    socket.once('close', () => {
      if (socket.listeners('data').includes(read)) met()
    })
    let text = ''
    const read = (chunk: Buffer): void => {
      text += chunk.toString('utf8')
      const end = text.indexOf('\n')
      if (end < 0 && text.length <= maxFirstLine) return
      socket.pause()
      met()
      let first: Greeting | ControlRequest
      try {
        first = parseFirstLine(end < 0 || end > maxFirstLine ? '' : text.slice(0, end))
      } catch (error) {
        refuse((error as Error).message)
        return
      }
      if (first.type !== 'request') this.#pair(first, { socket, rest: text.slice(end + 1), slot: first.slot })
      else if (this.#clients < maxClients) this.#serve(first, socket)
      else refuse(`${maxClients} others wait for an answer`)
    }
    socket.on('data', read)
    socket.resume()
  }

  #serve(request: ControlRequest, socket: net.Socket): void {
    this.#clients++
    socket.once('close', () => { this.#clients-- })
    // What else it says is read away: so its end is seen.
    socket.resume()
    this.#side.asked(request, {
      get closed() { return socket.destroyed },
      answer: (answer) => { if (socket.writable) socket.write(`${JSON.stringify(answer)}\n`) },
      end: () => {
        socket.end(() => { socket.destroy() })
        setTimeout(() => { socket.destroy() }, lastAnswerMs).unref()
      },
      onClose: (hear) => { socket.once('close', hear) }
    })
  }

  #pair(line: Greeting, stranger: Stranger): void {
    const pair = this.#waiting.get(line.token) ?? {}
    this.#waiting.set(line.token, pair)
    const forget = (): void => {
      this.#waiting.delete(line.token)
      pair.messages?.socket.destroy()
      pair.descriptors?.destroy()
    }
    if (line.type === 'messages') pair.messages = stranger
    else pair.descriptors = stranger.socket
    const { messages, descriptors } = pair
    if (!messages || !descriptors) {
      setTimeout(() => {
        if (this.#waiting.get(line.token) === pair) forget()
      }, firstLineMs).unref()
      return
    }
    this.#waiting.delete(line.token)
    const fds = [messages.socket, descriptors].map((socket) => fdOf(socket))
    const peer = fds[0] === undefined ? -1 : addon().peerCredentials(fds[0])
    if (fds[1] === undefined || typeof peer === 'number') {
      forget()
      return
    }
    const { socket, rest, slot } = messages
    socket.ref()
    if (slot === undefined) {
      this.#side.called({ channel: new Channel(socket, fds[1], () => { descriptors.destroy() }, parseMessage, rest), pid: peer.pid })
    } else {
      // A net.Socket reads whenever it likes, and drops the descriptors that come with what it reads.
      const own = this.#side.keeperCalled ? addon().duplicate(fds[1]) : -1
      descriptors.destroy()
      if (own < 0) socket.destroy()
      else this.#side.keeperCalled?.({ line: new Channel(socket, own, () => { closeSync(own) }, parseKeeperMessage, rest), pid: peer.pid, slot })
    }
    socket.resume()
  }
}
