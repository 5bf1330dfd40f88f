/**
 * Whether TLS connections of this process can move: tried once, before the first move, on a connection of its own that Node's client and
 * server make in memory. It has a secret of its own and no certificate (RFC 8446, 2.2). What the addon counted and the secrets that it
 * found must let a record layer go on for the server, in both directions.
 */

import { Duplex } from 'node:stream'
import type tls from 'node:tls'
import { hasMemoryFiles } from './memory-file.js'
import { snapshotAt, TlsRecordLayer, tlsUnavailable, wipeSnapshot } from './tls-records.js'

let checked: Promise<string | undefined> | undefined

/** Why TLS connections cannot move from and to this process, or undefined. The program has loaded tls by then. */
export async function checkTls(): Promise<string | undefined> {
  // Never are keys in a file on a disk.
  if (!hasMemoryFiles()) return 'this system has no files in memory (memfd_create) for the keys'
  return tlsUnavailable() ?? await (checked ??= tryHandshake())
}

/** What one side writes, the other reads. Counts as a handle does. */
class Wire extends Duplex {
  other: Wire | undefined
  bytesRead = 0
  bytesWritten = 0

  override _read(): void { /* the other side pushes */ }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.bytesWritten += chunk.length
    if (this.other) {
      this.other.bytesRead += chunk.length
      this.other.push(chunk)
    }
    done()
  }
}

const turn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve) })

/** Turns of the loop until the condition holds. The handshake takes about five; it has no time of its own. */
async function until(holds: () => boolean, what: string): Promise<void> {
  for (let turns = 0; !holds(); turns++) {
    if (turns === 200) throw new Error(`${what} does not happen`)
    await turn()
  }
}

async function tryHandshake(): Promise<string | undefined> {
  const { connect, createSecureContext, TLSSocket } = process.getBuiltinModule('node:tls')
  const psk = process.getBuiltinModule('node:crypto').randomBytes(32)
  const [ours, theirs] = [new Wire(), new Wire()]
  Object.assign(ours, { other: theirs })
  theirs.other = ours
  // Whatever the defaults of this program are. The suite has the hash of the secret.
  const version = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' } as const
  const problems: Error[] = []
  const secureContext = createSecureContext(version)
  const server = new TLSSocket(ours, { isServer: true, secureContext, pskCallback: () => psk } as tls.TLSSocketOptions)
  const client = connect({
    ...version, socket: theirs, pskCallback: () => ({ psk, identity: 'handover' }), checkServerIdentity: () => undefined
  } as tls.ConnectionOptions)
  for (const side of [server, client]) side.on('error', (error: Error) => problems.push(error))
  let [heard, answer] = ['', '']
  server.on('data', (data: Buffer) => { heard += data.toString() })
  client.on('data', (data: Buffer) => { answer += data.toString() })
  try {
    client.write('one')
    await until(() => heard === 'one' || problems.length > 0, 'a handshake')
    if (problems.length > 0) throw problems[0]!
    server.write('two')
    await until(() => answer === 'two', 'an answer')
    const snapshot = snapshotAt(server, { bytesRead: ours.bytesRead, bytesWritten: ours.bytesWritten, queued: 0 })
    if ('stays' in snapshot) throw new Error(`a connection in memory has no snapshot: ${snapshot.stays}`)
    ours.other = undefined // what the server writes from now on is lost
    theirs.other = undefined
    const layer = new TlsRecordLayer(snapshot)
    wipeSnapshot(snapshot)
    try {
      theirs.push(layer.write(Buffer.from('three')))
      await until(() => answer === 'twothree', 'the answer of a record layer')
      const sent: Buffer[] = []
      theirs.other = Object.assign(new Wire(), { push: (chunk: Buffer) => sent.push(Buffer.from(chunk)) > 0 })
      client.write('four')
      await until(() => sent.length > 0, 'a record')
      if (layer.read(Buffer.concat(sent)).data?.toString() !== 'four') throw new Error('a record is not opened')
    } finally {
      layer.dispose()
    }
    return undefined
  } catch (error) {
    return `TLS works differently in this version of Node (${process.version}): ${(error as Error).message}`
  } finally {
    client.destroy()
    server.destroy()
  }
}
