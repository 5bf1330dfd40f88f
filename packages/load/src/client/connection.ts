/**
 * One client connection that knows exactly what became of each request: its whole answer, or why there is none.
 *
 * A request counts from the moment it is given to the socket. If the server closes from then on, the request is lost; if
 * it closed before, as far as this process could know, the connection was idle and no request is concerned. Nothing is
 * ever sent twice. Several requests may be under way (pipelining); answers go to them in order.
 */

import net from 'node:net'
import tls from 'node:tls'
import { AnswerParser, MalformedAnswer, type Answer } from './answer.js'
import type { Request } from './requests.js'
import type { Target } from './target.js'

/** Why a request is lost. */
export type LossReason =
  /** The connect was refused (or the Unix path is gone). */
  | 'refused'
  /** The connect, or the TLS handshake, failed in another way or took longer than the deadline. */
  | 'connect'
  /** The connection was reset, before or in the answer. */
  | 'reset'
  /** The server closed the connection before the first byte of the answer. */
  | 'closed'
  /** The server closed the connection within the answer. */
  | 'cut'
  /** Status 400 or above; where one status is expected, any other. */
  | 'status'
  /** A whole answer, but not to this request: wrong digest, wrong content, another request's id. */
  | 'wrong'
  /** Not HTTP/1.1, or an answer of which nobody could tell whether it is whole. */
  | 'malformed'
  /** No whole answer within the deadline. */
  | 'timeout'
  /** Pipelined behind an answer that said `Connection: close`: lost, but the client was told (RFC 9112, 9.6). */
  | 'told'
  /** An answer that no request asked for. */
  | 'unexpected'

/** Why a request has no whole, right answer. */
export interface Failure {
  /** For programs. */
  readonly reason: LossReason
  /** For people. */
  readonly error: string
  /** How many bytes of the answer came. */
  readonly bytes: number
}

/** What became of one request. */
export type Outcome =
  | { readonly answer: Answer; readonly failure?: never }
  | { readonly answer?: never; readonly failure: Failure }

/** What a connection tells its owner outside of any request. */
export interface ConnectionEvents {
  /** The server closed (or reset) the connection while no request was under way. */
  closedIdle(reset: boolean): void
  unexpected(failure: Failure): void
}

interface Exchange {
  readonly finish: (outcome: Outcome) => void
  sent: 'nothing' | 'a part' | 'all'
}

export class Connection {
  readonly #socket: net.Socket
  readonly #events: ConnectionEvents
  readonly #parser = new AnswerParser()
  readonly #exchanges: Exchange[] = []
  #open = true
  /** Kept after the end. */
  readonly localPort: number | undefined
  /** How many requests were sent on it. */
  requests = 0

  constructor(socket: net.Socket, events: ConnectionEvents) {
    this.#socket = socket
    this.#events = events
    this.localPort = socket.localPort
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    socket.on('end', () => this.#over('closed', 'the server closed the connection'))
    socket.on('close', () => this.#over('closed', 'the connection was closed'))
    socket.on('error', (error: NodeJS.ErrnoException) => this.#over('reset', error.code ?? error.message))
  }

  /** False from the moment at which the server's end, a reset or a close was seen. */
  get open(): boolean {
    return this.#open
  }

  /**
   * Sends a request and waits for its answer; never rejects.
   * `delayMs` is the time between the client's decision and its first byte's arrival at the server, plus the time that
   * news of a close takes the other way: a close within it loses the request, as it would over a long line.
   */
  request(request: Request, timeoutMs: number, delayMs = 0): Promise<Outcome> {
    if (!this.#open) throw new Error('the connection is not open') // a mistake in this package: callers look first
    return new Promise((resolve) => {
      const timers = new Set<NodeJS.Timeout>()
      const later = (ms: number, action: () => void): void => {
        const timer = setTimeout(() => {
          timers.delete(timer)
          action()
        }, ms)
        timers.add(timer)
      }
      const send = (): void => {
        const { head, rest, pauseMs = 0 } = request
        exchange.sent = rest === undefined ? 'all' : 'a part'
        this.#socket.write(head)
        if (rest === undefined) return
        later(pauseMs, () => {
          exchange.sent = 'all'
          this.#socket.write(rest)
        })
      }
      const exchange: Exchange = {
        sent: 'nothing',
        finish: (outcome) => {
          for (const timer of timers) clearTimeout(timer)
          resolve(outcome)
        }
      }
      this.requests += 1
      this.#exchanges.push(exchange)
      later(timeoutMs, () => this.#over('timeout', `no whole answer within ${timeoutMs} ms`))
      if (delayMs > 0) later(delayMs, send)
      else send()
    })
  }

  /** Sends several requests in one write. */
  pipeline(requests: readonly Request[], timeoutMs: number): Promise<Outcome[]> {
    this.#socket.cork()
    const outcomes = requests.map((request) => this.request(request, timeoutMs))
    this.#socket.uncork()
    return Promise.all(outcomes)
  }

  /** The client closes; requests under way, if any, are lost. */
  close(): void {
    if (this.#exchanges.length > 0) return this.#over('closed', 'the client closed the connection')
    this.#open = false
    this.#socket.destroy()
  }

  #read(chunk: Buffer): void {
    if (!this.#open) return
    try {
      for (const answer of this.#parser.feed(chunk)) {
        this.#take(answer)
        // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- #take may close it
        if (!this.#open) return
      }
    } catch (error) {
      if (!(error instanceof MalformedAnswer)) throw error
      return this.#over('malformed', error.message)
    }
    const { partialBytes } = this.#parser
    if (this.#exchanges.length === 0 && partialBytes > 0) this.#unexpected('bytes that nothing asked for', partialBytes)
  }

  #take(answer: Answer): void {
    const exchange = this.#exchanges[0]
    if (exchange === undefined || exchange.sent === 'nothing') {
      return this.#unexpected(`status ${answer.status} that nothing asked for`, answer.bytes)
    }
    this.#exchanges.shift()
    exchange.finish({ answer })
    if (answer.close && this.#exchanges.length > 0) this.#over('told', 'pipelined behind an answer with Connection: close')
    else if (answer.close || exchange.sent === 'a part') this.close()
  }

  #unexpected(error: string, bytes: number): void {
    this.#events.unexpected({ reason: 'unexpected', error, bytes })
    this.close()
  }

  #over(reason: LossReason, error: string): void {
    if (!this.#open) return
    this.#open = false
    this.#socket.destroy()
    const exchanges = this.#exchanges.splice(0)
    if (exchanges.length === 0) return this.#events.closedIdle(reason === 'reset')
    let bytes = this.#parser.partialBytes // of the first; the ones behind it got nothing
    for (const exchange of exchanges) {
      exchange.finish({ failure: { reason: reason === 'closed' && bytes > 0 ? 'cut' : reason, error, bytes } })
      bytes = 0
    }
  }
}

/** Connects; never rejects. */
export function connect(target: Target, timeoutMs: number, events: ConnectionEvents): Promise<Connection | Failure> {
  return new Promise((resolve) => {
    const { tls: secure = false, ...where } = target
    const socket = secure ? tls.connect({ ...where, rejectUnauthorized: false }) : net.connect(where)
    socket.setNoDelay(true)
    const fail = (error: NodeJS.ErrnoException): void => {
      clearTimeout(timer)
      socket.destroy()
      const refused = error.code === 'ECONNREFUSED' || error.code === 'ENOENT'
      resolve({ reason: refused ? 'refused' : 'connect', error: error.code ?? error.message, bytes: 0 })
    }
    const timer = setTimeout(() => fail(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs)
    socket.on('error', fail)
    socket.on('close', closed)
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      clearTimeout(timer)
      socket.off('error', fail)
      socket.off('close', closed)
      resolve(new Connection(socket, events))
    })
    function closed(): void {
      fail(new Error('the server closed the connection before it was established'))
    }
  })
}
