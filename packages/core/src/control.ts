/**
 * The control socket: where a process that was given a name can be found. The one that serves listens, the one that wants to
 * take over connects, twice: once for messages, once for descriptors.
 *
 * The socket stands in a directory of mode 0700, is bound under a temporary name and renamed into place, and passes to the successor
 * with the listeners, so that it never disappears. Both sides check the other's uid.
 */

import { randomBytes } from 'node:crypto'
import { closeSync, constants, lstatSync, mkdirSync, openSync, renameSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Channel, FirstContact } from './channel.js'
import { passDoor } from './door.js'
import { HandoverError } from './errors.js'
import { parseMessage, type Message } from './messages.js'
import { addon, systemError } from './native.js'
import { fdOf } from './private.js'

const maxPathBytes = process.platform === 'linux' ? 107 : 103
const firstLineMs = 5_000
const maxFirstLine = 4_096
const maxStrangers = 64

/** HANDOVER_DIR, else a directory of this user. */
function directory(): string {
  const given = process.env['HANDOVER_DIR']
  if (given !== undefined && given !== '') {
    if (!path.isAbsolute(given)) throw wrong(`HANDOVER_DIR=${given}`, 'is a relative path, expected an absolute one', 'Two processes in different folders would not find each other.')
    return given
  }
  const runtime = process.env['XDG_RUNTIME_DIR']
  if (runtime !== undefined && runtime !== '') return path.join(runtime, 'handover')
  const uid = process.getuid?.() ?? 0
  return uid === 0 ? '/run/handover' : path.join(tmpdir(), `handover-${uid}`)
}

function wrong(file: string, what: string, todo: string): HandoverError {
  return new HandoverError('HANDOVER_CONTROL_SOCKET', `${file} ${what}. This process took nothing over and listens to nothing. ${todo}`)
}

/** The path of the control socket for a name, in a directory that is ours alone. Throws HANDOVER_CONTROL_SOCKET. */
export function controlPath(name: string): string {
  const folder = directory()
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw wrong(folder, `cannot be made (${(cause as NodeJS.ErrnoException).code ?? ''})`, 'Set HANDOVER_DIR to a directory of this user.')
  }
  const found = lstatSync(folder)
  if (!found.isDirectory()) throw wrong(folder, 'is not a directory', 'Set HANDOVER_DIR to a directory of this user.')
  if (found.uid !== process.getuid?.()) throw wrong(folder, `belongs to uid ${found.uid}, expected ${process.getuid?.()}`, 'Set HANDOVER_DIR to a directory of this user.')
  if ((found.mode & 0o077) !== 0) throw wrong(folder, `has mode 0${(found.mode & 0o7777).toString(8)}, expected 0700`, 'Set HANDOVER_DIR to a directory of its own (mkdir -m 700).')
  const file = path.join(folder, `${name}.sock`)
  const bytes = Buffer.byteLength(file)
  if (bytes + 4 > maxPathBytes) throw wrong(file, `is ${bytes} bytes long, expected at most ${maxPathBytes - 4}`, 'Shorten the name or HANDOVER_DIR.')
  return file
}

function checkPeer(fd: number, who: string): void {
  const peer = addon().peerCredentials(fd)
  const mine = process.getuid?.() ?? 0
  if (typeof peer === 'number') throw systemError(peer, 'getsockopt')
  if (peer.uid !== mine && peer.uid !== 0) {
    throw new HandoverError('HANDOVER_PEER_UID', `the ${who} (process ${peer.pid}) has uid ${peer.uid}, expected ${mine} or 0. Nothing was taken over. Run both as the same user.`)
  }
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
    return predecessor ? { predecessor } : { listening: bind(file) }
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

function bind(file: string): number {
  const temporary = `${file}.new`
  try {
    unlinkSync(temporary)
  } catch { /* the usual case: there is none */ }
  const fd = addon().listenUnix(temporary, 128)
  if (fd < 0) throw systemError(fd, `bind ${temporary}`)
  renameSync(temporary, file)
  return fd
}

/** The second connection says which first one it belongs to; it says so first. Undefined where nobody listens. */
function contact(file: string): FirstContact | undefined {
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
  const first = new FirstContact(messages, descriptors)
  try {
    checkPeer(messages, 'process that holds the control socket')
    const line = (text: object): Buffer => Buffer.from(`${JSON.stringify(text)}\n`)
    addon().sendMessage(descriptors, line({ type: 'descriptors', token }), [])
    addon().sendMessage(messages, line({ type: 'messages', token }), [])
    return first
  } catch (error) {
    first.close()
    throw error
  }
}

/** A process that wants to take over, as the one that serves sees it. */
export interface Caller {
  readonly channel: Channel
  readonly pid: number
}

interface Stranger {
  readonly socket: net.Socket
  readonly rest: string
}

export interface ControlSide {
  /** A process asks to take over. */
  called(caller: Caller): void
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
    const timer = setTimeout(() => { refuse(`nothing was said within ${firstLineMs} ms`) }, firstLineMs).unref()
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
      const line = end < 0 ? undefined : greeting(text.slice(0, end))
      if (!line) {
        refuse('the first line must be {"type":"messages"|"descriptors","token":"…"}')
        return
      }
      this.#pair(line, { socket, rest: text.slice(end + 1) })
    }
    socket.on('data', read)
    socket.resume()
  }

  #pair(line: { type: 'messages' | 'descriptors'; token: string }, stranger: Stranger): void {
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
    messages.socket.ref()
    this.#side.called({ channel: new Channel(messages.socket, fds[1], () => { descriptors.destroy() }, parseMessage, messages.rest), pid: peer.pid })
    messages.socket.resume()
  }
}

function greeting(line: string): { type: 'messages' | 'descriptors'; token: string } | undefined {
  try {
    const { type, token } = JSON.parse(line) as { type?: unknown; token?: unknown }
    if ((type === 'messages' || type === 'descriptors') && typeof token === 'string' && /^[0-9a-f]{32}$/.test(token)) return { type, token }
  } catch { /* garbage */ }
  return undefined
}

