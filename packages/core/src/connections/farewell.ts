/**
 * How a client is told that its connection ends: `Connection: close` with the next answer, GOAWAY, and the hint that ends an event stream.
 */

import type { ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import type { Writable } from 'node:stream'
import { left, type Deadline } from '../protocol/deadline.js'
import { writePast } from '../platform/node/connection-handle.js'
import { endConnectionWith, isEncoded, isEventStream, sentHeader } from '../platform/node/response.js'
import type { Connection, Session, TrackedServer } from './connection.js'
import { goesAway } from './http2-frames.js'

/** Before the deadline, streams that never end are ended one after the other, so that their clients do not come back at the same moment. */
export const farewellMs = (deadline: Deadline): number => Math.min(5_000, left(deadline) / 5)
/** How soon a client of server-sent events should come back, in milliseconds. */
const retryMs = 1_000
/** How long the rest of an event is waited for. */
const restOfEventMs = 250
/** Two ends of lines, as an event ends with. */
const longestEnd = 4

/** The newest answer, and only that, says that the connection ends with it: pipelined requests before it must all be answered. */
export function sayLast(connection: Connection): void {
  const newest = connection.running.at(-1)?.response
  for (const { response } of connection.running) if (response !== newest) unmark(response)
  if (newest && !newest.headersSent && !marked.has(newest)) marked.set(newest, endConnectionWith(newest))
}

/** The answers that say so because of the drain, and what takes it back. */
const marked = new WeakMap<ServerResponse, () => void>()

function unmark(response: ServerResponse): void {
  if (!response.headersSent) marked.get(response)?.()
  marked.delete(response)
}

export function unsayLast(connection: Connection): void {
  for (const { response } of connection.running) unmark(response)
}

/** What ends the event streams of a server, each as its client expects an end, with a hint when to come back. */
export function endingsOf({ connections, sessions }: TrackedServer): (() => void)[] {
  const responses = [...connections.values()].flatMap(({ running }) => running.map(({ response }) => response)).filter(isEventStream)
  const streams = [...sessions.values()].flatMap((session) => [...session.streams.keys()])
    .filter((stream) => sentHeader(stream, 'content-type')?.startsWith('text/event-stream'))
  for (const stream of [...responses, ...streams]) watchEvents(stream)
  return [
    ...responses.map((response) => () => { endEvents(response, isEncoded(response)) }),
    ...streams.map((stream) => () => { endEvents(stream, sentHeader(stream, 'content-encoding') !== undefined) })
  ]
}

/** What was last written to a stream, since its end is near, and what waits for the end of an event there. */
const lastWritten = new WeakMap<Writable, { text: string; ended?: () => void }>()

/** A program that passes on what another server sends may write half an event. */
function watchEvents(stream: Writable): void {
  if (lastWritten.has(stream)) return
  const last: { text: string; ended?: () => void } = { text: '' }
  lastWritten.set(stream, last)
  const write = stream.write.bind(stream) as (...args: unknown[]) => boolean
  stream.write = (...args: unknown[]): boolean => {
    const answer = write(...args)
    last.text = (last.text + endOf(args[0])).slice(-longestEnd)
    if (isBetweenEvents(stream)) last.ended?.()
    return answer
  }
}

function endOf(chunk: unknown): string {
  if (typeof chunk === 'string') return chunk.slice(-longestEnd)
  if (!ArrayBuffer.isView(chunk)) return ''
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).subarray(-longestEnd).toString('latin1')
}

/** Where nothing was written since it is watched, the last event has ended. */
function isBetweenEvents(stream: Writable): boolean {
  const { text = '' } = lastWritten.get(stream) ?? {}
  return text === '' || text.replaceAll(/\r\n?/g, '\n').endsWith('\n\n')
}

function endEvents(stream: Writable, isCompressed: boolean): void {
  if (stream.writableEnded || stream.destroyed) return
  // The program may write more before it hears of the end: of a client that reads slowly, that may be much later.
  stream.on('error', () => undefined)
  const end = (): void => {
    delete last?.ended
    if (stream.writableEnded || stream.destroyed) return
    // In a compressed stream the hint would be no part of it, and within an event a part of that.
    if (!isCompressed && isBetweenEvents(stream)) stream.write(`retry: ${retryMs}\n\n`)
    stream.end()
  }
  const last = isCompressed || isBetweenEvents(stream) ? undefined : lastWritten.get(stream)
  if (!last) return end()
  last.ended = end
  setTimeout(end, restOfEventMs)
}

/** How long the client's answer is waited for before its last stream is named all the same. */
const heardMs = 1_000
/** Were told already. */
const told = new WeakSet<http2.Http2Session>()

/**
 * Two GOAWAYs (RFC 9113, section 6.8). The first names no last stream, and a ping follows it: when the client has answered that, it begins
 * no more streams here, and all that it had begun have come. The second names the last one.
 *
 * After a GOAWAY of its own nghttp2 ignores new streams, and without streams it reads nothing more, not even the answer to a ping. So it
 * must not know of the first one, which is written past it where that can be done. Elsewhere (TLS of OpenSSL) the second one follows in the
 * next turn of the loop, and refuses a stream that crossed the first; the client may send that again (section 8.7).
 */
export function sayGoaway(known: Session): void {
  const { session } = known
  if (session.destroyed || session.closed || told.has(session)) return
  told.add(session)
  const nameLast = (): void => { if (!session.destroyed && !session.closed) session.close() }
  if (!writePastIt(known)) {
    session.goaway(0, 2 ** 31 - 1)
    setImmediate(nameLast)
    return
  }
  const timer = setTimeout(nameLast, heardMs).unref()
  session.ping(() => {
    clearTimeout(timer)
    nameLast()
  })
}

/** Not on a connection that is on its way to the successor. */
function writePastIt({ session, connection, continued }: Session): boolean {
  if (!connection || connection.leaving !== undefined) return false
  if (!continued) return session.encrypted !== true && writePast(connection.wire, goesAway)
  if (continued.writable) continued.write(goesAway)
  return continued.writable
}
