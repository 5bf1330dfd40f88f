/**
 * WebSocket clients for the chaos: each says one number after the other, awaits that it comes back, and notes every connection that broke.
 * One that broke is opened anew, as a user's would be.
 */

import net from 'node:net'
import { nowMs } from '@handover/load'
import { WebSocket } from 'ws'

export interface Break {
  /** On the clock of nowMs(). */
  readonly begunMs: number
  readonly atMs: number
  readonly port: number | undefined
  readonly how: string
}

export class Chatters {
  readonly breaks: Break[] = []
  /** Answers that were not what was said. */
  readonly wrong: string[] = []
  echoes = 0
  readonly #target: { readonly host: string; readonly port: number }
  readonly #sockets = new Set<WebSocket>()
  #stopping = false
  #away: Promise<unknown> | undefined
  readonly #over: Promise<unknown>

  constructor(target: { readonly host: string; readonly port: number }, count: number) {
    this.#target = target
    this.#over = Promise.all(Array.from({ length: count }, () => this.#chat()))
  }

  async #chat(): Promise<void> {
    while (!this.#stopping) {
      await this.#away
      const begunMs = nowMs()
      const { how, port } = await this.#one()
      if (this.#stopping) return
      if (this.#away) continue
      this.breaks.push({ begunMs, atMs: nowMs(), port, how })
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** One connection, from its start to its end. */
  async #one(): Promise<{ how: string; port: number | undefined }> {
    let port: number | undefined
    const { host, port: to } = this.#target
    const createConnection = (): net.Socket => {
      const tcp = net.connect(to, host).once('connect', () => { port = tcp.localPort })
      return tcp
    }
    const socket = new WebSocket(`ws://${host}:${to}/`, { createConnection, perMessageDeflate: false })
    this.#sockets.add(socket)
    return await new Promise((resolve) => {
      let said = 0
      let how = ''
      const say = (): void => { if (socket.readyState === WebSocket.OPEN) socket.send(String(++said)) }
      socket.on('open', say)
      socket.on('message', (data: Buffer) => {
        if (data.toString() !== String(said)) this.wrong.push(`${data.toString()} came back for ${said}`)
        this.echoes++
        setTimeout(say, 15)
      })
      socket.on('error', (error: NodeJS.ErrnoException) => { how = error.code ?? error.message })
      socket.on('close', (code) => {
        this.#sockets.delete(socket)
        resolve({ how: how || String(code), port })
      })
    })
  }

  /** All of them leave, and come back when `until` is over. */
  async leave<T>(until: () => Promise<T>): Promise<T> {
    const over = until()
    this.#away = over.catch(() => undefined)
    for (const socket of this.#sockets) socket.terminate()
    try {
      return await over
    } finally {
      this.#away = undefined
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true
    for (const socket of this.#sockets) socket.terminate()
    await this.#over
  }
}
