/** The variables with the numbers of a channel, in a process that got them without the channel: a program had copied its environment. */

import { closeSync, openSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { socketPair } from '@handover/core/fd'
import { expect, it, onTestFinished } from 'vitest'
import { fdOf, takeInheritance, takeSeat } from '../../../helpers/internals.js'

const close = (...fds: readonly number[]): void => { onTestFinished(() => { for (const fd of fds) closeSync(fd) }) }

async function sockets(): Promise<number[]> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1')
  await new Promise((resolve) => client.once('connect', resolve))
  onTestFinished(() => {
    client.destroy()
    server.close()
  })
  return [fdOf(server)!, fdOf(client)!]
}

it('numbers that do not lead to a channel are passed over, and the variable goes all the same', async () => {
  const [mine, theirs] = socketPair()
  const file = openSync('/dev/null', 'r')
  close(mine, theirs, file)
  const [listening, connected] = await sockets() as [number, number]
  const wrong = [file, listening, connected, -1, 999_999, 2 ** 31, 2 ** 53, NaN].flatMap((fd) => [`${fd},${mine}`, `${mine},${fd}`])
  for (const numbers of wrong) {
    const env = { HANDOVER_SUCCESSOR: numbers, HANDOVER_KEEPER: `${numbers},0,1,shop` }
    expect([numbers, takeInheritance(env), takeSeat(env), env]).toEqual([numbers, undefined, undefined, {}])
  }
  expect(takeInheritance({ HANDOVER_SUCCESSOR: `${mine},${theirs}` })).toEqual({ messages: mine, descriptors: theirs })
})
