/**
 * The listeners of this process, and what was offered to it and is not claimed yet.
 *
 * Offering, silence and acceptance act on all of them together. A Unix path belongs to the last process that serves on it: that one, and no
 * other, removes the file.
 */

import type dgram from 'node:dgram'
import { closeSync, lstatSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import { constants } from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import { HandoverError } from './errors.js'
import { find, keyOf, mismatch, nameOf, type Asked } from './listeners.js'
import type { OfferedListener } from './messages.js'
import { addon, check, native, systemError, type SocketDescription } from './native.js'
import * as inside from './private.js'

/** Node's default; the kernel rounds it up. */
export const defaultBacklog = 511

export interface Listener {
  readonly owner: net.Server | dgram.Socket
  readonly about: OfferedListener
  /** Claimed from the predecessor, or new in this generation. */
  readonly kept: boolean
  /** The absolute path of a Unix socket's file. */
  readonly file: string | undefined
}

export interface Offered {
  readonly about: OfferedListener
  readonly fd: number
}

const isServer = (owner: net.Server | dgram.Socket): owner is net.Server => owner instanceof net.Server

/** Device and inode of a path, or undefined where there is no such file. */
export function fileId(file: string): string | undefined {
  // No file has a zero byte in its name; Node 20 cuts a path that a program listens on there.
  if (file.includes('\0')) return undefined
  const found = lstatSync(file, { throwIfNoEntry: false, bigint: true })
  return found && `${found.dev}:${found.ino}`
}

/**
 * A listening Unix socket at `file`, whose close() leaves the file alone: libuv unlinks the path that it bound itself when the first process
 * that holds the socket closes it. Undefined where the path cannot be used: Node's own listen() then says so in its own words.
 */
export function bindUnix(file: string): number | undefined {
  if (isAbandoned(file)) unlinkSync(file)
  const fd = native?.listenUnix(file, defaultBacklog) ?? -1
  return fd < 0 ? undefined : fd
}

/** A socket on which nobody listens: what a process leaves that was killed, and what would fail every reload after one that failed. unix(7). */
function isAbandoned(file: string): boolean {
  if (!native || !lstatSync(file, { throwIfNoEntry: false })?.isSocket()) return false
  const answer = native.connectUnix(file)
  if (answer >= 0) closeSync(answer)
  return answer === -constants.errno.ECONNREFUSED
}

/** What a listener is; without the addon, what Node knows of it. */
function describe(owner: net.Server | dgram.Socket): SocketDescription | undefined {
  const fd = inside.fdOf(owner)
  const found = fd === undefined ? undefined : native?.describe(fd)
  if (typeof found === 'object') return found
  const address = owner.address()
  if (address === null) return undefined
  const plain = { type: isServer(owner) ? 'stream' : 'dgram', listening: true, ipv6Only: false, backlog: 0 } as const
  return typeof address === 'string'
    ? { ...plain, family: 'unix', address, port: 0 }
    : { ...plain, family: address.family === 'IPv6' ? 'inet6' : 'inet', address: address.address, port: address.port }
}

export class Inventory {
  readonly #listeners = new Set<Listener>()
  readonly #offered = new Set<Offered>()
  /** What the last offer had. */
  #known: ReadonlySet<Listener> = new Set()
  /** Without a silent copy after a commit that can still be undone. */
  readonly #closed = new Set<Listener>()

  get listeners(): readonly Listener[] {
    return [...this.#listeners]
  }

  get names(): string[] {
    return this.listeners.map((listener) => listener.about.name)
  }

  /** Names of what was offered and is not claimed. */
  get unclaimed(): string[] {
    return [...this.#offered].map((offered) => offered.about.name)
  }

  /** Takes what the predecessor offered. Throws HANDOVER_LISTENER_MISMATCH; the descriptors are closed then. */
  take(listeners: readonly OfferedListener[], fds: readonly number[]): void {
    try {
      listeners.forEach((about, index) => {
        const fd = fds[index] ?? -1
        const found = addon().describe(fd)
        const wrong = typeof found === 'number' ? `not a socket (${systemError(found, 'getsockopt').code ?? ''})` : mismatch(about, found)
        if (wrong !== undefined) {
          throw new HandoverError('HANDOVER_LISTENER_MISMATCH', `the descriptor for "${about.name}" is ${wrong}. The predecessor goes on serving. Nothing was taken over.`)
        }
      })
    } catch (error) {
      fds.forEach((fd) => { closeSync(fd) })
      throw error
    }
    listeners.forEach((about, index) => this.#offered.add({ about, fd: fds[index] ?? -1 }))
    this.ownsFiles = false
  }

  /** Takes the offered listener that a listen() call means out of the offer; undefined where there is none. */
  claim(asked: Asked): Offered | undefined {
    const usable = [...this.#offered].filter(({ about }) => about.kind !== 'unix' || about.file === undefined || about.file === fileId(about.address))
    const about = find(asked, usable.map((offered) => offered.about))
    const offered = usable.find((candidate) => candidate.about === about)
    if (offered) this.#offered.delete(offered)
    return offered
  }

  /** The control socket that was offered, where it is the one that is meant. */
  takeControl(isMeant: (about: OfferedListener) => boolean): Offered | undefined {
    const offered = [...this.#offered].find(({ about }) => about.kind === 'control' && isMeant(about))
    if (offered) this.#offered.delete(offered)
    return offered
  }

  giveBack(offered: Offered): void {
    this.#offered.add(offered)
  }

  /** Closes what nobody claimed; answers the names. */
  drop(): string[] {
    const names = this.unclaimed
    for (const { fd } of this.#offered) closeSync(fd)
    this.#offered.clear()
    return names
  }

  /** Records a listener that has come to be; `close` of the owner forgets it. */
  add(owner: net.Server | dgram.Socket, call: Asked | undefined, claimed: OfferedListener | undefined, backlog: number): Listener | undefined {
    const found = describe(owner)
    if (found === undefined) return undefined
    const unix = found.family === 'unix'
    // listen(handle) asks for nothing: what it is must do.
    const asked: Asked = call ?? (unix ? { kind: 'unix', path: found.address } : { kind: 'tcp', host: found.address, port: found.port, ipv6Only: found.ipv6Only })
    const at = unix ? (asked.path ?? claimed?.address ?? found.address) : found.address
    const named = unix && at !== '' && !at.startsWith('\0')
    const id = named && native ? fileId(at) : undefined
    const about: OfferedListener = {
      name: unix ? nameOf({ ...found, address: at }) : nameOf(found),
      kind: found.type === 'dgram' ? 'udp' : unix ? 'unix' : 'tcp',
      asked: claimed?.asked === keyOf(asked) || asked.fd === undefined ? keyOf(asked) : (claimed?.asked ?? keyOf(asked)),
      address: at,
      port: found.port,
      ipv6: found.family === 'inet6',
      ipv6Only: found.ipv6Only,
      backlog: Math.max(backlog, found.backlog, claimed?.backlog ?? 0) || defaultBacklog,
      ...(id !== undefined && { file: id })
    }
    const listener: Listener = { owner, about, kept: claimed !== undefined, file: named ? path.resolve(at) : undefined }
    this.#listeners.add(listener)
    // A client that comes back resumes its TLS session, as if the process had stayed.
    if (claimed?.ticketKeys !== undefined && owner instanceof tls.Server && !inside.hasOwnTicketKeys(owner)) owner.setTicketKeys(Buffer.from(claimed.ticketKeys, 'base64'))
    owner.once('close', () => {
      if (this.#listeners.delete(listener)) this.#unlink(listener)
    })
    return listener
  }

  /** What to offer, with the descriptors in the same order. */
  offer(): { listeners: OfferedListener[]; fds: number[] } {
    this.#known = new Set(this.#open.map(({ listener }) => listener))
    return this.copies()
  }

  get #open(): { listener: Listener; about: OfferedListener; fd: number }[] {
    return this.listeners.map((listener) => ({ listener, about: listener.about, fd: inside.fdOf(listener.owner) ?? -1 })).filter(({ fd }) => fd >= 0)
  }

  /** The same for a keeper: nothing changes by it. */
  copies(): { listeners: OfferedListener[]; fds: number[] } {
    const open = this.#open
    return {
      listeners: open.map(({ listener: { owner }, about }) => (owner instanceof tls.Server ? { ...about, ticketKeys: owner.getTicketKeys().toString('base64') } : about)),
      fds: open.map(({ fd }) => fd)
    }
  }

  /** The listener of this name. */
  named(name: string): Listener | undefined {
    for (const listener of this.#listeners) if (listener.about.name === name) return listener
    return undefined
  }

  /** The listener of this server. */
  of(server: net.Server): Listener | undefined {
    for (const listener of this.#listeners) if (listener.owner === server) return listener
    return undefined
  }

  /**
   * Stops accepting on all listeners at once and keeps a silent copy of each but of those that the successor does without: connects to
   * these are refused from now on. Answers the names of those that it has not heard of: they came to be after the offer.
   */
  silence(dropped: readonly string[]): string[] {
    this.ownsFiles = false
    const left = [...dropped]
    const unknown: string[] = []
    // Of two on one address the successor claimed the first.
    // A keeper closes its own copies as well, when the reload is settled: until then an undo needs this one.
    for (const listener of this.filesAreKept ? [] : this.listeners.toReversed()) {
      const index = left.indexOf(listener.about.name)
      if (!this.#known.has(listener)) unknown.push(listener.about.name)
      else if (index >= 0) left.splice(index, 1)
      else continue
      if (!isServer(listener.owner)) continue
      inside.closeListener(listener.owner)
      this.#unlink(listener, true)
      this.#closed.add(listener)
    }
    for (const listener of this.#listeners) {
      const { owner } = listener
      if (!isServer(owner)) {
        inside.stopReceiving(owner)
        continue
      }
      const fd = inside.fdOf(owner)
      if (fd === undefined) continue
      try {
        inside.stopAccepting(owner, check(addon().duplicate(fd), 'fcntl'))
      } catch {
        // Out of descriptors: then without a copy, but never two processes that accept.
        inside.closeListener(owner)
        this.#closed.add(listener)
      }
    }
    return unknown
  }

  /**
   * Accepts on everything that is silent: at the commit of a successor, or when a reload is undone. What was closed then is listened on
   * anew; `failed` hears of what cannot be.
   */
  accept(failed: (listener: Listener, error: Error) => void): void {
    this.ownsFiles = true
    const closed = [...this.#closed]
    this.#closed.clear()
    // What the program closed meanwhile stays closed.
    const reopened = closed.filter((listener) => this.#listeners.delete(listener) && inside.dropListener(listener.owner as net.Server))
    for (const listener of this.#listeners) {
      const { owner, about } = listener
      const answer = isServer(owner) ? inside.accept(owner, about.backlog) : inside.receive(owner)
      if (answer !== undefined && answer < 0) failed(listener, systemError(answer, 'listen'))
    }
    for (const listener of reopened) {
      const { address, port, ipv6Only, backlog } = listener.about
      const onError = (error: Error): void => { failed(listener, error) }
      const server = listener.owner as net.Server
      server.once('error', onError).once('listening', () => server.off('error', onError))
      try {
        server.listen(listener.file === undefined ? { host: address, port, ipv6Only, backlog, exclusive: true } : { path: listener.file, backlog })
      } catch (error) {
        onError(error as Error)
      }
    }
  }

  /** Closes the listeners, silent or not; the connections stay. UDP sockets stay open for the answers that are still to be sent. */
  close(): void {
    for (const { owner } of this.#listeners) {
      if (isServer(owner)) inside.closeListener(owner)
      else inside.stopReceiving(owner)
    }
  }

  /** This process is the last on its Unix paths. */
  unlinkFiles(): void {
    for (const listener of this.#listeners) this.#unlink(listener)
  }

  /** False while another process serves on the Unix paths: this one must not remove them then. */
  ownsFiles = true
  /** The keeper goes on with them after this process. */
  filesAreKept = false

  #unlink({ file, about }: Listener, owns = this.ownsFiles): void {
    if (!owns || this.filesAreKept || file === undefined || about.file === undefined || fileId(file) !== about.file) return
    try {
      unlinkSync(file)
    } catch { /* somebody removed it already */ }
  }
}
