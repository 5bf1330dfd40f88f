/** A connection between a client and a server of Node's own TLS, whose server side goes on in a record layer over the same descriptor. */

import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
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
