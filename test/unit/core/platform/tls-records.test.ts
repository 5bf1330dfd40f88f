/** The record layer of moved TLS connections against Node's own TLS, which is on the other side of each. */

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import { certificate } from '../../../programs/certificate.mjs'
import { checkTls, native, snapshotTls, TlsRecordLayer, tlsUnavailable } from '../../../helpers/internals.js'
import { bothSides, clientByHand, goOn, moveTls, take, talk, tlsPair, type MovedTls, type TlsPair } from '../../../helpers/tls-moving.js'

const suites = [
  ['TLSv1.3', 'TLS_AES_128_GCM_SHA256'], ['TLSv1.3', 'TLS_AES_256_GCM_SHA384'], ['TLSv1.3', 'TLS_CHACHA20_POLY1305_SHA256'],
  ['TLSv1.2', 'ECDHE-ECDSA-AES128-GCM-SHA256'], ['TLSv1.2', 'ECDHE-ECDSA-AES256-GCM-SHA384'], ['TLSv1.2', 'ECDHE-ECDSA-CHACHA20-POLY1305']
] as const

const open: { end(): void }[] = []
afterEach(() => { for (const each of open.splice(0)) each.end() })

async function pair(
  version: tls.SecureVersion = 'TLSv1.3', ciphers?: string, options: tls.TlsOptions = {}, asClient: tls.ConnectionOptions = {}
): Promise<TlsPair> {
  const made = await tlsPair({ minVersion: version, maxVersion: version, ...(ciphers !== undefined && { ciphers }), ...options }, asClient)
  open.push(made)
  return made
}

const otherContext: tls.TlsOptions['SNICallback'] = (_name, answer) => { answer(null, tls.createSecureContext(certificate())) }

function moved(from: TlsPair): MovedTls {
  const made = moveTls(from)
  open.push(made)
  return made
}

it('TLS can be watched in this version of Node, and the test of it at start passes', async () => {
  expect(tlsUnavailable()).toBeUndefined()
  expect(await checkTls()).toBeUndefined()
})

describe.each(suites)('%s %s', (version, suite) => {
  it('goes on in both directions, with small and large pieces', async () => {
    const from = await pair(version, suite)
    await talk(from)
    const { layer, socket, read } = moved(from)
    for (const length of [1, 5, 16_383, 16_384, 16_385, 200_000]) {
      const sent = randomBytes(length)
      const there = read(length)
      from.client.write(sent)
      expect((await there).equals(sent)).toBe(true)
      const back = take(from.client, length)
      socket.write(layer.write(sent))
      expect((await back).equals(sent)).toBe(true)
    }
    expect(layer.whole).toBe(true)
  })

  it('has counted the records exactly', async () => {
    const from = await pair(version, suite)
    for (let times = 0; times < 20; times++) await talk(from, 'x'.repeat(1 + times * 800))
    const snapshot = snapshotTls(from.server)
    const first = version === 'TLSv1.3' ? { in: 0n, out: 2n } : { in: 1n, out: 1n } // two session tickets; the Finished
    expect(snapshot).toMatchObject({ protocol: version, readSequence: first.in + 20n, writeSequence: first.out + 20n })
  })

  it('exports the keying material that Node would export', async () => {
    const from = await pair(version, suite)
    await talk(from)
    const asked = [[20, 'EXPERIMENTAL-a', undefined], [200, 'EXPORTER-Channel-Binding', undefined], [48, 'EXPERIMENTAL-b', Buffer.from('about')]] as const
    const expected = asked.map(([length, label, context]) => from.client.exportKeyingMaterial(length, label, context as Buffer))
    const { layer } = moved(from)
    expect(asked.map(([length, label, context]) => layer.exportKeyingMaterial(length, label, context))).toEqual(expected)
  })

  it('moves on from one record layer to the next', async () => {
    const from = await pair(version, suite)
    await talk(from)
    let at = moved(from)
    for (let times = 0; times < 3; times++) {
      const there = at.read(5)
      from.client.write('there')
      expect((await there).toString()).toBe('there')
      const back = take(from.client, 4)
      at.socket.write(at.layer.write(Buffer.from('back')))
      expect((await back).toString()).toBe('back')
      const { fd } = (at.socket as unknown as { _handle: { fd: number } })._handle
      const next = goOn(native!.duplicate(fd), at.layer.snapshot())
      open.push(next)
      at.end()
      at = next
    }
  })

  it('ends with close_notify from either side', async () => {
    const from = await pair(version, suite)
    const { layer, socket } = moved(from)
    const heard = once(socket, 'data') as Promise<[Buffer]>
    from.client.end()
    expect(layer.read((await heard)[0])).toEqual({ ended: true })
    const ended = once(from.client.resume(), 'end')
    socket.write(layer.end())
    await ended
  })
})

describe('what a client may do', () => {
  it('a record that is cut anywhere waits for its rest', () => {
    const { client, snapshot } = bothSides()
    const whole = client.record(Buffer.from('hello'))
    for (let cut = 1; cut < whole.length; cut++) {
      const layer = new TlsRecordLayer(snapshot)
      expect(layer.read(Buffer.from(whole.subarray(0, cut)))).toEqual({})
      expect(layer.whole).toBe(false)
      expect(layer.read(Buffer.from(whole.subarray(cut)))).toEqual({ data: Buffer.from('hello') })
      expect(layer.whole).toBe(true)
    }
  })

  it('byte for byte, and many records in one piece', () => {
    const { layer, client } = bothSides()
    const sent = Array.from({ length: 300 }, (_, at) => randomBytes(at === 299 ? 16_384 : 1 + at % 7))
    const records = Buffer.concat(sent.map((each) => client.record(each)))
    const one = new TlsRecordLayer(layer.snapshot())
    expect(one.read(Buffer.from(records)).data!.equals(Buffer.concat(sent))).toBe(true)
    const pieces = Array.from(records, (byte) => layer.read(Buffer.from([byte])).data ?? Buffer.alloc(0))
    expect(Buffer.concat(pieces).equals(Buffer.concat(sent))).toBe(true)
  })

  it('padding is taken off, and a record of padding alone is refused', () => {
    const { layer, client } = bothSides()
    expect(layer.read(client.record(Buffer.from('hello\x17' + '\0'.repeat(1000)), 0))).toEqual({ data: Buffer.from('hello') })
    expect(layer.read(client.record(Buffer.from('\x17\0'), 0))).toEqual({})
    expect(() => layer.read(client.record(Buffer.alloc(20), 0))).toThrow(/EPROTO/)
  })

  it.each([['its header', 4], ['its content', 6], ['its tag', -1]])('a record with a bit changed in %s is refused', (_, at) => {
    const { layer, client } = bothSides()
    const record = client.record(Buffer.from('hello'))
    record[(at + record.length) % record.length]! ^= 1
    expect(() => layer.read(Buffer.concat([record, Buffer.alloc(40)]))).toThrow(/EILSEQ/)
  })

  it('a record that comes twice, or not at all, is refused', () => {
    const { layer, client } = bothSides()
    const [first, , third] = ['one', 'two', 'three'].map((text) => client.record(Buffer.from(text)))
    layer.read(Buffer.from(first!))
    expect(() => layer.read(Buffer.from(first!))).toThrow(/EILSEQ/)
    const { layer: other } = bothSides()
    other.read(Buffer.from(first!))
    expect(() => other.read(Buffer.from(third!))).toThrow(/EILSEQ/)
  })

  it('what is longer than a record may be, in the clear, or no TLS is refused', () => {
    for (const bytes of [[23, 3, 3, 0x41, 1], [21, 3, 3, 0, 2, 1, 0], [20, 3, 3, 0, 1, 1], [71, 69, 84, 32, 47]]) {
      const { layer } = bothSides()
      expect(() => layer.read(Buffer.from(bytes))).toThrow(/EPROTO/)
    }
  })

  it('a fatal alert throws, user_canceled does not', () => {
    const { layer, client } = bothSides()
    expect(layer.read(client.record(Buffer.from([1, 90]), 21))).toEqual({})
    expect(() => layer.read(client.record(Buffer.from([2, 20]), 21))).toThrow(/alert 20/)
  })

  it('what follows a close_notify is not read', () => {
    const { layer, client } = bothSides()
    const records = Buffer.concat([client.record(Buffer.from('last')), client.record(Buffer.from([1, 0]), 21), client.record(Buffer.from('more'))])
    expect(layer.read(records)).toEqual({ data: Buffer.from('last'), ended: true })
    expect(layer.read(client.record(Buffer.from('more')))).toEqual({ ended: true })
  })

  it('a KeyUpdate changes its keys, and is answered where that is wanted', () => {
    const { layer, client } = bothSides('TLSv1.3', 'TLS_CHACHA20_POLY1305_SHA256')
    const said = ['one', 'two', 'three'].map((text) => Buffer.from(text))
    const records = [client.record(said[0]!), client.keyUpdate(0), client.record(said[1]!), client.keyUpdate(1), client.record(said[2]!)]
    const { data, reply } = layer.read(Buffer.concat(records))
    expect(data?.toString()).toBe('onetwothree')
    const back = layer.write(Buffer.from('back'))
    expect(layer.snapshot()).toMatchObject({ readSequence: 1n, writeSequence: 1n })
    expect(client.records.read(Buffer.concat([reply!, back])).data?.toString()).toBe('back')
  })

  it('a KeyUpdate in two records is half a message until the second has come', () => {
    const { layer, client } = bothSides()
    expect(layer.read(client.record(Buffer.from([24, 0, 0]), 22))).toEqual({})
    expect(layer.whole).toBe(false)
    expect(layer.read(client.record(Buffer.from([1, 0]), 22))).toEqual({})
    expect(layer.whole).toBe(true)
  })

  it('KeyUpdates without end, malformed ones, and all other handshakes are refused', () => {
    const { layer, client } = bothSides()
    for (let times = 0; times < 32; times++) layer.read(client.keyUpdate(0))
    expect(() => layer.read(client.keyUpdate(0))).toThrow(/32 KeyUpdates/)
    for (const message of [[24, 0, 0, 1, 2], [24, 0, 0, 2, 0, 0], [24, 0, 0, 1, 0, 24], [1, 0, 0, 0], [11, 0, 0, 1, 0]]) {
      const { layer: each, client: other } = bothSides()
      expect(() => each.read(other.record(Buffer.from(message), 22))).toThrow(/refused|malformed/)
    }
  })

  it('TLS 1.2 is not negotiated again: the client hears that, and may go on, but not ask for ever', () => {
    const { layer, client } = bothSides('TLSv1.2', 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256')
    expect(layer.read(client.record(Buffer.from('hello')))).toEqual({ data: Buffer.from('hello') })
    const ask = (): Buffer => client.record(Buffer.from([1, 0, 0, 0]), 22)
    for (let times = 0; times < 32; times++) {
      const { reply } = layer.read(ask())
      expect(reply?.length).toBe(31)
      expect(client.records.read(reply!)).toEqual({})
    }
    expect(() => layer.read(ask())).toThrow(/nothing is negotiated again/)
    expect(() => layer.read(client.record(Buffer.from([0, 0, 0, 0]), 22))).toThrow(/nothing is negotiated again/)
  })

  it('bytes of any length come in order, in records as full as they can be', () => {
    const { layer, client } = bothSides()
    for (const length of [1, 6, 16_383, 16_384, 16_385, 49_152, 100_120]) {
      const whole = randomBytes(length)
      const records = layer.write(whole)
      expect(records).toHaveLength(whole.length + Math.ceil(whole.length / 16_384) * 22)
      expect(client.records.read(records).data?.equals(whole)).toBe(true)
    }
  })

  it('a client that takes only small records gets only such', () => {
    const { snapshot, client } = bothSides()
    const layer = new TlsRecordLayer({ ...snapshot, fragment: 512 })
    const records = layer.write(Buffer.alloc(2000, 'x'))
    expect(records.length).toBe(2000 + 4 * 22)
    expect(records.readUInt16BE(3)).toBe(512 + 17)
    expect(client.records.read(records).data).toHaveLength(2000)
    expect(layer.snapshot().fragment).toBe(512)
  })
})

describe('a snapshot', () => {
  it('is refused while a part of a record is with OpenSSL, after each of its bytes', async () => {
    const from = await pair()
    await talk(from)
    const client = clientByHand(from)
    open.push(client)
    for (let cut = 1; cut < 27; cut++) {
      const record = client.record(Buffer.from('hello'))
      const before = from.raw.bytesRead
      client.socket.write(record.subarray(0, cut))
      await expect.poll(() => from.raw.bytesRead).toBe(before + cut)
      expect(snapshotTls(from.server)).toEqual({ stays: 'half a record' })
      const rest = take(from.server, 5)
      client.socket.write(record.subarray(cut))
      await rest
      expect(snapshotTls(from.server)).toMatchObject({ readSequence: BigInt(1 + cut) })
    }
  })

  it('is refused while a handshake message is half read', async () => {
    const from = await pair()
    const client = clientByHand(from)
    open.push(client)
    from.server.resume()
    const record = client.record(Buffer.from([24, 0, 0]), 22)
    const before = from.raw.bytesRead
    client.socket.write(record)
    await expect.poll(() => from.raw.bytesRead).toBe(before + record.length)
    expect(snapshotTls(from.server)).toEqual({ stays: 'half a record' })
  })

  it.each(['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384'])('follows a KeyUpdate in both directions: %s', async (suite) => {
    const from = await pair('TLSv1.3', suite)
    await talk(from)
    const client = clientByHand(from)
    open.push(client)
    for (const wanted of [0, 1, 1] as const) {
      const there = take(from.server, 2)
      client.socket.write(Buffer.concat([client.keyUpdate(wanted), client.record(Buffer.from('on'))]))
      await there
      const back = once(client.socket, 'data') as Promise<[Buffer]>
      from.server.write('back')
      // The answer of OpenSSL to the KeyUpdate comes with its next record.
      let { data } = client.records.read((await back)[0])
      while (data === undefined) ({ data } = client.records.read(((await once(client.socket, 'data')) as [Buffer])[0]))
      expect(data.toString()).toBe('back')
      const { read: write, readSequence: writeSequence } = client.records.snapshot()
      expect(snapshotTls(from.server)).toMatchObject({ write, writeSequence, readSequence: 1n })
    }
    const { layer } = moved(from)
    expect(layer.read(client.record(Buffer.from('hello'))).data?.toString()).toBe('hello')
    expect(client.records.read(layer.write(Buffer.from('answer'))).data?.toString()).toBe('answer')
  })

  it('has counted all bytes that the descriptor has carried', async () => {
    const from = await pair()
    for (let times = 0; times < 10; times++) await talk(from, 'x'.repeat(1 + times * 5000))
    const about = native!.describeTls!(from.server.getFinished()!)
    expect(about).toMatchObject({ readBytes: from.raw.bytesRead, writeBytes: from.raw.bytesWritten })
  })

  it('is refused for a CBC suite, which stays', async () => {
    const from = await pair('TLSv1.2', 'ECDHE-ECDSA-AES128-SHA')
    await talk(from)
    expect(snapshotTls(from.server)).toEqual({ stays: 'cipher' })
  })

  it('is refused after the client has renegotiated TLS 1.2', async () => {
    const from = await pair('TLSv1.2', 'ECDHE-ECDSA-AES128-GCM-SHA256')
    from.server.resume()
    await new Promise<void>((resolve, reject) => { from.client.renegotiate({}, (error) => { if (error) reject(error); else resolve() }) })
    await talk(from)
    expect(snapshotTls(from.server)).toEqual({ stays: 'renegotiated' })
  })

  it.each(['TLSv1.3', 'TLSv1.2'] as const)('of a session that was resumed goes on: %s', async (version) => {
    const options = { ticketKeys: randomBytes(48) }
    const first = await pair(version, undefined, options)
    const ticket = once(first.client, 'session') as Promise<[Buffer]>
    await talk(first)
    const [session] = version === 'TLSv1.3' ? await ticket : [first.client.getSession()!]
    const from = await pair(version, undefined, options, { session })
    expect(from.server.isSessionReused()).toBe(true)
    await talk(from)
    const { layer, socket, read } = moved(from)
    const there = read(5)
    from.client.write('there')
    expect((await there).toString()).toBe('there')
    const back = take(from.client, 4)
    socket.write(layer.write(Buffer.from('back')))
    expect((await back).toString()).toBe('back')
  })

  it.each([
    ['a client certificate', { requestCert: true, rejectUnauthorized: false }, certificate()],
    ['another context by SNI', { SNICallback: otherContext }, { servername: 'localhost' }],
    ['a second ClientHello', { ecdhCurve: 'P-384' }, {}]
  ] satisfies [string, tls.TlsOptions, tls.ConnectionOptions][])('after a handshake with %s goes on', async (_, options, asClient) => {
    const from = await pair('TLSv1.3', undefined, options, asClient)
    await talk(from)
    const { layer, socket } = moved(from)
    const back = take(from.client, 4)
    socket.write(layer.write(Buffer.from('back')))
    expect((await back).toString()).toBe('back')
  })

  it('exists although the program listens for keylog, which it still hears', async () => {
    const lines: string[] = []
    const listener = tls.createServer({ ...certificate(), SNICallback: otherContext })
    listener.on('keylog', (line: Buffer) => lines.push(line.toString().split(' ')[0]!))
    listener.listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const { port } = listener.address() as { port: number }
    const secured = once(listener, 'secureConnection') as Promise<[tls.TLSSocket]>
    const client = tls.connect({ host: '127.0.0.1', port, rejectUnauthorized: false, servername: 'localhost' })
    await once(client, 'secureConnect')
    const [server] = await secured
    open.push({ end: () => { client.destroy(); server.destroy(); listener.close() } })
    await talk({ client, server })
    expect(snapshotTls(server)).toMatchObject({ protocol: 'TLSv1.3' })
    expect(lines).toEqual(expect.arrayContaining(['CLIENT_TRAFFIC_SECRET_0', 'SERVER_TRAFFIC_SECRET_0', 'EXPORTER_SECRET']))
  })

  it('is refused when the program traces the connection, so that nobody counts', async () => {
    const from = await pair()
    const { write } = process.stderr
    process.stderr.write = () => true
    try {
      from.server.enableTrace()
      await talk(from)
    } finally {
      process.stderr.write = write
    }
    expect(snapshotTls(from.server)).toEqual({ stays: 'half a record' })
  })

  it('is refused when the client has said close_notify', async () => {
    const from = await pair('TLSv1.3', undefined, { allowHalfOpen: true } as tls.TlsOptions)
    await talk(from)
    const ended = once(from.server.resume(), 'end')
    from.client.end()
    await ended
    expect(snapshotTls(from.server)).toEqual({ stays: 'closing' })
  })
})

it('a layer that was disposed of does nothing more', () => {
  const { layer, client } = bothSides()
  layer.dispose()
  layer.dispose()
  expect(() => layer.read(client.record(Buffer.from('x')))).toThrow(/EBADF/)
  expect(() => layer.write(Buffer.from('x'))).toThrow(/EBADF/)
  expect(() => layer.snapshot()).toThrow(/EBADF/)
})

it('wrong arguments are TypeErrors', () => {
  const { snapshot: { read, write } } = bothSides()
  type Unchecked = (...args: unknown[]) => number
  const Records = native!.TlsRecords! as unknown as new (...args: unknown[]) => { open: Unchecked; seal: Unchecked }
  const cipher = 'TLS_AES_128_GCM_SHA256'
  for (const args of [[], [0x304, cipher, read, write, -1, 0], [0x304, cipher, read.subarray(1), write, 0, 0], [0x304, 'TLS_NULL', read, write, 0, 0],
    [0x302, cipher, read, write, 0, 0], [0x304, cipher, 'x', write, 0, 0], ['x', cipher, read, write, 0, 0]]) {
    expect(() => new Records(...args)).toThrow(TypeError)
  }
  const records = new Records(0x304, cipher, read, write, 0, 0)
  for (const args of [[], [read], [read, new Int32Array(4)], [read, read]]) expect(() => records.open(...args)).toThrow(TypeError)
  expect(() => records.seal(23, 'x', read, 5)).toThrow(TypeError)
  expect(records.seal(23, read, Buffer.alloc(40), 16_384)).toBeLessThan(0)
  expect(records.seal(23, read, Buffer.alloc(400), 0)).toBeLessThan(0)
  expect(() => Reflect.apply(records.open.bind({}), {}, [read, new Int32Array(5)])).toThrow(TypeError)
  expect(() => native!.describeTls!('x' as unknown as Buffer)).toThrow(TypeError)
  expect(native!.describeTls!(Buffer.alloc(32))).toBeLessThan(0)
})

it('four threads with servers of their own are counted each by itself, and may end', async () => {
  const workerData = {
    key: String(certificate().key), cert: String(certificate().cert), connections: 30,
    records: fileURLToPath(new URL('../../../../packages/core/dist/platform/tls-records.js', import.meta.url))
  }
  const threads = Array.from({ length: 4 }, () => new Worker(new URL('../../../programs/tls-thread.mjs', import.meta.url), { workerData }))
  const ended = Promise.all(threads.map((thread) => once(thread, 'exit')))
  const exact = await Promise.all(threads.map(async (thread) => (await once(thread, 'message') as [number])[0]))
  expect(exact).toEqual([30, 30, 30, 30])
  await ended
  const from = await pair()
  await talk(from)
  expect(snapshotTls(from.server)).toMatchObject({ readSequence: 1n })
})
