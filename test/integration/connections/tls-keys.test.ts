/**
 * Keys that change in the very moment of a move. The client is Node's own until its first answer; then it goes on by hand, with the secrets
 * that Node has told, and sends records, and pieces of them, when the test wants it.
 */

import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import tls from 'node:tls'
import { expect, onTestFinished, test } from 'vitest'
import { native, TlsRecordLayer, type TlsSnapshot } from '../../helpers/internals.js'
import { answersIn, Moving } from '../../helpers/moving.js'

const cipher = 'TLS_AES_128_GCM_SHA256'
const get = (target: string): Buffer => Buffer.from(`GET ${target} HTTP/1.1\r\nHost: test\r\n\r\n`)

class ClientByHand {
  readonly #socket: net.Socket
  readonly #sealing
  readonly #secrets: Pick<TlsSnapshot, 'read' | 'write'>
  #layer: TlsRecordLayer | undefined
  #text = ''
  asked = 0
  answered = 0
  over: string | undefined

  private constructor(socket: net.Socket, read: Buffer, write: Buffer) {
    this.#socket = socket.setNoDelay(true)
    // One record had the first request.
    this.#sealing = new native!.TlsRecords!(0x304, cipher, read, write, 0, 1)
    this.#secrets = { read, write }
    socket.on('data', (chunk: Buffer) => {
      try {
        this.#hear((this.#layer ??= this.#layerFor(chunk)).read(chunk).data)
      } catch (error) {
        this.over ??= String(error)
      }
    })
    for (const event of ['error', 'end', 'close']) socket.on(event, (error: unknown) => { this.over ??= `${event} ${String(error)}` })
  }

  static async connect(port: number): Promise<ClientByHand> {
    const secrets = new Map<string, Buffer>()
    const client = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, minVersion: 'TLSv1.3', ciphers: cipher })
    client.on('keylog', (line: Buffer) => {
      const [label = '', , secret = ''] = line.toString().trim().split(' ')
      secrets.set(label, Buffer.from(secret, 'hex'))
    }).on('error', () => undefined).write(get('/'))
    for (let text = ''; answersIn(text).answers.length === 0;) text += String((await once(client, 'data') as [Buffer])[0])
    const fd = native!.duplicate((client as unknown as { _handle: { _parent: { fd: number } } })._handle._parent.fd)
    client.destroy()
    const hand = new ClientByHand(new net.Socket({ fd }), secrets.get('SERVER_TRAFFIC_SECRET_0')!, secrets.get('CLIENT_TRAFFIC_SECRET_0')!)
    onTestFinished(() => { hand.#socket.destroy() })
    return hand
  }

  /** How many records have come before is not known: tickets, and the first answer. */
  #layerFor(chunk: Buffer): TlsRecordLayer {
    for (let readSequence = 0n; readSequence < 12n; readSequence++) {
      const snapshot = { protocol: 'TLSv1.3', cipher, ...this.#secrets, readSequence, writeSequence: 0n } as const
      try {
        new TlsRecordLayer(snapshot).read(Buffer.from(chunk))
        return new TlsRecordLayer(snapshot)
      } catch { /* the next number */ }
    }
    throw new Error('no number fits')
  }

  #hear(data: Buffer | undefined): void {
    const { answers, rest } = answersIn(this.#text + (data ?? '').toString())
    this.#text = rest
    this.answered += answers.length
    if (answers.some(({ status }) => status !== 200)) this.over ??= 'another status'
  }

  request(): Buffer {
    return this.#record(get(`/?${this.asked++}`))
  }

  /** A KeyUpdate; `wanted`: the server is to change its keys, too. */
  keyUpdate(wanted: boolean): Buffer {
    const record = this.#record(Buffer.from([24, 0, 0, 1, Number(wanted)]), 22)
    this.#sealing.update(true)
    return record
  }

  #record(content: Buffer, type = 23): Buffer {
    const into = Buffer.alloc(content.length + 29)
    return into.subarray(0, this.#sealing.seal(type, content, into, 16_384))
  }

  /** In up to four pieces, cut anywhere, some milliseconds after each other. */
  async send(bytes: Buffer): Promise<void> {
    let at = 0
    for (let cuts = Math.floor(Math.random() * 4); cuts > 0; cuts--) {
      const to = at + Math.floor(Math.random() * (bytes.length - at))
      this.#socket.write(bytes.subarray(at, to))
      at = to
      await wait(Math.random() * 30)
    }
    this.#socket.write(bytes.subarray(at))
  }

  async hasAll(): Promise<void> {
    while (this.answered < this.asked && this.over === undefined) await wait(2)
  }
}

test('keys change at any moment of a move, in records that come in pieces: every request is answered, and no connection is closed', async () => {
  const moving = await Moving.start({ kind: 'https' })
  const { port } = moving.address as { port: number }
  const clients = await Promise.all(Array.from({ length: 8 }, () => ClientByHand.connect(port)))
  let stop = false
  const work = clients.map(async (client, index) => {
    while (!stop && client.over === undefined) {
      const records: Buffer[] = []
      for (let updates = Math.floor(Math.random() * 3); updates > 0; updates--) records.push(client.keyUpdate(Math.random() < 0.6))
      if (Math.random() < 0.6) records.push(client.request())
      if (Math.random() < 0.2) records.push(client.keyUpdate(true))
      await client.send(Buffer.concat(records))
      // Some send the next request before they have the answer.
      if (Math.random() < 0.8) await client.hasAll()
      await wait(index < 4 ? 0 : Math.random() * 50)
    }
    await client.hasAll()
  })
  for (const generation of [2, 3]) {
    await moving.reload()
    await moving.arrived(clients.length, generation)
  }
  stop = true
  await Promise.all(work)
  const found = clients.map(({ over, asked, answered }) => ({ over, missing: asked - answered }))
  expect(found).toEqual(clients.map(() => ({ over: undefined, missing: 0 })))
  expect(await moving.report()).toMatchObject({ connections: { open: 8, moved: 8, drained: 0, closedIdle: 0, cut: 0, stayed: {} } })
})
