/**
 * Runs what serves HTTP before it is needed, Node's code and that of this package: the first requests of a process take five times as long
 * as later ones, and after a switch many wait for them.
 *
 * V8 compiles for the kinds of objects that it has seen, and forgets the result when another kind comes. So the servers, their handlers,
 * and the ways in which connections come and end are as different as in a program. What counts most is that some are reset: without it
 * the first requests of the program take as long as if half of this had not been done (`npm run bench -- dip`).
 *
 * The servers are its own, and the connections are pairs of descriptors: nothing listens, and no code of the program hears of it. It is
 * for a process that has no code of a program yet, which could have put its own functions into Node's.
 */

import { closeSync, readSync, writeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { acceptAsIf, listenToNobody, runTicks } from '../platform/node/connection-handle.js'
import { native } from '../platform/native.js'
import { cannotMove, missing } from '../platform/node/support-check.js'
import { ConnectionTracker } from './connection-tracker.js'
import { requestCounts } from './request-counts.js'

/** 12,800 requests, some 0.6 s of CPU. */
const [rounds, connectionsAtOnce, requestsEach] = [8, 8, 200]
const mostMs = 3_000
/** Each set of headers is another kind of object. */
const requests = [
  'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
  'GET / HTTP/1.1\r\nUser-Agent: a\r\nHost: a\r\nAccept: */*\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok',
  'GET /?a=b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\n\r\n',
  'GET / HTTP/1.1\r\nX-Forwarded-For: a\r\nX-Forwarded-Proto: https\r\nHost: a\r\n\r\n',
  'GET / HTTP/1.1\r\nAccept: */*\r\nHost: a\r\nReferer: a\r\nOrigin: a\r\n\r\n'
].map((text) => Buffer.from(text))
const lastRequest = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
const discarded = Buffer.allocUnsafeSlow(4_096)

const handlers: readonly http.RequestListener[] = [
  (_, response) => { response.end('ok') },
  (_, response) => { response.writeHead(200, { 'content-type': 'text/plain', 'content-length': 2 }).end('ok') },
  (_, response) => { response.setHeader('content-type', 'application/json').end(Buffer.from('{}')) },
  (_, response) => {
    response.write('o')
    response.end('k')
  },
  (asked, response) => {
    asked.on('data', () => undefined).on('end', () => { response.writeHead(201, 'Created', ['content-type', 'text/plain']).end('ok') })
  }
]

/** Runs the event loop, which does not run yet. Does nothing where this Node has another inside, and never throws. */
export function warmUp(): void {
  const before = { ...requestCounts }
  const until = performance.now() + mostMs
  const timer = setTimeout(() => undefined, 1.5)
  const giveBack = withoutStderr()
  try {
    turn()
    for (let round = 0; round < rounds; round++) {
      // A timer that has run and is set again is of another kind, too.
      timer.refresh()
      if (round === rounds / 2) awaitNextSecond()
      serveSome(round, until)
      // As the first listen() of the program does: their sockets and answers are of a third kind.
      missing()
      cannotMove()
    }
  } catch { /* Then the first requests do it. */ }
  clearTimeout(timer)
  giveBack()
  Object.assign(requestCounts, before)
}

/** A socket that closes compares itself with `process.stderr`, which then would be made: the program may have other plans for it. */
function withoutStderr(): () => void {
  const own = Object.getOwnPropertyDescriptor(process, 'stderr')!
  Object.defineProperty(process, 'stderr', { ...own, get: () => undefined })
  return () => { Object.defineProperty(process, 'stderr', own) }
}

/** Node makes the text of the header Date once a second. */
function awaitNextSecond(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_005 - Date.now() % 1_000)
}

function serveSome(round: number, until: number): void {
  const server = http.createServer(handlers[round % handlers.length])
  const tracker = new ConnectionTracker(server)
  const clients: number[] = []
  try {
    listenToNobody(server)
    turn()
    const serve = round % 2 === 0 ? acceptBy(server) : receiveBy(tracker)
    for (let index = 0; index < connectionsAtOnce; index++) clients.push(connect(serve))
    clients.push(connect(answerPlainly))
    for (let each = 0; each < requestsEach && performance.now() < until; each++) {
      for (const [index, fd] of clients.entries()) writeSync(fd, requests[(each + index) % requests.length]!)
      turn()
      for (const fd of clients) readSync(fd, discarded)
    }
    for (const [index, fd] of clients.splice(0).entries()) end(fd, endings[index % endings.length]!)
  } finally {
    // Nobody may see them among the open handles of the process.
    server.close().closeAllConnections()
    for (const fd of clients) closeSync(fd)
    turn()
    turn()
  }
}

/** Answers the client's end. */
function connect(serve: (fd: number) => void): number {
  const pair = native?.socketPair()
  if (typeof pair !== 'object') throw new Error('no descriptor is free')
  serve(pair[0])
  return pair[1]
}

const acceptBy = (server: http.Server) => (fd: number): void => { acceptAsIf(server, fd) }
const receiveBy = (tracker: ConnectionTracker) => (fd: number): void => {
  tracker.receive(fd, { kind: 'http', listener: '', ageMs: 1, idleMs: 0, keepMs: 5_000, requests: 1 })
}

/** A socket that is not HTTP's, as those of the lines between processes are. */
function answerPlainly(fd: number): void {
  const socket = new net.Socket({ fd, readable: true, writable: true })
  socket.on('error', () => undefined).on('data', (bytes: Buffer) => {
    if (bytes.length % 2 === 0) socket.write(bytes, () => undefined)
    socket.write('ok')
  })
}

const endings = ['reset', 'close', 'last request'] as const

function end(client: number, how: (typeof endings)[number]): void {
  try {
    if (how !== 'close') {
      writeSync(client, how === 'reset' ? requests[0]! : lastRequest)
      turn()
      // The kernel resets a connection that is closed while something is unread.
      if (how === 'last request') readSync(client, discarded)
    }
  } finally {
    closeSync(client)
  }
  turn()
}

function turn(): void {
  if (!native) throw new Error('the addon is missing')
  native.runLoop()
  runTicks()
}
