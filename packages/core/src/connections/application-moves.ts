/**
 * move() and onMoved(): connections whose protocol only the application knows. It says when nothing of a connection is in its hands, and
 * what the next process must know of it.
 *
 * The socket is held still from the call on: nothing is read from it, and nothing that is written to it leaves. When the successor has it,
 * this copy stays silent; otherwise it goes on as before.
 */

import net from 'node:net'
import { inspect } from 'node:util'
import { HandoverError, optionError } from '../errors.js'
import {
  adoptDescriptor, holdReading, holdsHalfCharacter, isReading, releaseReading, unsentBytes
} from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { rememberClient } from '../platform/node/tls-handle.js'
import type { MovedConnection } from '../protocol/handover-messages.js'
import { decodeState, encodeState } from '../protocol/value-codec.js'
import { giveBack } from './connection-receiver.js'
import type { ConnectionSender } from './connection-sender.js'
import type { ConnectionTracker } from './connection-tracker.js'
import { cargoOf, goOnWith, isSecure, testTls } from './tls-cargo.js'

/** What move() takes beside the socket. */
export interface MoveOptions {
  /** The name under which the successor's onMoved() takes it; not `http`. */
  readonly kind: string
  /** What onMoved() gets: objects, arrays, Map, Set, Date, typed arrays, BigInt. At most 256 KiB as text. */
  readonly state?: unknown
}

/** `socket`: connected, without listeners. `state`: as it was given to move(). */
export type OnMoved = (socket: net.Socket, state: unknown) => void

/** One message on the channel holds at most 1 MiB. */
const mostStateBytes = 262_144

/** `http` is Handover's own. */
const isKind = (kind: unknown): kind is string => typeof kind === 'string' && kind !== '' && kind !== 'http'

/** What a held socket has read and not given away. Its 'data' listeners must not hear it here. */
function takeUnread(socket: net.Socket): { unread: Buffer; putBack: () => void } {
  if (socket.readableLength === 0) return { unread: Buffer.alloc(0), putBack: () => undefined }
  const listeners = socket.rawListeners('data') as ((chunk: Buffer) => void)[]
  for (const listener of listeners) socket.off('data', listener)
  const encoding = socket.readableEncoding
  const chunks: Buffer[] = []
  for (let chunk: unknown = socket.read(); chunk !== null; chunk = socket.read()) {
    chunks.push(typeof chunk === 'string' ? Buffer.from(chunk, encoding ?? 'utf8') : chunk as Buffer)
  }
  const unread = Buffer.concat(chunks)
  return {
    unread,
    putBack: () => {
      socket.unshift(unread)
      for (const listener of listeners) socket.on('data', listener)
    }
  }
}

/** Nothing is read any more. `unread`: what the stream still had. */
async function stopReading(socket: net.Socket): Promise<{ unread: Buffer; readOn: () => void }> {
  const wasReading = isReading(socket) === true
  const wasFlowing = socket.readableFlowing === true
  holdReading(socket)
  // In a listener for 'data': the stream reads on when it has run, and under TLS more may have been decrypted already.
  socket.pause()
  await Promise.resolve()
  holdReading(socket)
  const { unread, putBack } = takeUnread(socket)
  // Taking a full buffer makes the stream read on.
  const readsAgain = isReading(socket) === true
  if (readsAgain) holdReading(socket)
  return {
    unread,
    readOn: () => {
      putBack()
      if (wasFlowing) socket.resume()
      if (wasReading || readsAgain) releaseReading(socket)
    }
  }
}

/** The methods by which a program sends something or ends the connection. A corked socket holds back only what is written. */
const says = ['write', 'end', 'destroySoon'] as const

/** From now on such calls of the program wait. Returns what makes them: where the socket has left, their callbacks get an error. */
function holdBack(socket: net.Socket): () => void {
  const calls: (() => unknown)[] = []
  const own = says.map((name) => [name, Object.getOwnPropertyDescriptor(socket, name)] as const)
  for (const name of says) {
    const value = (...args: unknown[]): unknown => {
      calls.push(() => (socket[name] as (...args: unknown[]) => unknown)(...args))
      return name === 'write' ? false : socket
    }
    Object.defineProperty(socket, name, { value, configurable: true, writable: true })
  }
  return () => {
    for (const [name, descriptor] of own) {
      Reflect.deleteProperty(socket, name)
      if (descriptor) Object.defineProperty(socket, name, descriptor)
    }
    const answers = calls.map((call) => {
      try {
        return call()
      } catch (error) {
        // The caller that gave what cannot be written has long returned.
        return socket.destroy(error as Error)
      }
    })
    // write() answered false: whoever waits for 'drain' must hear it. Where the socket is full, Node emits it.
    if (answers.length > 0 && !answers.includes(false)) process.nextTick(() => { if (!socket.destroyed) socket.emit('drain') })
  }
}

/** Throws HANDOVER_OPTION and HANDOVER_STATE. */
function checked(socket: net.Socket, options: Partial<MoveOptions> | undefined): { kind: string; text: string | undefined } {
  if (!(socket instanceof net.Socket)) throw optionError('move() was given something else than a net.Socket', 'Give the socket of the connection')
  const { kind, state } = options ?? {}
  if (!isKind(kind)) throw optionError(`move() was given the kind ${inspect(kind)}`, 'Give the name that onMoved() knows, not "http"')
  const text = state === undefined ? undefined : encodeState(state, `a connection of kind "${kind}"`)
  if (text !== undefined && Buffer.byteLength(text) > mostStateBytes) {
    throw new HandoverError('HANDOVER_STATE', {
      what: `the state of a connection of kind "${kind}" is ${Buffer.byteLength(text)} bytes long, expected at most ${mostStateBytes}`,
      serving: 'Nothing was changed',
      todo: 'Give less, and keep the rest where both processes can read it'
    })
  }
  return { kind, text }
}

export class ApplicationMoves {
  readonly #takers = new Map<string, OnMoved>()
  readonly #leaving = new WeakSet<net.Socket>()

  get kinds(): string[] {
    return [...this.#takers.keys()]
  }

  onMoved(kind: string, take: OnMoved): void {
    if (!isKind(kind)) throw optionError(`onMoved() was given the kind ${inspect(kind)}`, 'Give a name of your own, not "http"')
    if (typeof take !== 'function') throw optionError('onMoved() was given no function', 'Give (socket, state) => …')
    if (this.#takers.has(kind)) throw optionError(`onMoved("${kind}") was called twice`, 'Give each kind one function')
    this.#takers.set(kind, take)
  }

  /** The kind is free again. */
  forget(kind: string): void {
    this.#takers.delete(kind)
  }

  /**
   * `connections` and `listener`: of the server that accepted the socket, where Handover has it. Resolves true when the successor has the
   * socket.
   */
  async move(
    socket: net.Socket, options: MoveOptions | undefined, mover: ConnectionSender | undefined, connections: ConnectionTracker | undefined,
    listener: string
  ): Promise<boolean> {
    const { kind, text } = checked(socket, options)
    const secure = isSecure(socket)
    const cannot = this.#leaving.has(socket) || socket.destroyed || socket.connecting ||
      !socket.readable || !socket.writable || fdOf(socket) === undefined || holdsHalfCharacter(socket)
    if (cannot || !mover?.takesKind(kind, secure)) return false

    this.#leaving.add(socket)
    const leaving = { kind, sent: false }
    const connection = connections?.get(socket)
    if (connection) connection.leaving = leaving
    const write = socket.write.bind(socket)
    const letGo = holdBack(socket)
    const { unread, readOn } = await stopReading(socket)
    const [flushed] = await Promise.all([this.#flush(socket, write), secure && testTls()])
    const tls = flushed && secure ? cargoOf(socket) : undefined
    const stays = !flushed || typeof tls === 'string'
    return await new Promise<boolean>((resolve) => {
      const { openedAt, requests } = connection ?? { openedAt: performance.now(), requests: 0 }
      mover.send({
        fd: () => (stays || socket.destroyed ? undefined : fdOf(socket)),
        about: {
          kind, listener, ageMs: Math.round(performance.now() - openedAt), requests,
          ...(text !== undefined && { state: text }), ...(unread.length > 0 && { unread: unread.toString('base64') }),
          ...(typeof tls === 'object' && { tls: tls.about })
        },
        tls: typeof tls === 'object' ? tls : undefined,
        sent: () => { leaving.sent = true },
        left: () => {
          connections?.moved(socket, kind)
          rememberClient(socket)
          // Its 'close' would say that the client has gone.
          socket.removeAllListeners().on('error', () => undefined)
          socket.destroy()
          letGo()
          resolve(true)
        },
        back: () => {
          this.#leaving.delete(socket)
          if (connection) connection.leaving = undefined
          if (!socket.destroyed) {
            socket.uncork()
            readOn()
          }
          letGo()
          resolve(false)
        }
      })
    })
  }

  /** Waits until the kernel has all that was written. False where the connection ends first. */
  async #flush(socket: net.Socket, write: net.Socket['write']): Promise<boolean> {
    while (unsentBytes(socket) > 0 && !socket.destroyed) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          socket.off('close', done)
          resolve()
        }
        socket.once('close', done)
        write('', done)
      })
    }
    if (socket.destroyed) return false
    socket.cork()
    return true
  }

  /**
   * A connection that a predecessor moved here. Throws what the application's function throws, as GiveBackError where the client has
   * heard of it; this copy is closed then.
   */
  take(fd: number, about: MovedConnection, connections: ConnectionTracker | undefined, keys?: readonly Buffer[]): void {
    const socket = connections?.receive(fd, about, keys) ?? adoptAlone(fd, about, keys)
    try {
      const taker = this.#takers.get(about.kind)
      if (!taker) throw new Error('no onMoved() takes connections of this kind')
      const state = about.state === undefined ? undefined : decodeState(about.state, `a connection of kind "${about.kind}"`)
      if (about.unread !== undefined) socket.unshift(Buffer.from(about.unread, 'base64'))
      taker(socket, state)
    } catch (error) {
      throw giveBack(socket, error)
    }
  }
}

/** Of a server that this process does not have. */
function adoptAlone(fd: number, { tls }: MovedConnection, keys: readonly Buffer[] | undefined): net.Socket {
  if (!tls) return adoptDescriptor(fd, undefined)
  const secure = goOnWith(adoptDescriptor(fd, undefined, (bytes) => { secure.arrived(bytes) }), tls, keys)
  return secure
}
