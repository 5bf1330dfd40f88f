/**
 * Counts the messages of a WebSocket on the raw bytes of its client (RFC 6455, section 5.2), and knows whether these end between two of
 * them. Pure. It keeps no payload, and leaves all checks to ws.
 */

const continuation = 0x0
const binary = 0x2
const close = 0x8
const ping = 0x9
const pong = 0xa
/** Two bytes, eight of the length, four of the mask. */
const mostHeadBytes = 14

export class FrameCounter {
  /** Complete messages of text or binary, pings and pongs. */
  messages = 0
  pings = 0
  pongs = 0
  /** A close frame has come: only the end of the connection follows. */
  closed = false
  /** The first fragment of a message has come, and not the last one. */
  #fragmented = false
  readonly #head = Buffer.alloc(mostHeadBytes)
  #headBytes = 0
  /** Bytes of the payload that are still to come. */
  #left = 0

  /** Only whole messages have come. */
  get isBetween(): boolean {
    return this.#headBytes === 0 && this.#left === 0 && !this.#fragmented
  }

  add(chunk: Uint8Array): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#left > 0) {
        const skipped = Math.min(this.#left, chunk.length - at)
        this.#left -= skipped
        at += skipped
        if (this.#left === 0) this.#end()
        continue
      }
      this.#head[this.#headBytes++] = chunk[at++]!
      const length = this.#length()
      if (length === undefined) continue
      this.#left = length
      if (length === 0) this.#end()
      else this.#headBytes = 0
    }
  }

  /** How long the payload is, once the whole head is there. */
  #length(): number | undefined {
    const head = this.#head
    if (this.#headBytes < 2) return undefined
    const short = head[1]! & 0x7f
    const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0
    if (this.#headBytes < 2 + lengthBytes + ((head[1]! & 0x80) === 0 ? 0 : 4)) return undefined
    if (lengthBytes === 0) return short
    return lengthBytes === 2 ? head.readUInt16BE(2) : Number(head.readBigUInt64BE(2))
  }

  #end(): void {
    this.#headBytes = 0
    const first = this.#head[0]!
    const opcode = first & 0x0f
    if (opcode === ping) this.pings++
    else if (opcode === pong) this.pongs++
    else if (opcode === close) this.closed = true
    else if (opcode >= continuation && opcode <= binary) {
      this.#fragmented = (first & 0x80) === 0
      if (!this.#fragmented) this.messages++
    }
  }
}
