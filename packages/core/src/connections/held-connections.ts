/**
 * Holds the connections of a drain still when their answer ends, so that the successor reads the client's next request, and not this
 * process.
 *
 * A client that does not pipeline sends its next request when it has the whole answer: after the application has ended the answer, or has
 * written as much as Content-Length says. So reading stops at the end of the answer, in the same turn of the loop, or as soon as a head
 * with Content-Length is written. departures.ts then moves the connection or lets it go.
 *
 * A connection is never held in the middle of a request: the rest of the request must be read here.
 */

import type { ServerResponse } from 'node:http'
import type net from 'node:net'
import { discardUnread, holdReading, isReading, releaseReading } from '../platform/node/connection-handle.js'
import { endsConnection, hasLength } from '../platform/node/response.js'
import type { Connection } from './connection.js'
import { hasUnread } from './idle.js'
import { restartIdle } from './keep-alive.js'

/** For each request that runs. A next request seldom waits as long as this behind an answer that its client has. */
const lookForEndMs = 1_000

/** Answers that are watched, for the drain that asked last: an answer may outlive several drains that are undone. */
const watched = new WeakMap<ServerResponse, { moves: () => boolean }>()

/** Holds the connection when this answer ends, if `moves` says then that it is to move. */
export function watchAnswer(socket: net.Socket, connection: Connection, response: ServerResponse, moves: () => boolean): void {
  const known = watched.get(response)
  const watch = known ?? { moves }
  watch.moves = moves
  const hold = (): void => { if (watch.moves()) holdAfter(socket, connection, response) }
  if (response.writableEnded || hasLength(response)) hold()
  if (known) return
  watched.set(response, watch)
  // end() emits it before it returns, when all of the answer is with the socket.
  if (!response.writableEnded) response.once('prefinish', hold)
  if (!response.headersSent) onHead(response, () => {
    // Within the parser it is not known yet whether the request is whole.
    if (hasLength(response)) process.nextTick(hold)
  })
  // Before Node's own listener, which closes the connection.
  response.prependOnceListener('finish', () => { if (connection.held === true && endsConnection(response)) discardUnread(socket) })
}

/** writeHead() is called for every answer, by the application or by Node. */
function onHead(response: ServerResponse, written: () => void): void {
  const writeHead = response.writeHead.bind(response) as (...args: unknown[]) => ServerResponse
  response.writeHead = (...args: unknown[]): ServerResponse => {
    const result = writeHead(...args)
    written()
    return result
  }
}

/** After this answer nothing more is read, unless the connection ends with it, or a request has only half come. */
export function holdAfter(socket: net.Socket, connection: Connection, response: ServerResponse): void {
  const isWhole = response.req.complete && connection.running.every(({ response: { req } }) => req.complete)
  if (isWhole && !endsConnection(response)) hold(socket, connection)
}

/** Where the answer came before the end of its request: calls back at that end. */
export function onRestOfRequest(response: ServerResponse, came: () => void): void {
  if (!response.req.complete) response.req.once('end', came)
}

/** Stops reading. A connection that Node does not read at this moment is left alone, unless `anyway`. */
export function hold(socket: net.Socket, connection: Connection, anyway = false): void {
  if (isReading(socket) !== true && !anyway) return
  holdReading(socket)
  if (connection.held === true) return
  connection.held = true
  // Node had stopped reading while answers to pipelined requests waited. It reads on when they have left, in a listener that comes before
  // this.
  connection.holdAgain = () => { holdReading(socket) }
  socket.on('drain', connection.holdAgain)
  if (isAnswering(connection)) lookForEnd(socket, connection)
}

/** The application has not ended an answer yet. */
const isAnswering = ({ running }: Connection): boolean => running.some(({ response }) => !response.writableEnded)

/**
 * Only who reads sees that a client has left, and the application of an answer that takes long wants to hear of it. So what waits in the
 * kernel is read after a while: it may be the end. It may be the next request, too, which is answered here then. A client that sends one
 * after the other is looked at less and less.
 */
function lookForEnd(socket: net.Socket, connection: Connection): void {
  setTimeout(() => {
    if (connection.held !== true || socket.destroyed || !isAnswering(connection)) return
    if (hasUnread(socket)) release(socket, connection)
    else lookForEnd(socket, connection)
  }, lookForEndMs * connection.running.length).unref()
}

export function release(socket: net.Socket, connection: Connection): void {
  if (connection.held !== true) return
  connection.held = false
  if (connection.holdAgain) socket.off('drain', connection.holdAgain)
  restartIdle(socket, connection)
  releaseReading(socket)
}
