/**
 * Runs what serves HTTP before it is needed, Node's code and that of this package: the first requests of a process take five times as long
 * as later ones, and after a switch many wait for them.
 *
 * V8 compiles for the kinds of objects that it has seen, and throws the result away when another kind comes. So all is as different as in a
 * program: servers, handlers, headers, how connections come and end, and what is no HTTP at all (a channel, a timer, a stream of another
 * class). The last round has them all beside each other, and so many connections that what runs once for each is compiled, too.
 * `node --trace-deopt`, between the start of the program and its first thousand requests, shows whether something is missing.
 *
 * The servers are its own, and the connections are pairs of descriptors: nothing listens, and no code of the program hears of it. It must
 * run before any code of the program, which could have replaced functions of Node by its own.
 */

import { EventEmitter } from 'node:events'
import { closeSync, readSync, writeSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import { acceptAsIf, listenToNobody, runTicks } from '../platform/node/connection-handle.js'
import { addon, check } from '../platform/native.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { quietHandle } from '../platform/node/listen-handle.js'
import { cannotMove, missing } from '../platform/node/support-check.js'
import { openChannel } from '../protocol/channel.js'
import { handoverMessages } from '../protocol/handover-messages.js'
import { ConnectionTracker } from './connection-tracker.js'
import { requestCounts } from './request-counts.js'
import { receiveAsIf } from './warm-up-requests.js'

/** 22,000 requests on 3,700 connections, some 1 s of CPU. `shortLived`: connections of one request, in the last round and before. */
const [rounds, connectionsAtOnce, requestsEach] = [9, 8, 200]
const shortLived = { last: 300, before: 20 }
/** Requests of a round whose objects are kept. */
const samplesEach = 4
const mostMs = 10_000
/** Each set of headers is another kind of object. Of requests that come together, the later answers wait for the first. */
const requests = [
  'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
  'GET / HTTP/1.1\r\nUser-Agent: a\r\nHost: a\r\nAccept: */*\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok',
  'GET /?a=b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\n\r\n',
  'GET / HTTP/1.1\r\nX-Forwarded-For: a\r\nX-Forwarded-Proto: https\r\nHost: a\r\n\r\n',
  'GET / HTTP/1.1\r\nAccept: */*\r\nHost: a\r\nReferer: a\r\nOrigin: a\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(3)
].map((text) => Buffer.from(text))
const lastRequest = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
const discarded = Buffer.allocUnsafeSlow(4_096)

const handlers: readonly http.RequestListener[] = [
  (_, response) => { response.end('ok') },
  // Headers of all types beside each other.
  (_, response) => {
    response.writeHead(200, { 'content-length': '2', 'x-count': 1, 'set-cookie': ['a', 'b'] }).end('{}', null as never)
  },
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

export interface WarmedUp {
  /**
   * Objects of each kind. V8 throws away what it has compiled for a kind of which no object is left, at the next collection of all garbage:
   * in the program's start, or in its first second under load.
   */
  readonly samples: readonly object[]
  /** Where this Node has another inside: then the first requests do it. */
  readonly thrown?: unknown
}

/** Runs the event loop, which does not run yet. Never throws. */
export function warmUp(): WarmedUp {
  const samples: object[] = []
  const before = { ...requestCounts }
  const until = performance.now() + mostMs
  const timer = setTimeout(() => undefined, 1.5)
  const giveBack = withoutStderr()
  try {
    turn()
    for (let round = 0; round < rounds; round++) {
      // A timer that has run and is set again is of another kind, too.
      timer.refresh()
      if (round === rounds >> 1) awaitNextSecond()
      serveSome(round, until, samples)
      runOthers()
      // As the first listen() of the program does: their sockets and answers are of a third kind.
      missing()
      cannotMove()
    }
    return { samples }
  } catch (thrown) {
    return { samples, thrown }
  } finally {
    clearTimeout(timer)
    giveBack()
    Object.assign(requestCounts, before)
  }
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

function serveSome(round: number, until: number, samples: object[]): void {
  let asks = 0
  const server = http.createServer((asked, response) => {
    if (asks++ < samplesEach) samples.push(asked, response, asked.socket)
    // Each handler in a round of its own, then all of them in turn.
    const handle = handlers[round] ?? handlers[asks % handlers.length]!
    handle(asked, response)
  })
  const tracker = new ConnectionTracker(server)
  samples.push(server, tracker)
  const ways = [acceptBy(server), receiveBy(tracker)] as const
  const isLast = round === rounds - 1
  try {
    listenToNobody(server)
    // As listen() does with an offered listener.
    quietHandle(check(addon().duplicate(fdOf(server) ?? -1), 'fcntl')).close()
    turn()
    serveOn((index) => ways[(isLast ? index : round) % 2]!, until)
    for (let each = 0; each < (isLast ? shortLived.last : shortLived.before) && performance.now() < until; each++) serveOnceOn(ways[0])
  } finally {
    // Nobody may see them among the open handles of the process.
    server.close().closeAllConnections()
    turn()
    turn()
  }
}

/** Connections of many requests. */
function serveOn(way: (index: number) => (fd: number) => void, until: number): void {
  const clients: number[] = []
  try {
    for (let index = 0; index < connectionsAtOnce; index++) clients.push(connect(way(index)))
    clients.push(connect(answerPlainly))
    for (let each = 0; each < requestsEach && performance.now() < until; each++) {
      for (const [index, fd] of clients.entries()) writeSync(fd, requests[(each + index) % requests.length]!)
      turn()
      for (const fd of clients) readSync(fd, discarded)
    }
    for (const [index, fd] of clients.splice(0).entries()) end(fd, endings[index % endings.length]!)
  } finally {
    for (const fd of clients) closeSync(fd)
  }
}

/** Connections of one request, which the server ends. */
function serveOnceOn(serve: (fd: number) => void): void {
  const clients = Array.from({ length: connectionsAtOnce }, () => connect(serve))
  for (const fd of clients) writeSync(fd, lastRequest)
  turn()
  for (const fd of clients) readSync(fd, discarded)
  turn()
  for (const fd of clients) closeSync(fd)
  turn()
}

/** `process.stderr` is made as soon as a socket closes, by a way of its own through the code of all sockets. */
function openStderr(): void {
  const stderr = check(addon().duplicate(2), 'fcntl')
  const [here, there] = socketPair()
  try {
    check(addon().duplicateTo(here, 2), 'dup2')
    // Node does not close a descriptor below 3.
    new net.Socket({ fd: 2, readable: false, writable: true }).destroy()
    turn()
  } finally {
    addon().duplicateTo(stderr, 2)
    for (const fd of [stderr, here, there]) closeSync(fd)
  }
}

/** What is beside HTTP in a process that takes over, and uses the same code of Node. */
function runOthers(): void {
  const watched = new EventEmitter().on('newListener', () => undefined).on('removeListener', () => undefined)
  for (const name of ['a', 'b', 'c']) watched.on(name, () => undefined).once(name, () => undefined)
  watched.removeAllListeners('a').removeAllListeners()
  const [one, other] = socketPair()
  closeSync(other)
  // This fails: nobody can listen on a connection.
  net.createServer(() => undefined).on('error', () => undefined).listen({ fd: one })
  // With fewer, V8 compiles for exactly these.
  for (const [index, run] of [() => 0, () => 1, () => 2, () => 3, () => 4].entries()) {
    process.nextTick(run)
    process.nextTick(run, index)
    process.nextTick(run, index, index)
    process.nextTick(run, index, index, index)
  }
  // The only one of its duration.
  clearTimeout(setTimeout(() => undefined, 1_234))
  setImmediate(() => undefined).unref()
  setImmediate(() => undefined)
  new Readable({ read: () => undefined }).on('data', () => undefined).on('error', () => undefined).resume().destroy()
  new PassThrough().on('data', () => undefined).end('ok')
  turn()
  openStderr()
  talk()
}

/** Two ends of a channel: one asks, the other answers and ends it. */
function talk(): void {
  const [[asking, answering], [first, second]] = [socketPair(), socketPair()]
  const asks = openChannel(asking, first, handoverMessages)
  const answers = openChannel(answering, second, handoverMessages)
  void answers.hearAll(() => { answers.send({ type: 'pong' }) }, () => undefined)
  void asks.hearAll(() => undefined, () => undefined)
  for (let each = 0; each < 10; each++) {
    asks.send({ type: 'ping' })
    turn()
    turn()
  }
  answers.close()
  turn()
  turn()
  asks.close()
  turn()
}

const socketPair = (): readonly [number, number] => check(addon().socketPair(), 'socketpair')

/** Answers the client's end. */
function connect(serve: (fd: number) => void): number {
  const [ours, client] = socketPair()
  serve(ours)
  // Node's event loop does so before the first byte is read.
  runTicks()
  return client
}

const acceptBy = (server: http.Server) => (fd: number): void => { acceptAsIf(server, fd) }
const receiveBy = (tracker: ConnectionTracker) => (fd: number): void => { receiveAsIf(tracker, fd) }

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
  addon().runLoop()
  runTicks()
}
