/** The last close of a listener: the kernel resets what is queued then. */

import { fork } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { closeListener } from '../../helpers/internals.js'
import { programPath } from '../../helpers/program.js'

test('a connect that another process makes as a listener closes is answered or refused, and never reset', async () => {
  const clients = fork(programPath('connects.mjs'))
  onTestFinished(() => { clients.kill('SIGKILL') })
  for (let round = 0; round < 40; round++) {
    const server = net.createServer((socket) => { socket.on('error', () => undefined).resume().end('x') })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const counted = once(clients, 'message')
    clients.send((server.address() as net.AddressInfo).port)
    for (let count = 0; count < 100; count++) await once(server, 'connection')
    closeListener(server)
    const [seen] = (await counted) as [{ answered: number; reset: number; refused: number }]
    expect(seen).toMatchObject({ reset: 0 })
    expect(seen.refused).toBeGreaterThan(0)
    server.close()
  }
})
