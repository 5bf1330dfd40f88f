/**
 * The clients of `dip`. They are strict: none asks again for a request that was lost. Each kind asks in its own way, and all of them count
 * the answers of each window of time. They share a process with the meter, which takes a part of the cores.
 */

import net from 'node:net'

interface Manner {
  readonly clients: number
  /** A connection for each request. */
  readonly closes?: true
  /** Requests of a connection that wait for their answers. */
  readonly depth: number
  /** From an answer to the next request. */
  readonly thinkMs: number
  /** Between the halves of the body of a POST. */
  readonly pauseMs?: number
}

export const manners = {
  'keep-alive': { clients: 8, depth: 1, thinkMs: 0 },
  'new connections': { clients: 8, depth: 1, thinkMs: 0, closes: true },
  'pipelined': { clients: 8, depth: 4, thinkMs: 0 },
  'think for 200 ms': { clients: 400, depth: 1, thinkMs: 200 },
  'POST in halves': { clients: 100, depth: 1, thinkMs: 0, pauseMs: 50 }
} satisfies Record<string, Manner>

export type Kind = keyof typeof manners

export class Clients {
  /** Answers of each window, from the first one on. */
  readonly windows: number[] = []
  /** Requests of which a byte was written, and that were not answered when the connection ended. */
  lost = 0
  /** The body of the last answer. */
  answering = ''
  readonly #port: number
  readonly #windowMs: number
  readonly #manner: Manner
  readonly #begun = performance.now()
  readonly #sockets = new Set<net.Socket>()
  #isOver = false

  constructor(port: number, kind: Kind, windowMs: number) {
    this.#port = port
    this.#windowMs = windowMs
    this.#manner = manners[kind]
    const { clients, thinkMs } = this.#manner
    // Those that think do not ask all at once.
    for (let client = 0; client < clients; client++) setTimeout(() => { this.#connect() }, thinkMs * client / clients)
  }

  get window(): number {
    return Math.floor((performance.now() - this.#begun) / this.#windowMs)
  }

  end(): void {
    this.#isOver = true
    for (const socket of this.#sockets) socket.destroy()
  }

  #connect(): void {
    if (this.#isOver) return
    const { depth, thinkMs, closes } = this.#manner
    let waiting = 0
    let thinking = 0
    let isClosing = false
    let end = ''
    const ask = (): void => {
      if (this.#isOver || isClosing || socket.destroyed) return
      waiting += 1
      this.#ask(socket)
    }
    const think = (): void => {
      thinking += 1
      setTimeout(() => {
        thinking -= 1
        // Closed meanwhile: it asks on another connection, no sooner.
        if (socket.destroyed) this.#connect()
        else ask()
      }, thinkMs)
    }
    const socket = net.connect(this.#port, '127.0.0.1', () => { for (let request = 0; request < depth; request++) ask() })
    this.#sockets.add(socket)
    socket.on('data', (chunk) => {
      const text = end + chunk.toString('latin1')
      // The end of a head may come in two parts.
      end = text.slice(-3)
      const [, ...bodies] = text.split('\r\n\r\n')
      if (bodies.length === 0) return
      waiting -= bodies.length
      const { window } = this
      this.windows[window] = (this.windows[window] ?? 0) + bodies.length
      this.answering = bodies.at(-1)!
      isClosing ||= closes === true || /^connection: close/im.test(text)
      bodies.forEach(thinkMs > 0 ? think : ask)
    }).on('error', () => undefined).on('close', () => {
      this.#sockets.delete(socket)
      if (!this.#isOver) this.lost += waiting
      if (thinking === 0) setImmediate(() => { this.#connect() })
    })
  }

  #ask(socket: net.Socket): void {
    const { closes, pauseMs } = this.#manner
    const head = `Host: x\r\n${closes ? 'Connection: close\r\n' : ''}`
    if (pauseMs === undefined) {
      socket.write(`GET / HTTP/1.1\r\n${head}\r\n`)
      return
    }
    socket.write(`POST / HTTP/1.1\r\n${head}Content-Length: 10\r\n\r\nfirst`)
    setTimeout(() => { socket.write('other') }, pauseMs)
  }
}
