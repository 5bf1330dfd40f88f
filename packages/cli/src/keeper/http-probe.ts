/**
 * One real GET over a connection that no client has: how the keeper checks a successor before it gets traffic.
 *
 * Only a complete answer with 2xx counts; redirects, hangs, resets and garbage do not. It never throws and never leaves the descriptor
 * open. Certificates are not verified: the other end of the connection is a process that the keeper started itself.
 */

import { closeSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'

export type ProbeProtocol = 'http' | 'https' | 'http2' | 'http2-tls'

export interface ProbeRequest {
  /** Of the server at the other end. */
  readonly protocol: ProbeProtocol
  /** With the query: `/healthz?deep=1`. */
  readonly path: string
  /** From now until the end of the answer, in milliseconds. */
  readonly deadlineMs: number
}

/** Of the request, and of the server that a client of TLS asks for. */
const host = 'localhost'
/** So much of an answer is enough: it may never end. */
const enoughBytes = 1_048_576

/** The first call counts. Without a `reason` the answer was as it should be. */
type End = (reason?: string) => void

/**
 * Asks over `fd`, one end of a Unix socket pair, which is closed when the promise resolves: with what was wrong, to follow "the probe GET
 * /healthz "; undefined where nothing was.
 */
export function probe(fd: number, request: ProbeRequest): Promise<string | undefined> {
  return new Promise((resolve) => {
    let socket: net.Socket
    try {
      socket = new net.Socket({ fd })
    } catch (error) {
      try {
        closeSync(fd)
      } catch { /* it was not open */ }
      resolve(`could not be sent (${(error as Error).message})`)
      return
    }
    let ended = false
    const end: End = (reason) => {
      if (ended) return
      ended = true
      clearTimeout(timer)
      if (socket.closed) resolve(reason)
      else socket.once('close', () => { resolve(reason) }).destroy()
    }
    const timer = setTimeout(() => { end(`was not answered within ${request.deadlineMs} ms`) }, request.deadlineMs)
    socket.on('error', (error: Error) => { end(reasonOf(error)) })
    try {
      const stream = request.protocol === 'https' || request.protocol === 'http2-tls' ? encrypt(socket, request, end) : socket
      if (request.protocol === 'http' || request.protocol === 'https') askHttp1(stream, request, end)
      else askHttp2(stream, request, end)
    } catch (error) {
      end(`could not be sent (${(error as Error).message})`)
    }
  })
}

function encrypt(socket: net.Socket, { protocol }: ProbeRequest, end: End): tls.TLSSocket {
  return tls.connect({ socket, rejectUnauthorized: false, ALPNProtocols: [protocol === 'https' ? 'http/1.1' : 'h2'], servername: host })
    .on('error', (error: Error) => { end(reasonOf(error)) })
}

function askHttp1(stream: Duplex, { path }: ProbeRequest, end: End): void {
  http.request({ path, headers: { host, 'user-agent': 'handover', connection: 'close' }, createConnection: () => stream })
    .on('response', (response) => { readAnswer(response, response.statusCode, end) })
    .on('upgrade', (response) => { readAnswer(response, response.statusCode, end) })
    .on('error', (error: Error) => { end(reasonOf(error)) })
    .on('close', () => { end('was closed without an answer') })
    .end()
}

function askHttp2(stream: Duplex, { protocol, path }: ProbeRequest, end: End): void {
  const session = http2.connect(`${protocol === 'http2' ? 'http' : 'https'}://${host}`, { createConnection: () => stream })
    .on('error', (error: Error) => { end(reasonOf(error)) })
    .on('close', () => { end('was closed without an answer') })
  const request = session.request({ ':path': path, 'user-agent': 'handover' })
  request
    .on('response', (headers) => { readAnswer(request, headers[':status'], end) })
    .on('error', (error: Error) => { end(reasonOf(error)) })
    .on('close', () => { end('was closed without an answer') })
    .end()
}

/** Reads the body of a 2xx to its end. An answer that breaks off does not count. */
function readAnswer(body: NodeJS.ReadableStream, status = 0, end: End): void {
  if (status < 200 || status > 299) {
    end(`was answered ${status}, which is not 2xx`)
    return
  }
  let bytes = 0
  const brokenOff = (): void => { end(`was answered ${status}, but the body broke off after ${bytes} bytes`) }
  body.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes >= enoughBytes) end()
  })
    // Before 'end', which HTTP/2 also emits for a stream that was reset.
    .on('aborted', brokenOff)
    .on('error', brokenOff)
    .on('end', () => { end() })
    .on('close', brokenOff)
}

function reasonOf(error: NodeJS.ErrnoException): string {
  const { code = error.message, syscall } = error
  if (code.startsWith('HPE_')) return `was answered with what is not HTTP (${code})`
  if (code.startsWith('ERR_HTTP2_')) return `was answered with what is not good HTTP/2 (${error.message})`
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO') return `failed in TLS (${code})`
  // Node's "socket hang up" is an ECONNRESET too, of no system call.
  if (code === 'ECONNRESET' && syscall === undefined) return 'was closed without an answer'
  if (code === 'ECONNRESET' || code === 'EPIPE') return `was reset (${code})`
  return `failed (${code})`
}
