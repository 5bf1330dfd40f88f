/**
 * Frames of HTTP/2 (RFC 9113), as far as a session that moves needs them: where a frame ends in what a client sends, and the beginning that
 * a new session is told in the place of the client's own. Pure: reads and writes no socket.
 */

import type http2 from 'node:http2'
import type { MovedSession } from '../protocol/moved-connection.js'

export const frameTypes = {
  data: 0, headers: 1, priority: 2, reset: 3, settings: 4, ping: 6, goaway: 7, windowUpdate: 8, continuation: 9
} as const
/** END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING. */
export const endOrAck = 0x1
const endHeaders = 0x4
export const padded = 0x8
export const headBytes = 9

/** Longer frames than these, and than the server allows, are not waited for: a session ends at their heads. */
const mostWaitedFor = 2 ** 20
export const mostBytesOf = (server: readonly number[]): number => Math.max(mostWaitedFor, valueOf(server, 'maxFrameSize') ?? 0)

/** The window of a connection that begins (section 6.9.2). */
export const firstWindow = 65_535
const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export function frameOf(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(headBytes)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

export const lengthOf = (frame: Buffer): number => frame.readUIntBE(0, 3)
export const typeOf = (frame: Buffer): number => frame[3]!
export const flagsOf = (frame: Buffer): number => frame[4]!
export const streamOf = (frame: Buffer): number => frame.readUInt32BE(5) & 0x7fffffff

export function windowUpdate(bytes: number): Buffer {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(bytes)
  return frameOf(frameTypes.windowUpdate, 0, 0, payload)
}

/** By how much an update of the connection's window raises it; undefined: the frame is something else, or breaks the protocol. */
export function updateOf(frame: Buffer): number | undefined {
  if (typeOf(frame) !== frameTypes.windowUpdate || streamOf(frame) !== 0 || lengthOf(frame) !== 4) return undefined
  const bytes = frame.readUInt32BE(headBytes) & 0x7fffffff
  return bytes === 0 ? undefined : bytes
}

function settingsFrame(pairs: readonly number[]): Buffer {
  const payload = Buffer.alloc(pairs.length * 3)
  for (let index = 0; index < pairs.length; index += 2) {
    payload.writeUInt16BE(pairs[index]!, index * 3)
    payload.writeUInt32BE(pairs[index + 1]!, index * 3 + 2)
  }
  return frameOf(frameTypes.settings, 0, 0, payload)
}

const identifiers = {
  headerTableSize: 1, enablePush: 2, maxConcurrentStreams: 3, initialWindowSize: 4, maxFrameSize: 5, maxHeaderListSize: 6,
  enableConnectProtocol: 8
} as const
type SettingName = keyof typeof identifiers

/** The settings of one side as they travel; those that Node knows by number alone, too. */
export function pairsOf(settings: http2.Settings & { readonly customSettings?: Readonly<Record<string, number>> }): number[] {
  const known = (Object.keys(identifiers) as SettingName[]).flatMap((name) => {
    const value = settings[name]
    return value === undefined ? [] : [identifiers[name], Number(value)]
  })
  return [...known, ...Object.entries(settings.customSettings ?? {}).flatMap(([id, value]) => [Number(id), value])]
}

const valueOf = (pairs: readonly number[], name: SettingName): number | undefined => {
  for (let index = 0; index < pairs.length; index += 2) if (pairs[index] === identifiers[name]) return pairs[index + 1]
  return undefined
}

const defaults = {
  maxConcurrentStreams: 2 ** 32 - 1, initialWindowSize: firstWindow, maxFrameSize: 16_384, maxHeaderListSize: 2 ** 32 - 1
} as const
export const firstTableBytes = 4_096
/** A dynamic table size update to 0 (RFC 7541, section 6.3). */
const noTable = Buffer.from([0x20])
const serverNames = Object.keys(defaults) as (keyof typeof defaults)[]

/**
 * What a server's client believes: a new session takes it over before it says anything of its own. Not so the table of headers: the
 * client does without one for now, but a session that asks for that insists on hearing it, and the predecessor may have heard it.
 */
export function settingsOf(pairs: readonly number[]): http2.Settings {
  const settings: http2.Settings = {}
  for (const name of serverNames) settings[name] = valueOf(pairs, name) ?? defaults[name]
  // Once said, it cannot be taken back (RFC 8441, section 3).
  if (valueOf(pairs, 'enableConnectProtocol') === 1) settings.enableConnectProtocol = true
  return settings
}

/** What a server tells a client that knows the settings in `pairs`: its own, as far as they differ, and the size of the table anew. */
export function changesFrom(pairs: readonly number[], own: http2.Settings): http2.Settings {
  const known = settingsOf(pairs)
  const changes: http2.Settings = { headerTableSize: own.headerTableSize ?? firstTableBytes }
  for (const name of serverNames) {
    const wanted = own[name] ?? defaults[name]
    if (wanted !== known[name]) changes[name] = wanted
  }
  if (own.enableConnectProtocol === true && known.enableConnectProtocol !== true) changes.enableConnectProtocol = true
  return changes
}

/** A GOAWAY that names no last stream, without an error. */
export const goesAway = frameOf(frameTypes.goaway, 0, 0, Buffer.from('7fffffff00000000', 'hex'))

/** A head without headers, that says that the table has become empty. */
export const emptyTable = (stream: number): Buffer => frameOf(frameTypes.headers, endOrAck | endHeaders, stream, noTable)

/**
 * What a new session of a server reads before the client's own bytes. The table of 0 bytes and then of its real size makes the new
 * session's first headers begin by emptying the client's table. The request without headers is refused, and no program sees it: from then
 * on streams up to `lastStream` are closed ones, of which late frames may come; and the new session knows that the client has no table of
 * its own, which the client may have said to the predecessor and not say again. Two acknowledgements: of the settings that a session
 * begins with, and of those that the client knows from before.
 */
export function beginningOf({ client, lastStream, sendWindow, tableStays = false }: MovedSession): Buffer {
  const others: number[] = []
  for (let index = 0; index < client.length; index += 2) {
    if (client[index] !== identifiers.headerTableSize) others.push(client[index]!, client[index + 1]!)
  }
  return Buffer.concat([
    preface,
    settingsFrame([identifiers.headerTableSize, 0, ...others]),
    settingsFrame([identifiers.headerTableSize, valueOf(client, 'headerTableSize') ?? firstTableBytes]),
    ...(lastStream > 0 ? [tableStays ? frameOf(frameTypes.headers, endOrAck | endHeaders, lastStream) : emptyTable(lastStream)] : []),
    ...(sendWindow > firstWindow ? [windowUpdate(sendWindow - firstWindow)] : []),
    frameOf(frameTypes.settings, endOrAck, 0), frameOf(frameTypes.settings, endOrAck, 0)
  ])
}

const [hasPriority, fixedEntries] = [0x20, 61]

/**
 * Finds clients that look headers up in a table though they have said that it is empty (Go before 1.20, golang/go#29356): nobody can read
 * such a head, and its request must be refused. Where the table is empty and still of its size, the entries that a client adds are there
 * (RFC 7541, section 6). Where it was made empty by a size of 0, they are not until the client says a size again (section 4.2).
 */
export class TableWatch {
  readonly #keepsEntries: boolean
  #added = 0
  #heads = 0
  #isSure = false

  /** `keepsEntries`: the table is empty, and of a size that is not 0. */
  constructor(keepsEntries: boolean) {
    this.#keepsEntries = keepsEntries
  }

  /** The client does as it says, or has looked nothing up for long. */
  get isOver(): boolean {
    return this.#isSure || this.#heads >= 16
  }

  /** `frame`: HEADERS, whole. What a CONTINUATION has is not looked at. */
  isUnreadable(frame: Buffer): boolean {
    if (this.#isSure) return false
    this.#heads++
    const flags = flagsOf(frame)
    let at = headBytes + ((flags & padded) === 0 ? 0 : 1) + ((flags & hasPriority) === 0 ? 0 : 5)
    const end = frame.length - ((flags & padded) === 0 ? 0 : frame[headBytes]!)
    const number = (bits: number): number => {
      const most = 2 ** bits - 1
      let value = (frame[at++] ?? 0) & most
      if (value < most) return value
      for (let factor = 1; at < end; factor *= 128) {
        const byte = frame[at++]!
        value += (byte & 0x7f) * factor
        if (byte < 0x80) break
      }
      return value
    }
    const skip = (length: number): void => { at += length }
    while (at < end) {
      const first = frame[at]!
      const isIndexed = first >= 0x80
      const isAdded = !isIndexed && first >= 0x40
      const index = number(isIndexed ? 7 : isAdded ? 6 : first >= 0x20 ? 5 : 4)
      if (first >= 0x20 && first < 0x40) {
        this.#isSure = true
        return false
      }
      if (index > fixedEntries + this.#added) return true
      if (!isIndexed) for (let strings = index === 0 ? 2 : 1; strings > 0; strings--) skip(number(7))
      if (isAdded && this.#keepsEntries) this.#added++
    }
    return false
  }
}

/** The frames that still pass where the stream `from`, and those behind it, are refused. */
export const passesBefore = (from: number) => (frame: Buffer): boolean => streamOf(frame) < from

/**
 * Cuts bytes into whole frames; what is left waits for its rest. Behind a frame that is longer than may be, all is one. A frame that comes
 * byte by byte is not copied with each of them.
 */
export class FrameSplitter {
  readonly #mostBytes: number
  #buffer: Buffer = Buffer.alloc(0)
  #length = 0

  constructor(mostBytes = Infinity) {
    this.#mostBytes = mostBytes
  }

  get rest(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  takeRest(): Buffer {
    const { rest } = this
    this.#keep(Buffer.alloc(0))
    return rest
  }

  take(bytes: Buffer): Buffer[] {
    const all = this.#length === 0 ? bytes : this.#joined(bytes)
    const frames: Buffer[] = []
    let at = 0
    while (all.length - at >= headBytes) {
      const length = all.readUIntBE(at, 3)
      const end = length > this.#mostBytes ? all.length : at + headBytes + length
      if (end > all.length) break
      frames.push(all.subarray(at, end))
      at = end
    }
    // Copied, since the frames may be a part of it.
    if (at > 0 || this.#length === 0) this.#keep(Buffer.from(all.subarray(at)))
    return frames
  }

  #keep(rest: Buffer): void {
    this.#buffer = rest
    this.#length = rest.length
  }

  /** With room for as many bytes again, where there is no room. */
  #joined(bytes: Buffer): Buffer {
    const length = this.#length + bytes.length
    if (length > this.#buffer.length) this.#buffer = Buffer.concat([this.rest], 2 * length)
    bytes.copy(this.#buffer, this.#length)
    this.#length = length
    return this.rest
  }
}

/**
 * Where frames end in what a client sends, seen from the middle of its session: known from the answer to a ping on, whose bytes cannot be
 * guessed.
 */
export class FrameEnds {
  readonly #answer: Buffer
  /** The last bytes, as many as may be a part: of the answer, and then of the head of a frame. */
  #seen = Buffer.alloc(0)
  #found = false
  /** How many bytes of a frame that has begun are to come. */
  #open = 0
  #inHeaders = false
  /** Looks at the heads that come, once the table is empty. */
  #table: TableWatch | undefined
  #isTableEmpty = false
  #keeps = false

  /** `payload`: of the ping, 8 bytes. */
  constructor(payload: Buffer) {
    this.#answer = frameOf(frameTypes.ping, endOrAck, 0, payload)
  }

  get isFound(): boolean {
    return this.#found
  }

  /** All that has come are whole frames, and whole heads of requests. */
  get isEnd(): boolean {
    return this.#found && this.#open === 0 && this.#seen.length === 0 && !this.#inHeaders && !this.#keeps
  }

  get looksAtHeads(): boolean {
    return this.#table !== undefined
  }

  /** From the next acknowledgement of SETTINGS on the client has no table. */
  emptiesTable(): void {
    this.#table = new TableWatch(false)
    this.#isTableEmpty = false
  }

  /**
   * Where in these bytes the first acknowledgement of SETTINGS ends, and a head begins that nobody can read. From `keptFrom` on they may be
   * the beginning of such a head: they must not be passed on, and come again in front of the next ones.
   */
  add(bytes: Buffer): { readonly ackEnd?: number | undefined; readonly unreadableAt?: number | undefined; readonly keptFrom?: number } {
    let all = Buffer.concat([this.#seen, bytes])
    let ackEnd: number | undefined
    let unreadableAt: number | undefined
    if (!this.#found) {
      const at = all.indexOf(this.#answer)
      if (at < 0) {
        this.#seen = all.subarray(Math.max(0, all.length - this.#answer.length + 1))
        return {}
      }
      this.#found = true
      all = all.subarray(at + this.#answer.length)
    }
    let at = Math.min(this.#open, all.length)
    this.#open -= at
    while (this.#open === 0 && all.length - at >= headBytes) {
      const frame = all.subarray(at)
      const type = typeOf(frame)
      const size = headBytes + lengthOf(frame)
      const table = type === frameTypes.headers && this.#isTableEmpty && size <= mostWaitedFor ? this.#table : undefined
      if (table && size > frame.length) break
      if (type === frameTypes.headers || type === frameTypes.continuation) this.#inHeaders = (flagsOf(frame) & endHeaders) === 0
      this.#open = Math.max(0, size - frame.length)
      if (unreadableAt === undefined && table?.isUnreadable(frame.subarray(0, size)) === true) unreadableAt = bytes.length - frame.length
      if (table?.isOver === true) this.#table = undefined
      at += size - this.#open
      if (type !== frameTypes.settings || (flagsOf(frame) & endOrAck) === 0) continue
      ackEnd ??= bytes.length - (all.length - at)
      this.#isTableEmpty = this.#table !== undefined
    }
    this.#keeps = this.#isTableEmpty && this.#table !== undefined && at < all.length
    this.#seen = all.subarray(this.#keeps ? all.length : at)
    return { ackEnd, unreadableAt, ...(this.#keeps && { keptFrom: bytes.length - (all.length - at) }) }
  }
}
