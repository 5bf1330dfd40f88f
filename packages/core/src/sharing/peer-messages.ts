/**
 * The live channel between neighbouring generations: values that the programs send each other from the switch until the predecessor ends,
 * and Handover's own messages, whose names begin with "@".
 *
 * A value travels as text; a long one as a file, whose descriptor goes before the message. What is sent without a neighbour, or to one that
 * reads nothing any more, is not kept.
 */

import { closeSync } from 'node:fs'
import { inspect } from 'node:util'
import type { Channel } from '../protocol/channel.js'
import { optionError, textOf } from '../errors.js'
import { takeTextFile, textFile } from '../platform/memory-file.js'
import type { MessageOf, Peer } from '../protocol/handover-messages.js'
import type { Neighbour, PeerChannel, PeerMessageInfo } from './sharing-api.js'
import { decodeState, encodeState } from '../protocol/value-codec.js'

/** Above this a value goes as a file: lines must be short. */
const mostTextBytes = 65_536
/** Values of one name that wait for its first listener. */
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
  /** Names of messages of which some were lost. */
  readonly #lossy = new Set<string>()
  readonly #warn: (line: string) => void

  constructor(warn: (line: string) => void) {
    this.#warn = warn
  }

  send(name: string, value: unknown, to?: Neighbour): boolean {
    mustBeName(name)
    if (![undefined, 'predecessor', 'successor'].includes(to)) throw optionError(`peer.send("${name}") was given ${inspect(to)} as the neighbour`, "Give 'predecessor' or 'successor'", 'Nothing was sent')
    return this.say(name, value, to)
  }

  /** As `send`, also for Handover's own names. */
  say(name: string, value: unknown, to?: Neighbour): boolean {
    const text = encodeState(value, `the message "${name}"`)
    return (to === undefined ? this.neighbours : [to]).map((neighbour) => this.#sayTo(neighbour, name, text)).includes(true)
  }

  on(name: string, listener: Listener): () => void {
    mustBeName(name)
    if (typeof listener !== 'function') throw optionError(`peer.on("${name}") was given ${inspect(listener)}`, 'Give a function')
    return this.hear(name, listener)
  }

  /** As `on`, also for Handover's own names. */
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

  /** A message has come. `fd`: of a file with the text, where the message has none; undefined also where that did not arrive. */
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
      this.#warn(`a message "${name}" of process ${link.peer.pid} is lost: ${(error as Error).message}`)
    }
  }

  #keep(name: string, value: unknown, info: PeerMessageInfo): void {
    const waiting = this.#waiting.get(name) ?? []
    this.#waiting.set(name, waiting)
    if (waiting.push({ value, info }) <= mostWaiting) return
    waiting.shift()
    if (!this.#lossy.has(name)) this.#warn(`more than ${mostWaiting} messages "${name}" wait for peer.on(): the oldest are lost. This is said once.`)
    this.#lossy.add(name)
  }

  #call(listener: Listener, name: string, value: unknown, info: PeerMessageInfo): void {
    try {
      listener(value, info)
    } catch (error) {
      this.#warn(`a listener of peer.on("${name}") threw: ${textOf(error)}`)
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
      this.#warn(`a message "${name}" to the ${neighbour} is not sent: ${(error as Error).message}`)
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
  if (typeof name !== 'string' || name === '' || name.length > 128 || name.startsWith('@')) throw optionError(`a message to a peer was given the name ${inspect(name)}`, 'Give 1 to 128 characters, not beginning with "@"')
}
