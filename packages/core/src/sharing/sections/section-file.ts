/**
 * One saved section of shared state as a file: a header that says what it is, and one value or a stream of items. section-frames.ts has the
 * bytes, value-codec.ts the text of values. It does not know who gets the file, nor when.
 *
 * A stream (an async iterable, or a sync iterator such as a generator) is written while it is produced and read while it is consumed.
 * Neither side holds more of it than two batches and the current item, the slower one sets the pace, and the event loop gets its turn. One
 * value is encoded in one go, so what is very large belongs into a stream. Bytes are stored as they are (without the memory around a
 * view), plain data as V8 writes it where the reader is known to read that, all else as text.
 */

import { Readable } from 'node:stream'
import { HandoverError } from '../../errors.js'
import { AbortableWait, type Abortable } from './abortable.js'
import { LoopBudget } from '../../platform/loop-budget.js'
import { closeLater, openMemoryFile, sealMemoryFile } from '../../platform/memory-file.js'
import { format, type Frame, type FrameKind, type FrameOptions, frameKinds, FrameReader, FrameWriter } from './section-frames.js'
import { sectionPhase, type SectionPhase } from '../../protocol/handover-messages.js'
import { boolean, count, number, orNull, shape, string } from '../../protocol/json-lines.js'
import { decodeState, encodeState, isSharedView } from '../../protocol/value-codec.js'
import { decodePlain, encodePlain } from './plain-value.js'

export interface SectionHeader {
  readonly format: typeof format
  readonly name: string
  /** The version of the value's shape, as the application counts it. */
  readonly schema: number | null
  readonly phase: SectionPhase
  /** The application's version. */
  readonly version: string | null
  /** process.version of the writer. */
  readonly node: string
  readonly generation: number
  /** Milliseconds since the epoch. */
  readonly savedAt: number
  /** A stream of items, not one value. */
  readonly items: boolean
}

/** What a section says of itself. */
export type SectionAbout = Omit<SectionHeader, 'format'>

export type HeaderToWrite = Omit<SectionHeader, 'format' | 'items' | 'node' | 'savedAt'>

export const isHeader = shape({
  name: string, schema: orNull(number), phase: sectionPhase, version: orNull(string),
  node: string, generation: count, savedAt: number, items: boolean
})

export interface WriteOptions extends FrameOptions {
  /** Of the whole file. */
  readonly maxBytes: number
  /** Its reader is known, and reads plain-value.ts. */
  readonly plain?: boolean
  /** The value as encodeValue() has encoded it, where that was done. */
  readonly encoded?: EncodedValue | undefined
}

/** One value, as it is written. */
export interface EncodedValue {
  readonly kind: FrameKind
  readonly content: string | Uint8Array
}

export interface ReadSection {
  readonly header: SectionHeader
  /** What was saved; for a stream an AsyncIterable that can be read once, in which all bytes are Buffers. */
  readonly value: unknown
  /** Closes the file where a stream was not read to its end. May be called at any time, and twice. */
  close(): void
}

export interface SectionInFile {
  readonly fd: number
  readonly bytes: number
}

type Items = Iterator<unknown> | AsyncIterator<unknown>

const isObject = (value: unknown): value is Record<PropertyKey, unknown> => typeof value === 'object' && value !== null
const isFunction = (value: unknown): boolean => typeof value === 'function'
export const isPromise = <T>(value: T | Promise<T>): value is Promise<T> => isObject(value) && isFunction(value['then'])

const isAsync = (value: object): value is AsyncIterable<unknown> =>
  isFunction((value as Record<PropertyKey, unknown>)[Symbol.asyncIterator])

/** Array, Map, Set and the like can be iterated, but are values. */
export const isStream = (value: unknown): value is AsyncIterable<unknown> | Iterator<unknown> =>
  isObject(value) && (isAsync(value) || (isFunction(value['next']) && isFunction(value[Symbol.iterator])))

const itemsOf = (value: AsyncIterable<unknown> | Iterator<unknown>): Items =>
  isAsync(value) ? value[Symbol.asyncIterator]() : value

const about = ({ name, schema, phase, version, generation }: HeaderToWrite, items: boolean): SectionAbout =>
  ({ name, schema, phase, version, node: process.versions.node, generation, savedAt: Date.now(), items })

/** Ends a stream before its end, and waits until it has cleaned up, unless the time is over. */
async function giveUp(items: Items, value: unknown, wait: AbortableWait): Promise<void> {
  try {
    const returned = items.return?.()
    // Its iterator would return only after the chunk that it waits for.
    if (value instanceof Readable) value.destroy()
    await wait.for(returned)
  } catch {
    // The error that ended it counts.
  }
}

/**
 * Writes what save() returned. Resolves with a sealed file, which is the caller's to close, and its size. Throws HANDOVER_STATE (with the
 * path to what cannot be written; above maxBytes, with both sizes), what the iterable throws, or signal.reason; then nothing is left open,
 * and return() of the iterable was called.
 */
export async function writeSection(
  header: HeaderToWrite, value: unknown, { maxBytes, plain = false, encoded, ...options }: WriteOptions
): Promise<SectionInFile> {
  const { signal } = options
  const of = `section ${JSON.stringify(header.name)}`
  const wait = new AbortableWait(signal)
  let items: Items | undefined
  let fd: number | undefined
  try {
    if (isStream(value)) {
      items = itemsOf(value)
      wait.listen()
    }
    signal.throwIfAborted()
    const writer = new FrameWriter(() => (fd ??= openMemoryFile(`handover:${header.name.replaceAll('\0', '')}`)), of, maxBytes, options)
    await writer.write(frameKinds.header, JSON.stringify(about(header, items !== undefined)))
    if (items) {
      const budget = new LoopBudget()
      for (let index = 0; ; index++) {
        let next
        try {
          const answer = items.next()
          next = isPromise(answer) ? await wait.for(answer) : answer
        } catch (error) {
          if (!signal.aborted) items = undefined // It has ended by itself.
          throw error
        }
        if (next.done) {
          items = undefined
          break
        }
        const written = writeItem(writer, next.value, of, index)
        if (written) await written
        const turn = budget.nextTurn()
        if (turn) {
          await turn
          signal.throwIfAborted()
        }
      }
    } else {
      const { kind, content } = encoded ?? encodeValue(value, of, plain)
      await writer.write(kind, content)
    }
    writer.finish()
    sealMemoryFile(fd!)
    return { fd: fd!, bytes: writer.bytes }
  } catch (error) {
    if (fd !== undefined) await closeLater(fd)
    if (items) await giveUp(items, value, wait)
    throw signal.aborted ? signal.reason : error
  } finally {
    wait.end()
  }
}

/** Throws HANDOVER_STATE with the path to what cannot be written. `plain`: the reader reads plain-value.ts. */
export function encodeValue(value: unknown, of: string, plain: boolean): EncodedValue {
  // Memory that is shared is refused as text, with its path.
  if (value instanceof Uint8Array && !isSharedView(value)) {
    return { kind: Buffer.isBuffer(value) ? frameKinds.buffer : frameKinds.bytes, content: value }
  }
  const bytes = plain ? encodePlain(value) : undefined
  return bytes ? { kind: frameKinds.plain, content: bytes } : { kind: frameKinds.text, content: encodeState(value, of) }
}

function writeItem(writer: FrameWriter, item: unknown, of: string, index: number): Promise<void> | undefined {
  // In a stream all bytes are alike; a single value comes back as what it was.
  if (item instanceof Uint8Array && !isSharedView(item)) return writer.write(frameKinds.buffer, item)
  return writer.write(frameKinds.text, encodeState(item, of, `[${index}]`))
}

/**
 * Owns a descriptor from now on. Throws HANDOVER_STATE for one that is no file, or whose file is cut short or of an unknown format; or
 * signal.reason, also from the iterable of a stream. A stream closes the file at its end, when it is left, at an error, or at the signal.
 */
export async function readSection(fd: number, options: FrameOptions): Promise<ReadSection> {
  const reader = await FrameReader.open(fd, options)
  try {
    const header = readHeader(await reader.next(), reader)
    reader.of = `section ${JSON.stringify(header.name)}`
    if (header.items) return { header, value: itemsIn(reader, options.signal), close: () => { void reader.close() } }
    const frame = await reader.next()
    const value = frame.kind === frameKinds.plain ? await decodePlain(frame.content, reader.of, options.signal) : readItem(frame, reader)
    if ((await reader.next()).kind !== frameKinds.end || !reader.atEnd) {
      throw damaged(reader, 'has more than the one value that its header says')
    }
    await reader.close()
    return { header, value, close: () => undefined }
  } catch (error) {
    await reader.close()
    throw error
  }
}

async function* itemsIn(reader: FrameReader, signal: Abortable): AsyncGenerator {
  const budget = new LoopBudget()
  const wait = new AbortableWait(signal)
  wait.listen()
  try {
    for (;;) {
      const frame = await reader.next()
      if (frame.kind === frameKinds.end) break
      yield readItem(frame, reader)
      const turn = budget.nextTurn()
      if (turn) {
        await turn
        signal.throwIfAborted()
      }
    }
    if (!reader.atEnd) throw damaged(reader, 'goes on after its end')
  } finally {
    wait.end()
    await reader.close()
  }
}

const damaged = ({ of }: FrameReader, what: string): HandoverError =>
  new HandoverError('HANDOVER_STATE', { what: `the file of ${of} is damaged: it ${what}`, serving: 'It was not restored', todo: 'Look for what wrote it' })

function readItem({ kind, content, own }: Frame, reader: FrameReader): unknown {
  switch (kind as FrameKind) {
    case frameKinds.text:
      return decodeState(textOf(content, reader), reader.of)
    case frameKinds.buffer:
      return own ? content : Buffer.from(content)
    case frameKinds.bytes:
      return own ? new Uint8Array(content.buffer) : new Uint8Array(content)
    default:
      throw damaged(reader, `has a frame of kind ${kind}, expected ${frameKinds.text} to ${frameKinds.bytes}`)
  }
}

function textOf(content: Buffer, reader: FrameReader): string {
  try {
    return content.toString()
  } catch (cause) {
    throw damaged(reader, `has a text of ${content.length} bytes, which is longer than a string can be (${(cause as Error).message})`)
  }
}

function readHeader({ kind, content }: Frame, reader: FrameReader): SectionHeader {
  let found: unknown
  try {
    found = kind === frameKinds.header ? JSON.parse(content.toString()) : undefined
  } catch {
    // Said below, with what was found.
  }
  if (!isHeader(found)) throw damaged(reader, `does not begin with a header: found ${content.subarray(0, 200).toString()}`)
  return { ...found as SectionHeader, format }
}
