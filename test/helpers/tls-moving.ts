/** A connection between a client and a server of Node's own TLS, whose server side goes on in a record layer over the same descriptor. */

import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import tls from 'node:tls'
import { certificate } from '../programs/certificate.mjs'
import { native, snapshotTls, TlsRecordLayer, watchTls, wipeSnapshot, type TlsSnapshot } from './internals.js'

watchTls()

export interface TlsPair {
  readonly client: tls.TLSSocket
  readonly server: tls.TLSSocket
  /** The TCP socket under the server's side. */
  readonly raw: net.Socket
  end(): void
}

export async function tlsPair(options: tls.TlsOptions = {}, asClient: tls.ConnectionOptions = {}): Promise<TlsPair> {
  const listener = tls.createServer({ ...certificate(), ...options }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const accepted = once(listener, 'connection') as Promise<[net.Socket]>
  const secured = once(listener, 'secureConnection') as Promise<[tls.TLSSocket]>
  const client = tls.connect({ host: '127.0.0.1', port: (listener.address() as AddressInfo).port, rejectUnauthorized: false, ...asClient })
  const [[raw], [server]] = await Promise.all([accepted, secured, once(client, 'secureConnect')])
  await setImmediate() // Node tells of the connection before OpenSSL has written the session tickets
  return { client, server, raw, end: () => { client.destroy(); server.destroy(); listener.close() } }
}

/** Everything that comes until `length` bytes are there. */
export async function take(from: NodeJS.ReadableStream, length: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let had = 0
  return await new Promise((resolve, reject) => {
    const hear = (chunk: Buffer): void => {
      chunks.push(chunk)
      if ((had += chunk.length) < length) return
      from.off('data', hear).off('error', reject)
      resolve(Buffer.concat(chunks))
    }
    if (length === 0) resolve(Buffer.alloc(0))
    else from.on('data', hear).once('error', reject)
  })
}

/** Something there and something back, so that both sides have used their keys. */
export async function talk({ client, server }: Pick<TlsPair, 'client' | 'server'>, text = 'hello'): Promise<void> {
  const [there, back] = [take(server, text.length), take(client, text.length)]
  client.write(text)
  await there
  server.write(text)
  await back
}

export interface MovedTls {
  readonly layer: TlsRecordLayer
  /** The connection, which carries records. */
  readonly socket: net.Socket
  readonly snapshot: TlsSnapshot
  /** Opens what comes until there are `length` bytes; writes the replies. */
  read(length: number): Promise<Buffer>
  end(): void
}

/** Takes the server's side out of Node's TLS. The snapshot is not wiped: tests look at it. */
export function moveTls({ server, raw }: TlsPair): MovedTls {
  const snapshot = snapshotTls(server)
  if ('stays' in snapshot) throw new Error(`it stays: ${snapshot.stays}`)
  const fd = native!.duplicate((raw as unknown as { _handle: { fd: number } })._handle.fd)
  server.destroy()
  return goOn(fd, snapshot)
}

export function goOn(fd: number, snapshot: TlsSnapshot): MovedTls {
  const layer = new TlsRecordLayer(snapshot)
  const socket = new net.Socket({ fd })
  return {
    layer, socket, snapshot,
    async read(length) {
      const chunks: Buffer[] = []
      let had = 0
      await new Promise<void>((resolve, reject) => {
        const hear = (chunk: Buffer): void => {
          try {
            const { data, reply } = layer.read(chunk)
            if (reply) socket.write(reply)
            if (data) chunks.push(data)
            had += data?.length ?? 0
          } catch (error) {
            reject(error as Error)
          }
          if (had < length) return
          socket.off('data', hear)
          resolve()
        }
        socket.on('data', hear)
      })
      return Buffer.concat(chunks)
    },
    end() {
      socket.destroy()
      layer.dispose()
      wipeSnapshot(snapshot)
    }
  }
}

/** The client's side of a connection, with a record layer in the place of OpenSSL: it sends what Node's client cannot send. */
export interface ByHand {
  readonly socket: net.Socket
  /** A record; with `type` 0 the content ends with its real type and its padding. */
  record(content: Buffer, type?: number): Buffer
  /** A KeyUpdate; what is sent after it has the next keys. */
  keyUpdate(wanted: 0 | 1): Buffer
  readonly records: TlsRecordLayer
}

/** Takes the client's side out of Node's TLS, by what the server knows. */
export function clientByHand({ client, server }: TlsPair): ByHand & { end(): void } {
  const snapshot = snapshotTls(server)
  if ('stays' in snapshot) throw new Error(`it stays: ${snapshot.stays}`)
  const { read, write, readSequence, writeSequence, ...about } = snapshot
  const turned = { ...about, read: write, write: read, readSequence: writeSequence, writeSequence: readSequence }
  const fd = native!.duplicate((client as unknown as { _handle: { _parent: { fd: number } } })._handle._parent.fd)
  client.destroy()
  const socket = new net.Socket({ fd }).resume()
  return { socket, ...byHand(turned), end() { socket.destroy() } }
}

function byHand(snapshot: TlsSnapshot): Omit<ByHand, 'socket'> {
  const { protocol, cipher, read, write, readSequence, writeSequence } = snapshot
  const version = protocol === 'TLSv1.3' ? 0x304 : 0x303
  const sealing = new native!.TlsRecords!(version, cipher, read, write, Number(readSequence), Number(writeSequence))
  const record = (content: Buffer, type = 23): Buffer => {
    const into = Buffer.alloc(content.length + 29)
    return into.subarray(0, sealing.seal(type, content, into, 16_384))
  }
  return {
    record, records: new TlsRecordLayer(snapshot),
    keyUpdate(wanted) {
      const message = record(Buffer.from([24, 0, 0, 1, wanted]), 22)
      sealing.update(true)
      return message
    }
  }
}

/** Two layers that stand on both sides of one connection, without one. */
export function bothSides(protocol: TlsSnapshot['protocol'] = 'TLSv1.3', cipher = 'TLS_AES_128_GCM_SHA256'): {
  readonly layer: TlsRecordLayer; readonly client: Omit<ByHand, 'socket'>; readonly snapshot: TlsSnapshot
} {
  const length = protocol === 'TLSv1.2' ? 20 : 32
  const [read, write] = [Buffer.alloc(length, 1), Buffer.alloc(length, 2)]
  const snapshot: TlsSnapshot = { protocol, cipher, read, write, readSequence: 3n, writeSequence: 5n }
  const client = byHand({ ...snapshot, read: write, write: read, readSequence: 5n, writeSequence: 3n })
  return { layer: new TlsRecordLayer(snapshot), client, snapshot }
}
