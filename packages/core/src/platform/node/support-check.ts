/** Checks that this version of Node has every private part that listeners and moves rely on. */

import { closeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { addon, check } from '../native.js'
import {
  adoptDescriptor, connectionHandle, holdReading, isAnswering, isParsed, primeParser, readingRequests, releaseReading
} from './connection-handle.js'
import { quietHandle } from './listen-handle.js'

// A program that keeps what createServer() makes, to close it at its end, would get these, which are closed.
const { Server: HttpServer } = http
const { Server: NetServer } = net

/** What a handover needs and this Node does not have. Tries it on a quiet handle. Throws the error of the system that makes no sockets. */
export function missing(): string | undefined {
  if (!('_handle' in new NetServer())) return 'net.Server has no _handle'
  const [fd, other] = check(addon().socketPair(), 'socketpair')
  closeSync(other)
  try {
    const handle = quietHandle(fd)
    const works = handle.fd === fd
    handle.close()
    return works ? undefined : 'a handle has no fd'
  } catch (error) {
    return (error as Error).message
  }
}

/** How this Node differs from what moving a connection needs. Tries it on a connection of its own. */
export function cannotMove(): string | undefined {
  const server = new HttpServer()
  let socket: net.Socket | undefined
  let other: number | undefined
  try {
    const pair = check(addon().socketPair(), 'socketpair')
    const [fd] = pair
    other = pair[1]
    server.emit('listening') // creates the list of connections
    socket = adoptDescriptor(fd, server)
    server.emit('connection', socket)
    const handle = connectionHandle(socket)
    if (handle?.fd !== fd || typeof handle.writeQueueSize !== 'number' || typeof handle.reading !== 'boolean') {
      return 'a connection has no fd, writeQueueSize or reading'
    }
    if (!isParsed(socket)) return 'a connection has no parser that reads it'
    if (readingRequests(server)?.has(socket) !== true) return 'a connection that has sent nothing is not listed'
    primeParser(socket)
    if (readingRequests(server)?.has(socket) !== false) return 'a parser cannot be brought between two requests'
    const response = new http.ServerResponse(new http.IncomingMessage(socket))
    response.assignSocket(socket)
    const answering = isAnswering(socket)
    response.detachSocket(socket)
    if (!answering || isAnswering(socket)) return 'a response cannot be seen on its connection'
    holdReading(socket)
    // Whether reading stops shows only in a later turn of the loop. uv_read_stop answers 0 at once.
    if (handle.readStop() !== 0) return 'reading cannot be stopped'
    releaseReading(socket)
    return undefined
  } catch (error) {
    return (error as Error).message
  } finally {
    socket?.destroy()
    if (other !== undefined) closeSync(other)
    server.close()
  }
}
