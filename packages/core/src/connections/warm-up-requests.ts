/**
 * What the option `warmUp` asks for: the program answers some thousand requests before it serves, so that V8 has compiled what answers
 * them, and the first clients do not wait for that.
 *
 * The predecessor serves meanwhile, on the same cores: so they come in short bursts, with long rests. The connections come through a door
 * of their own on the loopback interface, where only this process gets in; the answers are thrown away.
 */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import net from 'node:net'
import type tls from 'node:tls'
import { setTimeout as sleep } from 'node:timers/promises'
import { addon, check } from '../platform/native.js'
import { acceptAsIf } from '../platform/node/connection-handle.js'
import { fdOf } from '../platform/node/descriptor-of.js'
import { isTlsServer } from '../platform/on-demand.js'
import { passListenHook } from '../platform/own-servers.js'
import { deadlineIn, withDeadline } from '../protocol/deadline.js'
import type { MovedConnection } from '../protocol/handover-messages.js'
import { speaksHttp2 } from './connection.js'
import type { ConnectionTracker } from './connection-tracker.js'
import { requestCounts } from './request-counts.js'

/** With 10,000, V8 has compiled hardly more. They take 0.3 to 0.5 s of CPU where the program itself takes none. */
const mostRequests = 5_000
const connectionsAtOnce = 8
/** Of every second connection; the others have one request. */
const requestsEach = 50
/** Of one core. */
const share = 0.15
const [burstMs, restMs] = [4, 40]
const host = 'localhost'
const userAgent = 'handover-warm-up'
const finished = 'http.server.response.finish'
/** As it comes in a message. */
const received = JSON.stringify({ kind: 'http', listener: '', ageMs: 1, requests: 1, idleMs: 0, keepMs: 5_000 })

/** As if the predecessor had moved this connection. */
export function receiveAsIf(tracker: ConnectionTracker, fd: number): void {
  tracker.receive(fd, JSON.parse(received) as MovedConnection)
}

export interface WarmUp {
  /** How many requests there are. */
  readonly wanted: number
  /** How many of them were answered. */
  readonly answered: number
  /** In milliseconds. */
  readonly ms: number
  /** How often there was an answer with a status of 400 or more: "GET /x was answered 404". */
  readonly failed: ReadonlyMap<string, number>
}

/**
 * Sends GET requests for these paths in turn to the server, of HTTP/1 or HTTP/2, with TLS or without. Resolves when they are answered,
 * after `mostMs`, or when `until` resolves. Throws where nothing can listen on the loopback interface, or no connection can be made.
 */
export async function sendWarmUpRequests(
  server: net.Server, tracker: ConnectionTracker, paths: readonly string[], mostMs: number, until: Promise<unknown>
): Promise<WarmUp> {
  const warming = new WarmUpRequests(server, tracker, paths)
  return await warming.run(mostMs, until)
}

/** The client's end of a connection. */
interface Client {
  /** `answered` is called at most once, with the status; never, where the connection ends before. */
  ask(path: string, isLast: boolean, answered: (status: number) => void): void
}

class WarmUpRequests {
  readonly #server: net.Server
  readonly #tracker: ConnectionTracker
  readonly #paths: readonly string[]
  readonly #door: net.Server
  readonly #pace = new Pace()
  readonly #sockets = new Set<net.Socket>()
  /** By the port of the client. */
  readonly #arrived = new Map<number | undefined, net.Socket>()
  /** By the descriptor in the server: a look at the ports of its sockets would give them another shape than others have. */
  readonly #awaited = new Map<number | undefined, (status: number) => void>()
  readonly #failed = new Map<string, number>()
  #connections = 0
  #asked = 0
  #answered = 0
  /** Why a connection was not made. */
  #problem: unknown
  #isOver = false

  constructor(server: net.Server, tracker: ConnectionTracker, paths: readonly string[]) {
    this.#server = server
    this.#tracker = tracker
    this.#paths = paths
    this.#door = passListenHook(net.createServer({ pauseOnConnect: true }, (socket) => { this.#arrived.set(socket.remotePort, socket) }))
    this.#door.maxConnections = 2 * connectionsAtOnce
  }

  async run(mostMs: number, until: Promise<unknown>): Promise<WarmUp> {
    const [begun, before] = [performance.now(), { ...requestCounts }]
    subscribe(finished, this.#finished)
    try {
      await once(this.#door.listen(0, '127.0.0.1'), 'listening')
      const all = Promise.all(Array.from({ length: connectionsAtOnce }, async () => {
        while (this.#goesOn) await this.#serveOne()
      }))
      await withDeadline(Promise.race([all, until]), deadlineIn(mostMs))
      if (this.#isHopeless) throw this.#problem
      return { wanted: mostRequests, answered: this.#answered, ms: performance.now() - begun, failed: this.#failed }
    } finally {
      this.#isOver = true
      this.#door.close()
      for (const socket of [...this.#sockets, ...this.#arrived.values()]) socket.destroy()
      // The server sees them end.
      await sleep(1)
      unsubscribe(finished, this.#finished)
      Object.assign(requestCounts, before)
    }
  }

  get #goesOn(): boolean {
    return !this.#isOver && this.#asked < mostRequests && !this.#isHopeless
  }

  get #isHopeless(): boolean {
    return this.#answered === 0 && this.#problem !== undefined
  }

  async #serveOne(): Promise<void> {
    const index = this.#connections++
    const most = index % 2 === 0 ? 1 : requestsEach
    const socket = net.connect((this.#door.address() as net.AddressInfo).port, '127.0.0.1').on('error', () => undefined)
    this.#sockets.add(socket)
    const ended = new Promise<undefined>((resolve) => { socket.once('close', () => { resolve(undefined) }) })
    try {
      const client = await Promise.race([this.#connect(socket, index % 4 > 1), ended]).catch((error: unknown) => { this.#problem = error })
      for (let asked = 1; client && asked <= most && this.#goesOn; asked++) {
        const path = this.#paths[this.#asked++ % this.#paths.length]!
        const rest = this.#pace.rest
        if (rest) await rest
        const answer = new Promise<number>((resolve) => { client.ask(path, asked === most, resolve) })
        const status = await Promise.race([answer, ended])
        if (status === undefined) break
        this.#count(path, status)
      }
      // Where the server takes no connection, they end at once.
      if (!client) await this.#pace.rest
    } finally {
      this.#sockets.delete(socket)
      socket.destroy()
    }
  }

  #count(path: string, status: number): void {
    this.#answered++
    if (status < 400) return
    const what = `GET ${path} was answered ${status}`
    this.#failed.set(what, (this.#failed.get(what) ?? 0) + 1)
  }

  async #connect(socket: net.Socket, isMoved: boolean): Promise<Client> {
    await once(socket, 'connect')
    const fd = await this.#letIn(socket.localPort, isMoved)
    const isSecure = isTlsServer(this.#server)
    const stream = isSecure ? await encrypt(socket, speaksHttp2(this.#server) ? 'h2' : 'http/1.1') : socket
    return speaksHttp2(this.#server) ? askHttp2(stream, isSecure) : this.#askHttp1(stream, fd)
  }

  /**
   * Only what comes from this port. Connections come as they do after the switch: by the listener, or moved. Answers the descriptor in the
   * server.
   */
  async #letIn(port: number | undefined, isMoved: boolean): Promise<number> {
    while (!this.#arrived.has(port)) await once(this.#door, 'connection')
    const socket = this.#arrived.get(port)!
    this.#arrived.delete(port)
    const fd = check(addon().duplicate(fdOf(socket) ?? -1), 'fcntl')
    socket.destroy()
    if (isMoved && this.#tracker.takesAll) receiveAsIf(this.#tracker, fd)
    else acceptAsIf(this.#server, fd)
    return fd
  }

  #askHttp1(stream: net.Socket, fd: number): Client {
    stream.resume()
    return {
      ask: (path, isLast, answered) => {
        this.#awaited.set(fd, answered)
        const last = isLast ? 'Connection: close\r\n' : ''
        stream.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: ${userAgent}\r\n${last}\r\n`)
      }
    }
  }

  readonly #finished = (message: unknown): void => {
    const { server, socket, response } = message as
      { readonly server: net.Server; readonly socket: net.Socket; readonly response: ServerResponse }
    if (server !== this.#server) return
    const fd = fdOf(socket)
    const answered = this.#awaited.get(fd)
    // The next connection may have this descriptor.
    this.#awaited.delete(fd)
    answered?.(response.statusCode)
  }
}

/** Certificates are not verified: the other end is this process. */
async function encrypt(socket: net.Socket, protocol: 'h2' | 'http/1.1'): Promise<tls.TLSSocket> {
  const { connect } = process.getBuiltinModule('node:tls')
  const secure = connect({ socket, rejectUnauthorized: false, ALPNProtocols: [protocol], servername: host })
  secure.on('error', () => { socket.destroy() })
  await once(secure, 'secureConnect')
  return secure
}

function askHttp2(stream: net.Socket, isSecure: boolean): Client {
  const { connect } = process.getBuiltinModule('node:http2')
  const session = connect(`${isSecure ? 'https' : 'http'}://${host}`, { createConnection: () => stream }).on('error', () => undefined)
  return {
    ask: (path, isLast, answered) => {
      let status = 0
      session.request({ ':path': path, 'user-agent': userAgent }).on('error', () => undefined)
        .on('response', ({ ':status': found = 0 }) => { status = found })
        .on('end', () => {
          // Not before: a server that hears it refuses what comes after.
          if (isLast) session.close()
          answered(status)
        })
        .resume()
    }
  }
}

/** Bursts and rests, by the CPU time that this process takes. */
class Pace {
  readonly #begun = performance.now()
  readonly #cpuBegun = process.cpuUsage()
  #burstEnds = 0
  #rest: Promise<void> | undefined

  /** Undefined within a burst; else it resolves when the next one begins. */
  get rest(): Promise<void> | undefined {
    return performance.now() < this.#burstEnds ? undefined : this.#rest ??= this.#untilNext()
  }

  async #untilNext(): Promise<void> {
    const { user, system } = process.cpuUsage(this.#cpuBegun)
    const earliest = this.#begun + (user + system) / 1_000 / share
    await sleep(Math.max(restMs, earliest - performance.now()))
    this.#burstEnds = performance.now() + burstMs
    this.#rest = undefined
  }
}
