/** The socket of a TLS connection that another process began, against Node's own client. */

import { once } from 'node:events'
import type net from 'node:net'
import tls from 'node:tls'
import { setImmediate as turn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { expect, it, onTestFinished } from 'vitest'
import { holdReading, MovedTlsSocket, native, adoptDescriptor, releaseReading, snapshotTls } from '../../../helpers/internals.js'
import { clientByHand, take, talk, tlsPair, type TlsPair } from '../../../helpers/tls-moving.js'

async function moved(
  options?: tls.TlsOptions, asClient?: tls.ConnectionOptions
): Promise<{ pair: TlsPair; socket: MovedTlsSocket; raw: net.Socket }> {
  const pair = await tlsPair(options, asClient)
  await talk(pair)
  const snapshot = snapshotTls(pair.server)
  if ('stays' in snapshot) throw new Error(snapshot.stays)
  const fd = native!.duplicate((pair.raw as unknown as { _handle: { fd: number } })._handle.fd)
  const raw = adoptDescriptor(fd, undefined, (bytes) => { socket.arrived(bytes) })
  const [cipher, session] = [pair.server.getCipher(), pair.server.getSession()]
  pair.server.destroy()
  const identity = { alpn: false, servername: false, authorized: false, reused: false, cipher } as const
  const socket: MovedTlsSocket = new MovedTlsSocket(raw, snapshot, identity, { session })
  onTestFinished(() => {
    socket.destroy()
    pair.end()
  })
  return { pair, socket, raw }
}

it('where it is held while it hears what came, nothing more is read until it is released', async () => {
  const { pair: { client }, socket, raw } = await moved()
  socket.once('data', () => { holdReading(socket) })
  client.write('one')
  await once(socket, 'data')
  const { bytesRead } = raw
  client.write('two')
  for (let turns = 0; turns < 20; turns++) await turn()
  expect(raw.bytesRead).toBe(bytesRead)
  expect(socket.readableLength + raw.readableLength).toBe(0)
  const rest = take(socket, 3)
  releaseReading(socket)
  expect((await rest).toString()).toBe('two')
})

it('what came before the end of the client is there when this side has ended, too', async () => {
  const { pair: { client }, socket, raw } = await moved({ allowHalfOpen: true })
  client.end('there')
  await once(raw, 'end')
  socket.end('back')
  await once(raw, 'close')
  expect((await take(socket, 5)).toString()).toBe('there')
})

it('an answer that comes after the client has ended is sent, where this side may stay open', async () => {
  const { pair: { client }, socket, raw } = await moved({ allowHalfOpen: true })
  client.end('there')
  const back = take(client, 4)
  await once(raw, 'end')
  socket.end('back')
  expect((await back).toString()).toBe('back')
})

it('a destroyed one has wiped its keys, whatever listeners were removed', async () => {
  const { socket, raw } = await moved()
  socket.removeAllListeners()
  socket.destroy()
  expect(() => socket.layer.write(Buffer.from('x'))).toThrow(/EBADF/)
  expect(raw.destroyed).toBe(true)
})

it('has every method of a TLSSocket, and throws a clear error for what only a handshake knows', async () => {
  const { socket } = await moved()
  const methods = Object.getOwnPropertyNames(tls.TLSSocket.prototype).filter((name) => !name.startsWith('_') && name !== 'constructor')
  expect(methods.length).toBeGreaterThan(15)
  expect(methods.filter((name) => typeof Reflect.get(socket, name) !== 'function')).toEqual([])
  for (const name of ['getCertificate', 'getX509Certificate', 'getSharedSigalgs', 'setKeyCert'] as const) {
    const refused = { code: 'ERR_FEATURE_UNAVAILABLE_ON_PLATFORM', message: `${name}() is not possible on a TLS connection that was moved from another process` }
    expect(() => { socket[name]() }, name).toThrow(expect.objectContaining(refused))
  }
})

it('is an instance of TLSSocket, as programs ask before they trust a client, and inherits no method from it that would need OpenSSL', async () => {
  const { socket } = await moved()
  expect(socket).toBeInstanceOf(tls.TLSSocket)
  const methods = Object.getOwnPropertyNames(tls.TLSSocket.prototype).filter((name) => !name.startsWith('_'))
  expect(methods.filter((name) => !Object.hasOwn(MovedTlsSocket.prototype, name))).toEqual([])
})

it('a log of it shows nothing of its session, which has the master secret in TLS 1.2', async () => {
  const { socket } = await moved({}, { maxVersion: 'TLSv1.2' })
  expect(socket.getSession()!.length).toBeGreaterThan(80)
  expect(inspect(socket, { depth: Infinity })).not.toContain('session')
})

it('a client of TLS 1.2 that negotiates again is told that this is refused', async () => {
  const { pair: { client }, socket } = await moved({}, { maxVersion: 'TLSv1.2' })
  socket.on('error', () => undefined)
  const error = once(client, 'error') as Promise<[Error]>
  client.renegotiate({}, () => undefined)
  expect((await error)[0].message).toMatch(/no renegotiation/)
})

it('keys that change after this side has ended are no error', async () => {
  const pair = await tlsPair({ allowHalfOpen: true })
  await talk(pair)
  const snapshot = snapshotTls(pair.server)
  if ('stays' in snapshot) throw new Error(snapshot.stays)
  const client = clientByHand(pair)
  const fd = native!.duplicate((pair.raw as unknown as { _handle: { fd: number } })._handle.fd)
  const raw = adoptDescriptor(fd, undefined, (bytes) => { socket.arrived(bytes) })
  raw.allowHalfOpen = true
  const cipher = pair.server.getCipher()
  pair.server.destroy()
  const identity = { alpn: false, servername: false, authorized: false, reused: false, cipher } as const
  const socket: MovedTlsSocket = new MovedTlsSocket(raw, snapshot, identity, {})
  onTestFinished(() => {
    socket.destroy()
    client.end()
    pair.end()
  })
  await new Promise<void>((resolve) => { socket.end(resolve) })
  client.socket.write(client.keyUpdate(1))
  client.socket.write(client.record(Buffer.from('after')))
  expect((await take(socket, 5)).toString()).toBe('after')
})
