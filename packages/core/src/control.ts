/**
 * The control socket: where a process can be found. The one that serves listens; the one that wants to take over connects, twice: once for messages,
 * once for descriptors. The command `handover` connects once and asks.
 *
 * The socket stands in a directory of mode 0700, is bound under a temporary name and renamed into place, and passes to the successor
 * with the listeners, so that it never disappears. Both sides check the other's uid.
 */

import { randomBytes } from 'node:crypto'
import { closeSync, constants, lstatSync, mkdirSync, openSync, renameSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Channel, FirstContact, openChannel } from './channel.js'
import { passDoor } from './door.js'
import { HandoverError } from './errors.js'
import { parseKeeperMessage, parseWorkerMessage, type KeeperMessage, type WorkerMessage } from './keeper-messages.js'
import type { KeeperLine } from './kept.js'
import { parseMessage, type Message } from './messages.js'
import { addon, systemError } from './native.js'
import { fdOf } from './private.js'
import { parseFirstLine, type Greeting } from './requests.js'
import type { ControlAnswer, ControlRequest } from './status.js'

const maxPathBytes = process.platform === 'linux' ? 107 : 103
const firstLineMs = 5_000
const maxFirstLine = 4_096
const maxStrangers = 64
const maxClients = 64
/** How long a client may take to read its last answer. */
const lastAnswerMs = 5_000

/** Why somebody looks for the directory, for the second part of an error. */
const consequences = {
  serving: 'This process took nothing over and listens to nothing.',
  asking: 'Nothing was asked.'
} as const
type Reason = keyof typeof consequences

/** HANDOVER_DIR, else a directory of this user. */
function directory(reason: Reason): string {
  const given = process.env['HANDOVER_DIR']
  if (given !== undefined && given !== '') {
    if (!path.isAbsolute(given)) throw wrong(reason, `HANDOVER_DIR=${given}`, 'is a relative path, expected an absolute one', 'Two processes in different folders would not find each other.')
    return given
  }
  const runtime = process.env['XDG_RUNTIME_DIR']
  if (runtime !== undefined && runtime !== '') return path.join(runtime, 'handover')
  const uid = process.getuid?.() ?? 0
  return uid === 0 ? '/run/handover' : path.join(tmpdir(), `handover-${uid}`)
}

function wrong(reason: Reason, file: string, what: string, todo: string): HandoverError {
  return new HandoverError('HANDOVER_CONTROL_SOCKET', `${file} ${what}. ${consequences[reason]} ${todo}`)
}

function checkDirectory(reason: Reason, folder: string): void {
  const found = lstatSync(folder)
  if (!found.isDirectory()) throw wrong(reason, folder, 'is not a directory', 'Set HANDOVER_DIR to a directory of this user.')
  const mine = process.getuid?.()
  // Root may ask everybody's processes, but serves in no directory where another user could take its name.
  if (found.uid !== mine && !(reason === 'asking' && mine === 0)) {
    throw wrong(reason, folder, `belongs to uid ${found.uid}, expected ${mine}`, `Set HANDOVER_DIR to a directory of this user${reason === 'asking' ? `, or run this command as uid ${found.uid}` : ''}.`)
  }
  if ((found.mode & 0o077) !== 0) throw wrong(reason, folder, `has mode 0${(found.mode & 0o7777).toString(8)}, expected 0700`, 'Set HANDOVER_DIR to a directory of its own (mkdir -m 700).')
}

/** As mkdir -p. Node's own never comes back from where nothing can be made, such as /proc (nodejs/node#31481). */
function makeDirectory(folder: string): void {
  if (lstatSync(folder, { throwIfNoEntry: false })) return
  const above = path.dirname(folder)
  if (above !== folder) makeDirectory(above)
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    // Another process was faster.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** The directory of the control sockets, made where there is none, and ours alone. Throws HANDOVER_CONTROL_SOCKET. */
export function controlDirectory(): string {
  const folder = directory('serving')
  try {
    makeDirectory(folder)
  } catch (cause) {
    throw wrong('serving', folder, `cannot be made (${(cause as NodeJS.ErrnoException).code ?? ''})`, 'Set HANDOVER_DIR to a directory of this user.')
  }
  checkDirectory('serving', folder)
  return folder
}

/** The same for one that only asks: makes nothing. `exists` is false where no process of this user ever had a control socket. Throws HANDOVER_CONTROL_SOCKET. */
export function findControlDirectory(): { readonly folder: string; readonly exists: boolean } {
  const folder = directory('asking')
  const bytes = Buffer.byteLength(folder)
  const most = maxPathBytes - 4 - '/x.sock'.length
  if (bytes > most) throw wrong('asking', folder, `is ${bytes} bytes long, expected at most ${most}`, 'No process can listen there. Shorten HANDOVER_DIR.')
  if (!lstatSync(folder, { throwIfNoEntry: false })) return { folder, exists: false }
  checkDirectory('asking', folder)
  return { folder, exists: true }
}

/** The path of the control socket for a name, in a directory that is ours alone. Throws HANDOVER_CONTROL_SOCKET. */
export function controlPath(name: string): string {
  const file = path.join(controlDirectory(), `${name}.sock`)
  const bytes = Buffer.byteLength(file)
  if (bytes + 4 > maxPathBytes) throw wrong('serving', file, `is ${bytes} bytes long, expected at most ${maxPathBytes - 4}`, 'Shorten the name or HANDOVER_DIR.')
  return file
}

/** `owner`: of the directory, whose processes root may ask. */
function checkPeer(fd: number, who: string, owner?: number): void {
  const peer = addon().peerCredentials(fd)
  const mine = process.getuid?.() ?? 0
  if (typeof peer === 'number') throw systemError(peer, 'getsockopt')
  if (peer.uid !== mine && peer.uid !== 0 && !(mine === 0 && peer.uid === owner)) {
    throw new HandoverError('HANDOVER_PEER_UID', `the ${who} (process ${peer.pid}) has uid ${peer.uid}, expected ${mine} or 0. Nothing was taken over. Run both as the same user.`)
  }
}

/**
 * A connection to a control socket, for one request. Undefined where nobody listens. Throws HANDOVER_PEER_UID where the process of another user listens (but
 * root may ask that of the directory's owner), and system
 * errors: EACCES where the socket is another user's, EAGAIN where so many wait already that the process seems to hang.
 */
export function connectControl(file: string): net.Socket | undefined {
  const fd = connect(file)
  if (fd === undefined) return undefined
  try {
    checkPeer(fd, 'process that holds the control socket', lstatSync(path.dirname(file)).uid)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return new net.Socket({ fd })
}

/** What the first listen() of a named process finds: a process that serves under the name, or a free name which is now ours. */
export type Found = { readonly predecessor: FirstContact } | { readonly listening: number }

/** Looks for the process of this name and, where there is none, takes the name. One process at a time, by flock(2). */
export function findOrBecome(file: string): Found {
  const lock = openSync(path.dirname(file), constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    const locked = addon().lock(lock)
    if (locked < 0) throw systemError(locked, 'flock')
    const predecessor = contact(file)
    return predecessor ? { predecessor } : { listening: listenAt(file) }
  } finally {
    closeSync(lock)
  }
}

/** Undefined where nobody listens: no file, one that a killed process left behind, or one whose process ends at this moment. */
function connect(file: string): number | undefined {
  const fd = addon().connectUnix(file)
  if (fd >= 0) return fd
  const error = systemError(fd, `connect ${file}`)
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') return undefined
  throw error
}

/** A descriptor that listens at `file`: never seen half made, and in the place of whatever stood there. */
export function listenAt(file: string): number {
  const temporary = `${file}.new`
  try {
    unlinkSync(temporary)
  } catch { /* the usual case: there is none */ }
  const fd = addon().listenUnix(temporary, 128)
  if (fd < 0) throw systemError(fd, `bind ${temporary}`)
  try {
    renameSync(temporary, file)
  } catch (error) {
    unlinkSync(temporary)
    closeSync(fd)
    throw error
  }
  return fd
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
}

/** The listening end. */
export class ControlServer {
  readonly file: string
  readonly fd: number
  readonly #side: ControlSide
  readonly #waiting = new Map<string, { messages?: Stranger; descriptors?: net.Socket }>()
  #server: net.Server | undefined
  #strangers = 0
  #clients = 0

  /** Owns `fd`, a listening descriptor; does not accept before `listen()`. */
  constructor(file: string, fd: number, side: ControlSide) {
    this.file = file
    this.fd = fd
    this.#side = side
  }

  listen(): void {
    const duplicate = addon().duplicate(this.fd)
    if (duplicate < 0) throw systemError(duplicate, 'fcntl')
    this.#server = passDoor(net.createServer({ pauseOnConnect: true }, (socket) => { this.#meet(socket) }))
    this.#server.on('error', (error) => { this.#side.warn(`the control socket ${this.file} cannot be used: ${error.message}`) })
    this.#server.listen({ fd: duplicate }, 128)
    this.#server.unref()
  }

  /** Stops accepting; the descriptor stays open, so that `listen()` may follow. */
  pause(): void {
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
    if (last) {
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
