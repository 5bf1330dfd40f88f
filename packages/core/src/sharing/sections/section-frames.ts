/**
 * Frames in a file: the bytes of section-file.ts. It knows lengths, positions and batches, and nothing of what a frame means.
 *
 * The file begins with 16 bytes: "handover", the number of the format (4 bytes, little endian) and 4 that are zero. A frame is 1 byte for
 * its kind, 1 that is zero, 6 for the length of its content, little endian, and the content. The last frame holds the size of the whole
 * file in 8 bytes, little endian: a file that was cut anywhere is known as such before anything of it is used.
 *
 * The file is in memory, so that it is read and written on this thread, a batch of 1 MiB at a time; between the batches of one long frame
 * the event loop gets its turn. Each call names its position: a descriptor that is shared is not moved.
 */

import { fstatSync, readSync, writeSync } from 'node:fs'
import { HandoverError, withoutStop } from '../../errors.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { closeLater, smallBytes } from '../../platform/memory-file.js'
import type { Abortable } from './abortable.js'

export const format = 1

export const frameKinds = { header: 1, text: 2, buffer: 3, bytes: 4, end: 5, plain: 6 } as const
export type FrameKind = (typeof frameKinds)[keyof typeof frameKinds]

const magic = Buffer.from('handover')
const startBytes = 16
const headBytes = 8
const endBytes = headBytes + 8
const batchBytes = 1_048_576

const failed = (what: string, cause: unknown, todo: string): HandoverError =>
  new HandoverError('HANDOVER_STATE', { what: `${what}: ${withoutStop((cause as Error).message)}`, serving: 'Nothing was changed', todo }, { cause })

export interface FrameOptions {
  readonly signal: Abortable
  /** Called with the bytes that are in the file, or were read, so far. */
  progress?(bytes: number): void
}

const isFirstHalf = (code: number): boolean => code >= 0xd800 && code <= 0xdbff

/** At most a batch each. A character is at most three bytes for each half of it that a string has. */
function* piecesOf(content: string | Uint8Array): Generator<Uint8Array> {
  const most = typeof content === 'string' ? Math.floor(batchBytes / 3) : batchBytes
  for (let at = 0, end: number; at < content.length; at = end) {
    end = Math.min(content.length, at + most)
    if (typeof content !== 'string') yield content.subarray(at, end)
    else {
      if (end < content.length && isFirstHalf(content.charCodeAt(end - 1))) end--
      yield Buffer.from(content.slice(at, end))
    }
  }
}

/** Writes frames into an empty file, which stays the caller's, and is opened when it is needed. */
export class FrameWriter {
  readonly #open: () => number
  readonly #of: string
  readonly #maxBytes: number
  readonly #options: FrameOptions
  /** Grows to batchBytes when this is full. */
  #batch: Buffer = Buffer.allocUnsafeSlow(smallBytes)
  #used = startBytes
  /** Where the batch begins in the file. */
  #position = 0

  /** `of` names the section in messages. */
  constructor(open: () => number, of: string, maxBytes: number, options: FrameOptions) {
    this.#open = open
    this.#of = of
    this.#maxBytes = maxBytes
    this.#options = options
    magic.copy(this.#batch)
    this.#batch.writeUInt32LE(format, 8)
    this.#batch.writeUInt32LE(0, 12)
  }

  get bytes(): number {
    return this.#position + this.#used
  }

  /** Undefined when it is done at once. Throws HANDOVER_STATE above the limit. */
  write(kind: FrameKind, content: string | Uint8Array): Promise<void> | undefined {
    const length = typeof content === 'string' ? Buffer.byteLength(content) : content.byteLength
    const size = this.bytes + headBytes + length + (kind === frameKinds.end ? 0 : endBytes)
    if (size > this.#maxBytes) {
      const what = `the state of ${this.#of} is too large: it needs ${size} bytes or more, expected at most ${this.#maxBytes}`
      throw new HandoverError('HANDOVER_STATE', { what, serving: 'Nothing was changed', todo: 'Save less, or raise maxBytes of the section in the version that runs' })
    }
    if (headBytes + length > this.#batch.length - this.#used) this.#makeRoom(headBytes + length)
    this.#head(kind, length)
    if (length > this.#batch.length - this.#used) return this.#writeLong(content, kind === frameKinds.buffer || kind === frameKinds.bytes)
    if (typeof content === 'string') this.#batch.write(content, this.#used)
    else this.#batch.set(content, this.#used)
    this.#used += length
    return undefined
  }

  /** Writes the last frame, and all that is not in the file yet. */
  finish(): void {
    const size = Buffer.alloc(endBytes - headBytes)
    size.writeBigUInt64LE(BigInt(this.bytes + endBytes))
    void this.write(frameKinds.end, size)
    this.#flush()
  }

  #makeRoom(bytes: number): void {
    if (this.#batch.length < batchBytes) {
      const small = this.#batch
      this.#batch = Buffer.allocUnsafeSlow(batchBytes)
      small.copy(this.#batch, 0, 0, this.#used)
    }
    if (bytes > batchBytes - this.#used) this.#flush()
  }

  #head(kind: FrameKind, length: number): void {
    this.#batch[this.#used] = kind
    this.#batch[this.#used + 1] = 0
    this.#batch.writeUIntLE(length, this.#used + 2, 6)
    this.#used += headBytes
  }

  /** `live`: of the program, which may change it in the next turn of the loop: half of a change would be saved. */
  async #writeLong(content: string | Uint8Array, live: boolean): Promise<void> {
    const budget = new LoopBudget()
    this.#flush()
    for (const piece of piecesOf(content)) {
      this.#write(piece)
      if (!live) await budget.nextTurn()
    }
  }

  #flush(): void {
    this.#write(this.#batch.subarray(0, this.#used))
    this.#used = 0
  }

  #write(bytes: Uint8Array): void {
    try {
      for (let at = 0; at < bytes.length;) {
        const written = writeSync(this.#open(), bytes, at, bytes.length - at, this.#position + at)
        if (written === 0) throw new Error('nothing more can be written to the file')
        at += written
      }
    } catch (cause) {
      throw failed(`the state of ${this.#of} could not be written at byte ${this.#position}`, cause, 'Give the machine or the container more memory, or save less')
    }
    this.#position += bytes.length
    this.#options.progress?.(this.#position)
    this.#options.signal.throwIfAborted()
  }
}

export interface Frame {
  readonly kind: number
  /** Where it is not `own`, it is memory that the next frame overwrites. */
  readonly content: Buffer
  readonly own: boolean
}

const lookForWriter = 'Look for what wrote it: a process that died meanwhile, or another program'
const unusable = (of: string, what: string, todo = lookForWriter, serving = 'It was not restored'): HandoverError =>
  new HandoverError('HANDOVER_STATE', { what: `the file of ${of} ${what}`, serving, todo })

/** Reads frames; it owns the descriptor. One call at a time. */
export class FrameReader {
  readonly #fd: number
  readonly #size: number
  readonly #options: FrameOptions
  /** Names the section in messages; set it when it is known. */
  of = 'a section of the state'
  /** Of the next frame, in the file. */
  #position = startBytes
  /** What was read last, always in the same memory, and where it begins in the file. */
  #chunk: Buffer = Buffer.alloc(0)
  #chunkAt = startBytes
  #memory: Buffer | undefined
  #closing: Promise<void> | undefined
  readonly #onAbort = (): void => { void this.close() }

  private constructor(fd: number, size: number, options: FrameOptions) {
    this.#fd = fd
    this.#size = size
    this.#options = options
    options.signal.addEventListener('abort', this.#onAbort)
  }

  /** Owns a descriptor from now on. Throws HANDOVER_STATE where it is no file of ours, of another format, or not whole; signal.reason. */
  static async open(fd: number, options: FrameOptions): Promise<FrameReader> {
    let about
    try {
      options.signal.throwIfAborted()
      about = fstatSync(fd)
    } catch (error) {
      await closeLater(fd)
      if (options.signal.aborted) throw error
      throw failed(`descriptor ${fd} holds no section of the state`, error, 'Nothing was restored from it')
    }
    const reader = new FrameReader(fd, about.isFile() ? about.size : -1, options)
    try {
      reader.#checkEnds()
      return reader
    } catch (error) {
      await reader.close()
      throw error
    }
  }

  get atEnd(): boolean {
    return this.#position === this.#size
  }

  async next(): Promise<Frame> {
    this.#check()
    if (this.#size - this.#position < headBytes) throw unusable(this.of, `ends at byte ${this.#size} in the middle of a frame`)
    const head = this.#view(headBytes)
    const kind = head[0]!
    const length = head.readUIntLE(2, 6)
    const left = this.#size - this.#position
    if (head[1] !== 0 || length > left) throw unusable(this.of, `is damaged: at byte ${this.#position - headBytes} a frame says that ${length} bytes follow, and ${left} are left`)
    return length > batchBytes ? { kind, content: await this.#long(length), own: true } : { kind, content: this.#view(length), own: false }
  }

  /** Closes the file. Calls of next() throw from now on. */
  close(): Promise<void> {
    this.#options.signal.removeEventListener('abort', this.#onAbort)
    return (this.#closing ??= closeLater(this.#fd, this.#size))
  }

  #check(): void {
    this.#options.signal.throwIfAborted()
    if (this.#closing) throw unusable(this.of, 'was closed before it was read', 'Read it before the call that it was given to is over, and once', '')
  }

  #checkEnds(): void {
    const size = this.#size
    if (size < 0) throw unusable(this.of, 'is no file, but a socket, a directory or a device')
    if (size < startBytes + endBytes) throw unusable(this.of, `is cut short: it has ${size} bytes, expected at least ${startBytes + endBytes}`)
    const start = this.#read(Buffer.alloc(startBytes), 0)
    if (!start.subarray(0, magic.length).equals(magic)) throw unusable(this.of, `does not begin as one: found ${start.subarray(0, magic.length).toString('hex')}, expected ${magic.toString('hex')}`)
    const found = start.readUInt32LE(8)
    if (found !== format) {
      throw unusable(this.of, `has the format ${found}, expected ${format}`, 'Go through a version of Handover that knows both')
    }
    const end = this.#read(Buffer.alloc(endBytes), size - endBytes)
    const whole = end.readBigUInt64LE(headBytes)
    if (end[0] !== frameKinds.end || end[1] !== 0 || end.readUIntLE(2, 6) !== endBytes - headBytes || whole !== BigInt(size)) {
      throw unusable(this.of, `is cut short, or damaged: its ${size} bytes do not end as its writer ends a file`)
    }
  }

  /** The next bytes, at most a batch of them, in memory that the next call may overwrite. */
  #view(length: number): Buffer {
    if (this.#position + length > this.#chunkAt + this.#chunk.length) {
      this.#memory ??= Buffer.allocUnsafeSlow(Math.min(batchBytes, this.#size - this.#position))
      this.#chunkAt = this.#position
      this.#chunk = this.#read(this.#memory.subarray(0, this.#size - this.#position), this.#position)
      this.#options.progress?.(this.#position + this.#chunk.length)
    }
    const from = this.#position - this.#chunkAt
    this.#position += length
    return this.#chunk.subarray(from, from + length)
  }

  /** The next bytes, more than a batch, in memory of their own. */
  async #long(length: number): Promise<Buffer> {
    const content = Buffer.allocUnsafeSlow(length)
    const budget = new LoopBudget()
    for (let at = 0; at < length; at += batchBytes) {
      this.#position += this.#read(content.subarray(at, at + batchBytes), this.#position).length
      this.#options.progress?.(this.#position)
      await budget.nextTurn()
      this.#check()
    }
    return content
  }

  /** Fills the whole of `into`. */
  #read(into: Buffer, position: number): Buffer {
    try {
      for (let at = 0; at < into.length;) {
        const bytes = readSync(this.#fd, into, at, into.length - at, position + at)
        if (bytes === 0) throw unusable(this.of, `became shorter while it was read: nothing is at byte ${position + at} of ${this.#size}`)
        at += bytes
      }
      return into
    } catch (cause) {
      if (cause instanceof HandoverError) throw cause
      throw failed(`the file of ${this.of} cannot be read at byte ${position}`, cause, 'It was not restored')
    }
  }
}
