/**
 * The connections to one control socket. A process that wants to take over connects twice, once for messages and once for descriptors, and
 * so does a keeper. The command `handover` connects once and asks.
 *
 * The user of the other process is checked before anything is read. Connections that send nothing, or too many of them, are closed.
 */

import { closeSync } from 'node:fs'
import type net from 'node:net'
import { addon } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { Channel } from '../protocol/channel.js'
import type { ControlAnswer, ControlRequest } from '../protocol/control-messages.js'
import { handoverMessages, type Message } from '../protocol/handover-messages.js'
import { LineReader } from '../protocol/json-lines.js'
import { keeperMessages, type KeeperMessage, type WorkerMessage } from '../protocol/keeper-messages.js'
import { checkPeer } from './control-files.js'
import { parseFirstLine, type Greeting } from './first-line.js'

const firstLineMs = 5_000
const maxFirstLine = 4_096
const maxStrangers = 64
const maxClients = 64
/** How long a client may take to read its last answer. */
const lastAnswerMs = 5_000

/** A process that has connected to take over. */
export interface Caller {
  readonly channel: Channel
  readonly pid: number
}

/** A keeper that wants this process for its worker. */
export interface CallingKeeper {
  readonly line: Channel<KeeperMessage, WorkerMessage>
  readonly pid: number
  readonly slot: number
}

/** The command that sent a request. The connection does not keep this process alive. */
export interface Client {
  readonly closed: boolean
  answer(answer: ControlAnswer): void
  /** After the last answer. */
  end(): void
  onClose(hear: () => void): void
}

export interface ConnectionsSide {
  /** A process asks to take over. A text refuses it, and is the reason. */
  called(caller: Caller): string | undefined
  /** A keeper wants to have this process. Without it such a call is refused. */
  keeperCalled?(keeper: CallingKeeper): void
  /** A request of the command `handover`. */
  asked(request: ControlRequest, client: Client): void
}

/** One of the two connections of a process that calls. */
interface Half {
  readonly socket: net.Socket
  /** What came after its first line. */
  readonly rest: string
  readonly slot: number | undefined
}
type Pair = Partial<Record<Greeting['type'], Half>>

function destroy(pair: Pair): void {
  pair.messages?.socket.destroy()
  pair.descriptors?.socket.destroy()
}

function refuse(socket: net.Socket, reason: string): void {
  socket.end(`${JSON.stringify({ type: 'refused', code: 'HANDOVER_PROTOCOL', reason } satisfies Message)}\n`)
  socket.once('finish', () => socket.destroy())
}

export class ControlConnections {
  readonly #side: ConnectionsSide
  /** Pairs of which one connection is there, by token. */
  readonly #pairs = new Map<string, Pair>()
  /** Connections that have not sent their first line. */
  #strangers = 0
  #clients = 0

  constructor(side: ConnectionsSide) {
    this.#side = side
  }

  /** Closes the connections whose second one has not come. */
  dropHalves(): void {
    for (const pair of this.#pairs.values()) destroy(pair)
    this.#pairs.clear()
  }

  meet(socket: net.Socket): void {
    socket.unref()
    socket.on('error', () => undefined)
    if (this.#strangers >= maxStrangers || !isOfThisUser(socket)) {
      socket.destroy()
      return
    }
    this.#strangers++
    const timer = setTimeout(() => { refuse(socket, `no whole line was said within ${firstLineMs} ms`) }, firstLineMs).unref()
    const met = (): void => {
      clearTimeout(timer)
      socket.off('data', read).off('close', met)
      this.#strangers--
    }
    const lines = new LineReader(maxFirstLine)
    const read = (chunk: Buffer): void => {
      lines.add(chunk)
      const line = firstOf(lines)
      if (line === undefined) return
      socket.pause()
      met()
      this.#begin(socket, line, lines.rest)
    }
    socket.once('close', met)
    socket.on('data', read)
    socket.resume()
  }

  #begin(socket: net.Socket, line: string, rest: string): void {
    let first: Greeting | ControlRequest
    try {
      first = parseFirstLine(line)
    } catch (error) {
      refuse(socket, (error as Error).message)
      return
    }
    if (first.type !== 'request') this.#pair(first, { socket, rest, slot: first.slot })
    else if (this.#clients < maxClients) this.#serve(first, socket)
    else refuse(socket, `${maxClients} others wait for an answer`)
  }

  #serve(request: ControlRequest, socket: net.Socket): void {
    this.#clients++
    socket.once('close', () => { this.#clients-- })
    // What else it sends is read and ignored, so that its end is seen.
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

  #pair({ type, token }: Greeting, half: Half): void {
    const pair = this.#pairs.get(token) ?? {}
    const others = this.#pairs.size
    if (pair[type] || others >= maxStrangers) {
      refuse(half.socket, pair[type] ? `"${type}" has come with this token already` : `${others} others have connected once, and not twice`)
      return
    }
    pair[type] = half
    if (pair.messages && pair.descriptors) {
      this.#pairs.delete(token)
      this.#called(pair.messages, pair.descriptors.socket)
      return
    }
    this.#pairs.set(token, pair)
    setTimeout(() => {
      if (this.#pairs.get(token) !== pair) return
      this.#pairs.delete(token)
      destroy(pair)
    }, firstLineMs).unref()
  }

  #called({ socket, rest, slot }: Half, descriptors: net.Socket): void {
    const fd = fdOf(socket)
    const descriptorsFd = fdOf(descriptors)
    const peer = fd === undefined ? -1 : addon().peerCredentials(fd)
    if (descriptorsFd === undefined || typeof peer === 'number') {
      socket.destroy()
      descriptors.destroy()
      return
    }
    const { pid } = peer
    socket.ref()
    if (slot === undefined) {
      const channel = new Channel(socket, descriptorsFd, () => { descriptors.destroy() }, handoverMessages, rest)
      const reason = this.#side.called({ channel, pid })
      if (reason !== undefined) {
        channel.send({ type: 'refused', code: 'HANDOVER_REFUSED', reason })
        channel.close()
      }
    } else {
      // A net.Socket reads whenever it likes, and drops the descriptors that come with what it reads.
      const own = this.#side.keeperCalled ? addon().duplicate(descriptorsFd) : -1
      descriptors.destroy()
      if (own < 0) socket.destroy()
      else this.#side.keeperCalled?.({ line: new Channel(socket, own, () => { closeSync(own) }, keeperMessages, rest), pid, slot })
    }
    socket.resume()
  }
}

function isOfThisUser(socket: net.Socket): boolean {
  const fd = fdOf(socket)
  try {
    if (fd !== undefined) checkPeer(fd, 'process that connected')
    return fd !== undefined
  } catch {
    return false
  }
}

/** A line that is too long is refused like one that cannot be read. */
function firstOf(lines: LineReader): string | undefined {
  try {
    return lines.next()
  } catch {
    return ''
  }
}
