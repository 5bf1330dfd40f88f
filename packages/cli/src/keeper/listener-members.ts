/**
 * What the keeper holds: for every worker slot its *member* of each listener.
 *
 * A TCP listener is a group of sockets with SO_REUSEPORT, one member for a slot, over which the kernel spreads the connects. A member is
 * made once and passed on from generation to generation of its slot: closing one would reset what is in its queue, so none is closed while
 * its listener is served at all, not even when its slot is gone. Where there is no group (Unix, UDP, a socket that cannot be bound beside)
 * all slots have copies of one socket. It starts nothing and sends nothing: the caller says who serves what, and gets descriptors to send.
 */

import { closeSync, fstatSync } from 'node:fs'
import { addon, fileId, isEphemeral, isInTheWay, systemError, type OfferedListener, type SocketFile } from '@handover/core/internal'

/**
 * `prepared`: made for this slot; its worker has not said yet that it serves on it. `served`: by the worker of this slot, or by the next
 * one where that died. `dropped`: not served by the worker of this slot, perhaps by others.
 */
type MemberState = 'prepared' | 'served' | 'dropped'

/** A member as it goes to the next keeper, which gets its descriptor as well. */
export interface SavedMember {
  readonly slot: number
  /** The name of the listener, with a number where several have that name. The same in all slots. */
  readonly key: string
  readonly state: MemberState
  readonly listener: OfferedListener
}

interface Member extends SavedMember {
  readonly fd: number
  /** The inode of the socket, which all its copies share. */
  readonly socket: number
}

/** To be sent, in this order. Do not close the descriptors: they stay with ListenerMembers, in all that it answers. */
export interface Offer {
  readonly listeners: OfferedListener[]
  readonly fds: number[]
}

/** What a worker gets beside its own members while it serves. */
export type Loan = Pick<Member, 'listener' | 'fd' | 'socket'>

/** A member from which no worker accepts. */
export interface Orphan extends Loan, Pick<Member, 'slot'> {
  /** The live slots that serve this listener; at least one. */
  readonly by: readonly number[]
}

const socketOf = (fd: number): number => fstatSync(fd).ino
const listens = (fd: number): boolean => {
  const found = addon().describe(fd)
  return typeof found === 'object' && found.listening
}

/** Two listeners on one address stay two: the second gets a number. */
function keysOf(listeners: readonly OfferedListener[]): string[] {
  const seen = new Map<string, number>()
  return listeners.map(({ name }) => {
    const before = seen.get(name) ?? 0
    seen.set(name, before + 1)
    return before === 0 ? name : `${name} (${before + 1})`
  })
}

export interface MembersOptions {
  /** All slots share one socket of each listener. False; true where the kernel does not spread connects over a group (macOS). */
  readonly shared?: boolean
  /** Is called once for each listener that slots share because no member could be bound. */
  readonly warn?: (line: string) => void
  /** Whether all slots share this socket in any case, as those that systemd opened. */
  readonly isShared?: (fd: number) => boolean
}

export class ListenerMembers {
  readonly #shared: boolean
  readonly #warn: (line: string) => void
  readonly #isShared: (fd: number) => boolean
  #members: Member[] = []
  /** Why slots share a listener for which no member could be bound, by its name. */
  readonly #sharedBecause = new Map<string, string>()

  constructor({ shared = process.platform !== 'linux', warn = () => undefined, isShared = () => false }: MembersOptions = {}) {
    this.#shared = shared
    this.#warn = warn
    this.#isShared = isShared
  }

  /** `saved`: what `all()` of the keeper before answered. Owns the descriptors from here on. Throws EBADF where one is not open. */
  static restore(saved: readonly SavedMember[], fds: readonly number[], options?: MembersOptions): ListenerMembers {
    const members = new ListenerMembers(options)
    members.#members = saved.map((member, index) => ({ ...member, fd: fds[index]!, socket: socketOf(fds[index]!) }))
    return members
  }

  /** The names of all listeners that a slot serves. */
  get names(): string[] {
    return [...new Set(this.#members.filter(({ state }) => state === 'served').map(({ listener }) => listener.name))]
  }

  /** The listeners of which several slots share one queue, and why: sentences without their full stops. */
  get sharing(): string[] {
    return [...this.#sharedBecause].map(([name, reason]) =>
      `the workers accept from one queue of ${name}, and not from one each (${reason}): one of them may get most of the connections`)
  }

  /** The names of what is served although no client can connect: its socket does not listen, or its path leads elsewhere. */
  get unreachable(): string[] {
    const isReached = ({ listener: { kind, path, file }, fd }: Member): boolean =>
      (kind === 'udp' || listens(fd)) && (kind !== 'unix' || path === undefined || file === undefined || fileId(path) === file)
    return this.names.filter((name) =>
      !this.#members.some((member) => member.state === 'served' && member.listener.name === name && isReached(member)))
  }

  /** Of the Unix sockets that are served. */
  get socketFiles(): SocketFile[] {
    const files = this.#members.flatMap(({ state, listener: { name, path, file: id } }) =>
      state === 'served' && path !== undefined && id !== undefined ? [{ name, file: path, id }] : [])
    return files.filter(({ id }, index) => files.findIndex((other) => other.id === id) === index)
  }

  /** What this slot serves. */
  of(slot: number): OfferedListener[] {
    return this.#members.filter((member) => member.slot === slot && member.state === 'served').map(({ listener }) => listener)
  }

  /**
   * The worker of this slot serves exactly these from now on; owns the descriptors. What the slot served before is dropped for it, and kept
   * until `settle` for the other slots and for an undo. Throws EBADF where a descriptor is not open; then nothing has changed.
   */
  hold(slot: number, listeners: readonly OfferedListener[], fds: readonly number[]): void {
    const keys = keysOf(listeners)
    let sockets: number[]
    try {
      sockets = listeners.map((_, index) => socketOf(fds[index]!))
    } catch (error) {
      addon().close(fds)
      throw error
    }
    this.#close((member) => member.slot === slot && (keys.includes(member.key) || sockets.includes(member.socket)))
    // A worker may have accepted on a prepared member and died before it said so.
    const isDropped = (member: Member): boolean => member.slot === slot && (member.state !== 'prepared' || listens(member.fd))
    this.#members = this.#members.map((member) => (isDropped(member) ? { ...member, state: 'dropped' } : member))
    this.#members.push(...listeners.map(({ bound: _, ...listener }, index): Member =>
      ({ slot, key: keys[index]!, state: 'served', listener, fd: fds[index]!, socket: sockets[index]! })))
  }

  /**
   * What the next process of this slot is offered: its own members, new members of what only other slots have, and copies of what all
   * slots share. What no slot serves is a spare: the program may open it again.
   */
  offerFor(slot: number): Offer {
    const own = this.#members.filter((member) => member.slot === slot)
    return this.#offer(slot, own, [...this.#in('served'), ...this.#in('dropped')])
  }

  /** What a new version in another slot added, and this slot has never been offered. */
  extrasFor(slot: number): Offer {
    return this.#offer(slot, this.#in('prepared').filter((member) => member.slot === slot), this.#in('served'))
  }

  /**
   * What other slots serve by now, and this one never has: its program may be about to listen there. Not a port that the system chose, of
   * which each worker gets one of its own.
   */
  lateFor(slot: number): Loan[] {
    const served = this.#in('served').filter(({ listener }) => !isEphemeral(listener))
    const own = this.#in('prepared').filter((member) => member.slot === slot && served.some(({ key }) => key === member.key))
    const { listeners, fds } = this.#offer(slot, own, served)
    return listeners.map((listener, index) => ({ listener: { ...listener, spare: true }, fd: fds[index]!, socket: socketOf(fds[index]!) }))
  }

  #in(state: MemberState): Member[] {
    return this.#members.filter((member) => member.state === state)
  }

  /**
   * The members that listen and from which no live worker accepts: their slot has no worker (it crashed, or there are fewer workers now),
   * or its new version does not listen there. The kernel still gives them connects, which wait until a worker of `by` accepts from a copy.
   */
  orphans(live: readonly number[]): Orphan[] {
    const served = this.#members.filter(({ slot, state }) => state === 'served' && live.includes(slot))
    const seen = new Set(served.map(({ socket }) => socket))
    const found: Orphan[] = []
    for (const { slot, key, state, listener, fd, socket } of this.#members) {
      const by = served.filter((other) => other.key === key).map((other) => other.slot)
      const own = live.includes(slot) && state === 'prepared' // its worker is about to say that it serves on it
      if (own || by.length === 0 || seen.has(socket) || !listens(fd)) continue
      seen.add(socket)
      found.push({ slot, listener, fd, socket, by })
    }
    return found
  }

  /**
   * When a reload is over and cannot be undone: closes all members of the listeners that none of these slots serves, so that connects are
   * refused. `slots`: of all workers that there should be, dead or alive. Answers the names.
   */
  settle(slots: readonly number[]): string[] {
    const served = new Set(this.#members.filter(({ slot, state }) => state === 'served' && slots.includes(slot)).map(({ key }) => key))
    const gone = this.#close(({ key }) => !served.has(key))
    return [...new Set(gone.map(({ listener }) => listener.name))]
  }

  /**
   * Closes what no slot serves any more and does not come back: a port that the system chose, and an address of a port that is served at
   * another one. Not to be called while a reload may be undone.
   */
  closePassed(): void {
    const served = this.#members.filter(({ state }) => state === 'served')
    const keys = new Set(served.map(({ key }) => key))
    this.#close(({ key, listener }) =>
      !keys.has(key) && (isEphemeral(listener) || served.some((other) => isInTheWay(listener, other.listener))))
  }

  /** For the next keeper: what `restore` takes. */
  all(): { members: SavedMember[]; fds: number[] } {
    return {
      members: this.#members.map(({ slot, key, state, listener }) => ({ slot, key, state, listener })),
      fds: this.#members.map(({ fd }) => fd)
    }
  }

  /** Those on which connects can come in. */
  listening(): readonly Pick<Member, 'slot' | 'key' | 'listener' | 'fd'>[] {
    return this.#members.filter(({ fd }) => listens(fd))
  }

  /** Whether the worker of this slot accepts on this listener. */
  serves(slot: number, key: string): boolean {
    return this.#members.some((member) => member.slot === slot && member.key === key && member.state === 'served')
  }

  /** Closes every descriptor: from then on only the workers hold the ports. */
  close(): void {
    this.#close(() => true)
  }

  #close(which: (member: Member) => boolean): Member[] {
    const gone = this.#members.filter(which)
    this.#members = this.#members.filter((member) => !gone.includes(member))
    for (const { fd } of gone) closeSync(fd)
    return gone
  }

  /** `others`: of other slots, too; the first ones go before the others. */
  #offer(slot: number, own: readonly Member[], others: readonly Member[]): Offer {
    const listeners: OfferedListener[] = []
    const fds: number[] = []
    const add = ({ listener, fd, state }: Member): void => {
      const isBound = listener.kind === 'tcp' && !listens(fd)
      listeners.push({ ...listener, ...(isBound && { bound: true }), ...(state === 'dropped' && { spare: true }) })
      fds.push(fd)
    }
    own.forEach(add)
    const known = new Set(this.#members.filter((member) => member.slot === slot).map(({ key }) => key))
    for (const member of others) {
      // A port that the system chose does not come back.
      if (known.has(member.key) || (member.state === 'dropped' && isEphemeral(member.listener))) continue
      known.add(member.key)
      const isAlone = member.listener.kind === 'tcp' && !this.#shared && !this.#isShared(member.fd)
      add((isAlone ? this.#join(slot, member) : undefined) ?? member)
    }
    return { listeners, fds }
  }

  /**
   * A member of the group of `beside`; undefined, and a warning, where none can be bound. The group begins with the second member: until
   * then its socket need not have SO_REUSEPORT.
   */
  #join(slot: number, beside: Member): Member | undefined {
    const { key, listener, state } = beside
    const set = addon().setReusePort(beside.fd)
    const fd = set < 0 ? set : addon().bindBeside(beside.fd)
    if (fd < 0) {
      this.#warnOfSharing(listener.name, systemError(fd, set < 0 ? 'setsockopt' : 'bind').message)
      return undefined
    }
    const member: Member = { slot, key, state: state === 'dropped' ? state : 'prepared', listener, fd, socket: socketOf(fd) }
    this.#members.push(member)
    return member
  }

  #warnOfSharing(name: string, reason: string): void {
    if (this.#sharedBecause.has(name)) return
    this.#sharedBecause.set(name, reason)
    this.#warn(`${this.sharing.at(-1)!}. Let the user of the keeper open that port itself, and no other program beside it.`)
  }
}
