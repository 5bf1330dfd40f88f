/**
 * What the keeper holds: for every worker slot its *member* of each listener.
 *
 * A TCP listener is a group of sockets with SO_REUSEPORT, one member for a slot, over which the kernel spreads the connects. A member is
 * made once and passed on from generation to generation of its slot: closing one would reset what is in its queue, so none is closed while
 * its listener is served at all, not even when its slot is gone. Where there is no group (Unix, UDP, a socket that cannot be bound beside)
 * all slots have copies of one socket. It starts nothing and sends nothing: the caller says who serves what, and gets descriptors to send.
 */

import { closeSync, fstatSync } from 'node:fs'
import { addon, fileId, systemError, type OfferedListener, type SocketFile } from '@handover/core/internal'

/**
 * `prepared`: made for this slot, whose worker has not said that it serves on it. `served`: by the worker of this slot, or by the next one
 * when it is dead. `dropped`: the worker of this slot does without, others may not.
 */
type MemberState = 'prepared' | 'served' | 'dropped'

/** A member as the next keeper gets it, with its descriptor beside. */
export interface SavedMember {
  readonly slot: number
  /** Which listener: its name, and of several with one name which of them. The same in all slots. */
  readonly key: string
  readonly state: MemberState
  readonly listener: OfferedListener
}

interface Member extends SavedMember {
  readonly fd: number
  /** The inode of the socket, which all its copies share. */
  readonly socket: number
}

/** To be sent, in this order. The descriptors stay with Members: do not close them. */
export interface Offer {
  readonly listeners: OfferedListener[]
  readonly fds: number[]
  /** For the log: the TCP listeners of which the slot gets a copy because no member can be made, and why. */
  readonly shared: readonly { readonly name: string; readonly reason: string }[]
}

/** A member from which nobody accepts, and those who can. */
export interface Orphan {
  /** The slot that it belongs to. */
  readonly slot: number
  readonly listener: OfferedListener
  /** Stays with Members. */
  readonly fd: number
  /** Which socket it is, whatever the number of the descriptor. */
  readonly socket: number
  /** The live slots that serve this listener; at least one. */
  readonly by: readonly number[]
}

const socketOf = (fd: number): number => fstatSync(fd).ino
const listens = (fd: number): boolean => {
  const found = addon().describe(fd)
  return typeof found === 'object' && found.listening
}

/** The name, and for the second and later of one name a number: two listeners on one address stay two. */
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
  /** Hears once of each listener that slots share although they should not. */
  readonly warn?: (line: string) => void
  /** Whether all slots share this socket, whatever the others do: somebody else opened it. */
  readonly isShared?: (fd: number) => boolean
}

export class ListenerMembers {
  readonly #shared: boolean
  readonly #warn: (line: string) => void
  readonly #isShared: (fd: number) => boolean
  #members: Member[] = []
  /** Listeners that could not be had once for each slot, and why. */
  readonly #sharedBecause = new Map<string, string>()

  constructor({ shared = process.platform !== 'linux', warn = () => undefined, isShared = () => false }: MembersOptions = {}) {
    this.#shared = shared
    this.#warn = warn
    this.#isShared = isShared
  }

  /** What `all()` of the keeper before answered; the descriptors are owned from here on. Throws EBADF where one is not open. */
  static restore(saved: readonly SavedMember[], fds: readonly number[], options?: MembersOptions): ListenerMembers {
    const members = new ListenerMembers(options)
    members.#members = saved.map(({ slot, key, state, listener }, index) => ({ slot, key, state, listener, fd: fds[index]!, socket: socketOf(fds[index]!) }))
    return members
  }

  /** The names of all listeners that a slot serves. */
  get names(): string[] {
    return [...new Set(this.#members.filter(({ state }) => state === 'served').map(({ listener }) => listener.name))]
  }

  /** Which listeners several slots accept from together, and why: sentences for people, without their full stops. */
  get sharing(): string[] {
    return [...this.#sharedBecause].map(([name, reason]) =>
      `the workers accept from one queue of ${name}, and not from one each (${reason}): one of them may get most of the connections`)
  }

  #noteShared({ name, reason }: { readonly name: string; readonly reason: string }): void {
    if (this.#sharedBecause.has(name)) return
    this.#sharedBecause.set(name, reason)
    this.#warn(`${this.sharing.at(-1)!}. Let the user of the keeper open that port itself, and nobody beside it.`)
  }

  /** The names of what is served and cannot be connected to: its socket does not listen, or its path leads elsewhere. */
  get unreachable(): string[] {
    const isReached = ({ listener: { kind, path, file }, fd }: Member): boolean => (kind === 'udp' || listens(fd)) && (kind !== 'unix' || path === undefined || file === undefined || fileId(path) === file)
    return this.names.filter((name) => !this.#members.some((member) => member.state === 'served' && member.listener.name === name && isReached(member)))
  }

  /** Of the Unix sockets that are served. */
  get socketFiles(): SocketFile[] {
    const files = this.#members.flatMap(({ state, listener: { name, path, file } }) => (state === 'served' && path !== undefined && file !== undefined ? [{ name, file: path, id: file }] : []))
    return files.filter(({ id }, index) => files.findIndex((other) => other.id === id) === index)
  }

  /** What this slot serves. */
  of(slot: number): OfferedListener[] {
    return this.#members.filter((member) => member.slot === slot && member.state === 'served').map(({ listener }) => listener)
  }

  /**
   * The worker of this slot serves exactly these from now on; the descriptors are owned from here on. What the slot served before is
   * dropped for it, and kept for the others and for an undo until `settle`. Throws EBADF where a descriptor is not open, and holds what it
   * held before.
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
    const now = listeners.map(({ bound: _, ...listener }, index): Member => ({ slot, key: keys[index]!, state: 'served', listener, fd: fds[index]!, socket: sockets[index]! }))
    const gone: number[] = []
    const others = this.#members.flatMap((member) => {
      if (member.slot !== slot) return [member]
      if (keys.includes(member.key) || sockets.includes(member.socket)) {
        gone.push(member.fd)
        return []
      }
      // It may have been accepted on by a worker that did not live to say so.
      return [member.state === 'prepared' && !listens(member.fd) ? member : { ...member, state: 'dropped' as const }]
    })
    this.#members = [...others, ...now]
    for (const fd of gone) closeSync(fd)
  }

  /**
   * All that the next process of this slot should be offered: its own members, new ones of what only other slots serve, and copies of what
   * is shared.
   */
  offerFor(slot: number): Offer {
    return this.#offer(slot, this.#members.filter((member) => member.slot === slot))
  }

  /** What other slots serve and this one has never heard of: what a new version of another slot added. */
  extrasFor(slot: number): Offer {
    return this.#offer(slot, this.#members.filter((member) => member.slot === slot && member.state === 'prepared'))
  }

  /**
   * The members that listen and that no live worker accepts from, because their slot has none (it crashed, or there are fewer workers now)
   * or its new version does without: connects still come in, and are answered when the workers of `by` accept from copies. Without those
   * they wait.
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
   * When a reload is over and cannot be undone: closes all members of the listeners that none of these slots serves (give the slots of all
   * workers that there should be, dead or not), so that connects are refused. Answers their names.
   */
  settle(slots: readonly number[]): string[] {
    const served = new Set(this.#members.filter(({ slot, state }) => state === 'served' && slots.includes(slot)).map(({ key }) => key))
    const gone = this.#members.filter(({ key }) => !served.has(key))
    this.#members = this.#members.filter(({ key }) => served.has(key))
    for (const { fd } of gone) closeSync(fd)
    return [...new Set(gone.map(({ listener }) => listener.name))]
  }

  /**
   * Closes what no slot serves any more and the system had chosen the port of: a listener that comes and goes comes again elsewhere. Not
   * while a reload may be undone.
   */
  closePassed(): void {
    const served = new Set(this.#members.filter(({ state }) => state === 'served').map(({ key }) => key))
    const passed = this.#members.filter(({ key, listener }) => !served.has(key) && listener.asked.endsWith(':0'))
    this.#members = this.#members.filter((member) => !passed.includes(member))
    for (const { fd } of passed) closeSync(fd)
  }

  /** For the next keeper: what `restore` takes. The descriptors stay with this one. */
  all(): { members: SavedMember[]; fds: number[] } {
    return {
      members: this.#members.map(({ slot, key, state, listener }) => ({ slot, key, state, listener })),
      fds: this.#members.map(({ fd }) => fd)
    }
  }

  /** Those on which connects can come in. The descriptors stay with Members. */
  listening(): readonly { readonly slot: number; readonly key: string; readonly listener: OfferedListener; readonly fd: number }[] {
    return this.#members.filter(({ fd }) => listens(fd))
  }

  /** Whether the worker of this slot accepts on this listener. */
  serves(slot: number, key: string): boolean {
    return this.#members.some((member) => member.slot === slot && member.key === key && member.state === 'served')
  }

  /** Closes every descriptor: nobody holds the ports then but the workers. */
  close(): void {
    for (const { fd } of this.#members) closeSync(fd)
    this.#members = []
  }

  #offer(slot: number, own: readonly Member[]): Offer {
    const offer = { listeners: [] as OfferedListener[], fds: [] as number[], shared: [] as { name: string; reason: string }[] }
    const add = ({ listener, fd }: Member): void => {
      offer.listeners.push(listener.kind === 'tcp' && !listens(fd) ? { ...listener, bound: true } : listener)
      offer.fds.push(fd)
    }
    own.forEach(add)
    const known = new Set(this.#members.filter((member) => member.slot === slot).map(({ key }) => key))
    for (const member of [...this.#members]) {
      if (member.state !== 'served' || known.has(member.key)) continue
      known.add(member.key)
      const made = member.listener.kind === 'tcp' && !this.#shared && !this.#isShared(member.fd) ? this.#join(slot, member) : member
      if ('reason' in made) {
        offer.shared.push(made)
        this.#noteShared(made)
      }
      add('reason' in made ? member : made)
    }
    return offer
  }

  /** A member of the group of `beside`. The group begins with the second member: until then its socket need not have SO_REUSEPORT. */
  #join(slot: number, beside: Member): Member | { name: string; reason: string } {
    const { key, listener } = beside
    const set = addon().setReusePort(beside.fd)
    const fd = set < 0 ? set : addon().bindBeside(beside.fd)
    if (fd < 0) return { name: listener.name, reason: systemError(fd, set < 0 ? 'setsockopt' : 'bind').message }
    const member: Member = { slot, key, state: 'prepared', listener, fd, socket: socketOf(fd) }
    this.#members.push(member)
    return member
  }
}
