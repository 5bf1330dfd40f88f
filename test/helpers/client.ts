/**
 * A client that writes bytes and shows what came back: for what no HTTP library would send, and for when exactly it is sent.
 */

import net from 'node:net'
import tls from 'node:tls'
import { once } from 'node:events'

export type Address = string | { readonly address: string; readonly port: number }

export class Client implements Disposable {
  /** All that the server sent. */
  text = ''
  /** How the server ended the connection: its end was seen, or a reset. */
  readonly over: Promise<'closed' | string>
  readonly socket: net.Socket
  readonly #watchers = new Set<() => void>()
  #over: string | undefined

  private constructor(socket: net.Socket) {
    this.socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text) => {
      this.text += String(text)
      this.#changed()
    })
    this.over = new Promise((resolve) => {
      const end = (how: string): void => {
        this.#over ??= how
        resolve(this.#over)
        this.#changed()
      }
      socket.on('end', () => { end('closed') })
      socket.on('error', (error: NodeJS.ErrnoException) => { end(error.code ?? error.message) })
      socket.on('close', () => { end('closed') })
    })
  }

  /** `address` as server.address() says it. Rejects where the connect fails. */
  static async connect(address: Address, options: { readonly tls?: boolean } = {}): Promise<Client> {
    const where = typeof address === 'string' ? { path: address } : { host: address.address, port: address.port }
    const socket = options.tls === true ? tls.connect({ ...where, rejectUnauthorized: false }) : net.connect(where)
    await once(socket, options.tls === true ? 'secureConnect' : 'connect')
    return new Client(socket.setNoDelay(true))
  }

  /** Begins TLS on a plain connection on which nothing was sent. */
  static async secure(socket: net.Socket, options: tls.ConnectionOptions = {}): Promise<Client> {
    const secure = tls.connect({ ...options, socket, rejectUnauthorized: false })
    await once(secure, 'secureConnect')
    return new Client(secure)
  }

  /** Of a connection under TLS that is open. */
  static over(socket: tls.TLSSocket): Client {
    return new Client(socket)
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher()
  }

  send(text: string): this {
    this.socket.write(text)
    return this
  }

  /** A request without a body, or with `body` and its length. */
  request(target: string, { method = 'GET', headers = '', body }: { method?: string; headers?: string; body?: string } = {}): this {
    const length = body === undefined ? '' : `Content-Length: ${Buffer.byteLength(body)}\r\n`
    return this.send(`${method} ${target} HTTP/1.1\r\nHost: test\r\n${headers}${length}\r\n${body ?? ''}`)
  }

  /** Resolves when the pattern has come. Rejects when the connection ends before. */
  async received(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#until(() => pattern.exec(this.text), pattern.source)
  }

  /** Resolves when what has come ends so: for megabytes, through which a pattern would look at each piece. Rejects as `received` does. */
  async receivedEnd(end: string): Promise<void> {
    await this.#until(() => this.text.endsWith(end) || null, end)
  }

  async #until<T>(find: () => T | null, what: string): Promise<T> {
    for (;;) {
      const found = find()
      if (found !== null) return found
      if (this.#over !== undefined) throw new Error(`the connection ended (${this.#over}) without ${what}; it sent ${JSON.stringify(this.text.slice(0, 10_000))}`)
      await new Promise<void>((resolve) => {
        const watcher = (): void => {
          this.#watchers.delete(watcher)
          resolve()
        }
        this.#watchers.add(watcher)
      })
    }
  }

  [Symbol.dispose](): void {
    this.socket.destroy()
  }
}
