/**
 * The live channel between neighbouring generations: values that the programs send each other from the switch until the predecessor ends,
 * and those of our own (their names begin with "@").
 *
 * A value travels as text; a long one as a file whose descriptor goes before the word. What is sent when nobody is there, or when the other
 * side takes nothing any more, is not kept.
 */

import { closeSync } from 'node:fs'
import { inspect } from 'node:util'
import type { Channel } from '../protocol/channel.js'
import { HandoverError, textOf } from '../errors.js'
import { takeTextFile, textFile } from '../platform/memory-file.js'
import type { MessageOf, Peer } from '../protocol/handover-messages.js'
import type { Neighbour, PeerChannel, PeerMessageInfo } from './sharing-api.js'
import { decodeState, encodeState } from '../protocol/value-codec.js'

/** Above this a value goes as a file: a line must be short, and its reader must not wait for it. */
const mostTextBytes = 65_536
/** Values that wait for the first listener of their name. */
const mostWaiting = 1_000

type Listener = (value: unknown, info: PeerMessageInfo) => void

interface Link {
  readonly channel: Channel
  readonly peer: Peer
}

export class PeerMessages implements PeerChannel {
  readonly #links = new Map<Neighbour, Link>()
  readonly #listeners = new Map<string, Set<Listener>>()
  readonly #waiting = new Map<string, { readonly value: unknown; readonly info: PeerMessageInfo }[]>()
  /** Names of which messages were lost. */
  readonly #lossy = new Set<string>()
  readonly #complain: (line: string) => void

  constructor(complain: (line: string) => void) {
    this.#complain = complain
  }

  send(name: string, value: unknown, to?: Neighbour): boolean {
    mustBeName(name)
    if (![undefined, 'predecessor', 'successor'].includes(to)) throw new HandoverError('HANDOVER_OPTION', `peer.send("${name}") was given ${inspect(to)} as the neighbour. Nothing was sent. Give 'predecessor' or 'successor'.`)
    return this.say(name, value, to)
  }

  /** As `send`, also for names of our own. */
  say(name: string, value: unknown, to?: Neighbour): boolean {
    const text = encodeState(value, `the message "${name}"`)
    const sent = (to === undefined ? this.neighbours : [to]).map((neighbour) => this.#sayTo(neighbour, name, text))
    return sent.includes(true)
  }

  on(name: string, listener: Listener): () => void {
    mustBeName(name)
    if (typeof listener !== 'function') throw new HandoverError('HANDOVER_OPTION', `peer.on("${name}") was given ${inspect(listener)}. Nothing was changed. Give a function.`)
    return this.hear(name, listener)
  }

  /** As `on`, also for names of our own. */
  hear(name: string, listener: Listener): () => void {
    const listeners = this.#listeners.get(name) ?? new Set<Listener>()
    this.#listeners.set(name, listeners.add(listener))
    const waiting = this.#waiting.get(name) ?? []
    this.#waiting.delete(name)
    for (const { value, info } of waiting) this.#call(listener, name, value, info)
    return () => { listeners.delete(listener) }
  }

  get neighbours(): Neighbour[] {
    return [...this.#links.keys()]
  }

  connect(neighbour: Neighbour, link: Link): void {
    this.#links.set(neighbour, link)
  }

  disconnect(neighbour: Neighbour): void {
    this.#links.delete(neighbour)
  }

  /** A word has come. `fd`: of a file with the text, where it has none; undefined also where that did not arrive. */
  heard(from: Neighbour, { name, text }: MessageOf<'peer'>, fd?: number): void {
    const link = this.#links.get(from)
    if (!link) {
      if (fd !== undefined) closeSync(fd)
      return
    }
    try {
      const value = decodeState(text ?? received(fd), `the message "${name}"`)
      const info = { from, ...link.peer }
      const listeners = this.#listeners.get(name)
      if (listeners && listeners.size > 0) for (const listener of [...listeners]) this.#call(listener, name, value, info)
      else if (!name.startsWith('@')) this.#keep(name, value, info)
    } catch (error) {
      this.#complain(`a message "${name}" of process ${link.peer.pid} is lost: ${(error as Error).message}`)
    }
  }

  #keep(name: string, value: unknown, info: PeerMessageInfo): void {
    const waiting = this.#waiting.get(name) ?? []
    this.#waiting.set(name, waiting)
    if (waiting.push({ value, info }) <= mostWaiting) return
    waiting.shift()
    if (!this.#lossy.has(name)) this.#complain(`more than ${mostWaiting} messages "${name}" wait for peer.on(): the oldest are lost. This is said once.`)
    this.#lossy.add(name)
  }

  #call(listener: Listener, name: string, value: unknown, info: PeerMessageInfo): void {
    try {
      listener(value, info)
    } catch (error) {
      this.#complain(`a listener of peer.on("${name}") threw: ${textOf(error)}`)
    }
  }

  #sayTo(neighbour: Neighbour, name: string, text: string): boolean {
    const channel = this.#links.get(neighbour)?.channel
    if (!channel?.isOpen) return false
    if (text.length <= mostTextBytes) {
      channel.send({ type: 'peer', name, text })
      return true
    }
    let fd: number | undefined
    try {
      fd = textFile(text)
      channel.send({ type: 'peer', name }, [fd])
      return true
    } catch (error) {
      this.#complain(`a message "${name}" to the ${neighbour} is not sent: ${(error as Error).message}`)
      return false
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }
}

function received(fd: number | undefined): string {
  if (fd === undefined) throw new Error('its descriptor did not arrive: raise the limit of open files (ulimit -n)')
  return takeTextFile(fd)
}

function mustBeName(name: unknown): void {
  if (typeof name !== 'string' || name === '' || name.length > 128 || name.startsWith('@')) throw new HandoverError('HANDOVER_OPTION', `a message to a peer was given the name ${inspect(name)}. Nothing was changed. Give 1 to 128 characters, not beginning with "@".`)
}
