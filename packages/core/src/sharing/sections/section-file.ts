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

type HeaderToWrite = Omit<SectionHeader, 'format' | 'items' | 'node' | 'savedAt'>

const headerShape = shape({
  name: string, schema: orNull(number), phase: sectionPhase, version: orNull(string),
  node: string, generation: count, savedAt: number, items: boolean
})

export interface WriteOptions extends FrameOptions {
  /** Of the whole file. */
  readonly maxBytes: number
  /** Its reader is known, and reads plain-value.ts. */
  readonly plain?: boolean
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

/** What is in the file of a small section. */
export interface SmallSection {
  readonly content: Buffer
  readonly bytes: number
}

type Items = Iterator<unknown> | AsyncIterator<unknown>

const isObject = (value: unknown): value is Record<PropertyKey, unknown> => typeof value === 'object' && value !== null
const isFunction = (value: unknown): boolean => typeof value === 'function'
export const isPromise = <T>(value: T | Promise<T>): value is Promise<T> => isObject(value) && isFunction(value['then'])

/** The items of what is a stream; Array, Map, Set and the like can be iterated, but are values. */
function itemsOf(value: unknown): Items | undefined {
  if (!isObject(value)) return undefined
  if (isFunction(value[Symbol.asyncIterator])) return (value as unknown as AsyncIterable<unknown>)[Symbol.asyncIterator]()
  return isFunction(value['next']) && isFunction(value[Symbol.iterator]) ? value as unknown as Iterator<unknown> : undefined
}

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
export async function writeSection(header: HeaderToWrite, value: unknown, options: WriteOptions): Promise<SectionInFile> {
  return await write(header, value, options, false) as SectionInFile
}

/** The same, but what is small is answered, and not written into a file. */
export async function writeSmallSection(
  header: HeaderToWrite, value: unknown, options: WriteOptions
): Promise<SectionInFile | SmallSection> {
  return await write(header, value, options, true)
}

async function write(
  header: HeaderToWrite, value: unknown, { maxBytes, plain, ...options }: WriteOptions, smallAsBytes: boolean
): Promise<SectionInFile | SmallSection> {
  const { signal } = options
  const of = `section ${JSON.stringify(header.name)}`
  const wait = new AbortableWait(signal)
  let items: Items | undefined
  let fd: number | undefined
  let writer: FrameWriter | undefined
  try {
    items = itemsOf(value)
    if (items) wait.listen()
    signal.throwIfAborted()
    writer = new FrameWriter(() => (fd ??= openMemoryFile(`handover:${header.name.replaceAll('\0', '')}`)), of, maxBytes, options)
    const { name, schema, phase, version, generation } = header
    const about = { name, schema, phase, version, node: process.versions.node, generation, savedAt: Date.now(), items: items !== undefined }
    await writer.write(frameKinds.header, JSON.stringify(about))
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
      const bytes = plain && !(value instanceof Uint8Array) ? encodePlain(value) : undefined
      await (bytes ? writer.write(frameKinds.plain, bytes) : writeItem(writer, value, of))
    }
    const content = await writer.finish(smallAsBytes)
    if (content) return { content, bytes: content.length }
    sealMemoryFile(fd!)
    return { fd: fd!, bytes: writer.bytes }
  } catch (error) {
    await writer?.settled()
    if (fd !== undefined) await closeLater(fd)
    if (items) await giveUp(items, value, wait)
    throw signal.aborted ? signal.reason : error
  } finally {
    wait.end()
  }
}

function writeItem(writer: FrameWriter, item: unknown, of: string, index?: number): Promise<void> | undefined {
  // Memory that is shared is refused there, with its path.
  if (!(item instanceof Uint8Array) || isSharedView(item)) {
    return writer.write(frameKinds.text, encodeState(item, of, index === undefined ? '' : `[${index}]`))
  }
  // In a stream all bytes are alike; a single value comes back as what it was.
  return writer.write(index !== undefined || Buffer.isBuffer(item) ? frameKinds.buffer : frameKinds.bytes, item)
}

/**
 * Owns a descriptor from now on. Throws HANDOVER_STATE for one that is no file, or whose file is cut short or of an unknown format; or
 * signal.reason, also from the iterable of a stream. A stream closes the file at its end, when it is left, at an error, or at the signal.
 */
export async function readSection(file: number | Buffer, options: FrameOptions): Promise<ReadSection> {
  const reader = await FrameReader.open(file, options)
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
  if (!headerShape(found)) throw damaged(reader, `does not begin with a header: found ${content.subarray(0, 200).toString()}`)
  return { ...found as SectionHeader, format }
}
