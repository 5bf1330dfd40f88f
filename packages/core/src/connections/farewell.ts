/**
 * How a client is told that its connection ends: `Connection: close` with the next answer, GOAWAY, and the hint that ends an event stream.
 */

import type { ServerResponse } from 'node:http'
import type http2 from 'node:http2'
import type { Writable } from 'node:stream'
import { left, type Deadline } from '../protocol/deadline.js'
import { endConnectionWith, isEncoded, isEventStream, sentHeader } from '../platform/node/response.js'
import type { Connection, TrackedServer } from './connection.js'

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

/**
 * Two GOAWAYs (RFC 9113, section 6.8). The first names no last stream, since streams may begin until it is on its way, in the next turn of
 * the loop. The second names it, and so refuses a stream that crossed the first; the client may send that again (section 8.7). There is no
 * ping between them: after any GOAWAY nghttp2 ignores new streams, and without streams it reads nothing more, not even the answer to a
 * ping.
 */
export function sayGoaway(session: http2.ServerHttp2Session): void {
  if (session.destroyed || session.closed) return
  session.goaway(0, 2 ** 31 - 1)
  setImmediate(() => {
    if (!session.destroyed && !session.closed) session.close()
  })
}
