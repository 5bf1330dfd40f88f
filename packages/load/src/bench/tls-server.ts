/**
 * The servers of `bench tls`: `node` is Node's own TLS, `watched` the same while the addon counts, and in `moved` the record layer of moved
 * connections takes over each connection after its handshake, in the same process. They answer with as many bytes as the path says.
 * Several sides are servers of one process: the addon counts for the contexts that were made after it began to.
 */

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import { Duplex } from 'node:stream'
import tls from 'node:tls'
import { addon } from '../../../core/dist/platform/native.js'
import { snapshotTls, TlsRecordLayer, watchTls, wipeSnapshot } from '../../../core/dist/platform/tls-records.js'

export type TlsSide = 'node' | 'watched' | 'moved'
/** Asked by any message. */
export interface TlsServerSays {
  /** Of each side, once all listen. */
  readonly ports?: readonly number[]
  readonly cpuUs: number
  readonly rss: number
}

const [key, cert, ...sides] = process.argv.slice(2) as [string, string, ...TlsSide[]]

class Moved extends Duplex {
  readonly #raw: net.Socket
  readonly #layer: TlsRecordLayer

  constructor(raw: net.Socket, layer: TlsRecordLayer) {
    super()
    this.#raw = raw
    this.#layer = layer
    raw.on('data', (chunk: Buffer) => {
      const { data, reply, ended } = layer.read(chunk)
      if (reply) raw.write(reply)
      if (data && !this.push(data)) raw.pause()
      if (ended) this.push(null)
    })
    raw.on('close', () => this.destroy())
  }

  override _read(): void { this.#raw.resume() }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void { this.#raw.write(this.#layer.write(chunk), done) }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.#raw.write(this.#layer.write(Buffer.concat(chunks.map(({ chunk }) => chunk))), done)
  }

  override _final(done: () => void): void { this.#raw.end(this.#layer.end(), done) }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#layer.dispose()
    this.#raw.destroy()
    done(error)
  }
}

const bodies = new Map<string, Buffer>()
const answer: http.RequestListener = ({ url = '/0' }, response) => {
  if (!bodies.has(url)) bodies.set(url, Buffer.alloc(Number(url.slice(1)), 'x'))
  response.end(bodies.get(url))
}

const options = { key: readFileSync(key), cert: readFileSync(cert), keepAliveTimeout: 60_000 }
const plain = http.createServer({ keepAliveTimeout: 60_000 }, answer)

function serverOf(side: TlsSide): tls.Server {
  if (side !== 'node') watchTls()
  return side === 'moved' ? tls.createServer(options, takeOver) : https.createServer(options, answer)
}

function takeOver(socket: tls.TLSSocket): void {
  setImmediate(() => {
    const snapshot = snapshotTls(socket)
    if ('stays' in snapshot) throw new Error(snapshot.stays)
    const early = socket.read() as Buffer | null
    const fd = addon().duplicate((Reflect.get(socket, '_' + 'handle') as { fd: number }).fd)
    socket.destroy()
    const layer = new TlsRecordLayer(snapshot)
    wipeSnapshot(snapshot)
    const moved = new Moved(new net.Socket({ fd }), layer)
    plain.emit('connection', moved)
    if (early) moved.push(early)
  })
}

const say = (ports?: readonly number[]): void => {
  globalThis.gc?.()
  const { user, system } = process.cpuUsage()
  process.send!({ ...(ports && { ports }), cpuUs: user + system, rss: process.memoryUsage().rss } satisfies TlsServerSays)
}
process.on('message', () => { say() })
process.on('disconnect', () => process.exit())
const servers = sides.map((side) => serverOf(side).listen(0, '127.0.0.1'))
await Promise.all(servers.map((server) => once(server, 'listening')))
say(servers.map((server) => (server.address() as AddressInfo).port))
