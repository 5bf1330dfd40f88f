/**
 * Frames in a file: the bytes of section-file.ts. It knows lengths, positions and batches, and nothing of what a frame means.
 *
 * The file begins with 16 bytes: "handover", the number of the format (4 bytes, little endian) and 4 that are zero. A frame is 1 byte for
 * its kind, 1 that is zero, 6 for the length of its content, little endian, and the content. The last frame holds the size of the whole
 * file in 8 bytes, little endian: a file that was cut anywhere is known as such before anything of it is used. Reads and writes are
 * asynchronous, of about 1 MiB, one ahead of the program, unless the file is small; they name their position, so a descriptor that is
 * shared is not moved.
 */

import { fstatSync, read, readSync, write, writeSync } from 'node:fs'
import { promisify } from 'node:util'
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
/** Content above a batch goes between its own memory and the file without a copy, in pieces; after each the signal is checked. */
const pieceBytes = 8 * batchBytes

const writeAt = promisify(write)
const readAt = promisify(read)

const failed = (what: string, cause: unknown, todo: string): HandoverError =>
  new HandoverError('HANDOVER_STATE', { what: `${what}: ${withoutStop((cause as Error).message)}`, serving: 'Nothing was changed', todo }, { cause })

export interface FrameOptions {
  readonly signal: Abortable
  /** Called with the bytes that are in the file, or were read, so far. */
  progress?(bytes: number): void
}

/** A batch that nobody uses, for the next small file. */
let spareBatch: Buffer | undefined

/** Writes frames into an empty file, which stays the caller's, and is opened when it is needed. */
export class FrameWriter {
  readonly #open: () => number
  readonly #of: string
  readonly #maxBytes: number
  readonly #options: FrameOptions
  /** Grows to batchBytes when this is full. */
  #batch: Buffer = spareBatch ?? Buffer.allocUnsafeSlow(smallBytes)
  #spare: Buffer | undefined
  #used = startBytes
  /** Where the batch begins in the file. */
  #position = 0
  #writing: Promise<void> | undefined

  /** `of` names the section in messages. */
  constructor(open: () => number, of: string, maxBytes: number, options: FrameOptions) {
    this.#open = open
    this.#of = of
    this.#maxBytes = maxBytes
    this.#options = options
    spareBatch = undefined
    magic.copy(this.#batch)
    this.#batch.writeUInt32LE(format, 8)
    this.#batch.writeUInt32LE(0, 12)
  }

  get bytes(): number {
    return this.#position + this.#used
  }

  /** Undefined when it is done at once. Do not change `content` before it is done. Throws HANDOVER_STATE above the limit. */
  write(kind: FrameKind, content: string | Uint8Array): Promise<void> | undefined {
    const length = typeof content === 'string' ? Buffer.byteLength(content) : content.byteLength
    const size = this.bytes + headBytes + length + (kind === frameKinds.end ? 0 : endBytes)
    if (size > this.#maxBytes) {
      const what = `the state of ${this.#of} is too large: it needs ${size} bytes or more, expected at most ${this.#maxBytes}`
      throw new HandoverError('HANDOVER_STATE', { what, serving: 'Nothing was changed', todo: 'Save less, or raise maxBytes of the section in the version that runs' })
    }
    if (headBytes + length > this.#batch.length - this.#used) {
      if (this.#batch.length < batchBytes) this.#grow()
      if (headBytes + length > batchBytes - this.#used) return this.#writeLong(kind, content, length)
    }
    this.#head(kind, length)
    this.#copy(content)
    return undefined
  }

  /** Writes the last frame and waits until all is in the file. */
  async finish(): Promise<void> {
    const size = Buffer.alloc(endBytes - headBytes)
    size.writeBigUInt64LE(BigInt(this.bytes + endBytes))
    await this.write(frameKinds.end, size)
    if (this.bytes <= smallBytes) {
      this.#finishSmall()
      return
    }
    await this.#flush()
    await this.#written()
  }

  /** Waits until nothing is being written any more, however it went: then the file may be closed. */
  async settled(): Promise<void> {
    await this.#writing?.catch(() => undefined)
  }

  #grow(): void {
    const small = this.#batch
    this.#batch = Buffer.allocUnsafeSlow(batchBytes)
    small.copy(this.#batch, 0, 0, this.#used)
  }

  #head(kind: FrameKind, length: number): void {
    this.#batch[this.#used] = kind
    this.#batch[this.#used + 1] = 0
    this.#batch.writeUIntLE(length, this.#used + 2, 6)
    this.#used += headBytes
  }

  #copy(content: string | Uint8Array): void {
    if (typeof content === 'string') {
      this.#used += this.#batch.write(content, this.#used)
    } else {
      this.#batch.set(content, this.#used)
      this.#used += content.byteLength
    }
  }

  async #writeLong(kind: FrameKind, content: string | Uint8Array, length: number): Promise<void> {
    if (headBytes + length <= batchBytes || this.#used + headBytes > batchBytes) await this.#flush()
    this.#head(kind, length)
    if (headBytes + length <= batchBytes) {
      this.#copy(content)
    } else if (typeof content === 'string') {
      const budget = new LoopBudget()
      for (let at = 0; at < content.length;) {
        // A character is at most three bytes for each half of it that a string has.
        let end = Math.min(content.length, at + Math.floor((batchBytes - this.#used) / 3))
        if (end < content.length && isFirstHalf(content.charCodeAt(end - 1))) end--
        if (end > at) this.#copy(content.slice(at, end))
        else await this.#flush()
        at = Math.max(at, end)
        await budget.nextTurn()
      }
    } else {
      await this.#flush()
      await this.#written()
      for (let at = 0; at < length; at += pieceBytes) {
        const piece = content.subarray(at, at + pieceBytes)
        this.#writing = this.#writeAll(piece, this.#position)
        this.#position += piece.length
        await this.#written()
      }
    }
  }

  /** Begins to write the batch, when the one before is written. */
  async #flush(): Promise<void> {
    await this.#written()
    const full = this.#batch
    this.#writing = this.#writeAll(full.subarray(0, this.#used), this.#position)
    this.#writing.catch(() => undefined) // Its error reaches the next call that awaits it.
    this.#position += this.#used
    this.#used = 0
    this.#batch = this.#spare ?? Buffer.allocUnsafeSlow(batchBytes)
    this.#spare = full
  }

  /** The whole file. */
  #finishSmall(): void {
    const whole = this.#batch.subarray(0, this.#used)
    try {
      const written = writeSync(this.#open(), whole, 0, whole.length, 0)
      if (written < whole.length) throw new Error(`only ${written} bytes of ${whole.length} can be written to the file`)
    } catch (cause) {
      throw this.#unwritten(0, cause)
    }
    this.#options.progress?.(whole.length)
    spareBatch = this.#batch
  }

  async #written(): Promise<void> {
    if (!this.#writing) return
    await this.#writing
    this.#options.signal.throwIfAborted()
    this.#options.progress?.(this.#position)
  }

  async #writeAll(bytes: Uint8Array, position: number): Promise<void> {
    try {
      for (let at = 0; at < bytes.length;) {
        const { bytesWritten } = await writeAt(this.#open(), bytes, at, bytes.length - at, position + at)
        if (bytesWritten === 0) throw new Error('nothing more can be written to the file')
        at += bytesWritten
      }
    } catch (cause) {
      throw this.#unwritten(position, cause)
    }
  }

  #unwritten(position: number, cause: unknown): HandoverError {
    return failed(`the state of ${this.#of} could not be written at byte ${position}`, cause, 'Give the machine or the container more memory, or save less')
  }
}

const isFirstHalf = (code: number): boolean => code >= 0xd800 && code <= 0xdbff
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
  /** What was read and not yet given away: from #at in #chunk. */
  #chunk: Buffer = Buffer.alloc(0)
  #at = 0
  #spare: Buffer | undefined
  /** Where the next read begins in the file. */
  #position = startBytes
  #ahead: Promise<Buffer> | undefined
  #inFlight: Promise<unknown> | undefined
  #whole: Buffer | undefined
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
      await reader.#checkEnds()
      return reader
    } catch (error) {
      await reader.close()
      throw error
    }
  }

  get #consumed(): number {
    return this.#position - (this.#chunk.length - this.#at)
  }

  get atEnd(): boolean {
    return this.#consumed === this.#size
  }

  async next(): Promise<Frame> {
    this.#check()
    if (this.#size - this.#consumed < headBytes) throw unusable(this.of, `ends at byte ${this.#size} in the middle of a frame`)
    const head = this.#view(headBytes) ?? await this.#fill(Buffer.alloc(headBytes))
    const kind = head[0]!
    const length = head.readUIntLE(2, 6)
    const left = this.#size - this.#consumed
    if (head[1] !== 0 || length > left) throw unusable(this.of, `is damaged: at byte ${this.#consumed - headBytes} a frame says that ${length} bytes follow, and ${left} are left`)
    const view = this.#view(length)
    return view ? { kind, content: view, own: false } : { kind, content: await this.#fill(Buffer.allocUnsafeSlow(length)), own: true }
  }

  /** Closes the file, when nothing reads from it any more. Calls of next() throw from now on. */
  close(): Promise<void> {
    this.#options.signal.removeEventListener('abort', this.#onAbort)
    const over = (): Promise<void> => closeLater(this.#fd, this.#size)
    return (this.#closing ??= this.#inFlight ? this.#inFlight.then(over, over) : over())
  }

  #check(): void {
    this.#options.signal.throwIfAborted()
    if (this.#closing) throw unusable(this.of, 'was closed before it was read', 'Read it before the call that it was given to is over, and once', '')
  }

  async #checkEnds(): Promise<void> {
    const size = this.#size
    if (size < 0) throw unusable(this.of, 'is no file, but a socket, a directory or a device')
    if (size < startBytes + endBytes) throw unusable(this.of, `is cut short: it has ${size} bytes, expected at least ${startBytes + endBytes}`)
    const start = Buffer.alloc(startBytes)
    await this.#read(start, 0, startBytes, 0)
    if (!start.subarray(0, magic.length).equals(magic)) throw unusable(this.of, `does not begin as one: found ${start.subarray(0, magic.length).toString('hex')}, expected ${magic.toString('hex')}`)
    const found = start.readUInt32LE(8)
    if (found !== format) {
      throw unusable(this.of, `has the format ${found}, expected ${format}`, 'Go through a version of Handover that knows both')
    }
    const end = Buffer.alloc(endBytes)
    await this.#read(end, 0, endBytes, size - endBytes)
    const whole = end.readBigUInt64LE(headBytes)
    if (end[0] !== frameKinds.end || end[1] !== 0 || end.readUIntLE(2, 6) !== endBytes - headBytes || whole !== BigInt(size)) {
      throw unusable(this.of, `is cut short, or damaged: its ${size} bytes do not end as its writer ends a file`)
    }
  }

  /** The next bytes, where the chunk has them all. */
  #view(length: number): Buffer | undefined {
    if (this.#chunk.length - this.#at < length) return undefined
    this.#at += length
    return this.#chunk.subarray(this.#at - length, this.#at)
  }

  async #fill(target: Buffer): Promise<Buffer> {
    for (let at = 0; ;) {
      const copied = this.#chunk.copy(target, at, this.#at, this.#at + target.length - at)
      this.#at += copied
      at += copied
      const left = target.length - at
      if (left === 0) return target
      if (left >= batchBytes && !this.#ahead) {
        const bytes = await this.#read(target, at, Math.min(left, pieceBytes), this.#position)
        at += bytes
        this.#position += bytes
        this.#options.progress?.(this.#position)
      } else {
        await this.#nextChunk(left < batchBytes)
      }
    }
  }

  /** `goesOn`: what comes after it is asked for at once, to be there when the program has done its part. */
  async #nextChunk(goesOn: boolean): Promise<void> {
    const chunk = await (this.#ahead ?? this.#readChunk())
    this.#ahead = undefined
    this.#check()
    this.#spare = this.#chunk.length > 0 ? Buffer.from(this.#chunk.buffer) : undefined
    this.#chunk = chunk
    this.#at = 0
    this.#position += chunk.length
    this.#options.progress?.(this.#position)
    if (!goesOn || this.#position === this.#size) return
    this.#ahead = this.#readChunk()
    this.#ahead.catch(() => undefined) // Its error reaches the next call that awaits it.
  }

  async #readChunk(): Promise<Buffer> {
    const left = this.#size - this.#position
    const into = this.#spare ?? Buffer.allocUnsafeSlow(Math.min(batchBytes, left))
    return into.subarray(0, await this.#read(into, 0, Math.min(into.length, left), this.#position))
  }

  async #read(into: Buffer, offset: number, length: number, position: number): Promise<number> {
    try {
      const bytesRead = this.#size <= smallBytes ? this.#wholeFile().copy(into, offset, position, position + length)
        : await this.#readLater(into, offset, length, position)
      if (bytesRead === 0) throw unusable(this.of, `became shorter while it was read: nothing is at byte ${position} of ${this.#size}`)
      this.#options.signal.throwIfAborted()
      return bytesRead
    } catch (cause) {
      if (cause instanceof HandoverError || this.#options.signal.aborted) throw cause
      throw failed(`the file of ${this.of} cannot be read at byte ${position}`, cause, 'It was not restored')
    }
  }

  /** Of a small file. */
  #wholeFile(): Buffer {
    if (!this.#whole) {
      const bytes = Buffer.allocUnsafe(this.#size)
      this.#whole = bytes.subarray(0, readSync(this.#fd, bytes, 0, bytes.length, 0))
    }
    return this.#whole
  }

  async #readLater(into: Buffer, offset: number, length: number, position: number): Promise<number> {
    const reading = readAt(this.#fd, into, offset, length, position)
    this.#inFlight = reading
    return (await reading.finally(() => { this.#inFlight = undefined })).bytesRead
  }
}
