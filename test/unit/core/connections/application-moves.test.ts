/** What a program says on a socket after it has called move(). */

import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { ApplicationMoves, type ConnectionSender, type OutgoingConnection } from '../../../helpers/internals.js'
import { waitFor } from '../../../helpers/program.js'

/** A connection, and what is to be sent to a successor. */
async function connected() {
  const server = net.createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [socket] = await once(server, 'connection') as [net.Socket]
  let heard = ''
  let ended = false
  client.on('data', (bytes) => { heard += bytes.toString('latin1') }).on('end', () => { ended = true })
  onTestFinished(() => {
    client.destroy()
    socket.destroy()
    server.close()
  })
  const sent: OutgoingConnection[] = []
  const mover = { takesKind: () => true, send: (connection: OutgoingConnection) => { sent.push(connection) } }
  const move = (): Promise<boolean> =>
    new ApplicationMoves().move(socket, { kind: 'line' }, mover as unknown as ConnectionSender, undefined, '')
  return { client, socket, sent, move, heard: () => heard, ended: () => ended }
}

/** Long enough for bytes to arrive that were sent. */
const turns = async (): Promise<void> => { for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate) }

it('nothing of it is sent, nor an end, from the call on; where the socket stays it all follows, and who waits for drain hears that', async () => {
  const { socket, sent, move, heard, ended } = await connected()
  socket.write('before, ')
  const moved = move()
  expect(socket.write('after')).toBe(false)
  await waitFor(() => sent.length === 1)
  let drained = false
  socket.once('drain', () => { drained = true })
  await turns()
  expect([heard(), drained]).toEqual(['before, ', false])
  sent[0]!.back()
  expect(await moved).toBe(false)
  await waitFor(() => heard() === 'before, after')
  expect(drained).toBe(true)

  const again = move()
  socket.end('the end')
  await waitFor(() => sent.length === 2)
  await turns()
  expect([heard(), ended()]).toEqual(['before, after', false])
  sent[1]!.back()
  expect(await again).toBe(false)
  await waitFor(() => ended())
  expect(heard()).toBe('before, afterthe end')
})

it('nothing of it is sent either while a slow client still reads what came before', async () => {
  const { client, socket, sent, move, heard } = await connected()
  client.pause()
  let bytes = 0
  while (socket.write('x'.repeat(65_536))) bytes += 65_536
  bytes += 65_536
  void move()
  await turns()
  expect(sent).toEqual([])
  socket.write('a line that the successor sends')
  client.resume()
  await waitFor(() => sent.length === 1 && heard().length >= bytes)
  await turns()
  expect(heard()).toBe('x'.repeat(bytes))
  sent[0]!.back()
})

it('what cannot be written is an error of the socket where that stays, and of nobody else', async () => {
  const { socket, sent, move } = await connected()
  const moved = move()
  socket.write(undefined as unknown as string)
  await waitFor(() => sent.length === 1)
  const failed = once(socket, 'error')
  sent[0]!.back()
  expect(await moved).toBe(false)
  expect(await failed).toMatchObject([{ code: 'ERR_INVALID_ARG_TYPE' }])
})

it('where the socket has left, its callbacks hear of an error, and it still says who its client was', async () => {
  const { client, socket, sent, move } = await connected()
  const moved = move()
  const written = new Promise((resolve) => { socket.write('late', resolve) })
  await waitFor(() => sent.length === 1)
  sent[0]!.left()
  expect(await moved).toBe(true)
  expect(await written).toMatchObject({ code: 'ERR_STREAM_DESTROYED' })
  expect(socket.write('later')).toBe(false)
  expect([socket.remoteAddress, socket.remotePort]).toEqual(['127.0.0.1', client.localPort])
})
