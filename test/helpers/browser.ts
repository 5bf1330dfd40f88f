/** Chromium without a window, driven over its debugging port: goes to a page, and evaluates an expression there. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { WebSocket } from 'ws'
import { endGroup, waitFor } from './program.js'

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: Record<string, unknown>
  readonly result?: Record<string, unknown>
  readonly error?: { readonly message: string }
}

export class Browser {
  /** Exceptions of pages, and requests to other places than `origin`. */
  readonly complaints: string[] = []
  /** Which connection each answer began on. */
  readonly answers: { readonly path: string; readonly connection: number; readonly protocol: string }[] = []
  readonly #socket: WebSocket
  readonly #end: () => Promise<void>
  readonly #waiting = new Map<number, (message: Message) => void>()
  #ids = 0
  /** The documents that are there with all that belongs to them. */
  readonly #loaded = new Set<unknown>()

  constructor(socket: WebSocket, origin: string, end: () => Promise<void>) {
    this.#socket = socket
    this.#end = end
    socket.on('message', (data: Buffer) => {
      const { id, method, params, ...rest } = JSON.parse(data.toString()) as Message
      if (id !== undefined) this.#waiting.get(id)?.(rest)
      if (method === 'Page.lifecycleEvent' && params!['name'] === 'load') this.#loaded.add(params!['loaderId'])
      if (method === 'Runtime.exceptionThrown') this.complaints.push(JSON.stringify(params))
      if (method === 'Network.responseReceived') {
        const { url, connectionId, protocol } = params!['response'] as { url: string; connectionId: number; protocol: string }
        this.answers.push({ path: new URL(url).pathname, connection: connectionId, protocol })
      }
      const url = (params?.['request'] as { url: string } | undefined)?.url
      if (method === 'Network.requestWillBeSent' && url !== undefined && !url.startsWith(origin) && !/^(data|blob|about|chrome):/.test(url)) this.complaints.push(url)
    })
  }

  static async start(origin: string): Promise<Browser> {
    const profile = mkdtempSync(path.join(tmpdir(), 'handover-chromium-'))
    const options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--remote-debugging-port=0', `--user-data-dir=${profile}`]
    const child = spawn('chromium', [...options, 'about:blank'], { stdio: 'ignore', detached: true })
    /** The browser goes on writing its profile until its last process is gone. */
    const end = async (): Promise<void> => {
      await endGroup(child)
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
    }
    try {
      const portFile = path.join(profile, 'DevToolsActivePort')
      await waitFor(() => existsSync(portFile) && readFileSync(portFile, 'utf8').includes('\n'))
      let page: { type: string; webSocketDebuggerUrl: string } | undefined
      await waitFor(async () => {
        const targets = await (await fetch(`http://127.0.0.1:${readFileSync(portFile, 'utf8').split('\n')[0]}/json/list`)).json() as NonNullable<typeof page>[]
        return (page = targets.find(({ type }) => type === 'page')) !== undefined
      })
      const socket = new WebSocket(page!.webSocketDebuggerUrl)
      await once(socket, 'open')
      const browser = new Browser(socket, origin, end)
      for (const domain of ['Page', 'Runtime', 'Network']) await browser.send(`${domain}.enable`)
      await browser.send('Page.setLifecycleEventsEnabled', { enabled: true })
      await browser.send('Security.setIgnoreCertificateErrors', { ignore: true })
      return browser
    } catch (error) {
      await end()
      throw error
    }
  }

  async send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.#ids
    const { result, error } = await new Promise<Message>((resolve) => {
      this.#waiting.set(id, resolve)
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
    if (error) throw new Error(`${method}: ${error.message}`)
    return result ?? {}
  }

  async goTo(url: string): Promise<void> {
    // The page before may still be loading.
    const { loaderId } = await this.send('Page.navigate', { url })
    await waitFor(() => this.#loaded.has(loaderId))
  }

  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true })
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails))
    return (result as { value: T }).value
  }

  async resize(width: number, height: number): Promise<void> {
    await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 })
  }

  async screenshot(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' })
    return Buffer.from(data as string, 'base64')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.terminate()
    await this.#end()
  }
}
