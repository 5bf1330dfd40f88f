/**
 * The control socket: where a process can be found. The one that serves listens; the one that wants to take over connects, twice: once
 * for messages, once for descriptors. The command `handover` connects once and asks.
 *
 * The socket stands in a directory of mode 0700 (control-places.ts), is bound under a temporary name and renamed into place, passes to
 * the successor with the listeners, and is made again where its path was removed. Both sides check the other's uid.
 */

import { closeSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import { addon, systemError } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { passListenHook } from '../platform/own-servers.js'
import { Channel } from '../protocol/channel.js'
import type { ControlAnswer, ControlRequest } from '../protocol/control-messages.js'
import { handoverMessages, type Message } from '../protocol/handover-messages.js'
import { LineReader } from '../protocol/json-lines.js'
import { keeperMessages, type KeeperMessage, type WorkerMessage } from '../protocol/keeper-messages.js'
import { PathHealer, standingAt, stands, type Standing } from './path-healer.js'
import { parseFirstLine, type Greeting } from './first-line.js'
import { checkPeer } from './peer-check.js'

const firstLineMs = 5_000
const maxFirstLine = 4_096
const maxStrangers = 64
const maxClients = 64
/** How long a client may take to read its last answer. */
const lastAnswerMs = 5_000

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
  readonly line: Channel<KeeperMessage, WorkerMessage>
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
  /** For information: there is nothing to do. */
  note?(line: string): void
  /** This process runs as another user now, and may not look where the socket stands. */
  userChanged?(): void
  /** False while another process may serve on the same socket: then this process must not make its path again. */
  mayHeal?(): boolean
}

/** The listening end. */
export class ControlServer {
  readonly #side: ControlSide
  readonly #waiting = new Map<string, { messages?: Stranger; descriptors?: net.Socket }>()
  readonly #healing: PathHealer
  #standing: Standing
  #server: net.Server | undefined
  #strangers = 0
  #clients = 0

  /**
   * Owns the descriptor, which listens; does not accept before `listen()`. `id`: device and inode of the path, where they are known
   * from before.
   */
  constructor(file: string, fd: number, side: ControlSide, id?: string) {
    this.#standing = id === undefined ? standingAt(file, fd) : { file, fd, id }
    this.#side = side
    this.#healing = new PathHealer({
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
    this.#server = passListenHook(net.createServer({ pauseOnConnect: true }, (socket) => { this.#meet(socket) }))
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
    const lines = new LineReader(maxFirstLine)
    const read = (chunk: Buffer): void => {
      lines.add(chunk)
      const line = firstOf(lines)
      if (line === undefined) return
      socket.pause()
      met()
      let first: Greeting | ControlRequest
      try {
        first = parseFirstLine(line)
      } catch (error) {
        refuse((error as Error).message)
        return
      }
      if (first.type !== 'request') this.#pair(first, { socket, rest: lines.rest, slot: first.slot })
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
      this.#side.called({ channel: new Channel(socket, fds[1], () => { descriptors.destroy() }, handoverMessages, rest), pid: peer.pid })
    } else {
      // A net.Socket reads whenever it likes, and drops the descriptors that come with what it reads.
      const own = this.#side.keeperCalled ? addon().duplicate(fds[1]) : -1
      descriptors.destroy()
      if (own < 0) socket.destroy()
      else this.#side.keeperCalled?.({ line: new Channel(socket, own, () => { closeSync(own) }, keeperMessages, rest), pid: peer.pid, slot })
    }
    socket.resume()
  }
}

/** A line that is too long is no first line either, and is refused as one. */
function firstOf(lines: LineReader): string | undefined {
  try {
    return lines.next()
  } catch {
    return ''
  }
}
