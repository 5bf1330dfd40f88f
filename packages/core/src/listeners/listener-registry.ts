/**
 * The listeners of this process, and what was offered to it and is not claimed yet (offered-sockets.ts).
 *
 * Offering, silencing and accepting act on all of them together. Only the last process that serves on a Unix path removes its file.
 */

import type net from 'node:net'
import { constants } from 'node:os'
import path from 'node:path'
import { fileId } from '../platform/file-id.js'
import { addon, check, native, systemError } from '../platform/native.js'
import { receive, stopReceiving } from '../platform/node/datagram-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import * as inside from '../platform/node/listen-handle.js'
import { resumeSessions, resumptionOf } from '../platform/node/tls-resumption.js'
import { isTlsServer } from '../platform/on-demand.js'
import { asKnown, unguarded } from '../platform/path-guard.js'
import type { OfferedListener, OfferedSocket } from '../protocol/handover-messages.js'
import { isServer, listenerOf, type Listener } from './listener.js'
import { addressesOf, isEphemeral, isInTheWay, overlap, type AskedAddress } from './listener-match.js'
import { listensNoMore, onceListensNoMore } from './listening-end.js'
import { OfferedSockets } from './offered-sockets.js'
import { locate, type SocketFile } from './socket-file-hold.js'
import { bindUnix, connectStatus, isAbandoned, modeOf } from './unix-path.js'

export type { Listener } from './listener.js'

/** `lent`: other workers serve there. */
type WhosePath = 'mine' | 'offered' | 'lent' | 'passed on'

export class ListenerRegistry {
  readonly #listeners = new Set<Listener>()
  readonly #offered = new OfferedSockets()
  /** The listeners of the last offer. */
  #known: ReadonlySet<Listener> = new Set()
  /** Closed without a silent copy, after a commit that can still be undone. */
  readonly #closed = new Set<Listener>()
  /** It took an offer, and accepts nothing yet. */
  #waits = false
  /** The Unix paths that another process serves from now on. */
  #passedOn: readonly string[] = []

  get listeners(): readonly Listener[] {
    return [...this.#listeners]
  }

  get names(): string[] {
    return this.listeners.map((listener) => listener.about.name)
  }

  /** What was offered to listen() and is not claimed, without the spares. */
  get unclaimed(): OfferedListener[] {
    return this.#offered.all.map(({ about }) => about).filter(({ kind, spare }) => kind !== 'control' && spare !== true)
  }

  /** Takes what the predecessor offered. Throws HANDOVER_LISTENER_MISMATCH; the descriptors are closed then. */
  take(listeners: readonly OfferedListener[], fds: readonly number[]): void {
    this.#offered.take(listeners, fds)
    this.ownsFiles = false
    this.#waits = true
  }

  /** What must still be claimed. */
  get awaited(): OfferedListener[] {
    const open = this.unclaimed
    // Beside others, a port that the system chose may come and go: a test server, a passive connection of FTP.
    return this.listeners.some(({ kept }) => kept) ? open.filter((about) => !isEphemeral(about)) : open
  }

  /** Takes the offered listener that a listen() call means out of the offer; undefined where there is none. */
  claim(asked: AskedAddress): OfferedSocket | undefined {
    return this.#offered.claim(asked, this.#waits)
  }

  /** The program renames `from`, the file of a new socket, to the path of an offered one: its server then listens on the offered one. */
  claimRenamed(from: string, to: string): boolean {
    const listener = this.listeners.find(({ kept, file }) => !kept && file !== undefined && asKnown(file) === from)
    if (!this.#waits || !listener || !isServer(listener.owner)) return false
    const offered = this.#offered.takeOne((about) => about.kind === 'unix' && pathOf(about) === to)
    if (!offered) return false
    inside.replaceListener(listener.owner, offered.fd, offered.about.backlog)
    Object.assign(listener, { about: offered.about, kept: true, file: to, where: to })
    return true
  }

  /** The offered control socket, if it is the right one. */
  takeControl(isMeant: (about: OfferedListener) => boolean): OfferedSocket | undefined {
    return this.#offered.takeOne((about) => about.kind === 'control' && isMeant(about))
  }

  giveBack(offered: OfferedSocket): void {
    this.#offered.giveBack(offered)
  }

  /** False where it was claimed or closed meanwhile. */
  withdraw(offered: OfferedSocket): boolean {
    return this.#offered.withdraw(offered)
  }

  /** Closes what was not claimed, and returns the names. */
  drop(): string[] {
    return this.#offered.drop()
  }

  /** The same; the spares stay, and can be claimed later. */
  dropUnclaimed(): string[] {
    return this.#offered.drop(({ spare }) => spare !== true)
  }

  /** Closes what was offered and would get the clients of this new listener: it is bound at another address of the same port. */
  dropInTheWay({ about }: Listener): void {
    this.#offered.drop((offered) => isInTheWay(offered, about))
  }

  /** What the program has closed is no listener any more, although its 'close' is still to come. */
  forgetClosed(): void {
    for (const { owner } of this.#listeners) if (isServer(owner) ? !owner.listening : fdOf(owner) === undefined) listensNoMore(owner)
  }

  /** Records a new listener, until its owner listens no more. */
  add(...what: Parameters<typeof listenerOf>): Listener | undefined {
    const [owner, , claimed] = what
    const listener = listenerOf(...what)
    if (!listener) return undefined
    this.#listeners.add(listener)
    // A client that reconnects resumes its TLS session.
    if (claimed && isTlsServer(owner)) resumeSessions(owner, claimed)
    onceListensNoMore(owner, () => {
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
    const all = this.listeners.map((listener) => ({ listener, about: listener.about, fd: fdOf(listener.owner) ?? -1 }))
    return all.filter(({ fd }) => fd >= 0)
  }

  /** The same for a keeper; it is no offer. */
  copies(): { listeners: OfferedListener[]; fds: number[] } {
    const open = this.#open
    return {
      listeners: open.map(({ listener, about }) => ({
        ...about,
        ...(isTlsServer(listener.owner) && resumptionOf(listener.owner)),
        ...(listener.file !== undefined && { path: listener.where ?? listener.file })
      })),
      fds: open.map(({ fd }) => fd)
    }
  }

  named(name: string): Listener | undefined {
    return this.listeners.find(({ about }) => about.name === name)
  }

  of(server: net.Server): Listener | undefined {
    return this.listeners.find(({ owner }) => owner === server)
  }

  /**
   * Stops accepting on all listeners at once. Keeps a silent copy of each, except of those that the successor dropped: from now on connects
   * to these are refused. Returns the names of those that are newer than the offer, so that the successor does not know them.
   */
  silence(dropped: readonly string[]): string[] {
    this.ownsFiles = false
    this.passOn()
    const left = [...dropped]
    const unknown: string[] = []
    // Of two on one address the successor claimed the first. Under a keeper an undo needs these copies until the reload is settled.
    for (const listener of this.filesAreKept ? [] : this.listeners.toReversed()) {
      const index = left.indexOf(listener.about.name)
      if (!this.#known.has(listener)) unknown.push(listener.about.name)
      else if (index >= 0) left.splice(index, 1)
      else continue
      if (!isServer(listener.owner)) continue
      inside.closeListener(listener.owner)
      this.#passedOn = this.#passedOn.filter((file) => file !== listener.file && file !== listener.where)
      this.#unlink(listener, true)
      this.#closed.add(listener)
    }
    for (const listener of this.#listeners) {
      const { owner } = listener
      if (!isServer(owner)) {
        stopReceiving(owner)
        continue
      }
      const fd = fdOf(owner)
      if (fd === undefined) continue
      try {
        inside.stopAccepting(owner, check(addon().duplicate(fd), 'fcntl'))
      } catch {
        // No descriptor is free for a copy, but two processes must never accept.
        inside.closeListener(owner)
        this.#closed.add(listener)
      }
    }
    return unknown
  }

  /** Accepts on all that is silent: at the commit, or after an undo. A closed listener listens anew. `failed` hears of each that cannot. */
  accept(failed: (listener: Listener, error: Error) => void): void {
    this.ownsFiles = true
    this.#passedOn = []
    // A program may have renamed new sockets into place.
    if (this.#waits) this.noteFiles(({ kept }) => !kept)
    this.#waits = false
    const closed = [...this.#closed]
    this.#closed.clear()
    // What the program closed meanwhile stays closed.
    const reopened = closed.filter((listener) => this.#listeners.delete(listener) && inside.dropListener(listener.owner as net.Server))
    for (const listener of this.#listeners) {
      const answer = this.acceptOn(listener)
      if (answer !== undefined && answer < 0) failed(listener, systemError(answer, 'listen'))
      if (isInPlace(listener) || this.#rebind(listener)) continue
      failed(listener, new Error('its path was removed or replaced, and it cannot be bound there anew'))
    }
    for (const listener of reopened) {
      const { address, port, ipv6Only, backlog } = listener.about
      const onError = (error: Error): void => { failed(listener, error) }
      const server = listener.owner as net.Server
      server.once('error', onError).once('listening', () => server.off('error', onError))
      try {
        const tcp = { host: address, port, ipv6Only, backlog, exclusive: true }
        server.listen(listener.file === undefined ? tcp : { path: listener.file, backlog })
      } catch (error) {
        onError(error as Error)
      }
    }
  }

  acceptOn({ owner, about }: Listener): number | undefined {
    return isServer(owner) ? inside.accept(owner, about.backlog) : receive(owner)
  }

  /** Closes the listeners; connections stay. UDP sockets stay open for answers that are still to be sent. */
  close(): void {
    for (const { owner } of this.#listeners) {
      if (isServer(owner)) inside.closeListener(owner)
      else stopReceiving(owner)
    }
  }

  /** This process is the last on its Unix paths. */
  unlinkFiles(): void {
    for (const listener of this.#listeners) this.#unlink(listener)
  }

  /** False while another process serves on the Unix paths, so that this one must not remove them. */
  ownsFiles = true
  /** The keeper holds them after this process. */
  filesAreKept = false

  #unlink({ file, about, kept, ownsFile }: Listener, owns = this.ownsFiles): void {
    if (!ownsFile) return
    // If this version never served, no other process has its new sockets.
    const isNew = this.#waits && !kept
    if (!isNew && (!owns || this.filesAreKept)) return
    if (file === undefined || about.file === undefined || fileId(file) !== about.file) return
    try {
      unguarded.unlinkSync(file)
    } catch { /* somebody removed it already */ }
  }

  // ---- the files of Unix sockets ----

  /** From now on another process owns the files of these listeners. */
  passOn(): void {
    this.#passedOn = this.listeners.flatMap(({ file, where }) => [file, where].filter((each) => each !== undefined))
  }

  /** Records where the files are now, and their permissions. */
  noteFiles(which: (listener: Listener) => boolean = () => true): void {
    for (const listener of this.#listeners) {
      const { file, about } = listener
      if (file === undefined || about.file === undefined || !which(listener)) continue
      const found = locate(listener.where ?? file, about.file) ?? locate(file, about.file)
      if (found === undefined) continue
      listener.where = found === file ? undefined : found
      listener.mode = modeOf(found)
    }
  }

  get socketFiles(): SocketFile[] {
    return this.listeners.flatMap(({ about: { name, file: id }, file, where }) =>
      (file === undefined || id === undefined ? [] : [{ name, file: where ?? file, id }]))
  }

  /** Whether `file`, as the guard knows it, is the path of a listener that this process has, was offered or lent, or has passed on. */
  isPathOf(file: string, which: WhosePath): boolean {
    return this.#pathsOf(which).some((each) => each !== undefined && asKnown(each) === file)
  }

  #pathsOf(which: WhosePath): readonly (string | undefined)[] {
    const paths = (listeners: readonly Listener[]): (string | undefined)[] => listeners.flatMap(({ file, where }) => [file, where])
    switch (which) {
      case 'passed on': return this.#passedOn
      case 'mine': return paths(this.listeners)
      case 'lent': return this.#offered.all.map(({ about }) => (about.kind === 'unix' && about.spare === true ? pathOf(about) : undefined))
      case 'offered': {
        const offered = this.#offered.all.filter(({ about }) => about.kind === 'unix').map(({ about }) => pathOf(about))
        return [...offered, ...paths(this.listeners.filter(({ kept }) => kept))]
      }
    }
  }

  /** Binds a new socket at the path of this listener, if no process listens there any more. */
  rebind(name: string): boolean {
    const listener = this.named(name)
    return listener !== undefined && this.#rebind(listener)
  }

  #rebind(listener: Listener): boolean {
    const { owner, file, where, mode, about, ownsFile } = listener
    const at = where ?? file
    if (at === undefined || !ownsFile || !isServer(owner) || fdOf(owner) === undefined) return false
    try {
      const answer = connectStatus(at)
      // Another process listens there, or it is not a socket.
      if (answer !== -constants.errno.ENOENT && !isAbandoned(at)) return false
      // Not under a temporary name: Node changes permissions by the name that a socket was bound under (uv_pipe_chmod).
      const fd = bindUnix(at, true, mode)
      if (fd === undefined) return false
      inside.replaceListener(owner, fd, about.backlog)
      const id = fileId(at)
      listener.about = { ...about, ...(id !== undefined && { file: id }) }
      return true
    } catch {
      return false
    }
  }

  /** What this process really listens on now, and what it should listen on but does not, for its status. */
  look(): { readonly served: string[]; readonly lost: string[] } {
    const served: string[] = []
    const lost: string[] = []
    for (const listener of this.#listeners) {
      const { owner, about } = listener
      const fd = fdOf(owner)
      const found = fd === undefined ? undefined : native?.describe(fd)
      // Without the addon nobody else can have closed it.
      const listens = native ? typeof found === 'object' && (found.type === 'dgram' || found.listening) : fd !== undefined
      const names = listens && isInPlace(listener) ? served : lost
      names.push(about.name)
    }
    return { served, lost }
  }

  /** A TCP or Unix listener that is bound there, does not listen yet, and will be in the way. */
  isBoundQuietly(address: string, port: number, { ipv6Only = false, reusePort = false }: Partial<AskedAddress> = {}): boolean {
    return this.listeners.some(({ owner, about, ...listener }) => {
      if (!isServer(owner) || inside.quietBacklog(owner) === undefined || about.port !== port) return false
      if (reusePort && listener.reusePort) return false
      if (port === 0) return about.kind === 'unix' && path.resolve(about.address) === path.resolve(address)
      return about.kind === 'tcp' && overlap(about, { address, ipv6Only })
    })
  }

  /**
   * Binds where the process that serves is in the way, by a listener on another address of that port (`::` and `127.0.0.1`): a program may
   * test each address, or have moved to another one. So may a spare be. It does not listen. Undefined: nothing is in the way, or the call
   * binds as usual.
   */
  bindBeside(asked: AskedAddress): number | undefined {
    const { kind, host, port = 0, ipv6Only = false } = asked
    const address = addressesOf(host)[0]
    if (kind !== 'tcp' || port === 0 || address === undefined || this.isBoundQuietly(address, port, asked)) return undefined
    const there = { kind, address, port, ipv6Only }
    const inTheWay = this.#offered.all.filter(({ about }) => isInTheWay(about, there))
    if (inTheWay.length === 0) return undefined
    for (const { fd } of inTheWay) addon().setReusePort(fd)
    const fd = addon().bindBeside(inTheWay[0]!.fd, address, Number(ipv6Only))
    return fd < 0 ? undefined : fd
  }
}

const isInPlace = ({ file, where, about }: Listener): boolean =>
  file === undefined || about.file === undefined || fileId(where ?? file) === about.file

/** Absolute, as the guard knows it. */
const pathOf = ({ path: at, address }: OfferedListener): string => asKnown(at ?? path.resolve(address))
